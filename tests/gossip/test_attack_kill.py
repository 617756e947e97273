"""One member, one word, everybody dead."""

from gossip.events import MembersReceived
from gossip.member import State
from tests.gossip.company import Company, chunk, dead_of, left_of
from tests.gossip.world import suspicion


def test_a_single_member_cannot_have_everybody_condemned_at_once() -> None:
    names = [f"p{index}" for index in range(100)]
    company = Company("evil", *names)
    company.run(5.0)
    assert all(company.state(name) is State.ALIVE for name in names)
    evil = company.peers["evil"].speaker
    at = company.now
    company.step(
        MembersReceived(node=evil.identity.id, data=chunk(*(suspicion("evil", name) for name in names)))
    )
    company.say("evil", left_of("evil", (1, 1)))
    for start in range(0, 100, 9):
        company.say("evil", *(dead_of(name, ["evil"]) for name in names[start : start + 9]))
    assert company.now == at
    dead = [name for name in names if company.state(name) is State.DEAD]
    assert not dead, f"{len(dead)} of {len(names)} members dead on the word of one, in no time"


def test_nor_one_of_three_the_third() -> None:
    company = Company("evil", "victim")
    company.run(5.0)
    company.say("evil", left_of("evil", (1, 1)), dead_of("victim", ["evil"]))
    assert company.state("victim") is not State.DEAD
