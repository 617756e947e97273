"""Whether views are right, asked of few and of many."""

from collections.abc import Callable
from typing import Any

import pytest

from gossip.member import State
from simulations.views import EXACT_MAX, agree, all_see, differences
from simulations.world import World

Build = Callable[..., World]


@pytest.fixture(scope="module")
def large() -> World:
    world = World(size=EXACT_MAX + 20)
    for index in range(EXACT_MAX + 20):
        world.add(seeds=[0] if index else [])
    world.start_warm(world.hosts)
    return world


def test_a_few_agree_when_each_sees_exactly_the_living(mesh_of: Build) -> None:
    world = mesh_of(5)
    assert agree(world)
    assert differences(world) == []
    world.crash(world.hosts[4])
    assert not agree(world)
    assert differences(world, at_most=2) == [f"n{n} sees n4 alive: it does not live" for n in (0, 1)]
    world.run(15)
    assert agree(world)
    assert all_see(world, world.hosts[4].id, State.DEAD)
    world.restart(world.hosts[4])
    assert not agree(world)
    world.run(3)
    assert agree(world)


def test_many_that_know_one_another_from_the_start_agree_and_notice_a_crash(large: World) -> None:
    assert large.converged()
    large.run(3)
    assert large.converged()
    victim = large.hosts[7]
    large.crash(victim)
    assert not large.converged()
    assert large.run_until(large.converged, within_s=15) is not None
    assert large.all_see(victim, State.DEAD)
    large.restart(victim)
    assert not large.converged()
    assert large.run_until(large.converged, within_s=15) is not None


def test_among_many_a_wrong_boot_is_found_though_the_numbers_are_right(large: World) -> None:
    node: Any = large.hosts[3].node
    disk = node.engine._parts.presence
    assert large.converged()
    disk.alive = disk._sign((disk.boot + 1, 0), disk.credential, disk.meta)
    disk._encode()
    assert not large.converged()


def test_a_host_that_lost_its_identity_is_named_as_it_was(mesh_of: Build) -> None:
    from simulations.host import Keeps

    world = mesh_of(3)
    old = world.hosts[1].id
    world.restart(world.hosts[1], Keeps.NOTHING)
    assert world.name_of(old) == "n1 as it was"
    assert world.name_of(world.hosts[1].id) == "n1"
    assert world.host_of(old) is world.hosts[1]
    assert world.name_of(bytes(16)) == "00000000"
