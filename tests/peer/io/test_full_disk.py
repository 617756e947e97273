"""Disks that are full or read-only: real ones, small, mounted for the test. What was acknowledged is there afterwards,
what was refused is not, and the store works again as soon as the disk does."""

import contextlib
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import peer.disk
from peer.disk import Disk
from peer.io.datadir import DataDirError, lock_data_dir
from peer.io.keys import KeyFile, KeyFileError, Keys
from peer.io.statefile import StateFile, StateFileError
from peer.io.store import Batch, Store, StoreError
from peer.lives import begin_life, open_store

ALICE = b"a" * 16


def put(store: Store, seq: int, size: int = 2000) -> None:
    store.commit(Batch(put=[(ALICE, "policy", f"k{seq}", seq, bytes(size))], heads={ALICE: seq}))


def put_until_refused(store: Store) -> int:
    """The last seq that was acknowledged."""
    seq = store.load().heads.get(ALICE, 0)
    while True:
        try:
            put(store, seq + 1)
        except StoreError as error:
            refusal = str(error)
            break
        seq += 1
    assert refusal.startswith(f"cannot write to {store.path}: the disk is full")
    return seq


def held(directory: Path) -> tuple[int, str]:
    """Up to where a store that is opened again holds everything, and its doubt."""
    store = open_store(directory, Keys.open(directory))
    assert store.set_aside is None
    head = store.load().heads.get(ALICE, 0)
    assert len(store.load().records) == head
    store.close()
    return head, store.doubt


@pytest.fixture
def directory(volume: Any) -> Path:
    made: Path = volume.path / "data"
    made.mkdir(mode=0o700)
    return made


def test_a_first_start_on_a_full_disk_makes_nothing_and_works_when_there_is_room(
    volume: Any, directory: Path
) -> None:
    volume.fill()
    for _ in range(2):
        with pytest.raises((DataDirError, StoreError), match=r"No space left|the disk is full"):
            Store.open(directory)
        assert not (directory / "store.db").exists()
    volume.free()
    assert held(directory) == (0, "")


@pytest.mark.parametrize("leave", [0, 4096, 8192, 16384, 32768, 65536])
def test_a_start_on_a_full_disk_is_refused_in_plain_words_and_changes_nothing(
    volume: Any, directory: Path, leave: int
) -> None:
    keys = Keys.open(directory)
    store = open_store(directory, keys)
    begin_life(keys, store, 1_000)
    for seq in range(1, 4):
        put(store, seq)
    store.close()
    volume.fill(leave=leave)
    refusal = ""
    try:
        store = open_store(directory, keys)
        begin_life(keys, store, 1_000)
        store.close()
    except (DataDirError, StoreError, KeyFileError) as error:
        refusal = str(error)
    assert bool(refusal) == (leave < 65536)
    if refusal:
        assert str(directory) in refusal
        assert "No space left" in refusal or "the disk is full" in refusal
    volume.free()
    assert held(directory) == (3, "")


def test_a_disk_that_becomes_full_refuses_what_has_no_room_and_works_on_when_there_is_some(
    volume: Any, directory: Path
) -> None:
    store = Store.open(directory)
    put(store, 1)
    volume.fill(leave=100_000)
    acknowledged = put_until_refused(store)
    assert acknowledged > 1
    assert store.load().heads == {ALICE: acknowledged}  # reading goes on
    assert put_until_refused(store) == acknowledged
    volume.free()
    put(store, acknowledged + 1)
    store.close()
    assert held(directory) == (acknowledged + 1, "")


def test_a_store_closed_on_a_full_disk_is_whole_and_in_no_doubt(volume: Any, directory: Path) -> None:
    store = Store.open(directory)
    volume.fill(leave=100_000)
    acknowledged = put_until_refused(store)
    volume.fill()
    store.close()
    volume.free()
    assert held(directory) == (acknowledged, "")


WRITER = """
    import sys
    from pathlib import Path
    from peer.io.store import Batch, Store, StoreError
    store = Store.open(Path(sys.argv[1]))
    print("open", flush=True)
    seq = 0
    while True:
        try:
            row = (b"a" * 16, "policy", f"k{seq + 1}", seq + 1, bytes(2000))
            store.commit(Batch(put=[row], heads={b"a" * 16: seq + 1}))
        except StoreError:
            print("refused", flush=True)
        else:
            seq += 1
            print(seq, flush=True)
"""


def test_kill_9_on_a_full_disk_loses_nothing_that_was_acknowledged(volume: Any, directory: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    for _ in range(5):
        child.stdout.readline()
    volume.fill(leave=200_000)
    lines = []
    while lines[-3:] != ["refused"] * 3:
        lines.append(child.stdout.readline().strip())
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.read().split()
    child.stdout.close()
    child.wait()
    acknowledged = max(int(line) for line in lines if line.isdigit())
    volume.free()
    assert held(directory) == (acknowledged, "")


def test_a_damaged_database_is_set_aside_on_a_full_disk_too_and_missed_afterwards(
    volume: Any, directory: Path
) -> None:
    keys = Keys.open(directory)
    keys.write(KeyFile.CREDENTIAL, b"a member")
    open_store(directory, keys).close()
    path = directory / "store.db"
    damaged = b"garbage" + path.read_bytes()[7:]
    path.write_bytes(damaged)
    volume.fill()
    for _ in range(2):
        with pytest.raises((DataDirError, StoreError), match=r"No space left|the disk is full"):
            open_store(directory, keys)
    volume.free()
    store = open_store(directory, keys)
    assert store.fresh
    assert store.doubt
    store.close()
    (aside,) = directory.glob("store.db.corrupt-*")
    assert aside.read_bytes() == damaged


@pytest.mark.parametrize("leave", [0, 34_000, 50_000, 100_000])
def test_a_damaged_log_is_kept_and_not_forgotten_on_a_full_disk(
    volume: Any, directory: Path, leave: int
) -> None:
    store = Store.open(directory)
    for seq in range(1, 40):
        put(store, seq)
    database, log = store.path.read_bytes(), (directory / "store.db-wal").read_bytes()
    store.close()
    store.path.write_bytes(database)
    damaged = log[:20_000] + b"X" + log[20_001:]
    (directory / "store.db-wal").write_bytes(damaged)
    volume.fill(leave=leave)
    for _ in range(3):
        with contextlib.suppress(StoreError, DataDirError):
            Store.open(directory).close()
    volume.free()
    store = Store.open(directory)
    assert "its log is" in store.doubt
    assert store.load().heads[ALICE] < 39
    store.close()
    (aside,) = directory.glob("*.corrupt-*")
    assert aside.read_bytes() == damaged


def test_a_damaged_log_that_cannot_be_kept_leaves_no_part_and_is_not_forgotten(
    volume: Any, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without hard links."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    store = Store.open(directory)
    for seq in range(1, 40):
        put(store, seq)
    database, log = store.path.read_bytes(), (directory / "store.db-wal").read_bytes()
    store.close()
    store.path.write_bytes(database)
    (directory / "store.db-wal").write_bytes(log[:20_000] + b"X" + log[20_001:])
    volume.fill(leave=100_000)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(StoreError, match="No space left"):
        Store.open(directory)
    assert not list(directory.glob("*.corrupt-*"))
    volume.free()
    store = Store.open(directory)
    assert "its log is gone" in store.doubt
    store.close()


def test_small_files_keep_their_old_content_on_a_full_disk(volume: Any, directory: Path) -> None:
    keys = Keys.open(directory)
    state = StateFile(directory / "contacts.json")
    keys.write(KeyFile.CREDENTIAL, b"old")
    state.write("[]")
    volume.fill()
    with pytest.raises(KeyFileError, match=r"node\.credential: cannot be written: No space left on device"):
        keys.write(KeyFile.CREDENTIAL, bytes(5000))
    with pytest.raises(KeyFileError, match=r"keys/boot: cannot be written: No space left on device"):
        keys.next_boot(1_000)
    with pytest.raises(StateFileError, match=r"contacts\.json: cannot be written: No space left on device"):
        state.write("[" * 5000)
    assert (keys.read(KeyFile.CREDENTIAL), state.read(), keys.last_boot()) == (b"old", "[]", None)
    assert not list(directory.rglob("*.tmp"))
    volume.free()
    assert keys.next_boot(1_000) == 1_000


async def test_a_disk_is_not_said_to_work_before_something_was_written(
    volume: Any, directory: Path, until: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(peer.disk, "RETRY_S", 0.01)
    store = Store.open(directory)
    disk = Disk(store)
    probes: list[str] = []
    monkeypatch.setattr(store, "probe", lambda probe=store.probe: (probes.append(disk.problem), probe())[1])
    volume.fill()
    with pytest.raises(StoreError, match="the disk is full"):
        await disk.commit(Batch(put=[(ALICE, "policy", "k", 1, bytes(200_000))]))
    await until(lambda: len(probes) > 3)
    assert all("the disk is full" in problem for problem in probes)
    assert disk.problem
    volume.free()
    await until(lambda: not disk.problem)
    assert [record.message for record in caplog.records] == ["not_stored", "store_works_again"]
    await disk.close()


def test_another_disk_that_is_full_is_in_no_commits_way(volume: Any, tmp_path: Path) -> None:
    """SQLite undoes parts of a transaction from a temporary file, by default in $TMPDIR."""
    script = """
        import sys
        from pathlib import Path
        from peer.io.store import Batch, Store
        store = Store.open(Path(sys.argv[1]))
        for version in (1, 2, 3):
            rows = [(b"a", "policy", f"k{n}", version * 1000 + n, bytes(3000)) for n in range(400)]
            store.commit(Batch(put=rows))
        print(len(store.load().records), len(store.past("policy", "k7")))
    """
    volume.fill()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "data")],
        env={**os.environ, "SQLITE_TMPDIR": str(volume.path), "TMPDIR": str(volume.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "400 2\n", done.stderr


def test_a_read_only_disk_is_named_at_the_start(volume: Any, directory: Path) -> None:
    Store.open(directory).close()
    volume.read_only()
    with pytest.raises(DataDirError, match=rf"data directory {directory}: lock: Read-only file system"):
        lock_data_dir(directory)


def test_a_disk_that_turns_read_only_refuses_writes_and_lost_nothing(journalled: Any) -> None:
    directory = journalled.path / "data"
    store = Store.open(directory)
    for seq in range(1, 6):
        put(store, seq)
    journalled.break_()
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"cannot write to {store.path}: "):
            put(store, 6)
        with pytest.raises(StoreError, match=rf"cannot write to {store.path}: "):
            store.probe()
    assert store.load().heads == {ALICE: 5}  # reading goes on
    store.close()
    journalled.unmount()
    journalled.mount()
    assert held(directory) == (5, "")


def test_a_temporary_database_of_a_start_cut_short_is_begun_again(directory: Path) -> None:
    other = sqlite3.connect(directory / "store.db.new")
    other.execute("CREATE TABLE half (x)")
    other.close()
    (directory / "store.db.new-wal").write_bytes(b"x")
    assert held(directory) == (0, "")
    assert not list(directory.glob("store.db.new*"))
