"""The kept fold of policies says at any moment what folding everything anew would say."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.journal import Journal
from crdt.ormap import live_versions
from crdt.record import Record
from peer.policyfold import PolicyFold, moves_rights
from peer.records import POLICY, SERVICE, Registry, encode_policy
from trust.credential import Credential
from trust.revocation import revoke

NAMES = "abc"
NOW_MS = 1_800_000_000_000


def key_of(name: str) -> str:
    return f"TrafficPolicy/default/{name}"


def payload(name: str, number: int) -> bytes:
    metadata = {"name": name, "namespace": "default"}
    return encode_policy({"kind": "TrafficPolicy", "metadata": metadata, "spec": {"number": number}})


class Author:
    """A member with a journal of its own, a registry, and the kept fold over them."""

    def __init__(self, mesh: Any, number: int, members: dict[int, tuple[Any, Credential]]) -> None:
        self.identity, _ = members[number]
        self.registry: Registry = mesh.registry()
        for identity, credential in members.values():
            self.registry.introduce(identity.id, credential.encode())
        self.journal = Journal(verify=self.registry.judge)
        self.fold = PolicyFold(self.journal, self.registry)
        self.ms = NOW_MS

    def write(self, key: str, data: bytes, kind: str = POLICY, **changes: Any) -> Record:
        self.ms += 1
        context = self.fold.contexts([key], self.identity.id)[key] if kind == POLICY else ()
        record = self.journal.draft(
            writer=self.identity.id, kind=kind, key=key, payload=data, context=context, now_ms=self.ms,
            sign=self.identity.sign,
        )  # fmt: skip
        if changes:
            record = replace(record, **changes)
            record = replace(record, signature=self.identity.sign(record.signing_bytes()))
        merged = self.journal.merge([record], self.ms)
        assert record in merged.accepted
        return record

    def hear(self, other: "Author") -> None:
        after = self.journal.heads.get(other.identity.id, 0)
        self.journal.absorb(other.journal.delta(other.identity.id, after, 10**9), NOW_MS + 10_000)

    def check(self) -> None:
        records = list(self.journal.records(POLICY))
        objections = Counter(filter(None, map(self.registry.objection, records)))
        expected = live_versions(record for record in records if not self.registry.objection(record))
        found = {f"{e.kind}/{e.namespace}/{e.name}": e for e in self.fold.all()}
        assert list(found) == list(expected)
        for key, versions in expected.items():
            assert [(v.seq, v.hlc) for v in found[key].versions] == [(r.seq, r.hlc) for r in versions]
            assert self.fold.get([key, "none"]) == {key: found[key]}
        assert self.fold.conflicts() == tuple(key for key, each in expected.items() if len(each) > 1)
        assert self.fold.ignored == objections


def authors(mesh: Any, count: int = 3) -> list[Author]:
    members = {number: mesh.member(number) for number in range(1, count + 1)}
    return [Author(mesh, number, members) for number in members]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["edit", "edit", "delete", "service", "hear", "hear", "revoke", "forbid", "allow", "look"]
        ),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from(NAMES),
    ),
    max_size=30,
)


@given(STEPS)
def test_it_equals_folding_everything_whatever_happens(make_world: Any, steps: Any) -> None:
    mesh = make_world().mesh
    people = authors(mesh)
    for number, (step, one, other, name) in enumerate(steps):
        author, subject = people[one], people[other]
        match step:
            case "edit":
                author.write(key_of(name), payload(name, number))
            case "delete":
                author.write(key_of(name), b"")
            case "service":
                author.write(f"default/{name}", b"", kind=SERVICE)
            case "hear" if author is not subject:
                author.hear(subject)
            case "revoke":
                spiffe = author.registry.credentials[subject.identity.id].spiffe
                proof = revoke(mesh.authority, spiffe, reason="", now=1.8e9, expires_at=1.9e9)
                author.registry.revocations.add(proof)
            case "forbid" | "allow":
                credential = author.registry.credentials[subject.identity.id]
                changed = replace(credential, publish=step == "allow", issued_at=credential.issued_at + 1)
                signed = changed.signed(mesh.authority.sign(changed.signing_bytes()))
                assert author.registry.introduce(subject.identity.id, signed.encode()) == ""
            case _:
                author.check()
    for author in people:
        author.check()
        assert PolicyFold(author.journal, author.registry).all() == author.fold.all()


def test_what_a_hostile_floor_voids_is_gone(world: Any) -> None:
    """A floor may name live records only if their writer lies; everybody then forgets the same ones."""
    (author,) = authors(world.mesh, 1)
    for name in NAMES:
        author.write(key_of(name), payload(name, 1))
    author.check()
    author.write(key_of("c"), payload("c", 2), floor=2, live_sum=4)
    author.check()
    assert [entry.name for entry in author.fold.all()] == ["c"]


def test_a_writer_that_forked_after_it_was_last_asked_keeps_what_the_journal_keeps(world: Any) -> None:
    one, two = authors(world.mesh, 2)
    first = one.write(key_of("a"), payload("a", 1))
    one.write(key_of("b"), payload("b", 1))
    two.hear(one)
    other = replace(first, payload=payload("a", 9))
    other = replace(other, signature=one.identity.sign(other.signing_bytes()))
    assert two.journal.merge([other], NOW_MS + 10_000).equivocations
    two.check()
    assert [entry.name for entry in two.fold.all()] == ["a", "b"]


def test_nothing_is_made_anew_while_nothing_changes(world: Any) -> None:
    one, two = authors(world.mesh, 2)
    one.write(key_of("a"), payload("a", 1))
    one.write(key_of("b"), payload("b", 1))
    before = one.fold.all()
    assert one.fold.all() is before
    two.write(key_of("c"), payload("c", 1))
    one.hear(two)
    after = one.fold.all()
    assert [entry.name for entry in after] == ["a", "b", "c"]
    assert after[0] is before[0]


@pytest.mark.parametrize("count", [10, 1000])
def test_an_edit_costs_the_same_however_many_policies_there_are(
    world: Any, monkeypatch: Any, count: int
) -> None:
    """Counted in judgements, which no load of the machine can disturb."""
    one, two = authors(world.mesh, 2)
    for number in range(count):
        one.write(f"TrafficPolicy/default/p{number}", payload(f"p{number}", 1))
    one.fold.all()
    judged = []
    monkeypatch.setattr(Registry, "objection", lambda _registry, record: judged.append(record) or "")
    two.hear(one)
    one.write(key_of("a"), payload("a", 1))
    assert key_of("a") in one.fold.get([key_of("a")])
    assert len(one.fold.all()) == count + 1
    assert len(judged) == 1


def test_what_moves_the_rights_of_others_judges_everything_again(world: Any, monkeypatch: Any) -> None:
    (one,) = authors(world.mesh, 1)
    one.write(key_of("a"), payload("a", 1))
    one.fold.all()
    closed = []
    real = Registry.objection
    monkeypatch.setattr(Registry, "objection", lambda self, r: "closed" if r.key in closed else real(self, r))
    closed.append(key_of("a"))
    assert len(one.fold.all()) == 1  # nobody has said so yet
    record = one.write("Capability/default/mine", b"")
    assert moves_rights(record)
    assert one.fold.all() == ()
    closed.clear()
    one.fold.rights_changed()
    assert len(one.fold.all()) == 1
