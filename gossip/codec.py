"""Bounded MessagePack: sizes are checked before anything is decoded, shapes and ranges right after.

No maps and no extension types exist on this wire, so nothing is hashed and nothing is instantiated from bytes;
nesting is bounded by MessagePack's own stack limit and by the array length. Every reader of one field raises
MalformedError naming the field.
"""

from functools import lru_cache
from ipaddress import ip_address
from typing import Final

import msgpack

from gossip.errors import MalformedError

UINT64_MAX: Final = 2**64 - 1
_ARRAY_MAX: Final = 1024
_STRING_BYTES_MAX: Final = 256
_PACKER: Final = msgpack.Packer(use_bin_type=True)  # one for all: each has a large buffer of its own


def pack(value: list[object]) -> bytes:
    """The MessagePack form of nested lists of bytes, str, int and bool."""
    packed: bytes = _PACKER.pack(value)
    return packed


def unpack_array(data: bytes, *, size_max: int, length: int | None = None) -> list[object]:
    """The array that `data` is, of exactly `length` elements if given. Raises MalformedError."""
    if len(data) > size_max:
        raise MalformedError(f"{len(data)} bytes, at most {size_max}")
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            max_str_len=_STRING_BYTES_MAX,
            max_bin_len=size_max,
            max_array_len=_ARRAY_MAX,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise MalformedError("not MessagePack within bounds") from error
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise MalformedError("not an array of the expected length")
    return value


def as_array(value: object, field: str, *, length_max: int) -> list[object]:
    """`value` if it is an array of at most `length_max` elements."""
    if not isinstance(value, list) or len(value) > length_max:
        raise MalformedError(f"{field}: not an array of at most {length_max}")
    return value


def as_bytes(value: object, field: str, *, size: int | None = None, size_max: int = 0) -> bytes:
    """`value` if it is bytes of exactly `size`, or of at most `size_max`."""
    if not isinstance(value, bytes) or (len(value) != size if size is not None else len(value) > size_max):
        raise MalformedError(f"{field}: not {size if size is not None else f'at most {size_max}'} bytes")
    return value


def as_uint(value: object, field: str, *, maximum: int = UINT64_MAX) -> int:
    """`value` if it is an integer in 0..maximum."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise MalformedError(f"{field}: not an integer in 0..{maximum}")
    return value


def as_bool(value: object, field: str) -> bool:
    """`value` if it is a bool."""
    if not isinstance(value, bool):
        raise MalformedError(f"{field}: not a bool")
    return value


def as_text(value: object, field: str, *, size_max: int) -> str:
    """`value` if it is a string of at most `size_max` bytes of UTF-8."""
    if not isinstance(value, str) or len(value.encode()) > size_max:
        raise MalformedError(f"{field}: not text of at most {size_max} bytes")
    return value


@lru_cache(maxsize=1024)
def pack_address(address: tuple[str, int]) -> tuple[bytes, int]:
    """(4 or 16 bytes, port). Raises MalformedError unless it is a unicast IP literal with a port. Every statement of a
    member that is told on has its address in it: the latest are remembered."""
    host, port = address
    try:
        packed = ip_address(host).packed
    except ValueError as error:
        raise MalformedError(f"address {host!r} is not an IP literal") from error
    unpack_address(packed, port)
    return packed, port


def unpack_address(host: object, port: object) -> tuple[str, int]:
    """Inverse of `pack_address`: literals only (a name would make the receiver ask DNS), unicast only (anything
    else would make it a reflector)."""
    packed = as_bytes(host, "host", size_max=16)
    if len(packed) not in (4, 16):
        raise MalformedError("host: neither IPv4 nor IPv6")
    address = ip_address(packed)
    if address.is_multicast or address.is_unspecified or packed == b"\xff\xff\xff\xff":
        raise MalformedError("host: not a unicast address")
    number = as_uint(port, "port", maximum=65535)
    if number == 0:
        raise MalformedError("port: 0")
    return str(address), number
