"""The pure node: several of them on a virtual clock, no socket, no disk."""

from typing import Any

import pytest

from gossip.member import State
from peer.catalog import ServicePort
from peer.messages import Depart, Draft, Joined, PersistFailed, StreamFrame, StreamOpened, Write, Written
from peer.records import POLICY, SERVICE, ServicePayload, encode_policy, encode_service

Address = tuple[str, int]


def policy(name: str, size: int = 0, **spec: Any) -> Draft:
    document = {
        "apiVersion": "gossamer.dev/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec | ({"padding": "x" * size} if size else {}),
    }
    return Draft(kind=POLICY, key=f"TrafficPolicy/default/{name}", payload=encode_policy(document))


def service(name: str) -> Draft:
    payload = ServicePayload(
        namespace="default",
        name=name,
        account=name,
        address="127.0.0.1",
        ports=(ServicePort(name="", port=80, target=8080, protocol="http"),),
        labels=(),
        health="unknown",
    )
    return Draft(kind=SERVICE, key=f"default/{name}", payload=encode_service(payload))


def three(world: Any) -> tuple[Address, Address, Address]:
    a, b, c = world.node(1), world.node(2), world.node(3)
    world.join(b, a)
    world.join(c, a)
    world.run(3)
    return a, b, c


def keys(world: Any, address: Address, kind: str = POLICY) -> set[str]:
    return {record.key for record in world.nodes[address].journal.records(kind) if record.payload}


def test_nodes_that_join_see_one_another_and_say_so(world: Any) -> None:
    a, b, c = three(world)
    for address in (a, b, c):
        states = [member.state for member in world.nodes[address].engine.members()]
        assert states == [State.ALIVE] * 3
    assert [type(answer) for answer in world.answers[b]] == [Joined]
    assert world.answers[b][0].contacted == (a,)
    assert {b, c} <= world.synced


def test_a_seed_that_does_not_answer_is_named(world: Any) -> None:
    a = world.node(1)
    world.join(a, ("10.0.0.9", 7946))
    world.run(1)
    assert world.answers[a] == [Joined(request=0, contacted=(), failed={("10.0.0.9", 7946): "unreachable"})]


def test_a_write_is_acknowledged_only_after_the_disk_and_reaches_everyone(world: Any) -> None:
    a, b, c = three(world)
    world.disk_delay_s = 0.5
    world.write(b, policy("one"), policy("two"))
    world.run(0.4)
    assert not any(isinstance(answer, Written) for answer in world.answers[b])
    assert keys(world, a) == set()
    world.run(0.2)
    written = [answer for answer in world.answers[b] if isinstance(answer, Written)]
    assert [len(answer.records) for answer in written] == [2]
    world.run(0.3)
    for address in (a, b, c):
        assert keys(world, address) == {"TrafficPolicy/default/one", "TrafficPolicy/default/two"}
        assert {key for _, _, key in world.disk[address]} == keys(world, address)
    assert len({world.nodes[address].journal.fingerprint() for address in (a, b, c)}) == 1


def test_a_record_too_large_for_a_datagram_travels_by_stream_within_a_second(world: Any) -> None:
    a, b, c = three(world)
    world.write(a, policy("large", size=60_000))
    world.run(1)
    for address in (b, c):
        assert keys(world, address) == {"TrafficPolicy/default/large"}


def test_a_failed_disk_is_reported_to_the_author_and_nothing_is_published(world: Any) -> None:
    a, b, _ = three(world)
    node = world.nodes[a]
    node.step(world.now, Write(request=7, drafts=(policy("lost"),)))
    (ticket,) = node._inflight
    out = node.step(world.now, PersistFailed(ticket=ticket, reason="the disk is full"))
    assert Written(request=7, error="the disk is full") in out
    world.run(2)
    assert keys(world, b) == set()


def test_both_sides_of_a_partition_write_and_merge_when_it_heals(world: Any) -> None:
    a, b, c = three(world)
    world.cut = lambda source, target: (source == c) != (target == c)
    world.run(20)
    world.write(a, policy("left"))
    world.write(c, policy("right"))
    world.run(20)
    assert keys(world, b) == {"TrafficPolicy/default/left"}
    world.cut = lambda _source, _target: False
    world.run(30)
    for address in (a, b, c):
        assert keys(world, address) == {"TrafficPolicy/default/left", "TrafficPolicy/default/right"}


def test_a_node_without_the_right_to_publish_is_told_why_at_its_own_peer(world: Any) -> None:
    a = world.node(1, rights={"publish": False, "services": ("default/shop",)})
    world.write(a, policy("mine"), request=1)
    world.write(a, service("cart"), request=2)
    world.write(a, service("shop"), request=3)
    world.run(1)
    errors = {answer.request: answer.error for answer in world.answers[a]}
    assert "may not publish" in errors[1]
    assert "may not be service default/cart" in errors[2]
    assert errors[3] == ""


def test_one_refused_draft_refuses_the_whole_write(world: Any) -> None:
    a = world.node(1, rights={"publish": False})
    world.write(a, service("shop"), policy("mine"))
    world.run(1)
    assert world.answers[a][0].error
    assert world.disk[a] == {}
    assert world.nodes[a].journal.heads == {}


def test_own_writes_wait_for_the_first_exchange_after_a_start(world: Any) -> None:
    a = world.node(1)
    b = world.node(2, hold_writes_s=5.0)
    world.write(b, policy("early"))
    world.run(1)
    assert world.answers[b] == []
    world.join(b, a)
    world.run(0.5)
    assert {type(answer) for answer in world.answers[b]} == {Joined, Written}
    assert keys(world, a) == {"TrafficPolicy/default/early"}


def test_a_node_that_lost_its_disk_learns_its_own_numbers_before_it_writes(world: Any) -> None:
    a, b, _ = three(world)
    world.write(b, policy("one"))
    world.write(b, policy("two"))
    world.run(1)
    identity = world.nodes[b].identity.id
    del world.nodes[b]
    world.disk[b] = {}
    world.answers[b].clear()
    world.run(2)
    world.node(2, hold_writes_s=5.0)
    world.write(b, policy("three"))
    world.join(b, a)
    world.run(3)
    written = [answer for answer in world.answers[b] if isinstance(answer, Written)]
    assert written[0].error == ""
    assert written[0].records[0].seq == 3
    assert world.nodes[a].journal.heads[identity] == 3
    assert not world.nodes[a].journal.forks


def test_leave_is_told_before_the_node_departs(world: Any) -> None:
    a, b, _ = three(world)
    world.feed(b, Depart())
    world.run(2)
    assert b in world.departed
    states = {member.id: member.state for member in world.nodes[a].engine.members()}
    assert states[world.nodes[b].identity.id] is State.LEFT


@pytest.mark.parametrize("frame", [b"", b"x", b"s", b"s\x02zz", b"r", b"rxx", b"m", b"b", b"\xff" * 100])
def test_a_broken_exchange_is_closed_and_noted(world: Any, frame: bytes) -> None:
    a = world.node(1)
    node = world.nodes[a]
    node.step(world.now, StreamOpened(stream=2, node=b"p" * 16, inbound=True))
    node.step(world.now, StreamFrame(stream=2, data=frame))
    node.step(world.now, StreamFrame(stream=2, data=frame))
    assert len(node._streams) <= 1


def test_an_exchange_that_takes_too_long_is_ended(world: Any) -> None:
    a = world.node(1)
    world.feed(a, StreamOpened(stream=2, node=b"p" * 16, inbound=True))
    assert world.nodes[a]._streams
    world.run(31)
    assert not world.nodes[a]._streams
