"""The control process's end of the channel to one worker: orders go down, answers and reports come up.

The channel outlives the control process that opened it: one that takes over in its place (`Inherited`) goes on
talking to the workers of the one before. What those say besides the answer to a drain may be of another release, and
what cannot be read of it is skipped.

Invariant: an order ends when it is answered or the channel is gone, whichever comes first.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from proxy.embedded.ipc import (
    Apply,
    Drain,
    FrameReader,
    Message,
    Outcome,
    ProtocolError,
    Report,
    Started,
    encode_message,
)

DRAIN_ANSWER_S: Final = 1.0  # how much longer than a drain its answer may take

log = logging.getLogger("gossamer.proxy")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a worker does not serve an order, and the keys of the policies at fault where it can tell."""

    reason: str
    policies: tuple[str, ...] = ()


class WorkerGoneError(ConnectionError):
    """The worker ended before it answered. The supervisor is already starting another."""


class Link(asyncio.Protocol):
    """One channel. `lost` is called when it ends, unless `give_up` was; `unread` is what an earlier reader of the same
    stream had left of a frame, and makes this one skip what it cannot read."""

    def __init__(
        self, report: Callable[[Report], None], lost: Callable[[], None], *, unread: bytes | None = None
    ) -> None:
        self._frames = FrameReader(self._deliver, skip=unread is not None)
        self._report = report
        self._lost = lost
        self._unread = unread
        self._given_up = False
        self._transport: asyncio.Transport | None = None
        self._answers: dict[int, asyncio.Future[Refusal | None]] = {}
        self._requests = 0
        self._loop = asyncio.get_running_loop()
        self.heard_s = self._loop.time()
        self.started = asyncio.Event()

    @classmethod
    async def over(
        cls, stream: socket.socket, report: Callable[[Report], None], lost: Callable[[], None],
        *, unread: bytes | None = None,
    ) -> "Link":  # fmt: skip
        """Takes the socket."""
        stream.setblocking(False)
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: cls(report, lost, unread=unread), sock=stream)
        return link

    # ------------------------------------------------------------------ orders

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def apply(
        self, snapshot: bytes, tokens: tuple[tuple[str, int], ...], groups: tuple[int, ...]
    ) -> Refusal | None:
        """Raises WorkerGoneError."""
        return await self._request(Apply(self._next(), snapshot, tokens, groups))

    async def drain(self, timeout_s: float) -> None:
        """Return when the worker has drained. Raises WorkerGoneError, TimeoutError."""
        async with asyncio.timeout(timeout_s + DRAIN_ANSWER_S):
            await self._request(Drain(self._next(), timeout_s))

    def _next(self) -> int:
        self._requests += 1
        return self._requests

    async def _request(self, message: Apply | Drain) -> Refusal | None:
        if self._transport is None or self._transport.is_closing():
            raise WorkerGoneError("the data plane worker has ended")
        answer: asyncio.Future[Refusal | None] = self._loop.create_future()
        self._answers[message.request] = answer
        try:
            self._transport.write(encode_message(message))
            return await answer
        finally:
            self._answers.pop(message.request, None)

    # ------------------------------------------------------------------ the end

    def give_up(self) -> None:
        """Close the channel, without calling `lost`. The worker ends by that."""
        self._given_up = True
        if self._transport is not None:
            self._transport.abort()
        self._fail_answers()

    def bequeath(self) -> tuple[socket.socket, bytes] | None:
        """A copy of the stream's socket for the process to come, and what was read of an unfinished frame. None when
        the channel is gone, or something is still on its way down. Nothing is read from here any more."""
        if self._transport is None or self._transport.is_closing() or self._transport.get_write_buffer_size():
            return None
        self._given_up = True
        self._transport.pause_reading()
        own: socket.socket = self._transport.get_extra_info("socket")
        return socket.fromfd(own.fileno(), socket.AF_UNIX, socket.SOCK_STREAM), self._frames.unread

    def _fail_answers(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerGoneError("the data plane worker ended"))

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport, so this cannot be asserted.
        self._transport = cast(asyncio.Transport, transport)
        if self._unread:
            self.data_received(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail_answers()
        if not self._given_up:
            self._lost()

    def data_received(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
        except ProtocolError as error:
            log.error("data plane worker speaks another protocol, ending it: %s", error)
            if self._transport is not None:
                self._transport.abort()

    def _deliver(self, message: Message) -> None:
        self.heard_s = self._loop.time()
        match message:
            case Started():
                self.started.set()
            case Outcome():
                answer = self._answers.get(message.request)
                if answer is not None and not answer.done():
                    answer.set_result(Refusal(message.reason, message.policies) if message.reason else None)
            case Report():
                self._report(message)
            case Apply() | Drain():
                raise ProtocolError("the worker sent an order")
