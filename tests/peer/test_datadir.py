"""The data directory: private, and one process's at a time."""

import os
import stat
import subprocess
import sys
import textwrap

import pytest

from peer.io.datadir import DataDirBusy, DataDirError, holder, lock_data_dir, wait_ended
from peer.io.store import Store

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


def test_the_holder_can_be_waited_for(tmp_path):
    assert holder(tmp_path) is None
    lock_data_dir(tmp_path).close()
    assert holder(tmp_path) == os.getpid()
    assert not wait_ended(os.getpid(), timeout_s=0.01)
    child = subprocess.Popen(["true"])
    assert wait_ended(child.pid, timeout_s=5)  # a zombie, until it is waited for
    child.wait()
    assert wait_ended(child.pid, timeout_s=0)
