from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.config import DATAGRAM_BYTES_MAX, lan
from gossip.engine import Engine
from gossip.events import Datagram, Evict, Output, Rejected, Send, Tick
from gossip.member import State
from gossip.message import Ack, Gossip, Ping
from gossip.statement import Alive, Suspect, decode_statement
from tests.gossip.world import (
    START,
    Speaker,
    ack,
    acquaint,
    credential_of,
    engine_of,
    identity_of,
    ping,
    suspicion,
)

SOURCE = ("10.9.9.9", 7946)


def sends(outputs: list[Output]) -> list[Send]:
    return [output for output in outputs if isinstance(output, Send)]


def refused(engine: Engine, data: bytes, *, reason: str, now: float = START) -> None:
    members = engine.members()
    assert engine.step(now, Datagram(source=SOURCE, data=data)) == [Rejected(source=SOURCE, reason=reason)]
    assert engine.members() == members


def reason_of(engine: Engine, data: bytes) -> str:
    (output,) = engine.step(START, Datagram(source=SOURCE, data=data))
    assert isinstance(output, Rejected)
    return output.reason


# ---------------------------------------------------------------- what is refused
def test_a_non_member_without_introduction_is_refused_and_gets_no_answer() -> None:
    stranger = Speaker("stranger")
    data = stranger.say("own", ping(), introduction=b"")
    refused(
        engine_of("own"),
        data,
        reason=f"unknown sender {stranger.identity.id[:8].hex()}, and it does not introduce itself",
    )


@pytest.mark.parametrize(
    "introduce",
    [
        lambda s: (
            Speaker("stranger", credential=credential_of("stranger", root=identity_of("other root")))
            .alive()
            .encode()
        ),
        lambda s: (
            Speaker("stranger", credential=credential_of("stranger", issued_at=int(START) - 99, ttl_s=98))
            .alive()
            .encode()
        ),
        lambda s: Speaker("member").alive().encode(),
        lambda s: s.alive(boot=2).encode(),
        lambda s: s.alive().slim().encode(),
        lambda s: replace(s.alive(), signature=bytes(64)).encode(),
        lambda s: suspicion("stranger", "own").encode(),
        lambda s: b"\x90",
    ],
)
def test_an_introduction_that_proves_nothing_is_refused(introduce: Callable[[Speaker], bytes]) -> None:
    stranger = Speaker("stranger")
    engine = engine_of("own")
    assert reason_of(engine, stranger.say("own", ping(), introduction=introduce(stranger)))
    assert len(engine.members()) == 1


def test_a_copied_introduction_does_not_let_another_speak() -> None:
    engine, thief = engine_of("own"), Speaker("thief")
    stolen = Speaker("victim").alive().encode()
    assert reason_of(engine, thief.say("own", ping(), introduction=stolen))
    forged = bytearray(thief.say("own", ping(), introduction=stolen))
    forged[1:9] = identity_of("victim").id[:8]
    assert reason_of(engine, bytes(forged)) == "does not authenticate"
    assert len(engine.members()) == 1


def test_a_datagram_for_another_member_is_refused() -> None:
    engine = engine_of("own")
    acquaint(engine, "a", "b")
    refused(engine, Speaker("a").say("b", ping()), reason="does not authenticate")


def test_a_replayed_datagram_is_refused() -> None:
    engine = engine_of("own")
    data = Speaker("a").say("own", ping())
    assert sends(engine.step(START, Datagram(source=SOURCE, data=data)))
    refused(engine, data, reason="a datagram of a seen before")
    refused(engine, data, reason="a datagram of a seen before", now=START + 3600)


def test_reordered_datagrams_are_accepted_within_the_window_only() -> None:
    engine, speaker = engine_of("own"), Speaker("a")
    first = speaker.counter
    for counter in (first + 64, first + 1, first + 63):
        assert sends(engine.step(START, speaker.datagram("own", ping(), counter=counter)))
    assert reason_of(engine, speaker.say("own", ping(), counter=first)) == "a datagram of a seen before"


def test_an_earlier_boot_is_over() -> None:
    engine = engine_of("own")
    old = Speaker("a", boot=1)
    early = old.say("own", ping())
    engine.step(START, Speaker("a", boot=2).datagram("own", ping()))
    refused(engine, early, reason="a speaks from boot 1, its boot is 2")


def test_own_name_and_evicted_members_are_refused() -> None:
    engine = engine_of("own")
    assert reason_of(engine, Speaker("own").say("a", ping())) == "a datagram in this node's own name"
    acquaint(engine, "a")
    engine.step(START, Evict(node=identity_of("a").id, reason="revoked"))
    assert reason_of(engine, Speaker("a").say("own", ping())) == "a is evicted"


def test_verifying_strangers_is_bounded_per_second() -> None:
    config = replace(lan(), introductions_per_s=5.0)
    engine = engine_of("own", config=config)
    reasons = []
    for number in range(30):
        stranger = Speaker(
            f"s{number}", credential=credential_of(f"s{number}", root=identity_of("other root"))
        )
        reasons.append(reason_of(engine, stranger.say("own", ping())))
    assert reasons.count("too many introductions at once") == 20
    assert engine.statistics().introductions_verified == 10
    honest = Speaker("honest").datagram("own", ping())
    assert isinstance(engine.step(START, honest)[0], Rejected)
    assert sends(engine.step(START + 1, Speaker("honest").datagram("own", ping())))


def test_invented_boots_of_a_member_are_bounded_too() -> None:
    engine = engine_of("own", config=replace(lan(), introductions_per_s=5.0))
    acquaint(engine, "a")
    speaker = Speaker("mallory")
    reasons = []
    for boot in range(5, 35):
        speaker.boot = boot
        data = bytearray(speaker.say("own", ping(), introduction=b""))
        data[1:9] = identity_of("a").id[:8]
        reasons.append(reason_of(engine, bytes(data)))
    assert reasons == ["does not authenticate"] * 10 + ["too many new boots at once"] * 20
    assert sends(engine.step(START, Speaker("a").datagram("own", ping())))


def test_an_expired_member_is_refused_until_it_shows_a_renewed_credential() -> None:
    engine = engine_of("own")
    old = Speaker("a", credential=credential_of("a", ttl_s=100))
    assert sends(engine.step(START, old.datagram("own", ping())))
    later = START + 200
    for introduction in (None, b""):
        (output,) = engine.step(later, old.datagram("own", ping(), introduction=introduction))
        assert isinstance(output, Rejected)
    renewed = Speaker("a", credential=credential_of("a", issued_at=int(START) + 150))
    renewed.counter = old.counter
    introduction = renewed.alive(incarnation=1).encode()
    assert sends(engine.step(later, renewed.datagram("own", ping(), introduction=introduction)))


@given(st.binary(max_size=1500))
def test_random_bytes_are_rejected_and_nothing_else(data: bytes) -> None:
    outputs = engine_of("own").step(START, Datagram(source=SOURCE, data=data))
    assert [type(output) for output in outputs] == [Rejected]


@given(st.integers(0, 2000), st.integers(1, 255), st.booleans())
def test_a_real_datagram_with_one_byte_changed_is_rejected(
    position: int, flip: int, introduced: bool
) -> None:
    engine, speaker = engine_of("own"), Speaker("a")
    if not introduced:
        acquaint(engine, "a")
    data = bytearray(speaker.say("own", ping(), introduction=None if introduced else b""))
    data[position % len(data)] ^= flip
    outputs = engine.step(START, Datagram(source=SOURCE, data=bytes(data)))
    assert [type(output) for output in outputs] == [Rejected]


@given(st.lists(st.binary(max_size=200), max_size=5), st.lists(st.binary(max_size=100), max_size=3))
def test_a_member_that_sends_nonsense_inside_is_answered_and_its_nonsense_rejected(
    updates: list[bytes], payloads: list[bytes]
) -> None:
    engine = engine_of("own")
    acquaint(engine, "a")
    outputs = engine.step(
        START, Speaker("a").datagram("own", ping(), introduction=b"", updates=updates, payloads=payloads)
    )
    assert len(sends(outputs)) == 1
    assert sum(isinstance(output, Rejected) for output in outputs) == len(updates)


# ---------------------------------------------------------------- introductions
def test_a_stranger_that_introduces_itself_is_taken_in_and_answered() -> None:
    engine = engine_of("own")
    outputs = engine.step(START, Speaker("a").datagram("own", ping()))
    assert engine.members()[1].name == "a"
    assert engine.members()[1].state is State.ALIVE
    assert len(sends(outputs)) >= 1


def test_introductions_stop_once_the_peer_shows_that_it_knows_this_boot() -> None:
    engine, peer = engine_of("own", boot=4), Speaker("a")
    acquaint(engine, "a")
    entry = engine._parts.roster.get(peer.identity.id)
    assert entry is not None

    def introduction(now: float = START) -> bytes:
        send = engine._parts.courier.seal(entry, ping(), now=now)
        assert send is not None
        return peer.read(send.data, of="own")[0].introduction

    assert introduction() == engine._parts.presence.encoded
    engine.step(START, peer.datagram("own", Gossip(), known_boot=3))
    assert introduction()
    engine.step(START, peer.datagram("own", Gossip(), known_boot=4))
    assert introduction() == b""
    restarted = Speaker("a", boot=2)
    engine.step(START, restarted.datagram("own", Gossip(), known_boot=0))
    peer = restarted
    assert introduction()


def test_long_after_its_start_a_node_introduces_itself_only_where_there_is_doubt() -> None:
    engine, peer = engine_of("own"), Speaker("a")
    acquaint(engine, "a")
    entry = engine._parts.roster.get(peer.identity.id)
    assert entry is not None

    def introduces(now: float) -> bool:
        send = engine._parts.courier.seal(entry, ping(), now=now)
        assert send is not None
        return bool(peer.read(send.data, of="own")[0].introduction)

    assert introduces(START + lan().introduce_s - 0.1)
    assert not introduces(START + lan().introduce_s)
    entry.link.doubt()
    assert introduces(START + 1000)
    engine.step(START + 1000, peer.datagram("own", Gossip(), known_boot=1))
    assert not introduces(START + 1000)
    engine.step(START + 1001, peer.datagram("own", Gossip(), known_boot=0))  # it forgot
    assert introduces(START + 2000)


def test_a_peer_that_tells_old_news_about_this_node_is_introduced_to_again() -> None:
    engine, peer = engine_of("own"), Speaker("a")
    acquaint(engine, "a")
    engine.step(START, peer.datagram("own", Gossip(), updates=[suspicion("a", "own").encode()]))
    assert engine.members()[0].incarnation == 1
    outputs = engine.step(
        START + 2, peer.datagram("own", ping(), updates=[suspicion("a", "own").encode()], introduction=None)
    )
    packet, _ = peer.read(sends(outputs)[0].data, of="own")
    alive = decode_statement(packet.introduction)
    assert isinstance(alive, Alive)
    assert alive.incarnation == 1


# ---------------------------------------------------------------- replies
@given(st.integers(0, 2**63), st.integers(0, 2**64 - 1), st.booleans())
def test_a_reply_is_never_larger_than_its_request_before_the_address_is_proved(
    boot: int, known_boot: int, introduced: bool
) -> None:
    engine = engine_of("own", boot=boot)
    acquaint(engine, "a", *(f"m{index}" for index in range(8)))
    engine.step(START, Speaker("a").datagram("own", Gossip(), updates=[suspicion("a", "m1").encode()]))
    peer = Speaker("a")
    peer.counter += 10
    data = peer.say("own", ping(), known_boot=known_boot, introduction=None if introduced else b"")
    (reply,) = [
        s for s in sends(engine.step(START, Datagram(source=SOURCE, data=data))) if s.address == SOURCE
    ]
    assert len(reply.data) <= len(data)
    assert isinstance(peer.read(reply.data, of="own")[1].message, Ack)


def test_a_proved_address_gets_full_datagrams() -> None:
    engine, peer = engine_of("own"), Speaker("a", address=("10.9.0.1", 7946))
    acquaint(engine, "a")
    asked = sends(engine.step(engine.deadline or 0, Tick()))
    while not asked or not isinstance((message := peer.read(asked[0].data, of="own")[1].message), Ping):
        asked = sends(engine.step(engine.deadline or 0, Tick()))
    answer = ack(message.sequence)
    engine.step(START + 2, peer.datagram("own", answer))
    engine._parts.broadcasts.publish(b"1", b"a record not yet told" * 20)
    engine._parts.broadcasts.publish(b"2", b"and another one" * 20)
    data = peer.say("own", ping(), introduction=b"")
    (reply, *_) = sends(engine.step(START + 2, Datagram(source=peer.address, data=data)))
    assert len(data) + 420 < len(reply.data) <= 1400
    engine._parts.broadcasts.publish(b"3", b"a third" * 20)
    stray = Datagram(source=("10.66.6.6", 1), data=peer.say("own", ping(), introduction=b""))
    (reply, *_) = sends(engine.step(START + 2, stray))
    assert len(reply.data) <= len(data)


@pytest.mark.parametrize("introduced", [False, True])
@pytest.mark.parametrize("size", [40, 200, 333, 900])
def test_whatever_there_is_to_tell_a_datagram_fits_into_what_the_wire_carries(
    size: int, introduced: bool
) -> None:
    """Accusations, corrections, statements and records at once, of each more than there is room for."""
    engine = engine_of("own")
    acquaint(engine, "t", "a", "b", "c")
    parts = engine._parts
    for accuser in "abc":
        parts.judge.hear(START, suspicion(accuser, "t"))
    entry = parts.roster.get(identity_of("t").id)
    assert entry is not None
    for number in range(40):
        parts.broadcasts.tell(number.to_bytes(16, "big"), "alive", bytes(size))
        parts.broadcasts.publish(number.to_bytes(16, "big"), bytes(size + 1))
    entry.link.doubted = introduced
    sizes = []
    for _ in range(6):  # statements and records take turns
        for corrections in ((), tuple(bytes(size) for _ in range(30))):
            sealed = parts.courier.seal(entry, Gossip(), now=START + 60, updates=corrections)
            assert sealed is not None
            sizes.append(len(sealed.data))
    assert DATAGRAM_BYTES_MAX * 0.7 < max(sizes) <= DATAGRAM_BYTES_MAX


def test_a_suspect_is_told_first_when_it_is_pinged() -> None:
    engine, peer = engine_of("own"), Speaker("a")
    acquaint(engine, "a", "b", *(f"m{index}" for index in range(20)))
    engine.step(START, Speaker("b").datagram("own", Gossip(), updates=[suspicion("b", "a").encode()]))
    entry = engine._parts.roster.get(peer.identity.id)
    assert entry is not None
    send = engine._parts.courier.seal(entry, ping(), now=START)
    assert send is not None
    _, body = peer.read(send.data, of="own")
    first = decode_statement(body.updates[0])
    assert isinstance(first, Suspect)
    assert first.subject == peer.identity.id


def test_no_counter_is_used_twice_even_when_a_boot_number_is() -> None:
    counters = []
    for start in (START, START + 0.5):
        engine, peer = engine_of("own", now=start), Speaker("a")
        acquaint(engine, "a", now=start)
        entry = engine._parts.roster.get(peer.identity.id)
        assert entry is not None
        for _ in range(50):
            send = engine._parts.courier.seal(entry, Gossip(), now=START)
            assert send is not None
            counters.append(peer.read(send.data, of="own")[0].counter)
    assert len(set(counters)) == 100
