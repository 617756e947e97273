from dataclasses import replace

import pytest

from gossip.accusation import Verdict
from gossip.config import lan
from gossip.engine import Engine
from gossip.errors import ForgedError
from gossip.judge import Judge
from gossip.member import Member, State
from gossip.statement import Alive, Dead, Left, sign_left
from tests.gossip.world import (
    START,
    Speaker,
    acquaint,
    credential_of,
    engine_of,
    identity_of,
    suspicion,
)
from trust.identity import NodeIdentity


def known(*names: str) -> tuple[Engine, Judge]:
    engine = engine_of("own")
    acquaint(engine, *names)
    return engine, engine._parts.judge


def member(engine: Engine, name: str) -> Member:
    found = engine.member(identity_of(name).id)
    assert found is not None
    return found


def dead_of(subject: str, *accusers: str, rank: tuple[int, int] = (1, 0)) -> Dead:
    return Dead(
        subject=identity_of(subject).id,
        boot=rank[0],
        incarnation=rank[1],
        suspicions=tuple(suspicion(accuser, subject, rank) for accuser in accusers),
    )


def left_of(name: str, rank: tuple[int, int]) -> Left:
    return sign_left(identity_of(name), rank=rank)


# ---------------------------------------------------------------- Alive
def test_a_verified_alive_makes_a_member() -> None:
    engine, judge = known()
    assert judge.hear(START, Speaker("a").alive()) is Verdict.NEWS
    assert member(engine, "a").state is State.ALIVE
    assert judge.hear(START, Speaker("a").alive()) is Verdict.KNOWN


@pytest.mark.parametrize(
    ("before", "after", "wins"),
    [
        ((1, 0), (1, 1), True),
        ((1, 5), (2, 0), True),
        ((1, 5), (1, 5), False),
        ((1, 5), (1, 4), False),
        ((2, 0), (1, 99), False),
    ],
)
def test_alive_is_ordered_by_boot_then_incarnation(
    before: tuple[int, int], after: tuple[int, int], wins: bool
) -> None:
    engine, judge = known()
    judge.hear(START, Speaker("a").alive(boot=before[0], incarnation=before[1]))
    verdict = judge.hear(
        START, Speaker("a").alive(boot=after[0], incarnation=after[1], address=("10.7.7.7", 7))
    )
    assert verdict is (Verdict.NEWS if wins else Verdict.KNOWN)
    assert member(engine, "a").rank == max(before, after)
    assert (member(engine, "a").address == ("10.7.7.7", 7)) is wins


def forged_alives() -> dict[str, Alive]:
    honest, mallory = Speaker("a").alive(), Speaker("m").alive()
    root = NodeIdentity.from_seed(b"x" * 32)
    return {
        "address changed": replace(honest, address=("10.6.6.6", 1)),
        "signed by another": replace(honest, signature=mallory.signature),
        "id of another": replace(mallory, node=honest.node),
        "other root": Speaker("a", credential=credential_of("a", root=root)).alive(),
        "other mesh": Speaker("a", credential=credential_of("a", trust_domain="other.mesh")).alive(),
        "expired": Speaker("a", credential=credential_of("a", issued_at=int(START) - 99, ttl_s=98)).alive(),
        "not yet": Speaker("a", credential=credential_of("a", issued_at=int(START) + 9999)).alive(),
    }


@pytest.mark.parametrize("kind", sorted(forged_alives()))
def test_an_alive_not_backed_by_key_and_root_is_forged(kind: str) -> None:
    engine, judge = known()
    with pytest.raises(ForgedError):
        judge.hear(START, forged_alives()[kind])
    assert len(engine.members()) == 1


def test_a_slim_alive_counts_where_the_credential_is_known() -> None:
    engine, judge = known("a")
    assert judge.hear(START, Speaker("a").alive(incarnation=3).slim()) is Verdict.NEWS
    assert member(engine, "a").incarnation == 3
    entry = engine._parts.roster.get(identity_of("a").id)
    assert entry is not None
    assert entry.alive.credential
    assert judge.hear(START, Speaker("b").alive().slim()) is Verdict.AHEAD


def test_a_renewed_credential_replaces_the_old_one() -> None:
    engine, judge = known("a")
    renewed = credential_of("a", issued_at=int(START) - 10)
    assert judge.hear(START, Speaker("a", credential=renewed).alive(incarnation=1)) is Verdict.NEWS
    assert member(engine, "a").credential == renewed


# ---------------------------------------------------------------- accusations
def test_a_signed_suspicion_of_the_present_rank_makes_a_suspect() -> None:
    engine, judge = known("s", "a", "b")
    assert judge.hear(START, suspicion("a", "s")) is Verdict.NEWS
    assert member(engine, "s").state is State.SUSPECT
    assert judge.hear(START, suspicion("a", "s")) is Verdict.KNOWN


@pytest.mark.parametrize(
    ("rank", "verdict"), [((1, 1), Verdict.OLD), ((1, 3), Verdict.AHEAD), ((2, 0), Verdict.AHEAD)]
)
def test_accusations_of_another_rank_change_nothing(rank: tuple[int, int], verdict: Verdict) -> None:
    engine, judge = known("s", "a")
    judge.hear(START, Speaker("s").alive(incarnation=2))
    assert judge.hear(START, suspicion("a", "s", rank)) is verdict
    assert judge.hear(START, dead_of("s", "a", rank=rank)) is verdict
    assert member(engine, "s").state is State.ALIVE


def test_member_a_cannot_accuse_in_the_name_of_b() -> None:
    engine, judge = known("s", "a", "b")
    forged = replace(suspicion("a", "s"), accuser=identity_of("b").id)
    with pytest.raises(ForgedError):
        judge.hear(START, forged)
    bundle = replace(dead_of("s", "a"), suspicions=(suspicion("a", "s"), forged))
    with pytest.raises(ForgedError):
        judge.hear(START, bundle)
    assert member(engine, "s").state is State.ALIVE


def test_an_accuser_unknown_here_cannot_be_judged_yet() -> None:
    engine, judge = known("s")
    assert judge.hear(START, suspicion("stranger", "s")) is Verdict.AHEAD
    assert member(engine, "s").state is State.ALIVE


def test_a_higher_incarnation_refutes() -> None:
    engine, judge = known("s", "a")
    judge.hear(START, suspicion("a", "s"))
    assert judge.hear(START, Speaker("s").alive(incarnation=1).slim()) is Verdict.NEWS
    assert member(engine, "s").state is State.ALIVE
    assert judge.suspicions.deadline is None


@pytest.mark.parametrize(
    ("mesh", "needed"), [(("s",), 1), (("s", "a"), 2), (("s", "a", "b"), 3), (("s", "a", "b", "c", "d"), 3)]
)
def test_a_dead_is_believed_with_as_many_accusers_as_make_sense(mesh: tuple[str, ...], needed: int) -> None:
    accusers = ("own", *mesh[1:])
    for count in range(1, needed + 1):
        engine, judge = known(*mesh)
        assert judge.hear(START, dead_of("s", *accusers[:count])) is Verdict.NEWS
        assert member(engine, "s").state is (State.DEAD if count == needed else State.SUSPECT)


def test_a_bare_claim_of_death_is_one_more_suspicion() -> None:
    engine, judge = known("s", "a", "b", "c")
    judge.hear(START, dead_of("s", "a"))
    alone = judge.suspicions.deadline
    assert member(engine, "s").state is State.SUSPECT
    judge.hear(START, dead_of("s", "b"))
    assert member(engine, "s").state is State.SUSPECT
    assert alone is not None
    assert judge.suspicions.deadline is not None
    assert judge.suspicions.deadline < alone
    judge.hear(START, dead_of("s", "c"))
    assert member(engine, "s").state is State.DEAD


def test_a_death_without_any_proof_changes_nothing() -> None:
    engine, judge = known("s", "a", "b")
    assert judge.hear(START, dead_of("s")) is Verdict.KNOWN
    assert member(engine, "s").state is State.ALIVE


def test_the_subject_cannot_be_among_its_accusers() -> None:
    engine, judge = known("s", "a")
    judge.hear(START, dead_of("s", "s", "a"))
    assert member(engine, "s").state is State.SUSPECT


def test_evidence_is_bounded() -> None:
    names = [f"a{index}" for index in range(10)]
    engine, judge = known("s", *names)
    for name in names:
        judge.hear(START, suspicion(name, "s"))
    entry = engine._parts.roster.get(identity_of("s").id)
    assert entry is not None
    assert len(entry.evidence) == lan().confirmations + 1


def test_a_suspicion_that_runs_out_is_a_verdict() -> None:
    engine, judge = known("s", "a", "b")
    judge.hear(START, suspicion("a", "s"))
    deadline = judge.suspicions.deadline
    assert deadline == START + 24.0
    judge.condemn_due(deadline - 0.01)
    assert member(engine, "s").state is State.SUSPECT
    judge.condemn_due(deadline)
    assert member(engine, "s").state is State.DEAD
    assert judge.suspicions.deadline is None


def test_an_own_accusation_is_made_once() -> None:
    engine, judge = known("s", "a", "b")
    entry = engine._parts.roster.get(identity_of("s").id)
    assert entry is not None
    judge.accusations.accuse(START, entry)
    judge.accusations.accuse(START, entry)
    assert list(entry.evidence) == [identity_of("own").id]


# ---------------------------------------------------------------- this node as the subject
@pytest.mark.parametrize("claim", [suspicion("a", "own"), dead_of("own", "a", "b")])
def test_this_node_refutes_with_a_higher_incarnation(claim: Dead) -> None:
    engine, judge = known("a", "b")
    assert judge.hear(START, claim) is Verdict.NEWS
    assert member(engine, "own").rank == (1, 1)
    assert judge.hear(START, claim) is Verdict.OLD
    assert engine.statistics().health == 1
    assert engine.statistics().refutations == 1


def test_claims_about_a_rank_this_node_never_had_are_not_refuted() -> None:
    engine, judge = known("a")
    assert judge.hear(START, suspicion("a", "own", (1, 9))) is Verdict.AHEAD
    assert member(engine, "own").rank == (1, 0)


def test_this_node_rises_above_an_earlier_life() -> None:
    engine, judge = known()
    assert judge.hear(START, Speaker("own").alive(boot=7, incarnation=3)) is Verdict.NEWS
    assert (engine.boot, member(engine, "own").rank) == (8, (8, 0))
    assert judge.hear(START, left_of("own", (8, 4))) is Verdict.NEWS
    assert member(engine, "own").rank == (8, 5)
    assert member(engine, "own").state is State.ALIVE


def test_nobody_else_can_raise_this_node() -> None:
    engine, judge = known("a")
    with pytest.raises(ForgedError):
        judge.hear(START, replace(Speaker("own").alive(boot=7), signature=bytes(64)))
    with pytest.raises(ForgedError):
        judge.hear(START, replace(left_of("a", (7, 0)), subject=identity_of("own").id))
    assert member(engine, "own").rank == (1, 0)


# ---------------------------------------------------------------- leaving, revocation, expiry
def test_a_leave_signed_by_the_subject_counts_and_only_it_can_come_back() -> None:
    engine, judge = known("s", "a")
    with pytest.raises(ForgedError):
        judge.hear(START, replace(left_of("a", (1, 1)), subject=identity_of("s").id))
    assert judge.hear(START, left_of("s", (1, 1))) is Verdict.NEWS
    assert member(engine, "s").state is State.LEFT
    assert judge.hear(START, suspicion("a", "s", (1, 1))) is Verdict.KNOWN
    assert judge.hear(START, left_of("s", (1, 0))) is Verdict.OLD
    assert judge.hear(START, Speaker("s").alive(incarnation=1)) is Verdict.KNOWN
    assert judge.hear(START, Speaker("s").alive(incarnation=2)) is Verdict.NEWS
    assert member(engine, "s").state is State.ALIVE


def test_an_evicted_member_is_dead_for_good() -> None:
    engine, judge = known("s", "a")
    judge.evict(START, identity_of("s").id, "revoked")
    assert member(engine, "s").state is State.DEAD
    with pytest.raises(ForgedError, match="evicted"):
        judge.hear(START, Speaker("s").alive(boot=9))
    with pytest.raises(ForgedError, match="evicted"):
        judge.hear(START, suspicion("s", "a"))
    assert member(engine, "a").state is State.ALIVE
    assert judge.hear(START, left_of("s", (1, 5))) is Verdict.KNOWN
    assert judge.truth(identity_of("s").id) == []


def test_evictions_are_bounded_and_this_node_is_not_its_own_to_evict() -> None:
    engine, judge = known()
    judge.evict(START, identity_of("own").id, "?")
    assert member(engine, "own").state is State.ALIVE
    for number in range(lan().evicted_max + 5):
        judge.evict(START, number.to_bytes(16, "big"), "revoked")
    assert len(judge.evicted) == lan().evicted_max


def test_members_are_reaped_by_credential_expiry() -> None:
    engine, judge = known()
    short = credential_of("s", ttl_s=100)
    judge.hear(START, Speaker("s", credential=short).alive())
    judge.reap(START + 99)
    assert member(engine, "s").state is State.ALIVE
    judge.reap(START + 100)
    assert member(engine, "s").state is State.DEAD
    judge.reap(START + 100 + lan().reap_grace_s)
    assert engine.member(identity_of("s").id) is None
