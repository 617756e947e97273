"""Housekeeping: the boot number in use is the one the next start begins above."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peer.io.keys import KeyFile, Keys
from peer.upkeep import Upkeep


def test_a_boot_number_the_engine_raised_is_kept_for_the_next_start(tmp_path: Path) -> None:
    keys = Keys.open(tmp_path)
    engine = SimpleNamespace(boot=keys.next_boot(1_000))
    daemon: Any = SimpleNamespace(keys=keys, boot=1_000, node=SimpleNamespace(engine=engine))
    upkeep = Upkeep(daemon)
    upkeep.keep_boot()
    assert keys.read(KeyFile.BOOT) == b"1000\n"
    engine.boot = 5_000  # an earlier life of this node turned up with 4999
    upkeep.keep_boot()
    assert daemon.boot == 5_000
    assert Keys.open(tmp_path).next_boot(2_000) == 5_001


def test_a_boot_number_that_cannot_be_kept_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = Keys(tmp_path / "missing")
    engine = SimpleNamespace(boot=5_000)
    daemon: Any = SimpleNamespace(keys=missing, boot=1_000, node=SimpleNamespace(engine=engine))
    upkeep = Upkeep(daemon)
    upkeep.keep_boot()
    assert daemon.boot == 1_000
    assert "boot_unsaved" in caplog.text
    missing.directory.mkdir()
    upkeep.keep_boot()
    assert daemon.boot == 5_000
