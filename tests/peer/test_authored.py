"""Documents of people: signed once, carried by anybody, and never older than what is there."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.journal import Journal
from crdt.record import Record
from peer.authored import ANNOTATION, Claim, read_claim, sign, without_claim
from peer.capabilities import Capabilities
from peer.fold import Folder
from peer.messages import Draft
from peer.records import POLICY, PayloadError, Registry, encode_policy
from peer.rights import Reason
from trust.identity import NodeIdentity, format_id, node_id

START_MS = 1_800_000_000_000
KEY = "TrafficPolicy/shop/one"
ANN = NodeIdentity.from_seed(b"a" * 32)
BEN = NodeIdentity.from_seed(b"b" * 32)


def policy(seconds: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "one", "namespace": "shop"} | metadata,
        "spec": {"targetRefs": [{"kind": "Service", "name": "a"}], "timeouts": {"request": f"{seconds}s"}},
    }


def capability(name: str, author: NodeIdentity, *, delegate: bool = False) -> dict[str, Any]:
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "Capability",
        "metadata": {"name": name, "namespace": "gossamer-system"},
        "spec": {
            "subjects": [{"author": author.public_key.hex()}],
            "namespaces": ["shop"],
            "kinds": ["*"],
            "delegate": delegate,
        },
    }


class Desk:
    """Members 1 (who governs), 2 and 3, their journals in one, and a clock."""

    def __init__(self, world: Any) -> None:
        self.registry: Registry = world.mesh.registry()
        self.people = {}
        for number in (1, 2, 3):
            identity, credential = world.mesh.member(number, govern=number == 1)
            self.people[number] = identity
            assert self.registry.introduce(identity.id, credential.encode()) == ""
        self.journal = Journal(verify=self.registry.judge)
        self.capabilities = Capabilities(self.journal, self.registry)
        self.now_ms = START_MS
        self.written: list[Record] = []

    def signed(
        self, author: NodeIdentity, document: dict[str, Any], *, ago_ms: int = 0, **changes: Any
    ) -> dict[str, Any]:
        fields = {
            "root": self.registry.root, "key": author.public_key, "stamp_ms": self.now_ms - ago_ms,
            "signer": author.sign,
        } | changes  # fmt: skip
        return sign(document, **fields)

    def draft(self, by: int, payload: bytes, key: str = KEY) -> Record:
        from crdt.register import context_for

        identity = self.people[by]
        return self.journal.draft(
            writer=identity.id, kind=POLICY, key=key, payload=payload, now_ms=self.now_ms, sign=identity.sign,
            context=context_for(self.capabilities.seen(key), identity.id),
        )  # fmt: skip

    def publish(self, by: int, document: dict[str, Any] | None, key: str = "") -> Record:
        """Without asking whether it may."""
        name = key or (
            KEY if document is None else "{kind}/{metadata[namespace]}/{metadata[name]}".format(**document)
        )
        record = self.draft(by, b"" if document is None else encode_policy(document), name)
        assert self.journal.merge([record], self.now_ms).accepted
        self.written.append(record)
        self.now_ms += 1000
        return record

    def shown(self) -> list[tuple[str, str]]:
        """(author, timeout) of each version of the policy."""
        entries = [
            each for each in Folder(self.journal, self.registry).policies() if each.kind == "TrafficPolicy"
        ]
        return [
            (v.writer, v.resource["spec"]["timeouts"]["request"]) for each in entries for v in each.versions
        ]

    def refusal(self, by: int, document: dict[str, Any]) -> str:
        return self.capabilities.refusal(self.draft(by, encode_policy(document)))


@pytest.fixture
def desk(world: Any) -> Desk:
    made = Desk(world)
    made.publish(1, capability("ann", ANN))
    return made


def of(author: NodeIdentity) -> str:
    return format_id(node_id(author.public_key))


def test_the_authors_rights_count_and_not_the_carriers(desk: Desk) -> None:
    assert "node-2 may not write" in desk.refusal(2, policy())
    assert "may not write TrafficPolicy in namespace shop" in desk.refusal(2, desk.signed(BEN, policy()))
    assert "may not write" in desk.refusal(
        1, desk.signed(BEN, policy())
    )  # whoever governs carries it as anybody does
    assert desk.refusal(2, desk.signed(ANN, policy())) == ""
    desk.publish(2, desk.signed(ANN, policy(5)))
    assert desk.shown() == [(of(ANN), "5s")]
    desk.publish(1, capability("ann", BEN))  # Ann loses the right
    assert desk.shown() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda desk, made: made | {"spec": policy(9)["spec"]},
        lambda desk, made: desk.signed(ANN, policy(), root=b"x" * 32),
        lambda desk, made: desk.signed(ANN, policy(), signer=BEN.sign),
        lambda desk, made: desk.signed(ANN, policy(), ago_ms=-6_000),
        lambda desk, made: policy(annotations={ANNOTATION: "nonsense"}),
        lambda desk, made: policy(annotations={ANNOTATION: made["metadata"]["annotations"][ANNOTATION], "a": "b"}),
        lambda desk, made: desk.signed(desk.people[3], policy()),
    ],
)  # fmt: skip
def test_a_signature_that_does_not_hold_refuses_the_document(desk: Desk, spoil: Any) -> None:
    document = spoil(desk, desk.signed(ANN, policy()))
    assert desk.refusal(1, document)
    record = desk.publish(1, document)
    refusal = desk.capabilities.rights().objection(record)
    assert refusal is not None
    assert refusal.reason is Reason.MALFORMED
    assert desk.shown() == []


def test_an_old_document_published_again_replaces_nothing(desk: Desk) -> None:
    old = desk.signed(ANN, policy(1))
    desk.publish(2, old)
    desk.publish(2, desk.signed(ANN, policy(2)))
    assert "signed later is published already" in desk.refusal(3, old)
    desk.publish(3, old)
    assert desk.shown() == [(of(ANN), "2s")]


def test_what_was_edited_or_deleted_does_not_come_back_by_publishing_it_again(desk: Desk) -> None:
    desk.publish(
        1, capability("open", ANN) | {"spec": capability("x", ANN)["spec"] | {"subjects": [{"node": "*"}]}}
    )
    old = desk.signed(ANN, policy(1))
    desk.publish(2, old)
    desk.publish(3, policy(3))
    assert desk.shown() == [(format_id(desk.people[3].id), "3s")]
    desk.publish(2, old)
    assert desk.shown() == [(format_id(desk.people[3].id), "3s")]
    desk.publish(3, None)
    desk.publish(1, old)
    assert desk.shown() == []
    desk.publish(2, desk.signed(ANN, policy(4)))
    assert desk.shown() == [(of(ANN), "4s")]


def test_one_published_under_another_name_is_not_even_seen(desk: Desk) -> None:
    record = desk.publish(2, desk.signed(ANN, policy(1, name="other")), key=KEY)
    refusal = desk.capabilities.rights().objection(record)
    assert refusal is not None
    assert refusal.reason is Reason.MALFORMED
    assert desk.capabilities.seen(KEY) == [record]


def test_one_that_two_members_published_has_seen_what_either_had(desk: Desk) -> None:
    desk.publish(1, policy(1))
    document = desk.signed(ANN, policy(2))
    first = desk.draft(2, encode_policy(document))
    unseen = desk.people[3]
    second = desk.journal.draft(
        writer=unseen.id,
        kind=POLICY,
        key=KEY,
        payload=encode_policy(document),
        now_ms=desk.now_ms,
        sign=unseen.sign,
    )
    for order in ((first, second), (second, first)):
        for record in order:
            desk.journal.merge([record], desk.now_ms)
        assert desk.shown() == [(of(ANN), "2s")]


def test_two_documents_with_one_stamp_contradict_each_other_and_neither_counts(desk: Desk) -> None:
    one, two = desk.signed(ANN, policy(1)), desk.signed(ANN, policy(2))
    desk.publish(2, one)
    desk.publish(3, two)
    assert desk.shown() == []
    desk.publish(1, desk.signed(ANN, policy(3)))
    assert desk.shown() == [(of(ANN), "3s")]


def test_an_author_delegates_and_what_it_granted_goes_with_its_right(desk: Desk) -> None:
    granted = desk.signed(ANN, capability("ben", BEN))
    desk.publish(3, granted)
    assert "may not write" in desk.refusal(2, desk.signed(BEN, policy()))  # Ann may not delegate
    desk.publish(1, capability("ann", ANN, delegate=True))
    assert desk.refusal(2, desk.signed(BEN, policy())) == ""
    desk.publish(1, None, key="Capability/gossamer-system/ann")
    desk.publish(1, capability("other", desk.people[2]))
    assert "may not write" in desk.refusal(2, desk.signed(BEN, policy()))


def test_who_carries_an_authors_capability_lends_it_nothing(desk: Desk) -> None:
    document = desk.signed(BEN, capability("ben", BEN, delegate=True))
    assert "may not" in desk.capabilities.refusal(
        desk.draft(1, encode_policy(document), "Capability/gossamer-system/ben")
    )
    desk.publish(1, document)
    assert "may not write" in desk.refusal(2, desk.signed(BEN, policy()))
    from proxy.resources import parse_resource

    assert desk.capabilities.closing(desk.people[1].id, [parse_resource(document)]) == []


@given(
    seed=st.integers(0, 2**16), story=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), max_size=8)
)
def test_any_order_shows_the_same(make_world: Any, seed: int, story: list[tuple[int, int]]) -> None:
    world = make_world()
    desk = Desk(world)
    desk.publish(1, capability("ann", ANN))
    documents = [desk.signed(ANN, policy(n), ago_ms=-n) for n in range(3)]
    for by, what in story:
        desk.publish(by, None if what == 4 else policy(9) if what == 3 else documents[what])
    other = Desk(world)
    shuffled = list(desk.written)
    random.Random(seed).shuffle(shuffled)
    for record in shuffled:
        other.journal.merge([record], desk.now_ms)
    assert other.shown() == desk.shown()


def test_a_signed_document_is_what_it_was_but_for_its_annotation(desk: Desk) -> None:
    for document in (policy(), policy(annotations={"a": "b"}, labels={"c": "d"})):
        made = desk.signed(ANN, document)
        assert without_claim(made) == document
        assert desk.signed(ANN, made) == made  # signing again takes the old signature's place
    assert Draft(kind=POLICY, key=KEY, payload=encode_policy(made)).payload


@given(st.text(max_size=200) | st.from_regex(r"[0-9a-f]{64}\.[0-9]{1,15}\.[A-Za-z0-9_-]{86}", fullmatch=True))
def test_a_claim_is_read_exactly_or_refused(text: str) -> None:
    try:
        claim = read_claim(text)
    except PayloadError:
        return
    assert isinstance(claim, Claim)
    assert claim.text == text
