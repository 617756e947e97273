"""Liars lie as they are said to, and what honest members make of one another holds all the same."""

from collections.abc import Callable

import pytest

from gossip.member import State
from simulations.byzantine import LIED_KIND, Lie
from simulations.faults import Delete, Publish, happen
from simulations.invariants import Watch
from simulations.world import World

Build = Callable[..., World]
LIAR = 3


def lied_to(mesh_of: Build, lie: Lie, *, seconds: float = 20.0) -> tuple[World, Watch]:
    """A mesh of six that edits and deletes policies while one of them lies."""
    world = mesh_of(6)
    watch = Watch(world)
    world.lie(world.hosts[LIAR], lie)
    for turn in range(int(seconds)):
        happen(world, Publish(host=turn % 6, key=f"k{turn % 3}"))
        if turn % 4 == 3:
            happen(world, Delete(host=(turn + 1) % 6, key=f"k{turn % 3}"))
        world.run(1)
    return world, watch


@pytest.mark.parametrize("lie", Lie)
def test_honest_members_hold_among_themselves(mesh_of: Build, lie: Lie) -> None:
    world, watch = lied_to(mesh_of, lie)
    liar = world.hosts[LIAR].liar
    assert liar is not None
    assert liar.told >= 5
    world.lie(world.hosts[LIAR], None)
    assert world.run_until(watch.settled, within_s=30) is not None
    watch.final()
    assert watch.broken == []
    assert any(each.owed for each in watch.acknowledged)


def test_who_is_accused_refutes(mesh_of: Build) -> None:
    world, _ = lied_to(mesh_of, Lie.FALSE_SUSPICION)
    nodes = [host.node for host in world.honest() if host.node is not None]
    assert sum(node.engine.statistics().refutations > 0 for node in nodes) >= 2
    assert all(State.DEAD not in host.states().values() for host in world.honest())


def test_what_only_others_may_sign_is_refused(mesh_of: Build) -> None:
    world, _ = lied_to(mesh_of, Lie.FORGED_INCARNATION)
    for host in world.honest():
        assert host.node is not None
        assert host.node.engine.statistics().rejected > 10
        others = {node: state for node, state in host.states().items() if node != world.hosts[LIAR].id}
        assert set(others.values()) == {State.ALIVE}


def test_an_equivocator_is_expelled_by_all_and_stays_so_when_they_restart(mesh_of: Build) -> None:
    world, _ = lied_to(mesh_of, Lie.EQUIVOCATION)
    liar = world.hosts[LIAR]
    world.restart(world.hosts[0])
    world.run(10)
    for host in world.honest():
        assert host.node is not None
        assert set(host.node.journal.forks) == {liar.id}
        assert host.states().get(liar.id) is not State.ALIVE
        fork = host.node.journal.forks[liar.id]
        assert fork.first.payload != fork.second.payload
        assert fork.first.kind == LIED_KIND


def test_an_equivocator_that_is_believed_is_noticed(mesh_of: Build) -> None:
    world, watch = lied_to(mesh_of, Lie.EQUIVOCATION)
    host = world.hosts[0]
    assert host.node is not None
    liar = next(member for member in host.node.engine.members() if member.id == world.hosts[LIAR].id)
    roster = host.node.engine._parts.roster
    entry = roster.get(liar.id)
    assert entry is not None
    roster.change(
        entry, type(liar)(**{name: getattr(liar, name) for name in liar.__slots__} | {"state": State.ALIVE})
    )
    watch.final()
    assert any("n0 sees n3 as live, which has equivocated" in broken for broken in watch.broken)


def test_replayed_words_are_known(mesh_of: Build) -> None:
    notes: list[str] = []
    world = mesh_of(6)
    world.on_note.append(lambda _host, note: notes.append(str(note.fields.get("reason", ""))))
    world.lie(world.hosts[LIAR], Lie.REPLAY)
    world.run(10)
    assert any("seen before" in note for note in notes)


def test_who_withholds_is_gone_around(mesh_of: Build) -> None:
    world, watch = lied_to(mesh_of, Lie.WITHHOLDING)
    took_s = world.run_until(watch.settled, within_s=30)
    assert took_s is not None
    assert world.hosts[LIAR].liar is not None  # it still does


def test_what_a_liar_acknowledged_and_how_it_is_seen_is_held_against_nobody(mesh_of: Build) -> None:
    world, watch = lied_to(mesh_of, Lie.FORGED_INCARNATION, seconds=6)
    assert {each.owed for each in watch.acknowledged if each.host is world.hosts[LIAR]} == {False}
    world.crash(world.hosts[LIAR])
    world.run(1)
    watch.final()
    assert watch.broken == []  # it is still seen alive, a second after its end
