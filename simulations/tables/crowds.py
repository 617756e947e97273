"""Tables `joins`, `restarts` and `quarter`: many nodes come, come again, or go at once.

Invariant: what is timed ends with the views of all live nodes; what is counted is about nodes that run.
"""

from collections.abc import Iterator
from typing import Final

from gossip.member import State
from simulations.host import Host
from simulations.randomness import stream
from simulations.tables.ground import cold, warm
from simulations.tables.summary import median, quantile
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table
from simulations.tables.watch import Watch
from simulations.world import World

WITHIN_S: Final = 300.0
JOINS_NODES: Final = (100,)
JOINS_NODES_LARGE: Final = (1000,)
RESTARTS_NODES: Final = 50
RESTARTS_EACH: Final = 10
ROUND_S: Final = 1.0  # in which everybody is restarted once
QUARTER_NODES: Final = (128,)
QUARTER_NODES_LARGE: Final = (1000,)


def _sent(world: World) -> float:
    traffic = [host.traffic for host in world.hosts]
    return sum(each.bytes_sent + each.stream_bytes_sent for each in traffic) / len(traffic)


def _false(watch: Watch, subjects: frozenset[bytes]) -> int:
    return watch.count(State.DEAD, subjects)


# ---------------------------------------------------------------------- joins


def joins(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for nodes in options.sizes(JOINS_NODES, JOINS_NODES_LARGE):
        for profile in options.profiles:
            with (
                cold(nodes, profile=profile, seed=options.seed, push_pull=True) as world,
                Watch(world) as watch,
            ):
                for host in world.hosts:
                    world.start(host)
                took_s = world.run_until(world.converged, within_s=WITHIN_S, grain_s=0.1)
                everybody = frozenset(host.id for host in world.hosts)
                yield {
                    "nodes": nodes,
                    "profile": profile,
                    "took": took_s,
                    "streams": world.streams.opened,
                    "refused": world.streams.failed + world.streams.given_up,
                    "bytes": _sent(world) / 1000,
                    "suspicions": watch.accusations(everybody),
                    "false_verdicts": _false(watch, everybody),
                }


JOINS: Final = Table(
    name="joins",
    title="Everybody joins at once through one seed",
    about="All nodes start at the same moment with empty disks and know one seed; seconds until all know all.",
    columns=(
        NODES,
        PROFILE,
        Column(key="took", title="all know all (s)", digits=1),
        Column(key="streams", title="streams opened"),
        Column(key="refused", title="refused or given up"),
        Column(key="bytes", title="sent a node (kB)", digits=1),
        Column(key="suspicions", title="suspicions"),
        Column(key="false_verdicts", title="false verdicts"),
    ),
    measure=joins,
)


# ---------------------------------------------------------------------- restarts


def restarts(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for nodes in options.sizes((RESTARTS_NODES,)):
        for profile in options.profiles:
            with warm(nodes, profile=profile, seed=options.seed, push_pull=True) as world:
                rng = stream(options.seed, "table restarts", nodes)
                for _ in range(RESTARTS_EACH):
                    for index in rng.sample(range(nodes), nodes):
                        world.restart(world.hosts[index])
                        world.run(ROUND_S / nodes)
                took_s = world.run_until(world.converged, within_s=WITHIN_S)
                known = [len(host.states()) for host in world.live()]
                live = [
                    sum(state is State.ALIVE for state in host.states().values()) for host in world.live()
                ]
                yield {
                    "nodes": nodes,
                    "profile": profile,
                    "took": took_s,
                    "known": max(known),
                    "live": min(live),
                    "bytes": _sent(world) / 1000,
                }


RESTARTS: Final = Table(
    name="restarts",
    title="Everybody is restarted ten times",
    about=(
        "Each node is killed and started again with its disk once a second, in a random order, ten times; seconds "
        "from the last start until all views agree. A node that comes back under its old id leaves no ghost: "
        "known and live members are as many as there are nodes."
    ),
    columns=(
        NODES,
        PROFILE,
        Column(key="took", title="agreed after (s)", digits=2),
        Column(key="known", title="members known, most"),
        Column(key="live", title="members live, fewest"),
        Column(key="bytes", title="sent a node (kB)", digits=1),
    ),
    measure=restarts,
)


# ---------------------------------------------------------------------- a quarter dies


def quarter(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for nodes in options.sizes(QUARTER_NODES, QUARTER_NODES_LARGE):
        for profile in options.profiles:
            with warm(nodes, profile=profile, seed=options.seed, push_pull=True) as world:
                rng = stream(options.seed, "table quarter", nodes)
                victims = [world.hosts[index] for index in rng.sample(range(1, nodes), nodes // 4)]
                yield {"nodes": nodes, "profile": profile, **_killed(world, victims)}


def _killed(world: World, victims: list[Host]) -> Row:
    gone = {host.id for host in victims}
    survivors = frozenset(host.id for host in world.hosts if host.id not in gone)
    since = world.now
    with Watch(world) as watch:
        for victim in victims:
            world.crash(victim, power=True)
        took_s = world.run_until(
            lambda: all(world.all_see(victim, State.DEAD) for victim in victims),
            within_s=WITHIN_S,
            grain_s=0.1,
        )
    verdicts: dict[tuple[int, bytes], float] = {}
    for move in watch.moves:
        if move.state is State.DEAD and move.subject in gone:
            verdicts.setdefault((move.observer, move.subject), move.at - since)
    return {
        "killed": len(victims),
        "p50": median(verdicts.values()),
        "p99": quantile(verdicts.values(), 0.99),
        "took": took_s,
        "suspicions": watch.accusations(survivors),
        "false_verdicts": _false(watch, survivors),
    }


QUARTER: Final = Table(
    name="quarter",
    title="A quarter of the machines lose their power at once",
    about="Seconds until the survivors have declared each of them dead (p50, p99 over all pairs), and all of them.",
    columns=(
        NODES,
        PROFILE,
        Column(key="killed", title="killed"),
        Column(key="p50", title="seen dead, p50 (s)", digits=2),
        Column(key="p99", title="seen dead, p99 (s)", digits=2),
        Column(key="took", title="all by all (s)", digits=1),
        Column(key="suspicions", title="survivors accused"),
        Column(key="false_verdicts", title="false verdicts"),
    ),
    measure=quarter,
)
