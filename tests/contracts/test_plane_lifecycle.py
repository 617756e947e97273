"""Crashes, drains, several workers: nothing of them may cost a request."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from proxy.plane import Applied, Plane, Rejected

from .application import App, answer
from .certificates import MeshRoot
from .client import connect
from .greeter import Greeter, Stub
from .patience import until
from .twohosts import Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def mesh_of_its_own(root: MeshRoot, make_plane: Any) -> AsyncIterator[Mesh]:
    """For tests that end workers."""
    planes: dict[str, Plane] = {host: make_plane() for host in ("a", "b")}
    mesh = Mesh(root, planes, {})
    try:
        for plane in planes.values():
            await plane.start()
        yield mesh
    finally:
        for plane in planes.values():
            await plane.stop()
        mesh.close()


async def test_a_killed_worker_comes_back_and_no_connection_is_refused(
    root: MeshRoot, make_plane: Any
) -> None:
    app = await App("app").start()
    async with mesh_of_its_own(root, make_plane) as mesh:
        await mesh.serve(Service("echo", {"b": app.port}))
        assert (await mesh.call()).status == 200
        for host in ("a", "b"):
            (pid,) = mesh.planes[host].processes()
            os.kill(pid, signal.SIGKILL)
            # The connection waits in the kernel until the next worker takes it.
            async with connect(mesh.port()) as connection:
                statuses = [(await connection.request()).status for _ in range(3)]
            assert statuses[0] == 200 or host == "b"  # while "b" has no worker, handshakes with it wait
            (new,) = await until(mesh.planes[host].processes, "a new worker")
            assert new != pid
            assert (await mesh.call()).status == 200
        counters: dict[str, int] = {}
        for plane in mesh.planes.values():
            counters[str(plane)] = plane.observations().counters.get("worker_restarts", 0)
        assert set(counters.values()) == {1}
    await app.stop()


async def test_a_worker_ends_with_its_control_process(root: MeshRoot, make_plane: Any) -> None:
    import sys

    script = (
        "import asyncio, sys\n"
        "from proxy.embedded.plane import EmbeddedPlane\n"
        "async def main():\n"
        "    plane = EmbeddedPlane()\n"
        "    await plane.start()\n"
        "    print(*plane.processes(), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    worker = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    await process.stdout.read()  # to its end: the worker held the other end of the pipe
    await until(lambda: not alive(worker), "the worker to end")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_several_workers_serve_one_snapshot_or_none(root: MeshRoot, make_plane: Any) -> None:
    app = await App("app").start()
    plane = make_plane(workers=2)
    mesh = Mesh(root, {"a": plane}, {})
    await plane.start()
    try:
        assert len(plane.processes()) == 2
        mesh.version = 1
        good = mesh.snapshot("a", (Service("echo", {"a": app.port}),))
        assert await mesh.apply("a", good) == Applied(version=1)
        bad = replace(good, version=2, trust_bundle_pem=b"")
        assert isinstance(await mesh.apply("a", bad), Rejected)
        assert [(await mesh.call()).status for _ in range(10)] == [200] * 10
    finally:
        await plane.stop()
        mesh.close()
        await app.stop()
    assert plane.processes() == ()


async def test_a_drain_finishes_what_is_under_way_and_takes_nothing_new(
    root: MeshRoot, make_plane: Any
) -> None:
    release = asyncio.Event()

    async def wait(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(answer(body=b"done"))

    app = await App("app").start()
    async with mesh_of_its_own(root, make_plane) as mesh:
        await mesh.serve(Service("echo", {"b": app.port}))
        async with connect(mesh.port()) as idle, connect(mesh.port()) as busy:
            assert (await idle.request()).status == 200
            app.script = wait
            await busy.send(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
            await until(lambda: len(app.received) == 2, "the request to be under way")
            draining = asyncio.ensure_future(mesh.planes["a"].drain(10))
            assert await idle.at_end()
            assert not draining.done()
            release.set()
            reply = await busy.reply()
            assert (reply.body, reply.header("connection")) == (b"done", "close")
            await asyncio.wait_for(draining, 5)
    await app.stop()


async def test_a_drain_lets_grpc_calls_end_and_takes_no_new_ones(root: MeshRoot, make_plane: Any) -> None:
    greeter = await Greeter().start()
    async with mesh_of_its_own(root, make_plane) as mesh:
        await mesh.serve(Service("echo", {"b": greeter.port}, protocol="grpc"))
        async with Stub(mesh.port()) as idle, Stub(mesh.port()) as busy:
            assert await idle.unary("Unary", b"hi") == b"hi"
            call = asyncio.ensure_future(busy.unary("Wait"))
            await until(lambda: greeter.calls == 2, "the call to be under way")
            draining = asyncio.ensure_future(mesh.planes["a"].drain(10))
            await until(
                lambda: idle.channel.get_state() == grpc.ChannelConnectivity.IDLE,
                "the idle channel to hear of it",
            )
            assert not draining.done()
            greeter.gate.set()
            assert await call == b"late"
            await asyncio.wait_for(draining, 5)
    await greeter.server.stop(None)


async def test_a_drain_ends_with_its_timeout(root: MeshRoot, make_plane: Any) -> None:
    async def never(app: App, request: Any, reader: asyncio.StreamReader, writer: Any) -> None:
        await reader.read()

    app = await App("app").start()
    app.script = never
    async with mesh_of_its_own(root, make_plane) as mesh:
        await mesh.serve(Service("echo", {"b": app.port}))
        async with connect(mesh.port()) as connection:
            await connection.send(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
            await until(lambda: app.received, "the request to be under way")
            started = asyncio.get_running_loop().time()
            await mesh.planes["a"].drain(0.3)
            assert 0.2 < asyncio.get_running_loop().time() - started < 3
    await app.stop()
