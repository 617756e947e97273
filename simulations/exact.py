"""The exact tier as `simulations.validation.Samples`: seconds until an update or a death is known, by the node itself.

Each run is one update or one crash in a settled warm mesh; several runs share a mesh, one after the other, since what
came before has died away after a few seconds of rest. A crashed node stays down, so a mesh of n gives at most n / 10
crashes before the next one is made.

Invariant: with the same arguments it gives the same values.
"""

import math
from dataclasses import dataclass, field
from typing import Final, assert_never

import numpy as np

from crdt.record import Record
from gossip.config import GossipConfig
from gossip.member import State
from peer.messages import Draft, Output, Persist, Written
from simulations.faults import NOTE
from simulations.host import Host
from simulations.meanfield.arrays import Floats
from simulations.meanfield.parameters import Network
from simulations.network import Latency
from simulations.randomness import stream
from simulations.tables.watch import Awaited
from simulations.validation import Question
from simulations.world import World

WITHIN_S: Final = 180.0
REST_S: Final = 3.0
SETTLE_S: Final = 5.0
CRASHES_PER_MESH: Final = 0.1  # of its nodes


@dataclass(slots=True)
class _Update:
    record: Record | None = None
    since: float = 0.0  # when it was on its author's disk: only then it is told
    seen: dict[int, float] = field(default_factory=dict)


def exact_samples(
    question: Question, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
) -> Floats:
    """The node itself as `Samples`."""
    values: list[float] = []
    done = 0
    while done < runs:
        world = _warm(members, seed + 1000 * done, config, network)
        rng = stream(seed, "exact", done)
        crashed, crashes_max = 0, max(1, int(members * CRASHES_PER_MESH))
        while done < runs and crashed < crashes_max:
            world.run(REST_S + rng.random())
            host = rng.choice(world.live())
            match question:
                case Question.HEARD | Question.HEARD_BY_99 | Question.HEARD_BY_ALL:
                    values += _asked(question, _spread(world, host, done), members - 1)
                case Question.SUSPECTED | Question.DEAD | Question.DEAD_TO_ALL:
                    crashed += 1
                    values += _asked(question, *_crash(world, host, question))
                case _:
                    assert_never(question)
            done += 1
    return np.array(values)


def _warm(members: int, seed: int, config: GossipConfig, network: Network) -> World:
    low, high = network.latency_s
    within = Latency(base_s=low, jitter_s=high - low)
    world = World(seed=seed, config=config, size=members, crypto="model", within=within)
    for _ in range(members):
        world.add()
    world.start_warm(world.hosts)
    world.run(SETTLE_S)
    world.network.set_loss(network.loss)
    return world


def _asked(question: Question, seen: dict[int, float], observers: int) -> list[float]:
    """What the question asks of the seconds by observer; inf for those that never saw it."""
    values = sorted(seen.values()) + [math.inf] * (observers - len(seen))
    match question:
        case Question.HEARD | Question.DEAD:
            return values
        case Question.HEARD_BY_99:
            return [values[math.ceil(0.99 * (observers + 1)) - 2]]  # its author has it too
        case Question.HEARD_BY_ALL | Question.DEAD_TO_ALL:
            return [values[-1]]
        case Question.SUSPECTED:
            return [values[0]]
    assert_never(question)


def _spread(world: World, author: Host, number: int) -> dict[int, float]:
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
    world.write(author, Draft(kind=NOTE, key=f"update {number}", payload=b"." * 200))
    world.run_until(lambda: len(update.seen) == others, within_s=WITHIN_S, grain_s=0.02)
    world.on_written.remove(written)
    world.on_output = None
    return update.seen


def _crash(world: World, victim: Host, question: Question) -> tuple[dict[int, float], int]:
    """Seconds until each other node suspects the victim, or knows that it is dead, and how many others there are."""
    world.crash(victim)
    observers = frozenset(host.index for host in world.live())
    state = State.SUSPECT if question is Question.SUSPECTED else State.DEAD
    with (
        Awaited(world, victim.id, state, observers) as seen,
        Awaited(world, victim.id, State.DEAD, observers) as dead,
    ):
        world.run_until(dead.complete, within_s=WITHIN_S)
    return seen.seen, len(observers)
