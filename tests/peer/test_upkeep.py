"""Housekeeping: the boot number in use is the one the next start begins above."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peer.io.keys import KeyFile, Keys
from peer.io.store import Store
from peer.lives import begin_life, open_store
from peer.upkeep import Upkeep


def daemon_of(keys: Keys, store: Store, *, boot: int) -> Any:
    async def run(action: Callable[[Store], object]) -> object:
        return action(store)

    engine = SimpleNamespace(boot=boot)
    return SimpleNamespace(
        keys=keys, boot=1_000, disk=SimpleNamespace(run=run), node=SimpleNamespace(engine=engine)
    )


async def test_a_boot_number_the_engine_raised_is_kept_for_the_next_start(tmp_path: Path) -> None:
    keys = Keys.open(tmp_path)
    store = Store.open(tmp_path)
    daemon = daemon_of(keys, store, boot=begin_life(keys, store, 1_000))
    upkeep = Upkeep(daemon)
    await upkeep.keep_boot()
    assert keys.read(KeyFile.BOOT) == b"1000\n"
    daemon.node.engine.boot = 5_000  # an earlier life of this node turned up with 4999
    await upkeep.keep_boot()
    assert daemon.boot == 5_000
    store.close()
    again = open_store(tmp_path, keys)
    assert again.doubt == ""  # the database knows of it too
    assert begin_life(keys, again, 2_000) == 5_001
    again.close()


async def test_a_boot_number_that_cannot_be_kept_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = Keys(tmp_path / "missing")
    store = Store.open(tmp_path)
    daemon = daemon_of(missing, store, boot=5_000)
    upkeep = Upkeep(daemon)
    await upkeep.keep_boot()
    assert daemon.boot == 1_000
    assert "boot_unsaved" in caplog.text
    missing.directory.mkdir()
    await upkeep.keep_boot()
    assert daemon.boot == 5_000
    store.close()
