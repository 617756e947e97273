"""Canonical MessagePack with bounds: one value has one encoding, and hostile bytes cost no more than their length.

Canonical means: shortest integer and length forms, maps with string keys in rising order, no floats, no extension
types. Signatures and fingerprints are taken over these bytes.

Decoding walks the headers before anything is allocated. MessagePack lets five bytes announce 2^32 elements, and a
decoder that trusts them pre-allocates; nested, a small packet would cost gigabytes.

Invariant: `unpack(data)` returns `value` only if `pack(value) == data`; any other input raises MalformedError.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgpack

DEPTH_MAX: Final = 8
ITEMS_MAX: Final = 65_536


class CrdtError(ValueError):
    """Base of what this package raises. Nothing was changed unless the error's own docstring says so."""


class MalformedError(CrdtError):
    """Bytes that are not what they should be. Nothing was changed."""


def pack(value: Any) -> bytes:
    """Encode None, bools, 64-bit integers, strings, bytes, lists or tuples, and maps with string keys.

    Raises TypeError on anything else: that is a programmer's error.
    """
    packed: bytes = msgpack.packb(_canonical(value), use_bin_type=True)
    return packed


def pack_flat(values: list[Any]) -> bytes:
    """`pack` for lists that hold no map at any depth: the same bytes, without the search for maps."""
    packed: bytes = msgpack.packb(values, use_bin_type=True)
    return packed


def unpack(data: bytes, *, bytes_max: int, depth_max: int = DEPTH_MAX, items_max: int = ITEMS_MAX) -> Any:
    """Decode canonical bytes. `items_max` counts elements over all lists and maps. Raises MalformedError."""
    if len(data) > bytes_max:
        raise MalformedError(f"{len(data)} bytes, at most {bytes_max}")
    _scan(data, depth_max, items_max)
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=False, object_pairs_hook=_canonical_map)
        canonical = pack(value)
    except MalformedError:
        raise
    except (ValueError, msgpack.UnpackException) as error:
        raise MalformedError(f"not MessagePack: {error}") from error
    if canonical != data:
        raise MalformedError("not in canonical form")
    return value


def _canonical(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_canonical(element) for element in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("map keys must be strings")
        return {key: _canonical(value[key]) for key in sorted(value)}
    if value is None or isinstance(value, int | str | bytes):
        return value
    raise TypeError(f"no canonical form for {type(value).__name__}")


def _canonical_map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    previous: str | None = None
    for key, _ in pairs:
        if not isinstance(key, str) or (previous is not None and key <= previous):
            raise MalformedError("map keys must be strings in rising order")
        previous = key
    return dict(pairs)


# What a leading byte says. Scalars: bytes that follow. Lengths: (width of the length field, what it counts).
_SCALAR: Final = {
    0xC0: 0,
    0xC2: 0,
    0xC3: 0,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}
_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_CONTAINER: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _scan(data: bytes, depth_max: int, items_max: int) -> None:
    """Walk the headers: depth, element count and lengths are in bounds and the bytes are used up exactly."""
    position, size, items = 0, len(data), 0
    pending = [1]  # values still to come, innermost list last
    while pending:
        if pending[-1] == 0:
            pending.pop()
            continue
        pending[-1] -= 1
        if position >= size:
            raise MalformedError("cut short")
        lead = data[position]
        position += 1
        elements = -1
        if lead < 0x80 or lead >= 0xE0:  # one-byte integers
            continue
        if lead >= 0xA0 and lead < 0xC0:
            position += lead & 0x1F
        elif lead < 0x90:
            elements = 2 * (lead & 0x0F)
        elif lead < 0xA0:
            elements = lead & 0x0F
        elif lead in _SCALAR:
            position += _SCALAR[lead]
        elif lead in _BYTES:
            width = _BYTES[lead]
            position += width + int.from_bytes(data[position : position + width], "big")
        elif lead in _CONTAINER:
            width, each = _CONTAINER[lead]
            elements = each * int.from_bytes(data[position : position + width], "big")
            position += width
        else:
            raise MalformedError(f"type 0x{lead:02x} is not used here")
        if position > size:
            raise MalformedError("cut short")
        if elements >= 0:
            items += elements
            if items > items_max:
                raise MalformedError(f"more than {items_max} elements")
            if len(pending) > depth_max:
                raise MalformedError(f"nested more than {depth_max} deep")
            pending.append(elements)
    if position != size:
        raise MalformedError(f"{size - position} bytes too many")
