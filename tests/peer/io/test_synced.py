"""Acknowledged means on disk, seen from the kernel: when something is acknowledged, the sync of what was written for it
has returned. `strace` shows the order of the calls, and makes some fail."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

WRITER = """
    import os, sys
    from pathlib import Path
    from peer.io.keys import KeyFile, Keys
    from peer.io.statefile import StateFile
    from peer.io.store import Batch, Store, StoreError
    from peer.lives import begin_life
    directory = Path(sys.argv[1])
    store = Store.open(directory)
    keys = Keys.open(directory)
    begin_life(keys, store, 1_000)
    os.write(1, b"begun\\n")
    for seq in range(1, 9):
        row = (b"a" * 16, "policy", f"k{seq % 3}", seq, bytes(3000))
        try:
            store.commit(Batch(put=[row], heads={b"a" * 16: seq}))
        except StoreError as error:
            os.write(1, b"refused %s\\n" % str(error).encode())
        else:
            os.write(1, b"acknowledged %d\\n" % seq)
    keys.write(KeyFile.CREDENTIAL, b"x")
    os.write(1, b"written\\n")
    StateFile(directory / "contacts.json").write("[]")
    os.write(1, b"written\\n")
"""
CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += +(-?\d+)")


def traced(directory: Path, *options: str) -> tuple[list[tuple[str, str, int]], str]:
    """The calls of the writer in order (name, arguments, result), and what it said."""
    trace = next(each for each in directory.parents if each.exists()) / "trace"
    calls = "trace=pwrite64,write,fsync,fdatasync,rename,unlink,mkdir,ftruncate"
    done = subprocess.run(
        ["strace", "-f", "-y", "-s", "64", "-o", trace, "-e", calls, *options,
         sys.executable, "-c", textwrap.dedent(WRITER), str(directory)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [CALL.match(line) for line in trace.read_text().splitlines()]
    return [(call[1], call[2], int(call[3])) for call in found if call], done.stdout


def is_sync(call: tuple[str, str, int], of: str) -> bool:
    name, arguments, result = call
    return name in {"fsync", "fdatasync"} and arguments.endswith(f"{of}>") and result == 0


def test_every_acknowledgement_comes_after_the_sync_of_what_it_is_about(tmp_path: Path) -> None:
    calls, said = traced(tmp_path / "data")
    assert said.count("acknowledged") == 8
    begun = next(i for i, call in enumerate(calls) if "begun" in call[1])
    dirty, acknowledged = False, 0
    for call in calls[begun:]:
        if call[0] == "pwrite64" and "store.db-wal>" in call[1]:
            dirty = True
        elif is_sync(call, "store.db-wal"):
            dirty = False
        elif "acknowledged" in call[1]:
            assert not dirty, call
            acknowledged += 1
    assert acknowledged == 8
    assert sum(is_sync(call, "store.db-wal") for call in calls[begun:]) >= 8  # one each, at least


def test_a_small_file_is_synced_before_it_is_renamed_and_its_directory_after(tmp_path: Path) -> None:
    calls, _ = traced(tmp_path / "data")
    for name, directory in (
        ("node.credential", "data/keys"),
        ("contacts.json", "data"),
        ("boot", "data/keys"),
    ):
        renamed = next(i for i, c in enumerate(calls) if c[0] == "rename" and f"/{name}.tmp" in c[1])
        before = next(i for i, c in enumerate(calls[:renamed]) if is_sync(c, f"{name}.tmp"))
        written = [i for i, c in enumerate(calls) if c[0] == "write" and f"{name}.tmp>" in c[1]]
        after = next(i for i, c in enumerate(calls) if i > renamed and is_sync(c, f"/{directory}"))
        told = next(i for i, c in enumerate(calls) if i > renamed and "\\n" in c[1] and c[0] == "write")
        assert max(written) < before < renamed < after < told


def test_what_holds_the_files_is_durable_before_anything_is_acknowledged(tmp_path: Path) -> None:
    """The directories that were made, and the name of the new database."""
    calls, _ = traced(tmp_path / "deep" / "data")
    begun = next(i for i, call in enumerate(calls) if "begun" in call[1])
    for made, parent in (("deep", tmp_path.name), ("data", "deep"), ("keys", "data")):
        at = next(i for i, c in enumerate(calls) if c[0] == "mkdir" and f'/{made}"' in c[1] and c[2] == 0)
        assert any(is_sync(call, f"/{parent}") for call in calls[at:begun]), made
    renamed = next(i for i, c in enumerate(calls) if c[0] == "rename" and "store.db.new" in c[1])
    assert any(is_sync(call, "store.db.new") for call in calls[:renamed])
    assert any(is_sync(call, "/data") for call in calls[renamed:begun])


@pytest.mark.parametrize(
    ("call", "error"), [("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC")]
)
def test_a_sync_or_write_that_fails_is_never_acknowledged(tmp_path: Path, call: str, error: str) -> None:
    calls, _ = traced(tmp_path / "first")
    begun = next(i for i, c in enumerate(calls) if "begun" in c[1])
    before = sum(c[0] == call for c in calls[:begun])
    calls, said = traced(tmp_path / "data", "-e", f"inject={call}:error={error}:when={before + 3}+9")
    assert "refused cannot write to" in said
    assert "acknowledged" in said
    dirty = False
    for name, arguments, result in calls:
        if name in {"pwrite64", "fdatasync"} and "store.db-wal>" in arguments:
            dirty = name == "pwrite64" or result != 0
        elif "acknowledged" in arguments:
            assert not dirty, arguments
