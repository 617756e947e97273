"""What a stream peer's members do, after hashicorp/memberlist's `state_test.go` (TestMemberList_MergeState) and what
its push-pull leaves open: how much of it is told on, and who is asked before it is believed.

Taken: the remote state, and what becomes of the local one. Different here: a death is believed with its proof only,
and a member alive as far as is known here is asked first.
"""

from dataclasses import replace

import pytest

from gossip import parts
from gossip.config import lan
from gossip.events import MemberChanged, MembersReceived, Rejected
from gossip.judge import STREAMED_TOLD_MAX
from gossip.member import State
from gossip.statement import Suspect
from tests.gossip.company import Company, alive_of, chunk, dead_of, left_of, settled
from tests.gossip.world import identity_of, members_payload, suspicion

ALL = ("s", "a", "b", "c")


def test_a_remote_state_is_merged_member_by_member() -> None:
    """memberlist's table: a higher alive clears a suspicion, a suspect is suspected, a dead is at least suspected, a
    stranger joins. A death with one accuser is a suspicion here as there; what it needs beyond that is proof."""
    company = settled("m1", "m2", "m3", "a", "b")
    company.say("a", suspicion("a", "m1"))
    company.outputs.clear()
    company.stream(
        alive_of("m1", (1, 2), address=company.peers["m1"].speaker.address),
        alive_of("m4", (1, 2)),
        suspicion("b", "m2"),
        dead_of("m3", "b"),
    )
    assert (company.state("m1"), company.member("m1").rank) == (State.ALIVE, (1, 2))
    assert (company.state("m2"), company.member("m2").rank) == (State.SUSPECT, (1, 0))
    assert (company.state("m3"), company.member("m3").rank) == (State.SUSPECT, (1, 0))
    assert (company.state("m4"), company.member("m4").rank) == (State.ALIVE, (1, 2))
    assert sorted(
        output.member.name for _, output in company.outputs if isinstance(output, MemberChanged)
    ) == ["m1", "m2", "m3", "m4"]


def test_a_remote_death_with_its_proof_is_at_least_a_suspicion_that_its_subject_can_refute() -> None:
    company = settled(*ALL)
    company.stream(dead_of("s", "abc"))
    assert company.state("s") in (State.SUSPECT, State.DEAD)
    company.stream(alive_of("s", (1, 1), address=company.peers["s"].speaker.address))
    assert company.state("s") is State.ALIVE


def test_the_same_remote_state_again_is_no_news() -> None:
    company = settled(*ALL)
    statements = (alive_of("m4", (1, 2)), suspicion("b", "s"), suspicion("c", "s"))
    company.stream(*statements)
    members, changes = company.engine.members(), len(company.changes())
    for _ in range(3):
        company.stream(*statements)
    assert (company.engine.members(), len(company.changes())) == (members, changes)


def test_what_this_node_tells_on_a_stream_makes_another_see_the_same() -> None:
    company = settled("m1", "m2", "m3", "m4", "a", "b", "c")
    company.say(
        "a", suspicion("a", "m1"), dead_of("m2", "abc"), left_of("m3", (1, 1)), alive_of("m4", (2, 5))
    )
    other = Company()
    for data in members_payload(company.engine):
        outputs = other.step(MembersReceived(node=None, data=data))
        assert [output for output in outputs if isinstance(output, Rejected)] == []
    for name in ("m1", "m3", "m4", "a", "b", "c"):
        assert (other.state(name), other.member(name).rank) == (
            company.state(name),
            company.member(name).rank,
        )
    assert other.state("m2") in (State.SUSPECT, State.DEAD)


def test_a_chunk_of_another_format_is_rejected_whole() -> None:
    company = settled(*ALL)
    data = chunk(alive_of("new"))
    assert data[1] == 1
    outputs = company.step(MembersReceived(node=None, data=data[:1] + b"\x02" + data[2:]))
    assert [type(output) for output in outputs] == [Rejected]
    assert company.engine.member(identity_of("new").id) is None


def test_what_streams_bring_is_told_on_while_little_waits_and_then_left_to_streams() -> None:
    names = [f"n{number}" for number in range(STREAMED_TOLD_MAX + 6)]
    company = settled(*names)
    company.stream(*(alive_of(name, (1, 1)) for name in names))
    assert {company.member(name).rank for name in names} == {(1, 1)}
    assert company.engine.statistics().updates_queued == STREAMED_TOLD_MAX
    company.stream(left_of(names[0], (1, 1)))
    assert company.state(names[0]) is State.LEFT
    assert company.engine.statistics().updates_queued <= STREAMED_TOLD_MAX
    company.say(names[1], alive_of(names[2], (1, 2)))  # news by gossip is told on all the same
    assert company.engine.statistics().updates_queued <= STREAMED_TOLD_MAX
    assert (identity_of(names[2]).id, "alive", b"") in company.engine._parts.broadcasts.updates


def test_those_a_stream_calls_dead_are_asked_at_once_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> list[str]:
        company = Company(*ALL, config=replace(lan(), witnesses=0, heralds=0))
        company.stream(*(dead_of(name, "a") for name in "sbc"))
        assert [company.state(name) for name in "sbc"] == [State.SUSPECT] * 3
        return [name for name in "sbc" if company.told(Suspect, name)]

    assert asked() == ["s", "b", "c"]
    monkeypatch.setattr(parts, "SUMMONS_MAX", 2)
    assert asked() == ["s", "b"]
