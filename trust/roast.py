"""One signature in spite of signers that are slow, dead or lying: ROAST (Ruffing et al., CCS 2022, figure 4).

FROST fails if a single one of the chosen signers does. ROAST runs it again with others, so cheaply that nothing is
lost: each share comes with the signer's next commitment, so whoever has answered is *ready* at once for another
attempt. A new attempt starts as soon as t signers are ready. Each attempt that does not succeed has cost at least one
signer that lied (and is out) or has not answered (and is in no later attempt until it does); so with n signers, t of
them honest and live, one of the first n - t + 1 attempts succeeds, whatever the others do.

Two changes, neither of which touches that argument. As long as the latest attempt may still succeed, the next one waits
`patience_s`: the paper's would start as soon as t signers are idle, and double the work of every signature. And shares
are verified one by one only when their sum is not a signature, or when the patience with their attempt is over: a
signature by honest signers costs the coordinator nothing for that. A signer that has lost its nonces (it was restarted)
says so and is asked for a new commitment, once.

Invariant: no commitment of a signer is in two attempts; one that a signer gives twice excludes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias, assert_never

from trust.errors import FrostError
from trust.frost import Commitment, Transcript, aggregate, transcript, verify_share
from trust.group import Point, Scalar
from trust.groupkey import GroupKey
from trust.sessionwire import (
    CommitReply,
    CommitRequest,
    Reason,
    RefusalReply,
    ShareReply,
    ShareRequest,
    ToCoordinator,
    ToSigner,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningConfig:
    """How long to wait."""

    patience_s: float = (
        0.3  # a share takes a few milliseconds; beyond this a signer is slow, and others are asked
    )
    timeout_s: float = 10.0  # then the caller is told

    def __post_init__(self) -> None:
        assert 0 < self.patience_s <= self.timeout_s


class Failure(Enum):
    """Why there is no signature."""

    REFUSED = "refused"  # so many signers refused or lied that fewer than t are left
    TIMEOUT = "timeout"  # too few have answered
    BUSY = "busy"  # the coordinator has too much to do (Coordinator alone says this)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Input: start. Once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Input: `signer`, authenticated by its stream, sent `message`."""

    signer: Scalar
    message: ToCoordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """Input: `signer` cannot be reached, or no longer; what it was asked may never be answered."""

    signer: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Input: time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Output: to be sent to `signer`."""

    signer: Scalar
    message: ToSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """Output, for the log: `signer` sent what no honest signer sends. It is out of this session."""

    session: bytes
    signer: Scalar
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """Output: the signature (64 bytes). Nothing follows it."""

    session: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Output: there will be no signature. Nothing follows it."""

    session: bytes
    failure: Failure
    refusals: tuple[tuple[Scalar, str], ...]  # by signer: its own words, or what it was excluded for
    silent: tuple[Scalar, ...]  # owe an answer
    epoch: int  # the highest that a refusing signer claims; a hint, it may lie


SigningInput: TypeAlias = Begin | Reply | Unreachable | Tick
SigningOutput: TypeAlias = Send | Excluded | Completed | Failed


class _State(Enum):
    IDLE = "idle"  # not asked yet
    ASKED = "asked"  # for a commitment
    READY = "ready"  # has given a commitment that is unused
    BUSY = "busy"  # in an attempt
    LOST = "lost"  # unreachable; welcome if it answers after all
    OUT = "out"  # lied or refused


_OWING: Final = {_State.ASKED, _State.BUSY, _State.LOST}


@dataclass(slots=True, kw_only=True)
class _Attempt:
    agreed: Transcript
    patient_until: float
    shares: dict[Scalar, bytes] = field(default_factory=dict)
    unverified: set[Scalar] = field(default_factory=set)
    hopeful: bool = True  # may soon succeed, so that no other is started


class Signing:
    """The coordinator's side of one signature. `order` says who is asked first; `spares` are commitments left over
    from earlier sessions of the same coordinator."""

    def __init__(
        self, *, group: GroupKey, session: bytes, request: bytes, message: bytes, order: Sequence[Scalar],
        spares: Mapping[Scalar, Commitment], config: SigningConfig,
    ) -> None:  # fmt: skip
        assert sorted(order) == sorted(group.identifiers), "all signers have a place in the order"
        self._group, self._session, self._request, self._message = group, session, request, message
        self._config = config
        self._states: dict[Scalar, _State] = dict.fromkeys(order, _State.IDLE)
        self._ready: dict[Scalar, Commitment] = {}
        self._seen: dict[Scalar, set[tuple[Point, Point]]] = {signer: set() for signer in order}
        self._attempts: dict[int, _Attempt] = {}  # that are open, by number
        self._attempt_of: dict[Scalar, int] = {}  # of those that are busy or lost in one
        self._attempts_made = 0
        self._renewed: set[Scalar] = set()  # asked again after they had lost their nonces
        self._refusals: dict[Scalar, str] = {}
        self._epoch_seen = group.epoch
        self._timeout_at: float | None = None
        self.finished = False
        for signer, spare in spares.items():
            self._offer(signer, spare.hiding, spare.binding)

    @property
    def deadline(self) -> float | None:
        """When a Tick is due."""
        if self.finished or self._timeout_at is None:
            return None
        hopes = [attempt.patient_until for attempt in self._attempts.values() if attempt.hopeful]
        return min([self._timeout_at, *hopes])

    @property
    def attempts(self) -> int:
        """How often the signers were asked for shares."""
        return self._attempts_made

    @property
    def silent(self) -> tuple[Scalar, ...]:
        """Signers that owe an answer, be it a share or a commitment."""
        return tuple(signer for signer, state in self._states.items() if state in _OWING)

    @property
    def late(self) -> tuple[Scalar, ...]:
        """Signers that owe a share: they held an attempt up."""
        return tuple(self._attempt_of)

    def spares(self) -> dict[Scalar, Commitment]:
        """Commitments that are unused, once it is finished."""
        assert self.finished, "they may still be used"
        return dict(self._ready)

    def step(self, now: float, input_: SigningInput) -> list[SigningOutput]:
        """What is to be sent and told. After the end: nothing."""
        if self.finished:
            return []
        out: list[SigningOutput] = []
        match input_:
            case Begin():
                assert self._timeout_at is None, "a signing begins once"
                self._timeout_at = now + self._config.timeout_s
            case Reply(signer=signer, message=message):
                if signer in self._states and message.session == self._session:
                    self._receive(signer, message, out)
            case Unreachable(signer=signer):
                self._lose(signer)
            case Tick():
                pass
            case _:
                assert_never(input_)
        if not self.finished:
            self._advance(now, out)
        return out

    def __repr__(self) -> str:
        states = " ".join(state.value for state in self._states.values())
        return f"Signing({self._session.hex()}, attempts={self._attempts_made}, signers: {states})"

    # -------------------------------------------------------------- what signers say

    def _receive(self, signer: Scalar, message: ToCoordinator, out: list[SigningOutput]) -> None:
        match message:
            case CommitReply():
                if self._owes_commitment(signer) and self._same_epoch(signer, message):
                    self._offer(signer, message.hiding, message.binding, out)
            case ShareReply():
                # Whatever answers nothing that was asked (a duplicate, a replay, an old attempt) changes nothing.
                if self._attempt_of.get(signer) == message.attempt and self._same_epoch(signer, message):
                    self._collect(signer, message, out)
            case RefusalReply():
                asked = 0 if self._owes_commitment(signer) else self._attempt_of.get(signer)
                if asked == message.attempt:
                    self._refused(signer, message, out)
            case _:
                assert_never(message)

    def _owes_commitment(self, signer: Scalar) -> bool:
        state = self._states[signer]
        return state is _State.ASKED or (state is _State.LOST and signer not in self._attempt_of)

    def _same_epoch(self, signer: Scalar, message: CommitReply | ShareReply) -> bool:
        if message.epoch == self._group.epoch:
            return True
        self._leave(signer, f"answered for epoch {message.epoch}, asked for {self._group.epoch}")
        return False

    def _offer(
        self, signer: Scalar, hiding: Point, binding: Point, out: list[SigningOutput] | None = None
    ) -> None:
        if (hiding, binding) in self._seen[signer]:
            assert out is not None, "a spare is the first commitment"
            self._exclude(signer, "gave the same commitment twice", out)
            return
        self._seen[signer].add((hiding, binding))
        self._states[signer] = _State.READY
        self._ready[signer] = Commitment(identifier=signer, hiding=hiding, binding=binding)

    def _collect(self, signer: Scalar, reply: ShareReply, out: list[SigningOutput]) -> None:
        number = self._attempt_of.pop(signer)
        self._offer(signer, reply.hiding, reply.binding, out)
        attempt = self._attempts[number]
        attempt.shares[signer] = reply.share
        attempt.unverified.add(signer)
        if len(attempt.shares) < len(attempt.agreed.points):
            return
        del self._attempts[number]
        try:
            signature = aggregate(attempt.agreed, attempt.shares)
        except FrostError as error:
            for culprit in error.culprits:
                self._exclude(culprit, "gave a wrong share", out)
            return
        self.finished = True
        out.append(Completed(session=self._session, signature=signature))

    def _refused(self, signer: Scalar, refusal: RefusalReply, out: list[SigningOutput]) -> None:
        self._give_up_on(signer)
        if refusal.reason is Reason.EPOCH:
            self._epoch_seen = max(self._epoch_seen, refusal.epoch)
        if refusal.reason is Reason.NONCE and signer not in self._renewed:
            self._renewed.add(signer)
            self._ask(signer, out)
            return
        self._leave(signer, refusal.detail or refusal.reason.value)

    # -------------------------------------------------------------- who is out

    def _exclude(self, signer: Scalar, reason: str, out: list[SigningOutput]) -> None:
        if self._states[signer] is not _State.OUT:
            self._leave(signer, reason)
            out.append(Excluded(session=self._session, signer=signer, reason=reason))

    def _leave(self, signer: Scalar, reason: str) -> None:
        self._give_up_on(signer)
        self._ready.pop(signer, None)
        self._states[signer] = _State.OUT
        self._refusals[signer] = reason

    def _lose(self, signer: Scalar) -> None:
        state = self._states.get(signer)
        if state in {_State.ASKED, _State.BUSY, _State.IDLE}:
            number = self._attempt_of.get(signer)
            self._give_up_on(signer)
            if number is not None:  # should it answer after all, it is welcome
                self._attempt_of[signer] = number
            self._states[signer] = _State.LOST
        elif state is _State.READY:
            del self._ready[signer]
            self._states[signer] = _State.LOST

    def _give_up_on(self, signer: Scalar) -> None:
        """No attempt that needs `signer` is hopeful any longer."""
        self._attempt_of.pop(signer, None)
        for attempt in self._attempts.values():
            if signer in attempt.agreed.points:
                attempt.hopeful = False

    # -------------------------------------------------------------- what to do next

    def _advance(self, now: float, out: list[SigningOutput]) -> None:
        if self._timeout_at is None:
            return
        if now >= self._timeout_at:
            self._fail(Failure.TIMEOUT, out)
            return
        for attempt in self._attempts.values():
            attempt.hopeful = attempt.hopeful and now < attempt.patient_until
        for attempt in self._attempts.values():
            if not attempt.hopeful:
                self._verify(attempt, out)
        while not any(attempt.hopeful for attempt in self._attempts.values()):
            left = [signer for signer, state in self._states.items() if state is not _State.OUT]
            if len(left) < self._group.threshold:
                self._fail(Failure.REFUSED, out)
                return
            if len(self._ready) < self._group.threshold:
                for signer in left:
                    if self._states[signer] is _State.IDLE:
                        self._ask(signer, out)
                return
            self._attempt(now, out)

    def _verify(self, attempt: _Attempt, out: list[SigningOutput]) -> None:
        for signer in sorted(attempt.unverified):
            if not verify_share(attempt.agreed, signer, attempt.shares[signer]):
                self._exclude(signer, "gave a wrong share", out)
        attempt.unverified.clear()

    def _ask(self, signer: Scalar, out: list[SigningOutput]) -> None:
        self._states[signer] = _State.ASKED
        request = CommitRequest(session=self._session, epoch=self._group.epoch)
        out.append(Send(signer=signer, message=request))

    def _attempt(self, now: float, out: list[SigningOutput]) -> None:
        chosen = [signer for signer in self._states if signer in self._ready][: self._group.threshold]
        commitments = tuple(self._ready[signer] for signer in chosen)
        try:
            agreed = transcript(self._group, self._message, commitments)
        except FrostError as error:
            if not error.culprits:
                raise  # a programmer's error: the set was chosen from the group
            for culprit in error.culprits:
                self._exclude(culprit, "gave a commitment that is no point", out)
            return
        self._attempts_made += 1
        self._attempts[self._attempts_made] = _Attempt(
            agreed=agreed, patient_until=now + self._config.patience_s
        )
        request = ShareRequest(
            session=self._session,
            epoch=self._group.epoch,
            attempt=self._attempts_made,
            request=self._request,
            commitments=agreed.commitments,
        )
        for signer in chosen:
            del self._ready[signer]
            self._states[signer] = _State.BUSY
            self._attempt_of[signer] = self._attempts_made
            out.append(Send(signer=signer, message=request))

    def _fail(self, failure: Failure, out: list[SigningOutput]) -> None:
        self.finished = True
        refusals = tuple(self._refusals.items())
        out.append(
            Failed(
                session=self._session,
                failure=failure,
                refusals=refusals,
                silent=self.silent,
                epoch=self._epoch_seen,
            )
        )
