"""The database file: made whole, opened after every check, brought up to date; and SQLite's errors in plain words.

The theory is in `peer/io/store.py`. The schema is made under another name and renamed, so an empty file under the final
one is damage. SQLite proves the shape of the pages, the CRC-32 of each row the bytes in them.

Invariant: what `open_checked` returns holds what was written, each row of it.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from peer.io.damage import SIDE_FILES, commits_after, header_damaged, keep_aside, row_crc
from peer.io.history import SCHEMA as HISTORY_SCHEMA
from peer.io.keys import fsync_directory, reason
from peer.io.stale import FILE, file_mark

SCHEMA_VERSION: Final = 3
_VERSIONS_BEFORE: Final = (1, 2)  # with records that say less of their writers' journals
_APPLICATION_ID: Final = 0x676F7373  # "goss": a database of something else is not mistaken for ours
DOUBT: Final = "doubt"  # in meta: why it may hold less than was written
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

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
CREATE TABLE forks (
    writer BLOB PRIMARY KEY, first BLOB NOT NULL, second BLOB NOT NULL, crc INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

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


class DamagedError(Exception):
    """What the file holds is not what was written."""


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def connect(path: Path) -> sqlite3.Connection:
    # Opened in one thread, used in another, one at a time: the caller's promise, not sqlite3's check.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA temp_store = MEMORY")  # no commit needs room on another file system
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: Path, doubt: str) -> str:
    """Make an empty database, whole or not at all; the mark of its file."""
    building = path.with_name(path.name + ".new")
    for name in (building.name + suffix for suffix in (*SIDE_FILES, "-journal")):
        path.with_name(name).unlink(missing_ok=True)
    for suffix in SIDE_FILES[1:]:  # a log without its database would be replayed into the new one
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.close(os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    mark = file_mark(building)
    connection = connect(building)
    try:
        connection.executescript(f"BEGIN; {_SCHEMA}")
        rows = [(FILE, mark.encode()), (DOUBT, doubt.encode())]
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


def open_checked(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    """The database after every check, and where its log went if that was damaged. Raises DamagedError, or
    StoreError for one from a newer version."""
    if path.stat().st_size == 0:
        raise DamagedError("it is empty")
    for file in (path.with_name(path.name + suffix) for suffix in SIDE_FILES):
        if file.exists() and not os.access(file, os.R_OK | os.W_OK, effective_ids=True):
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise StoreError(f"cannot open {file}: {reason(file, denied)}")
    path.chmod(0o600)
    try:
        connection = connect(path)
        try:
            _check(connection, path)
            log = _fold_log(connection, path)
        except BaseException:
            connection.close()
            raise
        if log is not None:
            connection.close()  # which deletes the log; its second name is left, whole
            connection = connect(path)
    except sqlite3.DatabaseError as error:
        raise _damage_of(error) from error
    except UnicodeDecodeError as error:  # text, or SQLite's own words about a table's definition, are no text
        raise DamagedError("text in it is not UTF-8") from error
    return connection, log


def _fold_log(connection: sqlite3.Connection, path: Path) -> Path | None:
    """Bring what the log holds into the database. Where acknowledged commits follow a frame that does not fit, the
    log gets a second name, which is returned."""
    log = log_of(path)
    _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    # One commit may have been under way when the power went.
    if header_damaged(log) or commits_after(log, frames) > 1:
        return keep_aside(log)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return None


def _check(connection: sqlite3.Connection, path: Path) -> None:
    run = connection.execute
    if run("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise DamagedError("its header is not that of a gossamer store")
    version = run("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer gossamer (format {version}, this one knows {SCHEMA_VERSION}); "
            "run that version, or name another data directory"
        )
    if version in _VERSIONS_BEFORE:
        raise StoreError(
            f"{path} was written by an earlier gossamer (format {version}, this one reads {SCHEMA_VERSION}), whose "
            "records this one does not take; run that version, or found the mesh anew in another data directory"
        )
    if version != SCHEMA_VERSION:
        raise DamagedError(f"its format is {version}")
    finding = run("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise DamagedError(str(finding).splitlines()[-1])
    connection.text_factory = bytes  # damaged text may not be UTF-8; its checksum is wrong either way
    for query in _ROWS:
        for crc, *row in run(query):
            if crc != row_crc(tuple(row)):
                raise DamagedError(
                    f"a row of {query.rpartition(' ')[2]} does not have the content it was written with"
                )
    connection.text_factory = str


def _damage_of(error: sqlite3.DatabaseError) -> Exception:
    """The damage an error of SQLite means, or the error itself when it means something else."""
    if _code(error) in _DAMAGE:
        return DamagedError(str(error))
    # The catalogue of tables lies in the file too: damaged there, a table or column is missing.
    if _code(error) == sqlite3.SQLITE_ERROR:
        return DamagedError(str(error))
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
def plain_words(path: Path, doing: str) -> Iterator[None]:
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
        raise StoreError(f"cannot {doing} {path}: {reason(path, error)}") from error
