"""Keeping a worker: what happens when one does not start, ends, or falls silent."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.embedded import supervisor as module
from proxy.embedded.ipc import Report
from proxy.embedded.link import WorkerGoneError
from proxy.embedded.plane import EmbeddedPlane
from proxy.embedded.process import Order, socket_token
from proxy.embedded.supervisor import Supervisor
from proxy.plane import Applied, Rejected
from proxy.snapshot import Snapshot, encode_snapshot

EMPTY = Snapshot(version=1, node="n", node_name="n", trust_domain="unit.mesh")


def order(version: int = 1) -> Order:
    return Order(version=version, snapshot=encode_snapshot(EMPTY), sockets={})


async def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
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
        assert await worker.apply(order(), 10) is None
        first = worker.pid
        assert first is not None
        with caplog.at_level(logging.WARNING):
            os.kill(first, signal.SIGKILL)
            await wait_for(
                lambda: worker.restarts == 1 and worker.pid not in (None, first), "another process"
            )
            assert await worker.apply(order(2), 10) is None
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


async def test_a_worker_is_restarted_whatever_becomes_of_whoever_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S_MAX", 0.05)

    def broken(_: object) -> None:
        raise ZeroDivisionError("a mistake")

    worker = Supervisor(number=0, on_report=lambda number, report: None, on_end=broken)
    await worker.start()
    try:
        assert await worker.apply(order(), 10) is None
        first = worker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await wait_for(lambda: worker.restarts == 1 and worker.pid not in (None, first), "another process")
        assert await worker.apply(order(2), 10) is None
        monkeypatch.setattr(module, "ending", broken)  # a mistake in keeping it
        os.kill(worker.pid or 0, signal.SIGKILL)
        await wait_for(lambda: "keeping data plane worker 0 failed" in caplog.text, "the mistake")
        monkeypatch.undo()
        assert await worker.apply(order(3), 15) is None
        assert "could not be told" in caplog.text
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
        assert await worker.apply(order(), 10) is None
        assert worker.restarts == 0
    finally:
        await worker.stop()


# ---------------------------------------------------------------- poisoned snapshots

POISONED = ("-P", str(Path(__file__).with_name("poisoned_worker.py")))


def poisoned(version: int, poison: str) -> Snapshot:
    return replace(EMPTY, version=version, node_name=poison)


@pytest.fixture
async def plane() -> AsyncIterator[EmbeddedPlane]:
    made = EmbeddedPlane(program=POISONED)
    await made.start()
    yield made
    await made.stop()


async def test_a_snapshot_that_ends_a_worker_twice_is_deadly_and_the_last_good_one_serves(
    plane: EmbeddedPlane,
) -> None:
    ended: list[int] = []
    plane.watch(ended.append)
    assert await plane.apply(EMPTY, {}) == Applied(version=1)
    for version in (2, 3):
        answer = await plane.apply(poisoned(version, "poison-now"), {})
        assert isinstance(answer, Rejected)
        assert (answer.version, answer.fault) == (version, "deadly")
        assert "ended 2 times when it was given this snapshot" in answer.reason
    assert plane.observations().counters["worker_restarts"] == 3
    assert await plane.apply(replace(EMPTY, version=4), {}) == Applied(version=4)
    assert ended == []


async def test_a_worker_that_ends_once_while_it_is_given_a_snapshot_is_given_it_again(
    plane: EmbeddedPlane, tmp_path: Path
) -> None:
    answer = await plane.apply(poisoned(2, f"poison-once:{tmp_path}/once;"), {})
    assert answer == Applied(version=2)
    assert plane.observations().counters["worker_restarts"] == 1


async def test_the_end_of_a_serving_worker_is_told_and_what_waits_comes_before_what_it_died_of(
    plane: EmbeddedPlane,
) -> None:
    ended: list[int] = []
    plane.watch(ended.append)
    assert await plane.apply(EMPTY, {}) == Applied(version=1)
    assert await plane.apply(poisoned(2, "poison-later"), {}) == Applied(version=2)
    await wait_for(lambda: len(ended) == 2, "the second end")
    assert ended == [2, 2]
    restarts = plane._workers[0].restarts
    assert await plane.apply(replace(EMPTY, version=3), {}) == Applied(version=3)
    assert plane._workers[0].restarts == restarts + 1, "the poison was not served once more"
    assert ended == [2, 2]


async def test_a_new_worker_that_refuses_what_waited_gets_what_was_served(plane: EmbeddedPlane) -> None:
    ended: list[int] = []
    plane.watch(ended.append)
    assert await plane.apply(EMPTY, {}) == Applied(version=1)
    (pid,) = plane.processes()
    os.kill(pid, signal.SIGKILL)
    await wait_for(lambda: ended == [1], "its end")
    answer = await plane.apply(poisoned(2, "poison-refused"), {})
    assert answer == Rejected(version=2, reason="refused, nobody knows why")
    assert plane._workers[0]._serving


async def test_the_ends_of_all_workers_count_and_a_deadly_snapshot_is_tried_on_one() -> None:
    plane = EmbeddedPlane(workers=2, program=POISONED)
    ended: list[int] = []
    plane.watch(ended.append)
    await plane.start()
    try:
        assert await plane.apply(EMPTY, {}) == Applied(version=1)
        _, second = plane.processes()
        answer = await plane.apply(poisoned(2, "poison-now"), {})
        assert isinstance(answer, Rejected)
        assert answer.fault == "deadly"
        assert [worker.restarts for worker in plane._workers][1:] == [0]
        assert second in plane.processes()
        assert ended == []
        assert await plane.apply(poisoned(3, "poison-later"), {}) == Applied(version=3)
        await wait_for(lambda: len(ended) >= 2, "the end of both")
        assert set(ended) == {3}
        assert await plane.apply(replace(EMPTY, version=4), {}) == Applied(version=4)
    finally:
        await plane.stop()


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


async def test_a_worker_that_has_ended_keeps_no_snapshot_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S_MIN", 2.0)
    plane = EmbeddedPlane(workers=2)
    await plane.start()
    try:
        assert await plane.apply(EMPTY, {}) == Applied(version=1)
        os.kill(plane.processes()[0], signal.SIGKILL)
        await wait_for(lambda: not plane._workers[0].ready, "its end")
        begun_s = time.monotonic()
        assert await plane.apply(replace(EMPTY, version=2), {}) == Applied(version=2)
        assert time.monotonic() - begun_s < 2.0
        await wait_for(lambda: plane._workers[0].ready, "its return")
        good = plane._workers[0]._good
        assert good is not None
        assert good.version == 2
    finally:
        await plane.stop()
