"""A signer of the mesh root: what it does for whoever coordinates a signature.

Any peer may coordinate; the signer trusts none of them. It derives the bytes to be signed from the request itself
(`approve` holds the issuance policy), so the most that a lying coordinator gets is a signature on something that the
policy grants anyhow. It hands out commitments and keeps the nonces behind them, each for the coordinator it was made
for, for a limited time, in memory only: after a crash they are gone, and a share asked for under an old commitment
is refused. A nonce leaves the table *before* anything is computed with it, whatever the outcome.

A coordinator that asks for ever more commitments displaces its own oldest. When the whole table is full, the oldest
of whoever holds most gives way, so that a flood from some coordinators does not take away what another one needs.

While the key moves to a new group, a signer may hold shares of two epochs; it answers for both.

Invariant: no nonce serves twice, and no share leaves for bytes that `approve` did not return.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from trust.errors import FrostError
from trust.frost import Commitment, Nonces, new_nonces, sign_share
from trust.group import Point
from trust.groupkey import KeyShare
from trust.sessionwire import (
    DETAIL_CHARS_MAX,
    CommitReply,
    CommitRequest,
    Reason,
    RefusalReply,
    ShareReply,
    ShareRequest,
    ToCoordinator,
    ToSigner,
)

SHARES_MAX: Final = 2  # the epoch that is, and the one that comes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerConfig:
    """Bounds on what coordinators may leave behind at a signer."""

    nonces_max: int = 2048  # about 1 MiB
    nonces_per_coordinator_max: int = 64  # twice the signings that a coordinator has under way at most
    nonce_ttl_s: float = 60.0  # twice as long as a coordinator keeps a commitment for later

    def __post_init__(self) -> None:
        assert 0 < self.nonces_per_coordinator_max <= self.nonces_max
        assert self.nonce_ttl_s > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The policy's No, or Reason.LATER. `detail` is told to the coordinator."""

    detail: str
    reason: Reason = Reason.POLICY


# The bytes to be signed for a request (bytes) of a coordinator (node id) at a time (Unix seconds), or why not.
Approve: TypeAlias = Callable[[bytes, bytes, float], bytes | Denied]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Input: a coordinator, authenticated by its stream, sent `message`."""

    coordinator: bytes  # node id
    message: ToSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Input: time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Output: to be sent to `coordinator`."""

    coordinator: bytes
    message: ToCoordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """Output, for the record: a share of a signature of `message` is about to leave."""

    coordinator: bytes
    session: bytes
    epoch: int
    message: bytes


SignerInput: TypeAlias = Asked | Tick
SignerOutput: TypeAlias = Answer | Granted


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerStatistics:
    """Counts since the start; `outstanding` is now."""

    outstanding: int
    committed: int
    granted: int
    refused: int
    expired: int
    displaced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    nonces: Nonces
    coordinator: bytes
    epoch: int
    expires_at: float


_Key: TypeAlias = tuple[Point, Point]


class Signer:
    """Step it with what coordinators send."""

    def __init__(
        self,
        shares: Iterable[KeyShare],
        approve: Approve,
        entropy: Callable[[int], bytes],
        config: SignerConfig | None = None,
    ) -> None:
        self._config = config or SignerConfig()
        self._approve, self._entropy = approve, entropy
        self._shares: dict[int, KeyShare] = {}
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()  # by age, and so by expiry
        self._held: dict[bytes, dict[_Key, None]] = {}  # by coordinator, by age
        self._committed = self._granted = self._refused = self._expired = self._displaced = 0
        for share in shares:
            self.adopt(share)

    # -------------------------------------------------------------- shares

    @property
    def epochs(self) -> tuple[int, ...]:
        """Of the shares held, ascending."""
        return tuple(sorted(self._shares))

    def adopt(self, share: KeyShare) -> None:
        """Answer for `share` too. Beyond two epochs the oldest is retired."""
        epoch = share.group.epoch
        if self._shares.get(epoch) is not share:
            self.retire(epoch)
        self._shares[epoch] = share
        for old in self.epochs[:-SHARES_MAX]:
            self.retire(old)

    def retire(self, epoch: int) -> None:
        """Wipe the share of `epoch`, if there is one, and its nonces."""
        for key in [key for key, kept in self._kept.items() if kept.epoch == epoch]:
            self._drop(key)
        share = self._shares.pop(epoch, None)
        if share is not None:
            share.wipe()

    # -------------------------------------------------------------- the machine

    @property
    def deadline(self) -> float | None:
        """When the next nonce expires."""
        return next((kept.expires_at for kept in self._kept.values()), None)

    def step(self, now: float, input_: SignerInput) -> list[SignerOutput]:
        """What is to be sent and recorded."""
        self._expire(now)
        match input_:
            case Tick():
                return []
            case Asked():
                return self._answer(now, input_.coordinator, input_.message)
            case _:
                assert_never(input_)

    def statistics(self) -> SignerStatistics:
        """Counts for metrics."""
        return SignerStatistics(
            outstanding=len(self._kept),
            committed=self._committed,
            granted=self._granted,
            refused=self._refused,
            expired=self._expired,
            displaced=self._displaced,
        )

    def __repr__(self) -> str:
        return f"Signer(epochs={self.epochs}, outstanding={len(self._kept)})"

    def _answer(self, now: float, coordinator: bytes, message: ToSigner) -> list[SignerOutput]:
        match message:
            case CommitRequest():
                return [Answer(coordinator=coordinator, message=self._commit(now, coordinator, message))]
            case ShareRequest():
                return self._sign(now, coordinator, message)
            case _:
                assert_never(message)

    def _commit(self, now: float, coordinator: bytes, request: CommitRequest) -> ToCoordinator:
        share = self._shares.get(request.epoch)
        if share is None:
            return self._refuse_epoch(request.session, 0)
        commitment = self._new_commitment(now, coordinator, share)
        return CommitReply(
            session=request.session,
            epoch=request.epoch,
            hiding=commitment.hiding,
            binding=commitment.binding,
        )

    def _sign(self, now: float, coordinator: bytes, request: ShareRequest) -> list[SignerOutput]:
        share = self._shares.get(request.epoch)
        if share is None:
            refusal = self._refuse_epoch(request.session, request.attempt)
            return [Answer(coordinator=coordinator, message=refusal)]
        nonces = self._take(coordinator, share, request)
        if nonces is None:
            return self._refuse(
                coordinator, request, Reason.NONCE, "the commitment is unknown or has expired"
            )
        granted = self._approve(request.request, coordinator, now)
        if isinstance(granted, Denied):
            nonces.wipe()
            return self._refuse(coordinator, request, granted.reason, granted.detail)
        try:
            part = sign_share(share, nonces, granted, request.commitments)
        except FrostError as error:
            return self._refuse(coordinator, request, Reason.SET, str(error))
        self._granted += 1
        following = self._new_commitment(now, coordinator, share)
        reply = ShareReply(
            session=request.session,
            epoch=request.epoch,
            attempt=request.attempt,
            share=part,
            hiding=following.hiding,
            binding=following.binding,
        )
        record = Granted(
            coordinator=coordinator, session=request.session, epoch=request.epoch, message=granted
        )
        return [record, Answer(coordinator=coordinator, message=reply)]

    def _refuse(
        self, coordinator: bytes, request: ShareRequest, reason: Reason, detail: str
    ) -> list[SignerOutput]:
        self._refused += 1
        refusal = RefusalReply(
            session=request.session,
            epoch=request.epoch,
            attempt=request.attempt,
            reason=reason,
            detail=detail[:DETAIL_CHARS_MAX],
        )
        return [Answer(coordinator=coordinator, message=refusal)]

    def _refuse_epoch(self, session: bytes, attempt: int) -> RefusalReply:
        self._refused += 1
        newest = max(self._shares, default=0)
        detail = f"this signer is at epoch {newest}" if self._shares else "this node is no signer"
        return RefusalReply(
            session=session, epoch=newest, attempt=attempt, reason=Reason.EPOCH, detail=detail
        )

    # -------------------------------------------------------------- nonces

    def _new_commitment(self, now: float, coordinator: bytes, share: KeyShare) -> Commitment:
        held = self._held.get(coordinator, {})
        if len(held) >= self._config.nonces_per_coordinator_max:
            self._displace(next(iter(held)))
        elif len(self._kept) >= self._config.nonces_max:
            # Of two that hold equally much, the one that has held something for longer.
            most = max(self._held, key=lambda holder: len(self._held[holder]))
            self._displace(next(iter(self._held[most])))
        nonces = new_nonces(share, self._entropy)
        key = (nonces.commitment.hiding, nonces.commitment.binding)
        self._kept[key] = _Kept(
            nonces=nonces,
            coordinator=coordinator,
            epoch=share.group.epoch,
            expires_at=now + self._config.nonce_ttl_s,
        )
        self._held.setdefault(coordinator, {})[key] = None
        self._committed += 1
        return nonces.commitment

    def _take(self, coordinator: bytes, share: KeyShare, request: ShareRequest) -> Nonces | None:
        for commitment in request.commitments:
            if commitment.identifier == share.identifier:
                key = (commitment.hiding, commitment.binding)
                kept = self._kept.get(key)
                if kept is None or kept.coordinator != coordinator or kept.epoch != request.epoch:
                    return None
                self._forget(key)
                return kept.nonces
        return None

    def _forget(self, key: _Key) -> _Kept:
        kept = self._kept.pop(key)
        held = self._held[kept.coordinator]
        del held[key]
        if not held:
            del self._held[kept.coordinator]
        return kept

    def _drop(self, key: _Key) -> None:
        self._forget(key).nonces.wipe()

    def _displace(self, key: _Key) -> None:
        self._drop(key)
        self._displaced += 1

    def _expire(self, now: float) -> None:
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.expires_at > now:
                return
            self._drop(key)
            self._expired += 1
