"""Old databases in every way an operator puts one back: found, whatever the inode says, and crashes are not."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from peer.io.keys import KeyFile, Keys
from peer.io.stale import Boot, decode_boot, file_mark
from peer.io.store import Batch, Store, StoreError
from peer.lives import begin_life, open_store

ALICE = b"a" * 16


def live(directory: Path, *, puts: int = 1) -> str:
    """One whole life: start, write, stop. The doubt it began with."""
    keys = Keys.open(directory)
    keys.write(KeyFile.CREDENTIAL, b"a member")
    store = open_store(directory, keys)
    begin_life(keys, store, 1_000)
    doubt = store.doubt
    write(store, puts)
    store.close()
    return doubt


def write(store: Store, puts: int = 1) -> None:
    head = store.load().heads.get(ALICE, 0)
    for seq in range(head + 1, head + puts + 1):
        store.commit(Batch(put=[(ALICE, "policy", f"k{seq}", seq, b"x")], heads={ALICE: seq}))


def reopened(directory: Path) -> str:
    store = open_store(directory, Keys.open(directory))
    store.close()
    return store.doubt


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a peer that has lived once, and was backed up after that."""
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    keys = Keys.open(made)
    store = Store.open(made)
    begin_life(keys, store, 1_000)
    write(store)
    store.close()
    keys.write(KeyFile.CREDENTIAL, b"a member")
    shutil.copytree(made, tmp_path / "backup")
    return made


def in_place(source: Path, target: Path) -> None:
    """As `cp -a source/. target/` does: the files stay the same ones, and what is not in the backup stays."""
    for path in source.rglob("*"):
        goal = target / path.relative_to(source)
        if path.is_file():
            goal.write_bytes(path.read_bytes())


def removed_first(source: Path, target: Path) -> None:
    """`rm` and `cp`: the file system may give the freed inode out again."""
    (target / "store.db").unlink()
    shutil.copy2(source / "store.db", target / "store.db")


def database_in_place(source: Path, target: Path) -> None:
    (target / "store.db").write_bytes((source / "store.db").read_bytes())


def directory_replaced(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


@pytest.mark.parametrize("restore", [in_place, removed_first, database_in_place, directory_replaced])
def test_a_backup_from_an_earlier_life_is_in_doubt_however_it_is_put_back(
    directory: Path, tmp_path: Path, restore: Callable[[Path, Path], None]
) -> None:
    for _ in range(2):
        assert live(directory) == ""
    restore(tmp_path / "backup", directory)
    assert "restored from a backup" in reopened(directory)
    assert "restored from a backup" in reopened(directory)  # a second start forgets nothing


def test_a_hot_backup_from_the_same_life_put_back_in_place_is_in_doubt(
    directory: Path, tmp_path: Path
) -> None:
    keys = Keys.open(directory)
    store = open_store(directory, keys)
    begin_life(keys, store, 2_000)
    source, target = sqlite3.connect(directory / "store.db"), sqlite3.connect(tmp_path / "hot.db")
    source.backup(target)
    source.close()
    target.close()
    write(store, 5)
    store.close()
    (directory / "store.db").write_bytes((tmp_path / "hot.db").read_bytes())
    assert "its log is gone" in reopened(directory)


CRASH = """
    import os, signal, sys
    from pathlib import Path
    from peer.io.keys import Keys
    from peer.io.store import Batch, Store
    from peer.lives import begin_life, open_store
    directory, moment = Path(sys.argv[1]), sys.argv[2]
    def die(): os.kill(os.getpid(), signal.SIGKILL)
    keys = Keys.open(directory)
    store = open_store(directory, keys)
    if moment == "opened": die()
    remember, times = Store.remember_boot, []
    def dying(self, boot):
        remember(self, boot)
        times.append(boot)
        if moment == f"boot {len(times)}": die()
    Store.remember_boot = dying
    begin_life(keys, store, 2_000)
    store.commit(Batch(heads={b"a" * 16: 9}))
    if moment == "written": die()
    store._tell_closed()
    die()
"""


@pytest.mark.parametrize("moment", ["opened", "boot 1", "boot 2", "written", "closing"])
def test_what_a_crash_leaves_is_never_in_doubt(directory: Path, moment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CRASH), str(directory), moment],
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    keys = Keys.open(directory)
    store = open_store(directory, keys)
    assert store.doubt == ""
    assert begin_life(keys, store, 0) > 2_000 - (moment == "opened") * 1_000
    if moment in {"written", "closing"}:
        assert store.load().heads[ALICE] == 9
    store.close()


def test_a_crash_after_which_somebody_removed_the_log_is_in_doubt(directory: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CRASH), str(directory), "written"],
        check=False,
        capture_output=True,
    )
    for suffix in ("-wal", "-shm"):
        (directory / f"store.db{suffix}").unlink()
    store = open_store(directory, Keys.open(directory))
    assert store.load().heads[ALICE] == 1  # what was acknowledged last is gone, and it knows
    assert "it was not closed, and its log is gone" in store.doubt
    store.close()


def test_a_database_that_was_lost_is_missed_where_the_keys_are_a_members(directory: Path) -> None:
    (directory / "store.db").unlink()
    for _ in range(2):
        store = open_store(directory, Keys.open(directory))
        assert "the one before was lost" in store.doubt
        store.close()


def test_the_first_database_of_a_newcomer_is_in_no_doubt(tmp_path: Path) -> None:
    store = open_store(tmp_path, Keys.open(tmp_path))
    assert (store.fresh, store.doubt) == (True, "")
    store.close()


def test_one_made_for_a_damaged_one_is_in_doubt_until_somebody_tells(directory: Path) -> None:
    (directory / "store.db").write_bytes(b"garbage")
    for _ in range(2):
        store = Store.open(directory)
        assert "the one before was damaged" in store.doubt
        store.close()
    store = Store.open(directory)
    store.trust()
    store.close()
    assert reopened(directory) == ""


def test_a_lost_boot_number_is_known_from_the_database(directory: Path) -> None:
    keys = Keys.open(directory)
    keys.path(KeyFile.BOOT).unlink()
    store = open_store(directory, keys)
    assert store.doubt == ""
    assert begin_life(keys, store, 7) == 1_001  # whatever the clock says
    store.close()


def test_older_keys_put_back_beside_a_database_give_no_boot_number_twice(
    directory: Path, tmp_path: Path
) -> None:
    live(directory)
    live(directory)
    (directory / "keys" / "boot").write_bytes((tmp_path / "backup/keys/boot").read_bytes())
    keys = Keys.open(directory)
    store = open_store(directory, keys)
    assert store.doubt == ""  # the database is the newer one
    assert begin_life(keys, store, 0) == 1_003
    store.close()


def test_databases_of_earlier_builds_are_in_no_doubt(directory: Path) -> None:
    store = Store.open(directory)
    store._connection.execute("DELETE FROM meta WHERE key IN ('boot', 'open')")
    store.meta_set("file", b"%d" % (directory / "store.db").stat().st_ino)
    store._connection.close()
    store._lock.close()
    assert live(directory) == ""
    assert live(directory) == ""


def test_somebody_who_looks_into_an_open_database_and_leaves_takes_nothing_along(directory: Path) -> None:
    """Who is the last to close a database deletes its log: the store's locks must show that it is there."""
    store = open_store(directory, Keys.open(directory))
    look = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute('SELECT * FROM heads').fetchall())"
    subprocess.run([sys.executable, "-c", look, str(store.path)], check=True, capture_output=True)
    write(store)
    store.trust()
    store.close()
    assert reopened(directory) == ""


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_what_is_committed_to_a_removed_file_is_not_acknowledged(directory: Path, suffix: str) -> None:
    store = Store.open(directory)
    write(store)
    path = directory / f"store.db{suffix}"
    path.unlink()
    with pytest.raises(StoreError, match=rf"cannot write to {path}: it was removed or replaced"):
        write(store)
    path.write_bytes(b"another")
    with pytest.raises(StoreError, match="it was removed or replaced"):
        store.meta_set("x", b"1")
    store.close()


def test_a_store_that_cannot_say_that_it_was_closed_is_in_no_doubt(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(directory)
    write(store)
    monkeypatch.setattr(store, "_tell_closed", lambda: False)  # as on a full disk
    store.close()
    assert reopened(directory) == ""


def test_a_mark_tells_a_file_from_the_next_one_in_its_inode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    marks = set()
    for _ in range(8):
        path.write_bytes(b"x")
        marks.add(file_mark(path))
        path.unlink()
    if not any("." in mark for mark in marks):
        assert os.uname().sysname == "Linux"  # a file system without generations: the inode alone
        return
    assert len(marks) == 8


def test_boots_are_read_back() -> None:
    for boot in (Boot(7), Boot(7, "12.3")):
        assert decode_boot(boot.encode()) == boot
    assert decode_boot(None) == Boot(0)
