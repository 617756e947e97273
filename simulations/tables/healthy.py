"""Table `healthy`: healthy meshes at 5 % loss for as long as there is time, in search of a false verdict.

Every suspicion in such a mesh is wrong. What stands between it and a false verdict is the refutation, and the margin
is how much of the suspect's time was left when the refutation arrived at a member: the time is at least the
floor of a suspicion that all expected observers share (gossip/suspicion.py), so the margin taken against that floor is
one nobody fell short of. The distribution of both is what is extrapolated to a million node-hours
(simulations/meanfield), which cannot be simulated event by event.

How long each profile is watched follows from the processor time it may have: the world is run in slices until that is
used up, so of this table, unlike of the others, the length depends on the machine. Rates do not.

Invariant: no member is down or slow; whatever is counted is a mistake.
"""

import time
from collections.abc import Iterator
from typing import Final

from gossip.member import State
from gossip.suspicion import confirmations_expected, timeout_s
from simulations.tables.ground import warm
from simulations.tables.summary import quantile
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table
from simulations.tables.watch import Watch
from simulations.world import World

NODES_HEALTHY: Final = 128
LOSS: Final = 0.05
SLICE_S: Final = 60.0


def healthy(options: Options) -> Iterator[Row]:
    """The rows of the table. With `runs`, so many slices of a minute instead of the processor time."""
    for nodes in options.sizes((NODES_HEALTHY,)):
        for profile in options.profiles:
            yield _row(options, nodes, profile)


def _row(options: Options, nodes: int, profile: str) -> Row:
    begun = time.process_time()
    with warm(nodes, profile=profile, seed=options.seed) as world:
        world.network.set_loss(LOSS)
        slices = 0
        with Watch(world) as watch:
            while slices < options.runs if options.runs else time.process_time() - begun < options.cpu_s:
                world.run(SLICE_S)
                slices += 1
        everybody = {host.id for host in world.hosts}
        hours = nodes * slices * SLICE_S / 3600
        lasted = _refuted_after(watch)
        floor_s = _floor_s(world)
        accused = watch.accusations(everybody)
        return {
            "nodes": nodes,
            "profile": profile,
            "node_hours": hours,
            "accused": accused,
            "per_hour": accused / hours,
            "refuted": len(lasted),
            "verdicts": watch.count(State.DEAD, everybody),
            "floor": floor_s,
            "lasted_p50": quantile(lasted, 0.5),
            "lasted_p99": quantile(lasted, 0.99),
            "lasted_max": quantile(lasted, 1.0),
            "margin_min": None if not lasted else floor_s - max(lasted),
        }


def _refuted_after(watch: Watch) -> list[float]:
    """For each (observer, suspicion) that ended well, how long it lasted."""
    begun: dict[tuple[int, bytes], float] = {}
    lasted = []
    for move in watch.moves:
        pair = move.observer, move.subject
        if move.state is State.SUSPECT:
            begun.setdefault(pair, move.at)
        elif move.state is State.ALIVE and pair in begun:
            lasted.append(move.at - begun.pop(pair))
    return lasted


def _floor_s(world: World) -> float:
    """The least time a suspect of this mesh is given."""
    members = len(world.hosts)
    able = members - 1
    accusers = confirmations_expected(world.config, able) + 1
    return timeout_s(world.config, members=members, able=able, accusers=accusers)


HEALTHY: Final = Table(
    name="healthy",
    title="A healthy mesh at 5 % loss",
    about=(
        "Nobody is slow or dead, 5 % of all datagrams are lost, and of the segments of streams. How often a member was "
        "suspected, how long it took at each observer until that was refuted, and how often it was not refuted in time."
    ),
    columns=(
        NODES,
        PROFILE,
        Column(key="node_hours", title="node-hours", digits=1),
        Column(key="accused", title="suspicions"),
        Column(key="per_hour", title="per node-hour", digits=4),
        Column(key="refuted", title="refuted, at observers"),
        Column(key="verdicts", title="false verdicts"),
        Column(key="floor", title="least time (s)", digits=2),
        Column(key="lasted_p50", title="refuted after, p50 (s)", digits=3),
        Column(key="lasted_p99", title="p99 (s)", digits=3),
        Column(key="lasted_max", title="max (s)", digits=3),
        Column(key="margin_min", title="least margin (s)", digits=2),
    ),
    measure=healthy,
    notes=(
        "The margin is what was left of the least time a suspect gets, with all expected accusers; most had more.",
        "--cpu-s sets how long each profile is watched.",
    ),
)
