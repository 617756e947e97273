from gossip.engine import Engine
from gossip.events import (
    Datagram,
    Diverged,
    Heard,
    MembersReceived,
    Output,
    Publish,
    Rejected,
    RequestSync,
    Send,
)
from gossip.message import Ack, Gossip, Nack, Ping, PingRequest
from gossip.probe import Purpose
from gossip.statement import Alive, decode_statement
from tests.gossip.world import START, Speaker, ack, acquaint, engine_of, identity_of, ping, suspicion

OTHER = b"f" * 16


def quiet(*names: str) -> Engine:
    """An engine that knows some members and has told everything it had to tell."""
    engine = engine_of("own")
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
    assert read(outputs, peer, ("10.5.5.5", 5)) == [Ack(sequence=77, fingerprint=OTHER, settled=False)]
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
    request = PingRequest(sequence=9, target=target.identity.id, fingerprint=bytes(16), settled=True)
    (relayed,) = read(engine.step(START, asker.datagram("own", request)), target, target.address)
    assert isinstance(relayed, Ping)
    outputs = engine.step(START + 0.1, target.datagram("own", ack(relayed.sequence)))
    (answer,) = read(outputs, asker, asker.address)
    assert isinstance(answer, Ack)
    assert answer.sequence == 9


def test_a_target_unknown_here_is_nacked_at_once() -> None:
    engine, asker = quiet("asker"), Speaker("asker")
    request = PingRequest(sequence=9, target=bytes(16), fingerprint=bytes(16), settled=True)
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


def test_a_stream_from_the_target_counts_as_its_answer() -> None:
    engine, teller = quiet("a"), engine_of("a")
    entry = engine._parts.roster.get(identity_of("a").id)
    assert entry is not None
    engine._parts.probe(START, entry, Purpose.ROUND)
    for chunk in teller.members_payload():
        engine.step(START, MembersReceived(node=identity_of("a").id, data=chunk))
    assert len(engine._parts.probes) == 0


def test_a_malformed_stream_payload_is_rejected() -> None:
    (output,) = engine_of("own").step(START, MembersReceived(node=None, data=b"\x93"))
    assert isinstance(output, Rejected)
    assert output.source is None
