from collections import Counter
from dataclasses import replace

from gossip.config import lan
from gossip.engine import Engine
from gossip.events import Datagram, Heard, MemberChanged, Output, Rejected, RequestSync, Send, Tick
from gossip.member import State
from gossip.message import Gossip, Ping
from gossip.parts import RECALLED_MAX
from gossip.probe import Purpose
from gossip.statement import Suspect, decode_statement
from tests.gossip.test_conversation import only, quiet
from tests.gossip.world import START, Speaker, ack, engine_of, identity_of, suspicion

NAMES = [f"m{index}" for index in range(12)]
ADDRESS = {name: (f"10.9.0.{index + 1}", 7946) for index, name in enumerate(NAMES)}


def ranked(subject: str, own: str = "own") -> list[bytes]:
    engine = quiet(*NAMES)
    return engine._parts.roster.witnesses(identity_of(subject).id, 3)


def pinged(outputs: list[Output], name: str) -> bool:
    reader = Speaker(name)
    return any(
        isinstance(reader.read(output.data, of="own")[1].message, Ping)
        for output in outputs
        if isinstance(output, Send) and output.address == ADDRESS[name]
    )


def test_a_witness_probes_the_suspect_at_once_and_others_do_not() -> None:
    own = identity_of("own").id
    chosen = {name: own in ranked(name) for name in NAMES}
    assert any(chosen.values())
    assert not all(chosen.values())
    for name, is_witness in chosen.items():
        engine = quiet(*NAMES)
        accuser = next(other for other in NAMES if other != name)
        outputs = engine.step(
            START, Speaker(accuser).datagram("own", Gossip(), updates=[suspicion(accuser, name).encode()])
        )
        assert pinged(outputs, name) is is_witness


def test_those_next_in_the_ring_tell_the_suspect_at_once_and_do_not_probe_it() -> None:
    config = lan()
    heralding = []
    for name in NAMES:
        engine = quiet(*NAMES)
        ring = engine._parts.roster.witnesses(identity_of(name).id, config.witnesses + config.heralds)
        if engine.id not in ring[config.witnesses :]:
            continue
        accusation = suspicion(next(other for other in NAMES if other != name), name)
        engine._parts.judge.hear(START, accusation)
        engine._parts.broadcasts.clear()  # no round of gossip tells it
        engine._parts.settle(START)
        reader = Speaker(name, address=ADDRESS[name])
        heard = [o for o in engine._parts.out if isinstance(o, Send) and o.address == ADDRESS[name]]
        bodies = [reader.read(output.data, of="own")[1] for output in heard]
        assert [(body.message, body.updates) for body in bodies] == [(Gossip(), (accusation.encode(),))]
        heralding.append(name)
    assert len(heralding) >= 3


def test_an_accuser_tells_the_witnesses_at_once() -> None:
    engine = quiet(*NAMES)
    suspect = engine._parts.roster.get(identity_of("m0").id)
    assert suspect is not None
    engine._parts.judge.accusations.accuse(START, suspect)
    engine._parts.settle(START)
    outputs, engine._parts.out = engine._parts.out, []
    told = set()
    for name in NAMES:
        for output in outputs:
            if isinstance(output, Send) and output.address == ADDRESS[name]:
                updates = Speaker(name).read(output.data, of="own")[1].updates
                if any(decode_statement(update).subject == identity_of("m0").id for update in updates):
                    told.add(identity_of(name).id)
    assert set(ranked("m0")) - {engine.id} <= told


def test_who_comes_back_from_the_dead_draws_no_stream_from_everybody() -> None:
    engine = quiet("s", "a")
    judge = engine._parts.judge
    judge.hear(START, suspicion("a", "s"))
    judge.condemn_due(START + 1000)
    engine.step(START, Tick())
    outputs = engine.step(
        START, Speaker("s").datagram("own", Gossip(), introduction=Speaker("s").alive(incarnation=1).encode())
    )
    (changed,) = only(outputs, MemberChanged)
    assert isinstance(changed, MemberChanged)
    assert (changed.previous, changed.member.state) == (State.DEAD, State.ALIVE)
    assert only(outputs, RequestSync) == []


def test_a_dead_member_that_answers_a_knock_is_asked_for_a_stream() -> None:
    engine = quiet("s", "a")
    judge = engine._parts.judge
    judge.hear(START, suspicion("a", "s"))
    judge.condemn_due(START + 1000)
    engine.step(START, Tick())
    entry = engine._parts.roster.get(identity_of("s").id)
    assert entry is not None
    probe = engine._parts.probe(START + 1, entry, Purpose.CONTACT)
    assert probe is not None
    outputs = engine.step(START + 1, Speaker("s").datagram("own", ack(probe.sequence)))
    asked = only(outputs, RequestSync)
    assert [(request.node, request.reason) for request in asked] == [
        (identity_of("s").id, "a dead member answered")
    ]


def accused(*, recall: bool = True) -> tuple[Engine, list[str]]:
    """An engine that has accused more members than it tells at once, and has nothing else to say."""
    names = [f"m{index}" for index in range(RECALLED_MAX + 10)]
    engine = quiet(*names, "s", config=replace(lan(), recall=recall))
    for name in names:
        entry = engine._parts.roster.get(identity_of(name).id)
        assert entry is not None
        engine._parts.judge.accusations.accuse(START, entry)
    engine._parts.judge.hear(START, suspicion("m1", "s"))
    engine._parts.settle(START)
    engine._parts.out.clear()
    engine._parts.broadcasts.clear()
    return engine, names


def accuses(outputs: list[Output], name: str, address: tuple[str, int]) -> bool:
    """Whether a datagram to `name` carries this node's accusation of it."""
    reader = Speaker(name, address=address)
    bodies = [
        reader.read(output.data, of="own")[1]
        for output in outputs
        if isinstance(output, Send) and output.address == address
    ]
    claims = [decode_statement(update) for body in bodies for update in body.updates]
    own, subject = identity_of("own").id, identity_of(name).id
    return any(isinstance(c, Suspect) and (c.accuser, c.subject) == (own, subject) for c in claims)


def test_when_one_that_was_silent_answers_the_other_suspects_are_told() -> None:
    engine, names = accused()
    entry = engine._parts.roster.get(identity_of("m3").id)
    assert entry is not None
    probe = engine._parts.probe(START + 5, entry, Purpose.RECALL)
    assert probe is not None
    engine._parts.out.clear()
    answer = ack(probe.sequence)
    back = [Speaker("m3").alive(incarnation=1).encode()]
    outputs = engine.step(START + 5.01, Speaker("m3").datagram("own", answer, updates=back))
    assert only(outputs, RequestSync) == []  # it was not thought dead: the two know the same
    told = [
        name for index, name in enumerate(names) if accuses(outputs, name, ("10.9.0." + str(index + 1), 7946))
    ]
    assert told == [name for name in names if name != "m3"][:RECALLED_MAX]


def test_as_memberlist_does_it_nobody_is_told() -> None:
    engine, _ = accused(recall=False)
    engine._parts.recall(START + 5)
    assert only(engine._parts.out, Send) == []


def test_with_nobody_to_tell_the_queues_are_emptied() -> None:
    engine = engine_of("own")
    engine._parts.broadcasts.publish(b"d", b"payload")
    engine._parts.gossip_round(START)
    assert len(engine._parts.broadcasts) == 0


def test_a_record_too_large_to_ride_beside_an_introduction_follows_it() -> None:
    engine = quiet("a")
    reader = Speaker("a", address=("10.9.0.1", 7946))
    engine._parts.broadcasts.publish(b"d", b"p" * 1200)
    engine._parts.gossip_round(START)
    sent = [reader.read(output.data, of="own") for output in engine._parts.out if isinstance(output, Send)]
    assert [bool(packet.introduction) for packet, _ in sent] == [True, False]
    assert [len(body.payloads) for _, body in sent] == [0, 1]


def test_rounds_before_their_time_are_bounded_and_the_rest_waits_for_the_tick() -> None:
    engine = quiet(*NAMES)
    sends = 0
    for number in range(200):
        engine._parts.broadcasts.publish(number.to_bytes(2, "big"), b"p" * 100)
        engine._parts.spread_now(START)
    sends = len(only(engine._parts.out, Send))
    assert sends <= 50 * 3 * 2
    assert len(engine._parts.broadcasts.payloads) > 0


def test_a_long_queue_goes_out_in_several_datagrams_and_nothing_twice_before_all_once() -> None:
    engine = quiet("a")
    reader = Speaker("a", address=("10.9.0.1", 7946))
    entry = engine._parts.roster.get(identity_of("a").id)
    assert entry is not None
    entry.link.knows_us = True
    for number in range(10):
        engine._parts.broadcasts.publish(bytes([number]), bytes([number]) * 600)
    for _ in range(2):
        engine._parts.gossip_round(START)
    payloads = [
        payload
        for output in engine._parts.out
        if isinstance(output, Send)
        for payload in reader.read(output.data, of="own")[1].payloads
    ]
    assert [payload[0] for payload in payloads[:10]] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert len(only(engine._parts.out, Send)) == 8


def test_the_members_of_a_wide_round_share_its_datagrams() -> None:
    engine = quiet(*NAMES, config=replace(lan(), retransmit_mult=16))
    for entry in engine._parts.roster.entries():
        entry.link.knows_us = True
    for number in range(10):
        engine._parts.broadcasts.publish(bytes([number]), bytes([number]) * 600)
    engine._parts.gossip_round(START)
    sends = Counter(output.address for output in engine._parts.out if isinstance(output, Send))
    assert sorted(sends.values()) == [2, 2, 2, 3, 3]
    assert sends.total() == lan().gossip_datagrams_max


def test_many_tiny_records_never_make_a_datagram_its_receiver_refuses() -> None:
    engine, receiver = quiet("a"), engine_of("a", address=("10.9.0.1", 7946))
    for number in range(200):
        engine._parts.broadcasts.publish(number.to_bytes(2, "big"), number.to_bytes(2, "big"))
    heard = 0
    for _ in range(10):
        engine._parts.gossip_round(START)
        for output in only(engine._parts.out, Send):
            assert isinstance(output, Send)
            outputs = receiver.step(START, Datagram(source=("10.0.0.1", 7946), data=output.data))
            assert only(outputs, Rejected) == []
            heard += len(only(outputs, Heard))
        engine._parts.out.clear()
    assert heard == 200
