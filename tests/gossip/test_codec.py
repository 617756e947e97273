import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.codec import as_bool, as_bytes, as_text, as_uint, pack, pack_address, unpack_address, unpack_array
from gossip.errors import MalformedError


@given(st.binary(max_size=300))
def test_any_bytes_give_an_array_or_malformed(data: bytes) -> None:
    try:
        assert isinstance(unpack_array(data, size_max=256), list)
    except MalformedError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x91\x81\x01\x02",
        b"\xd6\xff\0\0\0\0",
        b"\x91" * 3000,
        b"\xdd\xff\xff\xff\xff",
        b"\x90\x90",
        b"\xc1",
    ],
)
def test_maps_extensions_depth_and_lies_about_length_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        unpack_array(data, size_max=4000, length=1)


def test_size_is_checked_before_decoding() -> None:
    with pytest.raises(MalformedError, match="at most 10"):
        unpack_array(pack([b"x" * 100]), size_max=10)


@pytest.mark.parametrize(
    "host", ["224.0.0.1", "0.0.0.0", "255.255.255.255", "::", "ff02::1", "example.org", ""]
)
def test_only_unicast_literals_are_addresses(host: str) -> None:
    with pytest.raises(MalformedError):
        pack_address((host, 7946))


def test_addresses_round_trip_in_both_families() -> None:
    for address in (("127.0.0.3", 1), ("10.1.2.3", 65535), ("fd00::1", 7946)):
        assert unpack_address(*pack_address(address)) == address
    with pytest.raises(MalformedError):
        pack_address(("10.0.0.1", 0))


def test_fields_refuse_other_types_and_ranges() -> None:
    for reader in (
        lambda: as_uint(True, "n"),
        lambda: as_uint(-1, "n"),
        lambda: as_uint(2**64, "n"),
        lambda: as_bool(1, "b"),
        lambda: as_bytes("x", "d", size=1),
        lambda: as_bytes(b"xx", "d", size=1),
        lambda: as_bytes(b"xx", "d", size_max=1),
        lambda: as_text(b"x", "t", size_max=1),
        lambda: as_text("éé", "t", size_max=3),
    ):
        with pytest.raises(MalformedError):
            reader()
