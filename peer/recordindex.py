"""The records of some kinds by key, kept up to date with a journal: a change costs what changed, not all records.

Whenever it is asked to catch up it reads, of each writer whose head has moved, the records above the head it knew, and
lets go of what that writer's floor has voided since; of one that contradicted itself, everything again. Evicting a
writer moves no head, so whoever does it does it in the step in which the writer's fork moved one (`peer/node.py`),
before anybody reads.

Invariant: after `catch_up` it holds what `Journal.records` gives for its kinds.
"""

import sys
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import Protocol

from crdt.delta import Delta
from crdt.record import Record


class Source(Protocol):
    """What an index reads of a journal (`crdt.journal.Journal`)."""

    @property
    def heads(self) -> Mapping[bytes, int]: ...

    @property
    def forks(self) -> Container[bytes]: ...

    @property
    def recast(self) -> Mapping[bytes, int]: ...

    def delta(self, writer: bytes, after: int, bytes_max: int) -> Delta: ...

    def records(self, kind: str) -> Iterable[Record]: ...


class RecordIndex:
    """Each writer's newest record of each key, tombstones included."""

    def __init__(self, journal: Source, kinds: Iterable[str]) -> None:
        self._journal = journal
        self._heads: dict[bytes, int] = {}
        self._recast: dict[bytes, int] = {}
        self._held: dict[bytes, dict[tuple[str, str], Record]] = {}  # writer -> (kind, key), in rising seq
        self._by_key: dict[str, dict[str, dict[bytes, Record]]] = {kind: {} for kind in kinds}
        self._followers: list[set[tuple[str, str]]] = []

    def follow(self) -> set[tuple[str, str]]:
        """A set that each (kind, key) is added to whose records change, at first all there are. Its holder empties
        it."""
        changed = {(kind, key) for kind, keys in self._by_key.items() for key in keys}
        self._followers.append(changed)
        return changed

    def catch_up(self) -> None:
        """Read what the journal has heard since."""
        if self._heads == self._journal.heads:
            return
        for writer, head in self._journal.heads.items():
            known = self._heads.get(writer, 0)
            if known != head:
                self._heads[writer] = head
                self._read(writer, known)

    def of(self, kind: str, key: str) -> Collection[Record]:
        """The records of a key, one of each writer, in no order."""
        return self._by_key[kind].get(key, {}).values()

    def keys(self, kind: str) -> Collection[str]:
        """The keys of a kind, in no order."""
        return self._by_key[kind].keys()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(keys)} of {kind}" for kind, keys in self._by_key.items())
        return f"RecordIndex(keys: {sizes})"

    # ------------------------------------------------------------------ inside

    def _read(self, writer: bytes, known: int) -> None:
        held = self._held.setdefault(writer, {})
        fresh: Iterable[Record]
        if writer in self._journal.forks:  # a delta of it would be the proof
            live = [each for kind in self._by_key for each in self._journal.records(kind)]
            fresh = sorted((each for each in live if each.writer == writer), key=lambda each: each.seq)
            gone = _others(held.values(), fresh)
        elif (recast := self._journal.recast.get(writer, 0)) != self._recast.get(writer, 0):
            self._recast[writer] = recast
            fresh = self._journal.delta(writer, 0, sys.maxsize).records
            gone = _others(held.values(), fresh)
        else:
            fresh = self._journal.delta(writer, known, sys.maxsize).records
            gone = list(_upto(held.values(), fresh[-1].floor)) if fresh else []
        for record in gone:
            self._forget(record)
        for record in fresh:
            if record.kind in self._by_key:
                self._take(record)

    def _take(self, record: Record) -> None:
        held = self._held[record.writer]
        place = (record.kind, record.key)
        held.pop(place, None)  # the newer one goes to the end: rising seq
        held[place] = record
        self._by_key[record.kind].setdefault(record.key, {})[record.writer] = record
        self._tell(place)

    def _forget(self, record: Record) -> None:
        place = (record.kind, record.key)
        del self._held[record.writer][place]
        writers = self._by_key[record.kind][record.key]
        del writers[record.writer]
        if not writers:
            del self._by_key[record.kind][record.key]
        self._tell(place)

    def _tell(self, place: tuple[str, str]) -> None:
        for changed in self._followers:
            changed.add(place)


def _others(records: Iterable[Record], fresh: Iterable[Record]) -> list[Record]:
    """Those whose keys `fresh` does not name."""
    there = {(record.kind, record.key) for record in fresh}
    return [record for record in records if (record.kind, record.key) not in there]


def _upto(records: Iterable[Record], floor: int) -> Iterator[Record]:
    for record in records:
        if record.seq > floor:
            return
        yield record
