"""What a message of HTTP/2 means has to survive being one of HTTP/1.1 on its way, and the other way round.

Callers by prior knowledge on this host, and by ALPN from another one, where the plane is asked as a stranger would.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.events
import pytest

from .application import App, Received, answer
from .test_plane_alpn import inbound
from .test_plane_http2 import Client, client
from .twohosts import Mesh, Service

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("listener", ["outbound", "inbound"]),
]


@asynccontextmanager
async def reached(mesh: Mesh, listener: str) -> AsyncIterator[Client]:
    if listener == "outbound":
        async with client(mesh.port()) as caller:
            yield caller
    else:
        async with inbound(mesh, "h2") as (_, caller):
            yield caller


def says(data: bytes) -> Any:
    async def script(_: App, __: Received, ___: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return script


@pytest.mark.parametrize(
    ("method", "said", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "200", "5"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "200", None),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", "204", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", "304", "5"),
        ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "200", "0"),
    ],
)
async def test_responses_without_a_body_end_with_their_head(
    mesh: Mesh, app: App, listener: str, method: str, said: bytes, status: str, length: str | None
) -> None:
    app.script = says(said)
    await mesh.serve(Service("echo", {"b": app.port}))
    async with reached(mesh, listener) as caller:
        for _ in range(2):
            head, body = await caller.request((":method", method))
            assert (head[":status"], head.get("content-length"), body) == (status, length, b"")


async def test_a_body_without_a_length_or_in_chunks_arrives_whole(
    mesh: Mesh, app: App, listener: str
) -> None:
    app.script = says(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-t: 1\r\n\r\n"
    )
    await mesh.serve(Service("echo", {"b": app.port}))
    async with reached(mesh, listener) as caller:
        stream = caller.send()
        head, body = await caller.reply(stream)
        assert (head[":status"], body) == ("200", b"abcde")
        assert "transfer-encoding" not in head
        assert dict((await caller.until(h2.events.TrailersReceived, stream)).headers) == {"x-t": "1"}


async def test_informational_responses_come_first(mesh: Mesh, app: App, listener: str) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </s.css>\r\n\r\n"
    app.script = says(hints + answer(200, b"done"))
    await mesh.serve(Service("echo", {"b": app.port}))
    async with reached(mesh, listener) as caller:
        stream = caller.send()
        assert (await caller.reply(stream))[1] == b"done"
        told = await caller.until(h2.events.InformationalResponseReceived, stream)
        assert dict(told.headers) == {":status": "103", "link": "</s.css>"}


async def test_crumbs_of_a_cookie_are_one_again(mesh: Mesh, app: App, listener: str) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with reached(mesh, listener) as caller:
        stream = caller.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "http"), (":authority", "echo"), (":path", "/")]
        caller.h2.send_headers(stream, [*head, ("cookie", "a=b"), ("cookie", "c=d")], end_stream=True)
        await caller.reply(stream)
    assert app.received[0].header("cookie") == "a=b; c=d"


async def test_fields_travel_and_those_of_a_connection_do_not(mesh: Mesh, app: App, listener: str) -> None:
    app.script = says(
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nX-Two: 1\r\nX-Two: 2\r\n"
        b"Connection: x-own\r\nX-Own: 3\r\nKeep-Alive: a\r\n\r\n"
    )
    await mesh.serve(Service("echo", {"b": app.port}))
    async with reached(mesh, listener) as caller:
        stream = caller.send(("te", "trailers"), ("x-one", "1, 2"))
        await caller.reply(stream)
        fields = (await caller.until(h2.events.ResponseReceived, stream)).headers
    assert [value for name, value in fields if name == "x-two"] == ["1", "2"]
    assert not {name for name, _ in fields} & {"connection", "keep-alive", "x-own"}
    assert (app.received[0].header("x-one"), app.received[0].header("host")) == ("1, 2", "echo")


async def test_a_body_of_either_framing_reaches_http1(mesh: Mesh, app: App, listener: str) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with reached(mesh, listener) as caller:
        await caller.request((":method", "POST"), ("content-length", "3"), body=b"abc")
        await caller.request((":method", "POST"), body=b"abcd")
        await caller.request((":method", "POST"), ("content-length", "0"))
        await caller.request((":method", "POST"), body=b"")
    framings = [(r.body, r.header("content-length"), r.header("transfer-encoding")) for r in app.received]
    assert framings[:2] == [(b"abc", "3", None), (b"abcd", None, "chunked")]
    assert [body for body, _, _ in framings[2:]] == [b"", b""]


async def test_a_hundred_requests_at_once_get_their_own_answers(mesh: Mesh, app: App, listener: str) -> None:
    async def script(
        _: App, request: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(200, request.path.encode()))

    app.script = script
    await mesh.serve(Service("echo", {"b": app.port}))
    async with reached(mesh, listener) as caller:
        streams = [caller.send((":path", f"/{number}")) for number in range(100)]
        assert [(await caller.reply(stream))[1] for stream in streams] == [b"/%d" % n for n in range(100)]
