"""A mesh of real peers on this machine's loopback addresses: started, driven and ended as a user would.

Peers are `gossamer peer` processes on 127.0.0.1, 127.0.0.2, … with the usual ports, each with a data
directory of its own below one temporary directory. Everything is asked of them through the command line.

Invariant: `close` ends every process this object started, by pid, and removes what it wrote; it may be called
twice.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any, Final

READY_S_MAX: Final = 20.0
COMMAND_S_MAX: Final = 30.0
STOP_S_MAX: Final = 10.0


class MeshError(Exception):
    """A peer or a command did not do what it should; the message says which and shows its words."""


class LocalPeer:
    """One peer: its address, its data directory, and its process while it runs. `program` is what the interpreter runs
    for it."""

    program: tuple[str, ...] = ("-m", "peer.cli", "peer")

    def __init__(self, name: str, host: str, directory: Path) -> None:
        self.name = name
        self.host = host
        self.directory = directory
        self.process: Process | None = None
        self._log = directory.parent / f"{name}.log"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    async def start(self, *flags: str, profile: str = "local", wait: bool = True) -> None:
        """Start the process; with `wait`, return when it says that it is ready. Raises MeshError."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        seen = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self.program, "--name", self.name, "--bind", self.host),
                *("--data-dir", str(self.directory), "--profile", profile, *flags),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=command_environment(),
            )
        if wait:
            await self.wait_ready(seen)

    async def wait_ready(self, seen: int = 0) -> None:
        """Until the line `ready …` is in the log behind byte `seen`."""
        assert self.process is not None
        try:
            async with asyncio.timeout(READY_S_MAX):
                while not any(line.startswith("ready ") for line in self._lines(seen)):
                    if self.process.returncode is not None:
                        words = "\n".join(self._lines(seen)[-5:])
                        raise MeshError(f"{self.name} ended with code {self.process.returncode}: {words}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            words = "\n".join(self._lines(seen)[-5:])
            raise MeshError(f"{self.name} was not ready within {READY_S_MAX:g} s: {words}") from None

    def _lines(self, seen: int) -> list[str]:
        with self._log.open("rb") as log:
            log.seek(seen)
            return log.read().decode(errors="replace").splitlines()

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the process a signal and wait for its end."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise MeshError(f"{self.name} did not end within {STOP_S_MAX:g} s of signal {number}") from None

    async def command(self, *words: str, stdin: str | None = None) -> str:
        """Run `gossamer WORDS` against this peer; its standard output. Raises MeshError with its standard error."""
        code, out, err = await self.try_command(*words, stdin=stdin)
        if code != 0:
            raise MeshError(
                f"gossamer {' '.join(words)} at {self.name} ended with code {code}: {err.strip()}"
            )
        return out

    async def try_command(self, *words: str, stdin: str | None = None) -> tuple[int, str, str]:
        """(exit code, standard output, standard error)"""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "peer.cli", *words),
            stdin=PIPE if stdin is not None else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=command_environment() | {"GOSSAMER_DATA_DIR": str(self.directory)},
        )
        try:
            async with asyncio.timeout(COMMAND_S_MAX):
                out, err = await process.communicate(stdin.encode() if stdin is not None else None)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise MeshError(
                f"gossamer {' '.join(words)} at {self.name} took over {COMMAND_S_MAX:g} s"
            ) from None
        return process.returncode or 0, out.decode(), err.decode()

    async def json(self, *words: str, stdin: str | None = None) -> Any:
        return json.loads(await self.command(*words, "-o", "json", stdin=stdin))


class LocalMesh:
    """Peers and applications in one temporary directory; an async context manager."""

    def __init__(self, size: int, *, network: str = "127.0.0") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gossamer-"))
        names = [f"node-{number}" for number in range(1, size + 1)]
        self.peers = [
            LocalPeer(name, f"{network}.{number}", self.directory / name)
            for number, name in enumerate(names, 1)
        ]
        self._applications: list[Process] = []

    async def __aenter__(self) -> "LocalMesh":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self, *flags: str, profile: str = "local") -> None:
        """The first peer founds the mesh, the others join it with a token each."""
        first, *others = self.peers
        await first.start("--bootstrap", *flags, profile=profile)
        await asyncio.gather(*(self.join(peer, *flags, profile=profile) for peer in others))

    async def join(self, peer: LocalPeer, *flags: str, profile: str = "local") -> None:
        """Start `peer` with a token made at the first."""
        token = (await self.peers[0].command("token", "create")).strip()
        await peer.start("--seed", f"{self.peers[0].host}:7946", "--token", token, *flags, profile=profile)

    async def application(self, name: str, version: str, host: str, port: int) -> Process:
        """Start one of the demo's HTTP services and wait until it accepts connections."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "peer.demo.app", name, version, host, str(port)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,
            env=command_environment(),
        )
        self._applications.append(process)
        async with asyncio.timeout(READY_S_MAX):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except OSError:
                    if process.returncode is not None:
                        raise MeshError(f"the service {name} could not listen on {host}:{port}") from None
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return process

    async def close(self) -> None:
        """End everything and remove the directory."""
        processes = [p.process for p in self.peers if p.process is not None] + self._applications
        for process in processes:
            if process.returncode is None:
                process.terminate()
        for process in processes:
            try:
                async with asyncio.timeout(STOP_S_MAX):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def command_environment() -> dict[str, str]:
    """This process's environment without settings meant for another peer."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GOSSAMER_")}
