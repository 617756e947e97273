"""A connection that has ended is freed at once: what waits for the collector of cycles waits for long.

Both hosts of a request are one engine here: a caller's connection, TLS to itself, the application's connection.
"""

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest
from hpack import Encoder

from proxy.embedded import http2_frames as wire
from proxy.embedded.engine import Engine
from proxy.embedded.listeners import accept
from proxy.embedded.runtime import Runtime
from proxy.snapshot import Cluster, Destination, Endpoint, InboundService, Listener, Snapshot

from .conftest import TRUST_DOMAIN, Issuer

ROUNDS = 3
OURS = ("proxy.", "trust.", "ssl", "_ssl", "uvloop")


async def _application(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers requests in HTTP/1.1, turns into an echo where it is asked to, and hangs up where that is asked for."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"upgrade: websocket" in head:
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
                )
                while data := await reader.read(1024):
                    writer.write(data)
                break
            if b"/hang-up" in head:
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    writer.close()


class Mesh:
    """`out` and `db` are listening: for callers, and for the TCP service."""

    def __init__(self, engine: Engine, issuer: Issuer, application: int) -> None:
        self._engine, self._issuer, self._application = engine, issuer, application
        self.sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("in", "out", "db")}
        self.runtime: Runtime | None = None
        self.servers: list[asyncio.Server] = []

    def port(self, name: str) -> int:
        return int(self.sockets[name].getsockname()[1])

    def serve(self) -> None:
        """With certificates that are new each time."""
        web, cart = (self._issuer.certificate(account) for account in ("web", "cart"))
        services = (("cart", 80, "http"), ("db", 5432, "tcp"), ("impostor", 80, "http"))
        listeners = [
            Listener(name="in", kind="inbound"),
            Listener(name="out", kind="outbound", caller=web.identity, caller_service="web"),
            Listener(
                name="db",
                kind="upstream",
                caller=web.identity,
                caller_service="web",
                destination="db.default.mesh:5432",
            ),
        ]
        snapshot = Snapshot(
            version=1, node="n", node_name="n", trust_domain=TRUST_DOMAIN, trust_bundle_pem=self._issuer.bundle_pem,
            certificates=(web, cart), listeners=tuple(listeners),
            inbound=tuple(
                InboundService(
                    sni=f"{name}.default.mesh", service=name, namespace="default", port=port, protocol=protocol,
                    identity=cart.identity, app_host="127.0.0.1", app_port=self._application,
                )
                for name, port, protocol in services
            ),
            clusters=tuple(
                Cluster(
                    name=f"{name}.default.mesh:{port}", service=name, namespace="default", protocol=protocol,
                    endpoints=(
                        Endpoint(
                            id=name, node="m", host="127.0.0.1", port=self.port("in"), sni=f"{name}.default.mesh",
                            identity=web.identity if name == "impostor" else cart.identity,
                        ),
                    ),
                )
                for name, port, protocol in services
            ),
            destinations=tuple(
                Destination(
                    service=name, namespace="default", port=port, protocol=protocol,
                    cluster=f"{name}.default.mesh:{port}",
                )
                for name, port, protocol in services
            ),
        )  # fmt: skip
        self.runtime = Runtime.build(self._engine, snapshot, self.runtime, 0.0)
        self.runtime.commit()


@pytest.fixture
async def mesh(engine: Engine, issuer: Issuer) -> AsyncIterator[Mesh]:
    application = await asyncio.start_server(_application, "127.0.0.1", 0)
    mesh = Mesh(engine, issuer, application.sockets[0].getsockname()[1])
    mesh.serve()
    loop = asyncio.get_running_loop()
    for name, listening in mesh.sockets.items():
        mesh.servers.append(await loop.create_server(partial(accept, engine, name), sock=listening))
    yield mesh
    for server in (application, *mesh.servers):
        server.close()
    for pool in engine.pools.values():
        pool.retire()
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})  # the application's


@pytest.fixture
def uncollected() -> Iterator[Callable[[], Counter[str]]]:
    """What only the collector would free, of ours: kinds and how many."""
    gc.collect()
    gc.disable()

    def found() -> Counter[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kinds = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
        ours = Counter(kind for kind in kinds if kind.startswith(OURS))
        gc.garbage.clear()
        return ours

    yield found
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def _said(port: int, *said: bytes, until: bytes) -> bytes:
    """Sends each after the answer to the one before, and what came last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    for each in said:
        writer.write(each)
        answer = await reader.readuntil(until)
    writer.close()
    await writer.wait_closed()
    return answer


GET = b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n"
HANG_UP = b"POST /hang-up HTTP/1.1\r\nhost: cart\r\ncontent-length: 0\r\n\r\n"
ECHO = b"GET / HTTP/1.1\r\nhost: cart\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


async def requests(mesh: Mesh) -> None:
    assert await _said(mesh.port("out"), GET, GET, until=b"\r\n\r\nok")


async def failure(mesh: Mesh) -> None:
    assert b" 503 " in await _said(mesh.port("out"), HANG_UP, until=b"\r\n\r\n")


async def impostor(mesh: Mesh) -> None:
    assert b" 503 " in await _said(mesh.port("out"), GET.replace(b"cart", b"impostor"), until=b"\r\n\r\n")


async def upgrade(mesh: Mesh) -> None:
    port = mesh.port("out")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ECHO)
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()


async def tcp(mesh: Mesh) -> None:
    assert await _said(mesh.port("db"), GET, until=b"\r\n\r\nok")


async def connect(mesh: Mesh) -> None:
    ask = b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n"
    assert b" 200 " in await _said(mesh.port("out"), ask, until=b"\r\n\r\n")


async def http2(mesh: Mesh) -> None:
    head = [(":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/")]
    block = Encoder().encode(head)
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port("out"))
    writer.write(wire.PREFACE + wire.settings([]))
    for stream in (1, 3):
        writer.write(wire.frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, stream, block))
    seen = b""
    while seen.count(b"ok") < 2:
        seen += await reader.read(4096)
    writer.close()
    await writer.wait_closed()


async def stranger(mesh: Mesh) -> None:
    """Garbage instead of a handshake, and an end in the middle of one."""
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"):
        reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port("in"))
        writer.write(said)
        if writer.can_write_eof():
            writer.write_eof()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()


@pytest.mark.parametrize("use", [requests, failure, impostor, upgrade, tcp, connect, http2, stranger])
async def test_nothing_that_has_ended_waits_for_the_collector(
    engine: Engine,
    mesh: Mesh,
    uncollected: Callable[[], Counter[str]],
    use: Callable[[Mesh], Awaitable[None]],
) -> None:
    for _ in range(ROUNDS):
        await use(mesh)
        mesh.serve()  # other certificates: the connections to the other host are let go of
    async with asyncio.timeout(10):
        while engine.connections or engine.active or any(not each.is_closing() for each in engine.streams):
            await asyncio.sleep(0.01)
    engine.sweep()
    assert uncollected() == Counter()
