"""What a claim about a member does, after hashicorp/memberlist's `state_test.go` (TestMemberList_AliveNode_*,
_SuspectNode_*, _DeadNode_*, TestMemberlist_Gossip, _GossipToDead) and `memberlist_test.go`
(_conflictDelegate).

Taken: the claim, the state it meets, and what becomes of the state, the events and the queue. Different here: only
the subject's signature moves its incarnation or address, so what memberlist guards by address conflicts and
DeadNodeReclaimTime is decided by who signed; a Dead counts by the suspicions in it, and one word of it is a
suspicion; the pair that orders claims is (boot, incarnation); nobody's silence can be told for good by a bare word.
"""

from dataclasses import replace

import pytest

from gossip.config import lan
from gossip.events import Datagram, MemberChanged, Rejected, RequestSync, SetMeta
from gossip.member import State
from gossip.message import Gossip
from gossip.statement import Alive, Dead, Left, Suspect
from tests.gossip.company import OWN, Company, alive_of, dead_of, left_of, settled, silent
from tests.gossip.world import identity_of, suspicion

ELSEWHERE = ("10.8.8.8", 8946)
ALL = ("s", "a", "b", "c")


def spread(company: Company) -> None:
    """Long enough for what is queued now to be told to everybody."""
    company.run(4 * lan().gossip_interval_s)


# ---------------------------------------------------------------- Alive
def test_an_alive_never_heard_of_is_a_member_told_to_the_driver_and_to_others() -> None:
    company = settled(*ALL)
    company.say("a", alive_of("new"))
    assert [change[1:] for change in company.changes("new")] == [(None, State.ALIVE)]
    spread(company)
    assert company.told(Alive, "new")


def test_an_alive_of_the_suspected_incarnation_does_not_clear_it_and_a_higher_one_does() -> None:
    company = settled(*ALL)
    company.say("a", suspicion("a", "s"))
    company.run(1.0)
    company.say("b", alive_of("s", (1, 0), address=company.peers["s"].speaker.address))
    assert company.state("s") is State.SUSPECT
    company.say("b", alive_of("s", (1, 1), address=company.peers["s"].speaker.address))
    assert company.state("s") is State.ALIVE
    assert company.member("s").since == company.now
    assert [change[1:] for change in company.changes("s")] == [
        (State.ALIVE, State.SUSPECT),
        (State.SUSPECT, State.ALIVE),
    ]
    spread(company)
    assert (1, 1) in {alive.rank for alive in company.told(Alive, "s")}


def test_a_higher_incarnation_of_a_living_member_is_passed_on_but_is_no_event() -> None:
    company = settled(*ALL)
    since = company.member("s").since
    company.say("b", alive_of("s", (1, 1), address=company.peers["s"].speaker.address))
    assert (company.state("s"), company.member("s").since) == (State.ALIVE, since)
    assert company.changes("s") == []
    spread(company)
    assert company.told(Alive, "s")


def test_changed_metadata_is_an_update_event() -> None:
    company = settled(*ALL)
    company.say("b", alive_of("s", (1, 1), address=company.peers["s"].speaker.address, meta={"role": "bar"}))
    assert [change[1:] for change in company.changes("s")] == [(State.ALIVE, State.ALIVE)]
    assert company.member("s").meta == {"role": "bar"}
    company.say("b", alive_of("s", (1, 0), address=company.peers["s"].speaker.address, meta={"role": "foo"}))
    assert company.member("s").meta == {"role": "bar"}


def test_a_foreign_alive_in_this_nodes_name_is_rejected_and_an_own_earlier_life_outdone() -> None:
    """memberlist refutes both; here the first cannot be signed, so it needs no refutation."""
    company = settled(*ALL)
    own = company.engine.members()[0]
    company.say("a", replace(alive_of(OWN, (9, 0), meta={"evil": True}), signature=bytes(64)))
    assert len(company.rejected()) == 1
    assert company.engine.members()[0].rank == own.rank
    company.say("a", alive_of(OWN, (1, 5), meta={"earlier": True}))
    now = company.engine.members()[0]
    assert (now.state, now.rank, now.meta, now.address) == (State.ALIVE, (1, 6), own.meta, own.address)
    spread(company)
    assert (1, 6) in {alive.rank for alive in company.told(Alive, OWN)}


def test_a_living_member_moves_where_it_says_itself() -> None:
    """memberlist holds on to the old address until the member is dead; a signature makes waiting needless."""
    company = settled(*ALL)
    company.say("b", alive_of("s", (1, 1), address=ELSEWHERE))
    assert company.member("s").address == ELSEWHERE
    company.say("b", alive_of("s", (1, 0)))
    assert company.member("s").address == ELSEWHERE


def test_two_ids_that_claim_one_address_are_two_members_and_neither_displaces_the_other() -> None:
    company = settled(*ALL)
    address = company.peers["s"].speaker.address
    company.say("b", alive_of("rival", (5, 0), address=address))
    assert company.member("s").address == company.member("rival").address == address
    assert (company.state("s"), company.state("rival")) == (State.ALIVE, State.ALIVE)
    assert company.changes("s") == []


@pytest.mark.parametrize("rank", [(1, 1), (2, 0)])
def test_a_dead_member_is_reclaimed_at_once_by_itself_with_new_address_and_metadata(
    rank: tuple[int, int],
) -> None:
    company = settled(*ALL)
    company.bury("a", "s", "abc")
    assert company.state("s") is State.DEAD
    company.say("a", alive_of("s", rank, address=ELSEWHERE, meta={"role": "foo"}))
    member = company.member("s")
    assert (member.state, member.rank, member.address) == (State.ALIVE, rank, ELSEWHERE)
    assert member.meta == {"role": "foo"}


@pytest.mark.parametrize("state", [State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT])
@pytest.mark.parametrize("rank", [(2, 3), (2, 2), (1, 99), (0, 0)])
def test_an_alive_that_is_not_above_what_is_known_changes_nothing(
    state: State, rank: tuple[int, int]
) -> None:
    company = settled(*ALL)
    company.say("a", alive_of("s", (2, 3)))
    match state:
        case State.SUSPECT:
            company.say("a", suspicion("a", "s", (2, 3)))
        case State.DEAD:
            company.bury("a", "s", "abc", (2, 3))
        case State.LEFT:
            company.say("a", left_of("s", (2, 3)))
        case State.ALIVE:
            pass
    before = company.member("s")
    assert before.state is state
    for _ in range(2):
        company.say("b", alive_of("s", rank, address=ELSEWHERE))
        company.stream(alive_of("s", rank, address=ELSEWHERE))
    assert company.member("s") == before


# ---------------------------------------------------------------- Suspect
@pytest.mark.parametrize(
    "claim", [suspicion("a", "nobody"), dead_of("nobody", "abc"), left_of("nobody", (1, 0))]
)
def test_a_claim_about_nobody_known_makes_no_member(claim: Suspect | Dead | Left) -> None:
    company = settled(*ALL)
    company.say("a", claim)
    assert company.engine.member(identity_of("nobody").id) is None
    assert company.changes() == []
    spread(company)
    assert company.told(type(claim), "nobody") == []


def test_a_suspicion_is_one_event_starts_the_clock_and_is_passed_on() -> None:
    company = settled(*ALL)
    company.run(3.0)
    company.say("a", suspicion("a", "s"))
    assert company.changes("s") == [(company.now, State.ALIVE, State.SUSPECT)]
    assert company.member("s").since == company.now
    spread(company)
    assert company.told(Suspect, "s")


def test_a_suspicion_heard_twice_changes_nothing_and_is_not_told_again() -> None:
    company = settled(*ALL)
    company.say("a", suspicion("a", "s"))
    company.peers["s"].answers = True
    company.run(5.0)
    before, queued = company.member("s"), company.engine.statistics().updates_queued
    for name in "abc":
        company.say(name, suspicion("a", "s"))
    assert company.member("s") == before
    assert len(company.changes("s")) == 1
    assert company.engine.statistics().updates_queued == queued


@pytest.mark.parametrize("claim", [suspicion("a", "s", (1, 1)), dead_of("s", "abc", (1, 1))])
def test_a_claim_about_an_old_incarnation_is_ignored_and_answered_with_the_truth(
    claim: Suspect | Dead,
) -> None:
    company = settled(*ALL)
    company.say("b", alive_of("s", (1, 10), address=company.peers["s"].speaker.address))
    spread(company)
    company.peers["a"].heard.clear()
    company.say("a", claim)
    assert company.state("s") is State.ALIVE
    assert [s.rank for s in company.peers["a"].statements() if isinstance(s, Alive)] == [(1, 10)]


@pytest.mark.parametrize("claim", [suspicion("a", OWN), dead_of(OWN, "abc"), dead_of(OWN, "")])
def test_a_claim_about_oneself_is_refuted_once_and_costs_a_point_of_health(claim: Suspect | Dead) -> None:
    company = settled(*ALL)
    for name in "abc":
        company.say(name, claim)
    own = company.engine.members()[0]
    assert (own.state, own.rank) == (State.ALIVE, (1, 1))
    assert company.engine.statistics().health == 1
    spread(company)
    assert {alive.rank for alive in company.told(Alive, OWN)} == {(1, 1)}


# ---------------------------------------------------------------- Dead, Left
def test_a_proved_death_is_one_event_and_is_passed_on_with_its_proof() -> None:
    company = settled(*ALL)
    company.bury("a", "s", "abc")
    assert company.state("s") is State.DEAD
    assert company.changes("s")[-1] == (company.now, company.changes("s")[-1][1], State.DEAD)
    count = len(company.changes("s"))
    spread(company)
    assert company.told(Dead, "s")
    for name in "abc":
        company.say(name, dead_of("s", "abc"), dead_of("s", "ab"), suspicion("c", "s"))
    spread(company)
    assert len(company.changes("s")) == count


def test_a_proof_that_comes_before_the_subject_could_refute_is_a_suspicion_that_soon_is_a_verdict() -> None:
    """memberlist believes any word of a death at once: a crowd that wakes together would bury the living."""
    company = settled(*ALL)
    silent(company.peers["s"])
    company.say("a", dead_of("s", "abc"))
    assert company.state("s") is State.SUSPECT
    waited = company.run_until("s", State.DEAD, within_s=10)
    assert lan().refutation_s <= waited <= lan().suspicion_mult_corroborated * lan().probe_interval_s


def test_one_word_of_a_death_is_a_suspicion_and_no_word_of_it_nothing() -> None:
    company = settled(*ALL)
    company.say("a", dead_of("s", ""))
    assert company.state("s") is State.ALIVE
    company.say("a", dead_of("s", "a"))
    assert company.state("s") is State.SUSPECT


def test_a_death_told_by_the_subject_itself_is_a_leave() -> None:
    company = settled(*ALL)
    company.say("a", left_of("s", (1, 1)))
    assert [change[1:] for change in company.changes("s")] == [(State.ALIVE, State.LEFT)]
    spread(company)
    assert company.told(Left, "s")
    assert company.told(Dead, "s") == []
    company.say("a", alive_of("s", (1, 3), address=ELSEWHERE, meta={"role": "foo"}))
    member = company.member("s")
    assert (member.state, member.address, member.meta) == (State.ALIVE, ELSEWHERE, {"role": "foo"})


def test_whoever_accuses_a_member_that_left_does_not_make_it_dead() -> None:
    company = settled(*ALL)
    company.say("a", left_of("s", (1, 1)))
    company.say("a", dead_of("s", "abc", (1, 1)), suspicion("a", "s", (1, 1)))
    company.run(60.0)
    assert company.state("s") is State.LEFT


def test_a_leave_signed_by_anybody_else_is_rejected() -> None:
    company = settled(*ALL)
    foreign = left_of("a", (1, 1))
    forged = Left(subject=identity_of("s").id, boot=1, incarnation=1, signature=foreign.signature)
    outputs = company.say("a", forged)
    assert [type(output) for output in outputs if isinstance(output, MemberChanged | Rejected)] == [Rejected]
    assert company.state("s") is State.ALIVE


# ---------------------------------------------------------------- gossip
def test_gossip_brings_everything_queued_to_each_of_a_few_members() -> None:
    company = settled("a", "b")
    company.say("a", *(alive_of(f"n{index}") for index in range(3)))
    spread(company)
    told = {
        name: {s.node for s in peer.statements() if isinstance(s, Alive)}
        for name, peer in company.peers.items()
    }
    assert {identity_of(f"n{index}").id for index in range(3)} <= told["b"]


def test_an_update_is_sent_as_often_as_the_size_of_the_mesh_says_and_no_more() -> None:
    company = settled("a", "b", "c", "d", "e")
    company.say("a", suspicion("a", "e"))
    company.run(20 * lan().gossip_interval_s)
    accusation = suspicion("a", "e").encode()
    sent = [
        (name, body)
        for name, peer in company.peers.items()
        for _, body in peer.heard
        if name != "e" and accusation in body.updates
    ]
    assert 0 < len(sent) <= lan().retransmits(company.engine.statistics().alive + 1)


def test_the_recently_dead_hear_gossip_and_the_long_dead_do_not() -> None:
    company = settled(*ALL)
    silent(company.peers["s"])
    company.bury("a", "s", "abc")
    died = company.now
    while company.now - died < 2 * lan().gossip_to_the_dead_s:
        company.step(SetMeta(meta={"at": int(company.now - died)}))
        company.run(2.0)
    heard = [at - died for at, _ in company.messages("s", Gossip)]
    assert heard
    assert lan().gossip_to_the_dead_s - 10 < max(heard) <= lan().gossip_to_the_dead_s
    assert company.state("s") is State.DEAD


def test_news_ahead_of_this_node_makes_it_ask_for_a_stream() -> None:
    company = settled(*ALL)
    outputs = company.say("a", suspicion("b", "s", (1, 4)))
    assert company.state("s") is State.ALIVE
    (asked,) = [output for output in outputs if isinstance(output, RequestSync)]
    assert asked.node == identity_of("a").id


def test_a_datagram_of_another_version_is_rejected_whole() -> None:
    company = settled(*ALL)
    data = company.peers["a"].speaker.say(OWN, Gossip(), updates=[alive_of("new").encode()])
    outputs = company.step(Datagram(source=("10.9.0.2", 7946), data=bytes([data[0] + 1]) + data[1:]))
    assert [type(output) for output in outputs] == [Rejected]
    assert company.engine.member(identity_of("new").id) is None
