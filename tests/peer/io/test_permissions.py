"""Files of another user, as somebody leaves them who once started a peer with sudo: named, with whose they are."""

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from peer.io.keys import KeyFile, Keys
from peer.io.store import Batch, Store
from peer.lives import begin_life

NOBODY = 65534
SCRIPT = """
    import os, sys
    from pathlib import Path
    from peer.contacts import Contacts
    from peer.io.datadir import DataDirError, lock_data_dir
    from peer.io.keys import KeyFileError, Keys
    from peer.io.statefile import StateFileError
    from peer.io.store import StoreError
    from peer.lives import begin_life, open_store
    os.seteuid(65534)
    directory = Path(sys.argv[1])
    try:
        lock = lock_data_dir(directory)
        keys = Keys.open(directory)
        store = open_store(directory, keys, lock)
        begin_life(keys, store, 1)
        Contacts.of(directory).file.read()
        store.close()
    except (DataDirError, KeyFileError, StateFileError, StoreError) as error:
        print(error)
    else:
        print("works")
"""


def as_nobody(directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that anybody may enter: pytest closes its own to all others whenever it starts."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture
def directory(public_path: Path) -> Path:
    """Nobody's data directory, not closed cleanly, so that there are all files there can be."""
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    made = public_path / "data"
    store = Store.open(made)
    keys = Keys.open(made)
    keys.write(KeyFile.NODE_SEED, bytes(32))
    begin_life(keys, store, 1_000)
    (made / "contacts.json").write_text("[]")
    store.commit(Batch(heads={b"a" * 16: 1}))
    kept = {path.name: path.read_bytes() for path in made.iterdir() if path.name.startswith("store.db")}
    store.close()
    for name, data in kept.items():
        (made / name).write_bytes(data)
    for path in (made, *made.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o700 if path.is_dir() else 0o600)
    return made


def test_what_is_its_own_works(directory: Path) -> None:
    assert as_nobody(directory) == "works"


@pytest.mark.parametrize(
    "name", ["lock", "store.db", "store.db-wal", "store.db-shm", "keys/boot", "contacts.json", "keys", "."]
)
def test_what_is_another_users_is_named_with_whose_it_is(directory: Path, name: str) -> None:
    path = directory / name
    before = path.read_bytes() if path.is_file() else b""
    os.chown(path, 0, 0)
    said = as_nobody(directory)
    assert name.strip(".") in said
    assert str(directory) in said
    assert f"{path} belongs to user 0, this peer runs as user {NOBODY}" in said
    assert not path.is_file() or path.read_bytes() == before
    os.chown(path, NOBODY, NOBODY)
    assert as_nobody(directory) == "works"
