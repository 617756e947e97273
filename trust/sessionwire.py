"""What a coordinator and the signers of the root say to each other to make one signature.

    coordinator                         signer
        CommitRequest        ->                          asks for a commitment
                             <-  CommitReply
        ShareRequest         ->                          what is asked for, and who signs with which commitments
                             <-  ShareReply              the share, and the commitment for the next time
                             <-  RefusalReply            instead of either, with the reason

The bytes to be signed are never sent: each signer derives them from the request. All messages carry the session
(16 random bytes of the coordinator), so that many may be under way on one stream, and the epoch of the key. They
are not signed: the stream they travel on authenticates both ends.

Invariant: encoding is canonical and bounded (see codec); decoding checks sizes and forms and nothing else. Whether 32
bytes are a point or a scalar, `frost` finds out where it computes with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from trust.codec import Reader, pack
from trust.errors import SessionError
from trust.frost import Commitment
from trust.group import POINT_BYTES, SCALAR_BYTES, Point, Scalar
from trust.groupkey import EPOCH_MAX
from trust.polynomial import PARTICIPANTS_MAX

SESSION_BYTES: Final = 16
REQUEST_BYTES_MAX: Final = 8192  # a join request has up to 6000, and its issuance parameters come on top
DETAIL_CHARS_MAX: Final = 256
ATTEMPT_MAX: Final = 255  # a coordinator makes at most 2n - t + 1

_COMMITMENT_BYTES: Final = SCALAR_BYTES + 2 * POINT_BYTES
_TABLE_BYTES_MAX: Final = PARTICIPANTS_MAX * _COMMITMENT_BYTES
TO_SIGNER_BYTES_MAX: Final = REQUEST_BYTES_MAX + _TABLE_BYTES_MAX + 64
TO_COORDINATOR_BYTES_MAX: Final = 4 * DETAIL_CHARS_MAX + 64  # a character has up to 4 bytes


class Reason(Enum):
    """Why a signer refuses."""

    EPOCH = "epoch"  # it holds no share of that epoch; the reply's epoch is its own
    POLICY = "policy"  # what is asked for may not be signed
    NONCE = "nonce"  # its commitment is unknown: expired, evicted, used, or made before it restarted
    SET = "set"  # who signs with which commitments does not add up
    LATER = "later"  # what is asked for may be signed, but this signer cannot at the moment


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """The coordinator asks for a commitment."""

    session: bytes
    epoch: int

    def encode(self) -> bytes:
        """The wire form."""
        return pack(["commit", self.session, self.epoch])


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """The coordinator asks for a share of the signature of what `request` leads to."""

    session: bytes
    epoch: int
    attempt: int  # from 1
    request: bytes
    commitments: tuple[Commitment, ...]

    def encode(self) -> bytes:
        """The wire form."""
        table = b"".join(commitment.encode() for commitment in self.commitments)
        return pack(["share", self.session, self.epoch, self.attempt, self.request, table])


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitReply:
    """A commitment to nonces that the signer keeps for this coordinator."""

    session: bytes
    epoch: int
    hiding: Point
    binding: Point

    def encode(self) -> bytes:
        """The wire form."""
        return pack(["commitment", self.session, self.epoch, self.hiding, self.binding])


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareReply:
    """A share, and the commitment that the coordinator may use next, in any session."""

    session: bytes
    epoch: int
    attempt: int
    share: Scalar
    hiding: Point
    binding: Point

    def encode(self) -> bytes:
        """The wire form."""
        return pack(["part", self.session, self.epoch, self.attempt, self.share, self.hiding, self.binding])


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalReply:
    """The signer refuses `attempt` (0: the request for a commitment)."""

    session: bytes
    epoch: int
    attempt: int
    reason: Reason
    detail: str  # for people; at most DETAIL_CHARS_MAX characters

    def encode(self) -> bytes:
        """The wire form."""
        return pack(["refusal", self.session, self.epoch, self.attempt, self.reason.value, self.detail])


ToSigner: TypeAlias = CommitRequest | ShareRequest
ToCoordinator: TypeAlias = CommitReply | ShareReply | RefusalReply

_TO_SIGNER: Final = {"commit": 3, "share": 6}
_TO_COORDINATOR: Final = {"commitment": 5, "part": 7, "refusal": 6}


def decode_to_signer(data: bytes) -> ToSigner:
    """What a coordinator sent. Raises SessionError."""
    kind, reader = _open(data, _TO_SIGNER, TO_SIGNER_BYTES_MAX, "a request to a signer")
    session, epoch = reader.raw(SESSION_BYTES), reader.integer(EPOCH_MAX)
    if kind == "commit":
        return CommitRequest(session=session, epoch=epoch)
    return ShareRequest(
        session=session,
        epoch=epoch,
        attempt=_from_one(reader.integer(ATTEMPT_MAX)),
        request=reader.blob(REQUEST_BYTES_MAX),
        commitments=_table(reader.blob(_TABLE_BYTES_MAX)),
    )


def decode_to_coordinator(data: bytes) -> ToCoordinator:
    """What a signer sent. Raises SessionError."""
    kind, reader = _open(data, _TO_COORDINATOR, TO_COORDINATOR_BYTES_MAX, "a signer's reply")
    session, epoch = reader.raw(SESSION_BYTES), reader.integer(EPOCH_MAX)
    if kind == "commitment":
        return CommitReply(
            session=session, epoch=epoch, hiding=reader.raw(POINT_BYTES), binding=reader.raw(POINT_BYTES)
        )
    attempt = reader.integer(ATTEMPT_MAX)
    if kind == "refusal":
        return RefusalReply(
            session=session,
            epoch=epoch,
            attempt=attempt,
            reason=_reason(reader.text(16)),
            detail=reader.text(DETAIL_CHARS_MAX),
        )
    return ShareReply(
        session=session,
        epoch=epoch,
        attempt=_from_one(attempt),
        share=reader.raw(SCALAR_BYTES),
        hiding=reader.raw(POINT_BYTES),
        binding=reader.raw(POINT_BYTES),
    )


def _open(data: bytes, counts: Mapping[str, int], bytes_max: int, what: str) -> tuple[str, Reader]:
    for kind, count in counts.items():  # the first field tells which; Reader checks all of it
        if data[1 : 2 + len(kind)] == pack([kind])[1:]:
            reader = Reader(data, count=count, bytes_max=bytes_max, what=what, error=SessionError)
            if reader.text(len(kind)) == kind:
                return kind, reader
    raise SessionError(f"this is not {what}")


def _table(table: bytes) -> tuple[Commitment, ...]:
    rows = [table[at : at + _COMMITMENT_BYTES] for at in range(0, len(table), _COMMITMENT_BYTES)]
    if not rows or len(rows[-1]) != _COMMITMENT_BYTES:
        raise SessionError("this is not a request to a signer: its table of commitments is empty or cut off")
    return tuple(
        Commitment(
            identifier=row[:SCALAR_BYTES],
            hiding=row[SCALAR_BYTES : SCALAR_BYTES + POINT_BYTES],
            binding=row[SCALAR_BYTES + POINT_BYTES :],
        )
        for row in rows
    )


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        raise SessionError(f"this is not a signer's reply: {text!r} is no reason") from None


def _from_one(attempt: int) -> int:
    if attempt < 1:
        raise SessionError("attempts are counted from 1")
    return attempt
