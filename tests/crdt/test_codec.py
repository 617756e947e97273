import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.codec import MalformedError, pack, pack_flat, unpack

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
FLAT = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=20), max_leaves=40)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=8), inner, max_size=20),
    max_leaves=40,
)


def depth(value) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(VALUES)
def test_what_is_packed_unpacks_to_itself(value):
    assert unpack(pack(value), bytes_max=2**20, depth_max=100) == value


@given(FLAT)
def test_lists_without_maps_have_a_shorter_way_to_the_same_bytes(value):
    assert pack_flat([value]) == pack([value])


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 100), min_size=2), st.randoms())
def test_the_order_of_a_map_does_not_matter(value, random):
    shuffled = list(value.items())
    random.shuffle(shuffled)
    assert pack(dict(shuffled)) == pack(value)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_canonically_or_are_malformed(data):
    try:
        value = unpack(data, bytes_max=200)
    except MalformedError:
        return
    assert pack(value) == data


@given(VALUES, st.data())
def test_damaged_bytes_decode_canonically_or_are_malformed(value, data):
    damaged = bytearray(pack(value))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = unpack(bytes(damaged), bytes_max=2**20)
    except MalformedError:
        return
    assert pack(decoded) == damaged


@given(VALUES)
def test_depth_is_bounded_exactly(value):
    deep = depth(value)
    assert unpack(pack(value), bytes_max=2**20, depth_max=deep) == value
    if deep:
        with pytest.raises(MalformedError, match="deep"):
            unpack(pack(value), bytes_max=2**20, depth_max=deep - 1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut short"),
        (b"\x01\x02", "1 bytes too many"),
        (b"\xcd\x00\x01", "canonical"),  # 1 in three bytes
        (b"\xd9\x01a", "canonical"),  # a long header for a short string
        (b"\xca\x00\x00\x00\x00", "not used"),  # a float
        (b"\xc7\x01\x05x", "not used"),  # an extension type
        (b"\xc1", "not used"),
        (b"\xa2\xff\xfe", "not MessagePack"),  # not UTF-8
        (b"\x82\xa1b\x01\xa1a\x02", "rising order"),
        (b"\x82\xa1a\x01\xa1a\x02", "rising order"),
        (b"\x81\x01\x02", "strings"),
        (b"\x81\x90\x02", "strings"),
    ],
)
def test_what_is_not_canonical_is_malformed(data, why):
    with pytest.raises(MalformedError, match=why):
        unpack(data, bytes_max=100)


def test_sizes_are_checked_before_anything_is_decoded():
    with pytest.raises(MalformedError, match="11 bytes, at most 10"):
        unpack(pack(b"123456789"), bytes_max=10)
    with pytest.raises(MalformedError, match="more than 3 elements"):
        unpack(pack([1, [2, 3]]), bytes_max=100, items_max=3)


def test_announced_sizes_allocate_nothing():
    bomb = b"\xdd\x00\x01\x00\x00" * 1000  # a thousand nested lists of 65,536
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError):
            unpack(bomb, bytes_max=2**20, depth_max=2000, items_max=2**31)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [1.5, {1: 2}, {"a": object()}, {1, 2}])
def test_what_has_no_canonical_form_is_a_programmers_error(value):
    with pytest.raises(TypeError):
        pack(value)
