"""Who founds: N peers settle on one set, whatever the order in which they meet, and what is settled stays."""

import random
from dataclasses import replace
from typing import Any

import pytest

from peer.meeting import MET_MAX, Meeting
from trust.bootstrap import Card
from trust.identity import NodeIdentity


def card(number: int, **changes: Any) -> Card:
    identity = NodeIdentity.from_seed(number.to_bytes(32, "big"))
    usual = Card(
        public_key=identity.public_key, name=f"n{number}", host="127.0.0.1", port=7946,
        trust_domain="d", expect=3, threshold=2, started_at=number,
    )  # fmt: skip
    return replace(usual, **changes)


def tell(source: Meeting, target: Meeting) -> None:
    nodes = source.proposal()
    if nodes is not None:
        target.hear(source.me.node, nodes, settled=source.settled is not None)


@pytest.mark.parametrize("seed", range(8))
def test_three_settle_on_one_another_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    meetings = [Meeting(card(number)) for number in range(3)]
    steps = [(a, b, sort) for a in meetings for b in meetings if a is not b for sort in ("meet", "tell")] * 4
    rng.shuffle(steps)
    for a, b, sort in [*steps, *steps]:
        if sort == "meet":
            assert a.meet(b.me) == ""
        else:
            tell(a, b)
    everyone = frozenset(each.me.node for each in meetings)
    assert {each.settled for each in meetings} == {everyone}


def test_nobody_settles_before_all_have_proposed_the_same() -> None:
    one, two, three = (Meeting(card(number)) for number in range(3))
    for each in (one, two, three):
        for other in (one, two, three):
            each.meet(other.me)
    tell(two, one)
    assert one.settled is None
    tell(three, one)
    assert one.settled is not None


def test_who_is_one_too_many_finds_out() -> None:
    meetings = [Meeting(card(number)) for number in range(4)]
    for each in meetings:
        for other in meetings:
            each.meet(other.me)
    for _ in range(2):
        for a in meetings:
            for b in meetings:
                tell(a, b)
    settled = {each.settled for each in meetings[:3]}
    assert len(settled) == 1
    assert None not in settled
    assert meetings[3].settled is None
    assert meetings[3].without_me() == meetings[0].settled


def test_what_is_settled_stays_and_who_is_in_it_follows() -> None:
    meetings = [Meeting(card(number)) for number in (1, 2, 3)]
    for each in meetings:
        for other in meetings:
            each.meet(other.me)
    one, two, three = meetings
    tell(two, one)
    tell(three, one)
    settled = one.settled
    early = card(0)
    for each in meetings:
        each.meet(early)
    assert two.proposal() != settled, "it would propose another set now"
    tell(one, two)
    assert two.settled == one.settled == settled
    assert one.proposal() == settled


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trust_domain": "other"}, "trust domain"),
        ({"expect": 5}, "expects 5 founders"),
        ({"threshold": 3}, "threshold of 3"),
    ],
)
def test_who_was_told_something_else_is_no_fellow_founder(changes: dict[str, object], words: str) -> None:
    meeting = Meeting(card(0))
    assert words in meeting.meet(card(1, **changes))
    assert len(meeting.met) == 1


def test_proposals_of_strangers_and_of_nonsense_are_not_heard() -> None:
    meeting = Meeting(card(0))
    for number in (1, 2):
        meeting.meet(card(number))
    everyone = frozenset(meeting.met)
    stranger = card(9)
    meeting.hear(stranger.node, frozenset([*list(everyone)[:2], stranger.node]), settled=True)
    meeting.hear(card(1).node, frozenset([card(1).node, card(0).node]), settled=True)
    meeting.hear(card(1).node, everyone - {card(1).node} | {bytes(16)}, settled=True)
    meeting.hear(card(1).node, frozenset([card(0).node, card(1).node, stranger.node]), settled=True)
    assert meeting.settled is None


def test_those_met_are_bounded() -> None:
    meeting = Meeting(card(0))
    for number in range(1, MET_MAX):
        assert meeting.meet(card(number)) == ""
    assert "more than" in meeting.meet(card(MET_MAX))
    assert meeting.meet(card(1)) == ""
