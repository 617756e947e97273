"""Nothing is down, but not all is well: slow processes, a network that loses much."""

from typing import Final

from gossip.member import State
from simulations.faults import Crash, Loss, Slow
from simulations.stage import AFTER_S, Scenario, Stage

BLOCKED_S: Final = 2.0
RUNNING_S: Final = 0.05
LASTS_S: Final = 60.0
LOST: Final = 0.3


def _slow_members(stage: Stage) -> None:
    world, since = stage.world, stage.world.now
    slow = stage.pick(max(1, len(stage.hosts) // 8))
    healthy = [host for host in stage.hosts if host.index not in slow]
    stage.do(*(Slow(host=index, blocked_s=BLOCKED_S, running_s=RUNNING_S) for index in slow))
    world.run(LASTS_S)
    for name, hosts in (("healthy", healthy), ("slow", [stage.hosts[index] for index in slow])):
        suspected, buried = stage.false_alarms(hosts, since)
        stage.figure(f"{name} members suspected", suspected)
        stage.figure(f"{name} members declared dead", buried)
    stage.do(*(Slow(host=index) for index in slow))
    stage.converges("agreement after it", within_s=120)
    world.run(AFTER_S)


def _lossy(stage: Stage) -> None:
    world, since = stage.world, stage.world.now
    stage.do(Loss(share=LOST))
    world.run(LASTS_S / 2)
    suspected, buried = stage.false_alarms(stage.hosts, since)
    stage.figure("suspected", suspected)
    stage.figure("declared dead", buried)
    (victim,) = stage.pick(1)
    stage.do(Crash(host=victim))
    dead = stage.hosts[victim]
    stage.time("a crash seen by all", lambda: world.all_see(dead, State.DEAD), within_s=120)
    stage.do(Loss(share=0.0))
    stage.converges("agreement after it", within_s=60)
    world.run(AFTER_S)


SLOW_MEMBERS: Final = Scenario(
    name="slow_members",
    about="An eighth of the processes are stopped for 2 s, run for 50 ms, and so on, for a minute.",
    nodes=32,
    play=_slow_members,
)
LOSSY: Final = Scenario(
    name="lossy", about="Three in ten datagrams are lost; meanwhile a node dies.", nodes=32, play=_lossy
)
