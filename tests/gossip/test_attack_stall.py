"""What one member can do to the repair of another's list. An engine meets two honest members a second, at random
moments; after 20 s in agreement all of them have something that it has not (or it has what was taken back)."""

import random

from gossip.codec import pack
from gossip.events import RequestSync
from gossip.frame import Summary, encode_frame
from tests.gossip.company import OWN, Company, alive_of
from tests.gossip.world import identity_of, ping

HONEST = tuple(f"h{i}" for i in range(20))


def until_asked(evil, *, evil_every_s: float, seconds=300.0, settled=True, seed=1):
    """Seconds from the difference to the first request to somebody honest; None if there is none."""
    rng = random.Random(seed)
    company = Company("evil", *HONEST)
    company.run(20)
    start = company.now
    next_honest, next_evil = company.now + rng.uniform(0, 1), company.now + rng.uniform(0, evil_every_s)
    own = identity_of(OWN).id
    while company.now < start + 20 + seconds:
        at = min(next_honest, next_evil)
        company.run(max(0.0, at - company.now))
        if at == next_evil:
            evil(company)
            next_evil += evil_every_s
            continue
        next_honest += rng.uniform(0.2, 0.8)
        name = rng.choice(HONEST)
        odd = company.now >= start + 20
        root = b"rightone" if odd else company.engine._parts.view.root
        mine = company.engine._parts.list_settled(company.now)
        out = company.step(
            company.peers[name].speaker.datagram(OWN, ping(1, members=root, members_settled=settled))
        )
        # a peer of smaller id asks the engine itself, if both are settled
        if odd and settled and mine and identity_of(name).id < own:
            return company.now - start - 20
        if odd and any(isinstance(o, RequestSync) and o.node == identity_of(name).id for o in out):
            return company.now - start - 20
    return None


def nothing(company):
    pass


def opens(company):
    side = company.engine.exchange(identity_of("evil").id, initiator=False)
    side.receive(encode_frame(Summary(root=bytes(8), count=3, notice=pack([1, []]))))


class Flapping:
    def __init__(self, mirror):
        self.count, self.mirror = 1, mirror

    def __call__(self, company):
        self.count += 1
        company.say("evil", alive_of("evil", (1, self.count)))
        if self.mirror:
            root = company.engine._parts.view.root
            company.step(company.peers["evil"].speaker.datagram(OWN, ping(9, members=root)))


def test_undisturbed() -> None:
    took = until_asked(nothing, evil_every_s=1.0)
    assert took is not None


def test_exchanges_that_somebody_opens_do_not_keep_it_from_asking_others() -> None:
    took = until_asked(opens, evil_every_s=0.25)
    assert took is not None, "nobody honest asked, and was asked by nobody, in 300 s"


def test_news_of_one_member_alone_only_costs_the_patience() -> None:
    took = until_asked(Flapping(False), evil_every_s=0.25, settled=False)
    assert took is not None


def test_somebody_that_claims_to_agree_does_not_keep_it_from_asking_others() -> None:
    took = until_asked(Flapping(True), evil_every_s=0.25, settled=False)
    assert took is not None, "not in 300 s"


def test_differing_pings_of_one_member_do_not_take_all_turns() -> None:
    def evil(company):
        company.step(
            company.peers["evil"].speaker.datagram(OWN, ping(9, members=b"whatever", members_settled=True))
        )

    took = until_asked(evil, evil_every_s=0.05)
    assert took is not None
