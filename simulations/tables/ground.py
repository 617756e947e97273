"""The worlds tables are measured in: warm, with the stand-in cryptography, and given back when a row is done.

A warm world begins with nodes that know one another for an hour, so that what is measured is not how they met. The
stand-in cryptography costs virtual time like the real one (simulations/crypto.py) and next to none of ours; sizes on
the wire are the same.

Random push-pull repairs what is rare in minutes and costs two member lists each time, 7 MB at 10,000 nodes. Above
PUSH_PULL_NODES_MAX it is switched off, unless a figure depends on it; what it would send is worked out from one
exchange that does take place (`exchange_bytes`), how often it would run from the profile.

Invariant: when `warm` ends, the memory of its nodes is free, and the collector goes through everything again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from gossip.config import PROFILES, GossipConfig
from peer.messages import JoinSeeds
from simulations import collector
from simulations.host import Host
from simulations.world import World

PUSH_PULL_NODES_MAX: Final = 300
NEVER_S: Final = 1e9
SETTLE_S: Final = 4.0  # a few probe intervals: each node has measured round trips


def config_of(profile: str, nodes: int, *, push_pull: bool | None = None) -> GossipConfig:
    """The settings of a profile for so many nodes. `push_pull` None: unless it is too much to simulate."""
    config = PROFILES[profile]()
    if push_pull or (push_pull is None and nodes <= PUSH_PULL_NODES_MAX):
        return config
    return replace(config, push_pull_interval_s=NEVER_S)


@contextmanager
def cold(
    nodes: int, *, profile: str, seed: int, push_pull: bool | None = None, seeds: tuple[int, ...] = (0,)
) -> Iterator[World]:
    """A world of that many hosts, none of them running; all are configured with `seeds`."""
    world = World(
        seed=seed, config=config_of(profile, nodes, push_pull=push_pull), size=nodes, crypto="model"
    )
    for index in range(nodes):
        world.add(seeds=seeds if index else ())
    try:
        yield world
    finally:
        forget(world)


@contextmanager
def warm(nodes: int, *, profile: str, seed: int, push_pull: bool | None = None) -> Iterator[World]:
    """A world of that many nodes that know one another, settled."""
    with cold(nodes, profile=profile, seed=seed, push_pull=push_pull) as world:
        world.start_warm(world.hosts)
        world.run(SETTLE_S)
        yield world


def forget(world: World) -> None:
    """Give back a world's memory. Its circles are cut, so that it is free without a search for them."""
    for host in world.hosts:
        host.node = None
        host.streams.clear()
    world.hosts.clear()
    collector.resume()  # a large world has made it look at less


def exchange_bytes(world: World) -> int:
    """The stream bytes of one push-pull, both ways, between two nodes of the world as it is: it takes place."""
    one, other = world.live()[-2:]
    before = _streamed(one) + _streamed(other)
    world.arrive(one, JoinSeeds(request=0, seeds=(other.address,)))
    world.run(5.0)
    return _streamed(one) + _streamed(other) - before


def _streamed(host: Host) -> int:
    return host.traffic.stream_bytes_sent


def push_pull_bytes_per_s(world: World, profile: str) -> float:
    """What push-pull makes each node send a second: each node begins one per interval, and both sides send."""
    return exchange_bytes(world) / PROFILES[profile]().push_pull_s(len(world.hosts))
