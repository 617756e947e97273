"""What a replica holds, and how it is read and brought back from disk.

The state proper is one log per writer, the heads, and the proofs of equivocation; everything else here is either
derived from them (fingerprint), local (what was evicted from view, what waits), or carried along (introductions).

Invariant: `_heads` and `_fingerprint` always say what `_logs` and `_forks` hold.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from crdt.clock import HybridClock
from crdt.codec import pack_flat
from crdt.delta import Delta, Equivocation
from crdt.fingerprint import Fingerprint, Ranges
from crdt.log import Mismatch, WriterLog
from crdt.quarantine import GAP, Quarantine
from crdt.record import SEQ_MAX, Record, record_bytes

FORKED_HEAD: Final = SEQ_MAX + 1  # of a writer that equivocated: nothing comes after it


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLimits:
    """Bounds. Those on a writer end its journal here, so all replicas of a mesh should have the same."""

    writers_max: int = 100_000
    writer_records_max: int = 16_384
    writer_bytes_max: int = 16 * 2**20
    # A whole journal of one writer must fit while its parts arrive, with the overhead of 16,384 small records.
    held_writer_bytes_max: int = 32 * 2**20
    held_bytes_max: int = 64 * 2**20
    # Of that, what nobody has judged yet: anybody can make up writers, each second it is all judged again, and what
    # is dropped comes back with the writer's introduction.
    unjudged_bytes_max: int = 2 * 2**20

    def __post_init__(self) -> None:
        assert self.writer_bytes_max <= self.held_writer_bytes_max <= self.held_bytes_max

    def exceeded_by(self, records: int, size: int) -> str | None:
        """Why a writer's journal of so many records and bytes is too large."""
        if records > self.writer_records_max:
            return f"journal of {records} records, at most {self.writer_records_max}"
        if size > self.writer_bytes_max:
            return f"journal of {size} bytes, at most {self.writer_bytes_max}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStatistics:
    """Sizes now, and counts since the start."""

    writers: int
    records: int
    tombstones: int
    bytes: int  # upper bound of the encoded size
    held_records: int
    held_bytes: int
    contested_writers: int
    forked_writers: int
    accepted: int
    duplicates: int
    refused: int
    overflowed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A writer whose stored records do not add up. Nothing of it was kept; peers have it."""

    writer: bytes
    reason: str


class Replica:
    """State and reading; `crdt.journal.Journal` adds what changes it."""

    def __init__(
        self,
        *,
        limits: JournalLimits | None = None,
        introductions: MutableMapping[bytes, bytes] | None = None,
    ) -> None:
        self.limits = limits or JournalLimits()
        self.clock = HybridClock()
        self._logs: dict[bytes, WriterLog] = {}
        self._heads: dict[bytes, int] = {}
        self._introductions: MutableMapping[bytes, bytes] = {} if introductions is None else introductions
        self._evicted: dict[bytes, frozenset[str] | None] = {}
        self._forks: dict[bytes, Equivocation] = {}
        self._contested: set[bytes] = set()  # what came did not add up: ask for the whole journal next time
        self._recast: dict[bytes, int] = {}
        self._reserved: dict[bytes, int] = {}  # seqs known used but not held: nothing is drafted up to there
        self._passed: dict[bytes, int] = {}  # seqs known used by records that nobody may have any more
        self._fingerprint = Fingerprint()
        self._quarantine = Quarantine(
            writer_bytes_max=self.limits.held_writer_bytes_max,
            bytes_max=self.limits.held_bytes_max,
            unjudged_bytes_max=self.limits.unjudged_bytes_max,
        )
        self._accepted = self._duplicates = self._refused = 0

    @property
    def heads(self) -> Mapping[bytes, int]:
        """Writer -> the seq up to which everything is known; FORKED_HEAD once it has equivocated. A live view."""
        return MappingProxyType(self._heads)

    @property
    def introductions(self) -> Mapping[bytes, bytes]:
        """Writer -> its credential, opaque here. A live view."""
        return MappingProxyType(self._introductions)

    @property
    def forks(self) -> Mapping[bytes, Equivocation]:
        """Writers that equivocated, each with the proof. A live view."""
        return MappingProxyType(self._forks)

    @property
    def recast(self) -> Mapping[bytes, int]:
        """Writers that contradicted themselves without two records of one seq, and how often: each time what was
        held of one changed below its head too. A live view."""
        return MappingProxyType(self._recast)

    @property
    def contested(self) -> Set[bytes]:
        """Writers of whom what came last did not add up with what is held; their whole journals are asked for. A live
        view."""
        return self._contested

    @property
    def bytes_held(self) -> int:
        """An upper bound of the encoded size of all that is held; walks over the writers."""
        return sum(log.bytes for log in self._logs.values())

    def fingerprint(self) -> bytes:
        """16 bytes, equal on replicas that hold the same. O(1)."""
        return self._fingerprint.value

    def check(self, writer: bytes, key: bytes = b"") -> bytes | None:
        """A few bytes that tell a writer's state here from another one; None if nothing is known of it."""
        return self._fingerprint.check(writer, key)

    def ranges(self) -> Ranges:
        """The fingerprints of ranges of writers, as of now."""
        return self._fingerprint.ranges()

    def get(self, writer: bytes, kind: str, key: str) -> Record | None:
        """The writer's newest record of that key, a tombstone too; None if there is none or it was evicted."""
        log = self._logs.get(writer)
        return None if log is None or self.hidden(writer, kind) else log.get(kind, key)

    def records(self, kind: str) -> Iterator[Record]:
        """The live records of a kind over all writers, tombstones included, in no order."""
        for writer, log in self._logs.items():
            keys = log.by_kind.get(kind)
            if keys and not self.hidden(writer, kind):
                yield from keys.values()

    def delta(self, writer: bytes, after: int, bytes_max: int) -> Delta:
        """What a replica at head `after` lacks of a writer, as much as fits, but at least one record if there is one.

        For a writer that equivocated: the proof.
        """
        fork = self._forks.get(writer)
        if fork is not None:
            seq = fork.first.seq
            return Delta(writer=writer, after=after, upto=seq, target=seq, records=(fork.first, fork.second))
        log = self._logs.get(writer)
        if log is None or after >= log.head:
            return Delta(writer=writer, after=after, upto=after, target=after)
        chosen: list[Record] = []
        room = bytes_max
        for record in log.after(after):
            room -= record_bytes(record)
            if room < 0 and chosen:
                break
            chosen.append(record)
        return Delta(writer=writer, after=after, upto=chosen[-1].seq, target=log.head, records=tuple(chosen))

    def resume_after(self, writer: bytes, target: int) -> int:
        """The seq to ask a peer from that holds `writer` up to `target`: the head; more if parts of a delta wait
        here; 0 when what came last time did not add up."""
        head = self._heads.get(writer, 0)
        if writer in self._contested:
            return 0
        claim = self._quarantine.claim(writer)
        if claim is not None and claim.after <= head < claim.upto and claim.target <= target:
            return claim.upto
        return head

    def waiting(self) -> Iterator[tuple[Record, str]]:
        """What is in quarantine and why."""
        for held in self._quarantine:
            yield held.record, held.reason or GAP

    def held_back(self, writer: bytes) -> Record | None:
        """The last verified record of a writer that waits for those before it: proof that it used that number."""
        waiting = self._quarantine.within(writer, self._heads.get(writer, 0), SEQ_MAX)
        return next((held.record for held in reversed(waiting) if held.reason is None), None)

    def canonical(self) -> bytes:
        """The replicated state as bytes, equal exactly where it is equal. For checks; costs as much as it is long.

        Signatures are left out: a writer may sign the same twice. A forked writer is only named.
        """
        state = {
            writer: [log.head, *map(Record.signing_bytes, log.by_seq.values())]
            for writer, log in self._logs.items()
        }
        state.update({writer: [0] for writer in self._forks})
        return pack_flat(sorted(state.items()))

    def statistics(self) -> JournalStatistics:
        """Sizes and counts; walks over the live records."""
        logs = self._logs.values()
        return JournalStatistics(
            writers=len(logs),
            records=sum(len(log.by_seq) for log in logs),
            tombstones=sum(record.deleted for log in logs for record in log.by_seq.values()),
            bytes=sum(log.bytes for log in logs),
            held_records=len(self._quarantine),
            held_bytes=self._quarantine.bytes_held,
            contested_writers=len(self._contested),
            forked_writers=len(self._forks),
            accepted=self._accepted,
            duplicates=self._duplicates,
            refused=self._refused,
            overflowed=self._quarantine.overflowed,
        )

    def hidden(self, writer: bytes, kind: str) -> bool:
        """Whether the writer's records of that kind were evicted."""
        if writer not in self._evicted:
            return False
        kinds = self._evicted[writer]
        return kinds is None or kind in kinds

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._logs)} writers, {len(self._quarantine)} records waiting)"

    # ------------------------------------------------------------------ from disk

    def restore(
        self,
        records: Iterable[Record],
        heads: Mapping[bytes, int],
        introductions: Mapping[bytes, bytes] | None = None,
        equivocations: Iterable[Equivocation] = (),
    ) -> tuple[Damage, ...]:
        """Take back what was stored: records once verified, and the heads stored beside them. For an empty journal.

        A writer whose records do not add up to what it signed, or do not reach its stored head, is left out and
        reported. Its seqs stay reserved, so that a node whose own journal was damaged cannot use one twice: it can
        draft again once it has its head from its peers.
        """
        assert not self._logs, "restore is for an empty journal"
        self._introductions.update(introductions or {})
        by_writer: dict[bytes, list[Record]] = {}
        for record in records:
            by_writer.setdefault(record.writer, []).append(record)
        damage = []
        for writer in sorted(by_writer.keys() | heads.keys()):
            reason = self._restore_log(
                writer, sorted(by_writer.get(writer, []), key=lambda record: record.seq), heads
            )
            if reason is not None:
                damage.append(Damage(writer=writer, reason=reason))
        for equivocation in equivocations:
            self._fork(equivocation)
        return tuple(damage)

    def _restore_log(self, writer: bytes, records: list[Record], heads: Mapping[bytes, int]) -> str | None:
        head = heads.get(writer, 0)
        for record in records:
            self.clock.observe(record.hlc, 0)
        reason: str | None = None
        if not records or records[-1].seq != head:
            reason = f"stored records end at {records[-1].seq if records else 0}, stored head is {head}"
        else:
            log = WriterLog()
            move = log.plan(records)
            if isinstance(move, Mismatch):
                reason = move.reason
            else:
                log.commit(move)
                self._logs[writer], self._heads[writer] = log, log.head
                self._fingerprint.note(writer, log.head, log.digest)
        if reason is not None:
            self._reserved[writer] = max(head, records[-1].seq if records else 0)
        return reason

    def _fork(self, equivocation: Equivocation) -> None:
        """Freeze a writer and keep the proof."""
        writer = equivocation.writer
        self._forks[writer] = equivocation
        self._heads[writer] = FORKED_HEAD  # whoever follows heads looks again
        self._contested.discard(writer)
        self._quarantine.discard(writer)
        self._fingerprint.note(writer, 0, 0)
