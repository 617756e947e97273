"""The journal's disk: SQLite in WAL mode with `synchronous=FULL`, one transaction per batch.

What `commit` returned from is on disk; what it raised for is not there at all. Every row carries a CRC-32 of its
content: SQLite's own check proves the shape of the pages, not the bytes in them, and a record whose signature no
longer fits must not be restored as if it had been verified. A file that fails either check is set aside under a new
name with its write-ahead log, and the store starts empty: the state is refetched from the peers.

SQLite replays its log up to the first frame that does not fit and says nothing of what follows. After a crash that is
right: what follows was never acknowledged. But a transaction is synced before the next begins, so two commits behind
the misfit mean that acknowledged ones were damaged. The store then goes on from the state before, and says so.

A whole file may be an old one (`peer/io/stale.py` tells). It is then in *doubt*, as is one whose log was damaged and
one made in the place of another that was lost or set aside, until another peer has told this one the state of the mesh
(`trust`): its owner may have written more than it holds. While it is open, its files are looked at before each
transaction: what is committed to a file that somebody has removed is on no disk.

The database is made under another name and renamed when its schema is complete. A file under the final name that
is empty or without a schema is therefore damage, never a start that was interrupted.

Invariant: heads only rise, and a record is replaced only by one of a higher seq. Use from one thread at a time.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from peer.io.damage import move_aside, row_crc
from peer.io.database import (
    DOUBT,
    DamagedError,
    StoreError,
    connect,
    create,
    log_of,
    open_checked,
    plain_words,
)
from peer.io.datadir import DataDirLock, lock_data_dir
from peer.io.history import History
from peer.io.keys import fsync_directory
from peer.io.stale import BOOT, FILE, OPEN, Boot, decode_boot, file_mark, staleness

__all__ = ["STORE_NAME", "Batch", "Loaded", "Store", "StoreError"]

STORE_NAME: Final = "store.db"
_PROBE: Final = "probe"

_PUT: Final = """
INSERT INTO records (writer, kind, key, seq, data, crc) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (writer, kind, key) DO UPDATE SET seq = excluded.seq, data = excluded.data, crc = excluded.crc
WHERE excluded.seq > records.seq
"""
_HEAD: Final = """
INSERT INTO heads (writer, seq, crc) VALUES (?, ?, ?)
ON CONFLICT (writer) DO UPDATE SET seq = excluded.seq, crc = excluded.crc WHERE excluded.seq > heads.seq
"""
_ANY_SEQ: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one transaction changes: first `delete`, then the rest.

    `put`: (writer, kind, key, seq, encoded record). `delete`: (writer, kind, key). What these replace or drop goes to
    the history (`peer/io/history.py`), and so do `past` rows, which others of this batch have replaced.
    `introductions` replace. `spent`: (token id, node id, when the token expires in Unix seconds). `forget_spent`: ids
    of tokens that have expired, so that the table stays bounded. `forks`: writer -> the two encoded records that prove
    that it equivocated; the first proof stays.
    """

    put: Sequence[tuple[bytes, str, str, int, bytes]] = ()
    delete: Sequence[tuple[bytes, str, str]] = ()
    past: Sequence[tuple[bytes, str, str, int, bytes]] = ()
    heads: Mapping[bytes, int] = field(default_factory=dict)
    introductions: Mapping[bytes, bytes] = field(default_factory=dict)
    spent: Sequence[tuple[bytes, bytes, int]] = ()
    forget_spent: Sequence[bytes] = ()
    forks: Mapping[bytes, tuple[bytes, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Everything the journal starts from. Records are in rising seq for each writer."""

    records: tuple[bytes, ...]
    heads: Mapping[bytes, int]
    introductions: Mapping[bytes, bytes]
    spent: frozenset[tuple[bytes, bytes, int]]
    forks: Mapping[bytes, tuple[bytes, bytes]] = field(default_factory=dict)


class Store:
    """An open store. `fresh`: it was made just now. `set_aside`: where a damaged file went (the database, or its log
    alone), `damage` says what was wrong with it. `doubt`: why what it holds may be less than what was written, or "".
    `boot`: the highest boot number it knows to be given out."""

    def __init__(
        self, connection: sqlite3.Connection, lock: DataDirLock, *, path: Path, mark: str, fresh: bool,
        set_aside: Path | None, damage: str,
    ) -> None:  # fmt: skip
        self.path = path
        self._mark = mark
        self.fresh = fresh
        self.set_aside = set_aside
        self.damage = damage
        self.doubt = ""
        self.boot = 0
        self._connection = connection
        self._lock = lock
        self._history = History(connection)
        self._inodes: dict[
            Path, int
        ] = {}  # of the files that hold what is committed, while the store is open

    @classmethod
    def open(
        cls, data_dir: Path, lock: DataDirLock | None = None, *, last: Boot | None = None, lived: bool = False
    ) -> Self:
        """Lock the directory (unless the caller has), check the database, and open or make it.

        `last`: what `keys/boot` says. `lived`: the keys beside it are those of a member, which had a database.
        Raises DataDirBusy, DataDirError, or StoreError. A damaged database is no error: see `set_aside`.
        """
        held = lock if lock is not None else lock_data_dir(data_dir)
        path = data_dir / STORE_NAME
        connection: sqlite3.Connection | None = None
        set_aside: Path | None = None
        damage = ""
        try:
            with plain_words(path, "open"):
                log_found = log_of(path).exists()
                mark = ""
                if path.exists():
                    mark = file_mark(path)
                    try:
                        connection, set_aside = open_checked(path)
                        damage = "its log is damaged: what was stored last is lost" if set_aside else ""
                    except DamagedError as error:
                        damage = str(error)
                        set_aside = move_aside(path)
                fresh = connection is None
                if connection is None:
                    mark = create(path, _doubt_of_new(set_aside, lived))
                    connection, log_found = connect(path), True
                store = cls(
                    connection, held, path=path, mark=mark, fresh=fresh, set_aside=set_aside, damage=damage
                )
                store._begin("" if fresh else damage, log_found, last)
                return store
        except BaseException:
            if connection is not None:
                connection.close()
            if lock is None:
                held.close()
            raise

    def load(self) -> Loaded:
        """All of it, once, at start."""
        with plain_words(self.path, "read"):
            run = self._connection.execute
            return Loaded(
                records=tuple(row[0] for row in run("SELECT data FROM records ORDER BY writer, seq")),
                heads=dict(run("SELECT writer, seq FROM heads")),
                introductions=dict(run("SELECT writer, blob FROM introductions")),
                spent=frozenset(run("SELECT token, node, expires_at FROM spent_tokens")),
                forks={row[0]: row[1:] for row in run("SELECT writer, first, second FROM forks")},
            )

    def commit(self, batch: Batch) -> None:
        """Apply the batch, durable when it returns; StoreError means that nothing of it was."""
        with plain_words(self.path, "write to"), self._transaction() as connection:
            many = connection.executemany
            self._history.keep([(place, _ANY_SEQ) for place in batch.delete])
            many("DELETE FROM records WHERE writer = ? AND kind = ? AND key = ?", batch.delete)
            self._put(batch)
            many(_HEAD, [(*row, row_crc(row)) for row in batch.heads.items()])
            many(
                "INSERT OR REPLACE INTO introductions (writer, blob, crc) VALUES (?, ?, ?)",
                [(*row, row_crc(row)) for row in batch.introductions.items()],
            )
            many(
                "INSERT OR IGNORE INTO spent_tokens (token, node, expires_at, crc) VALUES (?, ?, ?, ?)",
                [(*row, row_crc(row)) for row in batch.spent],
            )
            many("DELETE FROM spent_tokens WHERE token = ?", [(token,) for token in batch.forget_spent])
            forks = [(writer, *proof) for writer, proof in batch.forks.items()]
            many(
                "INSERT OR IGNORE INTO forks (writer, first, second, crc) VALUES (?, ?, ?, ?)",
                [(*row, row_crc(row)) for row in forks],
            )

    def past(self, kind: str, key: str) -> list[bytes]:
        """The encoded records of a key that newer ones have replaced, as far as they are kept, latest kept first."""
        return self._history.read(kind, key)

    def _put(self, batch: Batch) -> None:
        """Put records; one that another of this batch replaces goes to the history without having been in the table."""
        newest: dict[tuple[bytes, str, str], tuple[bytes, str, str, int, bytes]] = {}
        past = list(batch.past)
        for row in batch.put:
            before = newest.setdefault(row[:3], row)
            if before is not row:
                newest[row[:3]] = max(before, row, key=lambda each: each[3])
                past.append(min(row, before, key=lambda each: each[3]))
        self._history.keep([(place, row[3]) for place, row in newest.items()], past)
        self._connection.executemany(_PUT, [(*row, row_crc(row)) for row in newest.values()])

    def meta_get(self, key: str) -> bytes | None:
        with plain_words(self.path, "read"):
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def meta_set(self, key: str, value: bytes) -> None:
        """Durable when it returns."""
        with plain_words(self.path, "write to"), self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?, ?, ?)",
                (key, value, row_crc((key, value))),
            )

    def probe(self) -> None:
        """Write something, and nothing new. Raises StoreError where the disk takes nothing."""
        self.meta_set(_PROBE, b"")

    def remember_boot(self, boot: Boot) -> None:
        """Keep what `keys/boot` says, or is about to say. Durable when it returns."""
        self.meta_set(BOOT, boot.encode())
        self.boot = boot.number

    def trust(self) -> None:
        """What it holds is no longer in doubt. Durable when it returns."""
        self.meta_set(DOUBT, b"")
        self.meta_set(FILE, self._mark.encode())
        self.doubt = ""

    def _begin(self, damage: str, log_found: bool, last: Boot | None) -> None:
        """Find out whether what it holds may be too old, keep that in mind beyond this run, and say that it is open."""
        found = damage or staleness(self.meta_get, mark=self._mark, log_found=log_found, last=last)
        self.doubt = (self.meta_get(DOUBT) or b"").decode() or found
        if found:
            self.meta_set(DOUBT, self.doubt.encode())
        self.boot = decode_boot(self.meta_get(BOOT)).number
        self.meta_set(OPEN, b"1")
        fsync_directory(self.path.parent)  # the log is there before the database says that there is one
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._inodes = {path: path.stat().st_ino for path in (self.path, log_of(self.path))}

    def close(self) -> None:
        """Fold the log into the database and release the directory."""
        try:
            with plain_words(self.path, "close"):
                told, displaced = self._tell_closed(), self._displaced()
                self._connection.close()
                log = log_of(self.path)
                if not told and displaced is None and not log.exists():
                    log.touch(mode=0o600)  # else it would look as if the log had been lost
        finally:
            self._lock.close()

    def _tell_closed(self) -> bool:
        try:
            self.meta_set(OPEN, b"")
        except StoreError:
            return False  # there is no room for it; what was acknowledged is on disk all the same
        return True

    def _displaced(self) -> Path | None:
        """The first of the open files that somebody has removed or replaced."""
        for path, inode in self._inodes.items():
            try:
                if path.stat().st_ino == inode:
                    continue
            except FileNotFoundError:
                pass
            return path
        return None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        displaced = self._displaced()
        if displaced is not None:
            raise StoreError(
                f"cannot write to {displaced}: it was removed or replaced while the peer runs; "
                "restart the peer, which then asks the others for what it lost"
            )
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._history.forget_state()
            raise


def _doubt_of_new(set_aside: Path | None, lived: bool) -> str:
    if set_aside is not None:
        return "it is new: the one before was damaged"
    return "it is new: the one before was lost" if lived else ""
