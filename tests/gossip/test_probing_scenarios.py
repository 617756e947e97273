"""Probing, local health and suspicion timers, after hashicorp/memberlist's `state_test.go` (TestMemberList_Probe,
ProbeNode_Suspect, _Suspect_Dogpile, _FallbackTCP, _Awareness_Degraded, _Improved, _MissedNack, _Buddy) and
`suspicion_test.go` (remaining time by confirmations, Timer, Timer_ZeroK, Timer_Immediate).

Taken: which peers fail to do what, and what the prober concludes from it. Different here: confirmations are signed
suspicions of members, so strangers confirm nothing; a node in doubt stretches the wait for each answer, not the
interval between probes; times are held against the configuration, not against fixed numbers.
"""

import math
from dataclasses import replace

import pytest

from gossip.config import GossipConfig, lan
from gossip.events import SetMeta
from gossip.member import State
from gossip.message import Ping, PingRequest
from gossip.statement import Alive, Dead
from tests.gossip.company import OWN, Company, silent
from tests.gossip.world import World, identity_of, ping, suspicion

NAMES = ("t", "a", "b", "c")
GONE = (State.SUSPECT, State.DEAD)


def turn_s(config: GossipConfig, members: int) -> float:
    """By when every one of `members` others has had its turn, and a probe of it has ended (SWIM, 4.3)."""
    return 2 * members * config.probe_interval_s


# ---------------------------------------------------------------- one probe
def test_members_that_answer_are_all_probed_and_none_is_suspected() -> None:
    company = Company(*NAMES)
    company.run(turn_s(lan(), len(NAMES)))
    for name in NAMES:
        assert company.messages(name, Ping)
        assert not company.messages(name, PingRequest)
    assert company.changes()[len(NAMES) :] == []
    assert company.engine.statistics().health == 0


def test_a_member_that_answers_nobody_is_suspected_after_relays_were_asked() -> None:
    company = Company(*NAMES)
    silent(company.peers["t"])
    company.run_until("t", State.SUSPECT, within_s=turn_s(lan(), len(NAMES)))
    suspected_at = company.now
    asked = [at for name in "abc" for at, _ in company.messages(name, PingRequest)]
    assert len(asked) == min(lan().indirect_probes, 3)
    assert max(asked) < suspected_at
    assert [company.state(name) for name in "abc"] == [State.ALIVE] * 3


def test_a_member_reached_by_relays_only_is_not_suspected() -> None:
    company = Company(*NAMES)
    company.peers["t"].answers = company.peers["t"].streams = False
    company.run(2 * turn_s(lan(), len(NAMES)))
    assert company.messages("a", PingRequest)
    assert company.state("t") is State.ALIVE
    assert company.changes("t")[1:] == []


def test_a_member_reached_by_streams_only_is_not_suspected_until_they_fail_too() -> None:
    company = Company(*NAMES)
    company.peers["t"].answers = company.peers["t"].relayed = False
    company.run(2 * turn_s(lan(), len(NAMES)))
    assert company.messages("t", Ping)
    assert company.changes("t")[1:] == []
    company.peers["t"].streams = False
    company.run_until("t", State.SUSPECT, within_s=turn_s(lan(), len(NAMES)))


def test_each_probe_that_gets_no_answer_is_tried_by_a_stream_however_soon_it_follows_the_last() -> None:
    """With one other member to probe, probes follow each other faster than streams to one address are spaced."""
    company = Company("t")
    company.peers["t"].answers = False
    company.run(20 * lan().probe_interval_s)
    assert len(company.messages("t", Ping)) >= 20
    assert company.changes("t")[1:] == []


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("seed", [100, 105])
def test_a_host_that_gets_no_datagrams_but_streams_is_not_suspected(count: int, seed: int) -> None:
    world = World(seed=seed)
    world.start_many(count)
    world.run_until(world.converged, within_s=30)
    world.lost = lambda source, target: "h1" in (source, target)
    world.run(60)
    assert world.changes(State.SUSPECT, State.DEAD) == []
    assert world.converged()


def test_a_ping_tells_a_suspect_that_it_is_one() -> None:
    company = Company(*NAMES)
    company.say("a", suspicion("a", "t"))
    company.peers["t"].heard.clear()
    company.run(turn_s(lan(), len(NAMES)))
    accusation = suspicion("a", "t").encode()
    pings = company.messages("t", Ping)
    assert pings
    assert all(accusation in body.updates for _, body in pings)


def test_a_suspect_that_is_pinged_refutes_at_once() -> None:
    company = Company("a", "b")
    company.step(company.peers["a"].speaker.datagram(OWN, ping(), updates=[suspicion("a", OWN).encode()]))
    assert {alive.rank for alive in company.told(Alive, OWN)} == {(1, 1)}
    assert company.state(OWN) is State.ALIVE


# ---------------------------------------------------------------- local health
def doubting(points: int, *names: str) -> Company:
    """A company whose engine has refuted `points` accusations, each of which costs a point of health."""
    company = Company(*names)
    for incarnation in range(points):
        company.say(names[-1], suspicion(names[-1], OWN, (1, incarnation)))
    assert company.engine.statistics().health == points
    return company


def probe_s(company: Company) -> float:
    """How long the engine waits between its first ping of `t` and the suspicion."""
    silent(company.peers["t"])
    company.peers["t"].heard.clear()
    company.run_until("t", State.SUSPECT, within_s=lan().health_max * turn_s(lan(), 1))
    return company.now - company.messages("t", Ping)[0][0]


def test_a_node_in_doubt_waits_longer_before_it_accuses() -> None:
    sure, unsure = probe_s(Company("t")), probe_s(doubting(1, "t"))
    longest_s = lan().probe_timeout_s * (1 + lan().indirect_timeout_mult)
    assert sure <= longest_s + 0.01
    assert sure < unsure <= 2 * longest_s + 0.01


def test_each_answer_takes_a_point_of_doubt_away() -> None:
    company = doubting(2, "t")
    company.run(2 * lan().probe_interval_s + 0.1)
    assert company.engine.statistics().health == 0


@pytest.mark.parametrize("nackers", [0, 1, 2, 3])
def test_each_relay_that_says_nothing_costs_a_point_and_a_nack_saves_it(nackers: int) -> None:
    company = Company(*NAMES)
    silent(company.peers["t"])
    for index, name in enumerate("abc"):
        company.peers[name].nacks = index < nackers
    # answers of the others restore health, so look at the first probe of `t` alone
    before = 0
    while company.state("t") is State.ALIVE:
        before = company.engine.statistics().health
        company.run(max(0.0, min(_next(company)) - company.now))
    assert company.engine.statistics().health - before == len("abc") - nackers


def _next(company: Company) -> list[float]:
    return [at for at in (company.engine.deadline, *[at for at, _, _ in company._arriving]) if at is not None]


def test_news_after_a_quiet_while_makes_nobody_doubt_itself() -> None:
    world = World(seed=8)
    world.start_many(8)
    world.run_until(world.converged, within_s=30)
    world.run(5)
    for round_number in range(5):
        world.run(3.37)
        world.step(world.hosts["h1"], SetMeta(meta={"round": round_number}))
        world.run(lan().gossip_interval_s)
        assert {host.name: host.engine.statistics().health for host in world.up()} == dict.fromkeys(
            world.hosts, 0
        )


# ---------------------------------------------------------------- how long a suspicion lasts
FLOOR_S, CEILING_S, EXPECTED = 2.0, 30.0, 3  # the numbers of memberlist's own table, in seconds


def patient() -> GossipConfig:
    """Three confirmations bring 30 s down to 2 s, in a mesh of ten."""
    return replace(
        lan(),
        probe_interval_s=1.0,
        confirmations=EXPECTED,
        suspicion_mult_corroborated=FLOOR_S,
        suspicion_mult_alone=5.0,
        suspicion_max_mult=CEILING_S / 5.0,
    )


TEN = ("t", *(f"m{index}" for index in range(8)))  # and `own`


def verdict_s(*accusers: str, mesh: tuple[str, ...] = TEN) -> float:
    """Seconds from the first accusation to the verdict on `t`, which answers pings but never refutes."""
    company = Company(*mesh, config=patient())
    for accuser in accusers:
        company.say(accuser, suspicion(accuser, "t"))
    start = company.now
    company.run_until("t", State.DEAD, within_s=CEILING_S + 1)
    return company.now - start


@pytest.mark.parametrize(
    ("accusers", "expected_s"),
    [(1, 30.0), (2, 16.0), (3, 7.81), (4, 2.0), (5, 2.0), (7, 2.0)],
)
def test_each_confirmation_shortens_the_wait_down_to_the_floor_and_further_ones_do_nothing(
    accusers: int, expected_s: float
) -> None:
    assert math.isclose(verdict_s(*TEN[1 : accusers + 1]), expected_s, abs_tol=0.01)


@pytest.mark.parametrize(
    ("others", "accusers", "expected_s"),
    [
        (1, 1, 30.0),  # with `own` there are two who could: one confirmation is all there can be
        (2, 1, 30.0),
        (2, 2, 12.33),
        (3, 1, 30.0),
        (3, 2, 16.0),
        (3, 3, 7.81),
        (4, 1, 30.0),
        (4, 2, 16.0),
        (4, 3, 7.81),
        (4, 4, 2.0),
        (5, 4, 2.0),
        (5, 5, 2.0),
    ],
)
def test_in_a_small_mesh_as_many_confirmations_are_waited_for_as_there_can_be(
    others: int, accusers: int, expected_s: float
) -> None:
    """memberlist's dogpile table: members by confirmations. There a timer of fewer than five members is the floor from
    the start; here a lone accuser waits for the others, however few, and only one without any does not."""
    waited = verdict_s(*TEN[1 : accusers + 1], mesh=TEN[: others + 1])
    assert math.isclose(waited, expected_s, abs_tol=0.01)


@pytest.mark.parametrize("accusers", [("m0", "m0"), ("m0", "m1", "m1", "m0", "m1")])
def test_the_same_accuser_counts_once(accusers: tuple[str, ...]) -> None:
    assert math.isclose(verdict_s(*accusers), verdict_s(*dict.fromkeys(accusers)), abs_tol=1e-6)


def test_what_a_stranger_confirms_does_not_count() -> None:
    assert math.isclose(verdict_s("m0"), CEILING_S, abs_tol=0.01)
    company = Company(*TEN, config=patient())
    company.say("m0", suspicion("m0", "t"))
    company.say("m1", suspicion("stranger", "t"), suspicion("another", "t"), suspicion("third", "t"))
    company.run(CEILING_S - 0.1)
    assert company.state("t") is State.SUSPECT


def test_the_wait_is_reckoned_from_the_first_accusation() -> None:
    company = Company(*TEN, config=patient())
    company.say("m0", suspicion("m0", "t"))
    start = company.now
    company.run(10.0)
    company.say("m1", suspicion("m1", "t"))
    company.run_until("t", State.DEAD, within_s=CEILING_S)
    assert math.isclose(company.now - start, 16.0, abs_tol=0.01)


def test_confirmations_that_come_after_the_shorter_wait_is_over_are_a_verdict_at_once() -> None:
    company = Company(*TEN, config=patient())
    company.say("m0", suspicion("m0", "t"))
    company.run(10.0)
    for accuser in ("m1", "m2", "m3"):
        company.say(accuser, suspicion(accuser, "t"))
    company.run_until("t", State.DEAD, within_s=lan().probe_interval_s)
    changes = company.changes("t")
    for accuser in ("m4", "m5"):
        company.say(accuser, suspicion(accuser, "t"))
    company.run(CEILING_S)
    assert company.changes("t") == changes


def test_a_wait_cut_short_by_confirmations_is_not_lag_of_this_node() -> None:
    company = Company(*TEN, config=patient())
    company.say("m0", suspicion("m0", "t"))
    company.run(10.0)
    for accuser in ("m1", "m2", "m3"):
        company.say(accuser, suspicion(accuser, "t"))
    waited = company.run_until("t", State.DEAD, within_s=lan().probe_interval_s)
    assert abs(waited - lan().refutation_s) < 0.01  # what is left to refute the last of them
    assert company.engine.statistics().health == 0


def test_with_nobody_to_confirm_the_wait_is_the_classic_floor() -> None:
    company = Company("t")
    silent(company.peers["t"])
    company.run_until("t", State.SUSPECT, within_s=turn_s(lan(), 1))
    waited = company.run_until("t", State.DEAD, within_s=lan().health_max * lan().suspicion_mult_alone)
    assert waited >= lan().suspicion_mult_alone * lan().probe_interval_s - 0.01


@pytest.mark.parametrize("members", [2, 3, 4, 6, 12])
def test_a_lone_accuser_never_waits_longer_than_the_ceiling(members: int) -> None:
    names = ("t", *(f"m{index}" for index in range(members - 2)))
    company = Company(*names)
    silent(company.peers["t"])
    company.run_until("t", *GONE, within_s=turn_s(lan(), members))
    scale_s = max(1.0, math.log10(members)) * lan().probe_interval_s
    ceiling_s = lan().suspicion_max_mult * lan().suspicion_mult_alone * scale_s
    assert company.run_until("t", State.DEAD, within_s=2 * ceiling_s) <= ceiling_s + 0.01


def test_a_verdict_is_told_with_its_proof() -> None:
    company = Company(*TEN, config=patient())
    for accuser in ("m0", "m1", "m2", "m3"):
        company.say(accuser, suspicion(accuser, "t"))
    company.run_until("t", State.DEAD, within_s=CEILING_S)
    company.run(2 * lan().gossip_interval_s)
    accusers = {identity_of(name).id for name in ("m0", "m1", "m2", "m3")}
    told = company.told(Dead, "t")
    assert told
    assert all({s.accuser for s in dead.suspicions} == accusers for dead in told if isinstance(dead, Dead))
