"""A key held in shares: what everybody may know of it, and what one participant keeps.

The public half (`GroupKey`) names the root, how many shares a signature takes, and each participant's *verifying
share* (its share times the base point), with which a lying signer is told from an honest one (RFC 9591, 5.4). It
belongs to one epoch: refresh and resharing change every share and leave the root as it is. The secret half (`KeyShare`)
never leaves its holder.

A node's identifier is its node id as a scalar: 128 bits that nobody hands out, the same in each epoch, and different
for different nodes for the reason that node ids are.

Invariant: a GroupKey that was decoded or checked is one polynomial: every t of its verifying shares give the root.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

from trust.codec import Reader, pack
from trust.errors import AuthorityError, GroupError
from trust.group import POINT_BYTES, SCALAR_BYTES, Point, Scalar, Secret, decode_point, decode_scalar
from trust.identity import ID_BYTES
from trust.polynomial import PARTICIPANTS_MAX, check_identifiers, interpolate_points

EPOCH_MAX: Final = (1 << 32) - 1
GROUP_KEY_BYTES_MAX: Final = 64 + PARTICIPANTS_MAX * (SCALAR_BYTES + POINT_BYTES)

_ENTRY_BYTES: Final = SCALAR_BYTES + POINT_BYTES


def identifier_of(node: bytes) -> Scalar:
    """The identifier of a node in every group it belongs to."""
    assert len(node) == ID_BYTES, "a node id is 16 bytes"
    return decode_scalar(node + bytes(SCALAR_BYTES - ID_BYTES))


def node_of(identifier: Scalar) -> bytes:
    """Inverse of `identifier_of`. Raises GroupError for an identifier that is no node's."""
    if len(identifier) != SCALAR_BYTES or any(identifier[ID_BYTES:]):
        raise GroupError("the identifier is not that of a node")
    return identifier[:ID_BYTES]


def in_order(identifiers: Iterable[Scalar]) -> list[Scalar]:
    """Ascending as integers, the order in which RFC 9591 lists participants. Identifiers are public."""
    return sorted(identifiers, key=lambda identifier: identifier[::-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKey:
    """The public half. Make it with `group_key` or `decode_group_key`, which check it."""

    public: Point
    threshold: int
    members: tuple[tuple[Scalar, Point], ...]  # identifier and verifying share, ascending
    epoch: int = 0

    @property
    def identifiers(self) -> tuple[Scalar, ...]:
        """Of all participants, ascending."""
        return tuple(identifier for identifier, _ in self.members)

    def verifying_share(self, identifier: Scalar) -> Point:
        """Raises GroupError if there is no such participant."""
        for member, point in self.members:
            if member == identifier:
                return point
        raise GroupError("the participant does not belong to the group")

    def encode(self) -> bytes:
        """The wire form."""
        table = b"".join(identifier + point for identifier, point in self.members)
        return pack([self.public, self.threshold, self.epoch, table])


def group_key(
    public: Point, threshold: int, members: Iterable[tuple[Scalar, Point]], *, epoch: int = 0
) -> GroupKey:
    """The checked public half: about a third of a millisecond for each of (n - t) * t products. Raises AuthorityError
    when the parts do not belong together."""
    rows = list(members)
    entries = dict(rows)
    try:
        check_identifiers([identifier for identifier, _ in rows])
        identifiers = in_order(decode_scalar(identifier) for identifier in entries)
        for point in entries.values():
            decode_point(point)
        decode_point(public)
    except GroupError as error:
        raise AuthorityError(f"this is not a group key: {error}") from None
    if not 1 <= threshold <= len(identifiers):
        raise AuthorityError(
            f"a threshold of {threshold} among {len(identifiers)} participants is not possible"
        )
    if not 0 <= epoch <= EPOCH_MAX:
        raise AuthorityError(f"an epoch is a number from 0 to {EPOCH_MAX}")
    base = {identifier: entries[identifier] for identifier in identifiers[:threshold]}
    if interpolate_points(base) != public:
        raise AuthorityError("the verifying shares are not those of the root")
    for identifier in identifiers[threshold:]:
        if interpolate_points(base, identifier) != entries[identifier]:
            raise AuthorityError("the verifying shares do not lie on one polynomial")
    table = tuple((identifier, entries[identifier]) for identifier in identifiers)
    return GroupKey(public=public, threshold=threshold, members=table, epoch=epoch)


def decode_group_key(data: bytes) -> GroupKey:
    """Inverse of `GroupKey.encode`, checked as by `group_key`. Raises AuthorityError."""
    reader = Reader(data, count=4, bytes_max=GROUP_KEY_BYTES_MAX, what="a group key", error=AuthorityError)
    public = reader.raw(POINT_BYTES)
    threshold, epoch = reader.integer(PARTICIPANTS_MAX), reader.integer(EPOCH_MAX)
    table = reader.blob(PARTICIPANTS_MAX * _ENTRY_BYTES)
    rows = [table[at : at + _ENTRY_BYTES] for at in range(0, len(table), _ENTRY_BYTES)]
    if any(len(row) != _ENTRY_BYTES for row in rows):
        raise AuthorityError("this is not a group key: its table of participants is cut off")
    members = [(row[:SCALAR_BYTES], row[SCALAR_BYTES:]) for row in rows]
    if members != sorted(members, key=lambda member: member[0][::-1]):
        raise AuthorityError("this is not a group key: its participants are not in order")
    return group_key(public, threshold, members, epoch=epoch)


class KeyShare:
    """The secret half of one participant. Neither printed nor pickled. Raises AuthorityError if `secret` is not the
    share that `group` has for `identifier`."""

    __slots__ = ("group", "identifier", "secret")

    def __init__(self, group: GroupKey, identifier: Scalar, secret: Secret) -> None:
        try:
            expected = group.verifying_share(identifier)
        except GroupError as error:
            raise AuthorityError(str(error)) from None
        if secret.public() != expected:
            raise AuthorityError("the share is not the one the group has for this participant")
        self.group = group
        self.identifier = identifier
        self.secret = secret

    def wipe(self) -> None:
        """Forget the share, as when its epoch is over."""
        self.secret.wipe()

    def __repr__(self) -> str:
        return f"KeyShare(root={self.group.public.hex()}, epoch={self.group.epoch}, {self.secret!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyShare is never copied or pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()
