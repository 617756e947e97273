"""Laws of rights, in stories of members who write what they like."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.delta import Delta
from crdt.record import Record
from crdt.register import versions
from peer.capabilities import Capabilities
from peer.fold import Folder
from peer.grants import NOTHING, agreed, read_grant
from peer.records import POLICY
from peer.rights import overruled
from tests.peer.realm import ALL, GOVERNOR, SECOND, START_MS, Realm, node, realm
from trust.identity import format_id

__all__ = ["realm"]  # a fixture


NAMES = ["a", "b", "c"]
NAMESPACES = ["shop", "web", ALL]
KINDS = ["HTTPRoute", "TrafficPolicy", ALL]
steps = st.lists(
    st.tuples(
        st.sampled_from([GOVERNOR, SECOND, 3, 4, 5, 6]),  # who writes
        st.sampled_from(NAMES),
        st.sets(st.sampled_from([3, 4, 5, 6]), max_size=3),  # to whom; nobody: it is deleted
        st.sets(st.sampled_from(NAMESPACES), min_size=1, max_size=2),
        st.sets(st.sampled_from(KINDS), min_size=1, max_size=2),
        st.booleans(),  # delegate
        st.booleans(),  # has it seen the others
    ),
    max_size=14,
)


def played(realm: Realm, story: Any) -> Realm:
    for by, name, to, namespaces, kinds, delegate, seeing in story:
        if to:
            realm.grant(
                by, name, sorted(to), sorted(namespaces), sorted(kinds), delegate, seen=None if seeing else []
            )
        else:
            realm.withdraw(by, name)
    return realm


def table(realm: Realm) -> dict[tuple[str, str], tuple[set[int], set[int]]]:
    """Every answer: pair -> (who may write it, who may delegate it)."""
    rights = realm.capabilities.rights()
    return {
        (namespace, kind): (
            {n for n in realm.people if rights.may_write(node(n), namespace, kind)},
            {n for n in realm.people if rights.may_delegate(node(n), namespace, kind)},
        )
        for namespace in (*NAMESPACES, "other")
        for kind in (*KINDS, "Other")
    }


@settings(max_examples=60)
@given(
    story=steps, seed=st.integers(0, 2**16), revoked=st.sets(st.sampled_from([GOVERNOR, 3, 4]), max_size=1)
)
def test_the_same_records_in_any_order_give_the_same_rights(
    make_world: Any, story: Any, seed: int, revoked: set[int]
) -> None:
    realm = played(Realm(make_world()), story)
    other = Realm(realm.world)
    shuffled = list(realm.written)
    random.Random(seed).shuffle(shuffled)
    for number, record in enumerate(shuffled):
        other.journal.merge([record], START_MS + 100_000)
        if number == len(shuffled) // 2:
            for each in revoked:
                other.revoke(each)
        other.capabilities.rights()  # whatever was thought on the way
    for each in revoked:
        realm.revoke(each)
        other.revoke(each)
    assert other.journal.heads == realm.journal.heads
    assert table(other) == table(realm)
    assert other.shown() == realm.shown()


@settings(max_examples=60)
@given(story=steps)
def test_rights_are_the_least_that_follow_and_never_exceed_the_granters(make_world: Any, story: Any) -> None:
    """Against the definition, pair by pair: "whose author may delegate it", from nothing until nothing is added."""
    realm = played(Realm(make_world()), story)
    governors = {node(GOVERNOR), node(SECOND)}
    rights = realm.capabilities.rights()
    counted = [each for each in realm.journal.records(POLICY) if not each.deleted]
    by_key: dict[str, list[Record]] = {}
    for record in realm.journal.records(POLICY):
        if record.writer in governors:
            by_key.setdefault(record.key, []).append(record)
    sources = [
        (None, agreed(read_grant(r) or NOTHING for r in versions(several))) for several in by_key.values()
    ]
    sources += [
        (each.writer, read_grant(each) or NOTHING)
        for each in counted
        if each.writer not in governors and overruled(each, by_key) is None
    ]
    for (namespace, kind), (writers, delegates) in table(realm).items():
        may, passes = set(governors), set(governors)
        while True:
            size = len(may), len(passes)
            for author, grant in sources:
                if (author is None or author in passes) and grant.includes(namespace, kind):
                    may |= grant.subjects
                    passes |= grant.subjects if grant.delegate else set()
            if (len(may), len(passes)) == size:
                break
        assert {node(n) for n in delegates} == passes
        if rights.closed(namespace):
            assert {node(n) for n in writers} == may
        else:
            assert may == governors  # whatever is granted is closed
            assert writers == set(realm.people)


@settings(max_examples=40)
@given(story=steps, victim=st.sampled_from([3, 4, 5, 6]))
def test_what_a_revoked_delegate_granted_is_gone_as_if_it_had_never_written(
    make_world: Any, story: Any, victim: int
) -> None:
    realm = played(Realm(make_world()), story)
    realm.revoke(victim)
    without = Realm(realm.world)
    for record in realm.written:
        if record.writer != node(victim):
            without.journal.merge([record], START_MS + 100_000)
    assert table(without) == table(realm)


@settings(max_examples=40)
@given(story=steps)
def test_the_listing_shows_whatever_grants_anything(make_world: Any, story: Any) -> None:
    """No right comes out of a Capability that `gossamer get` does not show."""
    realm = played(Realm(make_world()), story)
    shown = {
        (version.writer, version.seq)
        for entry in Folder(realm.journal, realm.registry).policies()
        for version in entry.versions
    }
    without = Realm(realm.world)
    for record in realm.written:
        without.journal.merge([record], START_MS + 100_000)
    hidden = [
        record
        for record in without.journal.records(POLICY)
        if not record.deleted and (format_id(record.writer), record.seq) not in shown
    ]
    whole = table(without)

    class Filtered:
        """A journal without the hidden records."""

        heads = without.journal.heads
        forks = without.journal.forks
        recast = without.journal.recast

        def delta(self, writer: bytes, after: int, bytes_max: int) -> Delta:
            whole = without.journal.delta(writer, after, bytes_max)
            return replace(whole, records=tuple(each for each in whole.records if each not in hidden))

        def records(self, kind: str) -> Iterator[Record]:
            return (each for each in without.journal.records(kind) if each not in hidden)

    without.capabilities = Capabilities(Filtered(), without.registry)
    found = table(without)
    for pair, (writers, delegates) in whole.items():
        open_now = not without.capabilities.rights().closed(pair[0])
        assert delegates == found[pair][1]
        assert open_now or writers == found[pair][0]
