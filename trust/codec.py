"""The one wire form of signed trust objects: a flat MessagePack array whose encoding is unique.

A signature is only as good as the certainty about what was signed, so a value has exactly one encoding: an array
of fixed length, no maps, smallest integer forms. `Reader` packs what it unpacked again and refuses bytes that
differ (a second encoding of the same content would pass as another object: another hash, same signature).
Signed bytes start with a label of their own (`signed_bytes`), so that a signature made for one purpose can
never be shown as one for another; X.509 TBS bytes start with 0x30 and no label does.

Invariant: sizes are checked before anything is parsed, and a decoder reads every field or raises.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias, TypeVar

import msgpack

from trust.errors import TrustError

Field: TypeAlias = "bytes | str | int | bool | Sequence[str]"

_E = TypeVar("_E", bound=TrustError)

UNIX_S_MAX: Final = 253_402_300_799  # 9999-12-31, the last instant X.509 can name (RFC 5280, 4.1.2.5)


def pack(fields: Sequence[Field]) -> bytes:
    """The canonical encoding of `fields`."""
    packed: bytes = msgpack.packb(list(fields), use_bin_type=True)
    return packed


def signed_bytes(label: bytes, fields: Sequence[Field]) -> bytes:
    """What a signature under `label` covers."""
    return label + b"\0" + pack(fields)


class Reader:
    """Reads the fields of one packed array in order; each mismatch raises `error`, naming `what`."""

    __slots__ = ("_error", "_next", "_values", "_what")

    def __init__(
        self, data: bytes, *, count: int, bytes_max: int, what: str, error: type[TrustError]
    ) -> None:
        self._what, self._error, self._next = what, error, 0
        if len(data) > bytes_max:
            raise error(f"{what} has {len(data)} bytes, at most {bytes_max} are allowed")
        try:
            values = msgpack.unpackb(data, raw=False, use_list=True)
        except (ValueError, TypeError, msgpack.UnpackException):
            raise error(f"this is not {what}: the bytes do not decode") from None
        if not isinstance(values, list) or len(values) != count:
            raise error(f"this is not {what}: it should have {count} fields")
        try:
            canonical = msgpack.packb(values, use_bin_type=True) == data
        except (ValueError, TypeError, OverflowError):
            canonical = False
        if not canonical:
            raise error(f"{what} is not in its canonical encoding")
        self._values: list[object] = values

    def raw(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        value = self._take()
        if not isinstance(value, bytes) or len(value) != size:
            raise self._wrong(f"{size} bytes")
        return value

    def blob(self, bytes_max: int) -> bytes:
        """At most `bytes_max` bytes."""
        value = self._take()
        if not isinstance(value, bytes) or len(value) > bytes_max:
            raise self._wrong(f"at most {bytes_max} bytes")
        return value

    def text(self, chars_max: int) -> str:
        """At most `chars_max` characters."""
        value = self._take()
        if not isinstance(value, str) or len(value) > chars_max:
            raise self._wrong(f"text of at most {chars_max} characters")
        return value

    def integer(self, maximum: int = UNIX_S_MAX) -> int:
        """An integer in 0..maximum."""
        value = self._take()
        if type(value) is not int or not 0 <= value <= maximum:
            raise self._wrong(f"an integer from 0 to {maximum}")
        return value

    def flag(self) -> bool:
        """True or false."""
        value = self._take()
        if not isinstance(value, bool):
            raise self._wrong("true or false")
        return value

    def texts(self, count_max: int, chars_max: int) -> tuple[str, ...]:
        """At most `count_max` texts of at most `chars_max` characters."""
        value = self._take()
        if not isinstance(value, list) or len(value) > count_max:
            raise self._wrong(f"a list of at most {count_max} texts")
        texts = tuple(item for item in value if isinstance(item, str) and len(item) <= chars_max)
        if len(texts) != len(value):
            raise self._wrong(f"a list of texts of at most {chars_max} characters")
        return texts

    def _take(self) -> object:
        value = self._values[self._next]
        self._next += 1
        return value

    def _wrong(self, expected: str) -> TrustError:
        return self._error(f"this is not {self._what}: field {self._next} should be {expected}")
