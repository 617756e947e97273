import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gossip.census import Census
from gossip.codec import pack
from gossip.config import lan
from gossip.digest import Digest, Mark, Standing
from gossip.engine import Engine
from gossip.events import Evict, Join, Leave, MembersReceived, SetMeta, SyncFailed, Tick
from gossip.statement import sign_left
from gossip.sync import Lack
from tests.gossip.world import (
    ROOT,
    START,
    Speaker,
    acquaint,
    credential_of,
    engine_of,
    identity_of,
    suspicion,
)

NAMES = tuple("abcdef")
SPEAKERS = {name: Speaker(name) for name in NAMES}
ALL = range(256)


def hear(engine: Engine, *statements: bytes, now: float = START) -> None:
    engine.step(now, MembersReceived(node=None, data=pack([1, list(statements)])))


def condemn(engine: Engine, name: str, *accusers: str) -> None:
    hear(engine, *(suspicion(accuser, name).encode() for accuser in accusers))
    engine._parts.judge.condemn_due(START + 1000)


def marks(engine: Engine) -> dict[bytes, Mark]:
    return dict(engine._parts.view.marks(ALL))


def test_those_who_know_the_same_have_the_same_root_whatever_way_they_learnt_it() -> None:
    one, other = engine_of("one"), engine_of("other")
    acquaint(one, "a", "b", "c")
    acquaint(other, "c", "a", "b")
    assert one._parts.view.root != other._parts.view.root
    hear(one, other._parts.presence.encoded)
    hear(other, one._parts.presence.encoded)
    assert one._parts.view.root == other._parts.view.root
    assert one._parts.view.count == other._parts.view.count == 5


def test_this_node_counts_as_it_presently_stands() -> None:
    engine = engine_of("own")
    seen = [marks(engine)]
    engine.step(START, SetMeta(meta={"x": 1}))
    seen.append(marks(engine))
    engine.step(START, Leave())
    seen.append(marks(engine))
    engine.step(START, Join(seeds=()))
    seen.append(marks(engine))
    assert [next(iter(found.values())) for found in seen] == [
        Mark(1, 0, Standing.LIVE),
        Mark(1, 1, Standing.LIVE),
        Mark(1, 2, Standing.LEFT),
        Mark(1, 3, Standing.LIVE),
    ]
    assert engine._parts.view.count == 1


def test_a_suspect_counts_as_alive_and_one_condemned_as_dead() -> None:
    engine = engine_of("own")
    acquaint(engine, "a", "b", "c")
    root, node = engine._parts.view.root, identity_of("a").id
    hear(engine, suspicion("b", "a").encode())
    assert engine._parts.view.root == root
    condemn(engine, "a", "c")
    assert engine._parts.view.root != root
    assert marks(engine)[node] == Mark(1, 0, Standing.DEAD)
    hear(engine, SPEAKERS["a"].alive(incarnation=1).encode())
    assert marks(engine)[node] == Mark(1, 1, Standing.LIVE)


@pytest.mark.parametrize("state", ["alive", "suspect", "dead"])
def test_the_evicted_do_not_count_whatever_they_were(state: str) -> None:
    engine, without = engine_of("own"), engine_of("own")
    acquaint(engine, "a", "b", "c")
    acquaint(without, "b", "c")
    if state != "alive":
        hear(engine, suspicion("b", "a").encode())
    if state == "dead":
        condemn(engine, "a")
    engine.step(START, Evict(node=identity_of("a").id, reason="revoked"))
    assert engine._parts.view.root == without._parts.view.root
    assert engine._parts.view.values() == without._parts.view.values()


@pytest.mark.parametrize("state", ["alive", "suspect", "dead", "left"])
def test_the_expired_stop_counting_at_the_same_moment_everywhere(state: str) -> None:
    nodes = [engine_of("own", now=START - offset) for offset in (0.0, 3.3, 7.1)]
    expiry = START + 7 * 86_400  # of the credential
    for engine in nodes:
        acquaint(engine, "a", "b", "c")
        if state != "alive":
            hear(engine, suspicion("b", "a").encode())
        if state == "dead":
            condemn(engine, "a")
        if state == "left":
            hear(engine, sign_left(identity_of("a"), rank=(1, 1)).encode())
        engine._parts.presence.announce()
    for now, count in ((expiry - 1.0, 4), (expiry + 10.0, 1)):
        for engine in nodes:
            engine._clockwork.lagged(now, 0.0)
            engine.step(now, Tick())
        assert len({engine._parts.view.root for engine in nodes}) == 1
        assert {engine._parts.view.count for engine in nodes} == {count}


def test_reaping_is_at_the_same_times_whenever_a_node_started() -> None:
    for start in (START, START + 0.1, START + 9.99):
        assert engine_of("own", now=start)._clockwork._reap_at == START + 10
    assert engine_of("own", now=START + 10)._clockwork._reap_at == START + 20


def test_what_is_lacking() -> None:
    engine = engine_of("own")
    acquaint(engine, "a", "b", "c")
    view, node = engine._parts.view, identity_of("a").id
    cases = [
        (Mark(1, 0, Standing.LIVE), Lack.NOTHING),
        (Mark(0, 9, Standing.LEFT), Lack.NOTHING),
        (Mark(1, 0, Standing.DEAD), Lack.PROOFS),
        (Mark(1, 0, Standing.LEFT), Lack.PROOFS),
        (Mark(1, 1, Standing.LIVE), Lack.EVERYTHING),
    ]
    assert [view.lack(node, mark) for mark, _ in cases] == [lack for _, lack in cases]
    assert [view.lack(engine.id, mark) for mark, _ in cases] == [lack for _, lack in cases]
    assert view.lack(identity_of("stranger").id, Mark(0, 0, Standing.LEFT)) is Lack.EVERYTHING


def test_nothing_is_lacking_of_the_evicted_and_of_the_expired_only_a_later_rank() -> None:
    engine = engine_of("own")
    acquaint(engine, "a", "b")
    view, a, b = engine._parts.view, identity_of("a").id, identity_of("b").id
    engine.step(START, Evict(node=a, reason="revoked"))
    engine.step(START, Evict(node=identity_of("never met").id, reason="revoked"))
    for node in (a, identity_of("never met").id):
        assert view.lack(node, Mark(9, 9, Standing.LIVE)) is Lack.NOTHING
    engine._parts.judge.reap(START + 7 * 86_400)
    assert view.lack(b, Mark(1, 0, Standing.LEFT)) is Lack.NOTHING
    assert view.lack(b, Mark(1, 1, Standing.LIVE)) is Lack.EVERYTHING


def test_nothing_is_told_of_the_evicted_the_expired_and_strangers() -> None:
    engine = engine_of("own")
    acquaint(engine, "a", "b")
    view, a, b = engine._parts.view, identity_of("a").id, identity_of("b").id
    assert view.alive(a) == SPEAKERS["a"].alive(address=("10.9.0.1", 7946)).encode()
    assert view.alive(engine.id) == engine._parts.presence.encoded
    engine.step(START, Evict(node=a, reason="revoked"))
    assert view.alive(a) is None
    assert view.alive(identity_of("stranger").id) is None
    engine.step(START + 7 * 86_400 - 1, SyncFailed(address=("10.0.0.9", 1)))
    assert view.alive(b) is not None
    engine.step(START + 7 * 86_400, SyncFailed(address=("10.0.0.9", 1)))
    assert view.alive(b) is None


def census_of(*names: str) -> Census:
    return Census(((SPEAKERS[name].alive(), SPEAKERS[name].credential) for name in names), since=START)


def engine_in(census: Census, name: str, *, boot: int = 1) -> Engine:
    return Engine(
        config=lan(),
        identity=identity_of(name),
        credential=credential_of(name),
        trust_root=ROOT.public_key,
        address=("10.9.9.9", 7946),
        boot=boot,
        zone="z1",
        meta={"version": "1"},
        rng=random.Random(1),
        now=START,
        census=census,
    )


def test_those_who_share_a_census_agree_from_the_start_and_share_the_digest() -> None:
    census = census_of(*NAMES)
    engines = [engine_in(census, name) for name in NAMES]
    assert {engine._parts.view.root for engine in engines} == {census.digest.root}
    assert {engine._parts.view.count for engine in engines} == {len(NAMES)}
    assert len({id(engine._parts.roster.digest._values) for engine in engines}) == 1


def test_reading_a_list_makes_no_entries_of_what_is_shared() -> None:
    engine = engine_in(census_of(*NAMES), "a")
    view, roster = engine._parts.view, engine._parts.roster
    assert dict(view.marks(ALL)) == {identity_of(name).id: Mark(1, 0, Standing.LIVE) for name in NAMES}
    for name in NAMES[1:]:
        node = identity_of(name).id
        assert view.alive(node) == SPEAKERS[name].alive().encode()
        assert view.proofs(node) == ()
        assert view.lack(node, Mark(1, 0, Standing.DEAD)) is Lack.PROOFS
    assert roster._entries == {}


def test_a_node_that_is_not_as_the_census_has_it_counts_as_it_is() -> None:
    census = census_of(*NAMES)
    restarted = engine_in(census, "a", boot=2)
    assert marks(restarted)[restarted.id] == Mark(2, 0, Standing.LIVE)
    stranger = engine_in(census, "stranger")
    assert stranger._parts.view.count == len(NAMES) + 1
    for engine in (restarted, stranger):
        expected = Digest()
        for node, mark in marks(engine).items():
            expected.replace(node, None, mark)
        assert (engine._parts.view.root, engine._parts.view.values()) == (expected.root, expected.values())
    assert engine_in(census, "b")._parts.view.root == census.digest.root


def test_the_list_explains_itself() -> None:
    engine = engine_of("own")
    acquaint(engine, "a")
    assert repr(engine._parts.view) == f"MemberList({engine._parts.view.root.hex()}, 2 members)"


class Lists(RuleBasedStateMachine):
    """Whatever happens to a roster, its digest is that of the members it then has."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.start()
        self.now = START
        self.rng = random.Random(0)

    def start(self) -> Engine:
        return engine_of("own")

    @rule(name=st.sampled_from(NAMES), boot=st.integers(1, 3), incarnation=st.integers(0, 3))
    def announce(self, name: str, boot: int, incarnation: int) -> None:
        alive = SPEAKERS[name].alive(boot=boot, incarnation=incarnation)
        hear(self.engine, alive.encode(), now=self.now)

    @rule(accuser=st.sampled_from(NAMES), name=st.sampled_from(NAMES))
    def suspect(self, accuser: str, name: str) -> None:
        member = self.engine.member(identity_of(name).id)
        rank = (1, 0) if member is None else member.rank
        hear(self.engine, suspicion(accuser, name, rank).encode(), now=self.now)

    @rule(name=st.sampled_from(NAMES), incarnation=st.integers(0, 4))
    def leave(self, name: str, incarnation: int) -> None:
        hear(self.engine, sign_left(identity_of(name), rank=(1, incarnation)).encode(), now=self.now)

    @rule()
    def condemn(self) -> None:
        self.engine._parts.judge.condemn_due(self.now + 1000)

    @rule(name=st.sampled_from(NAMES[:2]))
    def evict(self, name: str) -> None:
        self.engine.step(self.now, Evict(node=identity_of(name).id, reason="revoked"))

    @rule(seconds=st.sampled_from([1.0, 7 * 86_400.0]))
    def reap(self, seconds: float) -> None:
        self.now += seconds
        self.engine._parts.judge.reap(self.now)

    @rule()
    def own(self) -> None:
        self.engine.step(self.now, SetMeta(meta={"n": self.rng.randrange(9)}))

    @invariant()
    def digest_is_that_of_the_list(self) -> None:
        view, digest = self.engine._parts.view, Digest()
        for node, mark in view.marks(ALL):
            digest.replace(node, None, mark)
        assert (view.root, view.values(), view.count) == (digest.root, digest.values(), digest.count)
        for entry in self.engine._parts.roster._entries.values():
            assert entry.counted in (entry.standing(), Standing.NONE)


class ListsFromACensus(Lists):
    """The same where some of the members were shared at first."""

    def start(self) -> Engine:
        return engine_in(census_of("a", "b", "c"), "a")


SETTINGS = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestLists, TestListsFromACensus = Lists.TestCase, ListsFromACensus.TestCase
TestLists.settings = TestListsFromACensus.settings = SETTINGS
