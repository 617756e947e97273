import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.codec import MalformedError, pack, unpack
from crdt.delta import Delta
from crdt.frame import (
    ASK_BYTES_MAX,
    FRAME_BYTES_MAX,
    ITEM_BYTES_MAX,
    SPLIT_WHOLE,
    Answer,
    Ask,
    Frame,
    Item,
    Listing,
    Probe,
    Span,
    answer_bytes,
    decode_frame,
    encode_frame,
)
from crdt.record import SEQ_MAX

IDS = st.binary(min_size=16, max_size=16)
SEQS = st.integers(0, SEQ_MAX)
ITEMS = st.lists(st.builds(Item, IDS, SEQS, st.binary(min_size=8, max_size=8)), max_size=4).map(tuple)
ASKS = st.lists(st.builds(Ask, IDS, SEQS, st.booleans()), max_size=4).map(tuple)


@st.composite
def probes(draw) -> Probe:
    bounds = sorted(draw(st.sets(st.binary(min_size=1, max_size=3), min_size=2, max_size=5)))
    fingerprints = st.binary(min_size=8, max_size=8)
    last = (None, draw(fingerprints))
    return Probe(low=bounds[0], ranges=(*((high, draw(fingerprints)) for high in bounds[1:]), last))


@st.composite
def frames(draw, author) -> Frame:
    items = draw(ITEMS)
    head = draw(st.integers(0, len(author.records)))
    delta = author.journal.delta(author.id, head, 2**30)
    return Frame(
        more=draw(st.booleans()),
        probes=tuple(draw(st.lists(probes(), max_size=2))),
        listings=(Listing(Span(b"", None), items),) if items else (),
        heads=draw(ITEMS),
        asks=draw(ASKS),
        answers=(Answer(delta=delta, introduction=draw(st.none() | st.binary(max_size=9))),),
    )


@pytest.fixture(scope="module")
def author(crdt):
    return crdt.Author(1).write_all([("a", b"1"), ("b", b"2"), ("a", b"3")])


@given(st.data())
def test_a_frame_decodes_to_itself(author, data):
    frame = data.draw(frames(author))
    assert decode_frame(encode_frame(frame)) == frame


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed(data):
    with pytest.raises(MalformedError):
        decode_frame(data)


@given(st.data())
def test_a_damaged_frame_is_malformed_or_another_frame(author, data):
    damaged = bytearray(encode_frame(data.draw(frames(author))))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        frame = decode_frame(bytes(damaged))
    except MalformedError:
        return
    assert encode_frame(frame) == damaged


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.binary(max_size=17) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


@given(st.lists(JSONISH, min_size=5, max_size=5), st.booleans())
def test_well_packed_nonsense_is_malformed_or_a_frame(parts, more):
    data = pack([1, more, *parts])
    try:
        frame = decode_frame(data)
    except MalformedError:
        return
    assert encode_frame(frame) == data


@given(ITEMS, ASKS)
def test_estimates_of_sizes_are_upper_bounds(items, asks):
    empty = len(encode_frame(Frame(more=True)))
    assert len(encode_frame(Frame(more=True, heads=items))) - empty <= len(items) * ITEM_BYTES_MAX
    assert len(encode_frame(Frame(more=True, asks=asks))) - empty <= len(asks) * ASK_BYTES_MAX


def test_the_estimate_of_an_answer_is_an_upper_bound(author):
    answer = Answer(delta=author.journal.delta(author.id, 0, 2**30), introduction=b"c" * 300)
    empty = len(encode_frame(Frame(more=True)))
    assert len(encode_frame(Frame(more=True, answers=(answer,)))) - empty <= answer_bytes(answer)


def bad(author, **parts) -> bytes:
    plain = {"probes": [], "listings": [], "heads": [], "asks": [], "answers": [], **parts}
    return pack([1, False, *plain.values()])


W, C = b"w" * 16, b"c" * 8


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"probes": [[b"", None, C]]}, "16 bytes"),  # the whole range needs the whole fingerprint
        ({"probes": [[b"", b"b", bytes(16)]]}, "8 bytes"),
        ({"probes": [[b"b", b"a", C]]}, "above its beginning"),
        ({"probes": [[b"a", None, C, b"c", C]]}, "after the last"),
        ({"probes": [[b"a"]]}, "pairs"),
        (
            {
                "probes": [
                    [b"a", *[part for n in range(SPLIT_WHOLE + 1) for part in (b"b%c%c" % divmod(n, 256), C)]]
                ]
            },
            "pairs",
        ),
        ({"probes": [[W + b"!", None, C]]}, "prefix"),
        ({"listings": [[b"a", b"b", [W, 1, C]]]}, "outside its range"),
        ({"listings": [[b"x", None, [W, 1, C]]]}, "outside its range"),
        ({"heads": [W, 1]}, "writer, head and check"),
        ({"heads": [W, -1, C]}, "seq"),
        ({"heads": [W, True, C]}, "seq"),
        ({"heads": [W[1:], 1, C]}, "16 bytes"),
        ({"asks": [[W, 1, 1]]}, "stranger"),
        ({"asks": [[W, 1]]}, "list"),
        ({"answers": [[W, 0, 1, 1, None, []]]}, "does not hold"),
        ({"answers": [[W, 0, 0, 0, bytes(4097), []]]}, "few"),
        ({"answers": [[W, 0, 0, 0, None, ["text"]]]}, "records come as bytes"),
        ({"answers": [[W, 0, 1, 1, None, [b"junk"]]]}, "too many|record"),
        ({"answers": {}}, "list"),
    ],
)
def test_each_rule_of_a_frame_is_kept(author, parts, why):
    with pytest.raises(MalformedError, match=why):
        decode_frame(bad(author, **parts))


def test_a_delta_of_anothers_records_is_malformed(author):
    frame = Frame(more=False, answers=(Answer(delta=author.journal.delta(author.id, 0, 2**30)),))
    fields = unpack(encode_frame(frame), bytes_max=FRAME_BYTES_MAX)
    fields[6][0][0] = W
    with pytest.raises(MalformedError, match="another writer"):
        decode_frame(pack(fields))


def test_a_frame_past_its_bound_is_malformed():
    with pytest.raises(MalformedError, match="at most"):
        decode_frame(bytes(FRAME_BYTES_MAX + 1))


def test_a_frame_knows_whether_it_says_anything():
    assert Frame(more=True).empty
    assert not Frame(more=False, asks=(Ask(W, 0, False),)).empty
    nothing = Delta(writer=W, after=3, upto=3, target=3)
    assert not Frame(more=False, answers=(Answer(delta=nothing),)).empty
