import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.codec import pack
from gossip.digest import Mark, Standing
from gossip.errors import MalformedError
from gossip.frame import (
    FRAME_BYTES_MAX,
    ITEMS_MAX,
    NOTICE_BYTES_MAX,
    Buckets,
    Frame,
    Group,
    Items,
    Same,
    Summary,
    Wanted,
    decode_frame,
    encode_frame,
)

NUMBERS = st.integers(0, 2**64 - 1)
MARKS = st.builds(Mark, NUMBERS, NUMBERS, st.sampled_from([Standing.LIVE, Standing.DEAD, Standing.LEFT]))
NODES = st.binary(min_size=16, max_size=16)
NOTICES = st.binary(max_size=20)
IDS = st.lists(NODES, max_size=5).map(tuple)


def groups_of(members: dict[bytes, Mark]) -> tuple[Group, ...]:
    return tuple(
        Group(bucket=bucket, items=tuple(sorted(item for item in members.items() if item[0][0] == bucket)))
        for bucket in sorted({node[0] for node in members})
    )


ITEMS = st.builds(
    lambda more, cut, members: Items(more=more, cut=cut and bool(members), groups=groups_of(members)),
    st.booleans(),
    st.booleans(),
    st.dictionaries(NODES, MARKS, max_size=8),
)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Summary, root=st.binary(min_size=8, max_size=8), count=st.integers(0, 2**32 - 1), notice=NOTICES
    ),
    st.builds(Same, notice=NOTICES),
    st.builds(Buckets, values=st.binary(min_size=2048, max_size=2048), notice=NOTICES),
    ITEMS,
    st.builds(Wanted, more=st.booleans(), whole=IDS, proofs=IDS),
)


@given(FRAMES)
def test_frames_round_trip(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(st.binary(max_size=400) | FRAMES.map(encode_frame).map(lambda data: data[:-1] + b"\xff"))
def test_any_bytes_are_a_frame_or_malformed(data: bytes) -> None:
    try:
        decode_frame(data)
    except MalformedError:
        pass


def test_the_largest_frames_are_within_the_bound() -> None:
    mark = Mark(2**64 - 1, 2**64 - 1, Standing.LEFT)
    nodes = sorted((n % 256).to_bytes(1, "big") + n.to_bytes(15, "big") for n in range(ITEMS_MAX))
    items = Items(more=True, cut=True, groups=groups_of(dict.fromkeys(nodes, mark)))
    assert len(items.groups) == 256
    for frame in (items, Wanted(more=True, whole=tuple(nodes), proofs=tuple(nodes))):
        assert len(encode_frame(frame)) <= FRAME_BYTES_MAX
        assert decode_frame(encode_frame(frame)) == frame


ITEM = bytes(15) + bytes(16) + b"\x01"
LATER = b"\x01" * 15 + bytes(16) + b"\x01"


@pytest.mark.parametrize(
    "values",
    [
        [1, []],
        [7],
        [2, bytes(7), 1, b""],
        [2, bytes(8), -1, b""],
        [2, bytes(8), 2**32, b""],
        [2, bytes(8), 1],
        [2, bytes(8), 1, ""],
        [2, bytes(8), 1, bytes(NOTICE_BYTES_MAX + 1)],
        [3],
        [3, 0],
        [3, bytes(NOTICE_BYTES_MAX + 1)],
        [4, bytes(2047), b""],
        [4, bytes(2048), None],
        [5, 1, False, []],
        [5, True, 0, []],
        [5, False, True, []],
        [5, False, True, [[0, b""]]],
        [5, False, False, [[0, ITEM[:-1]]]],
        [5, False, False, [[0, ITEM[:-1] + b"\x00"]]],
        [5, False, False, [[0, ITEM[:-1] + b"\x04"]]],
        [5, False, False, [[0, ITEM + ITEM]]],
        [5, False, False, [[0, LATER + ITEM]]],
        [5, False, False, [[256, ITEM]]],
        [5, False, False, [[1, ITEM], [0, ITEM]]],
        [5, False, False, [[0, ITEM], [0, LATER]]],
        [5, False, False, [[0]]],
        [5, False, False, [0]],
        [5, False, False, [[0, b""]] * 257],
        [6, False, bytes(15), b""],
        [6, False, b"", bytes(17)],
        [6, False, b"", bytes(16 * (ITEMS_MAX + 1))],
        [6, False, b""],
    ],
)
def test_frames_out_of_shape_are_malformed(values: list[object]) -> None:
    with pytest.raises(MalformedError):
        decode_frame(pack(values))


def test_more_items_than_the_bound_are_malformed_however_they_are_spread() -> None:
    half = b"".join(n.to_bytes(15, "big") + bytes(16) + b"\x01" for n in range(ITEMS_MAX // 2))
    assert decode_frame(pack([5, False, False, [[0, half], [1, half]]]))
    with pytest.raises(MalformedError, match="more than"):
        decode_frame(pack([5, False, False, [[0, half], [1, half], [2, ITEM]]]))


def test_a_frame_too_large_is_refused_unread() -> None:
    with pytest.raises(MalformedError, match="at most"):
        decode_frame(bytes(FRAME_BYTES_MAX + 1))


def test_an_id_says_its_bucket() -> None:
    (group,) = decode_frame(pack([5, False, False, [[7, ITEM]]])).groups
    assert group == Group(bucket=7, items=((b"\x07" + bytes(15), Mark(0, 0, Standing.LIVE)),))


@given(st.sets(st.integers(0, 255)))
def test_the_buckets_that_differ_are_found(numbers: set[int]) -> None:
    ours = bytes(2048)
    theirs = b"".join(bytes(7) + bytes((number in numbers,)) for number in range(256))
    assert Buckets(values=theirs, notice=b"").differing(ours) == sorted(numbers)
