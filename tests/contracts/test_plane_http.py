"""HTTP/1.1 on the wire: framing both ways, pipelining, upgrades. What is refused: `test_plane_refusals.py`."""

import asyncio
from typing import Any

import pytest

from .application import App, answer, raw_response
from .client import connect
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def mirror(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(body=request.body or request.path.encode()))


# ---------------------------------------------------------------- bodies


@BOTH
async def test_bodies_with_a_length_and_in_chunks_arrive_whole(mesh: Mesh, app: App, where: str) -> None:
    app.script = mirror
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        assert (await connection.request("POST", body=b"with a length")).body == b"with a length"
        await connection.send(
            b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
            b"5\r\nin ch\r\n4;ext=1\r\nunks\r\n0\r\nX-Sum: 42\r\nContent-Length: 3\r\n\r\n"
        )
        assert (await connection.reply()).body == b"in chunks"
    assert app.received[-1].trailers == [("x-sum", "42")]


@BOTH
async def test_chunked_responses_keep_their_trailers(mesh: Mesh, app: App, where: str) -> None:
    app.script = raw_response(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nx-sum: 6\r\n\r\n"
    )
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(2):
            reply = await connection.request()
            assert (reply.body, reply.trailers) == (b"abcdef", [("x-sum", "6")])
    assert app.connections == 1


@BOTH
async def test_a_response_without_a_length_ends_with_the_connection(mesh: Mesh, app: App, where: str) -> None:
    app.script = raw_response(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end", close=True)
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(2):
            reply = await connection.request()
            assert (reply.body, reply.header("transfer-encoding")) == (b"until the end", "chunked")


@BOTH
@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 999 Request denied\r\ncontent-length: 0\r\n\r\n"),
    ],
)
async def test_responses_without_a_body_leave_the_connection_in_step(
    mesh: Mesh, app: App, where: str, method: str, response: bytes
) -> None:
    app.script = raw_response(response)
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(3):
            await connection.send(f"{method} / HTTP/1.1\r\nhost: echo\r\n\r\n".encode())
            reply = await connection.reply(to_head=method == "HEAD")
            assert reply.status == int(response.split(b" ")[1])
    assert app.connections == 1


@BOTH
async def test_expect_100_continue_is_answered_by_the_application(mesh: Mesh, app: App, where: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"expect: 100-continue" in head
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        writer.write(answer(body=await reader.readexactly(5)))
        await writer.drain()

    app.raw = serve
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(
            b"POST / HTTP/1.1\r\nhost: echo\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        )
        assert (await connection.read_head())[0] == 103
        assert (await connection.read_head())[0] == 100
        await connection.send(b"hello")
        assert (await connection.reply()).body == b"hello"


async def test_an_early_answer_ends_the_connection_but_arrives(mesh: Mesh, app: App) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(413, b"too large"))
        await writer.drain()

    app.raw = serve
    await mesh.serve(Service("echo", {"b": app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(
            b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 500000\r\n\r\n" + b"x" * 100_000
        )
        reply = await connection.reply()
        assert (reply.status, reply.body, reply.header("connection")) == (413, b"too large", "close")
        assert await connection.at_end()


# ---------------------------------------------------------------- connections


@BOTH
async def test_pipelined_requests_are_answered_in_order(mesh: Mesh, app: App, where: str) -> None:
    app.script = mirror
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        requests = [f"GET /{n} HTTP/1.1\r\nhost: echo\r\n\r\n".encode() for n in range(50)]
        requests[7] = b"POST /x HTTP/1.1\r\nhost: echo\r\ncontent-length: 4\r\n\r\nbody"
        requests[9] = b"GET / HTTP/1.1\r\nhost: nobody\r\n\r\n"
        await connection.send(b"".join(requests))
        bodies = [(await connection.reply()).body for _ in requests]
    expected = [f"/{n}".encode() for n in range(50)]
    expected[7], expected[9] = b"body", b'no service "nobody" in the mesh\n'
    assert bodies == expected


async def test_http_1_0_callers_get_a_body_they_can_find_the_end_of(mesh: Mesh, app: App) -> None:
    app.script = raw_response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    await mesh.serve(Service("echo", {"b": app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(b"GET / HTTP/1.0\r\nhost: echo\r\n\r\n")
        reply = await connection.reply()
        assert (reply.body, reply.header("transfer-encoding"), reply.header("connection")) == (
            b"abc",
            None,
            "close",
        )
    app.script = None
    async with connect(mesh.port()) as connection:
        for _ in range(2):
            await connection.send(b"GET / HTTP/1.0\r\nhost: echo\r\nconnection: keep-alive\r\n\r\n")
            assert (await connection.reply()).header("connection") == "keep-alive"


async def test_connection_close_is_honoured(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with connect(mesh.port()) as connection:
        reply = await connection.request(headers={"connection": "close"})
        assert reply.header("connection") == "close"
        assert await connection.at_end()


@BOTH
async def test_an_upgrade_becomes_a_tunnel(mesh: Mesh, app: App, where: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"upgrade: websocket" in head.lower()
        assert b"connection: upgrade" in head.lower()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nfirst "
        )
        while data := await reader.read(65536):
            writer.write(data.upper())
        writer.write(b" bye")

    app.raw = serve
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(
            b"GET /ws HTTP/1.1\r\nhost: echo\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nearly "
        )
        assert (await connection.read_head()) == (101, [("connection", "upgrade"), ("upgrade", "websocket")])
        await connection.send(b"late")
        assert await connection.reader.readexactly(16) == b"first EARLY LATE"
        connection.writer.write_eof()
        assert await connection.reader.read() == b" bye"
    line = await mesh.log_line("a", path="/ws")
    assert (line["code"], line["bytes_in"], line["bytes_out"]) == (101, 10, 20)


async def test_a_refused_upgrade_is_an_ordinary_response(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(2):
            reply = await connection.request(headers={"connection": "Upgrade", "upgrade": "websocket"})
            assert (reply.status, reply.body) == (200, b"app")
    assert app.received[-1].header("upgrade") == "websocket"


H2C = {"connection": "Upgrade", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}


@BOTH
async def test_an_upgrade_to_another_protocol_is_not_passed_on(mesh: Mesh, app: App, where: str) -> None:
    app.script = mirror
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        reply = await connection.request("POST", headers=H2C, body=b"plain")
        assert (reply.status, reply.body) == (200, b"plain")
        assert (await connection.request(headers=H2C, path="/next")).body == b"/next"
    for received in app.received:
        assert not {name for name, _ in received.headers} & {"upgrade", "connection", "http2-settings"}


@BOTH
@pytest.mark.parametrize("asked", ["h2c", "websocket"])
async def test_a_backend_cannot_change_to_a_protocol_nobody_asked_for(
    mesh: Mesh, app: App, where: str, asked: str
) -> None:
    app.script = raw_response(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nframes")
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        reply = await connection.request(headers={"connection": "upgrade", "upgrade": asked})
        assert reply.status == 502
        assert b"frames" not in reply.body


async def test_a_few_empty_lines_before_a_request_are_tolerated(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(3):
            await connection.send(b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: echo\r\n\r\n")
            assert (await connection.reply()).body == b"app"


async def test_empty_lines_are_counted_however_they_arrive(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(5):
            await connection.send(b"\r")
            await asyncio.sleep(0)
            await connection.send(b"\n")
        assert (await connection.reply()).status == 400
        assert await connection.at_end()
