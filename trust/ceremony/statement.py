"""What participants of a ceremony sign, one envelope for all of it, and the frames it travels in.

A statement says who (the public key, which is the node's id hashed less), in which ceremony, in which attempt, of which
kind, to whom (a share only), and what. Everything is signed with the node key although the streams are authenticated:
a statement can be shown to others, so that whoever says two things at the same place, or deals a wrong share,
has made the evidence against itself, and so that anybody may pass on what another one missed.

An honest node makes at most one statement for each (attempt, kind, recipient); it stores it before it sends it.

    frame = ceremony (32 bytes) | sort (1 byte) | content

Invariant: sizes are bounded by kind before a signature is checked, and what fails the signature is not looked into.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Final, TypeAlias, assert_never

import msgpack

from trust.ceremony.electorate import DIGEST_BYTES, SIGNERS_MAX
from trust.codec import Field, Reader, pack, signed_bytes
from trust.errors import CeremonyError
from trust.identity import ID_BYTES, KEY_BYTES, SIGNATURE_BYTES, NodeIdentity, node_id, verify

FRAME_BYTES_MAX: Final = 96 * 1024
ATTEMPT_MAX: Final = (1 << 48) - 1

_LABEL: Final = b"gossamer/ceremony/1"
_ENVELOPE_BYTES: Final = 256


@unique
class Kind(IntEnum):
    """In the order in which they are made. Numbers are on the wire."""

    JOIN = 1  # I am here for this attempt, and for no earlier one any more
    OPEN = 2  # the leader: these deal to those
    DEAL = 3  # commitments to my polynomial, proof that I know it
    ECHO = 4  # these are the dealings I hold
    SHARE = 5  # to one recipient: your point of my polynomial
    ACCEPT = 6  # all my shares were right; my nonce commitments
    PROVE = 7  # my part of the new group's signature
    PREPARE = 8  # elector: the new group has proved itself
    CONFIRM = 9  # elector: a quorum prepared this; I am bound to it
    ACCUSE = 10  # these statements convict their author


_SMALL: Final = 1024
BODY_BYTES_MAX: Final = {
    Kind.JOIN: _SMALL,
    Kind.OPEN: 64 * 1024,
    Kind.DEAL: _SMALL,
    Kind.ECHO: _SMALL,
    Kind.SHARE: 128,
    Kind.ACCEPT: 256,
    Kind.PROVE: 256,
    Kind.PREPARE: 64,
    Kind.CONFIRM: 64,
    Kind.ACCUSE: 80 * 1024,
}
STATEMENT_BYTES_MAX: Final = max(BODY_BYTES_MAX.values()) + _ENVELOPE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """`sender` (public key) says `body`. The body is not printed: a share is one."""

    ceremony: bytes
    sender: bytes
    attempt: int
    kind: Kind
    recipient: bytes = b""  # node id, of a share only
    body: bytes = field(repr=False)
    signature: bytes = field(default=b"\0" * SIGNATURE_BYTES, repr=False)

    @property
    def node(self) -> bytes:
        """The sender's node id."""
        return node_id(self.sender)

    @property
    def digest(self) -> bytes:
        """SHA-256 of what is signed."""
        return hashlib.sha256(self.signing_bytes()).digest()

    def signing_bytes(self) -> bytes:
        """What the sender signs."""
        return signed_bytes(_LABEL, self._fields())

    def encode(self) -> bytes:
        """The wire form."""
        return pack([*self._fields(), self.signature])

    @property
    def genuine(self) -> bool:
        """Whether the sender signed it."""
        return verify(self.sender, self.signing_bytes(), self.signature)

    def _fields(self) -> list[Field]:
        return [self.ceremony, self.sender, self.attempt, int(self.kind), self.recipient, self.body]


def state(
    identity: NodeIdentity, ceremony: bytes, attempt: int, kind: Kind, body: bytes, recipient: bytes = b""
) -> Statement:
    """A statement of this node, signed."""
    assert len(body) <= BODY_BYTES_MAX[kind], "own statements fit"
    draft = Statement(
        ceremony=ceremony, sender=identity.public_key, attempt=attempt, kind=kind, recipient=recipient, body=body
    )  # fmt: skip
    return Statement(
        ceremony=ceremony, sender=identity.public_key, attempt=attempt, kind=kind, recipient=recipient, body=body,
        signature=identity.sign(draft.signing_bytes()),
    )  # fmt: skip


def decode_statement(data: bytes) -> Statement:
    """Inverse of `Statement.encode`. Raises CeremonyError. The signature is not checked."""
    reader = Reader(
        data, count=7, bytes_max=STATEMENT_BYTES_MAX, what="a ceremony's statement", error=CeremonyError
    )
    ceremony, sender = reader.raw(DIGEST_BYTES), reader.raw(KEY_BYTES)
    attempt, number = reader.integer(ATTEMPT_MAX), reader.integer(len(Kind))
    try:
        kind = Kind(number)
    except ValueError:
        raise CeremonyError("a ceremony has no statements of this kind") from None
    recipient = reader.raw(ID_BYTES if kind is Kind.SHARE else 0)
    return Statement(
        ceremony=ceremony, sender=sender, attempt=attempt, kind=kind, recipient=recipient,
        body=reader.blob(BODY_BYTES_MAX[kind]), signature=reader.raw(SIGNATURE_BYTES),
    )  # fmt: skip


def pack_many(items: Sequence[bytes]) -> bytes:
    """Byte strings as one; `unpack_many` is the inverse."""
    packed: bytes = msgpack.packb(list(items), use_bin_type=True)
    return packed


def unpack_many(data: bytes, *, count_max: int = 2 * SIGNERS_MAX) -> tuple[bytes, ...]:
    """Inverse of `pack_many`, in its one encoding. `data` has been bounded by whoever cut it out. Raises
    CeremonyError."""
    try:
        values = msgpack.unpackb(data, raw=False, use_list=True)
    except (ValueError, TypeError, msgpack.UnpackException):
        raise CeremonyError("this is not a list of byte strings") from None
    if not isinstance(values, list) or len(values) > count_max:
        raise CeremonyError(f"this is not a list of at most {count_max} byte strings")
    items = tuple(value for value in values if isinstance(value, bytes))
    if len(items) != len(values) or pack_many(items) != data:
        raise CeremonyError("this is not a list of byte strings")
    return items


# ------------------------------------------------------------------ frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A statement, the sender's own or passed on."""

    statement: Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """The sender is in `attempt` and holds of the receiver's own statements those of `kinds` (a bit each)."""

    attempt: int
    kinds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A value to which electors are bound, and the statements that bind them."""

    value: bytes = field(repr=False)
    prepares: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The outcome: an epoch record."""

    record: bytes = field(repr=False)


Frame: TypeAlias = Said | Want | Locked | Closed


def encode_frame(ceremony: bytes, frame: Frame) -> bytes:
    """The wire form."""
    match frame:
        case Said():
            content = b"s" + frame.statement.encode()
        case Want():
            content = b"w" + pack([frame.attempt, frame.kinds])
        case Locked():
            content = b"l" + pack([frame.value, pack_many(frame.prepares)])
        case Closed():
            content = b"c" + frame.record
        case _:
            assert_never(frame)
    return ceremony + content


def ceremony_of(data: bytes) -> bytes:
    """Which ceremony a frame belongs to: how a driver finds the machine. Raises CeremonyError."""
    if not DIGEST_BYTES < len(data) <= FRAME_BYTES_MAX:
        raise CeremonyError(f"a ceremony's frame has at most {FRAME_BYTES_MAX} bytes, not {len(data)}")
    return data[:DIGEST_BYTES]


def decode_frame(data: bytes) -> Frame:
    """Inverse of `encode_frame`. Raises CeremonyError. Nothing is verified."""
    ceremony = ceremony_of(data)
    sort, content = data[DIGEST_BYTES : DIGEST_BYTES + 1], data[DIGEST_BYTES + 1 :]
    if sort == b"s":
        statement = decode_statement(content)
        if statement.ceremony != ceremony:
            raise CeremonyError("the statement is of another ceremony than its frame")
        return Said(statement=statement)
    if sort == b"w":
        reader = Reader(content, count=2, bytes_max=32, what="a ceremony's want", error=CeremonyError)
        return Want(attempt=reader.integer(ATTEMPT_MAX), kinds=reader.integer((1 << 16) - 1))
    if sort == b"l":
        reader = Reader(
            content, count=2, bytes_max=FRAME_BYTES_MAX, what="a ceremony's lock", error=CeremonyError
        )
        return Locked(value=reader.blob(FRAME_BYTES_MAX), prepares=unpack_many(reader.blob(FRAME_BYTES_MAX)))
    if sort == b"c":
        return Closed(record=content)
    raise CeremonyError("a ceremony has no frames of this sort")
