"""The journal's disk, with files really torn, really corrupted, writers really killed and a disk really full."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap

import pytest

from peer.io.datadir import lock_data_dir
from peer.io.store import Batch, Store, StoreError

ALICE, BOB = b"a" * 16, b"b" * 16


def put(
    store: Store, seq: int, *, writer: bytes = ALICE, key: str | None = None, data: bytes | None = None
) -> None:
    key = f"key-{seq}" if key is None else key
    data = b"record %d" % seq if data is None else data
    store.commit(Batch(put=[(writer, "policy", key, seq, data)], heads={writer: seq}))


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


def test_the_proof_of_an_equivocation_survives_and_the_first_one_stays(tmp_path):
    store = Store.open(tmp_path)
    store.commit(Batch(forks={ALICE: (b"one", b"other")}))
    store.commit(Batch(forks={ALICE: (b"one", b"third"), BOB: (b"x", b"y")}))
    store.close()
    again = Store.open(tmp_path)
    assert again.load().forks == {ALICE: (b"one", b"other"), BOB: (b"x", b"y")}
    again.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_with_records_of_an_earlier_format_is_left_alone_and_refused_in_words(tmp_path, version):
    store = Store.open(tmp_path)
    put(store, 1)
    store._connection.execute(f"PRAGMA user_version = {version}")
    store.close()
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(StoreError, match=rf"an earlier gossamer \(format {version}, this one reads 3\)"):
        Store.open(tmp_path)
    assert (tmp_path / "store.db").read_bytes() == before
    assert not list(tmp_path.glob("*.corrupt-*"))


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


def test_a_store_that_cannot_open_gives_the_lock_back(tmp_path):
    store = Store.open(tmp_path)
    store._connection.execute("PRAGMA user_version = 99")
    store.close()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"written by a newer gossamer \(format 99, this one knows 3\)"):
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
