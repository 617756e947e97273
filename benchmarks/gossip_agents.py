"""Many agents of one gossip system on this machine's loopback addresses: started, watched, killed, and ended.

An agent is a process (with what it starts itself) that writes its log to a pipe. One reader, this process, stamps
each line of every agent with one monotonic clock as it arrives. What an agent knows is therefore dated by what the
agent itself says, in the same way for every system and without asking anybody anything while the clock runs.

Invariant: `System` ends, by pid, every process it started, and returns from `stop` only when they are gone.
"""

import abc
import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

READY_S_MAX: Final = 60.0
SETTLED_S_MAX: Final = 120.0
GONE_S_MAX: Final = 15.0
STARTED_AT_ONCE: Final = 3  # a start is mostly CPU: more at once only make each slower
LINE_BYTES_MAX: Final = 1024 * 1024
HOSTS_PER_NET: Final = 250


class BenchmarkError(Exception):
    """An agent did not do what it should; the message says which and shows its words."""


class Agent:
    """One process on its own address. `heard` is called with each line it writes and when that arrived."""

    def __init__(self, name: str, host: str, heard: Callable[["Agent", str, float], None]) -> None:
        self.name = name
        self.host = host
        self._heard = heard
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._last: deque[str] = deque(maxlen=5)
        self._started: list[tuple[int, str]] = []  # of those that were killed: pid, start time

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The processes it has started itself."""
        return children(self.pid)

    async def start(self, command: Sequence[str], ready: str, environment: dict[str, str]) -> None:
        """Start the process; return when it has written a line with `ready` in it. Raises BenchmarkError."""
        self._ready.clear()
        self._last.clear()
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
            env=environment,
        )
        self._reading = asyncio.create_task(self._read(self._process, ready))
        waiting = asyncio.create_task(self._ready.wait())
        try:
            done, _ = await asyncio.wait(
                {waiting, self._reading}, timeout=READY_S_MAX, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        if not self._ready.is_set():
            what = "ended" if done else f"was not ready within {READY_S_MAX:g} s"
            raise BenchmarkError(f"{self.name} ({command[0]}) {what}: {self.last_words}")

    @property
    def last_words(self) -> str:
        return " | ".join(self._last) or "it wrote nothing"

    async def _read(self, process: Process, ready: str) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            at_s = time.monotonic()
            text = raw.decode(errors="replace").rstrip()
            self._last.append(text)
            if ready in text:
                self._ready.set()
            self._heard(self, text, at_s)

    def kill(self) -> float:
        """kill -9, now; when that was. What the process had started has to end by itself."""
        self._started = [(pid, started_at(pid)) for pid in (self.pid, *self.workers)]
        at_s = time.monotonic()
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(self.pid, signal.SIGKILL)
        return at_s

    async def gone(self) -> None:
        """After `kill`: until nothing of it is left. Raises BenchmarkError when something outlives it."""
        if self._process is None:
            return
        await self._process.wait()
        deadline = time.monotonic() + GONE_S_MAX
        while left := [pid for pid, started in self._started if started and started_at(pid) == started]:
            if time.monotonic() > deadline:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise BenchmarkError(f"processes {left} of {self.name} outlived it by {GONE_S_MAX:g} s")
            await asyncio.sleep(0.01)
        if self._reading is not None:
            await self._reading
        self._process = self._reading = None


class Sightings:
    """When each of `expected` first wrote a line that `means` accepts."""

    def __init__(self, expected: Collection[str], means: Callable[[str], bool], what: str) -> None:
        self.at_s: dict[str, float] = {}
        self._missing = set(expected)
        self._means = means
        self._what = what
        self._complete = asyncio.Event()

    def look(self, name: str, text: str, at_s: float) -> None:
        if name in self._missing and self._means(text):
            self.at_s[name] = at_s
            self._missing.remove(name)
            if not self._missing:
                self._complete.set()

    async def wait(self, timeout_s: float) -> None:
        """Until all have seen it. Raises BenchmarkError naming those that have not."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._complete.wait()
        except TimeoutError:
            raise BenchmarkError(
                f"{self._what} was not seen by {', '.join(sorted(self._missing))} within {timeout_s:g} s"
            ) from None


class System(abc.ABC):
    """`size` agents of one kind. An async context manager: they run inside it and are gone behind it."""

    name: str
    network: str  # the first two numbers of its addresses
    ready: str  # in the line an agent writes when it runs

    def __init__(self, size: int) -> None:
        self.agents = [
            Agent(f"node-{n + 1}", f"{self.network}.{n // HOSTS_PER_NET}.{n % HOSTS_PER_NET + 1}", self._line)
            for n in range(size)
        ]
        self.wrongly_failed: list[tuple[str, str]] = []  # (observer, subject) of those nobody killed
        self._killed: set[str] = set()
        self._watching: list[Sightings] = []

    # ------------------------------------------------------------------ what differs between systems

    @abc.abstractmethod
    async def command(self, agent: Agent) -> list[str]:
        """How this agent is started, the first time and after a kill."""

    @abc.abstractmethod
    async def alive(self, agent: Agent) -> set[str]:
        """The names of those this agent holds for alive, itself included. Raises BenchmarkError."""

    @abc.abstractmethod
    async def publish(self, agent: Agent, number: int) -> None:
        """Give the mesh its `number`-th update (from 1) at this agent; return when that is acknowledged."""

    @abc.abstractmethod
    def failed(self, text: str) -> str | None:
        """The name of the member this line declares failed."""

    @abc.abstractmethod
    def has_update(self, text: str, number: int) -> bool:
        """Whether this line says that the update has arrived."""

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """The first agent, then the others a few at a time; return when each sees all alive."""
        first, *others = self.agents
        await self.run(first)
        at_once = asyncio.Semaphore(STARTED_AT_ONCE)

        async def one(agent: Agent) -> None:
            async with at_once:
                await self.run(agent)

        starting = [asyncio.create_task(one(agent)) for agent in others]
        try:
            await asyncio.gather(*starting)
        finally:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
        await self.settle()

    async def run(self, agent: Agent) -> None:
        """Start one agent."""
        await agent.start(await self.command(agent), self.ready, environment())

    def kill(self, agent: Agent) -> float:
        """kill -9; when that was."""
        self._killed.add(agent.name)
        return agent.kill()

    async def revive(self, agent: Agent) -> None:
        """Start a killed agent again; return when each sees all alive."""
        await agent.gone()
        await self.run(agent)
        await self.settle()
        self._killed.discard(agent.name)

    async def settle(self) -> None:
        """Until every agent holds every one for alive. Raises BenchmarkError."""
        names = {agent.name for agent in self.agents}
        deadline = time.monotonic() + SETTLED_S_MAX
        for agent in self.agents:
            while missing := names - await self.alive(agent):
                if time.monotonic() > deadline:
                    raise BenchmarkError(
                        f"{self.name} has not settled within {SETTLED_S_MAX:g} s: {agent.name} does not hold "
                        f"{', '.join(sorted(missing)[:5])} for alive"
                    )
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Kill all of them and wait until they are gone. Idempotent."""
        for agent in self.agents:
            if agent.running:
                self.kill(agent)
        for agent in self.agents:
            await agent.gone()

    # ------------------------------------------------------------------ watching

    def _line(self, agent: Agent, text: str, at_s: float) -> None:
        subject = self.failed(text)
        if subject is not None and subject not in self._killed:
            self.wrongly_failed.append((agent.name, subject))
        for sightings in self._watching:
            sightings.look(agent.name, text, at_s)

    @contextlib.contextmanager
    def watch(self, by: Collection[Agent], means: Callable[[str], bool], what: str) -> Iterator[Sightings]:
        """Note, inside the block, when each of these agents first writes a line that `means` accepts."""
        sightings = Sightings([agent.name for agent in by], means, what)
        self._watching.append(sightings)
        try:
            yield sightings
        finally:
            self._watching.remove(sightings)


# ---------------------------------------------------------------- processes


def environment() -> dict[str, str]:
    """This process's environment without settings meant for another agent."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("GOSSAMER_", "SERF_"))}


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def started_at(pid: int) -> str:
    """A process's start time, which tells it from a later one with the same pid; "" when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
