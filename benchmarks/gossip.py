"""Gossamer's peers beside Serf's agents: a killed member noticed, an update spread, and what idling costs.

    python -m benchmarks.gossip [--peers 30] [--rounds 2] [--kills 5] [--events 20] [--idle-s 30] [-o table|json]

Real processes on this machine's loopback addresses (127.20.x.y and 127.21.x.y), profile `lan`. One system runs at a
time, from nothing to nothing: start, idle, updates, kills, all processes gone. A round runs both, in an order that
turns over from round to round, so that neither always has the cooler or the quieter machine. What is observed, and
where the two are not alike, is in `gossip_systems.py`; how agents are watched in `gossip_agents.py`.

Before the idle stretch the agents are left alone for `--calm-s`, for the news of the last join to be told. Serf
exchanges its state over TCP every 30 s per agent: a shorter stretch misses a part of that.

Progress goes to standard error, the result to standard output.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import random
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.gossip_agents import BenchmarkError, System
from benchmarks.gossip_measures import Idle, Spread, idle, kills, updates
from benchmarks.gossip_systems import Gossamer, Serf

SYSTEMS: Final[dict[str, type[Gossamer] | type[Serf]]] = {"gossamer": Gossamer, "serf": Serf}
OURS, THEIRS = "gossamer", "serf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One system's part of one round. `wrongly_failed`: how often an agent declared dead who was not killed."""

    system: str
    round: int
    start_s: float  # of all agents, until each saw all
    idle: Idle | None
    updates: list[Spread]
    kills: list[Spread]
    wrongly_failed: int


async def measure(kind: type[Gossamer] | type[Serf], number: int, options: argparse.Namespace) -> Block:
    rng = random.Random(f"{options.seed}/{number}")  # the same choices for each system
    system: System = kind(options.peers)
    async with system:
        began_s = time.monotonic()
        await system.start()
        start_s = time.monotonic() - began_s
        told(f"  {options.peers} agents see each other after {start_s:.1f} s")
        idled = None
        if options.idle_s > 0:
            await asyncio.sleep(options.calm_s)
            idled = await idle(system, options.idle_s)
            told(f"  idle: {idled.cpu_percent:.2f} % of a core, {idled.pss_mib:.1f} MiB an agent")
        spread = await updates(system, options.events, rng)
        if spread:
            told(f"  updates: last of all after {1000 * statistics.median(s.last_s for s in spread):.0f} ms")
        noticed = await kills(system, options.kills, rng)
        if noticed:
            told(f"  kills: median observer after {statistics.median(s.median_s for s in noticed):.2f} s")
        return Block(
            system=system.name,
            round=number,
            start_s=start_s,
            idle=idled,
            updates=spread,
            kills=noticed,
            wrongly_failed=len(system.wrongly_failed),
        )


async def run(options: argparse.Namespace) -> list[Block]:
    kinds = [SYSTEMS[name] for name in options.only or SYSTEMS]
    blocks = []
    for number in range(1, options.rounds + 1):
        for kind in kinds if number % 2 else kinds[::-1]:
            told(f"round {number}: {kind.name}")
            blocks.append(await measure(kind, number, options))
    return blocks


def told(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the result


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table: how it is called, its unit there, and its samples in a block. `scale` makes the unit of
    the samples, which the name ends in, into that of the table."""

    name: str
    label: str
    unit: str
    samples: Callable[[Block], Sequence[float | None]]
    scale: float = 1.0


def _of_idle(name: str, label: str, unit: str) -> Figure:
    return Figure(
        name=name,
        label=label,
        unit=unit,
        samples=lambda block: [getattr(block.idle, name)] if block.idle is not None else [],
    )


FIGURES: Final = (
    Figure(name="killed_first_s", label="kill -9 seen by the first", unit="s",
           samples=lambda block: [each.first_s for each in block.kills]),
    Figure(name="killed_median_s", label="kill -9 seen by the median", unit="s",
           samples=lambda block: [each.median_s for each in block.kills]),
    Figure(name="killed_last_s", label="kill -9 seen by all", unit="s",
           samples=lambda block: [each.last_s for each in block.kills]),
    Figure(name="update_median_s", label="update at the median, from sent", unit="ms", scale=1000,
           samples=lambda block: [each.median_s for each in block.updates]),
    Figure(name="update_last_s", label="update at all, from sent", unit="ms", scale=1000,
           samples=lambda block: [each.last_s for each in block.updates]),
    Figure(name="update_acknowledged_s", label="update acknowledged to its author", unit="ms", scale=1000,
           samples=lambda block: [each.acknowledged_s for each in block.updates]),
    _of_idle("cpu_percent", "idle CPU of an agent", "%"),
    _of_idle("control_cpu_percent", "  of its gossiping process", "%"),
    _of_idle("worker_cpu_percent", "  of its worker", "%"),
    _of_idle("pss_mib", "memory of an agent (PSS)", "MiB"),
    _of_idle("control_pss_mib", "  of its gossiping process", "MiB"),
    _of_idle("worker_pss_mib", "  of its worker", "MiB"),
    _of_idle("bytes_per_s", "idle traffic of an agent", "B/s"),
    _of_idle("udp_bytes_per_s", "  in datagrams", "B/s"),
    _of_idle("tcp_bytes_per_s", "  in streams", "B/s"),
    _of_idle("datagrams_per_s", "idle datagrams of an agent", "/s"),
    Figure(name="start_s", label="start until each sees all", unit="s", samples=lambda block: [block.start_s]),
    Figure(name="wrongly_failed", label="declared failed, never killed", unit="",
           samples=lambda block: [block.wrongly_failed]),
    _of_idle("others_cpu_percent", "meanwhile, everything else here", "%"),
)  # fmt: skip


def summary(blocks: Sequence[Block]) -> dict[str, dict[str, Any]]:
    """figure -> system -> median, min, max, number of samples; and the ratio of the medians where it is defined."""
    found: dict[str, dict[str, Any]] = {}
    for figure in FIGURES:
        row: dict[str, Any] = {}
        for name in dict.fromkeys(block.system for block in blocks):
            taken = [s for b in blocks if b.system == name for s in figure.samples(b) if s is not None]
            if taken:
                row[name] = {
                    "median": statistics.median(taken),
                    "min": min(taken),
                    "max": max(taken),
                    "samples": len(taken),
                }
        if OURS in row and THEIRS in row and row[THEIRS]["median"]:
            row["ratio"] = row[OURS]["median"] / row[THEIRS]["median"]
        found[figure.name] = row
    return found


def table(found: dict[str, dict[str, Any]], systems: Sequence[str]) -> str:
    head = f"{'median (min to max)':34}" + "".join(f"{name:>27}" for name in systems) + f"{'ratio':>8}"
    lines = [head, "-" * len(head)]
    for figure in FIGURES:
        row = found[figure.name]
        if not row:
            continue
        cells = "".join(f"{_cell(row.get(name), figure):>27}" for name in systems)
        ratio = f"{row['ratio']:8.2f}" if "ratio" in row else f"{'-':>8}"
        lines.append(f"{figure.label:34}{cells}{ratio}")
    return "\n".join(lines)


def _cell(value: dict[str, float] | None, figure: Figure) -> str:
    if value is None:
        return "-"
    low, mid, high = (_digits(value[key] * figure.scale) for key in ("min", "median", "max"))
    spread = f" ({low} to {high})" if value["samples"] > 1 else ""
    return f"{mid} {figure.unit}".rstrip() + spread


def _digits(value: float) -> str:
    """Three digits of it."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def report(blocks: Sequence[Block], options: argparse.Namespace, about: dict[str, Any]) -> None:
    systems = list(dict.fromkeys(block.system for block in blocks))
    versions = {name: SYSTEMS[name].version() for name in systems}
    found = summary(blocks)
    command = "python -m benchmarks.gossip " + shlex.join(sys.argv[1:])
    if options.output == "json":
        result = {
            "command": command.rstrip(),
            "date": time.strftime("%Y-%m-%d"),
            "machine": about,
            "versions": versions,
            "options": vars(options),
            "summary": found,
            "blocks": [dataclasses.asdict(block) for block in blocks],
        }
        print(json.dumps(result, indent=2))
        return
    print(
        f"{options.peers} agents a system, profile lan, {options.rounds} rounds; ratio: {OURS} / {THEIRS}\n"
    )
    print(table(found, systems))
    print("\n" + "; ".join(f"{name} {version}" for name, version in versions.items()))
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(command)
    if any(block.idle is not None and block.idle.bytes_per_s is None for block in blocks):
        print("idle traffic was not measured: that needs CAP_NET_RAW (run as root)")


# ---------------------------------------------------------------- the command line


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gossip",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", type=int, default=30, help="agents of each system (default 30)")
    parser.add_argument("--rounds", type=int, default=2, help="each runs both systems (default 2)")
    parser.add_argument("--kills", type=int, default=5, help="a system a round (default 5)")
    parser.add_argument("--events", type=int, default=20, help="updates a system a round (default 20)")
    parser.add_argument("--idle-s", type=float, default=30.0, help="length of the idle stretch; 0: none")
    parser.add_argument("--calm-s", type=float, default=10.0, help="left alone before it (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the choices (default 1)")
    parser.add_argument("--only", action="append", choices=tuple(SYSTEMS), help="one system; repeatable")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    if not 3 <= options.peers <= 1000 or options.rounds < 1 or min(options.kills, options.events) < 0:
        parser.error("--peers is 3 to 1000, --rounds at least 1, --kills and --events not negative")
    return options


async def interruptible(options: argparse.Namespace) -> list[Block]:
    """`run`, ended in order by SIGTERM and SIGHUP as by Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run(options)


def main() -> int:
    options = parse()
    about = machine()
    try:
        if THEIRS in (options.only or SYSTEMS):
            Serf.program()  # rather than when the first system has been measured
        blocks = asyncio.run(interruptible(options))
    except BenchmarkError as error:
        told(f"error: {error}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        told("interrupted; all agents have been ended")
        return 130
    report(blocks, options, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
