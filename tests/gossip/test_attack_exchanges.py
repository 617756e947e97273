"""What one member can do to the exchanges of others."""

import pytest

from gossip.events import MembersReceived, RequestSync, Send
from gossip.member import State
from gossip.message import Ack, Gossip, Nack
from tests.gossip.company import OWN, Company, alive_of, chunk, dead_of
from tests.gossip.world import Speaker, engine_of, identity_of, ping, ping_request, suspicion


def requests(outputs):
    return [o for o in outputs if isinstance(o, RequestSync)]


def test_an_address_claimed_by_another_does_not_stop_exchanges_with_who_lives_there() -> None:
    company = Company("evil", "honest")
    company.run(10)
    there = company.peers["honest"].speaker.address
    company.say("evil", alive_of("evil", (1, 1), address=there))
    unknown = suspicion("evil", "nobody")
    out = company.say("evil", unknown)
    assert [r.node for r in requests(out)] == [identity_of("evil").id]
    out = company.step(
        company.peers["honest"].speaker.datagram(
            OWN, Gossip(), updates=[suspicion("honest", "other").encode()]
        )
    )
    assert [r.node for r in requests(out)] == [identity_of("honest").id], "the gate took it for the same"


def test_everybody_a_chunk_makes_suspect_is_told() -> None:
    names = [f"p{i}" for i in range(400)]
    company = Company("x", "y", *names[:200])
    company.step(
        MembersReceived(
            node=None,
            data=chunk(
                *(
                    alive_of(n, address=(f"10.8.{i // 200}.{i % 200 + 1}", 7946))
                    for i, n in enumerate(names[200:300])
                )
            ),
        )
    )
    company.run(6)  # hearsay is over
    company.engine._parts.broadcasts.clear()
    victims = names[:300]
    data = chunk(*(dead_of(n, ["x", "y"]) for n in victims))
    out = company.step(MembersReceived(node=None, data=data))
    told = {o.address for o in out if isinstance(o, Send)}
    suspects = [n for n in victims if company.state(n) is State.SUSPECT]
    assert len(told) >= len(suspects)


def test_who_has_spoken_itself_is_no_hearsay() -> None:
    company = Company("a", "b", "c", *(f"p{i}" for i in range(6)))
    company.run(10)
    speaker = Speaker("late", address=("10.9.5.5", 7946))
    company.stream(speaker.alive())
    company.run(1)
    company.step(speaker.datagram(OWN, ping(5)))
    assert company.state("late") is State.ALIVE
    company.run(1)
    company.stream(dead_of("late", ["a", "b", "c"]))
    assert company.state("late") is State.SUSPECT, company.state("late")


def test_one_member_cannot_take_all_relays() -> None:
    company = Company("evil", "silent", "honest", "target")
    company.peers["silent"].answers = False
    company.run(10)
    for n in range(256):
        company.step(company.peers["evil"].speaker.datagram(OWN, ping_request(n, identity_of("silent").id)))
    company.peers["honest"].heard.clear()
    company.step(company.peers["honest"].speaker.datagram(OWN, ping_request(7, identity_of("target").id)))
    assert not company.messages("honest", Nack)


def test_a_relayed_ping_is_no_larger_than_its_request_until_the_address_has_proved_itself() -> None:
    company = Company("evil", "p1", "p2")
    company.peers["evil"].answers = False
    company.run(10)
    elsewhere = ("192.0.2.7", 53)
    company.step(
        company.peers["evil"].speaker.datagram(
            OWN, Gossip(), updates=[alive_of("evil", (1, 1), address=elsewhere).encode()], introduction=b""
        )
    )
    request = company.peers["evil"].speaker.datagram(
        OWN, ping_request(1, identity_of("evil").id), known_boot=0, introduction=b""
    )
    company.engine._parts.broadcasts.clear()
    out = [o for o in company.step(request) if isinstance(o, Send) and o.address == elsewhere]
    assert sum(len(o.data) for o in out) <= len(request.data)


@pytest.mark.parametrize("answered", [True, False])
def test_what_a_relay_answers_is_no_larger_than_the_request_either(answered: bool) -> None:
    company = Company("evil", "target", "p1")
    evil = company.peers["evil"].speaker
    company.peers["evil"].answers = False
    company.run(10)
    company.peers["target"].answers = answered
    request = evil.datagram(OWN, ping_request(1, identity_of("target").id))
    company.step(request)
    company.engine._parts.broadcasts.publish(bytes(16), bytes(1000))  # rides on whatever has room
    company.outputs.clear()
    company.run(0.5)
    sizes = [
        len(output.data)
        for _, output in company.outputs
        if isinstance(output, Send)
        and output.address == evil.address
        and isinstance(evil.read(output.data, of=OWN)[1].message, Ack if answered else Nack)
    ]
    assert len(sizes) == 1
    assert sizes[0] <= len(request.data)


def test_zones_of_one_member_leave_room_for_others() -> None:
    engine = engine_of("own")
    trips = engine._parts.round_trips
    for n in range(64):
        trips.measured(f"made-up-{n}", 0.01)
    trips.measured("real", 0.01)
    assert trips.timeout_s("real") < 0.5
