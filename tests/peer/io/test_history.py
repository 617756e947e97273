"""What records have replaced stays for a while: bounded, durable, and never in the way of a write."""

import sqlite3
from typing import Any

import pytest

import peer.io.history as history
from peer.io.store import Batch, Store, StoreError

ALICE, BOB = b"a" * 16, b"b" * 16
KEY = "TrafficPolicy/default/one"


def row(
    seq: int, data: bytes | None = None, *, writer: bytes = ALICE, key: str = KEY, kind: str = "policy"
) -> Any:
    return (writer, kind, key, seq, b"v%d" % seq if data is None else data)


def put(store: Store, *rows: Any, delete: Any = ()) -> None:
    store.commit(Batch(put=rows, delete=delete))


@pytest.fixture
def store(tmp_path: Any) -> Any:
    made = Store.open(tmp_path)
    yield made
    made.close()


def test_what_is_replaced_or_dropped_is_kept_the_latest_first(store: Store) -> None:
    put(store, row(1))
    assert store.past("policy", KEY) == []
    put(store, row(2), row(7, writer=BOB))
    put(store, row(3), delete=[(ALICE, "policy", KEY)])  # as what was heard from others comes
    assert store.past("policy", KEY) == [b"v2", b"v1"]
    put(store, delete=[(ALICE, "policy", KEY)])  # a deletion that says nothing any more
    assert store.past("policy", KEY) == [b"v3", b"v2", b"v1"]
    assert store.past("policy", "TrafficPolicy/default/other") == []


def test_what_is_older_or_the_same_replaces_nothing(store: Store) -> None:
    put(store, row(5))
    put(store, row(3))
    put(store, row(5, b"other"))
    assert store.past("policy", KEY) == []
    assert store.load().records == (b"v5",)


def test_what_one_batch_itself_replaces_is_kept_too(store: Store) -> None:
    store.commit(Batch(put=[row(2), row(3), row(4)], past=[row(1)]))
    assert sorted(store.past("policy", KEY)) == [b"v1", b"v2", b"v3"]
    assert store.load().records == (b"v4",)


def test_other_kinds_have_no_history(store: Store) -> None:
    for seq in (1, 2, 3):
        put(store, row(seq, kind="service"))
    assert store.past("service", KEY) == []


def test_it_survives_a_restart(tmp_path: Any) -> None:
    store = Store.open(tmp_path)
    for seq in (1, 2, 3):
        put(store, row(seq))
    store.close()
    again = Store.open(tmp_path)
    put(again, row(4))
    assert again.past("policy", KEY) == [b"v3", b"v2", b"v1"]
    again.close()


def test_each_key_keeps_its_last_versions(store: Store) -> None:
    put(store, row(1, key="x"))
    put(store, row(2, key="x"))
    for seq in range(1, 30):
        put(store, row(seq))
    kept = store.past("policy", KEY)
    assert kept == [b"v%d" % seq for seq in range(28, 28 - history.VERSIONS_MAX, -1)]
    assert store.past("policy", "x") == [b"v1"]


def test_all_together_have_a_bound_in_bytes(store: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(history, "BYTES_MAX", 1000)
    for seq in range(1, 9):
        for key in ("a", "b"):
            put(store, row(seq, bytes(150), key=key))
    table = store._connection.execute("SELECT key, seq FROM history ORDER BY id").fetchall()
    assert table == [("a", 5), ("b", 5), ("a", 6), ("b", 6), ("a", 7), ("b", 7)]
    put(store, row(9, bytes(5000), key="a"))
    put(store, row(10, b"small", key="a"))  # what is larger than the bound is not kept at all
    assert store._connection.execute("SELECT count(*) FROM history").fetchone() == (0,)
    put(store, row(11, b"small", key="a"))
    assert store.past("policy", "a") == [b"small"]


def test_a_transaction_that_fails_changes_no_history(store: Store) -> None:
    put(store, row(1))
    with pytest.raises(StoreError):
        store.commit(Batch(put=[row(2)], heads={ALICE: 2**64}))
    assert store.past("policy", KEY) == []
    put(store, row(2))
    assert store.past("policy", KEY) == [b"v1"]


def altered(tmp_path: Any, *statements: str) -> Store:
    """A store with two past versions whose file somebody has changed in between."""
    store = Store.open(tmp_path)
    for seq in (1, 2, 3):
        put(store, row(seq))
    store.close()
    connection = sqlite3.connect(tmp_path / "store.db")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return Store.open(tmp_path)


@pytest.mark.parametrize(
    ("statement", "kept"),
    [
        ("DROP TABLE history", []),  # also a database of before there was one
        ("UPDATE history SET data = x'00' WHERE seq = 1", [b"v2"]),
        ("UPDATE history SET key = x'ff' WHERE seq = 1", [b"v2"]),
        ("ALTER TABLE history RENAME COLUMN data TO other", []),
        ("UPDATE history SET crc = 0", []),
    ],
)
def test_a_history_that_is_damaged_or_missing_is_no_error(
    tmp_path: Any, statement: str, kept: list[bytes]
) -> None:
    store = altered(tmp_path, statement)
    assert store.set_aside is None
    assert store.past("policy", KEY) == kept
    put(store, row(4))
    assert store.past("policy", KEY) == [b"v3", *kept]
    assert store.load().records == (b"v4",)
    store.close()


def test_a_history_that_cannot_be_written_keeps_no_record_from_being_written(
    tmp_path: Any, caplog: Any
) -> None:
    refuse = "CREATE TRIGGER no BEFORE INSERT ON history BEGIN SELECT RAISE(ABORT, 'not today'); END"
    store = altered(tmp_path, refuse)
    put(store, row(4))
    assert store.load().records == (b"v4",)
    assert [record.message for record in caplog.records] == ["history_not_kept"]
    store.close()
