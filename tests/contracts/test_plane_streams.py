"""Bodies larger than memory should hold, and connections that carry bytes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.snapshot import Authorization, AuthzPolicy, AuthzRule, Source

from .application import App, answer
from .certificates import spiffe
from .client import connect
from .patience import until
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024
LARGE = 64 * MIB
GROWTH_BYTES_MAX = 12 * MIB  # of a worker's resident memory while 64 MiB pass through it


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def workers(mesh: Mesh) -> dict[str, int]:
    return {host: plane.processes()[0] for host, plane in mesh.planes.items()}


@BOTH
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_upload_to_a_slow_application_takes_no_memory(
    mesh: Mesh, app: App, where: str, chunked: bool
) -> None:
    go_on = asyncio.Event()
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        tail = b""
        while not (tail.endswith(b"0\r\n\r\n") if chunked else seen == LARGE):
            data = await reader.read(MIB)
            seen += len(data)
            tail = (tail + data)[-5:]
        writer.write(answer(body=b"all of it"))
        await writer.drain()

    app.raw = serve
    await mesh.serve(Service("echo", {where: app.port}))
    await warm(mesh)
    before = {host: resident_bytes(pid) for host, pid in workers(mesh).items()}
    async with connect(mesh.port()) as connection:
        framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % LARGE
        await connection.send(b"POST / HTTP/1.1\r\nhost: echo\r\n" + framing + b"\r\n\r\n")
        block = bytes(MIB)
        piece = b"%x\r\n%b\r\n" % (MIB, block) if chunked else block
        writing = asyncio.ensure_future(
            write_all(connection.writer, piece, LARGE // MIB, b"0\r\n\r\n" if chunked else b"")
        )
        await stalled(connection.writer)
        grown = {host: resident_bytes(pid) - before[host] for host, pid in workers(mesh).items()}
        assert not writing.done(), "the mesh swallowed everything"
        go_on.set()
        await asyncio.wait_for(writing, 60)
        assert (await connection.reply()).body == b"all of it"
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown


async def write_all(writer: asyncio.StreamWriter, piece: bytes, count: int, end: bytes) -> None:
    for _ in range(count):
        writer.write(piece)
        await writer.drain()
    writer.write(end)
    await writer.drain()


async def stalled(writer: asyncio.StreamWriter) -> None:
    """Until nothing more is taken off the connection."""
    before, same = -1, 0
    while same < 5:
        await asyncio.sleep(0.05)
        now = writer.transport.get_write_buffer_size()
        same = same + 1 if now == before and now > 0 else 0
        before = now


async def warm(mesh: Mesh) -> None:
    """What is allocated once is allocated now."""
    for _ in range(3):
        async with connect(mesh.port()) as connection:
            await connection.send(b"GET / HTTP/1.1\r\nhost: nobody\r\n\r\n")
            await connection.reply()


@BOTH
async def test_a_large_download_to_a_slow_caller_takes_no_memory(mesh: Mesh, app: App, where: str) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        block = bytes(MIB)
        while sent < LARGE:
            writer.write(block)
            await writer.drain()
            sent += MIB

    app.raw = serve
    await mesh.serve(Service("echo", {where: app.port}))
    await warm(mesh)
    before = {host: resident_bytes(pid) for host, pid in workers(mesh).items()}
    async with connect(mesh.port()) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
        assert (await connection.read_head())[0] == 200
        await until_still(lambda: sent)
        assert sent < LARGE, "the mesh swallowed everything"
        grown = {host: resident_bytes(pid) - before[host] for host, pid in workers(mesh).items()}
        received = 0
        while received < LARGE:
            received += len(await asyncio.wait_for(connection.reader.read(MIB), 10))
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown


async def test_answers_nobody_reads_hold_back_the_requests(mesh: Mesh, app: App) -> None:
    """The mesh answers these itself, so no backend slows them down."""
    await mesh.serve(Service("echo", {"b": app.port}))
    await warm(mesh)
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    turns, per_turn = 240, 4000
    before = resident_bytes(workers(mesh)["a"])
    async with connect(mesh.port()) as connection:
        writing = asyncio.ensure_future(write_all(connection.writer, request * per_turn, turns, b""))
        await stalled(connection.writer)
        await until_at_rest(workers(mesh)["a"])
        grown = resident_bytes(workers(mesh)["a"]) - before
        assert not writing.done(), "the mesh swallowed everything"
        for _ in range(10_000):
            assert (await connection.reply()).status == 404
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        connection.writer.transport.abort()
    assert grown < GROWTH_BYTES_MAX


async def until_at_rest(pid: int) -> None:
    """Until the process has nothing to do but what it does every second."""

    def ticks() -> int:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    busy = True
    async with asyncio.timeout(60):
        while busy:
            before = ticks()
            await asyncio.sleep(0.3)
            busy = ticks() - before > 6


async def until_still(number: Any) -> None:
    before, same = None, 0
    while same < 5:
        await asyncio.sleep(0.05)
        now = number()
        same = same + 1 if now == before and now else 0
        before = now


@BOTH
async def test_an_echo_streams_both_ways_at_once(mesh: Mesh, app: App, where: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (8 * MIB))
        left = 8 * MIB
        while left:
            data = await reader.read(65536)
            left -= len(data)
            writer.write(data)
            await writer.drain()

    app.raw = serve
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: %d\r\n\r\n" % (8 * MIB))
        block = bytes(range(256)) * 4096
        writing = asyncio.ensure_future(write_all(connection.writer, block, 8, b""))
        reply = await connection.reply()
        await writing
    assert reply.body == block * 8


# ---------------------------------------------------------------- plain TCP


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that speaks first, and answers after its caller has closed its side."""
    writer.write(b"220 ready\r\n")
    total = b""
    while data := await reader.read(65536):
        total += data
        writer.write(data.upper())
        await writer.drain()
    writer.write(b" bye %d" % len(total))
    await writer.drain()


def database(where: str, port: int, **rest: Any) -> Service:
    return Service("db", {where: port}, protocol="tcp", port=5432, **rest)


@BOTH
async def test_a_tcp_upstream_port_is_a_pipe_in_which_the_server_may_speak_first(
    mesh: Mesh, app: App, where: str
) -> None:
    app.raw = shout
    await mesh.serve(database(where, app.port), upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        assert await asyncio.wait_for(connection.reader.readline(), 5) == b"220 ready\r\n"
        await connection.send(b"hello")
        assert await connection.reader.readexactly(5) == b"HELLO"
        connection.writer.write_eof()
        assert await asyncio.wait_for(connection.reader.read(), 5) == b" bye 5"
    line = await mesh.log_line("a", protocol="tcp", destination="db.default.mesh:5432", bytes_in=5, flags="-")
    assert line["bytes_out"] == 22
    security = "none" if where == "a" else "mutual_tls"
    series, delta = await mesh.observed("a", protocol="tcp", reporter="source", security=security)
    assert series.destination_service == "db"
    assert (delta.request_bytes, delta.response_bytes) == (5, 22)


@BOTH
async def test_connect_to_a_tcp_service_is_a_tunnel(mesh: Mesh, app: App, where: str) -> None:
    app.raw = shout
    await mesh.serve(database(where, app.port))
    async with connect(mesh.port()) as connection:
        await connection.send(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\nearly")
        assert (await connection.read_head())[0] == 200
        assert await asyncio.wait_for(connection.reader.readexactly(16), 5) == b"220 ready\r\nEARLY"


async def test_a_large_stream_goes_through_a_pipe_whole(mesh: Mesh, app: App) -> None:
    app.raw = shout
    await mesh.serve(database("b", app.port), upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        writing = asyncio.ensure_future(write_all(connection.writer, b"x" * MIB, 16, b""))
        data = await asyncio.wait_for(connection.reader.readexactly(11 + 16 * MIB), 30)
        await writing
    assert data[11:] == b"X" * 16 * MIB


@BOTH
async def test_a_tcp_caller_who_is_not_allowed_is_cut_off(mesh: Mesh, app: App, where: str) -> None:
    app.raw = shout
    batch = AuthzRule(sources=(Source(principals=(spiffe("batch").removeprefix("spiffe://"),)),))
    policy = Authorization(allow=(AuthzPolicy(name="default/only-batch", variants=((batch,),)),))
    await mesh.serve(database(where, app.port, authorization=policy), upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        assert await connection.at_end()
    assert app.connections == 0
    line = await mesh.log_line(where, protocol="tcp", authz_policy="no ALLOW policy matches")
    assert line["source"] == spiffe("web")


async def test_a_tcp_service_nobody_serves_cuts_the_caller_off(mesh: Mesh, app: App) -> None:
    await mesh.serve(database("b", app.port))
    await app.stop()
    async with connect(mesh.port()) as connection:
        await connection.send(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n")
        assert (await connection.read_head())[
            0
        ] == 200  # the far worker answers the handshake, not the application
        assert await connection.at_end()


async def test_a_plain_request_to_a_tcp_service_is_told_how_to_do_it(mesh: Mesh, app: App) -> None:
    await mesh.serve(database("b", app.port))
    reply = await mesh.call(host="db:5432")
    assert (reply.status, reply.body) == (
        400,
        b"db.default.mesh:5432 speaks plain TCP: use CONNECT or an upstream port\n",
    )


async def test_half_a_pipe_is_closed_when_the_other_half_breaks(mesh: Mesh, app: App) -> None:
    app.raw = shout
    await mesh.serve(database("b", app.port), upstreams=("db",))
    async with connect(mesh.port("a/db")) as connection:
        await connection.reader.readline()
        app.drop_connections()
        assert await connection.at_end()
    await until(lambda: not app._writers, "the application's connection to be gone")
