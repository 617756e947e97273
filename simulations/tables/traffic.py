"""Table `traffic`: what a mesh sends when nothing happens, and when 1 % of it comes and goes every minute.

Idle, everything a node sends is a ping a second and its answer, and push-pull, which is worked out from one exchange
(simulations/tables/ground.py). Under churn members are killed at random moments (a Poisson process: on average one in a
hundred a minute), stay down for DOWN_S and start again with their disk; the streams they open are counted as they are.

Invariant: bytes are what leaves: UDP payload, and what TLS hands to TCP. Headers below that are not in it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from simulations.host import Host
from simulations.randomness import stream
from simulations.tables.ground import push_pull_bytes_per_s, warm
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table
from simulations.world import World

IDLE_S: Final = 60.0
IDLE_LARGE_S: Final = 10.0
LARGE_NODES: Final = 3000
CHURN_SHARE_PER_S: Final = 0.01 / 60
DOWN_S: Final = 30.0
CHURNED_BEFORE_S: Final = 30.0  # before anything is counted
CHURN_S: Final = 60.0
CHURN_LARGE_S: Final = 20.0
CHURN_NODES_MAX: Final = 1000  # more of them only with --large
COMPARED_WITH: Final = 100


@dataclass(frozen=True, slots=True)
class _Sent:
    """What all hosts have sent so far."""

    datagrams: int
    udp_bytes: int
    stream_bytes: int
    streams: int

    @classmethod
    def of(cls, world: World) -> "_Sent":
        traffic = [host.traffic for host in world.hosts]
        return cls(
            sum(each.datagrams_sent for each in traffic),
            sum(each.bytes_sent for each in traffic),
            sum(each.stream_bytes_sent for each in traffic),
            world.streams.opened,
        )


def traffic(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    base: dict[str, float] = {}
    sizes = sorted({*options.sizes((32, 128, 1000), (10_000,)), *(() if options.nodes else (COMPARED_WITH,))})
    for nodes in sizes:
        for profile in options.profiles:
            lasts_s = IDLE_S if nodes < LARGE_NODES else IDLE_LARGE_S
            with warm(nodes, profile=profile, seed=options.seed, push_pull=False) as world:
                row = _measured(world, "idle", profile, lasts_s)
                push_pull = push_pull_bytes_per_s(world, profile)
            total = _number(row["udp_bytes"]) + _number(row["stream_bytes"]) + push_pull
            if nodes == COMPARED_WITH:
                base[profile] = total
            against = total / base[profile] if profile in base else None
            yield {**row, "push_pull_bytes": push_pull, "total_bytes": total, "against": against}
    for nodes in sizes:
        if nodes > CHURN_NODES_MAX and not options.large:
            continue
        for profile in options.profiles:
            yield _churned(options, nodes, profile)


def _number(value: object) -> float:
    assert isinstance(value, int | float), "a figure that was measured"
    return float(value)


def _measured(world: World, what: str, profile: str, lasts_s: float) -> Row:
    before = _Sent.of(world)
    world.run(lasts_s)
    after = _Sent.of(world)
    node_s = len(world.hosts) * lasts_s
    return {
        "what": what,
        "nodes": len(world.hosts),
        "profile": profile,
        "datagrams": (after.datagrams - before.datagrams) / node_s,
        "udp_bytes": (after.udp_bytes - before.udp_bytes) / node_s,
        "streams": (after.streams - before.streams) / node_s * 60,
        "stream_bytes": (after.stream_bytes - before.stream_bytes) / node_s,
    }


def _churned(options: Options, nodes: int, profile: str) -> Row:
    with warm(nodes, profile=profile, seed=options.seed, push_pull=False) as world:
        _Churn(world, stream(options.seed, "table traffic", nodes)).begin()
        world.run(CHURNED_BEFORE_S)
        lasts_s = CHURN_S if nodes < LARGE_NODES else CHURN_LARGE_S
        row = _measured(world, "1 % a minute", profile, lasts_s)
        push_pull = push_pull_bytes_per_s(world, profile)
    total = _number(row["udp_bytes"]) + _number(row["stream_bytes"]) + push_pull
    return {**row, "push_pull_bytes": push_pull, "total_bytes": total}


class _Churn:
    """Kills and starts again. The same seed makes the same choices whatever the nodes do."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world, self._rng = world, rng

    def begin(self) -> None:
        world = self._world
        world.push(world.now + self._pause_s(), self._next, None, None)

    def _pause_s(self) -> float:
        return self._rng.expovariate(CHURN_SHARE_PER_S * len(self._world.hosts))

    def _next(self, _first: None, _second: None) -> None:
        world = self._world
        victim = world.hosts[self._rng.randrange(1, len(world.hosts))]  # the first is everybody's seed
        if victim.up:
            world.crash(victim)
            world.push(world.now + DOWN_S, self._back, victim, None)
        self.begin()

    def _back(self, victim: Host, _: None) -> None:
        self._world.restart(victim)


TRAFFIC: Final = Table(
    name="traffic",
    title="What a mesh sends",
    about=(
        "Bytes and datagrams each node sends a second: UDP payload, and what TLS hands to TCP. Idle: nothing happens. "
        "1 % a minute: random members are killed as a Poisson process, on average one in a hundred a minute, and "
        "started again with their disk after 30 s."
    ),
    columns=(
        Column(key="what", title="mesh"),
        NODES,
        PROFILE,
        Column(key="datagrams", title="datagrams/s", digits=2),
        Column(key="udp_bytes", title="UDP (B/s)", digits=1),
        Column(key="streams", title="streams a minute", digits=2),
        Column(key="stream_bytes", title="streams (B/s)", digits=1),
        Column(key="push_pull_bytes", title="push-pull, modelled (B/s)", digits=1),
        Column(key="total_bytes", title="all (B/s)", digits=1),
        Column(key="against", title="against n = 100", digits=3),
    ),
    measure=traffic,
    notes=(
        "Push-pull is worked out: the bytes of one exchange that takes place at the end, over the profile's interval.",
        "All other streams take place.",
    ),
)
