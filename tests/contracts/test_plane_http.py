"""HTTP/1.1 on the wire: framing both ways, pipelining, upgrades, and what is refused."""

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.snapshot import Limits

from .application import App, answer
from .client import connect, connections_of
from .patience import until
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def mirror(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(body=request.body or request.path.encode()))


def raw_response(data: bytes, *, close: bool = False) -> Any:
    async def script(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if close:
            await writer.drain()
            writer.close()

    return script


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


# ---------------------------------------------------------------- what is refused

MALFORMED = {
    "content-length beside transfer-encoding":
        b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    "two lengths that differ": b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
    "two lengths that agree": b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: +3\r\n\r\n",
    "a length beyond 2^64": b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 99999999999999999999\r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: gzip\r\n\r\n",
    "a coding before chunked": b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "chunked twice":
        b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nhost: echo\r\ntransfer-encoding: chunked\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nhost : echo\r\n\r\n",
    "obsolete folding": b"GET / HTTP/1.1\r\nhost: echo\r\nx: a\r\n b\r\n\r\n",
    "a bare LF after the request line": b"GET / HTTP/1.1\nhost: echo\r\n\r\n",
    "a bare LF after a field": b"GET / HTTP/1.1\r\nhost: echo\nx: y\r\n\r\n",
    "bare LF throughout": b"GET / HTTP/1.1\nhost: echo\n\n",
    "a bare CR in a value": b"GET / HTTP/1.1\r\nhost: echo\r\nx: a\rb\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nhost: echo\r\nx: a\0b\r\n\r\n",
    "a control in a value": b"GET / HTTP/1.1\r\nhost: echo\r\nx: a\x01b\r\n\r\n",
    "a delimiter in a name": b"GET / HTTP/1.1\r\nhost: echo\r\nx(y: z\r\n\r\n",
    "an empty name": b"GET / HTTP/1.1\r\nhost: echo\r\n: z\r\n\r\n",
    "a line without a colon": b"GET / HTTP/1.1\r\nhost: echo\r\nnonsense\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\nx: y\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nhost: echo\r\nhost: other\r\n\r\n",
    "a Host with a path": b"GET / HTTP/1.1\r\nhost: echo/x\r\n\r\n",
    "a Host with user info": b"GET / HTTP/1.1\r\nhost: a@echo\r\n\r\n",
    "an absolute target with user info": b"GET http://a@echo/ HTTP/1.1\r\nhost: echo\r\n\r\n",
    "another scheme": b"GET ftp://echo/ HTTP/1.1\r\nhost: echo\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nhost: echo\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\nhost: echo\r\n\r\n",
    "bytes beyond ASCII in the target": b"GET /\xe9 HTTP/1.1\r\nhost: echo\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nhost: echo\r\n\r\n",
    "an asterisk for GET": b"GET * HTTP/1.1\r\nhost: echo\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nhost: echo\r\n\r\n",
    "an unknown method": b"FROB / HTTP/1.1\r\nhost: echo\r\n\r\n",
    "an escape that is none": b"GET /%zz HTTP/1.1\r\nhost: echo\r\n\r\n",
    "a TLS client hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a body on an upgrade":
        b"GET / HTTP/1.1\r\nhost: echo\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\nx",
    "only empty lines": b"\r\n" * 100,
    "a chunk size that is none": b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk longer than its size": b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
}  # fmt: skip


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_a_400_and_the_end(mesh: Mesh, app: App, head: bytes) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(head + b"GET /smuggled HTTP/1.1\r\nhost: echo\r\n\r\n" * (b"\r\n\r\n" in head))
        reply = await connection.reply()
        assert (reply.status, reply.header("server")) == (400, "gossamer")
        if (
            b"%zz" not in head
        ):  # a bad path is refused after the head was understood: the connection is in step
            assert reply.header("connection") == "close"
            assert await connection.at_end()
    assert "/smuggled" not in {received.path for received in app.received} or b"%zz" in head


async def test_the_inbound_listener_refuses_malformed_heads_too(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    for head in list(MALFORMED.values())[:12]:
        async with mesh.inbound("echo") as connection:
            await connection.send(head)
            assert (await connection.reply()).status == 400
    assert app.received == []


async def test_a_head_too_large_is_431(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=Limits(header_bytes_max=4096, headers_max=10))
    many = b"".join(b"x-%d: y\r\n" % n for n in range(20))
    for head in (
        b"GET / HTTP/1.1\r\nhost: echo\r\nx: " + b"y" * 5000,
        b"GET / HTTP/1.1\r\nhost: echo\r\n" + many + b"\r\n",
    ):
        async with connect(mesh.port()) as connection:
            await connection.send(head)
            assert (await connection.reply()).status == 431
            assert await connection.at_end()
    assert (await mesh.call(headers={"x": "y" * 3000})).status == 200


async def test_a_head_that_does_not_come_to_its_end_is_408(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=Limits(header_timeout_s=0.2))
    async with connect(mesh.port()) as connection:
        assert (await connection.request()).status == 200
        await connection.send(b"GET / HTTP/1.1\r\nhost: ")
        assert (await connection.reply()).status == 408
        assert await connection.at_end()


async def test_an_idle_connection_is_closed(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=Limits(idle_timeout_s=0.2))
    async with connect(mesh.port()) as connection:
        assert (await connection.request()).status == 200
        assert await connection.at_end()


async def test_connections_beyond_the_limit_are_closed_at_once(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"a": app.port}), limits=Limits(connections_max=2))
    [worker] = mesh.planes["a"].processes()
    gc.collect()  # a failed call of grpcio is part of a cycle, and holds its channel's connection until then
    await until(lambda: connections_of(worker, mesh.port()) == 0, "earlier tests' connections closed")
    async with connect(mesh.port()) as one, connect(mesh.port()) as two:
        assert (await one.request()).status == 200
        assert (await two.request()).status == 200
        async with connect(mesh.port()) as three:
            assert await three.at_end()
        assert (await one.request()).status == 200


BROKEN_RESPONSES = {
    "no HTTP": b"nonsense\r\n\r\n",
    "both framings": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
    "an unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
    "an upgrade nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "a status that is none": b"HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n",
    "a control character": b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n",
}


@BOTH
@pytest.mark.parametrize("response", BROKEN_RESPONSES.values(), ids=BROKEN_RESPONSES.keys())
async def test_a_broken_response_is_a_502(mesh: Mesh, app: App, where: str, response: bytes) -> None:
    app.script = raw_response(response)
    await mesh.serve(Service("echo", {where: app.port}))
    async with connect(mesh.port()) as connection:
        assert (await connection.request()).status == 502
        app.script = None
        assert (await connection.request()).status == 200


# ---------------------------------------------------------------- anything at all

_FRAGMENTS = st.sampled_from([
    b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"host: echo\r\n", b"\r\n", b"\n", b"content-length: 3\r\n", b"abc",
    b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"CONNECT echo:80 HTTP/1.1\r\n",
    b"upgrade: x\r\n",
    b"connection: upgrade\r\n", b"expect: 100-continue\r\n", b"HEAD http://echo/ HTTP/1.1\r\n", b"x" * 300, b"\0",
    b"\xff",
])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(pieces=st.lists(st.one_of(_FRAGMENTS, st.binary(max_size=40)), max_size=12))
async def test_no_bytes_break_a_listener(mesh: Mesh, app: App, pieces: list[bytes]) -> None:
    if not app.received:  # the first example
        await mesh.serve(
            Service("echo", {"b": app.port}), limits=Limits(header_timeout_s=0.1, idle_timeout_s=0.2)
        )
        await mesh.call()
    async with connect(mesh.port()) as connection:
        try:
            for piece in pieces:
                await connection.send(piece)
                await asyncio.sleep(0)
            connection.writer.write_eof()
            await asyncio.wait_for(connection.reader.read(), 5)
        except ConnectionError:
            pass  # refused before everything was sent
    assert (await mesh.call()).status == 200  # and the fixture sees that it is the same worker


async def test_no_bytes_break_the_inbound_listener(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    for data in (
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\x03\x01\xff\xff" + b"x" * 70000,
    ):
        async with connect(mesh.port("b/in")) as connection:
            try:
                await connection.send(data)
                connection.writer.write_eof()
                await asyncio.wait_for(connection.reader.read(), 5)
            except ConnectionError:
                pass
    assert (await mesh.call()).status == 200
