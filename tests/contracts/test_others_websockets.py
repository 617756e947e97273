"""WebSocket through the mesh with the client and the server of PyPI's `websockets` (RFC 6455, RFC 7692)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from proxy.snapshot import Authorization, AuthzPolicy, AuthzRule, Operation

from .application import App
from .certificates import spiffe
from .patience import until
from .twohosts import BOTH, Mesh, Service

pytestmark = [pytest.mark.asyncio(loop_scope="session"), BOTH]

MIB = 1024 * 1024


class Echo:
    def __init__(self) -> None:
        self.closed: list[tuple[int | None, str | None]] = []

    async def serve(self, connection: ServerConnection) -> None:
        try:
            async for message in connection:
                if message == "bye":
                    await connection.close(4001, "so long")
                else:
                    await connection.send(message)
        except ConnectionClosed:
            pass  # without a closing handshake
        self.closed.append((connection.close_code, connection.close_reason))


@pytest_asyncio.fixture(loop_scope="session")
async def echo(mesh: Mesh, where: str) -> AsyncIterator[Echo]:
    made = Echo()
    options: Any = {"max_size": 4 * MIB, "select_subprotocol": lambda _, offered: (offered or [None])[0]}
    async with serve(made.serve, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        deny = AuthzPolicy(
            name="default/no", variants=((AuthzRule(operations=(Operation(paths=("/no",)),)),),)
        )
        service = Service("echo", {where: port}, authorization=Authorization(deny=(deny,)))
        await mesh.serve(service, upstreams=("echo",))
        yield made


@asynccontextmanager
async def client(mesh: Mesh, path: str = "/chat?room=1", **options: Any) -> AsyncIterator[Any]:
    uri = f"ws://127.0.0.1:{mesh.port('a/echo')}{path}"
    async with connect(uri, proxy=None, max_size=4 * MIB, **options) as connection:
        yield connection


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_of_both_kinds_and_all_sizes_come_back(
    mesh: Mesh, echo: Echo, compression: str | None
) -> None:
    async with client(mesh, compression=compression) as connection:
        assert bool(connection.protocol.extensions) is (compression is not None)
        for message in (
            "hällo ☺",
            b"\x00\xff",
            "",
            b"",
            "x" * 125,
            "x" * 126,
            "x" * 65_536,
            bytes(range(256)) * 4096,
        ):
            await connection.send(message)
            assert await asyncio.wait_for(connection.recv(), 10) == message
    await until(lambda: echo.closed == [(1000, "")], "the server hears the end")


async def test_fragments_pings_and_many_messages_under_way(mesh: Mesh, echo: Echo) -> None:
    async with client(mesh) as connection:
        await connection.send(iter(["a", "b", "c"]))
        assert await connection.recv() == "abc"
        latency = await asyncio.wait_for(await connection.ping(b"here"), 10)
        assert latency >= 0
        for number in range(200):
            await connection.send(str(number))
        assert [await connection.recv() for _ in range(200)] == [str(number) for number in range(200)]


async def test_a_subprotocol_and_the_server_s_closing_words_pass(mesh: Mesh, echo: Echo) -> None:
    async with client(mesh, subprotocols=["chat.v1", "chat.v3"]) as connection:
        assert connection.subprotocol == "chat.v1"
        await connection.send("bye")
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
    received = caught.value.rcvd
    assert received is not None
    assert (received.code, received.reason) == (4001, "so long")


async def test_a_client_that_dies_is_told_of(mesh: Mesh, echo: Echo) -> None:
    async with client(mesh) as connection:
        await connection.send("a")
        await connection.recv()
        sock = connection.transport.get_extra_info("socket")
        sock.shutdown(socket.SHUT_RDWR)
        await until(lambda: echo.closed, "the server hears of it")
    assert echo.closed[0][0] == 1006


async def test_who_is_not_allowed_gets_no_connection(mesh: Mesh, echo: Echo) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with client(mesh, "/no"):
            pass
    assert caught.value.response.status_code == 403
    assert echo.closed == []


async def test_twenty_at_a_time(mesh: Mesh, echo: Echo) -> None:
    async def one(number: int) -> None:
        async with client(mesh) as connection:
            for _ in range(5):
                await connection.send(f"{number}" * 1000)
                assert await connection.recv() == f"{number}" * 1000

    await asyncio.gather(*(one(number) for number in range(20)))
    await until(lambda: len(echo.closed) == 20, "all are over")


async def test_an_application_without_websockets_answers_as_it_likes(
    mesh: Mesh, app: App, where: str
) -> None:
    await mesh.serve(Service("echo", {where: app.port}), upstreams=("echo",))
    with pytest.raises(InvalidStatus) as caught:
        async with client(mesh):
            pass
    assert (caught.value.response.status_code, caught.value.response.body) == (200, b"app")


async def test_a_connection_outlives_snapshots_and_ends_with_a_revocation(
    mesh: Mesh, echo: Echo, app: App, where: str
) -> None:
    served = mesh.snapshots[where].inbound[0]
    service = Service("echo", {where: served.app_port})
    async with client(mesh) as connection:
        for number in range(3):
            await mesh.serve(service, upstreams=("echo",))
            await connection.send(str(number))
            assert await asyncio.wait_for(connection.recv(), 10) == str(number)
        if where == "b":
            await mesh.serve(service, upstreams=("echo",), revoked=(spiffe("web"),))
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(connection.recv(), 10)
    await until(lambda: len(echo.closed) == 1, "the server hears the end")
