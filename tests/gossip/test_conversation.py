import pytest

from gossip.codec import pack
from gossip.config import GossipConfig, lan, memberlist
from gossip.engine import Engine
from gossip.events import (
    Datagram,
    Diverged,
    Heard,
    Leave,
    MembersReceived,
    Output,
    Publish,
    Rejected,
    RequestSync,
    Send,
    SyncFailed,
)
from gossip.frame import Summary, encode_frame
from gossip.message import Ack, Gossip, Nack, Ping
from gossip.probe import Purpose
from gossip.statement import Alive, decode_statement
from tests.gossip.world import (
    START,
    Speaker,
    ack,
    acquaint,
    engine_of,
    identity_of,
    members_payload,
    ping,
    ping_request,
    suspicion,
)

OTHER = b"f" * 16


def quiet(*names: str, config: GossipConfig | None = None) -> Engine:
    """An engine that knows some members and has told everything it had to tell."""
    engine = engine_of("own", config=config)
    acquaint(engine, *names)
    engine._parts.broadcasts.clear()
    return engine


def only(outputs: list[Output], kind: type) -> list[Output]:
    return [output for output in outputs if isinstance(output, kind)]


def read(outputs: list[Output], reader: Speaker, address: tuple[str, int]) -> list[object]:
    return [
        reader.read(output.data, of="own")[1].message
        for output in outputs
        if isinstance(output, Send) and output.address == address
    ]


def test_a_ping_is_acked_with_its_sequence_to_where_it_came_from() -> None:
    engine, peer = quiet("a"), Speaker("a")
    engine.fingerprint = OTHER
    outputs = engine.step(START + 1, Datagram(source=("10.5.5.5", 5), data=peer.say("own", ping(77, OTHER))))
    (answer,) = read(outputs, peer, ("10.5.5.5", 5))
    assert isinstance(answer, Ack)
    assert (answer.sequence, answer.fingerprint, answer.settled) == (77, OTHER, False)
    assert len(outputs) == 1


def test_a_record_is_handed_up_once_however_often_it_comes() -> None:
    engine = quiet("a", "b")
    a, b = Speaker("a"), Speaker("b")
    outputs = engine.step(START, a.datagram("own", Gossip(), payloads=[b"one", b"two"]))
    assert outputs == [Heard(node=a.identity.id, payload=b"one"), Heard(node=a.identity.id, payload=b"two")]
    assert engine.step(START, b.datagram("own", Gossip(), payloads=[b"two", b"one"])) == []


def test_an_own_record_that_comes_back_is_no_news() -> None:
    engine = quiet("a")
    engine.step(START, Publish(payload=b"mine"))
    assert only(engine.step(START, Speaker("a").datagram("own", Gossip(), payloads=[b"mine"])), Heard) == []


def test_a_record_is_not_sent_back_to_who_sent_it() -> None:
    engine, peer = quiet("a", "b"), Speaker("a", address=("10.9.0.1", 7946))
    engine.step(START, peer.datagram("own", Gossip(), payloads=[b"news"]))
    outputs = engine.step(START, Publish(payload=b"news"))
    assert {output.address for output in outputs if isinstance(output, Send)} >= {("10.9.0.2", 7946)}
    for output in outputs:
        if isinstance(output, Send) and output.address == peer.address:
            assert peer.read(output.data, of="own")[1].payloads == ()


def test_records_remembered_are_bounded() -> None:
    engine, peer = quiet("a"), Speaker("a")
    limit = engine._parts.config.heard_max
    for start in range(0, limit + 40, 20):
        engine.step(
            START,
            peer.datagram("own", Gossip(), payloads=[str(n).encode() for n in range(start, start + 20)]),
        )
    assert len(engine._conversation._heard) == limit


def test_an_ack_by_the_target_ends_the_probe_and_proves_its_address() -> None:
    engine, peer = quiet("a", "b"), Speaker("a")
    entry = engine._parts.roster.get(peer.identity.id)
    assert entry is not None
    engine._parts.health.adjust(2)
    probe = engine._parts.probe(START, entry, Purpose.ROUND)
    assert probe is not None
    impostor = Speaker("b").datagram("own", ack(probe.sequence))
    engine.step(START, impostor)
    assert (len(engine._parts.probes), entry.link.proved) == (1, None)
    engine.step(START, peer.datagram("own", ack(probe.sequence)))
    assert (len(engine._parts.probes), entry.link.proved) == (0, peer.address)
    assert engine.statistics().health == 1


def test_a_ping_request_is_relayed_and_its_ack_sent_on() -> None:
    engine = quiet("asker", "target")
    asker, target = Speaker("asker"), Speaker("target", address=("10.9.0.2", 7946))
    request = ping_request(9, target.identity.id)
    (relayed,) = read(engine.step(START, asker.datagram("own", request)), target, target.address)
    assert isinstance(relayed, Ping)
    outputs = engine.step(START + 0.1, target.datagram("own", ack(relayed.sequence)))
    (answer,) = read(outputs, asker, asker.address)
    assert isinstance(answer, Ack)
    assert answer.sequence == 9


def test_a_target_unknown_here_is_nacked_at_once() -> None:
    engine, asker = quiet("asker"), Speaker("asker")
    request = ping_request(9, bytes(16))
    assert read(engine.step(START, asker.datagram("own", request)), asker, asker.address) == [
        Nack(sequence=9)
    ]


def test_stray_acks_and_nacks_change_nothing() -> None:
    engine, peer = quiet("a"), Speaker("a")
    assert engine.step(START, peer.datagram("own", ack(5))) == []
    assert engine.step(START, peer.datagram("own", Nack(sequence=5))) == []


def test_who_tells_of_members_unknown_here_is_asked_for_a_stream() -> None:
    engine, peer = quiet("a"), Speaker("a")
    outputs = engine.step(
        START, peer.datagram("own", Gossip(), updates=[suspicion("a", "stranger").encode()])
    )
    assert outputs == [
        RequestSync(
            address=("10.9.0.1", 7946), node=peer.identity.id, reason="it knows of members unknown here"
        )
    ]
    again = engine.step(START, peer.datagram("own", Gossip(), updates=[suspicion("a", "stranger").encode()]))
    assert again == []


def test_who_accuses_a_rank_that_is_over_is_told_the_news() -> None:
    engine, peer = quiet("a", "s"), Speaker("a")
    engine._parts.judge.hear(START, Speaker("s", address=("10.9.0.2", 7946)).alive(incarnation=1))
    outputs = engine.step(START, peer.datagram("own", Gossip(), updates=[suspicion("a", "s").encode()]))
    (told,) = [output for output in outputs if isinstance(output, Send) and output.address == peer.address]
    updates = [decode_statement(update) for update in peer.read(told.data, of="own")[1].updates]
    assert any(isinstance(u, Alive) and u.node == identity_of("s").id and u.incarnation == 1 for u in updates)
    quick = engine.step(START + 0.5, peer.datagram("own", Gossip(), updates=[suspicion("a", "s").encode()]))
    assert [output for output in quick if isinstance(output, Send) and output.address == peer.address] == []


def test_a_member_thought_dead_that_speaks_is_told_so() -> None:
    engine, peer = quiet("s", "a"), Speaker("s")
    judge = engine._parts.judge
    for accuser in ("a", "own"):
        judge.hear(START, suspicion(accuser, "s"))
    judge.condemn_due(START + 1000)
    outputs = engine.step(START + 1, peer.datagram("own", Gossip()))
    bodies = [
        peer.read(o.data, of="own")[1] for o in outputs if isinstance(o, Send) and o.address == peer.address
    ]
    assert any(decode_statement(u).subject == peer.identity.id for body in bodies for u in body.updates)


def test_forged_statements_are_rejected_one_by_one_and_the_rest_counts() -> None:
    engine, peer = quiet("a", "s", "t"), Speaker("a")
    forged = Speaker("s").alive(incarnation=5).encode()[:-1] + b"x"
    updates = [forged, b"\xff", suspicion("a", "s").encode()]
    outputs = engine.step(START, peer.datagram("own", Gossip(), updates=updates))
    assert len(only(outputs, Rejected)) == 2
    member = engine.member(identity_of("s").id)
    assert member is not None
    assert (member.state.value, member.incarnation) == ("suspect", 0)


def test_a_lasting_difference_of_fingerprints_is_told_once_per_spacing() -> None:
    engine, peer = quiet("a"), Speaker("a")
    told = Diverged(node=peer.identity.id, address=("10.9.0.1", 7946), fingerprint=OTHER)
    assert only(engine.step(START + 5, peer.datagram("own", ping(1, OTHER))), Diverged) == [told]
    assert only(engine.step(START + 6, peer.datagram("own", ping(2, OTHER))), Diverged) == []
    assert only(engine.step(START + 8, peer.datagram("own", ack(3, OTHER))), Diverged) == [told]
    assert only(engine.step(START + 20, peer.datagram("own", ping(4))), Diverged) == []


def test_a_difference_right_after_an_own_change_is_a_push_in_flight() -> None:
    engine, peer = quiet("a"), Speaker("a")
    engine.fingerprint = b"n" * 16
    assert only(engine.step(START + 5.0, peer.datagram("own", ping(1))), Diverged) == []
    assert only(engine.step(START + 5.4, peer.datagram("own", ping(2))), Diverged) == []
    assert only(engine.step(START + 5.6, peer.datagram("own", ping(3, settled=False))), Diverged) == []
    assert len(only(engine.step(START + 5.7, peer.datagram("own", ping(4))), Diverged)) == 1


SMALLER, LARGER = sorted(("own", "a", "b", "c"), key=lambda name: identity_of(name).id)[:2]


def quiet_since_long(name: str, *others: str, config: GossipConfig | None = None) -> Engine:
    engine = engine_of(name, config=config)
    acquaint(engine, *others)
    engine._parts.broadcasts.clear()
    return engine


def lists_differ(outputs: list[Output]) -> list[Output]:
    return [o for o in outputs if isinstance(o, RequestSync) and o.reason == "member lists differ"]


@pytest.mark.parametrize("settled", [True, False])
def test_of_two_whose_member_lists_differ_the_smaller_id_asks_for_a_stream(settled: bool) -> None:
    for own, other in ((SMALLER, LARGER), (LARGER, SMALLER)):
        engine = quiet_since_long(own, other)
        message = ping(1, members=b"differs!", members_settled=settled)
        outputs = engine.step(START + 5, Speaker(other).datagram(own, message))
        asked = [
            RequestSync(address=("10.9.0.1", 7946), node=identity_of(other).id, reason="member lists differ")
        ]
        assert lists_differ(outputs) == (asked if settled and own == SMALLER else [])


def test_members_whose_lists_are_equal_leave_each_other_alone() -> None:
    engine = quiet_since_long(SMALLER, LARGER)
    message = ping(1, members=engine._parts.view.root, members_settled=True)
    assert lists_differ(engine.step(START + 5, Speaker(LARGER).datagram(SMALLER, message))) == []


def test_a_list_that_changed_just_now_says_so_and_asks_for_nothing() -> None:
    engine, peer = quiet_since_long(SMALLER, LARGER), Speaker(LARGER)
    for after_s, settled in ((0.1, False), (0.6, True)):
        message = ping(1, members=b"differs!", members_settled=True)
        outputs = engine.step(START + after_s, peer.datagram(SMALLER, message))
        (send,) = [output for output in outputs if isinstance(output, Send)]
        answer = peer.read(send.data, of=SMALLER)[1].message
        assert isinstance(answer, Ack)
        assert (answer.members, answer.members_settled) == (engine._parts.view.root, settled)
        assert bool(lists_differ(outputs)) == settled


def test_a_list_with_a_suspect_in_it_is_not_settled() -> None:
    engine, peer = quiet_since_long(SMALLER, LARGER, "s"), Speaker(LARGER)
    engine._parts.judge.hear(START, suspicion(LARGER, "s"))
    message = ping(1, members=b"differs!", members_settled=True)
    assert lists_differ(engine.step(START + 4, peer.datagram(SMALLER, message))) == []
    assert not engine._parts.list_settled(START + 4)
    engine._parts.judge.condemn_due(START + 4 + 1000)
    assert not engine._parts.list_settled(START + 5)
    assert engine._parts.list_settled(START + 6)


def test_who_has_left_asks_for_no_members_and_so_does_who_does_not_compare() -> None:
    left = quiet_since_long(SMALLER, LARGER)
    left.step(START, Leave())
    indifferent = quiet_since_long(SMALLER, LARGER, config=memberlist())
    for engine in (left, indifferent):
        message = ping(1, members=b"differs!", members_settled=True)
        assert lists_differ(engine.step(START + 5, Speaker(LARGER).datagram(SMALLER, message))) == []


def test_a_stream_because_of_members_comes_before_one_because_of_journals() -> None:
    engine = quiet_since_long(SMALLER, LARGER)
    message = ping(1, OTHER, members=b"differs!", members_settled=True)
    outputs = engine.step(START + 5, Speaker(LARGER).datagram(SMALLER, message))
    assert [type(output) for output in outputs if not isinstance(output, Send)] == [RequestSync, Diverged]


def test_an_exchange_under_way_keeps_others_from_asking() -> None:
    engine = quiet_since_long(SMALLER, LARGER)
    engine.step(START + 5, SyncFailed(address=("10.0.0.9", 1)))
    view, nothing = engine._parts.view, pack([1, []])
    asked = engine.exchange(None, initiator=False)
    asked.receive(encode_frame(Summary(root=view.root, count=view.count, notice=nothing)))
    assert engine._parts.list_settled(START + 5)
    asked = engine.exchange(None, initiator=False)
    asked.receive(encode_frame(Summary(root=bytes(8), count=0, notice=nothing)))
    assert not engine._parts.list_settled(START + 5)
    assert engine._parts.list_settled(START + 5 + lan().members_spacing_s)


def test_a_stream_from_the_target_counts_as_its_answer() -> None:
    engine, teller = quiet("a"), engine_of("a")
    entry = engine._parts.roster.get(identity_of("a").id)
    assert entry is not None
    engine._parts.probe(START, entry, Purpose.ROUND)
    for chunk in members_payload(teller):
        engine.step(START, MembersReceived(node=identity_of("a").id, data=chunk))
    assert len(engine._parts.probes) == 0


def test_so_does_a_stream_on_which_it_had_nothing_to_tell() -> None:
    engine = quiet("a")
    entry = engine._parts.roster.get(identity_of("a").id)
    assert entry is not None
    engine._parts.probe(START, entry, Purpose.ROUND)
    outputs = engine.step(START, MembersReceived(node=identity_of("a").id, data=pack([1, []])))
    assert only(outputs, Rejected) == []
    assert len(engine._parts.probes) == 0


def test_a_malformed_stream_payload_is_rejected() -> None:
    (output,) = engine_of("own").step(START, MembersReceived(node=None, data=b"\x93"))
    assert isinstance(output, Rejected)
    assert output.source is None
