"""What one peer process leaves to the next, and how it gets there."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from peer import takeover
from peer.io.datadir import DataDirBusy, DataDirError, inherit_lock, lock_data_dir
from peer.io.held import ADMIN_SOCKET, GOSSIP_STREAMS, HeldSockets
from peer.takeover import (
    DESCRIPTORS_PER_MESSAGE,
    EXIT_HANDED_OVER,
    VARIABLE,
    Estate,
    HandoverError,
    await_estate,
    offer,
    receive_estate,
    send_estate,
)
from proxy.plane import OldWorker
from tests.loopback import network

HOST = f"{network(4)}.1"


def listening(host: str = HOST) -> socket.socket:
    made = socket.create_server((host, 0))
    made.setblocking(False)
    return made


def given(estate: Estate, environ: dict[str, str]) -> Estate | None:
    """What a process gets that was started with `environ` in place of the channel's number."""
    near, far = socket.socketpair()
    environ[VARIABLE] = str(far.detach())

    def give() -> None:
        assert near.recv(1) == takeover.READY
        send_estate(near, estate)

    thread = threading.Thread(target=give)
    thread.start()
    with near:
        received = await_estate(environ)
        thread.join()
    return received


def test_an_estate_arrives_whole_and_is_not_for_children(tmp_path: Path) -> None:
    lock = lock_data_dir(tmp_path)
    names = [f"listener/{number}" for number in range(DESCRIPTORS_PER_MESSAGE + 5)]
    sockets = {name: listening() for name in names}
    stream, far = socket.socketpair()
    estate = Estate(
        lock=lock.descriptor,
        sockets=sockets,
        workers=(OldWorker(pid=os.getpid(), stream=stream, unread=b"\x00\xffpart"),),
        shell=4711,
    )
    environ = {"PATH": "x"}
    received = given(estate, environ)
    assert received is not None
    assert environ == {"PATH": "x"}, "what it starts is not to take over"
    assert {name: each.getsockname() for name, each in received.sockets.items()} == {
        name: each.getsockname() for name, each in sockets.items()
    }
    (worker,) = received.workers
    assert (worker.pid, worker.unread, received.shell) == (os.getpid(), b"\x00\xffpart", 4711)
    worker.stream.send(b"hello")
    assert far.recv(9) == b"hello"
    descriptors = [
        received.lock,
        worker.stream.fileno(),
        *(each.fileno() for each in received.sockets.values()),
    ]
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
    lock.close()
    with pytest.raises(DataDirBusy):
        lock_data_dir(tmp_path)
    inherited = inherit_lock(tmp_path, received.lock)
    assert inherited.file.read_text() == f"{os.getpid()}\n"
    with pytest.raises(DataDirError, match="not the one"):
        inherit_lock(tmp_path, far.fileno())
    copy = inherited.copy()
    inherited.close()
    with pytest.raises(DataDirBusy):
        lock_data_dir(tmp_path)
    copy.close()
    lock_data_dir(tmp_path).close()
    for each in (stream, far, worker.stream, *sockets.values(), *received.sockets.values()):
        each.close()


def test_a_process_of_its_own_takes_over_nothing() -> None:
    assert await_estate({}) is None


@pytest.mark.parametrize("said", [b"", b"\x00\x00\x00\x02{}", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01x"])
def test_what_is_no_estate_is_refused(said: bytes) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.sendall(said)
        near.shutdown(socket.SHUT_WR)
        with pytest.raises((ValueError, KeyError)):
            receive_estate(far)


def test_descriptors_that_do_not_come_are_missed() -> None:
    near, far = socket.socketpair()
    with near, far:
        document = b'{"sockets": ["a"], "workers": [], "shell": 0}'
        near.sendall(len(document).to_bytes(4, "big") + document + b"D")
        with pytest.raises(ValueError, match="0 of 2 descriptors"):
            receive_estate(far)


@pytest.mark.parametrize("number", ["nonsense", "987654"])
def test_a_channel_that_is_none_is_told(number: str) -> None:
    with pytest.raises(HandoverError, match="handed nothing over"):
        await_estate({VARIABLE: number})


def test_a_held_socket_is_used_once_and_only_where_it_is_bound() -> None:
    bound = listening()
    host, port = bound.getsockname()
    unix, far = socket.socketpair()
    held = HeldSockets({GOSSIP_STREAMS: bound, ADMIN_SOCKET: unix, "listener/in": listening()})
    assert held.take(GOSSIP_STREAMS, host, port + 1) is None
    assert held.take("listener/out", host, port) is None
    assert held.holds(socket.SOCK_STREAM, host, port)
    assert not held.holds(socket.SOCK_DGRAM, host, port)
    assert held.take(GOSSIP_STREAMS, host, port) is bound
    assert held.take(GOSSIP_STREAMS, host, port) is None
    assert held.take_unix(ADMIN_SOCKET) is unix
    held.close()
    assert bound.fileno() >= 0
    for each in (bound, unix, far):
        each.close()


# ---------------------------------------------------------------- the process that takes over


async def test_a_command_that_cannot_be_started_is_an_error() -> None:
    with pytest.raises(HandoverError, match="cannot be started"):
        await offer(["/nonexistent/python"])


async def test_a_process_that_ends_first_is_an_error_with_its_status() -> None:
    with pytest.raises(HandoverError, match="ended with status 3"):
        await offer([sys.executable, "-c", "raise SystemExit(3)"])


async def test_a_process_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "READY_S_MAX", 0.2)
    with pytest.raises(HandoverError, match="did not say that it is ready"):
        await offer([sys.executable, "-c", "import time; time.sleep(60)"])


async def test_a_successor_that_is_not_needed_is_ended() -> None:
    waits = f"import os, time; os.write(int(os.environ['{VARIABLE}']), b'R'); time.sleep(60)"
    successor = await offer([sys.executable, "-c", waits])
    await successor.dismiss()
    with pytest.raises(ProcessLookupError):
        os.kill(successor.pid, 0)


# ---------------------------------------------------------------- the shell


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_shell_passes_signals_on_follows_the_lock_file_and_ends_as_the_peer_does(tmp_path: Path) -> None:
    """Three generations: the shell's own child hands over to a child of its own."""
    lock_file, log = tmp_path / "lock", tmp_path / "log"
    peer = tmp_path / "peer.py"
    peer.write_text(
        textwrap.dedent(
            f"""
            import os, pathlib, signal, subprocess, sys
            log = open({str(log)!r}, "a", buffering=1)
            def upgrade(*_):
                child = subprocess.Popen([sys.executable, __file__, "second"])
                pathlib.Path({str(lock_file)!r}).write_text(f"{{child.pid}}\\n")
                os._exit({EXIT_HANDED_OVER})
            signal.signal(signal.SIGUSR2, upgrade)
            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
            print(sys.argv[1], os.getpid(), file=log)
            while True:
                signal.pause()
            """
        )
    )
    first = textwrap.dedent(
        f"""
        import pathlib, subprocess, sys
        from peer.takeover import become_shell
        child = subprocess.Popen([sys.executable, {str(peer)!r}, "first"])
        become_shell(child.pid, pathlib.Path({str(lock_file)!r}))
        """
    )
    shell = subprocess.Popen([sys.executable, "-c", first])
    try:
        wait_until(lambda: log.exists() and "first" in log.read_text())
        wait_until(lambda: b"shell.py" in Path(f"/proc/{shell.pid}/cmdline").read_bytes())
        shell.send_signal(signal.SIGUSR2)
        wait_until(lambda: "second" in log.read_text())
        assert shell.poll() is None
        wait_until(
            lambda: (
                int(Path("/proc", lock_file.read_text().strip(), "stat").read_text().split()[3]) == shell.pid
            )
        )
        shell.send_signal(signal.SIGTERM)
        assert shell.wait(10) == 9
    finally:
        shell.kill()
        shell.wait()


async def test_the_shell_of_a_peer_that_is_killed_says_so(tmp_path: Path) -> None:
    script = (
        "import pathlib, subprocess, sys\n"
        "from peer.takeover import become_shell\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)'])\n"
        f"become_shell(child.pid, pathlib.Path({str(tmp_path / 'lock')!r}))\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == 128 + signal.SIGKILL
