"""The exact tier as `simulations.validation.Tier`: seconds until an update or a death is known, by the node itself.

Each run is one update or one crash in a settled warm mesh of its own. One mesh is faster or slower than another in all
that happens in it, by the ids and phases of its nodes, so that runs that share a mesh err together. And nodes knock at
the door of a dead one for ever, and these timers start the gossip timer anew as well, which would slow the next crash's
news by a third.

Invariant: with the same arguments it gives the same values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from crdt.record import Record
from gossip.clockwork import _REAP_INTERVAL_S as REAP_INTERVAL_S
from gossip.config import GossipConfig
from gossip.member import State
from peer.messages import Draft, Output, Persist, Written
from simulations.faults import NOTE
from simulations.host import Host
from simulations.meanfield.arrays import Floats
from simulations.meanfield.parameters import Network
from simulations.network import Latency
from simulations.randomness import stream
from simulations.tables.ground import forget
from simulations.tables.watch import Awaited
from simulations.validation import Crash
from simulations.world import World

WITHIN_S: Final = 180.0
SETTLE_S: Final = 3.0


@dataclass(slots=True)
class _Update:
    record: Record | None = None
    since: float = 0.0  # when it was on its author's disk: only then it is told
    seen: dict[int, float] = field(default_factory=dict)


class Exact:
    """The node itself."""

    def updates(
        self, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
    ) -> list[Floats]:
        """Seconds until each other node has a record, in no order."""
        rng = stream(seed, "exact updates")
        values: list[Floats] = []
        for run in range(runs):
            world = settled(members, seed + 1000 * run, config, network)
            world.run(REAP_INTERVAL_S * rng.random())
            values.append(_values(_spread(world, rng.choice(world.live())), members - 1))
            forget(world)
        return values

    def crashes(
        self, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
    ) -> list[Crash]:
        """Seconds until each other node suspects a crashed one, and knows that it is dead, in no order."""
        rng = stream(seed, "exact crashes")
        values: list[Crash] = []
        for run in range(runs):
            world = settled(members, seed + 1000 * run, config, network)
            world.run(REAP_INTERVAL_S * rng.random())
            values.append(_crash(world, rng.choice(world.live())))
            forget(world)
        return values


EXACT: Final = Exact()


def settled(members: int, seed: int, config: GossipConfig, network: Network) -> World:
    """A mesh of nodes that know one another, in a network whose loss begins now. It is given back with `forget`."""
    low, high = network.latency_s
    within = Latency(base_s=low, jitter_s=high - low)
    world = World(seed=seed, config=config, size=members, crypto="model", within=within)
    for _ in range(members):
        world.add()
    world.start_warm(world.hosts)
    world.run(SETTLE_S)
    world.network.set_loss(network.loss)
    return world


def _values(seen: Mapping[int, float], observers: int) -> Floats:
    """The seconds by observer; inf for those that never saw it."""
    return np.array([*seen.values(), *[math.inf] * (observers - len(seen))])


def _spread(world: World, author: Host) -> dict[int, float]:
    """Seconds until each other node has a record of the author's."""
    update, others = _Update(), len(world.live()) - 1

    def took_in(host: Host, output: Output) -> None:
        if type(output) is not Persist or update.record is None or host is author:
            return
        if any(record.dot == update.record.dot for record in output.put):
            update.seen.setdefault(host.index, world.now - update.since)

    def written(host: Host, answer: Written) -> None:
        if host is author and answer.records:
            update.record, update.since = answer.records[0], world.now

    world.on_output = took_in
    world.on_written.append(written)
    world.write(author, Draft(kind=NOTE, key="update", payload=b"." * 200))
    world.run_until(lambda: len(update.seen) == others, within_s=WITHIN_S, grain_s=0.02)
    world.on_written.remove(written)
    world.on_output = None
    return update.seen


def _crash(world: World, victim: Host) -> Crash:
    world.crash(victim)
    observers = frozenset(host.index for host in world.live())
    with (
        Awaited(world, victim.id, State.SUSPECT, observers) as suspected,
        Awaited(world, victim.id, State.DEAD, observers) as dead,
    ):
        world.run_until(dead.complete, within_s=WITHIN_S)
    return Crash(_values(suspected.seen, len(observers)), _values(dead.seen, len(observers)))
