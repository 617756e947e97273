"""Databases and logs really torn and really corrupted: found, set aside, and nothing silently wrong."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.io.store import Batch, Store, StoreError

ALICE, BOB = b"a" * 16, b"b" * 16


def put(
    store: Store, seq: int, *, writer: bytes = ALICE, key: str | None = None, data: bytes | None = None
) -> None:
    key = f"key-{seq}" if key is None else key
    data = b"record %d" % seq if data is None else data
    store.commit(Batch(put=[(writer, "policy", key, seq, data)], heads={writer: seq}))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def truncate(path: Path, size: int) -> None:
    os.truncate(path, size)


@pytest.fixture
def filled(tmp_path) -> Path:
    """A closed store of 200 records in several pages."""
    store = Store.open(tmp_path / "data")
    store.commit(
        Batch(
            put=[
                (ALICE, "policy", f"key-{seq}", seq, b"record %d " % seq + b"x" * 300)
                for seq in range(1, 201)
            ],
            heads={ALICE: 200, BOB: 7},
            introductions={ALICE: b"credential"},
            spent=[(b"token", BOB, 1000)],
        )
    )
    store.meta_set("epoch", b"3")
    store.close()
    return store.path


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: overwrite(path, 0, b"not a database at all"),
        lambda path: overwrite(path, 100, os.urandom(64)),
        lambda path: overwrite(path, 4096, os.urandom(4096)),
        lambda path: overwrite(path, 4096 * 5, bytes(4096)),
        lambda path: overwrite(path, 68, b"\0\0\0\0"),
        lambda path: overwrite(path, 60, b"\0\0\0\0"),
        lambda path: truncate(path, path.stat().st_size // 2),
        lambda path: truncate(path, 4096 * 3 + 17),
        lambda path: truncate(path, 50),
        lambda path: truncate(path, 0),
        lambda path: overwrite(path, path.read_bytes().index(b"record 150 xxx") + 30, b"y"),
        lambda path: overwrite(path, path.read_bytes().index(b"credential"), b"C"),
    ],
    ids=["magic", "catalogue", "page", "zeroed page", "application id", "version", "half", "torn page", "stub",
         "empty", "one byte of a record", "one byte of an introduction"],
)  # fmt: skip
def test_a_damaged_file_is_set_aside_and_the_store_starts_empty(filled, damage):
    damage(filled)
    damaged = filled.read_bytes()
    store = Store.open(filled.parent)
    assert store.fresh
    assert store.damage
    assert store.set_aside is not None
    assert store.set_aside.name.startswith("store.db.corrupt-2")
    assert store.set_aside.read_bytes() == damaged  # nothing of the evidence is lost
    loaded = store.load()
    assert (loaded.records, loaded.heads) == ((), {})
    put(store, 201)
    store.close()
    again = Store.open(filled.parent)
    assert again.set_aside is None
    assert again.load().heads == {ALICE: 201}
    again.close()


def test_two_damaged_files_in_one_second_keep_their_own_names(filled):
    names = set()
    for _ in range(3):
        overwrite(filled, 0, b"garbage")
        store = Store.open(filled.parent)
        assert store.set_aside is not None
        names.add(store.set_aside.name)
        store.close()
    assert len(names) == 3


def test_a_log_left_without_its_database_is_not_replayed_into_a_new_one(tmp_path):
    store = Store.open(tmp_path)
    put(store, 1)
    log = (tmp_path / "store.db-wal").read_bytes()
    store.close()
    (tmp_path / "store.db").unlink()
    (tmp_path / "store.db-wal").write_bytes(log)
    again = Store.open(tmp_path)
    assert again.load().records == ()
    again.close()


def test_a_torn_tail_of_the_log_loses_only_the_batch_that_was_being_written(tmp_path):
    store = Store.open(tmp_path / "a")
    put(store, 1)
    put(store, 2)
    database, log = (tmp_path / "a/store.db").read_bytes(), (tmp_path / "a/store.db-wal").read_bytes()
    store.close()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/store.db").write_bytes(database)
    (tmp_path / "b/store.db-wal").write_bytes(log[:-1000])
    again = Store.open(tmp_path / "b")
    assert again.set_aside is None
    assert again.load().heads == {ALICE: 1}
    again.close()


def crashed(tmp_path: Path, batches: int) -> Path:
    """The database and log of a store that was never closed, in a directory of their own."""
    store = Store.open(tmp_path / "a")
    for seq in range(1, batches + 1):
        put(store, seq)
    (tmp_path / "b").mkdir()
    for name in ("store.db", "store.db-wal"):
        (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    store.close()
    return tmp_path / "b" / "store.db"


def test_a_log_damaged_in_the_middle_is_told_and_kept(tmp_path):
    path = crashed(tmp_path, 20)
    log = path.with_name("store.db-wal")
    overwrite(log, log.read_bytes().index(b"record 10") + 3, b"X")
    damaged = log.read_bytes()
    store = Store.open(path.parent)
    assert not store.fresh
    assert store.set_aside is not None
    assert store.set_aside.name.startswith("store.db-wal.corrupt-2")
    assert store.set_aside.read_bytes() == damaged
    assert "what was stored last is lost" in store.damage
    assert 0 < store.load().heads[ALICE] < 20  # an earlier state, whole
    store.close()
    again = Store.open(path.parent)
    assert again.set_aside is None
    again.close()


@pytest.mark.parametrize("cut", [1, 100, 4000, 4200, 9000])
def test_a_log_cut_short_is_what_a_crash_leaves(tmp_path, cut):
    path = crashed(tmp_path, 20)
    log = path.with_name("store.db-wal")
    truncate(log, log.stat().st_size - cut)
    store = Store.open(path.parent)
    assert store.set_aside is None
    assert store.load().heads[ALICE] < 20
    store.close()


def test_what_an_earlier_generation_left_in_the_log_is_no_damage(tmp_path):
    store = Store.open(tmp_path / "a")
    for seq in range(1, 20):
        put(store, seq)
    store._connection.execute("PRAGMA wal_checkpoint(RESTART)")
    put(store, 20)  # overwrites the beginning of the log only
    (tmp_path / "b").mkdir()
    for name in ("store.db", "store.db-wal"):
        (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    store.close()
    again = Store.open(tmp_path / "b")
    assert again.set_aside is None
    assert again.load().heads == {ALICE: 20}
    again.close()


def copied(tmp_path: Path) -> Path:
    """A database put back from a backup: whole, and another file than the one that was written last."""
    store = Store.open(tmp_path / "a")
    put(store, 1)
    store.close()
    backup = (tmp_path / "a" / "store.db").read_bytes()
    again = Store.open(tmp_path / "a")
    assert again.doubt == ""
    put(again, 2)
    again.close()
    (tmp_path / "a" / "restored").write_bytes(backup)
    (tmp_path / "a" / "restored").replace(tmp_path / "a" / "store.db")
    return tmp_path / "a"


def test_a_database_put_back_from_a_backup_is_in_doubt_until_somebody_tells(tmp_path):
    directory = copied(tmp_path)
    for _ in range(2):  # a second start forgets nothing
        store = Store.open(directory)
        assert not store.fresh
        assert store.set_aside is None
        assert "restored from a backup" in store.doubt
        assert store.load().heads == {ALICE: 1}
        store.close()
    store = Store.open(directory)
    store.trust()
    assert store.doubt == ""
    store.close()
    again = Store.open(directory)
    assert again.doubt == ""
    again.close()


def test_that_a_log_was_damaged_is_not_forgotten_by_another_start(tmp_path):
    path = crashed(tmp_path, 20)
    log = path.with_name("store.db-wal")
    overwrite(log, log.read_bytes().index(b"record 10") + 3, b"X")
    Store.open(path.parent).close()
    again = Store.open(path.parent)
    assert again.set_aside is None
    assert "what was stored last is lost" in again.doubt
    again.close()


@pytest.mark.timeout(400)  # for one that hangs: half a minute of work, on a core that others use too
@given(st.integers(0, 4096 * 30), st.binary(min_size=1, max_size=64))
def test_any_overwritten_bytes_are_found_or_harmless(tmp_path_factory, offset, data):
    directory = tmp_path_factory.mktemp("store")
    store = Store.open(directory)
    store.commit(
        Batch(put=[(ALICE, "policy", f"k{n}", n, b"%d" % n * 400) for n in range(1, 41)], heads={ALICE: 40})
    )
    before = store.load()
    store.close()
    path = directory / "store.db"
    overwrite(path, offset % path.stat().st_size, data)
    try:
        again = Store.open(directory)
    except StoreError as error:
        # The version field may now say any other than ours.
        if "newer gossamer" not in str(error) and "earlier gossamer" not in str(error):
            raise
        return
    loaded = again.load()
    again.close()
    assert loaded == before or (again.set_aside is not None and loaded.records == ())
