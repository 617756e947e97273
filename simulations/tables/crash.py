"""Table `crash`: how long until a kill -9 is seen, by the first, by each, by all.

A random member of a settled mesh is killed at a random moment; every other member is watched until it has declared it
dead. Then the victim is started again and the mesh comes to rest before the next one dies, so that each crash meets
the same mesh. Above RESTARTED_NODES_MAX the dead stay dead: telling one who starts from nothing thousands of members
takes longer to simulate than its death, and some dead among a thousand make no difference.

Invariant: a verdict about a member that runs is counted as false, whenever it comes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gossip.member import State
from simulations.host import Host
from simulations.randomness import stream
from simulations.tables.ground import warm
from simulations.tables.summary import largest, median, quantile
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table
from simulations.tables.watch import Awaited, Watch
from simulations.world import World

CRASHES: Final = 20
CRASHES_LARGE: Final = 3
LARGE_NODES: Final = 3000
RESTARTED_NODES_MAX: Final = 300
WITHIN_S: Final = 180.0
REST_S: Final = 2.0


@dataclass(slots=True)
class _Tally:
    """Seconds of all crashes of one mesh."""

    each: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    everybody: list[float] = field(default_factory=list)
    false_verdicts: int = 0
    false_suspicions: int = 0


def crash(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for nodes in options.sizes((32, 128, 1000), (10_000,)):
        for profile in options.profiles:
            crashes = options.times(CRASHES if nodes < LARGE_NODES else CRASHES_LARGE)
            tally = _Tally()
            with warm(nodes, profile=profile, seed=options.seed) as world:
                rng = stream(options.seed, "table crash", nodes)
                for victim in rng.choices(range(1, nodes), k=crashes):
                    world.run(REST_S + rng.random())
                    if world.hosts[victim].up:
                        _kill(world, world.hosts[victim], tally)
            yield {
                "profile": profile,
                "nodes": nodes,
                "crashes": len(tally.first),
                "first": median(tally.first),
                "p50": median(tally.each),
                "p99": quantile(tally.each, 0.99),
                "all_median": median(tally.everybody),
                "all_max": largest(tally.everybody),
                "false_verdicts": tally.false_verdicts,
                "false_suspicions": tally.false_suspicions,
            }


def _kill(world: World, victim: Host, tally: _Tally) -> None:
    """Kill one, wait until all know, and, if it does not take too long, start it again."""
    world.crash(victim)
    healthy = frozenset(host.id for host in world.live())
    observers = frozenset(host.index for host in world.live())
    with Watch(world) as watch:
        with Awaited(world, victim.id, State.DEAD, observers) as verdicts:
            took_s = world.run_until(verdicts.complete, within_s=WITHIN_S)
        if len(world.hosts) <= RESTARTED_NODES_MAX:
            with Awaited(world, victim.id, State.ALIVE, observers) as back:
                world.restart(victim)
                world.run_until(back.complete, within_s=WITHIN_S)
        tally.false_verdicts += watch.count(State.DEAD, healthy)
        tally.false_suspicions += watch.accusations(healthy)
    seen = list(verdicts.seen.values())
    tally.each += seen
    tally.first += [min(seen)] if seen else []
    tally.everybody += [max(seen)] if took_s is not None else []


CRASH: Final = Table(
    name="crash",
    title="A member is killed (kill -9)",
    about=(
        "One random member of a settled, idle mesh without loss is killed at a random moment, one after the other. "
        "Seconds from the kill; p50 and p99 are over all pairs of crash and observer. Up to 300 nodes a victim is "
        "started again once all others have declared it dead; above, the dead stay dead."
    ),
    columns=(
        NODES,
        PROFILE,
        Column(key="crashes", title="crashes"),
        Column(key="first", title="first verdict, median (s)", digits=2),
        Column(key="p50", title="seen dead, p50 (s)", digits=2),
        Column(key="p99", title="seen dead, p99 (s)", digits=2),
        Column(key="all_median", title="by all, median (s)", digits=2),
        Column(key="all_max", title="by all, max (s)", digits=2),
        Column(key="false_verdicts", title="false verdicts"),
        Column(key="false_suspicions", title="false suspicions"),
    ),
    measure=crash,
    notes=("Random push-pull is off above 300 nodes: it comes too rarely to be seen in these times.",),
)
