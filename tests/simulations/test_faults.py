"""Faults as data, and what each of them does to a world."""

from collections.abc import Callable

from gossip.member import State
from peer.messages import Written
from simulations.faults import (
    Crash,
    Cut,
    Disorder,
    Heal,
    Join,
    Leave,
    Loss,
    OneWay,
    Partition,
    Pause,
    Publish,
    Restart,
    Resume,
    Skew,
    Slow,
    happen,
    tell,
)
from simulations.world import World

Build = Callable[..., World]


def test_a_story_is_told_in_time(mesh_of: Build) -> None:
    world = mesh_of(4)
    tell(world, [(1.0, Crash(host=3)), (2.0, Restart(host=3))])
    world.run(1.5)
    assert not world.hosts[3].up
    world.run(1.0)
    assert world.hosts[3].up


def test_walls_are_put_up_and_taken_down(mesh_of: Build) -> None:
    world = mesh_of(5)
    happen(world, Partition(name="a", kind=Cut.APART, groups=((0, 1),)))
    happen(world, Partition(name="b", kind=Cut.BRIDGE, groups=((0,), (1,), (2,))))
    happen(world, OneWay(name="c", sources=(3,), targets=(4,)))
    assert world.network.walls == ("a", "b", "c")
    assert world.network.is_cut(0, 2)
    assert world.network.is_cut(0, 1)
    assert world.network.is_cut(3, 4)
    assert not world.network.is_cut(4, 3)
    happen(world, Heal(name="a"))
    assert not world.network.is_cut(0, 2)
    happen(world, Partition(name="d", kind=Cut.RING, groups=(tuple(range(5)),)))
    happen(world, Loss(share=0.5, source=1))
    happen(world, Disorder(duplication=0.1, reordering=0.2))
    assert world.network.loss_of(1, 0) == 0.5
    assert not world.network.plain
    happen(world, Heal())
    assert world.network.plain


def test_a_blocked_process_runs_now_and_then_until_it_is_quick_again(mesh_of: Build) -> None:
    world = mesh_of(3)
    host = world.hosts[1]
    happen(world, Slow(host=1, blocked_s=1.0, running_s=0.5))
    stopped = []
    for _ in range(60):
        stopped.append(host.stopped)
        world.run(0.1)
    assert 36 <= sum(stopped) <= 44
    happen(world, Slow(host=1, service_s=0.01))
    assert not host.stopped
    assert host.service_s == 0.01
    happen(world, Slow(host=1))
    world.run(3)
    assert not host.stopped
    assert host.service_s == 0.0


def test_stalls_end_with_the_process(mesh_of: Build) -> None:
    world = mesh_of(3)
    happen(world, Slow(host=1, blocked_s=1.0, running_s=0.5))
    happen(world, Restart(host=1))
    world.run(3)
    assert not world.hosts[1].stopped


def test_stopping_leaving_joining_writing_and_clocks(mesh_of: Build) -> None:
    world = mesh_of(4)
    written: list[Written] = []
    world.on_written.append(lambda _host, answer: written.append(answer))
    happen(world, Pause(host=1))
    assert world.hosts[1].stopped
    happen(world, Resume(host=1))
    assert not world.hosts[1].stopped
    happen(world, Publish(host=2, key="k", size=500))
    happen(world, Join(seeds=(0,)))
    happen(world, Skew(host=3, offset_s=2.0))
    world.run(3)
    assert len(written[0].records[0].payload) == 500
    assert world.hosts[4].up
    assert world.now_of(world.hosts[3]) == world.now + 2.0
    assert world.converged()
    happen(world, Leave(host=4))
    world.run(3)
    assert world.all_see(world.hosts[4], State.LEFT)


def test_what_makes_no_sense_any_more_does_nothing(mesh_of: Build) -> None:
    world = mesh_of(3)
    happen(world, Crash(host=1))
    for fault in (
        Crash(host=1), Pause(host=1), Resume(host=1), Slow(host=1, blocked_s=1.0), Leave(host=1),
        Publish(host=1, key="k"), Heal(name="nothing"), Skew(host=1, offset_s=1.0),
    ):  # fmt: skip
        happen(world, fault)
    world.run(2)
    assert not world.hosts[1].up
