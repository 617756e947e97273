"""Two connections become one pipe: CONNECT, `Upgrade`, and services that speak plain TCP.

Each side pauses the other when its own socket is full, and passes on the end of a direction (FIN, or close_notify
under TLS) while the other direction goes on. A pipe in which nothing moves for an hour is closed.

Invariant: `ended` is called exactly once, when both connections are closed.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.embedded.wheel import Timed

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine

IDLE_TIMEOUT_S: Final = 3600.0

Ended = Callable[[int, int], None]  # bytes from the first side to the second, and back


class _Side(asyncio.Protocol):
    __slots__ = ("_engine", "_finished", "_pipe", "lost", "other", "received", "transport")

    def __init__(self, engine: "Engine", pipe: "_Pipe", transport: asyncio.Transport) -> None:
        self._engine = engine
        self._pipe = pipe
        self.transport = transport
        self.other: _Side
        self.received = 0
        self.lost = False
        self._finished = False

    def take_up(self) -> None:
        """Hold the other side back if this one still has to send what was written before.

        Whether the transport has told its former protocol to pause cannot be asked for, and it tells only once. With
        a limit of zero there is no doubt: it has if anything waits, and will say when nothing does any more.
        """
        transport = self.transport
        if transport.is_closing():
            return
        transport.set_write_buffer_limits(high=0)
        if transport.get_write_buffer_size():
            self.pause_writing()
        transport.set_write_buffer_limits()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._engine.wheel.arm(self._pipe, IDLE_TIMEOUT_S)
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._finished = True
        if self.other.lost or self.other._finished:
            self._pipe.close()
            return False
        self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if exc is None:
            self.other.transport.close()
        else:
            self.other.transport.abort()
        self._pipe.on_lost()


class _Pipe(Timed):
    __slots__ = ("_ended", "_engine", "_sides")

    def __init__(
        self,
        engine: "Engine",
        first: asyncio.Transport,
        second: asyncio.Transport,
        ended: Ended,
        first_ended: bool,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._ended: Ended | None = ended
        one, two = _Side(engine, self, first), _Side(engine, self, second)
        one.other, two.other = two, one
        self._sides: tuple[_Side, ...] = (one, two)
        engine.pipes.add(self)
        engine.wheel.arm(self, IDLE_TIMEOUT_S)
        for side in self._sides:
            side.transport.set_protocol(side)
            if not side.transport.is_closing():
                side.transport.resume_reading()
        for side in self._sides:
            side.take_up()
        if first_ended and not second.is_closing():
            one.eof_received()

    def on_deadline(self) -> None:
        self.close()

    def close(self) -> None:
        for side in self._sides:
            side.transport.close()

    def abort(self) -> None:
        for side in self._sides:
            side.transport.abort()

    def on_lost(self) -> None:
        one, two = self._sides
        if not (one.lost and two.lost):
            return
        del one.other, two.other  # what they hold is large, and should not wait for the collector
        self._sides = ()
        self._engine.wheel.forget(self)
        self._engine.pipes.discard(self)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(one.received, two.received)


Pipe = _Pipe


def splice(
    engine: "Engine",
    first: asyncio.Transport,
    second: asyncio.Transport,
    ended: Ended,
    *,
    first_ended: bool = False,
) -> None:
    """Join two open transports. Their protocols hear nothing any more. `first_ended`: nothing more comes from it."""
    if first.is_closing() or second.is_closing():
        first.abort()
        second.abort()
    _Pipe(engine, first, second, ended, first_ended)
