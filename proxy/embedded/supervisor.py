"""One worker process, kept running.

The supervisor starts a process (`process.py`), talks to it (`link.py`), and when it ends without being told to, starts
another with the last snapshot that was served and the same sockets. The control process holds every listening socket
all the while, so connections wait in the kernel instead of being refused. Restarts back off from 50 ms, doubling to
5 s, and start over after half a minute of good running.
While an order waits for the new process it is given that at once, not first what the last one may have died of; if it
refuses that, it gets what was served before.

Invariant: at most one process lives at a time; a request to it ends when its process does.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from proxy.embedded.board import Board
from proxy.embedded.ipc import Report
from proxy.embedded.link import Refusal, WorkerGoneError
from proxy.embedded.process import WORKER, Order, WorkerProcess, ending

BACKOFF_S_MIN: Final = 0.05
BACKOFF_S_MAX: Final = 5.0
STABLE_AFTER_S: Final = 30.0
START_TIMEOUT_S: Final = 20.0
SILENCE_S_MAX: Final = 15.0  # it reports every second; applying the largest snapshot takes a few

log = logging.getLogger("gossamer.proxy")


class Supervisor:
    """Keeps one worker alive and answers for it. `board`: what it shares with other workers, if there are any."""

    def __init__(
        self,
        *,
        number: int,
        on_report: Callable[[int, Report], None],
        on_end: Callable[[int], None] = lambda _version: None,
        stdout: int | None = None,
        program: Sequence[str] = WORKER,
        board: Board | None = None,
    ) -> None:
        self.number = number
        self._program = tuple(program)
        self._board = board
        self.restarts = 0
        self._on_end = on_end
        self._on_report = on_report
        self._stdout = stdout
        self._process: WorkerProcess | None = None
        self._good: Order | None = None
        self._waiting = 0  # orders that wait for the process to be ready
        self._serving = False  # whether this process was given anything to serve
        self._ended_by_order = False  # the process ended while it was given something new
        self._running: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()  # it serves what was served before; orders may follow

    def __repr__(self) -> str:
        return f"<Supervisor {self.number} pid={self.pid} restarts={self.restarts}>"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the first process and wait until its loop runs. Raises OSError or TimeoutError."""
        await self._spawn()
        self._ready.set()
        self._running = asyncio.get_running_loop().create_task(self._keep_running())

    async def apply(self, order: Order, timeout_s: float) -> Refusal | None:
        """None when the worker serves `order`, else its reason against it. Raises WorkerGoneError, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            self._waiting += 1
            try:
                await self._ready.wait()
                while self._process is None or not self._process.link.open:
                    self._ready.clear()  # it has just ended: that is not this order's doing
                    await self._ready.wait()
            finally:
                self._waiting -= 1
            try:
                refusal = await self._send_order(order)
            except WorkerGoneError:
                self._ended_by_order = True
                raise
            if refusal is not None and not self._serving and self._good is not None:
                await self._send_order(self._good)
        if refusal is None:
            self._good = order
        return refusal

    @property
    def ready(self) -> bool:
        """Whether it takes an order now."""
        return self._ready.is_set() and self._process is not None and self._process.link.open

    def serve_later(self, order: Order) -> None:
        """It does not run: what it is to serve once it does."""
        self._good = order

    async def drain(self, timeout_s: float) -> None:
        """Ask for a drain and wait for its end, a little longer than it may take."""
        try:
            if self._process is not None:
                await self._process.link.drain(timeout_s)
        except (TimeoutError, WorkerGoneError):
            log.warning("data plane worker %s did not finish draining", self.number)

    async def stop(self) -> None:
        """End the process at once, for good."""
        await self._keep_no_more()
        await self._end_process()

    async def release(self) -> WorkerProcess | None:
        """Keep it running no more, and leave its process to the caller; None when it just has none."""
        await self._keep_no_more()
        process, self._process = self._process, None
        return process

    async def _keep_no_more(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    # ------------------------------------------------------------------ the process

    async def _send_order(self, order: Order) -> Refusal | None:
        if self._process is None:
            raise WorkerGoneError("the data plane worker has ended")
        refusal = await self._process.send(order)
        if refusal is None:
            self._serving = True
        return refusal

    async def _spawn(self) -> None:
        self._serving = False
        self._process = process = await WorkerProcess.spawn(
            self._program,
            stdout=self._stdout,
            report=lambda report: self._on_report(self.number, report),
            lost=self._ready.clear,  # the process has ended, or is about to: its end is waited for elsewhere
            place=None if self._board is None else (self._board, self.number),
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            await process.wait_started()

    async def _keep_running(self) -> None:
        backoff_s = BACKOFF_S_MIN
        while True:
            try:
                backoff_s = await self._one_life(backoff_s)
            except Exception:
                # A mistake of ours, and without a worker this host has no traffic.
                log.exception("keeping data plane worker %s failed, starting it anew", self.number)
                await self._end_process()
                await asyncio.sleep(BACKOFF_S_MAX)

    async def _one_life(self, backoff_s: float) -> float:
        """Wait for the process's end and start another. Returns how long to wait before the one after that."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        status = await self._exit_status()
        await self._end_process()
        by_order, self._ended_by_order = self._ended_by_order, False
        if loop.time() - started_s > STABLE_AFTER_S:
            backoff_s = BACKOFF_S_MIN
        if status is not None:
            words = ending(status)
            log.error("data plane worker %s ended (%s), restarting in %.2f s", self.number, words, backoff_s)
        if self._good is not None and self._serving and not by_order:
            self._tell_end(self._good.version)
        await asyncio.sleep(backoff_s)
        self.restarts += 1
        await self._restart()
        return min(BACKOFF_S_MAX, backoff_s * 2)

    def _tell_end(self, version: int) -> None:
        try:
            self._on_end(version)
        except Exception:
            # Whoever wants to know must not keep the worker from being started again.
            log.exception("the end of data plane worker %s could not be told", self.number)

    async def _exit_status(self) -> int | None:
        """Wait for the process's end, and bring it about when the process has stopped telling that it lives. None when
        there is none: the last start failed."""
        process = self._process
        if process is None:
            return None
        loop = asyncio.get_running_loop()
        process.link.heard_s = loop.time()
        while True:
            try:
                # Not wait_for: in Python 3.11 that swallows a cancellation in the moment the process ends.
                async with asyncio.timeout(SILENCE_S_MAX / 3):
                    return await process.wait()
            except TimeoutError:
                if loop.time() - process.link.heard_s <= SILENCE_S_MAX:
                    continue
            await asyncio.sleep(1.0)  # perhaps it was this loop that stood still: let it read what waits
            if loop.time() - process.link.heard_s > SILENCE_S_MAX:
                log.error(
                    "data plane worker %s has said nothing for %.0f s, ending it", self.number, SILENCE_S_MAX
                )
                process.kill()

    async def _restart(self) -> None:
        try:
            await self._spawn()
            refusal = None
            sent: Order | None = None
            while self._good is not None and self._good is not sent and not self._waiting:
                sent = self._good  # another may come while it is sent
                async with asyncio.timeout(START_TIMEOUT_S):
                    self._serving = True
                    refusal = await self._send_order(sent)
        except (OSError, TimeoutError) as error:
            log.error("data plane worker %s did not start: %r", self.number, error)
            await self._end_process()
            return
        self._ready.set()
        if refusal is not None:
            log.error(
                "data plane worker %s refuses what the last one served: %s", self.number, refusal.reason
            )
        else:
            log.warning("data plane worker %s runs again, pid %s", self.number, self.pid)

    async def _end_process(self) -> None:
        self._ready.clear()
        process, self._process = self._process, None
        if process is not None:
            await process.end()
        if self._board is not None:
            self._board.wipe(self.number)
