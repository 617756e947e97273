"""Past versions of policies: what this node has seen and something newer has replaced, in a table of the store.

A journal keeps each writer's newest record of a key. In the transaction that replaces or drops one, it is copied here
first. What is kept is this node's own memory, not replicated state: a node that joined later has seen less, and what
was replaced while this one was away may never have come here.

Bounds: the last VERSIONS_MAX of each key, and BYTES_MAX over all; what was kept first goes first. It is a convenience:
a table that is missing, damaged or of another shape is begun anew, and never keeps a record from being written.

Invariant: a record is in `records` or has gone to `history`, unless it has fallen out of the bounds.
"""

import logging
import sqlite3
from collections.abc import Iterable
from typing import Final

from peer.io.damage import row_crc

log = logging.getLogger("gossamer.store")

KINDS: Final = frozenset({"policy"})
VERSIONS_MAX: Final = 10
BYTES_MAX: Final = 16 * 1024 * 1024

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS history (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, writer BLOB NOT NULL, seq INTEGER NOT NULL,
    data BLOB NOT NULL, crc INTEGER NOT NULL, UNIQUE (kind, key, writer, seq)
);
"""
_COLUMNS: Final = ["id", "kind", "key", "writer", "seq", "data", "crc"]

Place = tuple[bytes, str, str]  # (writer, kind, key), as in the store's batches
Row = tuple[bytes, str, str, int, bytes]


class History:
    """The table, on the store's connection. `keep` is called within its transaction, `forget_state` after a
    rollback."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._bytes: int | None = None  # of all data in the table; None: not counted yet

    def keep(self, places: Iterable[tuple[Place, int]], rows: Iterable[Row] = ()) -> None:
        """Copy what `records` holds at these places below that seq, and `rows` that never got there."""
        wanted = [each for each in places if each[0][1] in KINDS]
        passed_over = [row for row in rows if row[1] in KINDS]
        if not wanted and not passed_over:
            return
        run = self._connection.execute
        run("SAVEPOINT history")
        try:
            self._keep(wanted, passed_over)
        except sqlite3.Error as error:
            self._bytes = None
            if not self._connection.in_transaction:
                raise  # SQLite has undone all of it: the disk is full, or worse
            run("ROLLBACK TO history")
            log.warning("history_not_kept", extra={"fields": {"reason": str(error)}})
        run("RELEASE history")

    def read(self, kind: str, key: str) -> list[bytes]:
        """The encoded records kept of a key, latest kept first; what is not as it was written is left out."""
        try:
            found = self._connection.execute(
                "SELECT kind, key, writer, seq, data, crc FROM history WHERE kind = ? AND key = ? ORDER BY id DESC",
                (kind, key),
            ).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            log.warning("history_unread", extra={"fields": {"reason": str(error)}})
            return []
        return [row[4] for row in found if row_crc(row[:5]) == row[5]]

    def forget_state(self) -> None:
        """The transaction was undone: what was counted may not hold."""
        self._bytes = None

    def _keep(self, places: list[tuple[Place, int]], rows: list[Row]) -> None:
        if self._bytes is None:
            self._bytes = self._prepare()
        keys: dict[tuple[str, str], None] = {}
        for (writer, kind, key), below in places:
            held = self._connection.execute(
                "SELECT writer, kind, key, seq, data FROM records "
                "WHERE writer = ? AND kind = ? AND key = ? AND seq < ?",
                (writer, kind, key, below),
            ).fetchone()
            if held is not None:
                self._insert(held)
                keys[kind, key] = None
        for row in rows:
            self._insert(row)
            keys[row[1], row[2]] = None
        for kind, key in keys:
            self._delete("kind = ? AND key = ? ORDER BY id DESC LIMIT -1 OFFSET ?", (kind, key, VERSIONS_MAX))
        while self._bytes > BYTES_MAX:
            self._delete("1 ORDER BY id LIMIT 1", ())

    def _insert(self, row: Row) -> None:
        writer, kind, key, seq, data = row
        assert self._bytes is not None
        done = self._connection.execute(
            "INSERT OR IGNORE INTO history (kind, key, writer, seq, data, crc) VALUES (?, ?, ?, ?, ?, ?)",
            (kind, key, writer, seq, data, row_crc((kind, key, writer, seq, data))),
        )
        self._bytes += len(data) * done.rowcount

    def _delete(self, which: str, arguments: tuple[object, ...]) -> None:
        assert self._bytes is not None
        chosen = self._connection.execute(
            f"SELECT id, length(data) FROM history WHERE {which}",  # noqa: S608 (no text from outside)
            arguments,
        ).fetchall()
        self._connection.executemany("DELETE FROM history WHERE id = ?", [(number,) for number, _ in chosen])
        self._bytes -= sum(length for _, length in chosen)

    def _prepare(self) -> int:
        """Make sure of the table; returns how much data it holds."""
        columns = [row[1] for row in self._connection.execute("PRAGMA table_info(history)")]
        if columns and columns != _COLUMNS:
            self._connection.execute("DROP TABLE history")
        self._connection.execute(SCHEMA)
        total = self._connection.execute("SELECT coalesce(sum(length(data)), 0) FROM history").fetchone()[0]
        return int(total)
