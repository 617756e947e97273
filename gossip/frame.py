"""The frames by which two sides of a stream find out where their member lists differ (gossip/sync.py says when).

    [1, [statement, ...]]                    a chunk; decoded by who weighs it, `decode_members`
    [2, root, count, notice]                 Summary
    [3, notice]                              Same
    [4, 256 values, notice]                  Buckets
    [5, more, cut, [[bucket, items], ...]]   Items
    [6, more, ids, ids]                      Wanted

A notice is a chunk too: what the sender holds against the receiver itself, mostly nothing.

A node id starts with the number of its bucket, so an item is the other 15 bytes of the id, the rank and the class: 32
bytes, and an id in the wrong bucket cannot be said. Groups and the items in them rise; each group is all there is in
its bucket beyond what was listed before, save that `cut` leaves the end of the last one to the next frame. That way
a bucket of any size fits, in as many frames as it takes.

Invariant: a frame decodes to what it says within its bounds, or MalformedError is raised.
"""

import itertools
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from gossip.codec import as_array, as_bool, as_bytes, as_uint, pack, unpack_array
from gossip.digest import BUCKETS, ROOT_BYTES, Mark, Standing
from gossip.errors import MalformedError
from trust.identity import ID_BYTES

FRAME_BYTES_MAX: Final = 64 * 1024
ITEMS_MAX: Final = 1920  # in one frame: 60 kB, and 3 kB of room for 256 groups
NOTICE_BYTES_MAX: Final = 2048  # all that can be said against one member: a Dead, or three suspicions
COUNT_MAX: Final = 2**32 - 1

_SUMMARY, _SAME, _BUCKETS, _ITEMS, _WANTED = 2, 3, 4, 5, 6
_ITEM: Final = struct.Struct(f">{ID_BYTES - 1}sQQB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The sender's whole list in a few bytes."""

    root: bytes
    count: int
    notice: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """The sender's list is the same."""

    notice: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """Eight bytes for each bucket of the sender's list."""

    values: bytes
    notice: bytes

    def differing(self, values: bytes) -> list[int]:
        """The buckets whose values are other than those in `values`."""
        return [
            number
            for number in range(BUCKETS)
            if self.values[ROOT_BYTES * number : ROOT_BYTES * (number + 1)]
            != values[ROOT_BYTES * number : ROOT_BYTES * (number + 1)]
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What the sender has in one bucket."""

    bucket: int
    items: tuple[tuple[bytes, Mark], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The sender's side of some buckets. `more`: it has not listed, or not told, all it has to."""

    more: bool
    cut: bool
    groups: tuple[Group, ...]

    @property
    def asks(self) -> bool:
        """Whether it wants an answer: what the other side has there."""
        return bool(self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Of whom the sender wants everything, and of whom the proofs only. `more`: it has not told all it has to."""

    more: bool
    whole: tuple[bytes, ...]
    proofs: tuple[bytes, ...]

    @property
    def asks(self) -> bool:
        """Whether it wants an answer."""
        return bool(self.whole or self.proofs)


Frame: TypeAlias = Summary | Same | Buckets | Items | Wanted


def encode_frame(frame: Frame) -> bytes:
    """The bytes that then travel."""
    match frame:
        case Summary(root=root, count=count, notice=notice):
            return pack([_SUMMARY, root, count, notice])
        case Same(notice=notice):
            return pack([_SAME, notice])
        case Buckets(values=values, notice=notice):
            return pack([_BUCKETS, values, notice])
        case Items(more=more, cut=cut, groups=groups):
            return pack([_ITEMS, more, cut, [[group.bucket, _packed(group)] for group in groups]])
        case Wanted(more=more, whole=whole, proofs=proofs):
            return pack([_WANTED, more, b"".join(whole), b"".join(proofs)])


def decode_frame(data: bytes) -> Frame:
    """Inverse of `encode_frame`. Raises MalformedError."""
    match unpack_array(data, size_max=FRAME_BYTES_MAX):
        case [kind, root, count, notice] if kind == _SUMMARY:
            return Summary(
                root=as_bytes(root, "root", size=ROOT_BYTES),
                count=as_uint(count, "count", maximum=COUNT_MAX),
                notice=_notice(notice),
            )
        case [kind, notice] if kind == _SAME:
            return Same(notice=_notice(notice))
        case [kind, values, notice] if kind == _BUCKETS:
            return Buckets(
                values=as_bytes(values, "buckets", size=BUCKETS * ROOT_BYTES), notice=_notice(notice)
            )
        case [kind, more, cut, groups] if kind == _ITEMS:
            return _items(as_bool(more, "more"), as_bool(cut, "cut"), groups)
        case [kind, more, whole, proofs] if kind == _WANTED:
            return Wanted(more=as_bool(more, "more"), whole=_ids(whole), proofs=_ids(proofs))
        case _:
            raise MalformedError("no known frame")


def _notice(value: object) -> bytes:
    return as_bytes(value, "notice", size_max=NOTICE_BYTES_MAX)


def _packed(group: Group) -> bytes:
    return b"".join(
        _ITEM.pack(node[1:], mark.boot, mark.incarnation, mark.standing) for node, mark in group.items
    )


def _items(more: bool, cut: bool, groups: object) -> Items:
    decoded = tuple(_group(group) for group in as_array(groups, "groups", length_max=BUCKETS))
    if any(one.bucket >= other.bucket for one, other in itertools.pairwise(decoded)):
        raise MalformedError("groups: not in order")
    if sum(len(group.items) for group in decoded) > ITEMS_MAX:
        raise MalformedError(f"groups: more than {ITEMS_MAX} items")
    if cut and not (decoded and decoded[-1].items):
        raise MalformedError("groups: cut behind nothing")
    return Items(more=more, cut=cut, groups=decoded)


def _group(value: object) -> Group:
    match value:
        case [number, packed]:
            bucket = as_uint(number, "bucket", maximum=BUCKETS - 1)
            data = as_bytes(packed, "items", size_max=ITEMS_MAX * _ITEM.size)
        case _:
            raise MalformedError("groups: not pairs of bucket and items")
    if len(data) % _ITEM.size:
        raise MalformedError("items: not whole")
    prefix, items = bytes((bucket,)), []
    for rest, boot, incarnation, standing in _ITEM.iter_unpack(data):
        if not Standing.LIVE <= standing <= Standing.LEFT:
            raise MalformedError("items: no known class")
        items.append((prefix + rest, Mark(boot, incarnation, Standing(standing))))
    if any(one[0] >= other[0] for one, other in itertools.pairwise(items)):
        raise MalformedError("items: not in order")
    return Group(bucket=bucket, items=tuple(items))


def _ids(value: object) -> tuple[bytes, ...]:
    data = as_bytes(value, "ids", size_max=ITEMS_MAX * ID_BYTES)
    if len(data) % ID_BYTES:
        raise MalformedError("ids: not whole")
    return tuple(data[at : at + ID_BYTES] for at in range(0, len(data), ID_BYTES))
