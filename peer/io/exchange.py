"""The node's streams on real sockets: opens what the node asks for, feeds what arrives.

Invariant: for each stream the node hears `StreamOpened` at most once, then frames, then `StreamClosed`
exactly once.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from gossip.events import Address
from peer.io.stream import SYNC, FrameStream, StreamError, connect, greet
from peer.messages import Input, StreamClosed, StreamFrame, StreamOpened

IDLE_S_MAX: Final = 30.0

ContextFor = Callable[[bytes | None], ssl.SSLContext]
NodeOf = Callable[[FrameStream], bytes | None]


class Exchanges:
    """Implements `peer.driver.Streams`.

    `context_for(node)` gives the TLS context of a call to that node (None: any member); `node_of(stream)` the
    id the other end proved in the handshake (None: it showed no certificate).
    """

    def __init__(self, feed: Callable[[Input], None], context_for: ContextFor, node_of: NodeOf) -> None:
        self._feed = feed
        self._context_for = context_for
        self._node_of = node_of
        self._live: dict[int, FrameStream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._next_inbound = 2  # even: the node numbers its own odd

    def open(self, stream: int, address: Address, node: bytes | None) -> None:
        task = self._tasks[stream] = asyncio.create_task(self._call(stream, address, node))
        task.add_done_callback(lambda _: self._tasks.pop(stream, None))

    def send(self, stream: int, data: bytes) -> None:
        live = self._live.get(stream)
        if live is not None:
            live.write(data)

    def close(self, stream: int) -> None:
        """End the stream once what was sent is on its way."""
        live = self._live.pop(stream, None)
        if live is not None:
            live.close()
        elif (task := self._tasks.get(stream)) is not None:
            task.cancel()

    def cut(self, node: bytes) -> None:
        """End all streams with that node."""
        self.cut_if(lambda stream: self._node_of(stream) == node)

    def cut_if(self, unwanted: Callable[[FrameStream], bool]) -> None:
        """End all streams of which that holds."""
        for stream in self._live.values():
            if unwanted(stream):
                stream.abort()

    async def accepted(self, stream: FrameStream, _purpose: bytes) -> None:
        """Serve a stream another member opened (a handler of `peer/io/listen.py`)."""
        node = self._node_of(stream)
        if node is None:
            raise StreamError("a sync needs a member's certificate")
        number = self._next_inbound
        self._next_inbound += 2
        await self._pump(number, stream, node, inbound=True)

    async def _call(self, number: int, address: Address, node: bytes | None) -> None:
        reason = "closed"
        try:
            stream = await connect(address, self._context_for(node))
            try:
                await greet(stream, SYNC)
                peer = self._node_of(stream)
                if peer is None:
                    raise StreamError("the other end has no identity")
                await self._pump(number, stream, peer, inbound=False)
                return
            finally:
                await stream.closed()
        except StreamError as error:
            reason = str(error)
        self._feed(StreamClosed(stream=number, reason=reason))

    async def _pump(self, number: int, stream: FrameStream, node: bytes, *, inbound: bool) -> None:
        self._live[number] = stream
        reason = ""
        try:
            self._feed(StreamOpened(stream=number, node=node, inbound=inbound))
            while frame := await stream.read(IDLE_S_MAX):
                self._feed(StreamFrame(stream=number, data=frame))
        except StreamError as error:
            reason = str(error)
        finally:
            self._live.pop(number, None)
            self._feed(StreamClosed(stream=number, reason=reason))

    async def shut(self) -> None:
        """Cancel all calls."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
