"""What is accepted is kept or closed, never lost."""

import asyncio
import gc
import socket
import ssl
import warnings

import pytest

from peer.io.listen import StreamServer
from peer.io.stream import Hello


@pytest.mark.parametrize("turns", range(6))
async def test_who_calls_in_the_moment_of_closing_is_closed(turns: int) -> None:
    def hello() -> Hello:
        raise AssertionError("nobody says a word")

    server = StreamServer(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), hello, lambda _stream: None)
    await server.start("127.0.0.1", 0)
    await asyncio.sleep(0.01)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as caller:
        for _ in range(turns):
            await asyncio.sleep(0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await server.close()
            gc.collect()
        assert [str(each.message) for each in caught] == []
        try:
            assert caller.recv(1) == b""
        except ConnectionResetError:
            pass  # it was still in the queue
    assert server.connections == 0
