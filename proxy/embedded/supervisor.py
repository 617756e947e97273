"""One worker process, kept running.

The supervisor starts `python -m proxy.embedded.worker` with the far ends of two socketpairs, talks to it (`ipc.py`),
and when it ends without being told to, starts another with the last snapshot that was served and the same sockets.
The control process holds every listening socket all the while, so connections wait in the kernel instead of
being refused. Restarts back off from 50 ms, doubling to 5 s, and start over after half a minute of good running.

Invariant: at most one process lives at a time; a request to it ends when its process does.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
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


class WorkerGoneError(ConnectionError):
    """The worker ended before it answered. The supervisor is already starting another."""


class _Channel(asyncio.Protocol):
    """The control end of the stream of frames."""

    def __init__(self, deliver: Callable[[Message], None]) -> None:
        self._frames = FrameReader(deliver)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport, so this cannot be asserted.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
        except ProtocolError as error:
            log.error("data plane worker speaks another protocol, ending it: %s", error)
            if self.transport is not None:
                self.transport.abort()

    def send(self, message: Message) -> None:
        if self.transport is None or self.transport.is_closing():
            raise WorkerGoneError("the data plane worker has ended")
        self.transport.write(encode_message(message))


class Supervisor:
    """Keeps one worker alive and answers for it."""

    def __init__(
        self, *, number: int, on_report: Callable[[int, Report], None], stdout: int | None = None
    ) -> None:
        self.number = number
        self.restarts = 0
        self._on_report = on_report
        self._stdout = stdout
        self._process: asyncio.subprocess.Process | None = None
        self._channel: _Channel | None = None
        self._socket_channel: socket.socket | None = None
        self._sent_tokens: set[int] = set()
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._requests = 0
        self._heard_s = 0.0
        self._good: Order | None = None
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

    async def apply(self, order: Order, timeout_s: float) -> str:
        """ "" when the worker serves `order`, else its reason against it. Raises WorkerGoneError, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._ready.wait()
            reason = await self._send_order(order)
        if not reason:
            self._good = order
        return reason

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

    async def _send_order(self, order: Order) -> str:
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
        reason = await self._request(Apply(self._requests, order.snapshot, tokens))
        if not reason:
            self._sent_tokens = {token for _, token in tokens}
        return reason

    async def _request(self, message: Apply | Drain) -> str:
        if self._channel is None:
            raise WorkerGoneError("the data plane worker has ended")
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
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
                    answer.set_result(message.reason)
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
                sys.executable, "-P", "-m", "proxy.embedded.worker",  # -P: never from the working directory
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
        stream.setblocking(False)
        _, self._channel = await loop.create_connection(lambda: _Channel(self._deliver), sock=stream)
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
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_S_MIN
        while True:
            assert self._process is not None
            started_s = loop.time()
            status = await self._exit_status(self._process)
            await self._forget_process()
            if loop.time() - started_s > STABLE_AFTER_S:
                backoff_s = BACKOFF_S_MIN
            log.error(
                "data plane worker %s ended (%s), restarting in %.2f s",
                self.number,
                _ending(status),
                backoff_s,
            )
            await asyncio.sleep(backoff_s)
            backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)
            self.restarts += 1
            await self._restart()

    async def _exit_status(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the process's end, and bring it about when the process has stopped telling that it lives."""
        loop = asyncio.get_running_loop()
        self._heard_s = loop.time()
        while True:
            try:
                return await asyncio.wait_for(process.wait(), SILENCE_S_MAX / 3)
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
            reason = ""
            if self._good is not None:
                async with asyncio.timeout(START_TIMEOUT_S):
                    reason = await self._send_order(self._good)
        except (OSError, TimeoutError) as error:
            log.error("data plane worker %s did not start: %r", self.number, error)
            await self._end_process()
            return
        self._ready.set()
        if reason:
            log.error("data plane worker %s refuses what the last one served: %s", self.number, reason)
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
            self._channel.transport.abort()
        self._channel = None
        if self._socket_channel is not None:
            self._socket_channel.close()
            self._socket_channel = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerGoneError("the data plane worker ended"))
        await asyncio.sleep(0)  # lets the aborted transport close its socket


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
