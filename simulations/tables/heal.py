"""Table `heal`: how long until all views agree again once the network is whole.

Five shapes: two halves; two halves and one node that reaches both; a ring on which each node reaches another majority;
an eighth that hears all and is heard by nobody; a rack of RACK nodes cut off. While a mesh is cut both sides live on as
they are: every second of it is simulated, which is why a cut of 25 hours is one of few nodes.

Invariant: views agree when every live node sees exactly the live nodes alive, each under its present boot.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from simulations.faults import Cut, Fault, Heal, OneWay, Partition, happen
from simulations.randomness import stream
from simulations.tables.ground import warm
from simulations.tables.summary import largest, median
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table
from simulations.world import World

SHAPES: Final = ("halves", "bridge", "majorities ring", "one way", "a rack")
NODES_CUT: Final = 100
NODES_BUSY: Final = 32  # a cut that is none for all keeps a mesh busy with suspicions: n^2 of them
NODES_LONG: Final = 6
NODES_LONG_LARGE: Final = 32
NODES_LARGE: Final = 1000
NODES_RACK: Final = 10_000
RACK: Final = 20
RACK_CUT_S: Final = 10.0
MINUTE_S: Final = 60.0
WITHIN_S: Final = 300.0
RUNS: Final = 1


@dataclass(frozen=True, slots=True)
class _Case:
    shape: str
    nodes: int
    cut_s: float
    runs: int


def heal(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for case in _cases(options):
        for profile in options.profiles if case.nodes < NODES_LARGE else options.profiles[:1]:
            yield _row(options, case, profile)


def _cases(options: Options) -> Iterator[_Case]:
    runs = options.times(RUNS)
    if options.cuts or options.cut_s is not None:
        for nodes in options.sizes((NODES_CUT,)):
            for shape in options.cuts or SHAPES:
                yield _Case(shape, nodes, MINUTE_S if options.cut_s is None else options.cut_s, runs)
        return
    for nodes in options.sizes((NODES_CUT,)):
        for shape in SHAPES[:-1]:
            busy = shape in ("bridge", "majorities ring") and not options.nodes
            yield _Case(shape, NODES_BUSY if busy else nodes, MINUTE_S, runs)
    if options.nodes:
        return
    yield _Case("halves", NODES_CUT, 10 * MINUTE_S, 1)
    yield _Case("halves", NODES_LONG_LARGE if options.large else NODES_LONG, 25 * 3600.0, 1)
    if options.large:
        yield _Case("halves", NODES_LARGE, MINUTE_S, 1)
        yield _Case("a rack", NODES_LARGE, MINUTE_S, 1)
        yield _Case("a rack", NODES_RACK, RACK_CUT_S, 1)


def _row(options: Options, case: _Case, profile: str) -> Row:
    healed, streams, datagrams = [], 0, 0
    for run in range(case.runs):
        seed = options.seed + run
        push_pull = case.nodes < NODES_RACK
        with warm(case.nodes, profile=profile, seed=seed, push_pull=push_pull) as world:
            happen(world, _cut(world, case.shape, seed))
            world.run(case.cut_s)
            streams_before = world.streams.opened
            before = sum(host.traffic.datagrams_sent for host in world.hosts)
            happen(world, Heal())
            took_s = world.run_until(world.converged, within_s=WITHIN_S)
            streams += world.streams.opened - streams_before
            datagrams += sum(host.traffic.datagrams_sent for host in world.hosts) - before
        if took_s is not None:
            healed.append(took_s)
    return {
        "nodes": case.nodes,
        "shape": case.shape,
        "cut_s": round(case.cut_s),
        "profile": profile,
        "runs": case.runs,
        "healed": len(healed),
        "median": median(healed),
        "max": largest(healed),
        "streams": streams / case.runs / case.nodes,
        "datagrams": datagrams / case.runs / case.nodes,
    }


def _cut(world: World, shape: str, seed: int) -> Fault:
    everybody = stream(seed, "table heal", shape).sample(range(len(world.hosts)), len(world.hosts))
    middle = len(everybody) // 2
    first, second = tuple(everybody[:middle]), tuple(everybody[middle:])
    match shape:
        case "halves":
            return Partition(name=shape, kind=Cut.APART, groups=(first, second))
        case "bridge":
            return Partition(name=shape, kind=Cut.BRIDGE, groups=(first, second[1:], second[:1]))
        case "majorities ring":
            return Partition(name=shape, kind=Cut.RING, groups=(tuple(everybody),))
        case "a rack":
            return Partition(
                name=shape, kind=Cut.APART, groups=(tuple(everybody[:RACK]), tuple(everybody[RACK:]))
            )
        case "one way":
            mute = max(1, len(everybody) // 8)
            return OneWay(name=shape, sources=tuple(everybody[:mute]), targets=tuple(everybody[mute:]))
    raise AssertionError(f"no such shape: {shape}")


HEAL: Final = Table(
    name="heal",
    title="Partitions",
    about=(
        "The network is cut for so long, then whole again; seconds from then until every live node sees exactly the "
        "live nodes alive."
    ),
    columns=(
        NODES,
        Column(key="shape", title="cut"),
        Column(key="cut_s", title="for (s)"),
        PROFILE,
        Column(key="runs", title="runs"),
        Column(key="healed", title="healed"),
        Column(key="median", title="median (s)", digits=2),
        Column(key="max", title="max (s)", digits=2),
        Column(key="streams", title="streams a node", digits=1),
        Column(key="datagrams", title="datagrams a node", digits=0),
    ),
    measure=heal,
    notes=(
        "Both sides of a long cut are simulated for all of it: that of 25 hours has 6 nodes (32 with --large).",
        f"A rack is {RACK} nodes. Each second of the cut they suspect {RACK} members more, who refute it to everybody.",
        "A minute at 10,000 would be 12 million refutations to take in, halves of 10,000 are 50 million verdicts.",
        "Rows of 1,000 nodes and more: the first profile only, and random push-pull is off at 10,000.",
    ),
)
