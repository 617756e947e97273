"""What is measured of a gossip system: a killed member noticed, an update spread, and what the agents cost when idle.

Times run from what this process did (the signal sent, the request begun) to the line in which an agent says that it
knows. Each kill and each update begins at a random moment of the protocol's period; the choices come from a seed and
are the same for every system of a round.
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.gossip_agents import BenchmarkError, System
from benchmarks.gossip_systems import GOSSIP_PORT
from benchmarks.gossip_wire import Tap

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PERIOD_S: Final = 1.0  # of probing, in both systems' profile lan
CALM_S: Final = (
    3.0  # before a kill: news of the last return is told, and nobody doubts its own health any more
)
FAILED_S_MAX: Final = 60.0
UPDATED_S_MAX: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How long something took to reach each of several agents."""

    subject: str  # who was killed, or who published
    first_s: float
    median_s: float
    last_s: float
    acknowledged_s: float | None = None  # of an update: when the publisher had its answer

    @classmethod
    def of(
        cls,
        subject: str,
        began_s: float,
        seen_at_s: Collection[float],
        acknowledged_at_s: float | None = None,
    ) -> "Spread":
        took = [at_s - began_s for at_s in seen_at_s]
        return cls(
            subject=subject,
            first_s=min(took),
            median_s=statistics.median(took),
            last_s=max(took),
            acknowledged_s=None if acknowledged_at_s is None else acknowledged_at_s - began_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Means over all agents, per agent. A figure is None where it could not be had.

    `control` is the process that gossips; `worker` the rest of the agent, where there is a rest. PSS shares the pages
    that processes have in common among them.
    """

    seconds: float
    control_cpu_percent: float
    worker_cpu_percent: float | None
    cpu_percent: float
    control_pss_mib: float
    worker_pss_mib: float | None
    pss_mib: float
    datagrams_per_s: float | None
    udp_bytes_per_s: float | None
    tcp_bytes_per_s: float | None
    bytes_per_s: float | None
    others_cpu_percent: float  # what everything else on the machine used, of one core


async def kills(system: System, count: int, rng: random.Random) -> list[Spread]:
    """kill -9 one agent after another (never the first, which the others join); each is started again."""
    spreads = []
    for _ in range(count):
        victim = rng.choice(system.agents[1:])
        await asyncio.sleep(CALM_S + rng.uniform(0, PERIOD_S))
        survivors = [agent for agent in system.agents if agent is not victim]

        def means(text: str, subject: str = victim.name) -> bool:
            return system.failed(text) == subject

        with system.watch(survivors, means, f"the death of {victim.name}") as seen:
            killed_at_s = system.kill(victim)
            await seen.wait(FAILED_S_MAX)
        spreads.append(Spread.of(victim.name, killed_at_s, seen.at_s.values()))
        await system.revive(victim)
    return spreads


async def updates(system: System, count: int, rng: random.Random) -> list[Spread]:
    """Publish one update after another, each at an agent drawn anew; how long until the others have it."""
    spreads = []
    for number in range(1, count + 1):
        author = rng.choice(system.agents)
        await asyncio.sleep(rng.uniform(0, PERIOD_S))
        others = [agent for agent in system.agents if agent is not author]

        def means(text: str, number: int = number) -> bool:
            return system.has_update(text, number)

        with system.watch(others, means, f"update {number} of {author.name}") as seen:
            sent_at_s = time.monotonic()
            await system.publish(author, number)
            acknowledged_at_s = time.monotonic()
            await seen.wait(UPDATED_S_MAX)
        spreads.append(Spread.of(author.name, sent_at_s, seen.at_s.values(), acknowledged_at_s))
    return spreads


async def idle(system: System, seconds: float) -> Idle:
    """Ask nothing of the agents for a while, and see what they spend and send."""
    trees = [(agent.pid, agent.workers) for agent in system.agents]
    controls = [control for control, _ in trees]
    workers = [worker for _, each in trees for worker in each]
    tap = Tap.open(system.network, GOSSIP_PORT)
    traffic = None
    try:
        began_s = time.monotonic()
        machine, before = machine_busy_s(), {pid: cpu_s(pid) for pid in (*controls, *workers)}
        await asyncio.sleep(seconds)
        spent = {pid: cpu_s(pid) - then for pid, then in before.items()}
        machine = machine_busy_s() - machine
        took_s = time.monotonic() - began_s
    finally:
        if tap is not None:
            traffic = tap.close()
    if traffic is not None and traffic.lost:
        traffic = None  # an undercount is no count
    size = len(system.agents)
    share = size * took_s

    def percent(pids: list[int]) -> float:
        return 100 * sum(spent[pid] for pid in pids) / share

    control_pss, worker_pss = sum(map(pss_mib, controls)) / size, sum(map(pss_mib, workers)) / size
    return Idle(
        seconds=took_s,
        control_cpu_percent=percent(controls),
        worker_cpu_percent=percent(workers) if workers else None,
        cpu_percent=percent([*controls, *workers]),
        control_pss_mib=control_pss,
        worker_pss_mib=worker_pss if workers else None,
        pss_mib=control_pss + worker_pss,
        datagrams_per_s=traffic.datagrams / share if traffic else None,
        udp_bytes_per_s=traffic.udp_bytes / share if traffic else None,
        tcp_bytes_per_s=traffic.tcp_bytes / share if traffic else None,
        bytes_per_s=(traffic.udp_bytes + traffic.tcp_bytes) / share if traffic else None,
        others_cpu_percent=100 * max(0.0, machine - sum(spent.values())) / took_s,
    )


# ---------------------------------------------------------------- /proc


def cpu_s(pid: int) -> float:
    """User and system time of a process so far. Raises BenchmarkError when it has ended."""
    fields = _of_process(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def machine_busy_s() -> float:
    """Time all cores have spent on anything so far: user, nice, system, interrupts."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[index]) for index in (0, 1, 2, 5, 6)) / TICKS_PER_S


def pss_mib(pid: int) -> float:
    """Proportional set size: a page that k processes share counts 1/k in each. Raises BenchmarkError."""
    for line in _of_process(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise BenchmarkError(f"/proc/{pid}/smaps_rollup has no line Pss")


def _of_process(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_text()
    except OSError as error:
        raise BenchmarkError(f"process {pid} cannot be looked at: {error}; has it ended?") from error
