"""`gossamer peer` as a process that does not get as far as a daemon."""

import subprocess
import sys
from pathlib import Path

from tests.loopback import network

ADDRESS = f"{network(61)}.1"


def test_an_access_log_that_cannot_be_opened_founds_no_mesh(tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "none" / "access.log"
    done = subprocess.run(
        [sys.executable, "-m", "peer.cli", "peer", "--data-dir", str(state), "--bind", ADDRESS, "--bootstrap",
         "--access-log", str(log)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"error: access log {log} cannot be opened: No such file or directory\n"
    assert [each.name for each in state.iterdir()] == ["lock"]
