"""Real sockets on both event loops: a listener, clients, and what it means to be refused."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from trust.bundle import TrustBundle
from trust.tls import PeerObject

PATIENCE_S = 10.0

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_on_loop(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(story, 5 * PATIENCE_S))

    return run_on_loop


@pytest.fixture
def live(make_mesh):
    """A mesh whose certificates are valid now: OpenSSL reads the real clock."""
    return make_mesh(seed=random.randrange(2**32), now=int(time.time()))


@pytest.fixture
def bundle(live) -> TrustBundle:
    return TrustBundle(live.trust_domain, [live.root_der])


class Echo(asyncio.Protocol):
    """Answers with what came, behind the caller's SPIFFE ID and the name it asked for."""

    def __init__(self, served: "list[Echo]") -> None:
        self._served = served

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.tls: PeerObject = transport.get_extra_info("ssl_object")
        self._served.append(self)

    def data_received(self, data: bytes) -> None:
        caller = "anonymous" if self.tls.peer is None else self.tls.peer.spiffe
        self.transport.write(f"{caller} {self.tls.sni} ".encode() + data + b"\n")


class Client(asyncio.Protocol):
    """One connection of a caller."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.tls: PeerObject = transport.get_extra_info("ssl_object")
        self.received = asyncio.Queue[bytes]()
        self.lost = asyncio.get_running_loop().create_future()
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while b"\n" in self._pending:
            line, _, self._pending = self._pending.partition(b"\n")
            self.received.put_nowait(line)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)

    async def ask(self, text: str = "hello") -> str:
        """What the server answers. Raises ConnectionError if it hangs up instead."""
        self.transport.write(text.encode())
        answer = asyncio.ensure_future(self.received.get())
        await asyncio.wait({answer, self.lost}, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        if not answer.done():
            answer.cancel()
            raise ConnectionError("the server hung up")
        return answer.result().decode()


class Stage:
    """A listener, and clients that are cleaned up behind the story."""

    def __init__(self, port: int, served: list[Echo]) -> None:
        self.port = port
        self.served = served
        self.clients: list[Client] = []

    async def dial(self, context: ssl.SSLContext, sni: str = "cart.default.mesh") -> Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            Client, "127.0.0.1", self.port, ssl=context, server_hostname=sni
        )
        self.clients.append(client)
        return client

    async def upgrade(self, context: ssl.SSLContext) -> Client:
        """As `dial`, in two steps: a plain connection, then TLS over it."""
        loop, client = asyncio.get_running_loop(), Client()
        plain, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", self.port)
        client.connection_made(
            await loop.start_tls(plain, client, context, server_hostname="cart.default.mesh")
        )
        self.clients.append(client)
        return client


class Wire:
    """Listeners and refusals."""

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext) -> AsyncIterator[Stage]:
        served: list[Echo] = []
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Echo(served), "127.0.0.1", 0, ssl=context)
        stage = Stage(server.sockets[0].getsockname()[1], served)
        try:
            yield stage
        finally:
            for client in stage.clients:
                client.transport.abort()
            for echo in served:
                echo.transport.abort()
            for client in stage.clients:
                await client.lost
            server.close()
            await server.wait_closed()

    async def refused_by_client(
        self, stage: Stage, context: ssl.SSLContext, *words: str, sni: str = "cart.default.mesh"
    ) -> None:
        """The handshake fails at the client, with these words, and the server gets no connection out of it."""
        with pytest.raises(ssl.SSLCertVerificationError) as refusal:
            await stage.dial(context, sni)
        for word in words:
            assert word in str(refusal.value)
        assert stage.served == []

    async def refused_by_server(
        self, stage: Stage, context: ssl.SSLContext, refusals: "asyncio.Queue[str]", *words: str
    ) -> None:
        """The handshake fails at the server, for this reason, and no byte of the client reaches the application."""
        try:
            client = await stage.dial(context)
            with pytest.raises(ConnectionError):
                await client.ask()
        except (ssl.SSLError, ConnectionError):
            pass  # in TLS 1.3 a client may or may not have finished before it is refused
        reason = await asyncio.wait_for(refusals.get(), PATIENCE_S)
        for word in words:
            assert word in reason
        assert stage.served == []


@pytest.fixture
def wire() -> Wire:
    return Wire()
