"""The coordinator's side: how this peer gets the mesh root to sign an order, whoever its signers are.

Every member can coordinate. It derives what is to be signed itself and refuses what its own rules refuse, before it
troubles anybody; then `trust/coordinator.py` says whom to ask what, over one stream to each signer (`peer/signlink.py`)
and, where this node is a signer itself, by a plain call. Slow, dead and lying signers are the coordinator's business
(`trust/roast.py`). A group of one is a group like any other.

When so many signers are out of reach that no signature can be made, everybody who waits is told at once. When the
group changes, there is a new coordinator for it, and what was under way is asked for again there, in sessions
of its own. A caller whose order fails is told whether asking again may help: `LaterError`, or `DeniedError` when
so many signers refused by their rules that too few are left.

Invariant: what is under way is bounded (CoordinatorConfig), and each caller gets a signature that verifies or an error.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, assert_never

from peer.cosigner import Cosigner
from peer.custody import Custody
from peer.io.stream import FrameStream, StreamError
from peer.signlink import SignLink
from trust.coordinator import Coordinator, CoordinatorConfig, CoordinatorInput, CoordinatorStatistics, Request
from trust.errors import TrustError
from trust.groupkey import GroupKey, identifier_of, node_of
from trust.identity import format_id
from trust.order import Draft, Order
from trust.roast import Completed, Excluded, Failed, Failure, Reply, Send, SigningConfig, Tick, Unreachable
from trust.sessionwire import (
    SESSION_BYTES,
    CommitReply,
    CommitRequest,
    Reason,
    RefusalReply,
    ToCoordinator,
    ToSigner,
    decode_to_coordinator,
)

log = logging.getLogger("gossamer.signing")

TIMEOUT_S: Final = 5.0  # for one signature: the caller's own patience is three times that (FRAME_TIMEOUT_S)
SURVEY_S_MAX: Final = 2.0
RECENT_MAX: Final = 1024  # latencies remembered
REASONS_TOLD_MAX: Final = 3
FAILURES: Final = ("unknown", "unreachable", "refused", "policy", "busy", "closing")


class SigningError(TrustError):
    """There is no signature. No state was changed but, perhaps, that signers count the use of a token."""


class LaterError(SigningError):
    """Too few signers answered, or this peer does not know them yet. Asking again, or another peer, may help."""


class DeniedError(SigningError):
    """Signers refused by their rules. Nobody will get another answer until something changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """One signer of the newest epoch, as it was asked just now. `words` say why it does not answer."""

    node: bytes
    answers: bool
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningStatistics:
    """Counts since the start; `coordinator` is of the newest epoch only. Latencies in seconds."""

    completed: int
    failed: dict[str, int]  # by reason
    excluded: int  # signers caught lying, counted once for each session
    seconds: float  # in all, of those that completed
    recent_s: tuple[float, ...]
    coordinator: CoordinatorStatistics | None


@dataclass(slots=True, kw_only=True)
class _Wanted:
    """What a caller waits for."""

    order: bytes
    kind: str
    message: bytes
    since: float
    done: asyncio.Future[bytes]
    said: dict[bytes, tuple[Reason, str]] = field(default_factory=dict)  # refusals, by node


class Signing:
    """Gets signatures. `dial(node)` opens a stream of purpose `sign`, or raises StreamError; `may_sign(node)` is false
    for a signer that is revoked. Use it on one event loop; `close` it in the end."""

    def __init__(
        self,
        *,
        custody: Custody,
        cosigner: Cosigner,
        node: bytes,
        dial: Callable[[bytes], Awaitable[FrameStream]],
        may_sign: Callable[[bytes], bool],
        rng: Random,
        entropy: Callable[[int], bytes],
        config: CoordinatorConfig | None = None,
        group: Callable[[], GroupKey | None] | None = None,
    ) -> None:
        """`group` is whose signatures these are, if not those of the newest epoch."""
        self._group = group or (lambda: custody.group)
        self._custody, self._cosigner, self._node = custody, cosigner, node
        self._dial, self._may_sign = dial, may_sign
        self._rng, self._entropy = rng, entropy
        self._config = config or CoordinatorConfig(signing=SigningConfig(timeout_s=TIMEOUT_S))
        self._coordinator: Coordinator | None = None
        self._wanted: dict[bytes, _Wanted] = {}  # by session
        self._links: dict[bytes, SignLink] = {}
        self._own: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._completed = self._excluded = 0
        self._failed: Counter[str] = Counter()
        self._seconds = 0.0
        self._recent: OrderedDict[int, float] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        custody.changed(self._custody_changed)

    # -------------------------------------------------------------- for callers

    @property
    def ready(self) -> bool:
        """Whether the signers are known here."""
        return self._group() is not None

    @property
    def reachable(self) -> int:
        """Signers that are not known to be out of reach at the moment."""
        group = self._group()
        return 0 if group is None else sum(not self._away(node_of(each)) for each in group.identifiers)

    async def sign(self, order: Order, draft: Draft) -> bytes:
        """What `order` comes to (`draft`, derived by the caller), signed. Raises LaterError, DeniedError,
        AuthorityError."""
        loop = self._loop = asyncio.get_running_loop()
        self._follow_custody()
        if self._coordinator is None or self._closed:
            self._failed["unknown"] += 1
            raise LaterError("this peer does not know yet who signs for the mesh")
        missing = self._missing(self._coordinator.group)
        if missing:
            self._failed["unreachable"] += 1
            raise LaterError(missing)
        wanted = _Wanted(
            order=order.encode(),
            kind=order.kind.value,
            message=draft.message,
            since=loop.time(),
            done=loop.create_future(),
        )
        self._ask(wanted)
        return draft.assemble(await wanted.done)

    async def survey(self) -> list[Answering]:
        """Ask each signer of the newest epoch, for SURVEY_S_MAX at most, whether it would sign now."""
        group = self._group()
        if group is None:
            return []
        nodes = [node_of(identifier) for identifier in group.identifiers]
        return list(await asyncio.gather(*(self._surveyed(node, group.epoch) for node in nodes)))

    def statistics(self) -> SigningStatistics:
        """Counts for metrics."""
        return SigningStatistics(
            completed=self._completed,
            failed=dict(self._failed),
            excluded=self._excluded,
            seconds=self._seconds,
            recent_s=tuple(self._recent.values()),
            coordinator=None if self._coordinator is None else self._coordinator.statistics(),
        )

    async def close(self) -> None:
        """End the streams; callers that still wait are told."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for wanted in self._wanted.values():
            self._fail(wanted, "closing", LaterError("this peer is closing"))
        self._wanted.clear()
        tasks = [*self._own, *filter(None, (link.end() for link in self._links.values()))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __repr__(self) -> str:
        return f"Signing({self._coordinator!r}, wanted={len(self._wanted)})"

    # -------------------------------------------------------------- the group

    def _custody_changed(self) -> None:
        if self._loop is not None and not self._closed:  # a share is stored on a thread of its own
            self._loop.call_soon_threadsafe(self._follow_custody)

    def _follow_custody(self) -> None:
        """The coordinator of the newest group there is."""
        group = self._group()
        if self._closed or (self._coordinator is not None and self._coordinator.group is group):
            return
        old, self._wanted = self._wanted, {}
        before = self._coordinator
        self._coordinator = None if group is None else Coordinator(group, self._rng, self._config)
        members = set() if group is None else {node_of(each) for each in group.identifiers}
        for gone in [node for node in self._links if node not in members]:
            link = self._links.pop(gone)
            link.end()
        if group is None or (before is not None and before.group.public != group.public):
            # What they wait for was derived for the root of before, and the signers of now derive something else.
            for wanted in old.values():
                self._fail(wanted, "unknown", LaterError("the mesh goes over to another root at this moment"))
            return
        for wanted in old.values():
            wanted.said.clear()
            self._ask(wanted)

    def _missing(self, group: GroupKey) -> str:
        """Why no signature can be made now: so many signers could not be reached a moment ago. Or ""."""
        nodes = [node_of(identifier) for identifier in group.identifiers]
        away = {node: reason for node in nodes if (reason := self._away(node))}
        left = len(nodes) - len(away)
        return "" if left >= group.threshold else _too_few(left, group, self._named(away))

    def _away(self, node: bytes) -> str:
        if not self._may_sign(node):
            return "is revoked"
        link = self._links.get(node)
        return "" if link is None else link.away

    # -------------------------------------------------------------- the machine

    def _ask(self, wanted: _Wanted) -> None:
        session = self._entropy(SESSION_BYTES)
        self._wanted[session] = wanted
        self._feed(Request(session=session, request=wanted.order, message=wanted.message))

    def _feed(self, input_: CoordinatorInput) -> None:
        if self._coordinator is None or self._closed:
            return
        assert self._loop is not None
        for output in self._coordinator.step(self._loop.time(), input_):
            match output:
                case Send(signer=signer, message=message):
                    self._send(node_of(signer), message)
                case Completed(session=session, signature=signature):
                    self._complete(self._wanted.pop(session), signature)
                case Failed(session=session):
                    self._give_up(self._wanted.pop(session), output)
                case Excluded(signer=signer, reason=reason):
                    self._excluded += 1
                    fields = {"signer": format_id(node_of(signer)), "reason": reason}
                    log.warning("signer_excluded", extra={"fields": fields})
                case _:
                    assert_never(output)
        self._arm()

    def _arm(self) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        deadline = None if self._coordinator is None else self._coordinator.deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._feed, Tick())

    def _send(self, node: bytes, message: ToSigner) -> None:
        """Never answers in this turn of the loop: the machine is being stepped."""
        assert self._loop is not None
        if not self._may_sign(node):
            self._loop.call_soon(self._lost, node)
        elif node == self._node:
            task = asyncio.create_task(self._answer_here(message))
            self._own.add(task)
            task.add_done_callback(self._own.discard)
        else:
            link = self._links.get(node)
            if link is None:
                link = self._links[node] = SignLink(node, self._dial, self._heard, self._lost)
            link.send(message.encode())

    async def _answer_here(self, message: ToSigner) -> None:
        try:
            reply = await self._cosigner.answer(self._node, message)
        except Exception:
            # A mistake of ours in this node's own part: the others may do.
            log.exception("answer_failed")
            self._lost(self._node)
        else:
            self._take(self._node, reply)

    def _heard(self, node: bytes, frame: bytes) -> None:
        """A frame came. Raises SessionError."""
        self._take(node, decode_to_coordinator(frame))

    def _take(self, node: bytes, reply: ToCoordinator) -> None:
        wanted = self._wanted.get(reply.session)
        if wanted is not None and isinstance(reply, RefusalReply):
            wanted.said[node] = (reply.reason, reply.detail)
        self._feed(Reply(signer=identifier_of(node), message=reply))

    def _lost(self, node: bytes) -> None:
        """What `node` was asked may never be answered. Where too few are left, nobody waits for the others."""
        self._feed(Unreachable(signer=identifier_of(node)))
        if self._coordinator is None or self._closed:
            return
        missing = self._missing(self._coordinator.group)
        if missing:
            hopeless, self._wanted = self._wanted, {}
            self._coordinator = Coordinator(self._coordinator.group, self._rng, self._config)
            self._arm()
            for wanted in hopeless.values():
                self._fail(wanted, "unreachable", LaterError(missing))

    # -------------------------------------------------------------- how it ends

    def _complete(self, wanted: _Wanted, signature: bytes) -> None:
        assert self._loop is not None
        took_s = self._loop.time() - wanted.since
        self._completed += 1
        self._seconds += took_s
        self._recent[self._completed] = took_s
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)
        if not wanted.done.done():
            wanted.done.set_result(signature)

    def _give_up(self, wanted: _Wanted, failed: Failed) -> None:
        assert self._coordinator is not None
        group = self._coordinator.group
        policy = {node: words for node, (reason, words) in wanted.said.items() if reason is Reason.POLICY}
        others = {
            node_of(signer): words for signer, words in failed.refusals if node_of(signer) not in policy
        }
        if failed.failure is Failure.BUSY:
            self._fail(wanted, "busy", LaterError("this peer has too many signatures under way"))
        elif len(group.identifiers) - len(policy) < group.threshold:
            self._fail(wanted, "policy", DeniedError("; ".join(sorted(set(policy.values())))[:500]))
        else:
            silent = {node_of(signer) for signer in failed.silent}
            away = {node: self._away(node) or "does not answer" for node in silent} | others | policy
            left = len(group.identifiers) - len(away)
            name = "unreachable" if silent else "refused"
            self._fail(wanted, name, LaterError(_too_few(left, group, self._named(away))))

    def _fail(self, wanted: _Wanted, reason: str, error: SigningError) -> None:
        self._failed[reason] += 1
        fields = {"kind": wanted.kind, "why": reason, "reason": str(error)}
        log.warning("signature_failed", extra={"fields": fields})
        if not wanted.done.done():
            wanted.done.set_exception(error)

    def _named(self, reasons: dict[bytes, str]) -> list[str]:
        return [f"{format_id(node)[:8]} {reason}" for node, reason in sorted(reasons.items())]

    # -------------------------------------------------------------- who answers

    async def _surveyed(self, node: bytes, epoch: int) -> Answering:
        if not self._may_sign(node):
            return Answering(node=node, answers=False, words="is revoked")
        question = CommitRequest(session=self._entropy(SESSION_BYTES), epoch=epoch)
        try:
            async with asyncio.timeout(SURVEY_S_MAX):
                if node == self._node:
                    reply = await self._cosigner.answer(node, question)
                else:
                    reply = await self._asked(node, question)
        except (StreamError, TrustError) as error:
            return Answering(node=node, answers=False, words=str(error))
        except TimeoutError:
            return Answering(node=node, answers=False, words=f"does not answer within {SURVEY_S_MAX:g} s")
        if isinstance(reply, RefusalReply):
            return Answering(node=node, answers=False, words=reply.detail)
        return Answering(node=node, answers=isinstance(reply, CommitReply))

    async def _asked(self, node: bytes, question: CommitRequest) -> ToCoordinator:
        stream = await self._dial(node)
        try:
            stream.write(question.encode())
            return decode_to_coordinator(await stream.read())
        finally:
            stream.abort()


def _too_few(left: int, group: GroupKey, reasons: list[str]) -> str:
    total, needed = len(group.identifiers), group.threshold
    told = "; ".join(reasons[:REASONS_TOLD_MAX])
    more = f"; and {len(reasons) - REASONS_TOLD_MAX} more" if len(reasons) > REASONS_TOLD_MAX else ""
    return f"{left} of {total} signers answer, {needed} needed: {told}{more}"
