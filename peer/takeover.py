"""An upgrade in place: a new process takes over from the one that runs, and no connection is refused meanwhile.

The running process starts its own command line anew (`offer`), which may be another release by now, and goes on. The
new one loads all it needs, reads the configuration, says that it is ready, and waits (`await_estate`). Only then the
old one falls silent and passes over all it holds: the lock of the data directory, every socket that is bound, and the
channels to its workers, which go on serving (`bequeath`). So the mesh misses this host for no longer than opening the
database takes, and a new release that does not start changes nothing. The workers are drained once the new ones serve.

Whoever watches over the peer knows the process that was started first. That one stays as the shell of those that follow
(`peer/shell.py`): it passes signals on, and ends as the last of them does.

Invariant: there is one estate, and whoever holds the lock in it is the peer.
"""

import array
import asyncio
import base64
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from peer.io.held import HeldSockets
from proxy.plane import OldWorker

VARIABLE: Final = "GOSSAMER_HANDOVER"  # the descriptor of the channel on which the estate comes
READY: Final = b"R"
READY_S_MAX: Final = 60.0  # what loading everything may take on a host that is busy
ESTATE_S_MAX: Final = 60.0
DOCUMENT_BYTES_MAX: Final = 64 * 1024 * 1024
DESCRIPTORS_PER_MESSAGE: Final = 64
EXIT_HANDED_OVER: Final = 77
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
_LENGTH: Final = struct.Struct(">I")


class HandoverError(Exception):
    """There is nothing to take over, or nobody who would. Whoever held the estate still does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estate:
    """What a peer process leaves. `shell` is the process that those who watch over the peer know, 0 when it is the one
    that hands over."""

    lock: int
    sockets: dict[str, socket.socket]
    workers: tuple[OldWorker, ...]
    shell: int

    def held(self) -> HeldSockets:
        return HeldSockets(self.sockets)


# ---------------------------------------------------------------- the running process


class Successor:
    """A new process that has loaded all it needs and waits for the estate."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self.pid = process.pid

    def bequeath(self, estate: Estate) -> None:
        """Raises OSError: it has ended since."""
        self._channel.settimeout(ESTATE_S_MAX)
        send_estate(self._channel, estate)
        self._channel.close()

    async def dismiss(self) -> None:
        """It is not needed after all."""
        self._channel.close()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()


async def offer(command: list[str]) -> Successor:
    """Start `command` as the process that takes over, and wait until it could. Raises HandoverError."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    near.setblocking(False)
    try:
        with far:
            process = await asyncio.create_subprocess_exec(
                *command, pass_fds=(far.fileno(),), env=os.environ | {VARIABLE: str(far.fileno())}
            )
    except OSError as error:
        near.close()
        raise HandoverError(f"{command[0]} cannot be started: {error.strerror}") from error
    successor = Successor(process, near)
    try:
        async with asyncio.timeout(READY_S_MAX):
            said = await asyncio.get_running_loop().sock_recv(near, 1)
    except (OSError, TimeoutError) as error:
        await successor.dismiss()
        raise HandoverError(f"the new process did not say that it is ready: {error!r}") from error
    except BaseException:
        await successor.dismiss()
        raise
    if said != READY:
        status = await process.wait()
        near.close()
        raise HandoverError(
            f"the new process ended with status {status}, see its words above; this one goes on"
        )
    return successor


def own_command() -> list[str]:
    """The command line of this process, as it was started."""
    return [sys.executable, *sys.orig_argv[1:]]


def become_shell(pid: int, lock_file: Path) -> NoReturn:
    """Become the shell of the process that has taken over; does not return. Signals wait until it has begun."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    sys.stdout.flush()
    sys.stderr.flush()
    program = str(Path(__file__).with_name("shell.py"))
    command = [sys.executable, "-I", "-S", program, str(pid), str(lock_file), str(EXIT_HANDED_OVER)]
    os.execv(sys.executable, command)  # noqa: S606  the program and its arguments are this module's own


# ---------------------------------------------------------------- the new process


def await_estate(environ: MutableMapping[str, str]) -> Estate | None:
    """Called by a process that is ready to be the peer. None when it was started to be one from the beginning. Raises
    HandoverError."""
    number = environ.pop(VARIABLE, "")
    if not number:
        return None
    try:
        with socket.socket(fileno=int(number)) as channel:
            channel.settimeout(ESTATE_S_MAX)
            channel.sendall(READY)
            return receive_estate(channel)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HandoverError(f"the peer that runs handed nothing over: {error}") from error


# ---------------------------------------------------------------- on the channel


def send_estate(channel: socket.socket, estate: Estate) -> None:
    """Raises OSError."""
    descriptors = [estate.lock, *(held.fileno() for held in estate.sockets.values())]
    descriptors += [worker.stream.fileno() for worker in estate.workers]
    document = json.dumps(
        {
            "sockets": list(estate.sockets),
            "workers": [[worker.pid, base64.b64encode(worker.unread).decode()] for worker in estate.workers],
            "shell": estate.shell,
        }
    ).encode()
    channel.sendall(_LENGTH.pack(len(document)) + document)
    for start in range(0, len(descriptors), DESCRIPTORS_PER_MESSAGE):
        part = array.array("i", descriptors[start : start + DESCRIPTORS_PER_MESSAGE])
        channel.sendmsg([b"D"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, part)])


def receive_estate(channel: socket.socket) -> Estate:
    """Raises OSError, and ValueError, KeyError or TypeError for what is no estate."""
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size))
    if length > DOCUMENT_BYTES_MAX:
        raise ValueError(f"a document of {length} bytes")
    document = json.loads(_exactly(channel, length))
    names: list[str] = document["sockets"]
    workers: list[tuple[int, str]] = document["workers"]
    wanted = 1 + len(names) + len(workers)
    descriptors: list[int] = []
    while len(descriptors) < wanted:
        said, some, flags, _ = socket.recv_fds(channel, 1, DESCRIPTORS_PER_MESSAGE)
        if not said or not some or flags & socket.MSG_CTRUNC:
            raise ValueError(f"{len(descriptors)} of {wanted} descriptors came")
        descriptors += some
        for descriptor in some:
            os.set_inheritable(descriptor, False)  # not for what this process starts
    lock, *rest = descriptors
    sockets = [socket.socket(fileno=descriptor) for descriptor in rest]
    for each in sockets:
        each.setblocking(False)
    streams = sockets[len(names) :]
    return Estate(
        lock=lock,
        sockets=dict(zip(names, sockets, strict=False)),
        workers=tuple(
            OldWorker(pid=pid, stream=stream, unread=base64.b64decode(unread))
            for (pid, unread), stream in zip(workers, streams, strict=True)
        ),
        shell=document["shell"],
    )


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (piece := channel.recv(count - len(data))):
            raise ValueError("the channel ended")
        data += piece
    return data
