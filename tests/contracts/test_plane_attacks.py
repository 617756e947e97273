"""Bounds under attack: each is hit over real connections, on whichever listener it guards, and beside each attack
another connection is served as ever, by a worker that is the same one afterwards.
"""

import asyncio
import os
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from proxy.snapshot import Limits
from trust.bundle import TrustBundle
from trust.tls import Caller

from .application import App
from .certificates import TRUST_DOMAIN, spiffe
from .client import Connection, connect
from .test_plane_streams import GROWTH_BYTES_MAX, resident_bytes, warm, workers
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024
SOON = Limits(header_timeout_s=0.4, idle_timeout_s=0.8)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
GET = b"\x82\x86\x84\x01\x04echo"  # :method GET, :scheme http, :path /, :authority echo
POST = b"\x83" + GET[1:]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


@asynccontextmanager
async def reached(mesh: Mesh, listener: str) -> AsyncIterator[Connection]:
    """A connection to the outbound listener of "a", or to the inbound one of "b" after agreeing on HTTP/2."""
    if listener == "outbound":
        async with connect(mesh.port()) as connection:
            yield connection
        return
    bundle = TrustBundle.from_pem(TRUST_DOMAIN, mesh.root.bundle_pem)
    context = Caller(certificate=mesh.certificate("web"), bundle=bundle, alpn=("h2",)).expecting(
        spiffe("echo")
    )
    async with connect(mesh.port("b/in"), ssl=context, server_hostname="echo.default.mesh") as connection:
        yield connection


async def refused_calmly(connection: Connection) -> int:
    """The code of the GOAWAY that ends the connection; it may have ended before that could be read (-1)."""
    raw = b""
    try:
        while data := await asyncio.wait_for(connection.reader.read(65536), 10):
            raw += data
    except (ConnectionError, ssl.SSLError):
        pass  # a reset: what was still on its way to the worker when it closed
    code = -1
    while len(raw) >= 9:
        size = int.from_bytes(raw[:3], "big")
        if raw[3] == GOAWAY:
            code = int.from_bytes(raw[13:17], "big")
        raw = raw[9 + size :]
    return code


async def flood(connection: Connection, data: bytes) -> None:
    try:
        for at in range(0, len(data), 65536):
            await asyncio.wait_for(connection.send(data[at : at + 65536]), 10)
    except (ConnectionError, ssl.SSLError):
        pass  # the mesh has had enough, which is the point


# ---------------------------------------------------------------- HTTP/2


def open_streams(count: int, block: bytes, flags: int = END_HEADERS | END_STREAM, then: Any = None) -> bytes:
    out = []
    for number in range(1, 2 * count, 2):
        out.append(frame(HEADERS, flags, number, block))
        if then is not None:
            out.append(then(number))
    return b"".join(out)


CALM, PROTOCOL, FLOW, SIZE, COMPRESSION = 11, 1, 3, 6, 9
FLOODS: dict[str, tuple[bytes, int]] = {
    "rapid reset (CVE-2023-44487)":
        (open_streams(2000, GET, then=lambda n: frame(RST_STREAM, 0, n, struct.pack(">I", 8))), CALM),
    "made to reset (CVE-2025-8671)":
        (open_streams(2000, POST, END_HEADERS, then=lambda n: frame(WINDOW_UPDATE, 0, n, bytes(4))), CALM),
    "malformed requests": (open_streams(3000, b"\x82\x86\x84"), CALM),
    "CONTINUATION without end (CVE-2024-27316)":
        (frame(HEADERS, END_STREAM, 1, GET) + frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y") * 5000, CALM),
    "empty CONTINUATIONs": (frame(HEADERS, END_STREAM, 1, GET) + frame(CONTINUATION, 0, 1) * 5000, CALM),
    "SETTINGS (CVE-2019-9515)": (frame(SETTINGS, 0, 0, b"\x00\x04\x00\x00\xff\xff") * 5000, CALM),
    "PING (CVE-2019-9512)": (frame(PING, 0, 0, bytes(8)) * 5000, CALM),
    "PRIORITY (CVE-2019-9513)": (frame(2, 0, 1, b"\x00\x00\x00\x03\x01") * 5000, CALM),
    "WINDOW_UPDATE": (frame(WINDOW_UPDATE, 0, 0, b"\x00\x00\x00\x01") * 5000, CALM),
    "empty DATA (CVE-2019-9518)": (frame(HEADERS, END_HEADERS, 1, POST) + frame(DATA, 0, 1) * 5000, CALM),
    "frames of no known kind": (frame(0xF0, 0, 0, b"x") * 5000, CALM),
    "a block that is larger than the list may be":
        (b"".join([
            frame(HEADERS, END_STREAM, 1, GET + (b"\x00\x01x\x7e" + b"y" * 126) * 60),
            *[frame(CONTINUATION, 0, 1, (b"\x00\x01x\x7e" + b"y" * 126) * 100)] * 8]), CALM),
    "a block that unpacks to much (a bomb)":
        (frame(HEADERS, END_HEADERS | END_STREAM, 1,
               GET + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 8000), CALM),
    "an index that is none": (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\x7f"), COMPRESSION),
    "a frame larger than was allowed": (frame(DATA, 0, 1, bytes(70_000)), SIZE),
    "a window beyond 2^31": (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), FLOW),
    "a promise nobody asked for": (frame(PUSH_PROMISE, END_HEADERS, 1, b"\x00\x00\x00\x02" + GET), PROTOCOL),
}  # fmt: skip


@pytest.mark.parametrize("listener", ["outbound", "inbound"])
@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_in_http2_ends_its_own_connection(
    mesh: Mesh, app: App, name: str, listener: str
) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=SOON)
    sent, code = FLOODS[name]
    async with connect(mesh.port()) as neighbour, reached(mesh, listener) as attacker:
        assert (await neighbour.request()).status == 200
        sending = asyncio.create_task(flood(attacker, PREFACE + frame(SETTINGS, 0, 0) + sent))
        told = await refused_calmly(attacker)
        await sending
        assert told in {code, -1}
        assert (await neighbour.request()).status == 200


@pytest.mark.parametrize("listener", ["outbound", "inbound"])
@pytest.mark.parametrize(
    "begin",
    [PREFACE[:20], PREFACE, PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, GET)],
    ids=["half a preface", "no settings", "half a block"],
)
async def test_a_slow_beginning_in_http2_has_its_time(
    mesh: Mesh, app: App, listener: str, begin: bytes
) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=SOON)
    async with reached(mesh, listener) as attacker:
        await attacker.send(begin)
        await refused_calmly(attacker)


async def test_more_streams_than_were_offered_are_refused_and_the_rest_served(mesh: Mesh, app: App) -> None:
    gate = asyncio.Event()

    async def script(_: App, __: Any, ___: Any, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    app.script = script
    await mesh.serve(Service("echo", {"b": app.port}))
    async with reached(mesh, "inbound") as attacker:
        await attacker.send(PREFACE + frame(SETTINGS, 0, 0) + open_streams(150, GET))
        refused = answered = 0
        buffer = b""
        while refused + answered < 150:
            buffer += await asyncio.wait_for(attacker.reader.read(65536), 10)
            while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
                size = int.from_bytes(buffer[:3], "big")
                refused += buffer[3] == RST_STREAM and buffer[9:13] == b"\x00\x00\x00\x07"
                answered += buffer[3] == HEADERS
                buffer = buffer[9 + size :]
            if refused == 50:
                gate.set()
        assert (refused, answered) == (50, 100)


# ---------------------------------------------------------------- HTTP/1.1


async def drip(connection: Connection, data: bytes, pause_s: float) -> None:
    try:
        for byte in data:
            await connection.send(bytes((byte,)))
            await asyncio.sleep(pause_s)
    except (ConnectionError, ssl.SSLError):
        pass  # the mesh has closed it


@pytest.mark.parametrize("listener", ["outbound", "inbound"])
async def test_slowloris_has_one_time_for_the_whole_head(mesh: Mesh, app: App, listener: str) -> None:
    """Each byte comes soon after the one before; the head as a whole does not."""
    await mesh.serve(Service("echo", {"b": app.port}), limits=SOON)

    async def one() -> int:
        made = connect(mesh.port()) if listener == "outbound" else mesh.inbound("echo")
        async with made as connection:
            head = b"GET / HTTP/1.1\r\nhost: echo\r\n" + b"x: y\r\n" * 99
            dripping = asyncio.create_task(drip(connection, head, 0.02))
            try:
                return (await connection.reply()).status
            except (ConnectionError, ssl.SSLError, EOFError):
                return 0  # what dripped after the end came before the answer was read
            finally:
                dripping.cancel()

    assert set(await asyncio.gather(*(one() for _ in range(10)))) <= {408, 0}
    await mesh.log_line("a" if listener == "outbound" else "b", code=408)
    assert app.received == []


async def test_a_body_that_stops_coming_is_given_up(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=SOON)
    for framing, begin in (("content-length: 100", b"abc"), ("transfer-encoding: chunked", b"64\r\nabc")):
        async with connect(mesh.port()) as connection:
            await connection.send(
                b"POST / HTTP/1.1\r\nhost: echo\r\n%b\r\n\r\n%b" % (framing.encode(), begin)
            )
            assert (await connection.reply()).status == 408
            assert await connection.at_end()
    assert app.received == []


OVERSIZED = {
    "a request line": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n", 431),
    "a field": (b"GET / HTTP/1.1\r\nhost: echo\r\nx: " + b"a" * 100_000, 431),
    "a name": (b"GET / HTTP/1.1\r\nhost: echo\r\n" + b"a" * 100_000, 431),
    "many fields": (b"GET / HTTP/1.1\r\nhost: echo\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
    "a method": (b"A" * 60_000, 400),
    "a chunk's extension":
        (b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 10_000, 400),
    "a chunk's size":
        (b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\n\r\n" + b"0" * 10_000, 400),
    "trailers":
        (b"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 10_000, 400),
    "a target in absolute form": (b"GET http://echo/" + b"a" * 100_000, 431),
}  # fmt: skip


@pytest.mark.parametrize("name", OVERSIZED)
async def test_what_is_too_large_is_refused(mesh: Mesh, app: App, name: str) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=SOON)
    sent, status = OVERSIZED[name]
    for made in (connect(mesh.port()), mesh.inbound("echo")):
        async with made as connection:
            sending = asyncio.create_task(flood(connection, sent))
            assert (await connection.reply()).status == status
            await sending
    assert app.received == []


@BOTH
@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"0" * 10_000,
    ],
    ids=["a field", "many fields", "a chunk's size"],
)
async def test_what_an_application_says_too_large_is_a_502(
    mesh: Mesh, app: App, where: str, said: bytes
) -> None:
    async def script(_: App, __: Any, ___: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    app.script = script
    await mesh.serve(Service("echo", {where: app.port}))
    assert (await mesh.call()).status == 502


async def test_heads_that_never_end_take_no_memory(mesh: Mesh, app: App) -> None:
    """Five hundred connections, each with most of the head it may have."""
    await mesh.serve(
        Service("echo", {"b": app.port}), limits=Limits(header_bytes_max=8192, header_timeout_s=30)
    )
    await warm(mesh)
    pid = workers(mesh)["a"]
    before = resident_bytes(pid)
    async with AsyncExitStack() as attackers:
        for _ in range(500):
            attacker = await attackers.enter_async_context(connect(mesh.port()))
            await attacker.send(b"GET / HTTP/1.1\r\nhost: echo\r\nx: " + b"a" * 8000)
        assert (await mesh.call()).status == 200
        assert resident_bytes(pid) - before < 500 * 8192 + GROWTH_BYTES_MAX


# ---------------------------------------------------------------- TLS


GARBAGE = {
    "random bytes": os.urandom(4000),
    "a request in plain": b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n",
    "a preface in plain": PREFACE,
    "a record larger than may be": b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "application data first": b"\x17\x03\x03\x00\x10" + bytes(16),
    "many empty records": b"\x16\x03\x01\x00\x00" * 5000,
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80",
    "a hello of TLS 1.0": b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x01"
    + bytes(32)
    + b"\x00\x00\x04\x00\x2f\x00\x35\x01\x00",
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_instead_of_a_handshake_is_the_end_of_it(mesh: Mesh, app: App, name: str) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=SOON)
    async with mesh.inbound("echo") as neighbour, connect(mesh.port("b/in")) as attacker:
        sending = asyncio.create_task(flood(attacker, GARBAGE[name]))
        told = await told_until_end(attacker)
        await sending
        assert told[:1] in {b"", b"\x15"}, "nothing but an alert"
        assert (await neighbour.request()).status == 200
    assert len(app.received) == 1


async def told_until_end(connection: Connection) -> bytes:
    raw = b""
    try:
        while data := await asyncio.wait_for(connection.reader.read(65536), 10):
            raw += data
    except ConnectionError:
        pass  # as good as an end
    return raw


@pytest.mark.parametrize(
    "begin", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["nothing", "half a hello"]
)
async def test_a_handshake_that_is_not_completed_has_its_time(mesh: Mesh, app: App, begin: bytes) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), limits=SOON)
    async with AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(connect(mesh.port("b/in"))) for _ in range(20)]
        for attacker in attackers:
            await attacker.send(begin)
        dripping = asyncio.create_task(drip(attackers[0], bytes(200), 0.02))
        for attacker in attackers:
            assert (await told_until_end(attacker))[:1] in {b"", b"\x15"}
        await dripping
    async with mesh.inbound("echo") as neighbour:
        assert (await neighbour.request()).status == 200


async def test_garbage_inside_a_session_is_the_end_of_it(mesh: Mesh, app: App) -> None:
    """A record that does not authenticate, after the handshake."""
    await mesh.serve(Service("echo", {"b": app.port}))
    bundle = TrustBundle.from_pem(TRUST_DOMAIN, mesh.root.bundle_pem)
    context = Caller(certificate=mesh.certificate("web"), bundle=bundle).expecting(spiffe("echo"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="echo.default.mesh")
    async with connect(mesh.port("b/in")) as connection:
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                await connection.send(outgoing.read())
                incoming.write(await asyncio.wait_for(connection.reader.read(65536), 10))
        session.write(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
        sealed = bytearray(outgoing.read())
        sealed[-1] ^= 1
        await connection.send(bytes(sealed))
        await told_until_end(connection)
    assert (await mesh.call()).status == 200
    assert len(app.received) == 1
