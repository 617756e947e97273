"""An operator's word about a loss holds for that loss, not for the next one."""

from pathlib import Path
from typing import Any

import pytest

from peer.lossword import FILE_NAME, LossWord
from tests.peer.test_daemon import ROUTE, Host, hosts, pair

__all__ = ["hosts"]  # a fixture


def heeded(directory: Path, *, given: bool = True, anything_to_lose: bool = True) -> bool:
    return LossWord.of(directory).heeded(given=given, anything_to_lose=anything_to_lose, now=1000.5)


def test_it_is_heeded_until_what_it_meant_is_on_disk_and_never_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert heeded(tmp_path)
    assert heeded(tmp_path), "the first start was cut short"
    LossWord.of(tmp_path).spend(1000.5)
    assert (tmp_path / FILE_NAME).read_text() == "1000\n"
    for _ in range(2):
        assert not heeded(tmp_path)
    assert [record.message for record in caplog.records] == ["state_loss_word_ignored"] * 2


def test_a_start_without_it_lets_it_be_given_again(tmp_path: Path) -> None:
    LossWord.of(tmp_path).spend(1000.5)
    assert not heeded(tmp_path, given=False)
    assert heeded(tmp_path)


def test_who_has_nothing_to_lose_yet_spends_it(tmp_path: Path) -> None:
    """A newcomer with the word in its configuration would serve without the mesh's policies."""
    assert not heeded(tmp_path, anything_to_lose=False)
    assert not heeded(tmp_path)


def test_whether_it_was_heeded_cannot_be_read_so_it_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff")
    assert not heeded(tmp_path)
    assert "state_loss_word_unread" in caplog.text


def test_a_disk_that_does_not_take_it_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = tmp_path / "missing"
    LossWord.of(missing).spend(1.0)
    (tmp_path / FILE_NAME).mkdir()
    assert not heeded(tmp_path, given=False)
    assert [record.message for record in caplog.records] == ["state_loss_word_kept"] * 2


async def lost(host: Host, until: Any) -> None:
    """The host's database is gone, and it remembers that it has met others."""
    await until((host.directory / "contacts.json").exists)
    await host.stop()
    (host.directory / "store.db").unlink()


async def test_left_in_the_configuration_it_does_not_hold_at_the_next_loss(hosts: Any, until: Any) -> None:
    one, two = await pair(hosts)
    await one.operations.apply([ROUTE], "f.yaml", wait_percent=100)
    await one.stop()
    await lost(two, until)
    daemon = await two.ready(accept_state_loss=True)
    assert not daemon.memory.blank
    await until((two.directory / FILE_NAME).exists)
    await lost(two, until)
    daemon = await two.start(accept_state_loss=True)
    assert daemon.memory.blank, "it serves nothing before others have told it the policies"
    await one.ready()
    await until(daemon.ready.is_set)
    assert [each["metadata"]["name"] for each in await two.operations.get("all", None, None)] == ["one"]


async def test_a_newcomer_that_is_given_it_waits_for_the_policies_all_the_same(hosts: Any) -> None:
    one, two = hosts(1), hosts(2)
    await one.ready(bootstrap=True)
    await one.operations.apply([ROUTE], "f.yaml")
    daemon = await two.start(token=await one.token(), accept_state_loss=True)
    assert daemon.memory.blank
