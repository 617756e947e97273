"""Table `slow`: the grid of the Lifeguard paper (Dadgar, Phillips and Currey, DSN 2018, section 5).

C of the members are blocked for D, all at the same time, then run for an interval, and so on: as processes on a host
with too few processors. They are slow, not dead, and everybody else is healthy. A false positive is a verdict of death
about a healthy member; FP- counts those at healthy members, which are what makes a healthy mesh route around
healthy hosts. Each (observer, subject) verdict counts as one, as there.

Blocked means that messages stand still while timers run (simulations/tables/anomaly.py), or, with `--large`, that the
process is stopped altogether (SIGSTOP), which is kinder: it knows afterwards that it was away.

Invariant: for one C and D and run both profiles block the same members at the same times.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gossip.member import State
from simulations.faults import Slow, happen
from simulations.randomness import stream
from simulations.tables.anomaly import stand_still
from simulations.tables.ground import warm
from simulations.tables.summary import median
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table, Value
from simulations.tables.watch import Watch
from simulations.world import World

NODES_SLOW: Final = 64
NODES_LARGE: Final = 128  # as in the paper
SLOW: Final = (4, 16)
SLOW_LARGE: Final = (4, 8, 16, 32)
BLOCKED_S: Final = (0.128, 0.512, 2.048, 8.192, 32.768)
INTERVALS_S: Final = (0.064, 1.024, 0.001, 4.096, 0.256)  # run k takes the k-th
LASTS_S: Final = 60.0
LASTS_LARGE_S: Final = 120.0
RUNS: Final = 1
RUNS_LARGE: Final = 2
TOTAL: Final = "all"
MESSAGES: Final = "messages"
PROCESS: Final = "process"


@dataclass(slots=True)
class _Cell:
    """What happened with so many slow members, blocked for so long, in all runs."""

    false_positives: int = 0
    at_healthy: int = 0
    accused: int = 0
    first: list[float] = field(default_factory=list)
    everywhere: list[float] = field(default_factory=list)

    def add(self, other: "_Cell") -> None:
        self.false_positives += other.false_positives
        self.at_healthy += other.at_healthy
        self.accused += other.accused
        self.first += other.first
        self.everywhere += other.everywhere

    def row(self, profile: str, what: str, nodes: int, slow: Value, blocked_s: Value) -> Row:
        return {
            "what": what,
            "nodes": nodes,
            "slow": slow,
            "blocked_s": blocked_s,
            "profile": profile,
            "false_positives": self.false_positives,
            "at_healthy": self.at_healthy,
            "accused": self.accused,
            "first": median(self.first),
            "everywhere": median(self.everywhere),
        }


def slow(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for nodes in options.sizes((NODES_LARGE if options.large else NODES_SLOW,)):
        for what in (MESSAGES, PROCESS) if options.large else (MESSAGES,):
            yield from _grid(options, nodes, what)


def _grid(options: Options, nodes: int, what: str) -> Iterator[Row]:
    totals = {profile: _Cell() for profile in options.profiles}
    runs = options.times(RUNS_LARGE if options.large else RUNS)
    counts = SLOW_LARGE if options.large else SLOW
    lasts_s = LASTS_LARGE_S if options.large else LASTS_S
    for count, blocked_s in [(0, 0.0), *((c, d) for c in counts for d in BLOCKED_S)]:
        if count >= nodes:
            continue
        for profile in options.profiles:
            cell = _Cell()
            for run in range(runs if count else 1):
                _block(cell, options.seed, nodes, profile, what, count, blocked_s, run, lasts_s)
            totals[profile].add(cell)
            yield cell.row(profile, what, nodes, count, blocked_s)
    for profile, total in totals.items():
        yield total.row(profile, what, nodes, TOTAL, TOTAL)
    if {"lan", "memberlist"} <= totals.keys():
        yield _ratio(totals["lan"], totals["memberlist"], what, nodes)


def _ratio(ours: _Cell, theirs: _Cell, what: str, nodes: int) -> Row:
    return {
        "what": what,
        "nodes": nodes,
        "slow": TOTAL,
        "blocked_s": TOTAL,
        "profile": "lan / memberlist",
        "false_positives": _share(ours.false_positives, theirs.false_positives),
        "at_healthy": _share(ours.at_healthy, theirs.at_healthy),
        "accused": _share(ours.accused, theirs.accused),
    }


def _share(ours: int, theirs: int) -> float | None:
    return round(ours / theirs, 4) if theirs else None


def _block(
    cell: _Cell,
    seed: int,
    nodes: int,
    profile: str,
    what: str,
    count: int,
    blocked_s: float,
    run: int,
    lasts_s: float,
) -> None:
    rng = stream(seed, "table slow", nodes, count, str(blocked_s), run)
    with warm(nodes, profile=profile, seed=seed + run) as world:
        slow_ones = frozenset(rng.sample(range(nodes), count))
        healthy = [host for host in world.hosts if host.index not in slow_ones]
        subjects, observers = {host.id for host in healthy}, {host.index for host in healthy}
        world.run(rng.random())
        since = world.now
        with Watch(world) as watch:
            if count:
                _begin(world, slow_ones, what, blocked_s, INTERVALS_S[run % len(INTERVALS_S)])
            world.run(lasts_s)
        cell.false_positives += watch.count(State.DEAD, subjects)
        cell.at_healthy += watch.count(State.DEAD, subjects, observers=observers)
        cell.accused += watch.accusations(subjects)
        for index in sorted(slow_ones):  # blocked for long is as good as dead: how long until it is found out
            seen = watch.first(State.DEAD, world.hosts[index].id, since=since)
            known = [s for observer, s in seen.items() if observer in observers and s <= blocked_s]
            cell.first += [min(known)] if known else []
            cell.everywhere += [max(known)] if len(known) == len(observers) else []


def _begin(world: World, slow_ones: frozenset[int], what: str, blocked_s: float, running_s: float) -> None:
    if what == MESSAGES:
        stand_still(world, slow_ones, blocked_s=blocked_s, running_s=running_s)
        return
    for index in sorted(slow_ones):
        happen(world, Slow(host=index, blocked_s=blocked_s, running_s=running_s))


SLOW_GRID: Final = Table(
    name="slow",
    title="Slow members (the Lifeguard grid)",
    about=(
        "So many of the members are blocked for so long, all at once, then run for an interval, over and over for "
        "60 s (with --large 120 s, in a mesh of 128, with all of the grid). Run 1 lets them run for 64 ms, run 2 for "
        "1.024 s, further ones for 1 ms, 4.096 s and 256 ms. FP are verdicts of death about members that are not "
        "slow, FP- those of them at members that are not slow, over all pairs of observer and subject. Accused "
        "counts the suspicions of members that are not slow, however many heard of them."
    ),
    columns=(
        Column(key="what", title="blocked"),
        NODES,
        Column(key="slow", title="slow"),
        Column(key="blocked_s", title="for (s)"),
        PROFILE,
        Column(key="false_positives", title="FP"),
        Column(key="at_healthy", title="FP-"),
        Column(key="accused", title="accused"),
        Column(key="first", title="blocked one found, median (s)", digits=2),
        Column(key="everywhere", title="by all, median (s)", digits=2),
    ),
    measure=slow,
    notes=(
        "Blocked messages: what it sends and is sent waits until the block ends, its timers run. Process: SIGSTOP.",
        "A blocked member counts as found if it was declared dead in the first block; seconds from its beginning.",
    ),
)
