"""The journal's disk, with files really torn, really corrupted, writers really killed and a disk really full."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.io.datadir import DataDirBusy, DataDirError, lock_data_dir
from peer.io.store import Batch, Store, StoreError

ALICE, BOB = b"a" * 16, b"b" * 16


def put(
    store: Store, seq: int, *, writer: bytes = ALICE, key: str | None = None, data: bytes | None = None
) -> None:
    key = f"key-{seq}" if key is None else key
    data = b"record %d" % seq if data is None else data
    store.commit(Batch(put=[(writer, "policy", key, seq, data)], heads={writer: seq}))


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


def test_what_was_committed_is_loaded_again(tmp_path):
    store = Store.open(tmp_path)
    assert store.fresh
    assert store.set_aside is None
    put(store, 1)
    put(store, 2, key="key-1")
    put(store, 9, writer=BOB)
    store.commit(Batch(introductions={ALICE: b"old"}, spent=[(b"t", ALICE, 7), (b"t", ALICE, 7)]))
    store.commit(Batch(introductions={ALICE: b"new"}))
    store.close()
    again = Store.open(tmp_path)
    loaded = again.load()
    again.close()
    assert not again.fresh
    assert loaded.records == (b"record 2", b"record 9")
    assert loaded.heads == {ALICE: 2, BOB: 9}
    assert loaded.introductions == {ALICE: b"new"}
    assert loaded.spent == {(b"t", ALICE, 7)}


def test_records_load_in_rising_seq_of_each_writer(tmp_path):
    store = Store.open(tmp_path)
    store.commit(
        Batch(put=[(ALICE, "policy", key, seq, b"%d" % seq) for key, seq in (("z", 1), ("a", 3), ("m", 2))])
    )
    assert store.load().records == (b"1", b"2", b"3")
    store.close()


def test_a_head_never_falls_and_an_older_record_never_replaces_a_newer_one(tmp_path):
    store = Store.open(tmp_path)
    put(store, 5, key="k")
    put(store, 3, key="k")
    store.commit(Batch(put=[(ALICE, "policy", "k", 5, b"same seq, other content")]))
    assert store.load().records == (b"record 5",)
    assert store.load().heads == {ALICE: 5}
    store.close()


def test_delete_keeps_the_head_and_forgotten_tokens_go(tmp_path):
    store = Store.open(tmp_path)
    put(store, 1)
    store.commit(Batch(spent=[(b"t1", ALICE, 7), (b"t2", ALICE, 8)]))
    store.commit(Batch(delete=[(ALICE, "policy", "key-1"), (BOB, "policy", "no such")], forget_spent=[b"t1"]))
    loaded = store.load()
    store.close()
    assert loaded.records == ()
    assert loaded.heads == {ALICE: 1}
    assert loaded.spent == {(b"t2", ALICE, 8)}


def test_meta_survives(tmp_path):
    store = Store.open(tmp_path)
    assert store.meta_get("x") is None
    store.meta_set("x", b"1")
    store.meta_set("x", b"2")
    store.close()
    with_lock = lock_data_dir(tmp_path)
    again = Store.open(tmp_path, with_lock)
    assert again.meta_get("x") == b"2"
    again.close()


def test_a_batch_that_fails_midway_leaves_nothing_of_itself(tmp_path):
    store = Store.open(tmp_path)
    put(store, 1)
    with pytest.raises(StoreError, match="beyond 64 bits"):
        store.commit(Batch(put=[(ALICE, "policy", "new", 2, b"")], heads={ALICE: 2, BOB: 2**64}))
    put(store, 3)  # and the store goes on working
    loaded = store.load()
    store.close()
    assert loaded.records == (b"record 1", b"record 3")
    assert loaded.heads == {ALICE: 3}


def test_a_full_disk_is_told_in_plain_words_and_nothing_is_half_applied(tmp_path):
    store = Store.open(tmp_path)
    put(store, 1)
    store._connection.execute("PRAGMA max_page_count = 16")  # SQLite's own disk-full
    with pytest.raises(StoreError, match=r"cannot write to .*store\.db: the disk is full"):
        store.commit(
            Batch(put=[(ALICE, "policy", f"k{n}", n, bytes(2000)) for n in range(2, 200)], heads={ALICE: 199})
        )
    store._connection.execute("PRAGMA max_page_count = 100000")
    loaded = store.load()
    put(store, 2)
    store.close()
    assert loaded.records == (b"record 1",)
    assert loaded.heads == {ALICE: 1}


def test_a_file_that_cannot_grow_is_told_in_plain_words(tmp_path):
    """A real failing write(2), in a child: RLIMIT_FSIZE as a disk quota."""
    script = """
        import resource, signal, sys
        from pathlib import Path
        from peer.io.store import Batch, Store, StoreError
        store = Store.open(Path(sys.argv[1]))
        store.commit(Batch(put=[(b"a", "policy", "k", 1, b"kept")], heads={b"a": 1}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            store.commit(Batch(put=[(b"a", "policy", "k", 2, bytes(1 << 20))], heads={b"a": 2}))
        except StoreError as error:
            print(error)
        print(store.load().heads, store.load().records)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot write to" in done.stdout
    assert "{b'a': 1} (b'kept',)" in done.stdout


HOLDER = """
    import sys
    from pathlib import Path
    from peer.io.store import Store
    store = Store.open(Path(sys.argv[1]))
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path):
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(HOLDER),
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(DataDirBusy, match=f"is in use by process {child.pid};") as caught:
            Store.open(tmp_path)
        assert caught.value.pid == child.pid
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    Store.open(tmp_path).close()  # the kernel dropped the lock with its holder


def test_a_store_that_cannot_open_gives_the_lock_back(tmp_path):
    store = Store.open(tmp_path)
    store._connection.execute("PRAGMA user_version = 99")
    store.close()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"written by a newer gossamer \(format 99, this one knows 1\)"):
            Store.open(tmp_path)
    assert not list(tmp_path.glob("*.corrupt-*"))


WRITER = """
    import sys
    from pathlib import Path
    from peer.io.store import Batch, Store
    store = Store.open(Path(sys.argv[1]))
    seq = store.load().heads.get(b"a", 0)
    while True:
        seq += 1
        store.commit(Batch(put=[(b"a", "policy", f"k{seq % 50}", seq, b"%d" % seq)], heads={b"a": seq}))
        sys.stdout.write(f"{seq}\\n")
        sys.stdout.flush()
"""


def test_kill_9_of_a_writer_loses_no_acknowledged_batch(tmp_path):
    acknowledged = 0
    for round_number in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(20 + 17 * round_number):
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        for line in child.stdout.read().splitlines(keepends=True):  # what it had acknowledged when it died
            if line.endswith("\n"):
                acknowledged = int(line)
        child.stdout.close()
        child.wait()
        store = Store.open(tmp_path)
        loaded = store.load()
        store.close()
        assert store.set_aside is None
        # The batch after the last acknowledged one may have reached the disk too; never a part of it.
        assert loaded.heads[b"a"] in (acknowledged, acknowledged + 1)
        assert max(int(data) for data in loaded.records) == loaded.heads[b"a"]


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def truncate(path: Path, size: int) -> None:
    os.truncate(path, size)


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
        # The version field may now say anything above ours.
        if "newer gossamer" not in str(error):
            raise
        return
    loaded = again.load()
    again.close()
    assert loaded == before or (again.set_aside is not None and loaded.records == ())


def test_files_are_private_whatever_the_umask_says(tmp_path):
    before = os.umask(0)
    try:
        store = Store.open(tmp_path / "deep" / "data")
        put(store, 1)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep/data").iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep/data").stat().st_mode) == 0o700
    assert modes == {"lock": 0o600, "store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_a_directory_prepared_for_the_peer_is_made_private(tmp_path):
    (tmp_path / "data" / "services.d").mkdir(parents=True)
    (tmp_path / "data" / "peer.yaml").touch()
    (tmp_path / "data").chmod(0o755)
    lock_data_dir(tmp_path / "data").close()
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_directory_of_other_things_keeps_its_permissions_and_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(DataDirError, match=f"{tmp_path} is open to others .* chmod 700 {tmp_path}"):
        lock_data_dir(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_data_directory_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(DataDirError, match=r"File exists|Not a directory"):
        lock_data_dir(tmp_path / "data")


def test_the_database_really_is_in_wal_mode_with_full_synchronisation(tmp_path):
    store = Store.open(tmp_path)
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()
    with pytest.raises(StoreError, match="cannot read"):
        store.meta_get("x")
    other = sqlite3.connect(store.path)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
