"""Samples of what the real engine does (tests/gossip/world.py), for the large simulations to be held against."""

import random
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gossip.config import GossipConfig
from gossip.events import Heard, MemberChanged, Output, Publish
from gossip.member import State
from simulations.meanfield.parameters import Network
from simulations.validation import Question
from tests.gossip.world import Host, World

# what a stream is in that world: one exchange after one round trip, never lost
WORLD_STREAM_ROUND_TRIPS = 1.0


def network_like_world(loss: float = 0.0) -> Network:
    return Network(loss=loss, stream_round_trips=WORLD_STREAM_ROUND_TRIPS)


def settled_mesh(members: int, *, seed: int, config: GossipConfig, loss: float = 0.0) -> World:
    """A converged mesh that has forgotten its joins; `loss` begins afterwards."""
    world = World(config=config, seed=seed)
    world.start_many(members)
    world.run_until(world.converged, within_s=120)
    world.run(15)
    world.loss = loss
    world.run(5 if loss else 0)
    return world


@cache
def spreads(
    members: int, runs: int, seed: int, config: GossipConfig, loss: float, within_s: float = 3.0
) -> NDArray[np.float64]:
    """(runs, members): when each member heard of an update; 0 for the publisher. Streams carry no records in that
    world, so this is the push alone."""
    world, rng = settled_mesh(members, seed=seed, config=config, loss=loss), random.Random(seed)
    rows = []
    for number in range(runs):
        world.run(rng.uniform(3, 5))
        payload, start = b"%8d" % number * 20, world.now
        heard: dict[str, float] = {}

        def forward(host: Host, output: Output, payload=payload, start=start, heard=heard) -> None:
            if isinstance(output, Heard) and output.payload == payload:
                heard[host.name] = world.now - start
                world._at(world.now, lambda: world.step(host, Publish(payload=payload)))

        world.on_output = forward
        world.step(world.hosts[f"h{rng.randrange(members)}"], Publish(payload=payload))
        world.run(within_s)
        rows.append([0.0, *sorted(heard.values()), *[np.inf] * (members - 1 - len(heard))])
    return np.array(rows)


@cache
def crashes(
    members: int, runs: int, seed: int, config: GossipConfig, loss: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(runs, members - 1) each, sorted: when members suspected a crashed one, and when they knew it dead."""
    world, rng = settled_mesh(members, seed=seed, config=config, loss=loss), random.Random(seed)
    suspected, dead = [], []
    for _ in range(runs):
        name = f"h{rng.randrange(1, members)}"
        world.run(rng.uniform(1, 3))
        start = world.now
        seen: dict[State, dict[str, float]] = {State.SUSPECT: {}, State.DEAD: {}}

        def note(host: Host, output: Output, name=name, start=start, seen=seen) -> None:
            if (
                isinstance(output, MemberChanged)
                and output.member.name == name
                and output.member.state in seen
            ):
                seen[output.member.state].setdefault(host.name, world.now - start)

        world.on_output = note
        world.crash(name)
        while len(seen[State.DEAD]) < members - 1 and world.now - start < 90:
            world.run(0.25)
        for state, rows in ((State.SUSPECT, suspected), (State.DEAD, dead)):
            times = sorted(seen[state].values())
            rows.append([*times, *[np.inf] * (members - 1 - len(times))])
        world.loss = 0.0
        world.restart(name)
        world.run_until(world.converged, within_s=60)
        world.run(15)
        world.loss = loss
    return np.array(suspected), np.array(dead)


def engine_samples(
    question: Question, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
) -> NDArray[np.float64]:
    """The engines as `simulations.validation.Samples`."""
    if question in (Question.HEARD, Question.HEARD_BY_99, Question.HEARD_BY_ALL):
        heard = spreads(members, runs, seed, config, network.loss)
        if question is Question.HEARD:
            return heard[:, 1:].ravel()
        share = 0.99 if question is Question.HEARD_BY_99 else 1.0
        return heard[:, int(np.ceil(share * members)) - 1]
    suspected, dead = crashes(members, runs, seed, config, network.loss)
    if question is Question.SUSPECTED:
        return suspected[:, 0]
    return dead.ravel() if question is Question.DEAD else dead[:, -1]
