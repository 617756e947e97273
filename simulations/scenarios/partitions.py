"""The network is cut, and healed."""

from typing import Final

from simulations.faults import Cut, Fault, Heal, OneWay, Partition
from simulations.stage import AFTER_S, Scenario, Stage

CUT_S: Final = 40.0


def _cut(stage: Stage, fault: Fault, cut_s: float = CUT_S) -> None:
    world, since = stage.world, stage.world.now
    stage.do(fault)
    world.run(cut_s)
    suspected, buried = stage.false_alarms(stage.hosts, since)
    stage.figure("suspicions meanwhile", suspected)
    stage.figure("verdicts of death meanwhile", buried)
    stage.do(Heal())
    stage.converges("agreement after healing", within_s=180)
    world.run(AFTER_S)


def _halves(stage: Stage) -> None:
    everybody = range(len(stage.hosts))
    middle = len(stage.hosts) // 2
    groups = tuple(everybody[:middle]), tuple(everybody[middle:])
    _cut(stage, Partition(name="two halves", kind=Cut.APART, groups=groups))


def _bridge(stage: Stage) -> None:
    count = len(stage.hosts)
    middle = (count - 1) // 2
    groups = tuple(range(middle)), tuple(range(middle, count - 1)), (count - 1,)
    _cut(stage, Partition(name="two halves and a bridge", kind=Cut.BRIDGE, groups=groups))


def _ring(stage: Stage) -> None:
    everybody = tuple(range(len(stage.hosts)))
    _cut(stage, Partition(name="ring of majorities", kind=Cut.RING, groups=(everybody,)))


def _one_way(stage: Stage) -> None:
    mute = tuple(stage.pick(max(1, len(stage.hosts) // 8)))
    others = tuple(host.index for host in stage.hosts if host.index not in mute)
    _cut(stage, OneWay(name="heard by nobody, hearing all", sources=mute, targets=others))


HALVES: Final = Scenario(
    name="halves", about="The mesh is cut into two halves for 40 s, then healed.", nodes=32, play=_halves
)
BRIDGE: Final = Scenario(
    name="bridge",
    about="Two halves that reach each other through one node only.",
    nodes=31,
    play=_bridge,
    nodes_min=5,
)
MAJORITIES_RING: Final = Scenario(
    name="majorities_ring",
    about="Each node reaches a different majority of all.",
    nodes=24,
    play=_ring,
    nodes_min=5,
)
ONE_WAY: Final = Scenario(
    name="one_way",
    about="An eighth of the nodes hear everything and are heard by nobody outside.",
    nodes=32,
    play=_one_way,
    nodes_min=4,
)
