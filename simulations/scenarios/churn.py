"""Many nodes come and go."""

from typing import Final

from gossip.member import State
from simulations.faults import Crash, Leave, Restart
from simulations.stage import AFTER_S, Scenario, Stage

RESTARTS_EACH: Final = 10
RESTART_EVERY_S: Final = 1.0  # between two rounds of restarting everybody


def _quarter_killed(stage: Stage) -> None:
    world = stage.world
    victims = stage.pick(len(stage.hosts) // 4)
    hosts, since = [stage.hosts[victim] for victim in victims], world.now
    survivors = [host for host in stage.hosts if host not in hosts]
    stage.do(*(Crash(host=victim, power=True) for victim in victims))
    stage.time(
        "all seen dead by all",
        lambda: all(world.all_see(host, State.DEAD) for host in hosts),
        within_s=180,
        grain_s=0.1,
    )
    times = stage.detections(hosts, since)
    if times:
        stage.figure("verdicts, median", times[len(times) // 2], "s")
    suspected, buried = stage.false_alarms(survivors, since)
    stage.figure("survivors suspected", suspected)
    stage.figure("survivors declared dead", buried)
    world.run(AFTER_S)


def _leave(stage: Stage) -> None:
    world = stage.world
    leaving = stage.pick(3)
    hosts, since = [stage.hosts[index] for index in leaving], world.now
    stage.do(*(Leave(host=index) for index in leaving))
    stage.time(
        "seen as left by all", lambda: all(world.all_see(host, State.LEFT) for host in hosts), within_s=30
    )
    stage.figure("verdicts of death", sum(stage.false_alarms(hosts, since)))
    world.run(AFTER_S)
    stage.do(*(Restart(host=index) for index in leaving))
    stage.converges("back", within_s=60)
    world.run(AFTER_S)


def _joins(stage: Stage) -> None:
    world = stage.world
    for host in stage.hosts:
        world.start(host)
    stage.converges("everybody sees everybody", within_s=120)
    sent = sum(host.traffic.bytes_sent + host.traffic.stream_bytes_sent for host in stage.hosts)
    stage.figure("bytes sent, each", round(sent / len(stage.hosts)), "B")
    world.run(AFTER_S)


def _restarts(stage: Stage) -> None:
    world = stage.world
    for _ in range(RESTARTS_EACH):
        for host in stage.hosts:
            stage.do(Restart(host=host.index))
            world.run(RESTART_EVERY_S / len(stage.hosts))
    stage.converges("agreement after the last", within_s=120)
    known = [len(host.states()) for host in world.live()]
    stage.figure("members known, at most", max(known))
    stage.figure("members that live", len(known))
    world.run(AFTER_S)


QUARTER_KILLED: Final = Scenario(
    name="quarter_killed",
    about="A quarter of the machines lose their power at once.",
    nodes=32,
    play=_quarter_killed,
    nodes_min=8,
)
LEAVE: Final = Scenario(
    name="leave", about="Three nodes say good-bye, and come back.", nodes=32, play=_leave, nodes_min=5
)
JOINS: Final = Scenario(
    name="joins",
    about="All nodes start at once and join through two seeds.",
    nodes=64,
    play=_joins,
    warm=False,
)
RESTARTS: Final = Scenario(
    name="restarts",
    about="Everybody is restarted ten times in ten seconds; no ghost may remain.",
    nodes=16,
    play=_restarts,
)
