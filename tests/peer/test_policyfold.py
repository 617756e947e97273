"""The kept fold of policies says at any moment what folding everything anew would say."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.delta import Delta
from crdt.journal import Journal
from crdt.record import Record, content_digest, rest_hash
from peer.authored import sign
from peer.capabilities import Capabilities
from peer.node_distrust import EVICTED_KINDS
from peer.policyfold import PolicyFold
from peer.records import CLOSURE, POLICY, SERVICE, Registry, decode_policy, encode_policy, policy_key
from peer.rights import Reason
from trust.credential import Credential
from trust.identity import NodeIdentity, format_id, node_id
from trust.revocation import revoke

NAMES = "abc"
NOW_MS = 1_800_000_000_000
ANN = 9  # signs documents; her key may turn out to be a node's


def key_of(name: str) -> str:
    return f"TrafficPolicy/default/{name}"


def policy(name: str, number: int) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"kind": "TrafficPolicy", "metadata": metadata, "spec": {"number": number}}


def payload(name: str, number: int) -> bytes:
    return encode_policy(policy(name, number))


def capability(name: str, *subjects: NodeIdentity, delegate: bool = False) -> dict[str, Any]:
    """Of members; the key of `ANN` is named as an author's."""
    ann = person(ANN)
    named = [
        {"author": ann.public_key.hex()} if each.id == ann.id else {"node": format_id(each.id)}
        for each in subjects
    ]
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "Capability",
        "metadata": {"name": name, "namespace": "gossamer-system"},
        "spec": {"subjects": named, "namespaces": ["default"], "kinds": ["*"], "delegate": delegate},
    }  # fmt: skip


def person(number: int) -> NodeIdentity:
    return NodeIdentity.from_seed(bytes([number]) * 32)


class Author:
    """A member with a journal of its own, a registry, and the kept fold over them."""

    def __init__(self, mesh: Any, number: int, members: dict[int, tuple[Any, Credential]]) -> None:
        self.identity, _ = members[number]
        self.registry: Registry = mesh.registry()
        for identity, credential in members.values():
            self.registry.introduce(identity.id, credential.encode())
        self.journal = Journal(verify=self.registry.judge)
        self.capabilities = Capabilities(self.journal, self.registry)
        self.fold = PolicyFold(self.capabilities, self.registry)
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

    def publish(self, document: dict[str, Any]) -> Record:
        """Whether it may or not."""
        metadata = document["metadata"]
        key = policy_key(document["kind"], metadata["namespace"], metadata["name"])
        return self.write(key, encode_policy(document))

    def signed(self, document: dict[str, Any], stamp_ms: int) -> dict[str, Any]:
        """By Ann."""
        ann = person(ANN)
        return sign(document, root=self.registry.root, key=ann.public_key, stamp_ms=stamp_ms, signer=ann.sign)

    def hear(self, other: "Author") -> None:
        after = self.journal.heads.get(other.identity.id, 0)
        self.journal.absorb(other.journal.delta(other.identity.id, after, 10**9), NOW_MS + 10_000)

    def check(self) -> None:
        """Against the definition: everything folded anew, by rights that are derived anew."""
        rights = Capabilities(self.journal, self.registry).rights()
        records = list(self.journal.records(POLICY))
        refusals = [(each, refusal) for each in records if (refusal := rights.objection(each)) is not None]
        expected = rights.live(each for each in records if rights.objection(each) is None)
        found = {f"{e.kind}/{e.namespace}/{e.name}": e for e in self.fold.all()}
        assert list(found) == list(expected)
        for key, versions in expected.items():
            assert [(v.writer, v.seq, v.hlc, v.resource) for v in found[key].versions] == [
                (format_id(r.writer), r.seq, r.hlc, decode_policy(r.payload)) for r in versions
            ]
            assert self.fold.get([key, "none"]) == {key: found[key]}
        assert self.fold.conflicts() == tuple(key for key, each in expected.items() if len(each) > 1)
        assert self.fold.ignored == Counter(refusal.words for _, refusal in refusals)
        counts = Counter((each.writer, refusal.reason) for each, refusal in refusals)
        assert {place: count for place, (count, _) in self.fold.refused.items()} == counts
        for (writer, reason), (_, words) in self.fold.refused.items():
            assert (writer, reason, words) in {(r.writer, f.reason, f.words) for r, f in refusals}
        ignored = {(each.key, refusal.words) for each, refusal in refusals if each.payload}
        assert self.fold.refused_keys.keys() == {key for key, _ in ignored}
        assert self.fold.refused_keys.items() <= ignored
        words = {each.dot: refusal.words for each, refusal in refusals}
        for key in {each.key for each in records}:
            assert set(self.fold.records(key)) == {
                (each, words.get(each.dot, "")) for each in records if each.key == key
            }
        for kind in (POLICY, CLOSURE):
            index = self.capabilities.index
            held = {each.dot: each for key in index.keys(kind) for each in index.of(kind, key)}
            assert held == {each.dot: each for each in self.journal.records(kind)}


def authors(mesh: Any, count: int = 3) -> list[Author]:
    """The first one governs."""
    members = {number: mesh.member(number, govern=number == 1) for number in range(1, count + 1)}
    return [Author(mesh, number, members) for number in members]


ACTIONS = {
    "edit": 12, "delete": 4, "service": 1, "hear": 24, "grant": 10, "pass on": 4, "withdraw": 2, "close": 1, "sign": 8,
    "carry": 8, "sign a grant": 4, "revoke": 1, "forbid": 2, "allow": 3, "govern": 1, "rename": 1, "join": 1,
}  # fmt: skip
STEPS = 40


def take(step: str, author: Author, subject: Author, name: str, number: int, mesh: Any, signed: Any) -> None:
    known = author.registry.credentials
    match step:
        case "edit":
            author.publish(policy(name, number))
        case "delete":
            author.write(key_of(name), b"")
        case "service":
            author.write(f"default/{name}", b"", kind=SERVICE)
        case "hear" if author is not subject:
            author.hear(subject)
        case "revoke":
            spiffe = known[subject.identity.id].spiffe
            proof = revoke(mesh.authority, spiffe, reason="", now=1.8e9, expires_at=1.9e9)
            author.registry.revocations.add(proof)
        case "forbid" | "allow" | "govern" | "rename":
            credential = known[subject.identity.id]
            rights = {
                "forbid": {"publish": False},
                "allow": {"publish": True, "govern": False},
                "govern": {"publish": True, "govern": True},
                "rename": {"name": f"renamed-{number}"},
            }
            changed = replace(credential, issued_at=credential.issued_at + 1, **rights[step])
            renewed = changed.signed(mesh.authority.sign(changed.signing_bytes()))
            assert author.registry.introduce(subject.identity.id, renewed.encode()) == ""
        case "grant":
            author.publish(capability(name, subject.identity, person(ANN), delegate=number % 2 == 0))
        case "pass on":
            author.publish(capability(name, subject.identity))
        case "withdraw":
            author.write(f"Capability/gossamer-system/{name}", b"")
        case "close":
            author.write("default", b"\1", kind=CLOSURE)
        case "sign":
            signed.append(author.signed(policy(name, number), NOW_MS + number // 2))  # two may have one stamp
            author.publish(signed[-1])
        case "carry" if signed:
            author.publish(signed[number % len(signed)])
        case "sign a grant":
            author.publish(author.signed(capability(name, subject.identity), NOW_MS + number))
        case "join":
            author.registry.introduce(person(ANN).id, mesh.member(ANN)[1].encode())


@pytest.mark.timeout(400)  # for one that hangs: half a minute of work, on a core that others use too
@given(st.integers(0, 2**32))
def test_it_equals_folding_everything_whatever_happens(make_world: Any, seed: int) -> None:
    rng = random.Random(seed)  # dense stories: a list that hypothesis draws is mostly a short one
    mesh = make_world().mesh
    people = authors(mesh)
    signed: list[dict[str, Any]] = []
    for number, step in enumerate(rng.choices([*ACTIONS], [*ACTIONS.values()], k=STEPS)):
        author, subject = rng.choice(people), rng.choice(people)
        take(step, author, subject, rng.choice(NAMES), number, mesh, signed)
        if rng.random() < 0.6:
            author.check()
    for author in people:
        author.check()
        assert (
            PolicyFold(Capabilities(author.journal, author.registry), author.registry).all()
            == author.fold.all()
        )


def test_what_a_hostile_floor_voids_is_gone(world: Any) -> None:
    """A floor may name live records only if their writer lies; everybody then forgets the same ones."""
    (author,) = authors(world.mesh, 1)
    for name in NAMES:
        author.write(key_of(name), payload(name, 1))
    author.check()
    author.write(key_of("c"), payload("c", 2), floor=2, rest=rest_hash(0))
    author.check()
    assert [entry.name for entry in author.fold.all()] == ["c"]


def test_what_a_writer_takes_back_without_a_word_is_gone_and_what_it_brings_back_is_there(world: Any) -> None:
    """It signs that of `old`, its edit, and `b` the first and the last are all there is. The fold has seen the edit."""
    one, two = authors(world.mesh, 2)
    old = one.write(key_of("a"), payload("a", 1))
    for name in ("a", "b"):
        one.write(key_of(name), payload(name, 2))
    two.hear(one)
    two.check()
    b = one.journal.get(one.identity.id, POLICY, key_of("b"))
    assert b is not None
    for rest, names in (([old], ["a", "c"]), ([b], ["b", "c"])):
        last = replace(b, seq=4 + (rest == [b]), key=key_of("c"), payload=payload("c", 1))
        last = replace(last, floor=0, rest=rest_hash(sum(map(content_digest, rest))))
        last = replace(last, signature=one.identity.sign(last.signing_bytes()))
        whole = Delta(writer=one.identity.id, after=0, upto=last.seq, target=last.seq, records=(*rest, last))
        assert two.journal.absorb(whole, NOW_MS + 10_000).refused  # until it was asked for all of it
        assert two.journal.absorb(whole, NOW_MS + 10_000).contradictions
        two.check()
        assert [entry.name for entry in two.fold.all()] == names


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


def test_a_writer_that_is_expelled_for_its_fork_is_gone_but_for_what_it_closed(world: Any) -> None:
    one, two = authors(world.mesh, 2)
    first = one.write(key_of("a"), payload("a", 1))
    one.write("default", b"\1", kind=CLOSURE)
    two.hear(one)
    two.check()
    other = replace(first, payload=payload("a", 9))
    other = replace(other, signature=one.identity.sign(other.signing_bytes()))
    assert two.journal.merge([other], NOW_MS + 10_000).equivocations
    two.journal.evict(one.identity.id, EVICTED_KINDS)
    two.check()
    assert two.fold.all() == ()
    assert two.capabilities.rights().closed("default")


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
    """Counted in records that are judged or looked for, which no load of the machine can disturb."""
    one, two = authors(world.mesh, 2)
    one.publish(capability("all", two.identity))
    for number in range(count):
        one.publish(policy(f"p{number}", 1))
    one.fold.all()
    two.hear(one)
    two.fold.all()
    judged: list[Record] = []
    real = Registry.objection
    monkeypatch.setattr(Registry, "objection", lambda self, r: judged.append(r) or real(self, r))
    monkeypatch.setattr(Journal, "records", lambda _journal, kind: pytest.fail(f"walks all of {kind}"))
    record = two.publish(policy("a", 1))
    assert two.capabilities.refusal(record) == ""
    one.hear(two)
    assert key_of("a") in one.fold.get([key_of("a")])
    assert len(one.fold.all()) == count + 2
    assert one.fold.reach(key_of("a")) == {two.identity.id: 1}
    assert len(judged) <= 4


@pytest.mark.parametrize("count", [10, 300])
def test_what_somebody_without_rights_grants_costs_the_same_however_much_there_is(
    world: Any, monkeypatch: Any, count: int
) -> None:
    """Else any member could keep all others busy: each of its records would have them judge all policies again."""
    one, two = authors(world.mesh, 2)
    for number in range(count):
        one.publish(policy(f"p{number}", 1))
        two.publish(capability(f"junk-{number}", two.identity, delegate=True))
    one.hear(two)
    one.check()
    rights, judged = one.capabilities.rights(), []
    record = two.publish(capability("one-more", two.identity, delegate=True))
    real = Registry.objection
    monkeypatch.setattr(Registry, "objection", lambda self, r: judged.append(r) or real(self, r))
    one.hear(two)
    assert len(one.fold.all()) == count
    assert one.capabilities.rights() is rights
    assert set(judged) == {record}
    monkeypatch.undo()
    one.check()


def test_when_rights_change_only_what_somebody_else_may_write_now_is_judged_again(
    world: Any, monkeypatch: Any
) -> None:
    one, two = authors(world.mesh, 2)
    mine = two.publish(policy("a", 1))
    elsewhere = policy("b", 1)
    elsewhere["metadata"]["namespace"] = "elsewhere"
    two.publish(elsewhere)
    one.hear(two)
    one.fold.all()
    judged: list[Record] = []
    real = Registry.objection
    monkeypatch.setattr(Registry, "objection", lambda self, r: judged.append(r) or real(self, r))
    granted = one.publish(capability("mine"))
    assert [entry.name for entry in one.fold.all()] == ["mine", "b"]
    assert set(judged) == {mine, granted}


def test_when_the_rights_change_every_policy_they_are_about_is_judged_again(world: Any) -> None:
    one, two = authors(world.mesh, 2)
    two.publish(policy("a", 1))
    one.hear(two)
    assert [entry.name for entry in one.fold.all()] == ["a"]
    one.publish(capability("mine"))
    assert [entry.name for entry in one.fold.all()] == ["mine"]
    assert "node-2 may not write TrafficPolicy" in one.fold.refused_keys[key_of("a")]
    assert one.fold.refused.keys() == {(two.identity.id, Reason.NAMESPACE_CLOSED)}
    one.publish(capability("mine", two.identity))
    assert [entry.name for entry in one.fold.all()] == ["mine", "a"]
    assert not one.fold.refused_keys
    assert not one.fold.refused


def test_an_authors_key_that_turns_out_to_be_a_nodes_is_no_authors(world: Any) -> None:
    one, two = authors(world.mesh, 2)
    one.publish(capability("ann", person(ANN)))
    two.publish(two.signed(policy("a", 1), NOW_MS))
    one.hear(two)
    one.check()
    assert [entry.name for entry in one.fold.all()] == ["ann", "a"]
    assert one.registry.introduce(person(ANN).id, world.mesh.member(ANN, govern=False)[1].encode()) == ""
    one.check()
    assert [entry.name for entry in one.fold.all()] == ["ann"]


def test_what_an_author_granted_goes_when_her_key_turns_out_to_be_a_nodes(world: Any) -> None:
    one, two = authors(world.mesh, 2)
    one.publish(capability("ann", person(ANN), delegate=True))
    two.publish(two.signed(capability("two", two.identity), NOW_MS))
    two.publish(policy("a", 1))
    one.hear(two)
    one.check()
    assert [entry.name for entry in one.fold.all()] == ["ann", "two", "a"]
    assert one.registry.introduce(person(ANN).id, world.mesh.member(ANN, govern=False)[1].encode()) == ""
    one.check()
    assert [entry.name for entry in one.fold.all()] == ["ann"]


def test_a_governor_is_called_by_its_newest_name_to_whom_it_overrules(world: Any) -> None:
    one, two = authors(world.mesh, 2)
    one.publish(capability("all", two.identity, delegate=True))
    two.publish(capability("all", two.identity))
    one.hear(two)
    one.check()
    assert one.fold.refused.keys() == {(two.identity.id, Reason.OVERRULED)}
    take("rename", one, one, "", 1, world.mesh, [])
    one.check()
    assert "is that of renamed-1" in one.fold.records("Capability/gossamer-system/all")[1][1]


def test_an_authors_version_reaches_as_far_as_who_published_it_first(world: Any) -> None:
    one, two = authors(world.mesh, 2)
    document = one.signed(policy("a", 1), NOW_MS)
    one.publish(policy("b", 1))
    one.publish(document)
    two.hear(one)
    two.publish(document)
    one.hear(two)
    for each in (one, two):
        (entry,) = each.fold.get([key_of("a")]).values()
        assert entry.versions[0].writer == format_id(node_id(person(ANN).public_key))
        assert each.fold.reach(key_of("a")) == {one.identity.id: 2}


def test_an_entry_names_all_records_that_a_signed_document_stands_in(world: Any) -> None:
    """Else whoever asks about one of them is not told that the policy was set aside."""
    one, two = authors(world.mesh, 2)
    document = one.signed(policy("a", 1), NOW_MS)
    one.publish(document)
    two.hear(one)
    before = two.fold.all()
    two.publish(document)
    one.hear(two)
    ids = sorted((each.identity.id, 1) for each in (one, two))
    for each in (one, two):
        (version,) = each.fold.get([key_of("a")])[key_of("a")].versions
        assert version.records == tuple((format_id(node), seq) for node, seq in ids)
    assert before[0].versions[0].records == ((format_id(one.identity.id), 1),)
    one.publish(policy("a", 2))
    (version,) = one.fold.get([key_of("a")])[key_of("a")].versions
    assert version.records == ((format_id(one.identity.id), 2),)


def test_an_author_without_the_right_does_not_stay_in_the_contexts_of_all_further_edits(world: Any) -> None:
    """Keys cost nothing: with a new one after each edit, the context would grow until nobody could edit the policy."""
    one, two = authors(world.mesh, 2)
    one.publish(capability("mine", person(ANN)))
    for number in range(5):
        stranger = NodeIdentity.from_seed(bytes([100 + number]) * 32)
        signed = sign(
            policy("a", number), root=two.registry.root, key=stranger.public_key, stamp_ms=NOW_MS + number,
            signer=stranger.sign,
        )  # fmt: skip
        two.publish(signed)
        one.hear(two)
        one.publish(policy("a", 10 + number))
    context = one.journal.get(one.identity.id, POLICY, key_of("a")).context
    assert {writer for writer, _ in context} == {one.identity.id, two.identity.id}
    two.publish(two.signed(policy("a", 20), NOW_MS + 2))  # Ann's has the right, and an edit covers it
    one.hear(two)
    assert len(one.fold.get([key_of("a")])[key_of("a")].versions) == 2
    one.publish(policy("a", 21))
    (version,) = one.fold.get([key_of("a")])[key_of("a")].versions
    assert version.resource["spec"]["number"] == 21


def test_reading_ahead_takes_changes_in_pieces_and_whoever_asks_sees_all_of_them(world: Any) -> None:
    (one,) = authors(world.mesh, 1)
    for number in range(25):
        one.publish(policy(f"p{number}", 1))
    assert [one.fold.read_ahead(10) for _ in range(4)] == [False, False, True, True]
    for number in range(25):
        one.publish(policy(f"p{number}", 2))
    assert not one.fold.read_ahead(10)
    assert {entry.versions[0].resource["spec"]["number"] for entry in one.fold.all()} == {2}
    assert one.fold.read_ahead(10)
