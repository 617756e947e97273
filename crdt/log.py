"""One writer's part of a journal: its live set and how it moves from one head to the next.

Let live(h) be, for each key, the writer's newest record up to seq h, without what h's floor voids. A log at head h
holds exactly live(h): it is a function of the head alone, however the records came. A move is planned first, checked
against what the writer signed, and only then committed.

A writer that lies may sign at h' what does not follow from what it signed at h. No delta leads from the one to the
other then, so its whole journal is planned anew (`plan_anew`), as by a replica that never heard of it.

A plan costs what came, also where it turns out not to add up: who pushes one record after the other that voids a large
journal, or that tells of another one, must not have all that is held hashed for each of them. So the digest of a large
part that a floor voids is kept from one plan to the next, in pieces of `PIECE` seqs.

Invariant: `head` is the seq of a record held, and the rest of what is held is what that record says of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Final

from crdt.record import DIGEST_MASK, Record, content_digest, record_bytes, rest_hash

PIECE: Final = 256
_NOT_THOSE: Final = "the live records up to {} are not those their writer signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A planned move to a new head: what comes, what goes, and the figures after it. `recast`: what is below the old
    head changes too, as its writer never said it would."""

    kept: tuple[Record, ...]
    dropped: tuple[Record, ...]
    head: int
    floor: int
    digest: int
    bytes: int
    recast: bool = False


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The records and what is held do not add up to what their writer signed."""

    reason: str


class WriterLog:
    """The live records of one writer, by seq (rising, as dicts keep their order) and by kind and key."""

    __slots__ = ("_pieces", "by_kind", "by_seq", "bytes", "digest", "floor", "head")

    def __init__(self) -> None:
        self.head = 0
        self.floor = 0
        self.digest = 0  # sum of the content digests of the live records, modulo 2^2048
        self.bytes = 0
        self.by_seq: dict[int, Record] = {}
        self.by_kind: dict[str, dict[str, Record]] = {}
        self._pieces: dict[
            int, int
        ] = {}  # seq // PIECE -> the digest of what is live there, where it is known

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
        kept = _newest(fresh)
        void = list(self._upto(last.floor)) if last.floor > self.floor else []
        replaced = [old for record in kept if (old := self.get(record.kind, record.key)) is not None]
        above = [old for old in replaced if old.seq > last.floor]
        digest = self.digest - self._digest_upto(last.floor) if void else self.digest
        digest += sum(map(content_digest, kept[:-1])) - sum(map(content_digest, above))
        if rest_hash(digest) != last.rest:
            return Mismatch(_NOT_THOSE.format(last.seq))
        return self._move(kept, (*void, *above), digest)

    def plan_anew(self, whole: Sequence[Record]) -> Move | Mismatch:
        """The move to exactly what is live in `whole` (rising, its last record the new head), whatever is held."""
        last = whole[-1]
        assert last.seq > self.head, "heads never go back"
        live = _newest(whole)
        digest = sum(map(content_digest, live[:-1]))
        if rest_hash(digest) != last.rest:
            return Mismatch(_NOT_THOSE.format(last.seq))
        newest = {record.seq: record for record in live}
        return self._move(
            tuple(record for record in live if self.by_seq.get(record.seq) != record),
            tuple(record for record in self.by_seq.values() if newest.get(record.seq) != record),
            digest,
            recast=True,
        )

    def commit(self, move: Move) -> None:
        """Make a planned move."""
        for record in move.dropped:
            del self.by_seq[record.seq]
            keys = self.by_kind[record.kind]
            del keys[record.key]
            if not keys:
                del self.by_kind[record.kind]
            self._pieces.pop(record.seq // PIECE, None)
        for record in move.kept:
            self._pieces.pop(record.seq // PIECE, None)
            self.by_seq[record.seq] = record
            self.by_kind.setdefault(record.kind, {})[record.key] = record
        if move.recast:
            self.by_seq = dict(sorted(self.by_seq.items()))
        self.head, self.floor = move.head, move.floor
        self.digest, self.bytes = move.digest, move.bytes

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

    def _upto(self, seq: int) -> Iterator[Record]:
        """The live records up to `seq`, rising."""
        return takewhile(lambda record: record.seq <= seq, self.by_seq.values())

    def _digest_upto(self, seq: int) -> int:
        """The sum of the content digests of the live records up to `seq`."""
        total = 0
        for piece, records in groupby(self._upto(seq), key=_piece):
            digest = self._pieces.get(piece) if (piece + 1) * PIECE <= seq + 1 else None
            if digest is None:
                digest = sum(map(content_digest, records))
                if (piece + 1) * PIECE <= seq + 1:
                    self._pieces[piece] = digest
            total += digest
        return total

    def _move(
        self, kept: tuple[Record, ...], dropped: tuple[Record, ...], rest: int, *, recast: bool = False
    ) -> Move:
        """`rest`: the digest of all that is live then but the last record."""
        last = kept[-1]
        return Move(
            kept=kept,
            dropped=dropped,
            head=last.seq,
            floor=last.floor,
            digest=(rest + content_digest(last)) & DIGEST_MASK,
            bytes=self.bytes + sum(map(record_bytes, kept)) - sum(map(record_bytes, dropped)),
            recast=recast,
        )


def _newest(records: Sequence[Record]) -> tuple[Record, ...]:
    """Each key's last record, without what the floor of the last one voids; rising. The last one is always there."""
    if len(records) == 1:
        return tuple(records)
    floor = records[-1].floor
    newest = {(record.kind, record.key): record for record in records if record.seq > floor}
    return tuple(sorted(newest.values(), key=_seq))


def _seq(record: Record) -> int:
    return record.seq


def _piece(record: Record) -> int:
    return record.seq // PIECE
