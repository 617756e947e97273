"""Active health checks of local services, as their service files ask for them.

Each service has one check that runs every `interval_s`: an HTTP request that must answer 2xx or 3xx, a TCP connection
that must open, or a command that must exit with 0. A result is told when it changes the service's health: the first
one at once, later ones when FAILURES consecutive checks failed or SUCCESSES passed. A service without a check is not
this module's business.

Invariant: at most one attempt of a check is under way, none outlives its timeout, and none outlives its service: a
command that is late is killed with all it started.
"""

import asyncio
import logging
import os
import random
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, assert_never

from peer.catalog import Health

log = logging.getLogger("gossamer.peer")

FAILURES: Final = 2  # to fail: one lost packet or one slow collection must not move traffic
SUCCESSES: Final = 1  # to pass: an application that answers can serve
CHECKS_MAX: Final = 1000
_STATUS_LINE_BYTES_MAX: Final = 8 * 1024
# Of the peer's environment, a command gets neither its join token nor whatever else is named so.
_WITHHELD_PREFIX: Final = "GOSSAMER_"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """GET `path`; passes on 2xx and 3xx, redirects are not followed."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    """Connect; passes when the connection opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecProbe:
    """Run a command, without a shell; passes when it exits with 0."""

    argv: tuple[str, ...]


Probe = HttpProbe | TcpProbe | ExecProbe


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What to check of one service."""

    namespace: str
    name: str
    probe: Probe
    host: str
    port: int
    interval_s: float = 5.0
    timeout_s: float = 1.0

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    passed: bool
    detail: str


OnChange = Callable[[str, str, Health, str], None]


@dataclass(slots=True)
class _Running:
    check: Check
    task: asyncio.Task[None]
    health: Health = "unknown"
    failures: int = 0
    successes: int = 0
    detail: str = ""


class HealthChecks:
    """The checks of this host. `on_change(namespace, name, health, detail)` is called in the event loop."""

    def __init__(self, on_change: OnChange, *, rng: random.Random | None = None) -> None:
        self._on_change = on_change
        self._rng = rng or random.Random()
        self._running: dict[tuple[str, str], _Running] = {}

    def replace(self, checks: Iterable[Check]) -> None:
        """Run exactly these. A check that did not change goes on with what it knows; a changed one starts anew."""
        wanted: dict[tuple[str, str], Check] = {}
        for check in checks:
            if check.key in wanted:
                raise AssertionError(f"two checks for {check.key}")
            wanted[check.key] = check
        if len(wanted) > CHECKS_MAX:
            raise AssertionError(f"{len(wanted)} checks, at most {CHECKS_MAX}")
        for key, running in list(self._running.items()):
            if wanted.get(key) != running.check:
                running.task.cancel()
                del self._running[key]
        for key, check in wanted.items():
            if key not in self._running:
                name = f"check {check.namespace}/{check.name}"
                self._running[key] = _Running(check, asyncio.create_task(self._run(check), name=name))

    def health(self, namespace: str, name: str) -> Health:
        """What is known; "unknown" before the first result and for services without a check."""
        running = self._running.get((namespace, name))
        return running.health if running else "unknown"

    def detail(self, namespace: str, name: str) -> str:
        """What the latest attempt said."""
        running = self._running.get((namespace, name))
        return running.detail if running else ""

    async def close(self) -> None:
        """Stop all checks and wait until nothing of them is left."""
        tasks = [running.task for running in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, check: Check) -> None:
        while True:
            try:
                outcome = await attempt(check)
            except Exception as error:
                # `attempt` foresees what checks meet; a check that ended would say for ever what it said last.
                log.exception("check_broke")
                outcome = Outcome(passed=False, detail=f"the check broke: {error!r}")
            running = self._running.get(check.key)
            if running is None or running.check != check:
                return  # replaced while this attempt was under way
            self._judge(running, outcome)
            # Jitter: many checks of one host, or one check on many hosts, must not fall into step.
            await asyncio.sleep(check.interval_s * self._rng.uniform(0.9, 1.1))

    def _judge(self, running: _Running, outcome: Outcome) -> None:
        running.detail = outcome.detail
        running.failures = 0 if outcome.passed else running.failures + 1
        running.successes = running.successes + 1 if outcome.passed else 0
        before = running.health
        first = before == "unknown"
        if outcome.passed and (first or running.successes >= SUCCESSES):
            running.health = "passing"
        elif not outcome.passed and (first or running.failures >= FAILURES):
            running.health = "failing"
        if running.health != before:
            self._on_change(running.check.namespace, running.check.name, running.health, outcome.detail)


async def attempt(check: Check) -> Outcome:
    """One attempt, ended by its timeout at the latest. Never raises but for cancellation."""
    try:
        async with asyncio.timeout(check.timeout_s):
            match check.probe:
                case HttpProbe(path=path):
                    return await _http(check.host, check.port, path)
                case TcpProbe():
                    return await _tcp(check.host, check.port)
                case ExecProbe(argv=argv):
                    return await _exec(argv)
                case _:
                    assert_never(check.probe)
    except TimeoutError:
        return Outcome(passed=False, detail=f"no answer within {check.timeout_s:g} s")
    except OSError as error:
        return Outcome(passed=False, detail=(error.strerror or str(error) or type(error).__name__).lower())


async def _tcp(host: str, port: int) -> Outcome:
    _, writer = await asyncio.open_connection(host, port)
    writer.transport.abort()  # nothing was said, so nothing is waited for
    return Outcome(passed=True, detail="connected")


async def _http(host: str, port: int, path: str) -> Outcome:
    reader, writer = await asyncio.open_connection(host, port, limit=_STATUS_LINE_BYTES_MAX)
    try:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: gossamer-check\r\nAccept: */*\r\n"
            "Connection: close\r\n\r\n".encode("latin-1", "replace")
        )
        line = await reader.readuntil(b"\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return Outcome(passed=False, detail="the answer is not HTTP")
    finally:
        writer.transport.abort()
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or not code.isdigit() or len(code) != 3:
        return Outcome(passed=False, detail="the answer is not HTTP")
    return Outcome(passed=code[:1] in (b"2", b"3"), detail=f"HTTP {code.decode()}")


async def _exec(argv: tuple[str, ...]) -> Outcome:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD_PREFIX)}
    nothing = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=nothing, stdout=nothing, stderr=nothing, env=environment, start_new_session=True
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
            await asyncio.shield(process.wait())
    if code < 0:
        return Outcome(passed=False, detail=f"killed by signal {-code}")
    return Outcome(passed=code == 0, detail=f"exit code {code}")


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended between the look and the kill
