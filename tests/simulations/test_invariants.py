"""The watch notices what it is there for: each test breaks one thing that must hold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gossip.broadcast import Queue
from gossip.member import State
from gossip.probe import Purpose
from gossip.statement import sign_suspect
from peer.messages import Draft
from peer.node import Node
from simulations.faults import Delete, Publish, happen
from simulations.invariants import Watch
from simulations.world import World

Build = Callable[..., World]


@pytest.fixture
def world(mesh_of: Build) -> World:
    return mesh_of(4)


def lie(world: World, index: int, change: Callable[[Any], Any]) -> None:
    """Let a node show its members otherwise than it has them."""
    engine = running(world, index).engine
    honest = engine.members
    own = honest()[0].id

    def members() -> tuple[Any, ...]:
        return tuple(member if member.id == own else change(member) for member in honest())

    vars(engine)["members"] = members


def running(world: World, index: int) -> Node:
    node = world.hosts[index].node
    assert node is not None
    return node


def test_a_quiet_mesh_breaks_nothing(world: World) -> None:
    watch = Watch(world)
    world.write(world.hosts[1], Draft(kind="note", key="k", payload=b"v"))
    world.run(5)
    watch.final()
    assert watch.broken == []
    assert watch.settled()
    assert len(watch.acknowledged) == 1


def test_a_rank_that_goes_back_is_noticed(world: World) -> None:
    watch = Watch(world)
    watch.look()
    lie(world, 1, lambda member: replace(member, boot=member.boot - 1))
    watch.look()
    assert "n1 saw n0 at" in watch.broken[0]


def test_a_clock_that_goes_back_is_noticed(world: World) -> None:
    watch = Watch(world)
    world.write(world.hosts[1], Draft(kind="note", key="k", payload=b"v"))
    world.run(1)
    watch.look()
    clock = running(world, 1).journal.clock
    clock._last -= 1
    watch.look()
    assert "the clock of n1 stamped" in watch.broken[0]


def test_a_rank_nobody_announced_is_noticed(world: World) -> None:
    watch = Watch(world)
    lie(world, 1, lambda member: replace(member, incarnation=member.incarnation + 1))
    watch.look()
    assert "n1 sees n0 at" in watch.broken[0]
    assert "never announced" in watch.broken[0]


def test_a_living_node_seen_dead_is_noticed_after_quiet(world: World) -> None:
    watch = Watch(world)
    lie(world, 2, lambda member: replace(member, state=State.DEAD))
    watch.final()
    assert any("n2 does not see n0, which lives" in broken for broken in watch.broken)


def test_a_node_seen_alive_under_a_boot_it_does_not_run_is_noticed(world: World) -> None:
    watch = Watch(world)
    lie(world, 2, lambda member: replace(member, boot=member.boot - 1))
    watch.final()
    assert any("n2 sees n0 at boot" in broken for broken in watch.broken)


def test_somebody_back_from_the_dead_is_noticed(world: World) -> None:
    world.crash(world.hosts[3])
    world.run(15)
    watch = Watch(world)
    lie(world, 0, lambda member: replace(member, state=State.ALIVE))
    watch.final()
    assert any("n0 sees n3 alive: it does not live" in broken for broken in watch.broken)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ({"members_max": 2}, "4 members, at most 3 are allowed"),
        ({"updates_max": 1}, "2 updates, at most 1 are allowed"),
        ({"payloads_max": 1}, "2 records, at most 1 are allowed"),
        ({"probes_max": 1}, "2 probes, at most 1 are allowed"),
    ],
)
def test_a_queue_beyond_its_bound_is_noticed(world: World, bound: dict[str, int], words: str) -> None:
    watch = Watch(world)
    parts = running(world, 0).engine._parts
    for name in (b"a", b"b"):
        parts.broadcasts.tell(name, "alive", b"statement")
        parts.broadcasts.publish(name, b"record")
    parts.probes.clear()
    for index in (1, 2):
        entry = parts.roster.get(world.hosts[index].id)
        assert entry is not None
        parts.probe(world.now, entry, Purpose.ROUND)
    watch.look()
    assert watch.broken == []
    world.config = replace(world.config, **bound)
    watch.look()
    assert f"n0 holds {words}" in watch.broken[0]


def test_journals_that_differ_after_quiet_are_noticed(world: World) -> None:
    watch = Watch(world)
    world.network.cut("w", lambda source, _target: source == 1)
    world.write(world.hosts[1], Draft(kind="note", key="k", payload=b"v"))
    world.run(0.5)
    assert not watch.settled()
    watch.final()
    assert any("journals differ" in broken for broken in watch.broken)
    assert any("record 1 of n1 was acknowledged" in broken for broken in watch.broken)


def test_equal_heads_with_different_content_are_noticed(world: World) -> None:
    world.write(world.hosts[1], Draft(kind="note", key="k", payload=b"v"))
    world.run(3)
    watch = Watch(world)
    vars(running(world, 2).journal)["canonical"] = lambda: b"something else"
    watch.final()
    assert any("equal heads differ in content" in broken for broken in watch.broken)


def test_what_was_acknowledged_and_is_gone_everywhere_is_noticed(world: World) -> None:
    watch = Watch(world)
    world.write(world.hosts[1], Draft(kind="note", key="k", payload=b"v"))
    world.run(3)
    for index in range(len(world.hosts)):
        journal: Any = running(world, index).journal
        journal._heads.clear()
    watch.final()
    assert any("was acknowledged" in broken for broken in watch.broken)


def test_what_went_with_the_only_disk_that_held_it_is_nobodys_fault(world: World) -> None:
    from simulations.host import Keeps

    watch = Watch(world)
    world.network.cut("w", lambda source, target: 1 in (source, target))
    world.write(world.hosts[1], Draft(kind="note", key="k", payload=b"v"))
    world.run(0.5)
    assert watch.acknowledged[0].owed
    world.restart(world.hosts[1], Keeps.NOTHING)
    assert not watch.acknowledged[0].owed
    world.network.heal()
    assert world.run_until(watch.settled, within_s=60) is not None
    watch.final()
    assert watch.broken == []


def edited(world: World) -> Watch:
    """Written at one node, edited at another, and another key deleted at a third."""
    watch = Watch(world)
    happen(world, Publish(host=1, key="edited"))
    happen(world, Publish(host=1, key="deleted"))
    world.run(1)
    happen(world, Publish(host=2, key="edited"))
    happen(world, Delete(host=3, key="deleted"))
    world.run(1)
    return watch


def test_edits_and_deletions_of_those_who_knew_break_nothing(world: World) -> None:
    watch = edited(world)
    watch.final()
    assert watch.broken == []
    assert len(watch.acknowledged) == 4


def test_an_acknowledged_edit_that_cannot_be_seen_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = edited(world)
    monkeypatch.setattr("crdt.register.versions", lambda _records: ())
    watch.final()
    (broken,) = watch.broken
    assert broken.endswith("an acknowledged edit of edited by n2 is lost")


def test_what_was_replaced_or_deleted_and_is_back_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = edited(world)
    monkeypatch.setattr("crdt.register.versions", lambda records: tuple(r for r in records if not r.deleted))
    watch.final()
    assert sorted(what.partition(": ")[2] for what in watch.broken) == [
        "deleted as n1 wrote it is back, though somebody who knew it replaced it",
        "edited as n1 wrote it is back, though somebody who knew it replaced it",
    ]


def test_a_verdict_on_a_word_nobody_signed_is_noticed(world: World) -> None:
    watch = Watch(world)
    world.crash(world.hosts[3])
    accusations = running(world, 0).engine._parts.judge.accusations
    entry = running(world, 0).engine._parts.roster.get(world.hosts[3].id)
    assert entry is not None
    for accuser in (1, 2):
        forged = replace(
            sign_suspect(world.hosts[0].identity, subject=world.hosts[3].id, rank=entry.member.rank),
            accuser=world.hosts[accuser].id,
        )
        accusations._testify(world.now, entry, forged)
    world.run_until(lambda: world.hosts[0].states()[world.hosts[3].id] is State.DEAD, within_s=30)
    assert any("n0 condemned n3 on a word that n1 never signed" in broken for broken in watch.broken)


def test_a_verdict_on_too_little_and_too_soon_is_noticed(world: World) -> None:
    watch = Watch(world)
    accusations = running(world, 0).engine._parts.judge.accusations
    entry = running(world, 0).engine._parts.roster.get(world.hosts[3].id)
    assert entry is not None
    accusations.accuse(world.now, entry)
    accusations.condemn(world.now, entry)
    world.run(2)
    assert any("n0 condemned n3 after 0.00 s on 1 accusations, " in broken for broken in watch.broken)


def test_a_stamp_from_the_future_that_counts_is_noticed(world: World) -> None:
    watch = Watch(world)
    running(world, 1).journal.clock.observe(0, int(world.now * 1000) + 4900)
    watch.look()
    assert watch.broken == []
    running(world, 1).journal.clock.observe(0, int(world.now * 1000) + 6000)
    watch.look()
    assert "n1 goes by a stamp 6000 ms in the future" in watch.broken[0]


def test_something_told_too_often_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Queue.take

    def forgetful(self: Any, room: int, _limit: int, **more: Any) -> list[bytes]:
        return take(self, room, 10**6, **more)

    monkeypatch.setattr(Queue, "take", forgetful)
    watch = Watch(world)
    world.crash(world.hosts[3])
    world.run(20)
    assert "has told something" in watch.broken[0]
