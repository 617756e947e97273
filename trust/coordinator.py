"""Many signatures at a time, by one coordinator: which signers are asked, and what is kept from one to the next.

Each request becomes a `Signing` (see roast). The commitment that comes with each share and is not used in its own
session is kept for the next one, so that a signature takes one round trip and not two. Signers that held a signature
up are asked last for a while, the others in random order, so that they share the work.

Invariant: a commitment is given to one session, and what is under way, waiting or kept is bounded.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias, assert_never

from trust.frost import Commitment
from trust.group import Scalar
from trust.groupkey import GroupKey
from trust.roast import (
    Begin,
    Completed,
    Excluded,
    Failed,
    Failure,
    Reply,
    Send,
    Signing,
    SigningConfig,
    SigningOutput,
    Tick,
    Unreachable,
)
from trust.sessionwire import REQUEST_BYTES_MAX, SESSION_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorConfig:
    """Bounds, and the patience of each signing."""

    signing: SigningConfig = field(default_factory=SigningConfig)
    signings_max: int = 32  # signers keep twice as many nonces for a coordinator
    waiting_max: int = 1024  # a mesh of a thousand hosts that all ask at once
    spares_max: int = 16  # per signer
    spare_ttl_s: float = 30.0  # signers keep nonces twice as long
    last_for_s: float = (
        30.0  # how long a signer that held something up is asked last: a dead one costs one patience
    )

    def __post_init__(self) -> None:
        assert self.signings_max > 0
        assert self.waiting_max >= 0
        assert self.spares_max >= 0
        assert self.spare_ttl_s > 0
        assert self.last_for_s >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Input: get a signature of `message`, which signers derive from `request`. `session` is 16 fresh random bytes."""

    session: bytes
    request: bytes
    message: bytes


CoordinatorInput: TypeAlias = Request | Reply | Unreachable | Tick
CoordinatorOutput: TypeAlias = Send | Excluded | Completed | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorStatistics:
    """Counts since the start; `under_way`, `waiting` and `spares` are now."""

    under_way: int
    waiting: int
    spares: int
    completed: int
    failed: int
    attempts: int  # of what has finished


class Coordinator:
    """Step it with requests and with what signers reply. It serves one epoch: make another for the next."""

    def __init__(self, group: GroupKey, rng: Random, config: CoordinatorConfig | None = None) -> None:
        self.group = group
        self._rng = rng
        self._config = config or CoordinatorConfig()
        self._signings: dict[bytes, Signing] = {}
        self._waiting: OrderedDict[bytes, tuple[float, Request]] = OrderedDict()  # with when it is given up
        self._spares: dict[Scalar, deque[tuple[float, Commitment]]] = {
            signer: deque(maxlen=self._config.spares_max) for signer in group.identifiers
        }
        self._last_until: dict[Scalar, float] = {}  # when a signer that held something up is forgiven
        self._completed = self._failed = self._attempts = 0

    @property
    def deadline(self) -> float | None:
        """When a Tick is due."""
        deadlines = [signing.deadline for signing in self._signings.values()]
        waiting = next(iter(self._waiting.values()), None)
        known = [at for at in deadlines if at is not None] + ([waiting[0]] if waiting else [])
        return min(known, default=None)

    def step(self, now: float, input_: CoordinatorInput) -> list[CoordinatorOutput]:
        """What is to be sent and told. Each request ends in one Completed or Failed."""
        out: list[CoordinatorOutput] = []
        match input_:
            case Request():
                self._request(now, input_, out)
            case Reply(message=message):
                signing = self._signings.get(message.session)
                if signing is not None:
                    self._keep(now, signing.step(now, input_), out)
            case Unreachable(signer=signer):
                self._ask_last(now, signer)
                self._spares.get(signer, deque()).clear()
                self._step_all(now, input_, out)
            case Tick():
                self._step_all(now, input_, out)
            case _:
                assert_never(input_)
        self._proceed(now, out)
        return out

    def statistics(self) -> CoordinatorStatistics:
        """Counts for metrics."""
        return CoordinatorStatistics(
            under_way=len(self._signings),
            waiting=len(self._waiting),
            spares=sum(map(len, self._spares.values())),
            completed=self._completed,
            failed=self._failed,
            attempts=self._attempts,
        )

    def __repr__(self) -> str:
        return f"Coordinator(epoch={self.group.epoch}, under_way={len(self._signings)}, waiting={len(self._waiting)})"

    # -------------------------------------------------------------- requests

    def _request(self, now: float, request: Request, out: list[CoordinatorOutput]) -> None:
        assert len(request.session) == SESSION_BYTES, "a session is 16 random bytes"
        assert len(request.request) <= REQUEST_BYTES_MAX, "a request fits its bound"
        assert request.session not in self._signings, "each request has a session of its own"
        assert request.session not in self._waiting, "each request has a session of its own"
        if (
            len(self._signings) >= self._config.signings_max
            and len(self._waiting) >= self._config.waiting_max
        ):
            self._give_up(request, Failure.BUSY, out)
            return
        self._waiting[request.session] = (now + self._config.signing.timeout_s, request)

    def _proceed(self, now: float, out: list[CoordinatorOutput]) -> None:
        while self._waiting and next(iter(self._waiting.values()))[0] <= now:
            _, (_, request) = self._waiting.popitem(last=False)
            self._give_up(request, Failure.TIMEOUT, out)
        while self._waiting and len(self._signings) < self._config.signings_max:
            _, (_, request) = self._waiting.popitem(last=False)
            order = self._order(now)
            signing = Signing(
                group=self.group,
                session=request.session,
                request=request.request,
                message=request.message,
                order=order,
                spares=self._take_spares(now, order),
                config=self._config.signing,
            )
            self._signings[request.session] = signing
            self._keep(now, signing.step(now, Begin()), out)

    def _give_up(self, request: Request, failure: Failure, out: list[CoordinatorOutput]) -> None:
        self._failed += 1
        out.append(
            Failed(session=request.session, failure=failure, refusals=(), silent=(), epoch=self.group.epoch)
        )

    # -------------------------------------------------------------- signings

    def _step_all(self, now: float, input_: Unreachable | Tick, out: list[CoordinatorOutput]) -> None:
        for signing in list(self._signings.values()):
            self._keep(now, signing.step(now, input_), out)

    def _keep(self, now: float, outputs: Iterable[SigningOutput], out: list[CoordinatorOutput]) -> None:
        for output in outputs:
            out.append(output)
            match output:
                case Send():
                    pass
                case Excluded(signer=signer):
                    self._ask_last(now, signer)
                case Completed(session=session):
                    self._completed += 1
                    self._finish(now, session)
                case Failed(session=session):
                    self._failed += 1
                    self._finish(now, session)
                case _:
                    assert_never(output)

    def _finish(self, now: float, session: bytes) -> None:
        signing = self._signings.pop(session)
        self._attempts += signing.attempts
        for signer in signing.late:
            self._ask_last(now, signer)
        for signer, commitment in signing.spares().items():
            self._spares[signer].append((now + self._config.spare_ttl_s, commitment))

    def _ask_last(self, now: float, signer: Scalar) -> None:
        if signer in self._spares:
            self._last_until[signer] = now + self._config.last_for_s

    def _order(self, now: float) -> list[Scalar]:
        signers = list(self.group.identifiers)
        self._rng.shuffle(signers)
        return sorted(signers, key=lambda signer: self._last_until.get(signer, now) > now)

    def _take_spares(self, now: float, order: Iterable[Scalar]) -> dict[Scalar, Commitment]:
        """One of each of the first t signers, or of all if it is to be had of fewer than t of them: the newest, which
        the signer forgets last."""
        taken: dict[Scalar, Commitment] = {}
        for signer in order:
            kept = self._spares[signer]
            while kept and kept[0][0] <= now:
                kept.popleft()
            if kept and len(taken) < self.group.threshold:
                taken[signer] = kept.pop()[1]
        return taken
