"""One writer's part of a journal: its live set and how it moves from one head to the next.

Let live(h) be, for each key, the writer's newest record up to seq h, without what h's floor voids. A log at head h
holds exactly live(h): it is a function of the head alone, however the records came. A move is planned first, checked
against the sum the writer signed, and only then committed.

Invariant: `head` is the seq of a record held, `live_sum` the sum of the seqs held, and both are what that record says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from crdt.record import DIGEST_BYTES, Record, content_digest, record_bytes

DIGEST_MASK: Final = 2 ** (8 * DIGEST_BYTES) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A planned move to a new head: what comes, what goes, and the figures after it."""

    kept: tuple[Record, ...]
    dropped: tuple[Record, ...]
    head: int
    floor: int
    live_sum: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The records and what is held do not add up to what their writer signed."""

    reason: str


class WriterLog:
    """The live records of one writer, by seq (rising, as dicts keep their order) and by kind and key."""

    __slots__ = ("by_kind", "by_seq", "bytes", "digest", "floor", "head", "live_sum")

    def __init__(self) -> None:
        self.head = 0
        self.floor = 0
        self.live_sum = 0
        self.digest = 0  # sum of the content digests of the live records, modulo 2^2048
        self.bytes = 0
        self.by_seq: dict[int, Record] = {}
        self.by_kind: dict[str, dict[str, Record]] = {}

    def get(self, kind: str, key: str) -> Record | None:
        """The newest record of that key, tombstones included."""
        keys = self.by_kind.get(kind)
        return None if keys is None else keys.get(key)

    def after(self, seq: int) -> list[Record]:
        """The live records above `seq`, rising."""
        found = []
        for record in reversed(self.by_seq.values()):
            if record.seq <= seq:
                break
            found.append(record)
        found.reverse()
        return found

    def plan(self, fresh: Sequence[Record]) -> Move | Mismatch:
        """The move that `fresh` (rising, above the head, its last record the new head) makes; changes nothing."""
        last = fresh[-1]
        if last.floor < self.floor:
            return Mismatch(f"floor went back from {self.floor} to {last.floor}")
        newest, dropped, live_sum = self._effect(fresh)
        if live_sum != last.live_sum:
            return Mismatch(f"live records up to {last.seq} sum to {live_sum}, signed {last.live_sum}")
        return Move(
            kept=tuple(sorted(newest.values(), key=_seq)) if len(newest) > 1 else tuple(newest.values()),
            dropped=tuple(dropped.values()),
            head=last.seq,
            floor=last.floor,
            live_sum=live_sum,
            bytes=self.bytes
            + sum(map(record_bytes, newest.values()))
            - sum(map(record_bytes, dropped.values())),
        )

    def commit(self, move: Move) -> None:
        """Make a planned move."""
        digest = self.digest
        for record in move.dropped:
            del self.by_seq[record.seq]
            keys = self.by_kind[record.kind]
            del keys[record.key]
            if not keys:
                del self.by_kind[record.kind]
            digest -= content_digest(record)
        for record in move.kept:
            self.by_seq[record.seq] = record
            self.by_kind.setdefault(record.kind, {})[record.key] = record
            digest += content_digest(record)
        self.digest = digest & DIGEST_MASK
        self.head, self.floor = move.head, move.floor
        self.live_sum, self.bytes = move.live_sum, move.bytes

    def spent_upto(self) -> int:
        """The highest floor that loses nothing: every live record up to it is a tombstone of the writer's own writes.

        A tombstone that deletes what *others* wrote stays for good: where their records arrive late, it is all
        that keeps them from coming back.
        """
        floor = self.floor
        for record in self.by_seq.values():
            if not record.deleted or any(writer != record.writer for writer, _ in record.context):
                return record.seq - 1
            floor = record.seq
        return floor

    def _effect(
        self, fresh: Sequence[Record]
    ) -> tuple[dict[tuple[str, str], Record], dict[int, Record], int]:
        """What `fresh` keeps by key, what it drops by seq, and the live sum then."""
        floor = fresh[-1].floor
        newest = {(record.kind, record.key): record for record in fresh if record.seq > floor}
        dropped: dict[int, Record] = {}
        if floor > self.floor:
            dropped.update(takewhile(lambda held: held[0] <= floor, self.by_seq.items()))
        live_sum = self.live_sum
        for (kind, key), record in newest.items():
            live_sum += record.seq
            old = self.get(kind, key)
            if old is not None:
                dropped[old.seq] = old
        return newest, dropped, live_sum - sum(dropped)


def _seq(record: Record) -> int:
    return record.seq
