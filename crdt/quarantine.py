"""Records that cannot take effect yet, bounded per writer and in total.

Three reasons to wait, one place: a pushed record whose predecessors are missing; one the verifier cannot judge yet;
and parts of a delta too large for one frame, which may be shown only when the delta is whole. The last are described
by a claim: of `(after, upto]` everything live at `target` is among the records held here.

Two parts of one delta may be cut at different heads, because the sender moved on in between, or changed. Let part one
be `(a, b]` at target S and part two `(b, c]` at target T. If c reaches S and T, every key's newest record up to c is
either above b, and then in part two, or at most b, and then it was live at S too and is in part one. So parts join
as long as the whole reaches the largest target. Records of an unfinished claim that follow the head without a hole need
not wait for the rest: they are like pushed ones.

When a bound is hit the whole hold of a writer goes and is counted: of the writer itself for its own bound, of the one
that holds most for the total, so that who fills the place empties it, and, for what is not verified yet, of the one
that has waited longest with such a record. Anti-entropy brings it again.

Invariant: nothing here is part of the replica's state; dropping all of it loses time, never data.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from crdt.delta import Delta
from crdt.record import Record, record_bytes, same_content

GAP: Final = "records before it are missing"  # why a verified record waits
HELD_OVERHEAD_BYTES: Final = (
    512  # what a held record costs beyond its encoding, so that many small ones count too
)


@dataclass(frozen=True, slots=True)
class Held:
    """A record that waits; `reason` is None once its signature is verified."""

    record: Record
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """See the module's docstring."""

    after: int
    upto: int
    target: int

    @property
    def complete(self) -> bool:
        return self.upto >= self.target


class _Hold:
    __slots__ = ("bytes", "claim", "records", "unjudged")

    def __init__(self) -> None:
        self.records: dict[int, Held] = {}
        self.claim: Claim | None = None
        self.bytes = 0
        self.unjudged = 0  # of these, bytes of records not verified yet


class Quarantine:
    """What waits, writer by writer in the order they came."""

    __slots__ = (
        "_bytes",
        "_holds",
        "_unjudged",
        "_unjudged_writers",
        "bytes_max",
        "overflowed",
        "unjudged_bytes_max",
        "writer_bytes_max",
    )

    def __init__(
        self, *, writer_bytes_max: int, bytes_max: int, unjudged_bytes_max: int | None = None
    ) -> None:
        self.writer_bytes_max = writer_bytes_max
        self.bytes_max = bytes_max
        self.unjudged_bytes_max = bytes_max if unjudged_bytes_max is None else unjudged_bytes_max
        self._unjudged = 0
        self._unjudged_writers: dict[bytes, None] = {}  # those that hold such records, longest waiting first
        self.overflowed = 0  # records dropped because a bound was hit
        self._bytes = 0
        self._holds: dict[bytes, _Hold] = {}

    @property
    def bytes_held(self) -> int:
        return self._bytes

    @property
    def writers(self) -> tuple[bytes, ...]:
        return tuple(self._holds)

    def __len__(self) -> int:
        return sum(len(hold.records) for hold in self._holds.values())

    def __iter__(self) -> Iterator[Held]:
        for hold in self._holds.values():
            yield from hold.records.values()

    def at(self, writer: bytes, seq: int) -> Held | None:
        hold = self._holds.get(writer)
        return None if hold is None else hold.records.get(seq)

    def claim(self, writer: bytes) -> Claim | None:
        hold = self._holds.get(writer)
        return None if hold is None else hold.claim

    def within(self, writer: bytes, after: int, upto: int) -> list[Held]:
        """What is held of `(after, upto]`, rising."""
        hold = self._holds.get(writer)
        return [] if hold is None else [hold.records[seq] for seq in _seqs(hold, after, upto)]

    def hold(self, record: Record, reason: str | None) -> Record | None:
        """Keep a record. Returns the different one already verified under its seq, if there is one: then both stay
        with the caller to judge. An unverified record never displaces a verified one."""
        hold = self._holds.setdefault(record.writer, _Hold())
        old = hold.records.get(record.seq)
        if old is not None:
            same = same_content(old.record, record)
            if old.reason is None:
                return None if same else old.record
            self._count(record.writer, hold, old, -1)
        held = hold.records[record.seq] = Held(record, reason)
        self._count(record.writer, hold, held, 1)
        self._keep_bounds(record.writer, hold)
        return None

    def stage(self, delta: Delta, head: int) -> None:
        """Note what a delta claims, its records being held already. `head` is the replica's for that writer.

        A part that starts at the head needs no earlier one, so it takes over from a claim that reaches less far or
        that wants more; any other part prolongs the claim it joins, or is of no use yet.
        """
        hold = self._holds.get(delta.writer)
        if hold is None:
            return
        new = Claim(after=delta.after, upto=delta.upto, target=delta.target)
        old = hold.claim
        if new.after <= head:
            if old is None or old.upto <= new.upto or new.target < old.target:
                hold.claim = new
        elif old is not None and old.after <= new.after <= old.upto < new.upto:
            hold.claim = replace(old, upto=new.upto, target=max(old.target, new.target))

    def take(self, writer: bytes, after: int, upto: int) -> list[Held]:
        """Remove what is held of `(after, upto]`, and a claim that reaches no further; rising."""
        hold = self._holds.get(writer)
        if hold is None:
            return []
        taken = [hold.records.pop(seq) for seq in _seqs(hold, after, upto)]
        for held in taken:
            self._count(writer, hold, held, -1)
        if hold.claim is not None and hold.claim.upto <= upto:
            hold.claim = None
        if not hold.records:
            del self._holds[writer]
        return taken

    def discard(self, writer: bytes) -> None:
        """Forget all that is held of a writer."""
        hold = self._holds.pop(writer, None)
        if hold is not None:
            self._bytes -= hold.bytes
            self._unjudged -= hold.unjudged
            self._unjudged_writers.pop(writer, None)

    def remove(self, record: Record) -> None:
        """Forget one record, and the claim that counted on it."""
        hold = self._holds.get(record.writer)
        if hold is None or record.seq not in hold.records:
            return
        self._count(record.writer, hold, hold.records.pop(record.seq), -1)
        hold.claim = None
        if not hold.records:
            del self._holds[record.writer]

    def _count(self, writer: bytes, hold: _Hold, held: Held, sign: int) -> None:
        """One record of the hold came (1) or went (-1)."""
        change = sign * _cost(held.record)
        hold.bytes += change
        self._bytes += change
        if held.reason is None:
            return
        hold.unjudged += change
        self._unjudged += change
        if hold.unjudged:
            self._unjudged_writers.setdefault(writer)
        else:
            self._unjudged_writers.pop(writer, None)

    def _keep_bounds(self, writer: bytes, hold: _Hold) -> None:
        if hold.bytes > self.writer_bytes_max:
            self._overflow(writer)
        while self._unjudged > self.unjudged_bytes_max:
            self._overflow(next(iter(self._unjudged_writers)))
        while self._bytes > self.bytes_max:
            self._overflow(max(self._holds, key=lambda each: self._holds[each].bytes))

    def _overflow(self, writer: bytes) -> None:
        self.overflowed += len(self._holds[writer].records)
        self.discard(writer)


def _seqs(hold: _Hold, after: int, upto: int) -> list[int]:
    """The seqs held of `(after, upto]`, rising, by the shorter of two ways."""
    if upto - after < len(hold.records):
        return [seq for seq in range(after + 1, upto + 1) if seq in hold.records]
    return sorted(seq for seq in hold.records if after < seq <= upto)


def _cost(record: Record) -> int:
    return record_bytes(record) + HELD_OVERHEAD_BYTES
