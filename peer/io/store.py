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
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from peer.io.damage import SIDE_FILES, commits_after, keep_aside, move_aside, row_crc
from peer.io.datadir import DataDirLock, lock_data_dir
from peer.io.history import SCHEMA as HISTORY_SCHEMA
from peer.io.history import History
from peer.io.keys import fsync_directory
from peer.io.stale import BOOT, FILE, OPEN, Boot, decode_boot, file_mark, staleness

STORE_NAME: Final = "store.db"
SCHEMA_VERSION: Final = 2
_VERSION_BEFORE_FORKS: Final = 1  # brought up to date when it is opened
_APPLICATION_ID: Final = 0x676F7373  # "goss": a database of something else is not mistaken for ours
_DOUBT: Final = "doubt"  # in meta: why it may hold less than was written
_PROBE: Final = "probe"
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_FORKS_SCHEMA: Final = """
CREATE TABLE forks (
    writer BLOB PRIMARY KEY, first BLOB NOT NULL, second BLOB NOT NULL, crc INTEGER NOT NULL
) WITHOUT ROWID;
"""
_SCHEMA: Final = f"""
CREATE TABLE records (
    writer BLOB NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (writer, kind, key)
) WITHOUT ROWID;
CREATE TABLE heads (writer BLOB PRIMARY KEY, seq INTEGER NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE introductions (
    writer BLOB PRIMARY KEY, blob BLOB NOT NULL, crc INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE spent_tokens (
    token BLOB NOT NULL, node BLOB NOT NULL, expires_at INTEGER NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (token, node)
) WITHOUT ROWID;
{HISTORY_SCHEMA}
{_FORKS_SCHEMA}
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

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
_ROWS: Final = (
    "SELECT crc, writer, kind, key, seq, data FROM records",
    "SELECT crc, writer, seq FROM heads",
    "SELECT crc, writer, blob FROM introductions",
    "SELECT crc, key, value FROM meta",
    "SELECT crc, token, node, expires_at FROM spent_tokens",
    "SELECT crc, writer, first, second FROM forks",
)


class StoreError(Exception):
    """The disk did not do it; the message says why in plain words. Nothing of the batch was stored."""


class _DamagedError(Exception):
    """What the file holds is not what was written."""


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
            with _plain_words(path, "open"):
                log_found = _log_of(path).exists()
                mark = ""
                if path.exists():
                    mark = file_mark(path)
                    try:
                        connection, set_aside = _open_checked(path)
                        damage = "its log is damaged: what was stored last is lost" if set_aside else ""
                    except _DamagedError as error:
                        damage = str(error)
                        set_aside = move_aside(path)
                fresh = connection is None
                if connection is None:
                    mark = _create(path, _doubt_of_new(set_aside, lived))
                    connection, log_found = _connect(path), True
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
        with _plain_words(self.path, "read"):
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
        with _plain_words(self.path, "write to"), self._transaction() as connection:
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
        with _plain_words(self.path, "read"):
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def meta_set(self, key: str, value: bytes) -> None:
        """Durable when it returns."""
        with _plain_words(self.path, "write to"), self._transaction() as connection:
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
        self.meta_set(_DOUBT, b"")
        self.meta_set(FILE, self._mark.encode())
        self.doubt = ""

    def _begin(self, damage: str, log_found: bool, last: Boot | None) -> None:
        """Find out whether what it holds may be too old, keep that in mind beyond this run, and say that it is open."""
        found = damage or staleness(self.meta_get, mark=self._mark, log_found=log_found, last=last)
        self.doubt = (self.meta_get(_DOUBT) or b"").decode() or found
        if found:
            self.meta_set(_DOUBT, self.doubt.encode())
        self.boot = decode_boot(self.meta_get(BOOT)).number
        self.meta_set(OPEN, b"1")
        fsync_directory(self.path.parent)  # the log is there before the database says that there is one
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._inodes = {path: path.stat().st_ino for path in (self.path, _log_of(self.path))}

    def close(self) -> None:
        """Fold the log into the database and release the directory."""
        try:
            with _plain_words(self.path, "close"):
                told, displaced = self._tell_closed(), self._displaced()
                self._connection.close()
                log = _log_of(self.path)
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


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _doubt_of_new(set_aside: Path | None, lived: bool) -> str:
    if set_aside is not None:
        return "it is new: the one before was damaged"
    return "it is new: the one before was lost" if lived else ""


def _connect(path: Path) -> sqlite3.Connection:
    # Opened in one thread, used in another, one at a time: the caller's promise, not sqlite3's check.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute(
            "PRAGMA temp_store = MEMORY"
        )  # another file system, full, is not in the way of a commit
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path, doubt: str) -> str:
    """Make an empty database, whole or not at all; the mark of its file."""
    building = path.with_name(path.name + ".new")
    for name in (building.name + suffix for suffix in (*SIDE_FILES, "-journal")):
        path.with_name(name).unlink(missing_ok=True)
    for suffix in SIDE_FILES[1:]:  # a log without its database would be replayed into the new one
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.close(os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    mark = file_mark(building)
    connection = _connect(building)
    try:
        connection.executescript(f"BEGIN; {_SCHEMA}")
        rows = [(FILE, mark.encode()), (_DOUBT, doubt.encode())]
        connection.executemany(
            "INSERT INTO meta (key, value, crc) VALUES (?, ?, ?)", [(*row, row_crc(row)) for row in rows]
        )
        connection.execute("COMMIT")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    finally:
        connection.close()
    if mode != "wal":
        raise StoreError(f"{path}: the file system does not allow SQLite's WAL mode (is it a network share?)")
    building.replace(path)
    fsync_directory(path.parent)
    return mark


def _open_checked(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    """The database after every check, and where its log went if that was damaged. Raises _DamagedError, or
    StoreError for one from a newer version."""
    if path.stat().st_size == 0:
        raise _DamagedError("it is empty")
    path.chmod(0o600)
    try:
        connection = _connect(path)
        try:
            _check(connection, path)
            log = _fold_log(connection, path)
        except BaseException:
            connection.close()
            raise
        if log is not None:
            connection.close()  # which deletes the log; its second name is left, whole
            connection = _connect(path)
    except sqlite3.DatabaseError as error:
        raise _damage_of(error) from error
    except UnicodeDecodeError as error:  # text, or SQLite's own words about a table's definition, are no text
        raise _DamagedError("text in it is not UTF-8") from error
    return connection, log


def _fold_log(connection: sqlite3.Connection, path: Path) -> Path | None:
    """Bring what the log holds into the database. Where acknowledged commits follow a frame that does not fit, the
    log gets a second name, which is returned."""
    log = _log_of(path)
    _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if commits_after(log, frames) > 1:  # one may have been under way when the power went
        return keep_aside(log)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return None


def _check(connection: sqlite3.Connection, path: Path) -> None:
    run = connection.execute
    if run("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise _DamagedError("its header is not that of a gossamer store")
    version = run("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer gossamer (format {version}, this one knows {SCHEMA_VERSION}); "
            "run that version, or name another data directory"
        )
    if version == _VERSION_BEFORE_FORKS:
        connection.executescript(f"BEGIN; {_FORKS_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version != SCHEMA_VERSION:
        raise _DamagedError(f"its format is {version}")
    finding = run("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise _DamagedError(str(finding).splitlines()[-1])
    connection.text_factory = bytes  # damaged text may not be UTF-8; its checksum is wrong either way
    for query in _ROWS:
        for crc, *row in run(query):
            if crc != row_crc(tuple(row)):
                raise _DamagedError(
                    f"a row of {query.rpartition(' ')[2]} does not have the content it was written with"
                )
    connection.text_factory = str


def _damage_of(error: sqlite3.DatabaseError) -> Exception:
    """The damage an error of SQLite means, or the error itself when it means something else."""
    if _code(error) in _DAMAGE:
        return _DamagedError(str(error))
    # The catalogue of tables lies in the file too: damaged there, a table or column is missing.
    if _code(error) == sqlite3.SQLITE_ERROR:
        return _DamagedError(str(error))
    return error


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one


_WORDS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the file or its file system is read-only",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened (permissions, or too many open files)",
    sqlite3.SQLITE_BUSY: "another program has it locked",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restart the peer to set it aside and refetch the state from others",
}


@contextlib.contextmanager
def _plain_words(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        words = _WORDS.get(_code(error))
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
            words = f"the disk is full: there is no room for {path.name}-shm"
        detail = f"{words} ({error})" if words else str(error)
        raise StoreError(f"cannot {doing} {path}: {detail}") from error
    except OverflowError as error:
        raise StoreError(f"cannot {doing} {path}: a number is beyond 64 bits") from error
    except OSError as error:
        raise StoreError(f"cannot {doing} {path}: {error.strerror}") from error
