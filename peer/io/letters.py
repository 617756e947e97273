"""Letters: single frames to other members, over streams that are opened when there is something to say.

A stream carries letters in both directions, so that two members that talk to each other shake hands once, whoever
began. It ends when nothing passed for IDLE_S. Letters may be lost (who sends them asks again): those for a member
that cannot be reached are dropped together with the attempt to reach it, and no other is made for a moment.

Invariant: each letter that is delivered came from the node it is said to be of; what waits for a stream is bounded.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from peer.io.stream import FrameStream, StreamError
from trust.identity import format_id

log = logging.getLogger("gossamer.stream")

IDLE_S: Final = 30.0
PAUSE_S_MIN: Final = 0.1  # after a stream could not be opened, doubled up to the other
PAUSE_S_MAX: Final = 2.0
WAITING_MAX: Final = 256  # letters for one member
WAITING_BYTES_MAX: Final = 2 * 1024 * 1024

Dial: TypeAlias = Callable[
    [bytes], Awaitable[FrameStream]
]  # to a node (id), its purpose named. Raises StreamError
NodeOf: TypeAlias = Callable[[FrameStream], bytes | None]


class Letters:
    """See the module's theory. `received(node, letter)` is called on the loop, for each letter."""

    def __init__(self, dial: Dial, node_of: NodeOf, received: Callable[[bytes, bytes], None]) -> None:
        self._dial, self._node_of, self._received = dial, node_of, received
        self._live: dict[bytes, set[FrameStream]] = {}
        self._waiting: dict[bytes, list[bytes]] = {}
        self._calls: dict[bytes, asyncio.Task[None]] = {}
        self._kept_open: set[asyncio.Task[None]] = set()
        self._failures: dict[bytes, tuple[int, float]] = {}  # how often, when to try again (loop's time)
        self._closed = False
        self.lost = 0

    def send(self, node: bytes, letter: bytes) -> None:
        """Send, or drop."""
        for stream in self._live.get(node, ()):
            stream.write(letter)
            return
        waiting = self._waiting.setdefault(node, [])
        full = sum(map(len, waiting)) + len(letter) > WAITING_BYTES_MAX
        if self._closed or len(waiting) >= WAITING_MAX or full or self._pausing(node):
            self.lost += 1
            if not waiting:
                del self._waiting[node]
            return
        waiting.append(letter)
        if node not in self._calls:
            task = self._calls[node] = asyncio.create_task(self._call(node), name="letters")
            task.add_done_callback(lambda _: self._calls.pop(node, None))

    def keep(self, node: bytes, stream: FrameStream) -> None:
        """Use a stream to `node` that somebody opened; its purpose has been named."""
        task = asyncio.create_task(self._kept(node, stream), name="letters")
        self._kept_open.add(task)
        task.add_done_callback(self._kept_open.discard)

    async def serve(self, stream: FrameStream, _purpose: bytes) -> None:
        """Take letters on a stream another member opened (a handler of `peer/io/listen.py`)."""
        node = self._node_of(stream)
        if node is None:
            raise StreamError("letters are taken from members")
        await self._converse(node, stream)

    def cut(self, unwanted: Callable[[FrameStream], bool]) -> None:
        """End all streams of which that holds."""
        for stream in [each for streams in self._live.values() for each in streams]:
            if unwanted(stream):
                stream.abort()

    async def close(self) -> None:
        """End all calls."""
        self._closed = True
        tasks = [*self._calls.values(), *self._kept_open]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pausing(self, node: bytes) -> bool:
        _, again_at = self._failures.get(node, (0, 0.0))
        return asyncio.get_running_loop().time() < again_at

    async def _call(self, node: bytes) -> None:
        try:
            stream = await self._dial(node)
        except StreamError as error:
            self._failed(node, str(error))
            return
        try:
            self._failures.pop(node, None)
            for letter in self._waiting.pop(node, []):
                stream.write(letter)
            await self._converse(node, stream)
        finally:
            with contextlib.suppress(StreamError):
                await stream.closed()

    async def _kept(self, node: bytes, stream: FrameStream) -> None:
        try:
            await self._converse(node, stream)
        finally:
            stream.abort()

    def _failed(self, node: bytes, reason: str) -> None:
        self.lost += len(self._waiting.pop(node, []))
        count, _ = self._failures.get(node, (0, 0.0))
        pause_s = min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** min(count, 16))
        self._failures[node] = count + 1, asyncio.get_running_loop().time() + pause_s
        log.debug("letters_undelivered", extra={"fields": {"node": format_id(node), "reason": reason}})

    async def _converse(self, node: bytes, stream: FrameStream) -> None:
        self._live.setdefault(node, set()).add(stream)
        try:
            while letter := await stream.read(IDLE_S):
                self._received(node, letter)
        except StreamError as error:
            log.debug("letters_ended", extra={"fields": {"node": format_id(node), "reason": str(error)}})
        finally:
            streams = self._live[node]
            streams.discard(stream)
            if not streams:
                del self._live[node]
