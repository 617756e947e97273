"""Records written here: held until their numbers are sure, numbered, signed, and stored in batches.

While one batch is being stored, what is asked for next waits for the following one. A batch that could not be stored
never happened: its numbers are given out again, and nobody has seen what they stood for.

After a start writes are held until this node has heard from another one how far its own journal goes, for its disk may
hold less than it once wrote. `hold_until` says for how long at most: not long where the disk is whole, for ever
(infinity) where it is known to lack something. A write that was held for HELD_S_MAX is refused with the reason.

A batch is numbered and signed a slice at a time (DRAFTS_AT_ONCE), for a thousand records take some 150 ms, and a peer
that answers no probe as long looks ill. Nothing of it is stored or seen before all of it is made; if what it builds on
changes meanwhile, it is made anew.

The rights are asked of an index of its own, not of the one that views are folded from: the node depends on nothing that
folds it, and filled at the first policy that is published here it costs 3 MB and 15 ms where there are 10,000.

Invariant: a number stands for one content only; at most one batch is made or under way.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from crdt.batch import Batch
from crdt.codec import CrdtError
from crdt.journal import Accept, Journal
from crdt.record import Record
from peer.capabilities import Capabilities
from peer.messages import Draft, Output, Persist, Write, Written
from peer.records import POLICY, Registry
from trust.identity import NodeIdentity

WRITES_MAX: Final = 1024
HELD_S_MAX: Final = 10.0
DRAFTS_AT_ONCE: Final = 50  # some 8 ms

UNSURE: Final = (
    "this peer's database may hold less than it once wrote, and no other peer that knows the mesh has told it yet "
    "how far its own journal goes: nothing can be written until one answers (if every peer's database was lost: "
    "start one with --accept-state-loss)"
)
_STILL_HELD: Final = "this peer has just started and has not heard from another one yet: try again"


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is on its way to the disk: each write with its records."""

    ticket: int
    writes: tuple[tuple[Write, tuple[Record, ...]], ...]

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(record for _, records in self.writes for record in records)


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a write is refused; `invalid` if nobody may write such a thing."""

    reason: str
    invalid: bool = False


@dataclass(slots=True, kw_only=True)
class _Making:
    """A batch that is being made: of the first write of `left` the drafts from number `begun` on are in it."""

    basis: tuple[int, bytes | None]  # the journal it builds on
    since: float
    left: deque[tuple[float, Write]]
    batch: Batch
    begun: int = 0
    done: list[tuple[float, Write, tuple[Record, ...]]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Writes:
    """The queue of writes. Methods return what is to be done."""

    identity: NodeIdentity
    journal: Journal
    registry: Registry
    hold_until: float
    _waiting: deque[tuple[float, Write]] = field(default_factory=deque)  # with when it was asked for
    _making: _Making | None = None
    _under_way: _Batch | None = None
    _next_ticket: int = 1
    _released: bool = False
    _capabilities: Capabilities = field(init=False)

    def __post_init__(self) -> None:
        self._capabilities = Capabilities(self.journal, self.registry)

    @property
    def deadline(self) -> float | None:
        """When `dispatch` has something to do that no other event sets off."""
        if self._making is not None:
            return self._making.since
        if not self._waiting or self._under_way is not None:
            return None
        return min(self.hold_until, self._waiting[0][0] + HELD_S_MAX)

    def release(self) -> None:
        """Another node has told what it holds of this node's journal: numbers are sure."""
        self._released = True

    def hold(self, until: float) -> None:
        """Numbers are not sure any more, before `release` or until then."""
        self._released = False
        self.hold_until = max(self.hold_until, until)

    def add(self, now: float, write: Write) -> list[Output]:
        if len(self._waiting) >= WRITES_MAX:
            return [Written(request=write.request, error="too many writes are waiting")]
        self._waiting.append((now, write))
        return self.dispatch(now)

    def dispatch(self, now: float) -> list[Output]:
        """Number and sign a slice of what waits, and send it to disk when it is whole, unless a batch is under way
        already."""
        if self._under_way is not None:
            return []
        held = not self._released and now < self.hold_until
        if self._making is not None and (held or self._making.basis != self._basis):
            self._put_back(self._making)
        if held:
            return self._give_up(now)
        if self._making is None:
            if not self._waiting:
                return []
            self._making = self._begin(now)
        return self._make(now, self._making)

    @property
    def _basis(self) -> tuple[int, bytes | None]:
        writer = self.identity.id
        return self.journal.batch(writer).head, self.journal.check(writer)

    def _begin(self, now: float) -> _Making:
        taken, self._waiting = self._waiting, deque()
        batch = self.journal.batch(self.identity.id)
        return _Making(basis=self._basis, since=now, left=taken, batch=batch)

    def _put_back(self, making: _Making) -> None:
        """What has not been answered waits again, from when it was asked for."""
        self._making = None
        unanswered = [*((asked, write) for asked, write, _ in making.done), *making.left]
        self._waiting.extendleft(reversed(unanswered))

    def _make(self, now: float, making: _Making) -> list[Output]:
        out: list[Output] = []
        room = DRAFTS_AT_ONCE
        while making.left and room > 0:
            asked, write = making.left[0]
            few = write.drafts[making.begun : making.begun + room]
            room -= len(few) or 1
            before = len(making.batch.drafts) - making.begun
            fault = self._draft(now, few, making.batch)
            making.begun += len(few)
            if fault is not None:  # all of it or nothing
                making.batch = self.journal.batch(self.identity.id, making.batch.drafts[:before])
                out.append(Written(request=write.request, error=fault.reason, invalid=fault.invalid))
            elif making.begun == len(write.drafts):
                making.done.append((asked, write, tuple(making.batch.drafts[before:])))
            else:
                continue
            making.left.popleft()
            making.begun = 0
        if making.left:
            making.since = now
            return out
        self._making = None
        if making.done:
            done = tuple((write, records) for _, write, records in making.done)
            self._under_way = _Batch(self._next_ticket, done)
            self._next_ticket += 1
            heads = {self.identity.id: making.batch.head}
            out.append(Persist(ticket=self._under_way.ticket, put=tuple(making.batch.drafts), heads=heads))
        return out

    def stored(self, ticket: int) -> tuple[Record, ...]:
        """The records of the batch, now on disk: merge them, then `acknowledge`."""
        batch = self._under_way
        return batch.records if batch is not None and batch.ticket == ticket else ()

    def acknowledge(self) -> list[Output]:
        """Answer the writes of the batch that was stored and merged."""
        batch, self._under_way = self._under_way, None
        if batch is None:
            return []
        head = self.journal.heads.get(self.identity.id, 0)
        if self.identity.id in self.journal.forks or head < batch.records[-1].seq:
            # Somebody else has used this identity, or this disk was put back to an earlier state.
            reason = "what was written contradicts what other peers hold of this peer's journal"
            return [Written(request=write.request, error=reason) for write, _ in batch.writes]
        return [Written(request=write.request, records=records) for write, records in batch.writes]

    def failed(self, ticket: int, reason: str) -> list[Output]:
        """The batch could not be stored: nothing of it was written."""
        if self._under_way is None or self._under_way.ticket != ticket:
            return []
        batch, self._under_way = self._under_way, None
        return [Written(request=write.request, error=reason) for write, _ in batch.writes]

    def _give_up(self, now: float) -> list[Output]:
        reason = UNSURE if math.isinf(self.hold_until) else _STILL_HELD
        out: list[Output] = []
        while self._waiting and self._waiting[0][0] + HELD_S_MAX <= now:
            _, write = self._waiting.popleft()
            out.append(Written(request=write.request, error=reason))
        return out

    def _draft(self, now: float, drafts: Sequence[Draft], batch: Batch) -> _Fault | None:
        """Add the signed records of these drafts, or say why one may not be written."""
        now_ms = int(now * 1000)
        for draft in drafts:
            try:
                record = self.journal.draft(
                    writer=self.identity.id,
                    kind=draft.kind,
                    key=draft.key,
                    payload=draft.payload,
                    context=draft.context,
                    now_ms=now_ms,
                    sign=self.identity.sign,
                    batch=batch,
                )
            except CrdtError as error:
                return _Fault(str(error))
            verdict = self.registry.judge(record, now_ms)
            reason = self._capabilities.refusal(record) if isinstance(verdict, Accept) else verdict.reason
            if reason:
                return _Fault(_of(draft, reason), invalid=self._capabilities.misclaimed(record))
        return None if drafts else _Fault("there is nothing to write")


def _of(draft: Draft, reason: str) -> str:
    """Which of the policies of one write it is about."""
    if draft.kind != POLICY:
        return reason
    kind, _, name = draft.key.partition("/")
    return f"{kind} {name}: {reason}"
