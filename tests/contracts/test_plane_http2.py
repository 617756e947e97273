"""HTTP/2 callers by prior knowledge, judged by the `h2` library and curl; gRPC is in test_plane_grpc.py."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from proxy.snapshot import Authorization, AuthzPolicy, AuthzRule, Operation

from .application import App, Received, answer
from .client import connect
from .patience import until
from .test_plane_streams import GROWTH_BYTES_MAX, resident_bytes, warm, workers
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024


class Client:
    """One connection of the h2 library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **options: bool) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8", **options))
        self.events: list[Any] = []
        self.acknowledge = True  # take what comes, or leave the windows as they are
        self.h2.initiate_connection()

    def send(self, *fields: tuple[str, str], body: bytes | None = None, end: bool = True) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        given = dict(fields)
        head = {":method": "GET", ":scheme": "http", ":authority": "echo", ":path": "/"} | given
        self.h2.send_headers(stream, list(head.items()), end_stream=end and body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=end)
        return stream

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def until(self, kind: type, stream: int | None = None) -> Any:
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            self.flush()
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            assert data, f"the connection ended; waited for {kind.__name__}, got {self.events}"
            self.take(data)

    def take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and self.acknowledge:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def body(self, stream: int) -> bytes:
        return b"".join(
            e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream
        )

    async def reply(self, stream: int) -> tuple[dict[str, str], bytes]:
        await self.until(h2.events.StreamEnded, stream)
        head = await self.until(h2.events.ResponseReceived, stream)
        return dict(head.headers), self.body(stream)

    async def request(
        self, *fields: tuple[str, str], body: bytes | None = None
    ) -> tuple[dict[str, str], bytes]:
        return await self.reply(self.send(*fields, body=body))


@asynccontextmanager
async def client(port: int, **options: bool) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer, **options)
    finally:
        writer.transport.abort()


@BOTH
async def test_requests_of_one_connection_reach_an_http1_application(
    mesh: Mesh, app: App, where: str
) -> None:
    await mesh.serve(Service("echo", {where: app.port}))
    async with client(mesh.port()) as caller:
        streams = [caller.send((":path", f"/{n}?q={n}"), ("x-n", str(n))) for n in range(50)]
        for stream in streams:
            headers, body = await caller.reply(stream)
            assert (headers[":status"], headers["content-length"], body) == ("200", "3", b"app")
    assert {r.path for r in app.received} == {f"/{n}?q={n}" for n in range(50)}
    assert app.received[0].header("host") == "echo"
    assert (await mesh.log_line("a", path="/7?q=7"))["protocol"] == "HTTP/2"


@BOTH
async def test_a_body_with_trailers_both_ways(mesh: Mesh, app: App, where: str) -> None:
    async def script(_: App, request: Received, reader: Any, writer: Any) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n"
        )
        writer.write(b"2\r\nab\r\n0\r\nx-sum: 9\r\n\r\n")

    app.script = script
    await mesh.serve(Service("echo", {where: app.port}))
    async with client(mesh.port()) as caller:
        stream = caller.send((":method", "POST"), ("cookie", "a=1"), body=b"hello", end=False)
        caller.h2.send_headers(stream, [("x-check", "7"), ("authorization", "no")], end_stream=True)
        headers, body = await caller.reply(stream)
        trailers = await caller.until(h2.events.TrailersReceived, stream)
    assert (headers[":status"], body, trailers.headers) == ("200", b"ab", [("x-sum", "9")])
    assert not {"connection", "x-hop", "transfer-encoding"} & set(headers)
    [received] = app.received
    assert (received.body, received.trailers) == (b"hello", [("x-check", "7")])


async def test_a_length_that_was_told_is_kept(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with client(mesh.port()) as caller:
        await caller.request((":method", "PUT"), ("content-length", "5"), body=b"hello")
        headers, body = await caller.request((":method", "HEAD"))
        assert (headers[":status"], body) == ("200", b"")
    assert (app.received[0].header("content-length"), app.received[0].body) == ("5", b"hello")


async def test_answers_of_the_mesh_and_redirects(mesh: Mesh, app: App) -> None:
    deny = AuthzPolicy(
        name="default/no", variants=((AuthzRule(operations=(Operation(paths=("/secret*",)),)),),)
    )
    await mesh.serve(Service("echo", {"a": app.port}, authorization=Authorization(deny=(deny,))))
    async with client(mesh.port()) as caller:
        headers, body = await caller.request((":authority", "nobody"))
        assert (headers[":status"], body) == ("404", b'no service "nobody" in the mesh\n')
        for path in ("/secret", "/a/../secret", "/%73ecret", "//secret"):
            headers, body = await caller.request((":path", path))
            assert (headers[":status"], body) == ("403", b"RBAC: access denied\n"), path
        headers, _ = await caller.request((":path", "/%zz"))
        assert headers[":status"] == "400"
    assert app.received == []


@BOTH
async def test_a_large_upload_to_a_slow_application_takes_no_memory(mesh: Mesh, app: App, where: str) -> None:
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        await reader.readexactly(size)
        writer.write(answer(body=b"all of it"))
        await writer.drain()

    size = 32 * MIB
    app.raw = serve
    await mesh.serve(Service("echo", {where: app.port}))
    await warm(mesh)
    before = {host: resident_bytes(pid) for host, pid in workers(mesh).items()}
    async with client(mesh.port()) as caller:
        stream = caller.send((":method", "POST"), ("content-length", str(size)), end=False)
        sent = 0
        still = 0
        while sent < size:
            room = min(caller.h2.local_flow_control_window(stream), 16384, size - sent)
            if room:
                caller.h2.send_data(stream, bytes(room))
                caller.flush()
                sent, still = sent + room, 0
                continue
            caller.flush()
            try:
                caller.take(await asyncio.wait_for(caller.reader.read(65536), 0.1))
            except TimeoutError:
                still += 1
            if still == 4:
                assert sent < size, "the mesh swallowed everything"
                grown = {host: resident_bytes(pid) - before[host] for host, pid in workers(mesh).items()}
                go_on.set()
        caller.h2.end_stream(stream)
        assert (await caller.reply(stream))[1] == b"all of it"
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown


@BOTH
async def test_a_stream_nobody_reads_holds_back_its_application_alone(
    mesh: Mesh, app: App, where: str
) -> None:
    async def script(_: App, request: Received, reader: Any, writer: asyncio.StreamWriter) -> None:
        if request.path == "/quick":
            writer.write(answer(body=b"quick"))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 * MIB))
        nonlocal sent
        while sent < 64 * MIB:
            writer.write(bytes(MIB))
            await writer.drain()
            sent += MIB

    sent = 0
    app.script = script
    await mesh.serve(Service("echo", {where: app.port}))
    await warm(mesh)
    before = {host: resident_bytes(pid) for host, pid in workers(mesh).items()}
    async with client(mesh.port()) as caller:
        caller.acknowledge = False
        caller.h2.increment_flow_control_window(8 * MIB)  # the connection's, so that only the stream is full
        slow = caller.send((":path", "/slow"))
        while len(caller.body(slow)) < 65_535:
            caller.flush()
            caller.take(await asyncio.wait_for(caller.reader.read(65536), 10))
        await until(lambda: sent and app.connections, "the application writes")
        for _ in range(5):
            headers, body = await caller.request((":path", "/quick"))
            assert (headers[":status"], body) == ("200", b"quick")
        grown = {host: resident_bytes(pid) - before[host] for host, pid in workers(mesh).items()}
        assert len(caller.body(slow)) == 65_535
        assert sent < 64 * MIB
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown


async def test_a_reset_stream_ends_its_request_at_the_application(mesh: Mesh, app: App) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        try:
            assert await reader.read() == b""
        finally:
            gone.set()

    asked = asyncio.Event()
    app.raw = serve
    await mesh.serve(Service("echo", {"b": app.port}))
    async with client(mesh.port()) as caller:
        stream = caller.send()
        caller.flush()
        await asyncio.wait_for(asked.wait(), 10)
        caller.h2.reset_stream(stream, 8)
        caller.flush()
        await asyncio.wait_for(gone.wait(), 10)
        assert (await caller.request((":authority", "nobody")))[0][":status"] == "404"


async def test_an_application_that_breaks_off_resets_the_stream(mesh: Mesh, app: App) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await writer.drain()
        writer.close()

    app.raw = serve
    await mesh.serve(Service("echo", {"b": app.port}))
    async with client(mesh.port()) as caller:
        event = await caller.until(h2.events.StreamReset, caller.send())
        assert event.error_code == 2


async def test_after_connect_a_connection_may_be_http2(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(b"CONNECT echo:80 HTTP/1.1\r\nhost: echo:80\r\n\r\n")
        assert (await connection.read_head())[0] == 200
        caller = Client(connection.reader, connection.writer)
        assert (await caller.request((":authority", "anything")))[1] == b"app"


async def test_a_preface_in_single_bytes(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"a": app.port}))
    async with client(mesh.port()) as caller:
        stream = caller.send()
        for byte in caller.h2.data_to_send():
            caller.writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await caller.reply(stream))[1] == b"app"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), upstreams=("echo",))
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", "-d", "x" * 100_000,
        f"http://127.0.0.1:{mesh.port('a/echo')}/p", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert out == b"app2 200"
    assert app.received[0].body == b"x" * 100_000
