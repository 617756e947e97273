"""What honest operation meets."""

from gossip.events import Join, LoopLag, RequestSync, Tick
from gossip.member import State
from tests.gossip.company import OWN, Company, alive_of, dead_of, left_of
from tests.gossip.world import Speaker, ack, identity_of


def test_a_newcomer_does_not_tell_everybody_who_has_left_long_ago() -> None:
    company = Company("a", "b", "c")
    company.run(20)
    left = [f"old{i}" for i in range(400)]
    before = company.engine.statistics()
    for start in range(0, 400, 100):
        part = left[start : start + 100]
        company.stream(
            *(alive_of(n, address=(f"10.7.{start // 100}.{i + 1}", 7946)) for i, n in enumerate(part)),
            *(left_of(n, (1, 1)) for n in part),
        )
    queued = company.engine.statistics().updates_queued
    company.run(30)
    after = company.engine.statistics()
    assert queued <= 64, (
        f"{queued} statements queued that a stream brought, {after.bytes_sent - before.bytes_sent} bytes"
    )


def test_a_dead_predecessor_does_not_take_the_address_from_who_lives_there() -> None:
    company = Company("a", "b", "c")
    there = ("10.7.0.1", 7946)
    company.run(6)
    company.stream(
        alive_of("new", address=there), alive_of("old", address=there), dead_of("old", ["a", "b", "c"])
    )
    assert (company.state("new"), company.state("old")) == (State.ALIVE, State.DEAD)
    assert company.engine._parts.roster.holder(there) == identity_of("new").id


def test_so_a_seed_that_is_a_member_is_not_asked_for_ever() -> None:
    company = Company("a", "b", "c")
    there = ("10.7.0.1", 7946)
    company.run(6)
    company.stream(
        alive_of("new", address=there), alive_of("old", address=there), dead_of("old", ["a", "b", "c"])
    )
    company.peers["new"] = __import__("tests.gossip.company", fromlist=["Peer"]).Peer(
        Speaker("new", address=there)
    )
    company._by_address[there] = "new"
    company.step(Join(seeds=(there,)))
    company.run(100)
    at = company.now
    company.run(300)
    asked = [o for t, o in company.outputs if t > at and isinstance(o, RequestSync) and o.reason == "seed"]
    assert company.state("new") is State.ALIVE
    assert not asked, f"asked the seed {len(asked)} times in 300 s although it is a live member"


def test_a_round_trip_is_never_negative() -> None:
    company = Company("a")
    company.run(10)
    company.peers["a"].answers = False
    trips = company.engine._parts.round_trips
    probes = company.engine._parts.probes
    while not len(probes):
        company.now = max(company.now, company.engine.deadline)
        company.step(Tick())
    (sequence,) = probes._probes
    company.now += 0.01
    company.step(LoopLag(lag_s=1.0))
    company.step(company.peers["a"].speaker.datagram(OWN, ack(sequence)))
    assert (trips.srtt_s("z1") or 0) >= 0, trips.srtt_s("z1")
