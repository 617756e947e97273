"""Taking connections from a listening socket that several workers share, evenly.

The kernel wakes them all, and whoever is first would take everything there is: measured with two workers, one got 63
of 64 connections. So a worker that holds more than the least loaded one leaves a new connection to the others, and
looks again after YIELD_S; what still waits then nobody else wanted, and it takes that. An own socket for each worker
(SO_REUSEPORT) would spread by chance only, and strand what waits in the queue of one that has ended.

Invariant: a connection waits for nobody longer than YIELD_S while some worker's loop runs; one worker closing its
listeners loses none, for the socket's queue is everybody's.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Final

log = logging.getLogger("gossamer.proxy.worker")

YIELD_S: Final = 0.005
SLACK: Final = 1  # connections above the least loaded one at which a worker still takes more
LEFT_OVER_MAX: Final = 4  # taken at once of what nobody else wanted
PAUSE_S: Final = 0.1  # after an error that is ours, such as no descriptors left

Accept = Callable[[], asyncio.Protocol]


class Seat:
    """One worker's place among those that take from the same sockets: its load, and that of the others."""

    __slots__ = ("_column", "_connecting", "_others", "count")

    def __init__(self, own: memoryview, others: tuple[memoryview, ...], count: Callable[[], int]) -> None:
        """`count`: the connections that are open, but those just being taken."""
        self._column = own
        self._others = others
        self._connecting = 0
        self.count = count

    @property
    def is_full(self) -> bool:
        """Another worker that takes connections holds fewer."""
        own = self.tell()
        return any(0 < other[0] < own - SLACK for other in self._others)

    def tell(self) -> int:
        """Write down the load, for the others: one more than the connections, for 0 is who takes none."""
        load = self._column[0] = self.count() + self._connecting + 1
        return load

    def leave(self) -> None:
        """This worker takes no more connections."""
        self._column[0] = 0

    def connecting(self, change: int) -> None:
        self._connecting += change


class Acceptor:
    """One listener of one worker. Make it in the loop; it takes nothing before `start`, and owns `listening`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seat: Seat, accept: Accept, listening: socket.socket
    ) -> None:
        self._loop = loop
        self._seat = seat
        self._accept = accept
        self._listening = listening
        self._waking: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._loop.add_reader(self._listening.fileno(), self._on_readable)

    def close(self) -> None:
        """Take no more. What was taken goes on."""
        if self._waking is not None:
            self._waking.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()

    def _on_readable(self) -> None:
        if self._seat.is_full:
            self._look_again(YIELD_S)
        else:
            self._take()

    def _look_again(self, after_s: float) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._waking = self._loop.call_later(after_s, self._on_yielded)

    def _on_yielded(self) -> None:
        self._waking = None
        for _ in range(LEFT_OVER_MAX):
            if not self._take():
                break
        if self._waking is None:  # no error has made it wait longer
            self.start()

    def _take(self) -> bool:
        """False: nothing was there."""
        try:
            taken, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return False  # another worker was faster, or the caller has gone already
        except OSError as error:
            log.error("a connection cannot be taken: %s", error.strerror)
            self._look_again(PAUSE_S)
            return False
        taken.setblocking(False)
        self._seat.connecting(1)
        task = self._loop.create_task(self._serve(taken))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _serve(self, taken: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # the caller has gone already
                await self._loop.connect_accepted_socket(self._accept, taken)
        finally:
            self._seat.connecting(-1)
