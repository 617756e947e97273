"""One exchange: both sides meet, and whatever else comes in is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.journal import Journal
from peer.messages import Draft
from peer.records import POLICY, encode_policy
from peer.session import MEMBERS_CHUNKS_MAX, SessionError, SyncSession


def draft(name: str) -> Draft:
    document = {"kind": "TrafficPolicy", "metadata": {"name": name, "namespace": "default"}, "spec": {}}
    return Draft(kind=POLICY, key=f"TrafficPolicy/default/{name}", payload=encode_policy(document))


def journal(world: Any, number: int, *names: str) -> Journal:
    address = world.node(number)
    world.write(address, *(draft(name) for name in names))
    world.run(0.1)
    made: Journal = world.nodes[address].journal
    return made


def talk(one: SyncSession, two: SyncSession) -> tuple[list[bytes], list[bytes], list[Any]]:
    """Carry frames both ways until silence; the members and deltas that came out."""
    queue = [(two, frame) for frame in one.start()]
    members: dict[int, list[bytes]] = {id(one): [], id(two): []}
    deltas: list[Any] = []
    done: set[int] = set()
    while queue:
        to, frame = queue.pop(0)
        progress = to.receive(frame)
        members[id(to)] += progress.members
        deltas += progress.deltas
        if progress.done:
            done.add(id(to))
        other = one if to is two else two
        queue += [(other, answer) for answer in progress.send]
    assert done == {id(one), id(two)}
    return members[id(one)], members[id(two)], deltas


def test_equal_journals_part_at_once(world: Any) -> None:
    assert talk(
        SyncSession(Journal(verify=world.mesh.registry().judge), [b"A"], initiator=True),
        SyncSession(Journal(verify=world.mesh.registry().judge), [b"B"], initiator=False),
    ) == ([], [], [])


def test_members_are_told_both_ways_when_they_are_asked_for(world: Any) -> None:
    one, two = journal(world, 1), journal(world, 2)
    heard = talk(
        SyncSession(one, [b"A1", b"A2"], initiator=True, with_members=True),
        SyncSession(two, [b"B"], initiator=False),
    )
    assert heard[:2] == ([b"B"], [b"A1", b"A2"])


def test_each_side_gets_what_it_lacks(world: Any) -> None:
    one, two = journal(world, 1, "a", "b"), journal(world, 2, "c")
    _, _, deltas = talk(SyncSession(one, [], initiator=True), SyncSession(two, [], initiator=False))
    keys = sorted(record.key for delta, _ in deltas for record in delta.records)
    assert keys == [f"TrafficPolicy/default/{name}" for name in "abc"]


def opened(world: Any, with_members: bool = True) -> SyncSession:
    session = SyncSession(journal(world, 1, "a"), [b"A"], initiator=False)
    session.receive(b"s\x01" if with_members else b"s\x00")
    return session


@pytest.mark.parametrize("frame", [b"", b"s", b"s\x02", b"s\x01\x01", b"m", b"b", b"r", b"x"])
def test_nothing_but_an_opening_opens(world: Any, frame: bytes) -> None:
    with pytest.raises(SessionError, match="does not open"):
        SyncSession(journal(world, 1), [], initiator=False).receive(frame)


def test_whoever_says_goodbye_before_the_journals_agree_has_broken_the_protocol(world: Any) -> None:
    """Else a peer that says nothing at all would count as one that has told everything."""
    with pytest.raises(SessionError, match="before the journals agree"):
        opened(world).receive(b"b")


def test_members_nobody_asked_for_are_refused(world: Any) -> None:
    with pytest.raises(SessionError, match="unexpected"):
        opened(world, with_members=False).receive(b"mx")


def test_members_without_end_are_refused(world: Any) -> None:
    session = opened(world)
    for _ in range(MEMBERS_CHUNKS_MAX):
        session.receive(b"mx")
    with pytest.raises(SessionError, match="more than"):
        session.receive(b"mx")


def test_nothing_follows_the_goodbye(world: Any) -> None:
    one = SyncSession(journal(world, 1), [], initiator=True)
    two = SyncSession(journal(world, 2), [], initiator=False)
    talk(one, two)
    for session in (one, two):
        for frame in (b"b", b"mx", b"r"):
            with pytest.raises(SessionError):
                session.receive(frame)


@given(frames=st.lists(st.binary(max_size=100) | st.binary(max_size=60).map(lambda b: b"r" + b), max_size=5))
def test_any_bytes_are_taken_or_refused_and_never_break_anything(
    make_world: Any, frames: list[bytes]
) -> None:
    session = opened(make_world())
    for frame in frames:
        try:
            session.receive(frame)
        except SessionError:
            return
