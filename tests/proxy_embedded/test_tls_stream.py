"""TLS as a transport: handshake, data, backpressure, and each way of ending."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy.embedded.tls_stream import RECORD_BYTES_MAX, SLICE_BYTES_MAX, TlsStream, TruncatedError
from trust.bundle import TrustBundle
from trust.tls import Caller, server_context

from .conftest import TRUST_DOMAIN, Issuer


class Above(asyncio.Protocol):
    """Records what it is told."""

    def __init__(self) -> None:
        self.transport: TlsStream
        self.data = bytearray()
        self.pieces = 0
        self.largest = 0
        self.eof = asyncio.Event()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.keep_open = False
        self.full = False
        self.after_each: Callable[[], None] = lambda: None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1
        self.largest = max(self.largest, len(data))
        self.after_each()

    def eof_received(self) -> bool:
        self.eof.set()
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False


class Pair:
    """Two streams over a real connection."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.server: asyncio.Future[Above] = loop.create_future()
        self.client: asyncio.Future[Above] = loop.create_future()
        self.raw: asyncio.Transport
        self.client_stream: TlsStream


@pytest.fixture
async def join(issuer: Issuer) -> AsyncIterator[Callable[..., Any]]:
    bundle = TrustBundle.from_pem(TRUST_DOMAIN, issuer.bundle_pem)
    certificate = issuer.certificate("echo")
    serving = server_context(bundle=bundle, identities={"echo": certificate})
    caller = Caller(certificate=issuer.certificate("web"), bundle=bundle)
    servers: list[asyncio.Server] = []
    pairs: list[Pair] = []

    def stream(
        context: ssl.SSLContext, found: asyncio.Future[Above], server_side: bool, name: str | None
    ) -> TlsStream:
        above = Above()

        def establish(stream: TlsStream) -> asyncio.Protocol:
            found.set_result(above)
            return above

        def failed(stream: TlsStream, error: Exception) -> None:
            found.set_exception(error)

        return TlsStream(
            context, server_side=server_side, server_name=name, establish=establish, failed=failed
        )

    async def join_pair(expected: str = certificate.identity, name: str = "echo") -> Pair:
        loop = asyncio.get_running_loop()
        pair = Pair()
        pairs.append(pair)
        server = await loop.create_server(lambda: stream(serving, pair.server, True, None), "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        pair.raw, pair.client_stream = await loop.create_connection(
            lambda: stream(caller.expecting(expected), pair.client, False, name), "127.0.0.1", port
        )
        return pair

    yield join_pair
    for pair in pairs:
        for side in (pair.server, pair.client):
            if side.done() and side.exception() is None:
                side.result().transport.abort()
        pair.raw.abort()
    for server in servers:
        server.close()
        await server.wait_closed()
    await asyncio.sleep(0.01)  # the aborted transports close their sockets


async def both(pair: Pair) -> tuple[Above, Above]:
    return await asyncio.wait_for(pair.server, 5), await asyncio.wait_for(pair.client, 5)


async def arrived(above: Above, size: int) -> bytes:
    async with asyncio.timeout(10):
        while len(above.data) < size:
            await asyncio.sleep(0.005)
    return bytes(above.data)


async def test_data_goes_both_ways_after_the_handshake(join: Callable[..., Any]) -> None:
    server, client = await both(await join())
    client.transport.write(b"question")
    assert await arrived(server, 8) == b"question"
    server.transport.write(b"answer")
    assert await arrived(client, 6) == b"answer"
    assert client.transport.get_extra_info("ssl_object").peer.spiffe.endswith("/sa/echo")
    assert server.transport.get_extra_info("peername")[0] == "127.0.0.1"


class Cut(asyncio.Transport):
    """In place of a socket: keeps what would be written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False


def encrypted(pair: Pair, client: Above, data: bytes) -> list[bytes]:
    """What the client would write to its socket."""
    cut = Cut()
    client.transport._raw = cut
    client.transport.write(data)
    client.transport._raw = pair.raw
    return cut.written


async def test_large_data_arrives_whole(join: Callable[..., Any]) -> None:
    server, client = await both(await join())
    data = bytes(range(256)) * 8192
    client.transport.write(data)
    assert await arrived(server, len(data)) == data


async def test_records_that_come_together_are_handed_on_together_a_slice_at_most(
    join: Callable[..., Any],
) -> None:
    pair = await join()
    server, client = await both(pair)
    data = bytes(range(256)) * 4096
    written = encrypted(pair, client, data)
    assert max(map(len, written)) <= SLICE_BYTES_MAX * 1.01
    server.transport.data_received(b"".join(written))
    assert bytes(server.data) == data
    assert RECORD_BYTES_MAX < server.largest <= SLICE_BYTES_MAX + RECORD_BYTES_MAX
    assert server.pieces <= len(data) // SLICE_BYTES_MAX + 1


async def test_after_a_pause_in_the_middle_the_rest_waits_and_is_whole(join: Callable[..., Any]) -> None:
    pair = await join()
    server, client = await both(pair)
    data = bytes(range(256)) * 4096
    server.after_each = server.transport.pause_reading
    server.transport.data_received(b"".join(encrypted(pair, client, data)))
    assert server.pieces == 1
    server.after_each = lambda: None
    server.transport.resume_reading()
    assert await arrived(server, len(data)) == data


async def test_an_end_behind_data_in_one_segment_is_told_after_the_data(join: Callable[..., Any]) -> None:
    pair = await join()
    server, client = await both(pair)
    cut = Cut()
    client.transport._raw = cut
    client.transport.write(bytes(RECORD_BYTES_MAX) * 2)
    client.transport.write_eof()
    client.transport._raw = pair.raw
    seen: list[int] = []
    server.keep_open = True
    server.after_each = lambda: seen.append(int(server.eof.is_set()))
    server.transport.data_received(b"".join(cut.written))
    assert (seen, len(server.data), server.eof.is_set()) == ([0], RECORD_BYTES_MAX * 2, True)


async def test_data_before_a_broken_record_in_one_segment_is_handed_on(join: Callable[..., Any]) -> None:
    pair = await join()
    server, client = await both(pair)
    (good,) = encrypted(pair, client, b"good")
    server.transport.data_received(good + b"\x17\x03\x03\x00\x10" + b"garbage " * 2)
    assert bytes(server.data) == b"good"
    assert isinstance(await asyncio.wait_for(server.lost, 5), ssl.SSLError)


@pytest.mark.parametrize("first", [1, 5, 6, 100, 10_000, 16_000])
async def test_a_record_that_arrives_in_two_parts_is_not_held_back(
    join: Callable[..., Any], first: int
) -> None:
    pair = await join()
    server, client = await both(pair)
    written = encrypted(pair, client, bytes(RECORD_BYTES_MAX))
    server.transport.data_received(written[0][:first])
    server.transport.data_received(written[0][first:])
    assert bytes(server.data) == bytes(RECORD_BYTES_MAX)


async def test_a_paused_reader_gets_nothing_and_the_writer_is_told(join: Callable[..., Any]) -> None:
    server, client = await both(await join())
    server.transport.pause_reading()
    assert not server.transport.is_reading()
    block = bytes(256 * 1024)
    written = 0
    async with asyncio.timeout(10):
        while not client.full:
            client.transport.write(block)
            written += len(block)
            await asyncio.sleep(0)
    assert len(server.data) == 0
    server.transport.resume_reading()
    await arrived(server, written)
    assert not client.full


async def test_a_reader_may_pause_in_the_middle_of_what_has_come(join: Callable[..., Any]) -> None:
    server, client = await both(await join())
    server.after_each = server.transport.pause_reading
    size = 10 * RECORD_BYTES_MAX
    client.transport.write(bytes(size))
    pieces = 0
    async with asyncio.timeout(10):
        while len(server.data) < size:
            await asyncio.sleep(0.002)
            assert server.pieces <= pieces + 1
            pieces = server.pieces
            server.transport.resume_reading()


async def test_closing_tells_the_other_side_in_order(join: Callable[..., Any]) -> None:
    server, client = await both(await join())
    client.transport.write(b"last words")
    client.transport.close()
    assert await asyncio.wait_for(server.lost, 5) is None
    assert bytes(server.data) == b"last words"
    assert await asyncio.wait_for(client.lost, 5) is None
    assert client.transport.is_closing()


async def test_half_a_connection_can_be_closed(join: Callable[..., Any]) -> None:
    server, client = await both(await join())
    server.keep_open = True
    assert client.transport.can_write_eof()
    client.transport.write_eof()
    await asyncio.wait_for(server.eof.wait(), 5)
    server.transport.write(b"still here")
    assert await arrived(client, 10) == b"still here"


async def test_the_other_half_ends_in_order_too(join: Callable[..., Any]) -> None:
    server, client = await both(await join())
    server.keep_open = True
    client.transport.write_eof()
    await asyncio.wait_for(server.eof.wait(), 5)
    server.transport.write(b"last words")
    server.transport.close()
    await asyncio.wait_for(client.eof.wait(), 5)
    assert bytes(client.data) == b"last words"
    assert await asyncio.wait_for(client.lost, 5) is None
    assert await asyncio.wait_for(server.lost, 5) is None


async def test_a_connection_cut_off_is_an_error_never_an_end(join: Callable[..., Any]) -> None:
    pair = await join()
    server, client = await both(pair)
    client.transport.write(b"half")
    await arrived(server, 4)
    pair.raw.close()  # FIN without close_notify
    assert isinstance(await asyncio.wait_for(server.lost, 5), TruncatedError)
    assert not server.eof.is_set()


async def test_garbage_ends_the_connection_with_an_error(join: Callable[..., Any]) -> None:
    pair = await join()
    server, _ = await both(pair)
    pair.raw.write(b"\x17\x03\x03\x00\x10" + b"garbage " * 2)
    assert isinstance(await asyncio.wait_for(server.lost, 5), ssl.SSLError)
    assert bytes(server.data) == b""


async def test_the_wrong_identity_fails_the_handshake_and_nothing_is_established(
    join: Callable[..., Any],
) -> None:
    pair = await join(expected="spiffe://unit.mesh/ns/default/sa/other")
    with pytest.raises(
        ssl.SSLCertVerificationError, match=r"expected spiffe://unit[.]mesh/ns/default/sa/other"
    ):
        await asyncio.wait_for(pair.client, 5)
    # In TLS 1.3 the server is done when the client has only begun to judge it.
    server = await asyncio.wait_for(asyncio.wait((pair.server,)), 5)
    assert server


async def test_a_handshake_cut_off_is_told_once(join: Callable[..., Any]) -> None:
    pair = await join(name="nobody")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.wait_for(pair.client, 5)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.wait_for(pair.server, 5)
