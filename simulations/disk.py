"""The disk of one host: what survives when the process does not.

Batches (`Persist`) are grouped as the real disk does (`peer/disk.py`): while one group is being synced, what is wanted
next waits for the following one. A batch counts from the moment its group is done. When the process is killed in
between, the group under way is there whole or not at all, and what waited is lost.

A full disk takes nothing: what wanted an answer is told so, the rest waits until there is room. One that lies says
that it has synced and has not: a power cut takes back all that came since the lie began, a mere crash nothing.

Invariant: what was answered `Persisted` is in `records` until the disk itself is lost, or its lie comes out.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from crdt.delta import Equivocation
from crdt.record import Record
from gossip.events import Address
from peer.messages import Persist
from simulations.mesh import People

Key = tuple[bytes, str, str]


@dataclass(frozen=True, slots=True)
class Copy:
    """The database as it was."""

    records: dict[Key, Record]
    heads: dict[bytes, int]
    introductions: dict[bytes, bytes]
    forks: dict[bytes, Equivocation]
    entered: bool


@dataclass(slots=True, kw_only=True)
class Disk:
    """What is on it; `boot`, `contacts`, `met` and `entered` are what a data directory keeps beside the database, as is
    `doubt`: that the database may be older than what was last written to it (`peer/io/stale.py`)."""

    records: dict[Key, Record] = field(default_factory=dict)
    heads: dict[bytes, int] = field(default_factory=dict)
    introductions: dict[bytes, bytes] = field(default_factory=dict)
    forks: dict[bytes, Equivocation] = field(default_factory=dict)
    boot: int = 0
    contacts: tuple[Address, ...] = ()
    known: People | None = None  # what it held before the world began
    met: bool = False
    entered: bool = False
    batches: int = 0
    lost: int = 0  # batches a crash took
    full: bool = False
    doubt: bool = False
    backup: Copy | None = None
    synced_before_lie: Copy | None = None  # None: it tells the truth
    _owed: list[Persist] = field(default_factory=list)  # what found no room and wanted no answer
    _syncing: list[Persist] = field(default_factory=list)
    _waiting: list[Persist] = field(default_factory=list)

    def want(self, batch: Persist) -> bool:
        """Take a batch; True if a sync begins with it."""
        if self._syncing:
            self._waiting.append(batch)
            return False
        self._syncing.append(batch)
        return True

    def synced(self) -> list[int]:
        """The sync under way is done: the tickets of its batches. The next one begins if `busy`."""
        done, self._syncing, self._waiting = self._syncing, self._waiting, []
        self._commit(done)
        return [batch.ticket for batch in done if batch.ticket]

    def refused(self) -> list[int]:
        """The sync under way found no room: the tickets of its batches, which are forgotten."""
        failed, self._syncing, self._waiting = self._syncing, self._waiting, []
        self._owed += [batch for batch in failed if not batch.ticket]
        return [batch.ticket for batch in failed if batch.ticket]

    def emptied(self) -> None:
        """There is room again."""
        self.full = False
        self._commit(self._owed)
        self._owed = []

    # ------------------------------------------------------------------ copies

    def copy(self) -> Copy:
        """The database as it is."""
        return Copy(
            dict(self.records), dict(self.heads), dict(self.introductions), dict(self.forks), self.entered
        )

    def put_back(self) -> None:
        """Put the backup in the place of the database, which its peer notices when it starts."""
        assert self.backup is not None, "a backup was made"
        self._return_to(self.backup)
        self.doubt = True

    def lie(self) -> None:
        """From now on nothing is really synced."""
        if self.synced_before_lie is None:
            self.synced_before_lie = self.copy()

    def tell_the_truth(self) -> None:
        """All that was said to be synced is."""
        self.synced_before_lie = None

    def _return_to(self, copy: Copy) -> None:
        self.records, self.heads = dict(copy.records), dict(copy.heads)
        self.introductions, self.forks = dict(copy.introductions), dict(copy.forks)
        self.entered = copy.entered

    # ------------------------------------------------------------------ ends

    @property
    def busy(self) -> bool:
        """Whether a sync is under way."""
        return bool(self._syncing)

    def crash(self, rng: random.Random, *, power: bool = False) -> bool:
        """The process is gone, with `power` the machine. The group under way was synced or was not; on a full disk it
        was not. Returns whether something is gone that was said to be on the disk."""
        if self._syncing and rng.random() < 0.5 and not self.full:
            self._commit(self._syncing)
        else:
            self.lost += len(self._syncing)
        self.lost += len(self._waiting) + len(self._owed)
        self._syncing, self._waiting, self._owed = [], [], []
        if not power or self.synced_before_lie is None:
            return False
        self._return_to(self.synced_before_lie)
        return True

    def _commit(self, batches: Iterable[Persist]) -> None:
        for batch in batches:
            self.batches += 1
            for record in batch.delete:
                self.records.pop((record.writer, record.kind, record.key), None)
            for record in batch.put:
                key = record.writer, record.kind, record.key
                known = self.records.get(key)
                if known is None or known.seq < record.seq:
                    self.records[key] = record
            for writer, seq in batch.heads.items():
                self.heads[writer] = max(seq, self.heads.get(writer, 0))
            self.introductions.update(batch.introductions)
            self.forks.update({fork.writer: fork for fork in batch.forks})
