"""What a peer does in the background is started again when it breaks, or the peer ends and says so; never silence."""

import asyncio
import socket
from typing import Any

import pytest

import peer.io.health
from peer.io.health import Check, HealthChecks, Outcome, TcpProbe
from tests.peer.test_daemon import hosts

__all__ = ["hosts"]  # a fixture

FOR_EVER = {
    "certificates",
    "upkeep",
    "data plane",
    "service files",
    "telling of services",
    "telling of quarantine",
}


@pytest.mark.parametrize("name", sorted(FOR_EVER))
async def test_one_that_was_cancelled_by_nobody_is_missed_too(hosts: Any, name: str) -> None:
    """Such as by a cancellation that somebody else's task let out."""
    daemon = await hosts(1).ready(bootstrap=True)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == name]
    task.cancel()
    async with asyncio.timeout(5):
        await daemon.stop_asked.wait()
    assert daemon.failed.startswith(f"{name}: CancelledError")


async def test_tasks_that_end_with_the_peer_are_not(hosts: Any, caplog: pytest.LogCaptureFixture) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)
    await one.stop()
    assert daemon.failed == ""
    assert "task_failed" not in caplog.text


async def test_a_peer_that_accepts_no_streams_any_more_ends(
    hosts: Any, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = await hosts(1).ready(bootstrap=True)

    def breaks(connection: socket.socket, _host: str) -> None:
        connection.close()
        raise ZeroDivisionError("a mistake")

    daemon.channels._server._arrived = breaks
    _, writer = await asyncio.open_connection(daemon.config.bind, daemon.channels.port)
    try:
        async with asyncio.timeout(5):
            await daemon.stop_asked.wait()
    finally:
        writer.close()
    assert daemon.failed == "no stream is accepted any more"
    assert "not_accepting" in caplog.text


async def test_a_check_that_breaks_fails_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = iter([Outcome(passed=True, detail="")])

    async def attempt(_: Check) -> Outcome:
        return next(outcomes)  # and then it breaks

    monkeypatch.setattr(peer.io.health, "attempt", attempt)
    told: list[str] = []
    checks = HealthChecks(lambda _namespace, _name, health, _detail: told.append(health))
    probed: dict[str, Any] = {"namespace": "default", "name": "x", "host": "127.0.0.1", "port": 1}
    checks.replace([Check(**probed, probe=TcpProbe(), interval_s=0.01, timeout_s=1.0)])
    await until(lambda: told == ["passing", "failing"])
    await checks.close()
    assert "check_broke" in caplog.text
