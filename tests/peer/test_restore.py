"""From the store to a node: what adds up is taken up, what does not is left out and said."""

from dataclasses import replace
from typing import Any

import pytest

from crdt.record import encode_record
from peer.io.store import Batch, Store
from peer.messages import Draft
from peer.records import POLICY, REVOCATION, encode_policy, revocation_key
from peer.restore import restore
from trust.identity import spiffe_node
from trust.revocation import NODE_REVOCATION_S, revoke


def policy(name: str) -> Draft:
    document = {"kind": "TrafficPolicy", "metadata": {"name": name, "namespace": "default"}, "spec": {}}
    return Draft(kind=POLICY, key=f"TrafficPolicy/default/{name}", payload=encode_policy(document))


@pytest.fixture
def store(tmp_path: Any) -> Any:
    made = Store.open(tmp_path)
    yield made
    made.close()


def keep(store: Store, journal: Any, **changes: Any) -> None:
    """Store a journal as a peer would have."""
    records = [record for kind in (POLICY, REVOCATION) for record in journal.records(kind)]
    fields = {
        "put": [(r.writer, r.kind, r.key, r.seq, encode_record(r)) for r in records],
        "heads": dict(journal.heads),
        "introductions": dict(journal.introductions),
    }
    store.commit(Batch(**(fields | changes)))


def filled(world: Any, *drafts: Draft) -> Any:
    """Two nodes that know what both wrote."""
    a, b = world.node(1), world.node(2)
    world.join(b, a)
    world.run(1)
    world.write(a, *drafts)
    world.write(b, policy("of-b"))
    world.run(2)
    return world.nodes[a]


def member(live: Any) -> Any:
    return live.member(1).membership


@pytest.fixture
def world(world: Any, live: Any) -> Any:
    """A world under the root of the live mesh."""
    world.mesh.authority = live.authority
    return world


def test_what_was_stored_comes_back_whole(world: Any, live: Any, store: Store) -> None:
    node = filled(world, policy("one"), policy("two"))
    keep(store, node.journal)
    restored = restore(store.load(), member(live), clock_drift_max_s=5)
    assert restored.journal.heads == node.journal.heads
    assert restored.journal.fingerprint() == node.journal.fingerprint()
    assert restored.registry.credentials == node.registry.credentials


def test_revocations_are_in_force_from_the_start(world: Any, live: Any, store: Store) -> None:
    subject = spiffe_node("cluster.local", world.mesh.member(3)[0].id)
    ends = world.now + NODE_REVOCATION_S
    proof = revoke(live.authority, subject, reason="lost", now=world.now, expires_at=ends)
    node = filled(world, Draft(kind=REVOCATION, key=revocation_key(proof), payload=proof.encode()))
    keep(store, node.journal)
    restored = restore(store.load(), member(live), clock_drift_max_s=5)
    assert restored.registry.revocations.covers(subject) is not None


def test_a_record_that_is_missing_leaves_its_writer_out_and_says_so(
    world: Any, live: Any, store: Store, caplog: Any
) -> None:
    node = filled(world, policy("one"), policy("two"))
    rows = [
        (r.writer, r.kind, r.key, r.seq, encode_record(r))
        for r in node.journal.records(POLICY)
        if not r.key.endswith("/one")
    ]
    keep(store, node.journal, put=rows)
    restored = restore(store.load(), member(live), clock_drift_max_s=5)
    assert "journal_damaged" in caplog.text
    assert {record.key for record in restored.journal.records(POLICY)} == {"TrafficPolicy/default/of-b"}
    assert node.identity.id not in restored.journal.heads  # asked for again, whole


def test_a_record_that_cannot_be_read_is_said_and_the_rest_goes_on(
    world: Any, live: Any, store: Store, caplog: Any
) -> None:
    node = filled(world, policy("one"))
    store.commit(Batch(put=[(b"x" * 16, POLICY, "k", 1, b"garbage")], heads={b"x" * 16: 1}))
    keep(store, node.journal)
    restored = restore(store.load(), member(live), clock_drift_max_s=5)
    assert "record_unread" in caplog.text
    assert restored.journal.heads == node.journal.heads


def test_an_introduction_that_does_not_hold_is_not_handed_on(world: Any, live: Any, store: Store) -> None:
    node = filled(world, policy("one"))
    stranger = type(live)(b"another root").member(9)
    introductions = {
        **node.journal.introductions, stranger.identity.id: stranger.credential.encode(), b"y" * 16: b"garbage"
    }  # fmt: skip
    keep(store, node.journal, introductions=introductions)
    restored = restore(store.load(), member(live), clock_drift_max_s=5)
    assert set(restored.journal.introductions) == set(node.journal.introductions)


def test_a_writer_that_equivocated_stays_out_of_view(
    world: Any, live: Any, store: Store, caplog: Any
) -> None:
    node = filled(world, policy("one"))
    (ours,) = [record for record in node.journal.records(POLICY) if record.writer == node.identity.id]
    other = replace(ours, payload=b"other")
    other = replace(other, signature=node.identity.sign(other.signing_bytes()))
    proof = encode_record(ours), encode_record(other)
    keep(store, node.journal, forks={ours.writer: proof, b"y" * 16: (proof[0], b"garbage")})
    restored = restore(store.load(), member(live), clock_drift_max_s=5)
    assert set(restored.journal.forks) == {ours.writer}
    assert "record_unread" in caplog.text
    assert {record.key for record in restored.journal.records(POLICY)} == {"TrafficPolicy/default/of-b"}


def test_used_tokens_stay_used(live: Any, store: Store) -> None:
    store.commit(Batch(spent=[(b"t" * 16, b"n" * 16, 5), (b"t" * 16, b"m" * 16, 5)]))
    assert len(restore(store.load(), member(live), clock_drift_max_s=5).ledger) == 2
