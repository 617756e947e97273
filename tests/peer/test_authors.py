"""Who is behind a record: signatures are verified once, and what is remembered of them is bounded."""

from typing import Any

import pytest

from crdt.journal import Journal
from crdt.record import Record
from peer.authored import Verify, as_written, sign
from peer.authors import Authors
from peer.records import POLICY, encode_policy
from trust.identity import NodeIdentity

ANN = NodeIdentity.from_seed(b"a" * 32)
MS = 1_800_000_000_000


def test_what_is_remembered_is_bounded_and_each_signature_verified_once_till_then(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peer.authors.AUTHORED_MAX", 3)
    registry = world.mesh.registry()
    identity, credential = world.mesh.member(1)
    assert registry.introduce(identity.id, credential.encode()) == ""
    journal = Journal(verify=registry.judge)
    records: list[Record] = []
    for number in range(5):
        bare = {"kind": "TrafficPolicy", "metadata": {"name": f"p{number}", "namespace": "shop"}, "spec": {}}
        document = sign(bare, root=registry.root, key=ANN.public_key, stamp_ms=MS, signer=ANN.sign)
        batch = journal.batch(identity.id, records)
        record = journal.draft(
            writer=identity.id, kind=POLICY, key=f"TrafficPolicy/shop/p{number}", payload=encode_policy(document),
            now_ms=MS, sign=identity.sign, batch=batch,
        )  # fmt: skip
        records.append(record)
    verified: list[str] = []

    def noting(record: Record, root: bytes, verify: Verify) -> Record:
        verified.append(record.key)
        return as_written(record, root, verify)

    monkeypatch.setattr("peer.authors.as_written", noting)
    authors = Authors(registry)
    for record in records[:3] * 2:
        assert authors.of(record).writer == ANN.id
    assert len(verified) == 3
    for record in records:
        assert authors.claimant(record) == ANN.id
        assert len(authors._known) <= 3
