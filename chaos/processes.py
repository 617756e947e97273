"""The process of a running peer, found by its data directory, with its workers.

A peer holds a lock in its data directory for as long as it lives (`peer/io/datadir.py`) and writes its pid beside it.
So a pid is believed only while that process holds the lock: one left behind by a peer that died may be somebody else's
now. The kernel is asked who holds it (/proc/locks, proc(5)): to try the lock would be to hold it for a moment, in which
a peer that starts would find its directory taken.

Invariant: nothing here sends anything to a process that does not hold the directory, or descends from one that does.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peer.io.datadir import LOCK_NAME, holder, wait_ended

ENDED_S_MAX: Final = 20.0


class NoPeer(Exception):  # noqa: N818  it says what is so, as BlockingIOError does
    """No peer runs on that data directory; the message names it. Nothing was done."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a process was started: enough to start it again."""

    words: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str]


def peer_of(data_dir: Path) -> int:
    """The pid of the peer that holds the directory now. Raises NoPeer."""
    try:
        inode = (data_dir / LOCK_NAME).stat().st_ino
    except OSError as error:
        raise NoPeer(f"{data_dir}: no peer has run here: {error.strerror or error}") from error
    pid = holder(data_dir)
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1:2] == ["FLOCK"] and fields[4:5] == [str(pid)] and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    raise NoPeer(f"{data_dir}: no peer runs on this data directory")


def family(pid: int) -> list[int]:
    """That process and everything below it, by /proc; itself first."""
    children: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue  # it ended while we looked
            children.setdefault(parent, []).append(int(each.name))
    found, at = [pid], 0
    while at < len(found):
        found += children.get(found[at], [])
        at += 1
    return found


def send(pids: list[int], number: int) -> None:
    """A signal to each of them that still runs."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it ended by itself


def launch_of(pid: int) -> Launch:
    """How that process was started. Raises OSError."""
    process = Path(f"/proc/{pid}")
    words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    pairs = (
        entry.partition(b"=") for entry in (process / "environ").read_bytes().split(b"\0") if b"=" in entry
    )
    return Launch(
        tuple(os.fsdecode(word) for word in words),
        (process / "cwd").readlink(),
        {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs},
    )


def start(launch: Launch, log: Path) -> None:
    """Start it again, as nobody's child, so that it outlives this process; what it says goes to `log`. Raises
    OSError."""
    with log.open("ab") as said:
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *launch.words], cwd=launch.directory, env=dict(launch.environment),
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, check=True,
        )  # fmt: skip


def kill(pid: int) -> None:
    """kill -9 to it and its workers, and wait until it is gone."""
    send(family(pid), signal.SIGKILL)
    wait_ended(pid, timeout_s=ENDED_S_MAX)
