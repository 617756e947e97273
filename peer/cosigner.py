"""The signer's side of every signature of the mesh root: what this node signs with its share, and for whom.

    coordinator -> "sign"            purpose; the coordinator is who its certificate says, a member
    coordinator -> a ToSigner        (`trust/sessionwire.py`), up to UNANSWERED_MAX of them at a time
    signer      -> a ToCoordinator   one for each, in any order

A coordinator is believed nothing. Each share is given for bytes that this node derived itself from the applicant's
request (`trust/order.py`), by its own clock, revocations and ledger of tokens.

Coordinators are paced: who asks faster than RATE_PER_S, beyond BURST at once, is read no faster, so that the streams of
a flood fill up and nobody else's do. It takes a third of a core. Applicants are paced too, through whomever they ask
(`peer/applicants.py`). Of what is refused, few words get into the log.

The use of a token is on this host's disk before the share leaves (`peer/spending.py`), and the policy is applied again
afterwards: what was revoked while the disk was busy is not signed.

Nonces that nobody asked a share for are wiped when they expire, also where no further request comes.

Invariant: a share leaves only for what `judge` granted in the same turn of the loop, never before its spend is kept.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from peer.applicants import Applicants
from peer.custody import Custody
from peer.io.keys import KeyFileError
from peer.io.store import StoreError
from peer.io.stream import FrameStream, StreamError
from peer.messages import Level, Note
from peer.node_notes import Complaints
from peer.spending import Spending
from trust.errors import SessionError, TrustError, UnheardRootError
from trust.identity import format_id
from trust.order import Draft, Kind, Order, Rules, decode_order, judge
from trust.sessionwire import (
    CommitRequest,
    Reason,
    RefusalReply,
    ShareReply,
    ShareRequest,
    ToCoordinator,
    ToSigner,
    decode_to_signer,
)
from trust.signer import Answer, Asked, Denied, Signer, SignerConfig, SignerStatistics, Tick

log = logging.getLogger("gossamer.signing")

Vote: TypeAlias = Callable[
    [bytes, bytes], Awaitable[None]
]  # (root, successor); raises TrustError, KeyFileError

UNANSWERED_MAX: Final = 64  # on one stream; they wait for the disk at most
RATE_PER_S: Final = 200.0
BURST: Final = 800.0  # a mesh of hundreds that was switched on at once, asking through one seed
PACED_MAX: Final = 4096  # coordinators whose pace is remembered
IDLE_S_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignerStatistics:
    """Counts since the start."""

    signer: SignerStatistics
    refused: dict[str, int]  # by reason
    paced: int  # requests that were read later than they came


class _Pace:
    """How fast one coordinator may ask: a bucket of BURST that fills with RATE_PER_S."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._left, self._at = BURST, now

    def wait_s(self, now: float) -> float:
        """Take one; how long to wait before it may be used."""
        self._left = min(BURST, self._left + (now - self._at) * RATE_PER_S) - 1.0
        self._at = now
        return max(0.0, -self._left / RATE_PER_S)


class Cosigner:
    """Answers coordinators. `now` is Unix time, `member_of` tells whose stream it is; `shared` is told of each share of
    a certificate's signature, and for whom."""

    def __init__(
        self,
        *,
        custody: Custody,
        rules: Rules,
        node: bytes,
        spending: Spending,
        now: Callable[[], float],
        entropy: Callable[[int], bytes],
        member_of: Callable[[FrameStream], bytes | None],
        shared: Callable[[Order, Draft, bytes], None] = lambda _order, _draft, _coordinator: None,
        config: SignerConfig | None = None,
        vote: Vote | None = None,
        applicants: Applicants | None = None,
    ) -> None:
        """`vote` makes durable which successor of a root this node names; without it, it names none."""
        self._applicants = applicants or Applicants()
        self._custody, self._rules, self._node = custody, rules, node
        self._vote = vote
        self._spending, self._now, self._member_of = spending, now, member_of
        self._shared = shared
        self._verdict: bytes | Denied = Denied(detail="nothing was asked")
        self._signer = Signer(custody.offers, lambda *_: self._verdict, entropy, config)
        self._refused: Counter[str] = Counter()
        self._pace: OrderedDict[bytes, _Pace] = OrderedDict()
        self._paced = 0
        self._complaints = Complaints()
        self._timer: asyncio.TimerHandle | None = None

    def statistics(self) -> CosignerStatistics:
        """Counts for metrics."""
        return CosignerStatistics(
            signer=self._signer.statistics(), refused=dict(self._refused), paced=self._paced
        )

    async def serve(self, stream: FrameStream, _purpose: bytes) -> None:
        """Answer one coordinator until it goes (a handler of `peer/io/listen.py`)."""
        coordinator = self._member_of(stream)
        if coordinator is None:
            raise StreamError("signatures are coordinated by members")
        room = asyncio.Semaphore(UNANSWERED_MAX)
        tasks: set[asyncio.Task[None]] = set()
        try:
            while frame := await stream.read(IDLE_S_MAX):
                try:
                    message = decode_to_signer(frame)
                except SessionError as error:
                    raise StreamError(f"a coordinator sent what is no request: {error}") from error
                await self._keep_pace(coordinator)
                await room.acquire()
                task = asyncio.create_task(self._reply(stream, coordinator, message, room))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            for task in tasks:
                task.cancel()

    async def _reply(
        self, stream: FrameStream, coordinator: bytes, message: ToSigner, room: asyncio.Semaphore
    ) -> None:
        try:
            stream.write((await self.answer(coordinator, message)).encode())
            await stream.flush()
        except StreamError:
            stream.abort()
        except Exception:
            # A mistake of ours in one answer: this coordinator finds another signer, and nobody else notices.
            log.exception("answer_failed")
            stream.abort()
        finally:
            room.release()

    async def answer(self, coordinator: bytes, message: ToSigner) -> ToCoordinator:
        """What this node says to `message` of a member."""
        self._follow_custody()
        match message:
            case CommitRequest():
                reply = self._step(coordinator, message)
            case ShareRequest():
                judged: tuple[Order, Draft] | Denied | None = None
                if message.epoch in self._signer.epochs:
                    judged = await self._judged(coordinator, message)
                    self._verdict = judged if isinstance(judged, Denied) else judged[1].message
                    self._follow_custody()
                reply = self._step(coordinator, message)
                if (
                    isinstance(reply, ShareReply)
                    and isinstance(judged, tuple)
                    and judged[0].kind is Kind.SVID
                ):
                    self._shared(*judged, coordinator)
            case _:
                assert_never(message)
        if isinstance(reply, RefusalReply):
            self._refused[reply.reason.value] += 1
        return reply

    def _step(self, coordinator: bytes, message: ToSigner) -> ToCoordinator:
        now = asyncio.get_running_loop().time()
        answers = [
            output.message
            for output in self._signer.step(now, Asked(coordinator=coordinator, message=message))
            if isinstance(output, Answer)
        ]
        assert len(answers) == 1, "a signer answers each message once"
        self._set_timer()
        return answers[0]

    def _set_timer(self) -> None:
        """One at a time: it goes off when what was the next nonce to expire then does, or was used since."""
        deadline = self._signer.deadline
        if self._timer is None and deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._signer.step(asyncio.get_running_loop().time(), Tick())
        self._set_timer()

    def _follow_custody(self) -> None:
        """Sign with the shares that are held now, and no others."""
        shares = self._custody.offers
        for epoch in set(self._signer.epochs) - {share.group.epoch for share in shares}:
            self._signer.retire(epoch)
        for share in shares:
            self._signer.adopt(share)

    # -------------------------------------------------------------- the policy

    async def _judged(self, coordinator: bytes, request: ShareRequest) -> tuple[Order, Draft] | Denied:
        """What is to be signed, or why not. What it takes in turns of the loop it takes before the last look."""
        try:
            order, draft = self._judge(coordinator, request)
            now = asyncio.get_running_loop().time()
            if draft.applicant and (words := self._applicants.refusal(draft.applicant, order.request, now)):
                return self._deny(order, coordinator, Denied(detail=words, reason=Reason.LATER))
            if order.kind is Kind.CREDENTIAL:
                unready = self._spending.unready(draft, request.epoch)
                if unready:
                    return self._deny(order, coordinator, Denied(detail=unready, reason=Reason.LATER))
                if await self._spending.kept(draft.spend):
                    order, draft = self._judge(coordinator, request)
            if draft.successor:
                if self._vote is None:
                    return self._deny(order, coordinator, Denied(detail="this signer names no successor"))
                await self._vote(draft.root_public, draft.successor)
                order, draft = self._judge(coordinator, request)
        except UnheardRootError as error:
            return self._deny(None, coordinator, Denied(detail=str(error), reason=Reason.LATER))
        except TrustError as error:
            return self._deny(None, coordinator, Denied(detail=str(error)))
        except (StoreError, KeyFileError) as error:
            log.error("share_withheld", extra={"fields": {"reason": str(error)}})
            return Denied(detail="this signer cannot write to its disk", reason=Reason.LATER)
        return order, draft

    def _judge(self, coordinator: bytes, request: ShareRequest) -> tuple[Order, Draft]:
        order = decode_order(request.request)
        held = next((each for each in self._custody.offers if each.group.epoch == request.epoch), None)
        rules = self._rules if held is None else self._rules.under(held.group.public)
        draft = judge(order, rules, now=self._now(), coordinator=coordinator, signer=self._node)
        return order, draft

    def _deny(self, order: Order | None, coordinator: bytes, denied: Denied) -> Denied:
        fields = {
            "coordinator": format_id(coordinator),
            "kind": "" if order is None else order.kind.value,
            "reason": denied.detail,
        }
        note = Note(level=Level.WARNING, event="share_refused", fields=fields)
        now = asyncio.get_running_loop().time()
        for each in (*self._complaints.due(now), *self._complaints.tell(now, coordinator, note)):
            log.warning(each.event, extra={"fields": each.fields})
        return denied

    # -------------------------------------------------------------- pace

    async def _keep_pace(self, coordinator: bytes) -> None:
        now = asyncio.get_running_loop().time()
        pace = self._pace.get(coordinator)
        if pace is None:
            pace = self._pace[coordinator] = _Pace(now)
            if len(self._pace) > PACED_MAX:
                self._pace.popitem(last=False)
        self._pace.move_to_end(coordinator)
        wait_s = pace.wait_s(now)
        if wait_s > 0:
            self._paced += 1
            await asyncio.sleep(wait_s)
