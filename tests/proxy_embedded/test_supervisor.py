"""Keeping a worker: what happens when one does not start, ends, or falls silent."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time

import pytest

from proxy.embedded import supervisor as module
from proxy.embedded.ipc import Report
from proxy.embedded.plane import EmbeddedPlane
from proxy.embedded.supervisor import Order, Supervisor, WorkerGoneError, socket_token
from proxy.snapshot import Snapshot, encode_snapshot

EMPTY = Snapshot(version=1, node="n", node_name="n", trust_domain="unit.mesh")


def order(version: int = 1) -> Order:
    return Order(version=version, snapshot=encode_snapshot(EMPTY), sockets={})


async def wait_for(condition: object, what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited for {what}"
        await asyncio.sleep(0.02)


async def test_a_worker_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    plane = EmbeddedPlane()
    with pytest.raises(WorkerGoneError, match="ended while starting"):
        await plane.start()
    assert plane.processes() == ()


async def test_a_plane_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        EmbeddedPlane(workers=0)


async def test_a_worker_is_restarted_with_what_it_served(caplog: pytest.LogCaptureFixture) -> None:
    reports: list[Report] = []
    worker = Supervisor(number=0, on_report=lambda number, report: reports.append(report))
    await worker.start()
    try:
        assert await worker.apply(order(), 10) == ""
        first = worker.pid
        assert first is not None
        with caplog.at_level(logging.WARNING):
            os.kill(first, signal.SIGKILL)
            await wait_for(
                lambda: worker.restarts == 1 and worker.pid not in (None, first), "another process"
            )
            assert await worker.apply(order(2), 10) == ""
        assert "ended (signal SIGKILL), restarting" in caplog.text
        await wait_for(lambda: reports, "a report")
    finally:
        await worker.stop()
    assert worker.pid is None


async def test_a_silent_worker_is_ended_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S_MAX", 1.5)
    worker = Supervisor(number=0, on_report=lambda number, report: None)
    await worker.start()
    try:
        first = worker.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        await wait_for(lambda: worker.restarts == 1 and worker.pid not in (None, first), "another process")
    finally:
        await worker.stop()


async def test_an_order_that_nobody_can_take_ends_with_an_error() -> None:
    worker = Supervisor(number=0, on_report=lambda number, report: None)
    await worker.start()
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    applying = asyncio.ensure_future(worker.apply(order(), 10))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerGoneError):
        await applying
    await worker.stop()


async def test_signals_to_the_group_are_left_to_the_control_process() -> None:
    worker = Supervisor(number=0, on_report=lambda number, report: None)
    await worker.start()
    try:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
        assert await worker.apply(order(), 10) == ""
        assert worker.restarts == 0
    finally:
        await worker.stop()


def test_a_duplicated_socket_is_the_same_socket() -> None:
    with socket.socket() as one, socket.socket() as other, one.dup() as copy:
        assert socket_token(one) == socket_token(copy)
        assert socket_token(one) != socket_token(other)


async def test_the_worker_is_not_for_hands() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy.embedded.worker", stderr=asyncio.subprocess.PIPE
    )
    _, error = await process.communicate()
    assert process.returncode == 2
    assert b"started by the data plane" in error
