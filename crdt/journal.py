"""The journal: what all writers say, as far as this replica knows it.

One signed log per writer in Scuttlebutt order (van Renesse et al., "Efficient Reconciliation and Flow Control for
Anti-Entropy Protocols", 2008): a head `writer -> seq` tells exactly what a replica holds. Scuttlebutt lets a replica
show part of a delta; this journal does not, so that the state of a writer is a function of its head alone. Two replicas
with equal heads hold equal bytes, whichever way the records came (see crdt.log, crdt.quarantine).

Records come one by one (`merge`: pushed by gossip, or our own once durable) or as a claim about a writer (`absorb`:
anti-entropy). Nothing takes effect before `verify` accepts it and what its writer signed of the others is met. A
node's own records are merged like any other, so that a node that lost its disk learns its own head from its peers.

Two different records of one writer under one seq are an equivocation: both are kept as the proof, the log is frozen
as it is, and the writer counts as forked in the fingerprint, so that the proof spreads. Whether its records go from
view is the caller's decision (`evict`).

A writer can also contradict itself without such a pair: it signs a state at h' that does not follow from the one at h,
or uses a seq twice and supersedes both records before they meet. Replicas cannot come to differ over it, for a record
signs the whole state (crdt.record), and two records of one head are a pair. Who holds h refuses what does not add up,
fetches the whole journal at h' and takes that in the place of what it had. So the writer gains what it could have by
deleting and publishing: what it says last. It is told to the caller as a contradiction.

Invariant: heads never go back, and what is held at a head is what its record signed.
"""

from collections.abc import Iterable, MutableMapping, Sequence
from itertools import pairwise
from typing import Final, assert_never

from crdt.delta import (
    INTRODUCTION_BYTES_MAX,
    Accept,
    Contradiction,
    Delta,
    Equivocation,
    Merged,
    Refuse,
    Verdict,
    Verify,
    Wait,
    delta_fault,
)
from crdt.log import Mismatch, Move, WriterLog
from crdt.quarantine import GAP, Held
from crdt.record import Record, same_content
from crdt.replica import Damage, JournalLimits, JournalStatistics
from crdt.writing import JournalError, WritingReplica

__all__ = [
    "Accept",
    "Damage",
    "Delta",
    "Equivocation",
    "Journal",
    "JournalError",
    "JournalLimits",
    "JournalStatistics",
    "Merged",
    "Refuse",
    "Verdict",
    "Verify",
    "Wait",
]

_FORKED: Final = "its writer equivocated"


class _Outcome:
    """What a call has changed so far."""

    __slots__ = (
        "accepted",
        "contradictions",
        "duplicates",
        "equivocations",
        "refused",
        "superseded",
        "waiting",
    )

    def __init__(self) -> None:
        self.accepted: list[Record] = []
        self.superseded: list[Record] = []
        self.duplicates = 0
        self.waiting: list[tuple[Record, str]] = []
        self.refused: list[tuple[Record, str]] = []
        self.equivocations: list[Equivocation] = []
        self.contradictions: list[Contradiction] = []

    def refuse(self, record: Record, reason: str) -> None:
        self.refused.append((record, reason))

    def merged(self) -> Merged:
        return Merged(
            accepted=tuple(self.accepted),
            superseded=tuple(self.superseded),
            duplicates=self.duplicates,
            waiting=tuple(self.waiting),
            refused=tuple(self.refused),
            equivocations=tuple(self.equivocations),
            contradictions=tuple(self.contradictions),
        )


class Journal(WritingReplica):
    """See the module's docstring. `introductions`, if given, is where writers' credentials are kept: several simulated
    nodes give layers over one that they share."""

    def __init__(
        self,
        *,
        verify: Verify,
        limits: JournalLimits | None = None,
        introductions: MutableMapping[bytes, bytes] | None = None,
    ) -> None:
        super().__init__(limits=limits, introductions=introductions)
        self._verify = verify

    # ------------------------------------------------------------------ taking in

    def merge(self, records: Iterable[Record], now_ms: int) -> Merged:
        """Take in records that came one by one, in any order. One that is ahead of its predecessors waits for them."""
        out = _Outcome()
        for record in records:
            self._offer(record, now_ms, out)
        return self._finish(out)

    def enter(self, drafts: Sequence[Record], now_ms: int) -> Merged:
        """Take in one batch of drafts of this replica's own, in order and durable by now; the caller has verified
        them. The first of them may leave numbers out (`pass_over`)."""
        out = _Outcome()
        first = drafts[0]
        head = self._heads.get(first.writer, 0)
        if first.seq > head + 1:
            behind = Delta(
                writer=first.writer, after=head, upto=first.seq, target=first.seq, records=(first,)
            )
            self._absorb(behind, now_ms, out)
        for record in drafts[first.seq > head + 1 :]:
            self._offer(record, now_ms, out, verified=True)
        return self._finish(out)

    def absorb(self, delta: Delta, now_ms: int) -> Merged:
        """Take in a delta, or a part of one. One refused record refuses all of it."""
        out = _Outcome()
        self._absorb(delta, now_ms, out)
        return self._finish(out)

    def retry_waiting(self, now_ms: int) -> Merged:
        """Judge again what waits: after an introduction, and as time passes."""
        out = _Outcome()
        for writer in self._quarantine.writers:
            self._drain(writer, now_ms, out)
        return self._finish(out)

    def introduce(self, writer: bytes, blob: bytes) -> None:
        """Keep a writer's credential, which goes along with its records. Call `retry_waiting` afterwards."""
        if len(blob) > INTRODUCTION_BYTES_MAX:
            raise JournalError(f"introduction of {len(blob)} bytes, at most {INTRODUCTION_BYTES_MAX}")
        if writer not in self._introductions and len(self._introductions) >= self.limits.writers_max:
            raise JournalError(f"{len(self._introductions)} writers are introduced already")
        self._introductions[writer] = blob

    def evict(self, writer: bytes, kinds: Iterable[str] | None = None) -> tuple[Record, ...]:
        """Take a writer's records of some kinds (None: all) out of view, for good; returns those that were in it.

        They stay in the journal: peers that have not evicted them yet, or never will, can still be served, and
        the head and the fingerprint stay what they were.
        """
        log = self._logs.get(writer) or WriterLog()
        gone = {kind for kind in log.by_kind if not self.hidden(writer, kind)}
        if kinds is None:
            self._evicted[writer] = None
        else:
            chosen = frozenset(kinds)
            gone &= chosen
            already = self._evicted.get(writer, frozenset())
            self._evicted[writer] = None if already is None else already | chosen
        return tuple(record for kind in sorted(gone) for record in log.by_kind[kind].values())

    # ------------------------------------------------------------------ inside

    def _offer(self, record: Record, now_ms: int, out: _Outcome, *, verified: bool = False) -> None:
        writer = record.writer
        head = self._heads.get(writer, 0)
        if writer in self._forks:
            out.refuse(record, _FORKED)
        elif record.seq <= head:
            self._compare(record, now_ms, out)
        elif verified or isinstance(self._judge(record, now_ms, out), Accept):
            if record.seq == head + 1 and not self._recasting(writer):
                if self._advance(writer, [record], out):
                    self._drain(writer, now_ms, out)
            else:
                out.waiting.append((record, GAP))
                if not self._recasting(writer):  # it would be mixed up with what is on its way
                    self._hold(record, None, out)

    def _absorb(self, delta: Delta, now_ms: int, out: _Outcome) -> None:
        writer = delta.writer
        fault = _FORKED if writer in self._forks else delta_fault(delta)
        if fault is not None:
            out.refused.extend((record, fault) for record in delta.records)
            return
        for record, following in pairwise(delta.records):
            if record.seq == following.seq and not same_content(record, following):
                self._accuse(record, following, (record, following), now_ms, out)
                return
        fresh = self._verify_all(delta, now_ms, out)
        if not fresh:
            return
        head = self._heads.get(writer, 0)
        verified = all(reason is None for _, reason in fresh)
        if verified and delta.complete and delta.after <= head:
            if self._advance(writer, [record for record, _ in fresh], out):
                self._drain(writer, now_ms, out)
            return
        if delta.after == 0 and writer in self._contested:
            self._quarantine.discard(writer)
        overflowed = self._quarantine.overflowed
        for record, reason in fresh:
            self._hold(record, reason, out)
        if self._quarantine.overflowed == overflowed and writer not in self._forks:
            self._quarantine.stage(delta, self._base(writer))
            self._drain(writer, now_ms, out, whole=verified)

    def _verify_all(self, delta: Delta, now_ms: int, out: _Outcome) -> list[tuple[Record, str | None]]:
        """The records of a delta that are of use, each with why it has to wait (None: it need not); nothing if one is
        refused or convicts the writer. What is below the head is of use where the journal may have to be recast."""
        head = self._heads.get(delta.writer, 0)
        base = self._base(delta.writer) if delta.target > head else head
        fresh: list[tuple[Record, str | None]] = []
        for record in delta.records:
            if record.seq <= head:
                self._compare(record, now_ms, out)
                if delta.writer in self._forks:
                    return []
                if record.seq <= base:
                    continue
                if self._logs[delta.writer].by_seq.get(record.seq) == record:
                    fresh.append((record, None))
                    continue
            match self._verify(record, now_ms):
                case Accept():
                    fresh.append((record, None))
                case Wait(reason):
                    fresh.append((record, reason))
                    out.waiting.append((record, reason))
                case Refuse(reason):
                    out.refuse(record, reason)
                    return []
                case never:
                    assert_never(never)
        return fresh

    def _judge(self, record: Record, now_ms: int, out: _Outcome) -> Verdict:
        """Ask for the verdict and note it; what has to wait goes into quarantine."""
        verdict = self._verify(record, now_ms)
        match verdict:
            case Accept():
                pass
            case Wait(reason):
                out.waiting.append((record, reason))
                self._hold(record, reason, out)
            case Refuse(reason):
                out.refuse(record, reason)
            case never:
                assert_never(never)
        return verdict

    def _hold(self, record: Record, reason: str | None, out: _Outcome) -> None:
        other = self._quarantine.hold(record, reason)
        if other is not None and reason is None:
            self._convict(Equivocation(first=other, second=record), out)

    def _compare(self, record: Record, now_ms: int, out: _Outcome) -> None:
        """A record at or below the head: a duplicate, superseded, or an equivocation."""
        held = self._logs[record.writer].by_seq.get(record.seq)
        if held is None or same_content(held, record):
            out.duplicates += 1
        else:
            self._accuse(held, record, (record,), now_ms, out)

    def _accuse(
        self, first: Record, second: Record, unverified: Iterable[Record], now_ms: int, out: _Outcome
    ) -> None:
        """Two contents under one seq: a proof, if both are authentic."""
        for record in unverified:
            match self._verify(record, now_ms):
                case Accept():
                    continue
                case Wait(reason):
                    out.waiting.append((record, reason))
                case Refuse(reason):
                    out.refuse(record, reason)
                case never:
                    assert_never(never)
            return
        self._convict(Equivocation(first=first, second=second), out)

    def _convict(self, equivocation: Equivocation, out: _Outcome) -> None:
        self._fork(equivocation)
        out.equivocations.append(equivocation)

    def _advance(self, writer: bytes, fresh: list[Record], out: _Outcome) -> bool:
        """Move a writer's head over verified records, if they add up and fit."""
        log = self._logs.get(writer)
        if log is None:
            if len(self._logs) >= self.limits.writers_max:
                out.refuse(fresh[-1], f"more than {self.limits.writers_max} writers")
                return False
            log = WriterLog()
        above = fresh if fresh[0].seq > log.head else [each for each in fresh if each.seq > log.head]
        move = log.plan(above)
        if isinstance(move, Mismatch) and log.head > 0:
            anew = log.plan_anew(fresh)  # it adds up only if these are all that the last of them signed
            move = anew if isinstance(anew, Move) else move
        if isinstance(move, Mismatch):
            self._contested.add(writer)
            self._quarantine.discard(writer)
            out.refuse(fresh[-1], move.reason)
            return False
        full = self.limits.exceeded_by(len(log.by_seq) + len(move.kept) - len(move.dropped), move.bytes)
        if full is not None:
            out.refuse(fresh[-1], full)
            return False
        before = 0 if writer in self._contested else log.head
        if move.recast:
            self._recast[writer] = self._recast.get(writer, 0) + 1
            out.contradictions.append(Contradiction(writer=writer, before=log.head, after=move.head))
        log.commit(move)
        self._logs[writer] = log
        self._heads[writer] = log.head
        self._fingerprint.note(writer, log.head, log.digest)
        self._contested.discard(writer)
        for record in move.kept:
            self.clock.observe(record.hlc, 0)
        out.accepted.extend(move.kept)
        out.superseded.extend(move.dropped)
        for held in self._quarantine.take(writer, before, log.head):
            ours = log.by_seq.get(held.record.seq)
            if ours is not None and held.reason is None and not same_content(ours, held.record):
                self._convict(Equivocation(first=ours, second=held.record), out)
                break
        return True

    def _drain(self, writer: bytes, now_ms: int, out: _Outcome, *, whole: bool = True) -> None:
        """Let what waited take effect as far as it can: a whole delta, or, where part of it has to wait longer,
        the verified records up to there. With `whole` False nothing is judged again."""
        while ready := self._ready(writer, whole):
            if not whole and ready[0].reason is not None:
                return
            match self._settle(ready, now_ms, out):
                case Accept():
                    if not self._advance(writer, [held.record for held in ready], out):
                        self._quarantine.discard(writer)
                case Wait():
                    whole = False
                case Refuse():
                    pass  # it is gone, and with it the claim it was part of
                case never:
                    assert_never(never)

    def _ready(self, writer: bytes, whole: bool) -> list[Held]:
        """What would take effect next, were it verified."""
        base = self._base(writer)
        claim = self._quarantine.claim(writer)
        if whole and claim is not None and claim.complete and claim.after <= base:
            return self._quarantine.within(writer, base, claim.upto)
        if self._recasting(writer):
            return []
        following = self._quarantine.at(writer, self._heads.get(writer, 0) + 1)
        return [] if following is None else [following]

    def _base(self, writer: bytes) -> int:
        """From where on what comes of a writer counts: the head, or all of it, where it did not add up before."""
        return 0 if writer in self._contested else self._heads.get(writer, 0)

    def _recasting(self, writer: bytes) -> bool:
        """Whether the whole journal of a writer is on its way, because what came did not add up."""
        if writer not in self._contested:
            return False
        claim = self._quarantine.claim(writer)
        return claim is not None and claim.after == 0

    def _settle(self, ready: list[Held], now_ms: int, out: _Outcome) -> Verdict:
        """Judge those of `ready` that are not verified yet: Accept, or the first other verdict."""
        for held in ready:
            if held.reason is None:
                continue
            verdict = self._judge(held.record, now_ms, out)
            match verdict:
                case Accept():
                    self._quarantine.hold(held.record, None)  # verified once is enough
                case Wait():
                    return verdict
                case Refuse():
                    self._quarantine.remove(held.record)
                    return verdict
                case never:
                    assert_never(never)
        return Accept()

    def _finish(self, out: _Outcome) -> Merged:
        self._accepted += len(out.accepted)
        self._duplicates += out.duplicates
        self._refused += len(out.refused)
        return out.merged()
