"""What the statements of a ceremony say: one frozen form for each kind, with one encoding.

Digests tie the statements of an attempt together: a dealing names the opening it answers, an echo all dealings, an
acceptance the *transcript* (opening and dealings), a proof all acceptances, a vote the value. Whoever was shown
something else therefore says something that does not fit, instead of something that fits by accident.

Invariant: a decoder returns a body all of whose fields have the right form, or raises CeremonyError.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, assert_never

from trust.ceremony.electorate import DIGEST_BYTES, SIGNERS_MAX, check_electors
from trust.ceremony.statement import ATTEMPT_MAX, BODY_BYTES_MAX, Kind, Statement, pack_many, unpack_many
from trust.codec import Reader, pack
from trust.errors import CeremonyError, GroupError
from trust.group import POINT_BYTES, SCALAR_BYTES, Point, Scalar, decode_point, decode_scalar
from trust.identity import ID_BYTES, node_id
from trust.keygen import PROOF_BYTES, Package

_TRANSCRIPT: Final = b"gossamer/transcript/1\0"
_ACCEPTED: Final = b"gossamer/accepted/1\0"
_CONTEXT: Final = b"gossamer/dealing/1\0"
_VALUE_BYTES_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The sender enters an attempt for good. `lock` is the attempt in which it last confirmed, -1 for none, `locked`
    what it confirmed there; `able` says that it can deal; `blamed` are those it has been waiting for in vain."""

    able: bool
    lock: int = -1
    locked: bytes = b""
    blamed: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """The body."""
        return pack([self.able, self.lock + 1, self.locked, b"".join(self.blamed)])


def decode_join(body: bytes) -> Join:
    """Inverse of `Join.encode`. Raises CeremonyError."""
    reader = _reader(body, 4, Kind.JOIN)
    able, lock = reader.flag(), reader.integer(ATTEMPT_MAX) - 1
    locked = reader.raw(DIGEST_BYTES if lock >= 0 else 0)
    return Join(able=able, lock=lock, locked=locked, blamed=_cut(reader, ID_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The leader's word for an attempt: who deals, who receives, the new threshold; or, where an elector is bound to a
    value already, that value with the statements that bind it, and nobody deals. `joins` justify the attempt."""

    threshold: int
    dealers: tuple[bytes, ...]  # node ids, in order
    receivers: tuple[bytes, ...]  # public keys, in order
    joins: tuple[bytes, ...] = field(repr=False)
    value: bytes = field(default=b"", repr=False)
    prepares: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def receiver_ids(self) -> tuple[bytes, ...]:
        """Node ids."""
        return tuple(node_id(key) for key in self.receivers)

    @property
    def participants(self) -> frozenset[bytes]:
        """Node ids of dealers and receivers: without each of them the attempt comes to nothing."""
        return frozenset(self.dealers) | frozenset(self.receiver_ids)

    def encode(self) -> bytes:
        """The body."""
        return pack(
            [
                self.threshold,
                b"".join(self.dealers),
                b"".join(self.receivers),
                pack_many(self.joins),
                self.value,
                pack_many(self.prepares),
            ]
        )


def decode_opening(body: bytes) -> Opening:
    """Inverse of `Opening.encode`. Raises CeremonyError. Joins and prepares are not looked into."""
    reader = _reader(body, 6, Kind.OPEN)
    threshold = reader.integer(SIGNERS_MAX)
    dealers, receivers = _cut(reader, ID_BYTES), _cut(reader, 32)
    joins = unpack_many(reader.blob(BODY_BYTES_MAX[Kind.OPEN]))
    value = reader.blob(_VALUE_BYTES_MAX)
    prepares = unpack_many(reader.blob(BODY_BYTES_MAX[Kind.OPEN]))
    opening = Opening(
        threshold=threshold, dealers=dealers, receivers=receivers, joins=joins, value=value, prepares=prepares
    )
    if value:
        if dealers or receivers or threshold:
            raise CeremonyError("an opening that repeats a value lets nobody deal")
        return opening
    check_electors(receivers)
    if prepares or not 1 <= threshold <= len(receivers):
        raise CeremonyError(f"an opening for {threshold} of {len(receivers)} makes no sense")
    if not dealers or dealers != tuple(sorted(set(dealers))):
        raise CeremonyError("the dealers are not in order, or one is there twice")
    return opening


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """A dealer's package, made for the opening of digest `opening`."""

    opening: bytes
    package: Package

    def encode(self) -> bytes:
        """The body."""
        return pack([self.opening, b"".join(self.package.commitment), self.package.proof])


def decode_dealt(body: bytes) -> Dealt:
    """Inverse of `Dealt.encode`. Raises CeremonyError. Points and proof are checked by `dkg.check_dealt`."""
    reader = _reader(body, 3, Kind.DEAL)
    opening, commitment = reader.raw(DIGEST_BYTES), _cut(reader, POINT_BYTES)
    return Dealt(opening=opening, package=Package(commitment=commitment, proof=reader.blob(PROOF_BYTES)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Echoed:
    """The digests of all dealings, in the order of the dealers."""

    opening: bytes
    dealings: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The body."""
        return pack([self.opening, b"".join(self.dealings)])

    @property
    def transcript(self) -> bytes:
        """What everybody goes on with, or nobody."""
        return hashlib.sha256(_TRANSCRIPT + self.encode()).digest()


def decode_echoed(body: bytes) -> Echoed:
    """Inverse of `Echoed.encode`. Raises CeremonyError."""
    reader = _reader(body, 2, Kind.ECHO)
    return Echoed(opening=reader.raw(DIGEST_BYTES), dealings=_cut(reader, DIGEST_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """One recipient's share. A secret, unless it is wrong."""

    opening: bytes
    share: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The body."""
        return pack([self.opening, self.share])


def decode_shared(body: bytes) -> Shared:
    """Inverse of `Shared.encode`. Raises CeremonyError. Whether it is a scalar, and the right one, is checked later:
    a wrong share is evidence."""
    reader = _reader(body, 2, Kind.SHARE)
    return Shared(opening=reader.raw(DIGEST_BYTES), share=reader.raw(SCALAR_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A receiver's shares were all right; it will sign with these nonces."""

    transcript: bytes
    hiding: Point
    binding: Point

    def encode(self) -> bytes:
        """The body."""
        return pack([self.transcript, self.hiding, self.binding])


def decode_accepted(body: bytes) -> Accepted:
    """Inverse of `Accepted.encode`. Raises CeremonyError."""
    reader = _reader(body, 3, Kind.ACCEPT)
    transcript, hiding, binding = reader.raw(DIGEST_BYTES), reader.raw(POINT_BYTES), reader.raw(POINT_BYTES)
    try:
        return Accepted(transcript=transcript, hiding=decode_point(hiding), binding=decode_point(binding))
    except GroupError as error:
        raise CeremonyError(f"a nonce commitment is malformed: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """A receiver's signature share over the new record, for these acceptances."""

    accepted: bytes
    share: Scalar

    def encode(self) -> bytes:
        """The body."""
        return pack([self.accepted, self.share])


def decode_proved(body: bytes) -> Proved:
    """Inverse of `Proved.encode`. Raises CeremonyError."""
    reader = _reader(body, 2, Kind.PROVE)
    accepted, share = reader.raw(DIGEST_BYTES), reader.raw(SCALAR_BYTES)
    try:
        return Proved(accepted=accepted, share=decode_scalar(share, zero_ok=True))
    except GroupError as error:
        raise CeremonyError(f"a signature share is malformed: {error}") from None


def check_body(kind: Kind, body: bytes) -> None:
    """Raise CeremonyError unless `body` decodes as that of a statement of `kind`. Done before a statement is kept, so
    that whoever looks into it later finds it well-formed."""
    match kind:
        case Kind.JOIN:
            decode_join(body)
        case Kind.OPEN:
            decode_opening(body)
        case Kind.DEAL:
            decode_dealt(body)
        case Kind.ECHO:
            decode_echoed(body)
        case Kind.SHARE:
            decode_shared(body)
        case Kind.ACCEPT:
            decode_accepted(body)
        case Kind.PROVE:
            decode_proved(body)
        case Kind.PREPARE | Kind.CONFIRM:
            if len(body) != DIGEST_BYTES:
                raise CeremonyError("a vote names the digest of a value")
        case Kind.ACCUSE:
            unpack_many(body)
        case _:
            assert_never(kind)


def accepted_digest(acceptances: Iterable[Statement]) -> bytes:
    """Of all acceptances, in the order of the receivers."""
    return hashlib.sha256(_ACCEPTED + b"".join(each.digest for each in acceptances)).digest()


def dealing_context(opening: bytes) -> bytes:
    """What binds a dealer's proof of knowledge to this opening."""
    return hashlib.sha256(_CONTEXT + opening).digest()


def _reader(body: bytes, count: int, kind: Kind) -> Reader:
    return Reader(
        body,
        count=count,
        bytes_max=BODY_BYTES_MAX[kind],
        what=f"the body of {kind.name}",
        error=CeremonyError,
    )


def _cut(reader: Reader, size: int) -> tuple[bytes, ...]:
    data = reader.blob(SIGNERS_MAX * size)
    if len(data) % size:
        raise CeremonyError("a list is cut off")
    return cut(data, size)


def cut(data: bytes, size: int) -> tuple[bytes, ...]:
    """`data` in pieces of `size` bytes."""
    return tuple(data[at : at + size] for at in range(0, len(data), size))
