"""Several workers behind one set of sockets: who takes what, and what the end of one costs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from proxy.plane import Applied, Plane
from proxy.snapshot import CircuitBreaker

from .application import App, answer
from .certificates import MeshRoot
from .client import connect, connections_of
from .patience import until
from .twohosts import Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONNECTIONS = 40


@asynccontextmanager
async def host_of_two_workers(
    root: MeshRoot, make_plane: Any, app: App, **cluster: Any
) -> AsyncIterator[tuple[Mesh, Plane]]:
    plane: Plane = make_plane(workers=2)
    mesh = Mesh(root, {"a": plane}, {})
    await plane.start()
    try:
        mesh.version = 1
        snapshot = mesh.snapshot("a", (Service("echo", {"a": app.port}, cluster=cluster),))
        assert await mesh.apply("a", snapshot) == Applied(version=1)
        yield mesh, plane
    finally:
        await plane.stop()
        mesh.close()


async def open_many(stack: AsyncExitStack, port: int) -> list[Any]:
    return await asyncio.gather(*(stack.enter_async_context(connect(port)) for _ in range(CONNECTIONS)))


async def test_connections_are_shared_out_evenly(root: MeshRoot, make_plane: Any, app: App) -> None:
    async with host_of_two_workers(root, make_plane, app) as (mesh, plane), AsyncExitStack() as stack:
        port = mesh.port()

        def held() -> list[int]:
            return sorted(connections_of(pid, port) for pid in plane.processes())

        for turn in range(1, 4):  # a crowd that comes at once, then others into a host that is busy
            connections = await open_many(stack, port)
            assert {(await each.request()).status for each in connections} == {200}
            await until(lambda turn=turn: sum(held()) == turn * CONNECTIONS, "all to be taken")
        fewest, most = held()
        assert fewest >= CONNECTIONS / 2, f"{fewest} and {most} of {3 * CONNECTIONS}"


async def test_every_worker_counts_and_the_sum_is_what_was_asked(
    root: MeshRoot, make_plane: Any, app: App
) -> None:
    async with host_of_two_workers(root, make_plane, app) as (mesh, plane), AsyncExitStack() as stack:
        for connection in await open_many(stack, mesh.port()):
            await connection.request()
        requests = connections = 0

        def counted() -> bool:
            nonlocal requests, connections
            seen = plane.observations()
            requests += sum(d.requests for s, d in seen.series.items() if s.reporter == "source")
            connections = seen.connections
            return requests >= CONNECTIONS and connections == CONNECTIONS

        await until(counted, "both reports")
        assert requests == CONNECTIONS


async def test_a_worker_that_ends_loses_its_own_requests_and_nothing_that_waits(
    root: MeshRoot, make_plane: Any
) -> None:
    release = asyncio.Event()

    async def slow(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(answer(body=b"late"))

    app = await App("app").start()
    app.script = slow
    async with host_of_two_workers(root, make_plane, app) as (mesh, plane), AsyncExitStack() as stack:
        port = mesh.port()
        victim, survivor = plane.processes()
        under_way: dict[int, list[asyncio.Future[Any]]] = {}
        for pid, other in ((victim, survivor), (survivor, victim)):
            os.kill(other, signal.SIGSTOP)
            under_way[pid] = [asyncio.ensure_future(each.request()) for each in await open_many(stack, port)]
            seen = CONNECTIONS * len(under_way)
            await until(lambda seen=seen: len(app.received) == seen, "all to be under way")
            os.kill(other, signal.SIGCONT)
        assert connections_of(victim, port) == CONNECTIONS
        for pid in (victim, survivor):
            os.kill(pid, signal.SIGSTOP)
        waiting = [asyncio.ensure_future(each.request()) for each in await open_many(stack, port)]
        os.kill(victim, signal.SIGKILL)
        os.kill(survivor, signal.SIGCONT)
        release.set()
        lost = await asyncio.gather(*under_way[victim], return_exceptions=True)
        assert all(isinstance(end, Exception) for end in lost)
        for request in (*under_way[survivor], *waiting):
            assert (await request).body == b"late"
    await app.stop()


async def test_one_worker_alone_takes_all_there_is(root: MeshRoot, make_plane: Any, app: App) -> None:
    """One that is stuck, and holds fewer, keeps nobody waiting."""
    async with host_of_two_workers(root, make_plane, app) as (mesh, plane), AsyncExitStack() as stack:
        stuck, _ = plane.processes()
        os.kill(stuck, signal.SIGSTOP)
        try:
            connections = await open_many(stack, mesh.port())
            assert {(await each.request()).status for each in connections} == {200}
        finally:
            os.kill(stuck, signal.SIGCONT)


async def test_workers_keep_the_limits_of_a_policy_together(root: MeshRoot, make_plane: Any) -> None:
    release = asyncio.Event()

    async def slow(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(answer(body=b"late"))

    app = await App("app").start()
    app.script = slow
    limits = CircuitBreaker(requests_max=3)
    async with (
        host_of_two_workers(root, make_plane, app, breaker=limits) as (mesh, plane),
        AsyncExitStack() as stack,
    ):
        port = mesh.port()
        one, other = plane.processes()
        halves = []
        for stopped, taker in ((one, other), (other, one)):  # so that each holds three
            os.kill(stopped, signal.SIGSTOP)
            halves.append([await stack.enter_async_context(connect(port)) for _ in range(3)])
            await until(lambda taker=taker: connections_of(taker, port) == 3, "them to be taken")
            os.kill(stopped, signal.SIGCONT)
        asked = []
        for number, connection in enumerate((halves[0][0], halves[1][0], halves[1][1]), 1):
            asked.append(asyncio.ensure_future(connection.request()))
            await until(lambda number=number: len(app.received) == number, "it to be under way")
        for connection in (halves[0][1], halves[1][2], halves[0][2]):
            assert (await connection.request()).status == 503
        os.kill(other, signal.SIGKILL)  # what it held is free again
        await asyncio.gather(asked[0], return_exceptions=True)
        await until(lambda: len(plane.processes()) == 2 and other not in plane.processes(), "another")
        again = asyncio.ensure_future(halves[1][2].request())
        await until(lambda: len(app.received) == 4, "it to be under way")
        release.set()
        assert [(await each).status for each in (*asked[1:], again)] == [200] * 3
    await app.stop()
