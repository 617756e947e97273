"""The pure node: several of them on a virtual clock, no socket, no disk."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.record import encode_record
from crdt.register import context_for
from gossip.events import Publish, Send
from gossip.member import State
from peer.catalog import ServicePort
from peer.fold import Folder
from peer.messages import (
    CloseStream,
    DatagramReceived,
    Depart,
    Draft,
    Joined,
    Note,
    Persist,
    PersistFailed,
    StreamFrame,
    StreamOpened,
    Tick,
    Write,
    Written,
)
from peer.node_doubt import WORD_S_MAX
from peer.node_sessions import INBOUND_PER_NODE_MAX, SESSION_S_MAX
from peer.node_writes import HELD_S_MAX, UNSURE
from peer.records import (
    POLICY,
    REVOCATION,
    SERVICE,
    Registry,
    ServicePayload,
    encode_policy,
    encode_service,
    revocation_key,
)
from trust.credential import decode_credential
from trust.identity import spiffe_node
from trust.revocation import NODE_REVOCATION_S, revoke, revoke_self

Address = tuple[str, int]
DOMAIN = "cluster.local"


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


def ticket_of(outputs: list[Any]) -> int:
    (ticket,) = [output.ticket for output in outputs if isinstance(output, Persist) and output.ticket]
    return ticket


def test_a_failed_disk_is_reported_to_the_author_and_nothing_is_published(world: Any) -> None:
    a, b, _ = three(world)
    node = world.nodes[a]
    ticket = ticket_of(node.step(world.now, Write(request=7, drafts=(policy("lost"),))))
    out = node.step(world.now, PersistFailed(ticket=ticket, reason="the disk is full"))
    assert Written(request=7, error="the disk is full") in out
    world.run(2)
    assert keys(world, b) == set()


def test_after_a_failed_disk_the_next_write_takes_the_number_that_was_not_used(world: Any) -> None:
    a, b, _ = three(world)
    node = world.nodes[a]
    ticket = ticket_of(node.step(world.now, Write(request=7, drafts=(policy("lost"),))))
    node.step(world.now, PersistFailed(ticket=ticket, reason="the disk is full"))
    world.write(a, policy("kept"), request=8)
    world.run(1)
    (written,) = [answer for answer in world.answers[a] if isinstance(answer, Written)]
    assert [record.seq for record in written.records] == [1]
    assert keys(world, b) == {"TrafficPolicy/default/kept"}
    assert not world.nodes[b].journal.forks


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


def written(world: Any, address: Address) -> list[Written]:
    return [answer for answer in world.answers[address] if isinstance(answer, Written)]


def lose(world: Any, *numbers: int) -> None:
    """These nodes are started again with their keys and nothing else."""
    for number in numbers:
        address = (f"10.0.0.{number}", 7946)
        del world.nodes[address]
        world.disk[address] = {}
        world.answers[address].clear()
        world.synced.discard(address)
        world.node(number, hold_writes_s=math.inf)


def test_nodes_that_have_all_lost_their_disks_do_not_take_one_another_at_their_word(world: Any) -> None:
    """They agree at once, on nothing: each would give its first number out again."""
    a, b, c = three(world)
    world.write(b, policy("one"))
    world.run(1)
    world.cut = lambda source, target: c in (source, target)
    lose(world, 1, 2)
    world.join(b, a)
    world.write(b, policy("two"))
    world.run(5)
    assert not world.synced & {a, b}
    assert written(world, b) == []
    world.cut = lambda _source, _target: False
    world.join(b, c)
    world.run(3)
    assert {a, b} <= world.synced  # the word goes on from one to the next
    (answer,) = written(world, b)
    assert (answer.error, answer.records[0].seq) == ("", 2)
    assert not world.nodes[c].journal.forks


def test_a_node_in_doubt_of_its_journal_asks_more_than_one_other(world: Any) -> None:
    """The last record may have reached only some of them."""
    a, b, c = three(world)
    d = world.node(4)
    world.join(d, a)
    world.run(3)
    world.cut = lambda source, target: source == c or (source == b and target != c)
    world.write(b, policy("one"))  # only c hears of it
    world.run(0.05)
    assert [keys(world, each) for each in (a, c, d)] == [set(), {"TrafficPolicy/default/one"}, set()]
    world.cut = lambda source, target: source == c and target != b  # nor does it get any further
    lose(world, 2)
    world.write(b, policy("two"))
    world.join(b, a)
    world.run(4)
    (answer,) = written(world, b)
    assert (answer.error, answer.records[0].seq) == ("", 2)


def test_a_node_in_doubt_does_not_wait_for_ever_for_those_who_do_not_answer(world: Any) -> None:
    a, b, c = three(world)
    world.cut = lambda source, target: c in (source, target)
    lose(world, 2)
    world.write(b, policy("one"))
    world.join(b, a)
    world.run(1 + WORD_S_MAX)
    assert [answer.error for answer in written(world, b)] == [""]


def test_leave_is_told_before_the_node_departs(world: Any) -> None:
    a, b, _ = three(world)
    world.feed(b, Depart())
    world.run(2)
    assert b in world.departed
    states = {member.id: member.state for member in world.nodes[a].engine.members()}
    assert states[world.nodes[b].identity.id] is State.LEFT


def notes_of(outputs: list[Any]) -> set[str]:
    return {output.event for output in outputs if isinstance(output, Note)}


@pytest.mark.parametrize(
    "frame", [b"", b"x", b"s", b"s\x02zz", b"s\x02", b"r", b"rxx", b"m", b"b", b"\xff" * 100]
)
def test_a_broken_exchange_is_closed_and_noted(world: Any, frame: bytes) -> None:
    a = world.node(1)
    node = world.nodes[a]
    node.step(world.now, StreamOpened(stream=2, node=b"p" * 16, inbound=True))
    out = node.step(world.now, StreamFrame(stream=2, data=frame))
    assert [output.stream for output in out if isinstance(output, CloseStream)] == [2]
    assert "exchange_broken" in notes_of(out)
    assert node.step(world.now, StreamFrame(stream=2, data=frame)) == []


@given(frames=st.lists(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b"r" + b), max_size=6))
def test_no_frames_whatever_break_the_node(make_world: Any, frames: list[bytes]) -> None:
    world = make_world()
    a = world.node(1)
    node = world.nodes[a]
    node.step(world.now, StreamOpened(stream=2, node=b"p" * 16, inbound=True))
    node.step(world.now, StreamFrame(stream=2, data=b"s\x01"))
    for frame in frames:
        node.step(world.now, StreamFrame(stream=2, data=frame))
    assert node.journal.heads == {}


@given(data=st.binary(max_size=1400))
def test_no_datagram_whatever_breaks_the_node(make_world: Any, data: bytes) -> None:
    world = make_world()
    a = world.node(1)
    out = world.nodes[a].step(world.now, DatagramReceived(source=("10.9.9.9", 5), data=data))
    assert all(isinstance(output, Note) for output in out)


def test_an_exchange_that_takes_too_long_is_ended(world: Any) -> None:
    a = world.node(1)
    world.feed(a, StreamOpened(stream=2, node=b"p" * 16, inbound=True))
    node = world.nodes[a]
    late = world.now + SESSION_S_MAX
    assert node.deadline is not None
    assert node.deadline <= late
    assert CloseStream(stream=2, reason="took too long") in node.step(late, Tick())


def test_one_node_cannot_take_all_the_places_for_exchanges(world: Any) -> None:
    a, b = world.node(1), world.node(2)
    node = world.nodes[a]
    refused = []
    for stream in range(2, 42, 2):
        refused += node.step(world.now, StreamOpened(stream=stream, node=b"p" * 16, inbound=True))
    assert len(refused) == 20 - INBOUND_PER_NODE_MAX
    assert {type(output) for output in refused} == {CloseStream}
    world.join(b, a)
    world.run(1)
    assert b in world.synced


def test_any_number_of_inbound_exchanges_leaves_room_for_own_ones(world: Any) -> None:
    a, b = world.node(1), world.node(2)
    for number in range(100):
        event = StreamOpened(stream=1000 + 2 * number, node=number.to_bytes(16, "big"), inbound=True)
        world.nodes[a].step(world.now, event)
    world.join(a, b)
    world.run(1)
    assert world.answers[a][0].contacted == (b,)


def test_a_seed_contacted_a_moment_ago_is_contacted_again_when_somebody_asks(world: Any) -> None:
    a, b, _ = three(world)
    world.answers[b].clear()
    for _ in range(2):
        world.join(b, a)
        world.run(0.2)
    assert [answer.contacted for answer in world.answers[b]] == [(a,), (a,)]


def test_a_node_told_to_join_itself_says_so(world: Any) -> None:
    a = world.node(1)
    world.join(a, a)
    assert world.answers[a] == [Joined(request=0, contacted=(), failed={a: "is this peer itself"})]


def test_too_many_seeds_are_refused_and_the_node_goes_on(world: Any) -> None:
    a, b = world.node(1), world.node(2)
    world.join(a, *((f"10.1.0.{number}", 7946) for number in range(200)))
    (answer,) = world.answers[a]
    assert len(answer.failed) == 200
    assert "at most" in answer.failed["10.1.0.7", 7946]
    world.join(a, b)
    world.run(1)
    assert world.answers[a][1].contacted == (b,)


# ------------------------------------------------------------------ a store that was lost


def test_a_node_that_knows_its_disk_lacks_something_writes_nothing_until_it_has_asked(world: Any) -> None:
    a = world.node(1, hold_writes_s=math.inf)
    world.write(a, policy("early"))
    world.run(HELD_S_MAX - 1)
    assert world.answers[a] == []
    world.run(2)
    assert [answer.error for answer in world.answers[a]] == [UNSURE]
    assert world.disk[a] == {}


def test_a_lost_store_is_made_good_before_the_first_write(world: Any) -> None:
    a, b, c = three(world)
    world.write(b, policy("one"))
    world.write(c, policy("other"))
    world.run(1)
    identity = world.nodes[b].identity.id
    del world.nodes[b]
    world.run(5)
    world.answers[b].clear()
    world.node(2, hold_writes_s=math.inf)
    world.write(b, policy("two"))
    world.cut = lambda source, target: b in (source, target)
    world.run(5)
    assert not any(isinstance(answer, Written) for answer in world.answers[b])
    world.cut = lambda _source, _target: False
    world.join(b, ("10.0.0.99", 7946), a)
    world.run(1)
    (written,) = [answer for answer in world.answers[b] if isinstance(answer, Written)]
    assert [(record.writer, record.seq) for record in written.records] == [(identity, 2)]
    world.run(1)
    for address in (a, b, c):
        expected = {f"TrafficPolicy/default/{name}" for name in ("one", "other", "two")}
        assert keys(world, address) == expected
        assert not world.nodes[address].journal.forks


def test_a_write_that_contradicts_the_mesh_is_not_acknowledged(world: Any) -> None:
    """A disk was put back to an earlier state, and the first to answer did not know better."""
    a, b, _ = three(world)
    world.write(b, policy("one"))
    world.run(1)
    world.cut = lambda _source, _target: True
    world.node(2)  # without its disk, without waiting
    world.disk_delay_s = 0.5
    world.answers[b].clear()
    world.write(b, policy("else"))
    record = next(r for r in world.nodes[a].journal.records(POLICY))
    world.nodes[b].journal.merge([record], int(world.now * 1000))
    world.run(1)
    (written,) = [answer for answer in world.answers[b] if isinstance(answer, Written)]
    assert "contradicts" in written.error
    assert written.records == ()


# ------------------------------------------------------------------ members that lie


def delta_of(world: Any, address: Address, writer: bytes) -> Any:
    return world.nodes[address].journal.delta(writer, 0, 60_000)


def test_an_older_or_forged_credential_never_replaces_the_one_that_is_known(world: Any) -> None:
    a, b, _ = three(world)
    world.write(b, policy("one"))
    world.run(1)
    node, victim = world.nodes[a], world.nodes[b].identity.id
    known = node.journal.introductions[victim]
    credential = decode_credential(known)
    forged = replace(credential, publish=False, issued_at=1, signature=b"f" * 64).encode()
    older = replace(credential, issued_at=1)
    older = older.signed(world.mesh.authority.sign(older.signing_bytes()))
    newer = replace(credential, issued_at=credential.issued_at + 1, signature=b"f" * 64).encode()
    for blob in (forged, older.encode(), newer, b"", b"garbage", b"x" * 5000):
        out: list[Any] = []
        node._intake.introduce(world.now, victim, blob, None, out)
        assert not any(isinstance(output, Persist) for output in out)
        assert node.journal.introductions[victim] == known
    assert keys(world, a) == {"TrafficPolicy/default/one"}


def test_a_member_cannot_put_words_into_the_mouth_of_another(world: Any) -> None:
    a, b, c = three(world)
    world.write(b, policy("mine"))
    world.run(1)
    node = world.nodes[a]
    record = next(iter(node.journal.records(POLICY)))
    forged = replace(record, seq=2, key="TrafficPolicy/default/forged")
    forged = replace(forged, signature=world.nodes[c].identity.sign(forged.signing_bytes()))
    push(world, c, forged)
    world.run(1)
    assert ("record_refused", "bad signature") in {(event, f.get("reason")) for event, f in world.notes}
    assert keys(world, a) == {"TrafficPolicy/default/mine"}
    assert node.journal.heads[record.writer] == 1


def push(world: Any, sender: Address, record: Any) -> None:
    """`sender` pushes a record as if it had heard it."""
    for output in world.nodes[sender].engine.step(world.now, Publish(payload=encode_record(record))):
        if isinstance(output, Send):
            world.later(0.001, output.address, DatagramReceived(source=sender, data=output.data))


class Tampered(Registry):
    """Of a peer that objects to nothing it writes itself."""

    def objection(self, record: Any) -> str:
        return ""


def tampered(world: Any) -> Registry:
    honest = world.mesh.registry()
    return Tampered(
        root=honest.root,
        trust_domain=honest.trust_domain,
        drift_ms=honest.drift_ms,
        revocations=honest.revocations,
    )


def test_records_of_a_writer_without_rights_are_kept_but_not_obeyed_anywhere(world: Any) -> None:
    a = world.node(1)
    b = world.node(2, rights={"publish": False, "services": ("default/shop",)}, registry=tampered(world))
    world.join(b, a)
    world.run(2)
    liar = world.nodes[b]
    world.write(b, policy("mine"), service("cart"), service("shop"))
    world.run(2)
    node = world.nodes[a]
    assert node.journal.heads[liar.identity.id] == 3
    folder = Folder(node.journal, node.registry)
    assert folder.policies() == ()
    found = folder.services(node.engine.members(), but=node.identity.id)
    assert [instance.name for instance in found] == ["shop"]
    assert sum(folder.ignored[POLICY].values()) == sum(folder.ignored[SERVICE].values()) == 1


# ------------------------------------------------------------------ revocation


def revocation(proof: Any) -> Draft:
    return Draft(kind=REVOCATION, key=revocation_key(proof), payload=proof.encode())


def by_root(world: Any, subject: str) -> Any:
    return revoke(
        world.mesh.authority, subject, reason="lost", now=world.now, expires_at=world.now + NODE_REVOCATION_S
    )


def test_a_revoked_member_is_gone_everywhere_and_what_it_wrote_is_not_obeyed(world: Any) -> None:
    a, b, c = three(world)
    world.write(c, policy("theirs"))
    world.run(1)
    lost = world.nodes[c].identity.id
    world.write(a, revocation(by_root(world, spiffe_node(DOMAIN, lost))))
    world.run(2)
    for address in (a, b):
        node = world.nodes[address]
        member = node.engine.member(lost)
        assert member is None or not member.live
        assert Folder(node.journal, node.registry).policies() == ()


def test_a_revocation_by_somebody_not_entitled_is_ignored_everywhere(world: Any) -> None:
    a, b, c = world.node(1), world.node(2), world.node(3, registry=tampered(world))
    world.join(b, a)
    world.join(c, a)
    world.run(2)
    victim = world.nodes[a].identity.id
    own = revoke_self(world.nodes[c].identity, DOMAIN, reason="x", now=world.now)
    forged = replace(own, subject=spiffe_node(DOMAIN, victim))
    forged = replace(forged, signature=world.nodes[c].identity.sign(forged.signing_bytes()))
    world.write(b, revocation(forged), request=1)
    world.run(1)
    refused = [answer for answer in world.answers[b] if isinstance(answer, Written)]
    assert refused[0].error
    world.write(c, revocation(forged), revocation(own), request=2)
    world.run(2)
    node = world.nodes[b]
    assert node.engine.member(victim).state is State.ALIVE
    assert node.registry.revocations.covers(spiffe_node(DOMAIN, victim)) is None
    assert "revocation_ignored" in {event for event, _ in world.notes}
    assert node.registry.revocations.covers(own.subject) is not None  # what it says of itself holds


def test_whose_revocation_came_first_makes_no_difference(world: Any) -> None:
    """A member revokes another with the root's proof and is revoked itself: both hold, in either order."""
    a, b = world.node(1), world.node(2)
    writer, _ = world.mesh.member(3)
    other = spiffe_node(DOMAIN, world.mesh.member(4)[0].id)
    proofs = [by_root(world, other), by_root(world, spiffe_node(DOMAIN, writer.id))]
    c = world.node(3)
    world.write(c, revocation(proofs[0]))
    world.run(1)
    world.join(a, c)
    world.run(1)
    world.write(a, revocation(proofs[1]))
    world.write(b, revocation(proofs[1]))
    world.run(1)
    world.join(b, a)
    world.run(2)
    for address in (a, b):
        assert len(world.nodes[address].registry.revocations) == 2


def test_a_revocation_survives_a_restart_and_keeps_the_member_out(world: Any) -> None:
    a, b = world.node(1), world.node(2)
    world.join(b, a)
    world.run(2)
    lost = world.nodes[b].identity.id
    world.write(a, revocation(by_root(world, spiffe_node(DOMAIN, lost))))
    world.run(1)
    restarted = world.mesh.registry()
    for entry in world.nodes[a].registry.revocations:
        restarted.revocations.add(entry)
    world.node(1, registry=restarted)
    world.join(b, a)
    world.run(5)
    member = world.nodes[a].engine.member(lost)
    assert member is None or not member.live


def test_peers_of_the_same_name_are_two_members(world: Any) -> None:
    a = world.node(1, rights={"name": "twin"})
    b = world.node(2, rights={"name": "twin"})
    world.join(b, a)
    world.run(2)
    for address in (a, b):
        members = world.nodes[address].engine.members()
        assert [member.name for member in members] == ["twin", "twin"]
        assert len({member.id for member in members}) == 2
    world.write(a, service("shop"))
    world.write(b, service("shop"))
    world.run(1)
    node = world.nodes[a]
    found = Folder(node.journal, node.registry).services(node.engine.members(), but=b"")
    assert len({instance.node for instance in found}) == 2


def test_concurrent_edits_are_both_seen_everywhere_and_settled_by_the_next(world: Any) -> None:
    a, b, c = three(world)
    world.cut = lambda source, target: (source == c) != (target == c)
    world.run(10)
    world.write(a, policy("shared", timeout=1))
    world.write(c, policy("shared", timeout=2))
    world.run(5)
    world.cut = lambda _source, _target: False
    world.run(20)

    def versions(address: Address) -> list[Any]:
        node = world.nodes[address]
        (entry,) = Folder(node.journal, node.registry).policies()
        return [version.resource["spec"] for version in entry.versions]

    assert len(versions(a)) == 2
    assert versions(a) == versions(b) == versions(c)
    seen = list(world.nodes[b].journal.records(POLICY))
    settled = replace(policy("shared", timeout=3), context=context_for(seen, world.nodes[b].identity.id))
    world.write(b, settled)
    world.run(2)
    for address in (a, b, c):
        assert versions(address) == [{"timeout": 3}]
