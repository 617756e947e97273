"""Two connections as one pipe: each holds the other back, also for what was written before they were joined."""

import asyncio
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from proxy.embedded.engine import Engine
from proxy.embedded.tunnel import splice

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop,
}  # fmt: skip
BLOCK = bytes(64 * 1024)
BUFFERED_BYTES_MAX = 1024 * 1024
FLOOD_BYTES = 16 * 1024 * 1024


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a test on each kind of loop: their transports keep their own account of who was told to pause."""

    def run(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(test)

    return run


class Ends:
    """A pipe between the far ends of two socket pairs, with `early` bytes written to the second before it is made,
    and `drained` of them read by then."""

    def __init__(self, early: int, drained: int = 0) -> None:
        self._early = early
        self._drained = drained
        self.ended: list[tuple[int, int]] = []

    async def __aenter__(self) -> "Ends":
        self.loop = asyncio.get_running_loop()
        self.caller, near = socket.socketpair()
        self.server, far = socket.socketpair()
        for sock in (self.caller, near, self.server, far):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.near, _ = await self.loop.create_connection(asyncio.Protocol, sock=near)
        self.far, _ = await self.loop.create_connection(asyncio.Protocol, sock=far)
        self.near.pause_reading()
        if self._early:
            self.far.write(bytes(self._early))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        left = self._drained
        while left:
            left -= len(await self.loop.sock_recv(self.server, left))
        await asyncio.sleep(0)
        engine = Engine(self.loop, random.Random(1), None)
        splice(engine, self.near, self.far, lambda up, down: self.ended.append((up, down)))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.near.abort()
        self.far.abort()
        while not self.ended:
            await asyncio.sleep(0.001)
        self.caller.close()
        self.server.close()

    async def flood(self) -> int:
        """How much the caller gets rid of while nobody reads."""
        sent = 0
        while sent < FLOOD_BYTES:
            try:
                await asyncio.wait_for(self.loop.sock_sendall(self.caller, BLOCK), 0.3)
            except TimeoutError:
                break
            sent += len(BLOCK)
        return sent


@pytest.mark.parametrize(
    ("early", "drained"),
    [(0, 0), (1, 0), (200_000, 0), (200_000, 150_000)],
    ids=["nothing before", "a byte before", "much before", "paused, and below the limit again"],
)
def test_a_far_end_that_does_not_read_holds_the_caller_back(run: Any, early: int, drained: int) -> None:
    async def test() -> None:
        async with Ends(early, drained) as ends:
            assert await ends.flood() < FLOOD_BYTES
            assert ends.far.get_write_buffer_size() < BUFFERED_BYTES_MAX

    run(test())


@pytest.mark.parametrize("early", [0, 1, 30_000, 200_000])
def test_everything_arrives_once_the_far_end_reads(run: Any, early: int) -> None:
    async def test() -> None:
        async with Ends(early) as ends:
            sending = asyncio.ensure_future(ends.loop.sock_sendall(ends.caller, BLOCK * 16))
            left = early + len(BLOCK) * 16
            while left:
                left -= len(await asyncio.wait_for(ends.loop.sock_recv(ends.server, 65536), 5))
            await sending
            await ends.loop.sock_sendall(ends.server, b"back")
            assert await asyncio.wait_for(ends.loop.sock_recv(ends.caller, 16), 5) == b"back"

    run(test())
