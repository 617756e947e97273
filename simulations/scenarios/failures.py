"""One node dies."""

from typing import Final

from gossip.member import State
from simulations.faults import Crash, Restart
from simulations.stage import AFTER_S, Scenario, Stage


def _crash(stage: Stage) -> None:
    world = stage.world
    (victim,) = stage.pick(1)
    host, since = stage.hosts[victim], world.now
    stage.do(Crash(host=victim))
    stage.time("seen dead by all", lambda: world.all_see(host, State.DEAD), within_s=120)
    stage.figure("first suspicion", stage.first(host, State.SUSPECT, since), "s")
    stage.figure("first verdict", stage.first(host, State.DEAD, since), "s")
    world.run(AFTER_S)
    stage.do(Restart(host=victim))
    stage.converges("back after a restart", within_s=60)
    world.run(AFTER_S)


CRASH: Final = Scenario(
    name="crash", about="One node is killed, found out, and started again.", nodes=32, play=_crash
)
