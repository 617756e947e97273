"""One worker process: started with the far ends of its channels, given orders with the sockets they name, ended.

It is `python -m proxy.embedded.worker` with the far ends of two socketpairs (`ipc.py`), and where there are several
workers, the board they share and its place on it.

Invariant: a socket is sent once to a process, before the first order that names it.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.embedded.board import Board
from proxy.embedded.ipc import Report, send_sockets
from proxy.embedded.link import Link, Refusal, WorkerGoneError
from proxy.plane import OldWorker

WORKER: Final = ("-P", "-m", "proxy.embedded.worker")  # -P: never from the working directory
SOCKET_SEND_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A snapshot ready to be sent: its bytes, and each listener's socket with the token that names it."""

    version: int
    snapshot: bytes
    sockets: Mapping[str, tuple[int, socket.socket]]
    groups: tuple[int, ...] = ()  # of its clusters on the board


class WorkerProcess:
    """One process and its channels. Make it with `spawn`; whoever made it calls `end`, also when it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, link: Link, passing: socket.socket) -> None:
        self._process = process
        self._passing = passing
        self._sent_tokens: set[int] = set()
        self.link = link

    @property
    def pid(self) -> int | None:
        """None when it has ended."""
        return None if self._process.returncode is not None else self._process.pid

    @classmethod
    async def spawn(
        cls,
        program: Sequence[str],
        *,
        stdout: int | None,
        report: Callable[[Report], None],
        lost: Callable[[], None],
        place: tuple[Board, int] | None,
    ) -> "WorkerProcess":
        """Start it. Raises OSError."""
        stream, stream_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        passing, passing_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inherited = [stream_far.fileno(), passing_far.fileno()]
        numbers = list(inherited)
        if place is not None:
            board, number = place
            inherited.append(board.descriptor)
            numbers += [board.descriptor, number, board.workers]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *program, *map(str, numbers),
                pass_fds=inherited,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
            )  # fmt: skip
        except BaseException:
            stream.close()
            passing.close()
            raise
        finally:
            stream_far.close()
            passing_far.close()
        passing.settimeout(SOCKET_SEND_TIMEOUT_S)
        return cls(process, await Link.over(stream, report, lost), passing)

    async def wait_started(self) -> None:
        """Until its loop runs. Raises WorkerGoneError."""
        started = asyncio.ensure_future(self.link.started.wait())
        exited = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((started, exited), return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
            exited.cancel()
            await asyncio.gather(started, exited, return_exceptions=True)
        if not self.link.started.is_set():
            raise WorkerGoneError(
                f"the data plane worker ended while starting (status {self._process.returncode})"
            )

    async def send(self, order: Order) -> Refusal | None:
        """The worker's answer to an order. Raises WorkerGoneError."""
        new = [(token, sock) for token, sock in order.sockets.values() if token not in self._sent_tokens]
        tokens = tuple((name, token) for name, (token, _) in order.sockets.items())
        try:
            send_sockets(self._passing, new)
        except OSError as error:
            raise WorkerGoneError(f"the data plane worker takes no sockets: {error}") from error
        # The worker closes what an accepted order no longer names; a rejected one changes nothing but what it holds.
        self._sent_tokens.update(token for token, _ in new)
        refusal = await self.link.apply(order.snapshot, tokens, order.groups)
        if refusal is None:
            self._sent_tokens = {token for _, token in tokens}
        return refusal

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        return await self._process.wait()

    def kill(self) -> None:
        try:
            self._process.kill()
        except ProcessLookupError:
            pass  # it ended by itself and is about to be waited for

    async def end(self) -> None:
        """End it at once, close both channels and fail what was asked through them."""
        if self._process.returncode is None:
            self.kill()
            await self._process.wait()
        self.link.give_up()
        self._passing.close()
        await asyncio.sleep(0)  # lets the aborted transport close its socket

    def bequeath(self) -> OldWorker | None:
        """For the process that takes over; None when it cannot be left running."""
        left = self.link.bequeath()
        return None if left is None else OldWorker(pid=self._process.pid, stream=left[0], unread=left[1])


def ending(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def socket_token(sock: socket.socket) -> int:
    """What stays the same for one socket however it is duplicated: its inode."""
    return os.fstat(sock.fileno()).st_ino
