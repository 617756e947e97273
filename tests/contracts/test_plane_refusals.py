"""HTTP/1.1 that is refused, by callers and by applications; and no bytes at all break a listener."""

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.snapshot import Limits, RetryPolicy

from .application import App, answer, raw_response
from .client import connect, connections_of
from .patience import until
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

MALFORMED = {
    "content-length beside transfer-encoding":
        b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    "two lengths that differ": b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
    "two lengths that agree": b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: +3\r\n\r\n",
    "a length of more digits than HTTP/2 is given":
        b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 9999999999999999999\r\n\r\n",
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


@BOTH
async def test_a_broken_response_is_tried_again_where_the_policy_says_so(
    mesh: Mesh, app: App, where: str
) -> None:
    async def once_broken(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense\r\n\r\n" if len(app.received) == 1 else answer(body=b"whole"))

    app.script = once_broken
    await mesh.serve(Service("echo", {where: app.port}, cluster={"retry": RetryPolicy(on=("5xx",))}))
    reply = await mesh.call()
    assert (reply.status, reply.body) == (200, b"whole")


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
