"""One real peer of an experiment: its process, its data directory, and what can be done to both.

Invariant: every process started here carries the run's mark, so that the dead man finds it; signals go to processes
this object started and to no others.
"""

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chaos.drivers.deadman import MARK
from chaos.drivers.driver import DriverError
from chaos.fault import Keeps
from chaos.processes import family, send
from peer.admin.client import AdminClient
from peer.demo.mesh import command_environment

READY_S_MAX: Final = 60.0
STOP_S_MAX: Final = 20.0
DATABASE: Final = "store.db"
BALLAST: Final = "ballast"
BALLAST_BLOCK: Final = 64 * 1024
TMPFS_BYTES: Final = 32 * 1024 * 1024


class RealNode:
    """See the module's theory. `prefix` stands in front of commands that are to run where the node is."""

    def __init__(
        self,
        name: str,
        host: str,
        prefix: Sequence[str],
        directory: Path,
        *,
        zone: str,
        profile: str,
        mark: str,
    ) -> None:
        self.name = name
        self.host = host
        self.prefix = tuple(prefix)
        self.directory = directory
        self.data = directory / "data"
        self.client = AdminClient(self.data)
        self.wanted = False  # whether it is meant to run
        self.impaired = 0  # pauses and slownesses that stand
        self.lives = 0
        self._flags = ["--zone", zone] if zone else []
        self._flags += ["--profile", profile]
        self._mark = mark
        self._process: subprocess.Popen[bytes] | None = None
        self._spawned: list[subprocess.Popen[bytes]] = []
        self.log = directory / "log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self, *words: str, output: int | None = None) -> "subprocess.Popen[bytes]":
        """Start a command where the node is."""
        process = subprocess.Popen(
            [*self.prefix, *words],
            stdin=subprocess.DEVNULL,
            stdout=output if output is not None else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=command_environment() | {MARK: self._mark},
        )
        self._spawned.append(process)
        return process

    def close(self) -> None:
        """End the peer and what was spawned beside it."""
        self.signal(signal.SIGCONT)
        self.kill()
        for process in self._spawned:
            process.kill()
            process.wait()

    def start(self, *flags: str) -> None:
        """Start the peer; it may take a while until it is ready."""
        assert not self.running, f"{self.name} runs already"
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.wanted = True
        self.lives += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "peer.cli", "peer", "--name", self.name, "--bind", self.host,
                 "--data-dir", str(self.data), *self._flags, *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=command_environment() | {MARK: self._mark},
            )  # fmt: skip

    async def ready(self) -> None:
        """Until this life of the peer has said that it is ready. Raises DriverError."""
        try:
            async with asyncio.timeout(READY_S_MAX):
                while not self._said_ready():
                    if not self.running:
                        raise DriverError(f"{self.name} ended at its start: {self.last_words()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise DriverError(
                f"{self.name} was not ready within {READY_S_MAX:g} s: {self.last_words()}"
            ) from None

    def _said_ready(self) -> bool:
        return (
            self.log.read_text(errors="replace").count("\nready ")
            + self.log.read_text(errors="replace").startswith("ready ")
            >= self.lives
        )

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return " / ".join(lines[-3:])

    # ------------------------------------------------------------------ what can be done to it

    def signal(self, number: int) -> None:
        """To the peer and its workers."""
        if self._process is not None and self.running:
            send(self.family(), number)

    def kill(self) -> None:
        """kill -9, workers too: as when the machine dies."""
        self.wanted, self.impaired = False, 0
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    async def stop(self) -> None:
        """SIGTERM: it says good-bye and ends."""
        self.wanted, self.impaired = False, 0
        if self._process is None or not self.running:
            return
        self.signal(signal.SIGCONT)
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def family(self) -> list[int]:
        """The process that was started and everything below it; nothing if it does not run."""
        return family(self._process.pid) if self._process is not None and self.running else []

    def limit_descriptors(self, limit: int | None) -> None:
        """prlimit on the running peer; None: as it was started."""
        if not self.running:
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for pid in self.family():
            try:
                resource.prlimit(
                    pid, resource.RLIMIT_NOFILE, (soft if limit is None else min(limit, hard), hard)
                )
            except ProcessLookupError:
                continue  # it ended while we looked

    def forget(self, keeps: Keeps) -> None:
        """What of its directory is gone when it starts again."""
        assert not self.running, "only the dead forget"
        if keeps is Keeps.NOTHING:
            for each in self.data.iterdir():
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        elif keeps in (Keeps.IDENTITY, Keeps.BACKUP):
            for each in self.data.glob(DATABASE + "*"):
                each.unlink()
        if keeps is Keeps.BACKUP and (self.directory / "backup.db").exists():
            shutil.copyfile(self.directory / "backup.db", self.data / DATABASE)
            (self.data / DATABASE).chmod(0o600)

    def back_up(self) -> None:
        """Keep a copy of the database as it is now, as a backup tool would."""
        source = sqlite3.connect(f"file:{self.data / DATABASE}?mode=ro", uri=True)
        try:
            target = sqlite3.connect(self.directory / "backup.db")
            with target:
                source.backup(target)
            target.close()
        finally:
            source.close()

    def fill_disk(self, full: bool) -> None:
        """Leave no room on its file system (a small tmpfs of its own), or give it back."""
        ballast = self.data / BALLAST
        if not full:
            ballast.unlink(missing_ok=True)
            return
        descriptor = os.open(ballast, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            block = BALLAST_BLOCK
            while block:
                try:
                    if os.write(descriptor, bytes(block)) < block:
                        block //= 2
                except OSError:
                    block //= 2  # no room for that much: try less, until nothing fits
        finally:
            os.close(descriptor)
