"""Plain TCP through a plane, for as long as a connection lives: halves, backpressure, balancing, snapshots, revocation.

How one begins and is refused is in test_plane_streams.py.
"""

import asyncio
import hashlib
from typing import Any

import pytest

from proxy.snapshot import CircuitBreaker, Endpoint

from .application import App
from .certificates import spiffe
from .client import connect
from .patience import until
from .test_plane_streams import GROWTH_BYTES_MAX, MIB, resident_bytes, warm, workers
from .twohosts import BOTH, REMOTE, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


def database(where: str, port: int, **rest: Any) -> Service:
    return Service("db", {where: port}, protocol="tcp", port=5432, **rest)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@BOTH
async def test_the_server_may_close_its_half_first(mesh: Mesh, app: App, where: str) -> None:
    heard: list[bytes] = []

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all from here")
        writer.write_eof()
        heard.append(await reader.read())

    app.raw = half
    await mesh.serve(database(where, app.port), upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        assert await asyncio.wait_for(connection.reader.read(), 10) == b"that is all from here"
        await connection.send(b"and this is from there")
        connection.writer.write_eof()
        await until(lambda: heard, "the other half ends")
    assert heard == [b"and this is from there"]


@BOTH
async def test_a_slow_reader_that_has_closed_its_half_gets_all_of_the_answer(
    mesh: Mesh, app: App, where: str
) -> None:
    size = 16 * MIB

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(bytes(size))
        await writer.drain()

    app.raw = answer
    await mesh.serve(database(where, app.port), upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        connection.writer.write_eof()
        got = 0
        while data := await asyncio.wait_for(connection.reader.read(256 * 1024), 10):
            got += len(data)
            await asyncio.sleep(0.005)  # so that the proxies hold the end of it when the server closes
    assert got == size


@BOTH
async def test_every_byte_comes_back_in_order(mesh: Mesh, app: App, where: str) -> None:
    app.raw = echo
    await mesh.serve(database(where, app.port), upstreams=("db",))
    sent, got = hashlib.sha256(), hashlib.sha256()
    async with connect(mesh.port("a/db")) as connection:

        async def send() -> None:
            for number in range(400):
                piece = bytes((number + index) & 255 for index in range(1 + number * 7 % 9000))
                sent.update(piece)
                await connection.send(piece)
            connection.writer.write_eof()

        sending = asyncio.create_task(send())
        while data := await asyncio.wait_for(connection.reader.read(65536), 10):
            got.update(data)
        await sending
    assert got.digest() == sent.digest()


@BOTH
async def test_small_messages_go_at_once(mesh: Mesh, app: App, where: str) -> None:
    app.raw = echo
    await mesh.serve(database(where, app.port), upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        for number in range(200):
            await connection.send(b"%d\n" % number)
            assert await asyncio.wait_for(connection.reader.readline(), 10) == b"%d\n" % number


@BOTH
async def test_a_server_that_does_not_read_holds_its_caller_back(mesh: Mesh, app: App, where: str) -> None:
    gate = asyncio.Event()
    heard = 0

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        await gate.wait()
        while data := await reader.read(1 << 20):
            heard += len(data)
        writer.write(b"thanks")

    app.raw = late
    await mesh.serve(database(where, app.port), upstreams=("db",))
    await warm(mesh)
    before = {host: resident_bytes(pid) for host, pid in workers(mesh).items()}
    async with connect(mesh.port("a/db")) as connection:
        sent = 0
        connection.writer.transport.set_write_buffer_limits(high=0)
        try:
            while sent < 64 * MIB:
                await asyncio.wait_for(connection.send(bytes(MIB)), 0.5)
                sent += MIB
        except TimeoutError:
            sent += MIB  # it waits in this side's buffer
        assert sent < 64 * MIB, "nobody reads, so somebody keeps it all"
        grown = {host: resident_bytes(pid) - before[host] for host, pid in workers(mesh).items()}
        assert max(grown.values()) < GROWTH_BYTES_MAX, grown
        gate.set()
        connection.writer.write_eof()
        assert await asyncio.wait_for(connection.reader.read(), 20) == b"thanks"
    assert heard == sent


async def test_connections_are_balanced_and_a_dead_endpoint_is_passed_over(
    mesh: Mesh, app: App, other: App
) -> None:
    async def named(app: App, writer: asyncio.StreamWriter) -> None:
        writer.write(app.name.encode())

    app.raw = lambda reader, writer: named(app, writer)
    other.raw = lambda reader, writer: named(other, writer)
    service = Service(
        "db", {"a": app.port, "b": other.port}, protocol="tcp", port=5432, cluster={"balancer": "round_robin"}
    )
    await mesh.serve(service, upstreams=("db",))

    async def who() -> bytes:
        async with connect(mesh.port("a/db")) as connection:
            return await asyncio.wait_for(connection.reader.read(), 10)

    assert sorted([await who() for _ in range(6)]) == [b"app"] * 3 + [b"other"] * 3
    dead = Endpoint(
        id="x/db", node="x", host="127.0.0.1", port=1, sni="db.default.mesh", identity=spiffe("db")
    )
    service.endpoints = (dead,)
    await mesh.serve(service, upstreams=("db",))
    assert b"" not in {await who() for _ in range(6)}


@BOTH
async def test_a_new_snapshot_and_a_new_certificate_leave_a_pipe_alone(
    mesh: Mesh, app: App, where: str
) -> None:
    app.raw = echo
    service = database(where, app.port)
    await mesh.serve(service, upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        for number in range(5):
            await connection.send(b"%d\n" % number)
            assert await asyncio.wait_for(connection.reader.readline(), 10) == b"%d\n" % number
            mesh.certificates.clear()
            await mesh.serve(service, upstreams=("db",))
    assert app.connections == 1


async def test_a_revocation_cuts_a_pipe(mesh: Mesh, app: App) -> None:
    app.raw = echo
    service = database("b", app.port)
    await mesh.serve(service, upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        await connection.send(b"a\n")
        assert await connection.reader.readline() == b"a\n"
        await mesh.serve(service, upstreams=("db",), revoked=(spiffe("web"),))
        assert await connection.at_end()
    await until(lambda: not app._writers, "the application hears of it")


@BOTH
async def test_a_caller_that_breaks_off_is_gone_at_the_server_too(mesh: Mesh, app: App, where: str) -> None:
    app.raw = echo
    await mesh.serve(database(where, app.port), upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        await connection.send(b"a\n")
        await connection.reader.readline()
        connection.writer.transport.abort()
        await until(lambda: not app._writers, "the application hears of it")


@BOTH
async def test_connections_beyond_the_breaker_are_refused_until_others_end(
    mesh: Mesh, app: App, where: str
) -> None:
    app.raw = echo
    await mesh.serve(
        database(where, app.port, cluster={"breaker": CircuitBreaker(connections_max=2)}), upstreams=("db",)
    )
    port = mesh.port("a/db")

    def ended() -> int:  # connections on which one byte was sent: all but the first one
        return mesh.logs["a"].read_text().count('"bytes_in":1,')

    before = ended()
    async with connect(port) as first:
        for turn in range(1, 4):  # each gives its place back
            async with connect(port) as second:
                for each in (first, second):
                    await each.send(b"x")
                    assert await each.reader.readexactly(1) == b"x"
                async with connect(port) as third:
                    assert await third.at_end()
            await until(lambda turn=turn: ended() == before + turn, "the place to be free")
    assert app.connections == 4
    assert (await mesh.log_line("a", protocol="tcp", flags="UO"))["upstream"] == ""


async def test_connect_over_the_breaker_is_503(mesh: Mesh, app: App) -> None:
    app.raw = echo
    await mesh.serve(database(REMOTE, app.port, cluster={"breaker": CircuitBreaker(connections_max=1)}))
    begin = b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n"
    async with connect(mesh.port()) as first, connect(mesh.port()) as second:
        await first.send(begin)
        assert (await first.read_head())[0] == 200
        await second.send(begin)
        reply = await second.reply()
    assert (reply.status, b"overflow" in reply.body) == (503, True)
