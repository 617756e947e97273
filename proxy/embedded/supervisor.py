"""One worker process, kept running.

The supervisor starts `python -m proxy.embedded.worker` with the far ends of two socketpairs, talks to it (`ipc.py`),
and when it ends without being told to, starts another with the last snapshot that was served and the same sockets.
The control process holds every listening socket all the while, so connections wait in the kernel instead of
being refused. Restarts back off from 50 ms, doubling to 5 s, and start over after half a minute of good running.
While an order waits for the new process it is given that at once, not first what the last one may have died of; if it
refuses that, it gets what was served before.

Invariant: at most one process lives at a time; a request to it ends when its process does.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
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
    send_sockets,
)

WORKER: Final = ("-P", "-m", "proxy.embedded.worker")  # -P: never from the working directory
BACKOFF_S_MIN: Final = 0.05
BACKOFF_S_MAX: Final = 5.0
STABLE_AFTER_S: Final = 30.0
START_TIMEOUT_S: Final = 20.0
SILENCE_S_MAX: Final = 15.0  # it reports every second; applying the largest snapshot takes a few
SOCKET_SEND_TIMEOUT_S: Final = 5.0

log = logging.getLogger("gossamer.proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A snapshot ready to be sent: its bytes, and each listener's socket with the token that names it."""

    version: int
    snapshot: bytes
    sockets: Mapping[str, tuple[int, socket.socket]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a worker does not serve an order, and the keys of the policies at fault where it can tell."""

    reason: str
    policies: tuple[str, ...] = ()


class WorkerGoneError(ConnectionError):
    """The worker ended before it answered. The supervisor is already starting another."""


class _Channel(asyncio.Protocol):
    """The control end of the stream of frames."""

    def __init__(self, deliver: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._frames = FrameReader(deliver)
        self._lost = lost
        self.given_up = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport, so this cannot be asserted.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.given_up:
            self._lost()

    def data_received(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
        except ProtocolError as error:
            log.error("data plane worker speaks another protocol, ending it: %s", error)
            if self.transport is not None:
                self.transport.abort()

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def send(self, message: Message) -> None:
        if self.transport is None or self.transport.is_closing():
            raise WorkerGoneError("the data plane worker has ended")
        self.transport.write(encode_message(message))


class Supervisor:
    """Keeps one worker alive and answers for it."""

    def __init__(
        self,
        *,
        number: int,
        on_report: Callable[[int, Report], None],
        on_end: Callable[[int], None] = lambda _version: None,
        stdout: int | None = None,
        program: Sequence[str] = WORKER,
    ) -> None:
        self.number = number
        self._program = tuple(program)
        self.restarts = 0
        self._on_end = on_end
        self._on_report = on_report
        self._stdout = stdout
        self._process: asyncio.subprocess.Process | None = None
        self._channel: _Channel | None = None
        self._socket_channel: socket.socket | None = None
        self._sent_tokens: set[int] = set()
        self._answers: dict[int, asyncio.Future[Refusal | None]] = {}
        self._requests = 0
        self._heard_s = 0.0
        self._good: Order | None = None
        self._waiting = 0  # orders that wait for the process to be ready
        self._serving = False  # whether this process was given anything to serve
        self._ended_by_order = False  # the process ended while it was given something new
        self._running: asyncio.Task[None] | None = None
        self._started = asyncio.Event()  # the process's loop runs
        self._ready = asyncio.Event()  # and it serves what was served before; orders may follow

    def __repr__(self) -> str:
        return f"<Supervisor {self.number} pid={self.pid} restarts={self.restarts}>"

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._process.returncode is not None else self._process.pid

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
                while self._channel is None or not self._channel.open:
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

    async def drain(self, timeout_s: float) -> None:
        """Ask for a drain and wait for its end, a little longer than it may take."""
        self._requests += 1
        try:
            async with asyncio.timeout(timeout_s + 1.0):
                await self._request(Drain(self._requests, timeout_s))
        except (TimeoutError, WorkerGoneError):
            log.warning("data plane worker %s did not finish draining", self.number)

    async def stop(self) -> None:
        """End the process at once, for good."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        await self._end_process()

    # ------------------------------------------------------------------ requests

    async def _send_order(self, order: Order) -> Refusal | None:
        self._requests += 1
        new = [(token, sock) for token, sock in order.sockets.values() if token not in self._sent_tokens]
        tokens = tuple((name, token) for name, (token, _) in order.sockets.items())
        if self._socket_channel is None:
            raise WorkerGoneError("the data plane worker has ended")
        try:
            send_sockets(self._socket_channel, new)
        except OSError as error:
            raise WorkerGoneError(f"the data plane worker takes no sockets: {error}") from error
        # The worker closes what an accepted order no longer names; a rejected one changes nothing but what it holds.
        self._sent_tokens.update(token for token, _ in new)
        refusal = await self._request(Apply(self._requests, order.snapshot, tokens))
        if refusal is None:
            self._sent_tokens = {token for _, token in tokens}
            self._serving = True
        return refusal

    async def _request(self, message: Apply | Drain) -> Refusal | None:
        if self._channel is None:
            raise WorkerGoneError("the data plane worker has ended")
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._answers[message.request] = answer
        try:
            self._channel.send(message)
            return await answer
        finally:
            self._answers.pop(message.request, None)

    def _deliver(self, message: Message) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        match message:
            case Started():
                self._started.set()
            case Outcome():
                answer = self._answers.get(message.request)
                if answer is not None and not answer.done():
                    answer.set_result(Refusal(message.reason, message.policies) if message.reason else None)
            case Report():
                self._on_report(self.number, message)
            case Apply() | Drain():
                raise ProtocolError("the worker sent an order")

    # ------------------------------------------------------------------ the process

    async def _spawn(self) -> None:
        loop = asyncio.get_running_loop()
        stream, stream_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        passing, passing_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *self._program,
                str(stream_far.fileno()), str(passing_far.fileno()),
                pass_fds=(stream_far.fileno(), passing_far.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._stdout,
            )  # fmt: skip
        except BaseException:
            stream.close()
            passing.close()
            raise
        finally:
            stream_far.close()
            passing_far.close()
        passing.settimeout(SOCKET_SEND_TIMEOUT_S)
        self._socket_channel = passing
        self._sent_tokens = set()
        self._serving = False
        stream.setblocking(False)
        _, self._channel = await loop.create_connection(
            lambda: _Channel(self._deliver, self._on_lost), sock=stream
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._started_or_exited()

    async def _started_or_exited(self) -> None:
        assert self._process is not None
        started = asyncio.ensure_future(self._started.wait())
        exited = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((started, exited), return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
            exited.cancel()
            await asyncio.gather(started, exited, return_exceptions=True)
        if not self._started.is_set():
            raise WorkerGoneError(
                f"the data plane worker ended while starting (status {self._process.returncode})"
            )

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
        assert self._process is not None
        started_s = loop.time()
        status = await self._exit_status(self._process)
        await self._forget_process()
        by_order, self._ended_by_order = self._ended_by_order, False
        if loop.time() - started_s > STABLE_AFTER_S:
            backoff_s = BACKOFF_S_MIN
        log.error(
            "data plane worker %s ended (%s), restarting in %.2f s", self.number, _ending(status), backoff_s
        )
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

    async def _exit_status(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the process's end, and bring it about when the process has stopped telling that it lives."""
        loop = asyncio.get_running_loop()
        self._heard_s = loop.time()
        while True:
            try:
                # Not wait_for: in Python 3.11 that swallows a cancellation in the moment the process ends.
                async with asyncio.timeout(SILENCE_S_MAX / 3):
                    return await process.wait()
            except TimeoutError:
                if loop.time() - self._heard_s <= SILENCE_S_MAX:
                    continue
            await asyncio.sleep(1.0)  # perhaps it was this loop that stood still: let it read what waits
            if loop.time() - self._heard_s > SILENCE_S_MAX:
                log.error(
                    "data plane worker %s has said nothing for %.0f s, ending it", self.number, SILENCE_S_MAX
                )
                process.kill()

    async def _restart(self) -> None:
        try:
            await self._spawn()
            refusal = None
            if self._good is not None and not self._waiting:
                self._serving = True
                async with asyncio.timeout(START_TIMEOUT_S):
                    refusal = await self._send_order(self._good)
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
        process = self._process
        if process is not None and process.returncode is None:
            try:
                process.kill()
            except ProcessLookupError:
                pass  # it ended by itself and is about to be waited for
            await process.wait()
        await self._forget_process()

    async def _forget_process(self) -> None:
        """Close both channels and fail what was asked through them."""
        self._ready.clear()
        self._started.clear()
        if self._channel is not None and self._channel.transport is not None:
            self._channel.given_up = True
            self._channel.transport.abort()
        self._channel = None
        if self._socket_channel is not None:
            self._socket_channel.close()
            self._socket_channel = None
        self._fail_answers()
        await asyncio.sleep(0)  # lets the aborted transport close its socket

    def _on_lost(self) -> None:
        """The process has ended, or is about to: its end is waited for elsewhere."""
        self._ready.clear()
        self._fail_answers()

    def _fail_answers(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerGoneError("the data plane worker ended"))


def _ending(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def socket_token(sock: socket.socket) -> int:
    """What stays the same for one socket however it is duplicated: its inode."""
    return os.fstat(sock.fileno()).st_ino
