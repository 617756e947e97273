"""Rights: who may publish what follows from the records alone, never exceeds what the granter has, and goes with it."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.delta import Delta
from crdt.journal import Journal
from crdt.record import Record
from crdt.register import context_for, versions
from peer.capabilities import Capabilities
from peer.fold import Folder
from peer.grants import NOTHING, agreed, read_grant
from peer.records import CLOSURE, POLICY, Registry, encode_policy
from peer.rights import CAPABILITIES_PER_DELEGATE_MAX, Reason, overruled
from trust.identity import NodeIdentity, format_id
from trust.revocation import revoke_self

START_MS = 1_800_000_000_000
GOVERNOR, SECOND = 1, 2  # the numbers of who governs in these tests; all others are plain members
ALL = "*"


def node(number: int) -> bytes:
    return NodeIdentity.from_seed(bytes([number]) * 32).id


def document(
    name: str,
    to: Iterable[int | str],
    namespaces: Iterable[str],
    kinds: Iterable[str] = (ALL,),
    delegate: bool = False,
) -> dict[str, Any]:
    subjects = [{"node": each if isinstance(each, str) else format_id(node(each))} for each in to]
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "Capability",
        "metadata": {"name": name, "namespace": "gossamer-system"},
        "spec": {
            "subjects": subjects, "namespaces": list(namespaces), "kinds": list(kinds), "delegate": delegate,
        },
    }  # fmt: skip


class Realm:
    """Members who write what they like, and one reader who judges it."""

    def __init__(self, world: Any, members: int = 8) -> None:
        self.world = world
        self.registry: Registry = world.mesh.registry()
        self.people: dict[int, NodeIdentity] = {}
        for number in range(1, members + 1):
            identity, credential = world.mesh.member(number, govern=number in (GOVERNOR, SECOND))
            self.people[number] = identity
            assert self.registry.introduce(identity.id, credential.encode()) == ""
        self.journal = Journal(verify=self.registry.judge)
        self.capabilities = Capabilities(self.journal, self.registry)
        self.written: list[Record] = []
        self._ms = START_MS

    def write(
        self, by: int, key: str, payload: bytes, *, kind: str = POLICY, seen: Iterable[Record] | None = None
    ) -> Record:
        """Write it, entitled or not, having `seen` these records of the key (None: all)."""
        self._ms += 2_000
        identity = self.people[by]
        others = [each for each in self.journal.records(kind) if each.key == key] if seen is None else seen
        record = self.journal.draft(
            writer=identity.id, kind=kind, key=key, payload=payload, context=context_for(others, identity.id),
            now_ms=self._ms, sign=identity.sign,
        )  # fmt: skip
        assert self.journal.merge([record], self._ms).accepted
        self.written.append(record)
        return record

    def grant(
        self, by: int, name: str, to: Iterable[int | str], namespaces: Iterable[str], kinds: Iterable[str] = (ALL,),
        delegate: bool = False, *, seen: Iterable[Record] | None = None,
    ) -> Record:  # fmt: skip
        payload = encode_policy(document(name, to, namespaces, kinds, delegate))
        return self.write(by, f"Capability/gossamer-system/{name}", payload, seen=seen)

    def withdraw(self, by: int, name: str) -> Record:
        return self.write(by, f"Capability/gossamer-system/{name}", b"")

    def close(self, by: int, namespace: str) -> Record:
        return self.write(by, namespace, b"\x01", kind=CLOSURE)

    def policy(
        self, by: int, namespace: str = "shop", kind: str = "TrafficPolicy", name: str = "one"
    ) -> Record:
        spec = {"targetRefs": [{"kind": "Service", "name": "a"}], "timeouts": {"request": f"{by}s"}}
        made = {
            "apiVersion": "gossamer.dev/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }  # fmt: skip
        return self.write(by, f"{kind}/{namespace}/{name}", encode_policy(made))

    def revoke(self, number: int) -> None:
        self.registry.revocations.add(
            revoke_self(self.people[number], "cluster.local", reason="lost", now=START_MS // 1000)
        )

    def may(self, number: int, namespace: str = "shop", kind: str = "TrafficPolicy") -> bool:
        return self.capabilities.rights().may_write(node(number), namespace, kind)

    def who_may(self, namespace: str = "shop", kind: str = "TrafficPolicy") -> set[int]:
        return {number for number in self.people if self.may(number, namespace, kind)}

    def reason(self, record: Record) -> Reason | None:
        refusal = self.capabilities.rights().objection(record)
        return None if refusal is None else refusal.reason

    def shown(self, kind: str = "Capability") -> dict[str, list[str]]:
        """What `gossamer get` would list: name -> authors of its versions."""
        entries = Folder(self.journal, self.registry).policies()
        return {
            each.name: [version.writer for version in each.versions] for each in entries if each.kind == kind
        }


@pytest.fixture
def realm(world: Any) -> Realm:
    return Realm(world)


EVERYBODY = {1, 2, 3, 4, 5, 6, 7, 8}


# ------------------------------------------------------------------ closing


def test_in_a_new_mesh_everybody_may_publish(realm: Realm) -> None:
    assert realm.who_may() == EVERYBODY
    assert realm.reason(realm.policy(3)) is None


def test_the_first_capability_closes_its_namespace_to_those_it_names_and_no_other(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3], ["shop"], ["TrafficPolicy"])
    assert realm.who_may() == {GOVERNOR, SECOND, 3}
    assert realm.who_may(kind="HTTPRoute") == {GOVERNOR, SECOND}
    assert realm.who_may("shop-2") == EVERYBODY


def test_a_capability_for_every_namespace_closes_those_nobody_has_named(realm: Realm) -> None:
    realm.grant(GOVERNOR, "all", [3], [ALL])
    assert realm.who_may("never-heard-of") == {GOVERNOR, SECOND, 3}


def test_one_without_subjects_leaves_it_to_the_governors(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [], ["shop"])
    assert realm.who_may() == {GOVERNOR, SECOND}


def test_one_for_every_node_opens_what_was_closed_but_grants_nothing_to_delegate(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3], ["shop"])
    realm.grant(SECOND, "open", [ALL], ["shop"], ["TrafficPolicy"])
    assert realm.who_may() == EVERYBODY
    assert realm.who_may(kind="HTTPRoute") == {GOVERNOR, SECOND, 3}
    assert not realm.capabilities.rights().may_delegate(node(4), "shop", "TrafficPolicy")


def test_what_a_governors_peer_closed_stays_closed_without_any_capability(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3], ["shop"])
    realm.close(GOVERNOR, "shop")
    realm.withdraw(SECOND, "shop")
    assert realm.who_may() == {GOVERNOR, SECOND}
    realm.revoke(GOVERNOR)
    assert realm.who_may() == {SECOND}


def test_a_revoked_governors_capability_grants_nothing_and_still_closes(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3], ["shop"])
    realm.revoke(GOVERNOR)
    assert realm.who_may() == {SECOND}


@pytest.mark.parametrize("namespace", ["shop", ALL])
def test_only_governors_close(realm: Realm, namespace: str) -> None:
    record = realm.close(3, namespace)
    assert "does not govern" in realm.registry.objection(record)
    assert realm.who_may() == EVERYBODY


def test_a_closure_is_not_taken_back(realm: Realm) -> None:
    realm.close(GOVERNOR, "shop")
    record = realm.write(GOVERNOR, "shop", b"", kind=CLOSURE)
    assert "not taken back" in realm.capabilities.refusal(record)
    assert realm.who_may() == {GOVERNOR, SECOND}


def test_a_governors_peer_writes_closures_once_and_nobody_elses_does(realm: Realm) -> None:
    from proxy.resources import parse_resource

    resources = [
        parse_resource(document("a", [3], ["shop", "web"])),
        parse_resource(document("b", [3], [ALL])),
    ]
    drafts = realm.capabilities.closing(node(GOVERNOR), resources)
    assert [(draft.kind, draft.key) for draft in drafts] == [
        (CLOSURE, ALL),
        (CLOSURE, "shop"),
        (CLOSURE, "web"),
    ]
    realm.close(SECOND, "shop")
    realm.close(3, "web")  # is no governor's word
    assert [each.key for each in realm.capabilities.closing(node(GOVERNOR), resources)] == [ALL, "web"]
    assert realm.capabilities.closing(node(3), resources) == []


# ------------------------------------------------------------------ granting and delegating


def test_a_member_without_rights_grants_nothing_closes_nothing_and_is_named(realm: Realm) -> None:
    record = realm.grant(3, "mine", [3, 4], [ALL], delegate=True)
    assert realm.reason(record) is Reason.NOT_A_DELEGATE
    assert realm.who_may() == EVERYBODY
    realm.grant(GOVERNOR, "shop", [5], ["shop"])
    assert realm.who_may() == {GOVERNOR, SECOND, 5}
    assert realm.shown() == {"shop": [format_id(node(GOVERNOR))]}


def test_a_right_to_write_is_no_right_to_grant(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3], ["shop"])
    record = realm.grant(3, "friend", [4], ["shop"])
    assert realm.reason(record) is Reason.NOT_A_DELEGATE
    assert realm.who_may() == {GOVERNOR, SECOND, 3}


def test_a_delegate_grants_what_it_may_and_nothing_beyond(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3], ["shop"], ["TrafficPolicy"], delegate=True)
    realm.close(GOVERNOR, "web")
    record = realm.grant(3, "friends", [4], [ALL], [ALL], delegate=True)
    assert realm.reason(record) is None
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 4}
    assert realm.who_may(kind="HTTPRoute") == {GOVERNOR, SECOND}
    assert realm.who_may("web") == {GOVERNOR, SECOND}
    assert realm.reason(realm.grant(4, "further", [5], ["shop"], ["TrafficPolicy"])) is None
    assert 5 in realm.who_may()


def test_taking_a_right_from_a_delegate_takes_along_what_it_granted(realm: Realm) -> None:
    realm.grant(GOVERNOR, "three", [3], ["shop"], delegate=True)
    realm.grant(3, "four", [4], ["shop"], delegate=True)
    realm.grant(4, "five", [5, 6], ["shop"])
    realm.grant(GOVERNOR, "six", [6], ["shop"])
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 4, 5, 6}
    realm.grant(GOVERNOR, "three", [3], ["shop"], ["HTTPRoute"], delegate=True)  # narrowed
    assert realm.who_may() == {GOVERNOR, SECOND, 6}
    assert realm.who_may(kind="HTTPRoute") == {GOVERNOR, SECOND, 3, 4, 5, 6}
    realm.withdraw(SECOND, "three")
    assert realm.who_may(kind="HTTPRoute") == {GOVERNOR, SECOND, 6}


def test_grants_in_a_ring_hold_one_another_up_only_while_a_governor_holds_one(realm: Realm) -> None:
    realm.grant(GOVERNOR, "start", [3], ["shop"], delegate=True)
    for by in (3, 4, 5):
        realm.grant(by, f"by-{by}", [3 if by == 5 else by + 1], ["shop"], delegate=True)
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 4, 5}
    realm.withdraw(GOVERNOR, "start")
    realm.close(GOVERNOR, "shop")
    assert realm.who_may() == {GOVERNOR, SECOND}


def test_a_revoked_nodes_grants_and_policies_go(realm: Realm) -> None:
    realm.grant(GOVERNOR, "three", [3], ["shop"], delegate=True)
    realm.grant(3, "four", [4], ["shop"])
    mine, its = realm.policy(3, name="mine"), realm.policy(4, name="its")
    realm.revoke(3)
    assert realm.who_may() == {GOVERNOR, SECOND, 3}  # a right that is of no use: nothing it writes is obeyed
    assert realm.reason(mine) is Reason.REVOKED
    assert realm.reason(its) is Reason.NAMESPACE_CLOSED


def test_what_a_revoked_node_wrote_does_not_come_back_when_its_revocation_expires(realm: Realm) -> None:
    realm.grant(GOVERNOR, "three", [3], ["shop"], delegate=True)
    realm.grant(3, "four", [4], ["shop"])
    record = realm.policy(3)
    realm.revoke(3)
    assert realm.registry.revocations.prune(START_MS) == 1
    assert realm.reason(record) is Reason.REVOKED
    assert realm.who_may() == {GOVERNOR, SECOND, 3}


def test_a_token_that_withheld_publishing_is_not_overruled(realm: Realm) -> None:
    identity, credential = realm.world.mesh.member(9, publish=False, govern=False)
    realm.people[9] = identity
    assert realm.registry.introduce(identity.id, credential.encode()) == ""
    realm.grant(GOVERNOR, "nine", [9], [ALL], delegate=True)
    assert realm.reason(realm.policy(9)) is Reason.WITHHELD
    assert realm.reason(realm.grant(9, "ten", [4], ["shop"])) is Reason.WITHHELD
    assert realm.who_may() == {GOVERNOR, SECOND, 9}


# ------------------------------------------------------------------ policies under rights


def test_a_policy_is_judged_when_it_is_read_and_what_it_replaced_is_back(realm: Realm) -> None:
    key = "TrafficPolicy/shop/one"
    realm.grant(GOVERNOR, "shop", [3, 4], ["shop"])
    first, second = realm.policy(3), realm.policy(4)
    assert realm.shown("TrafficPolicy") == {"one": [format_id(node(4))]}
    realm.grant(GOVERNOR, "shop", [3], ["shop"])
    assert realm.reason(second) is Reason.NAMESPACE_CLOSED
    assert realm.shown("TrafficPolicy") == {"one": [format_id(node(3))]}
    gone = realm.write(4, key, b"")  # nor does it delete any more
    assert realm.reason(gone) is Reason.NAMESPACE_CLOSED
    assert realm.shown("TrafficPolicy") == {"one": [format_id(node(3))]}
    realm.grant(GOVERNOR, "shop", [4], ["shop"])
    assert realm.reason(first) is Reason.NAMESPACE_CLOSED
    assert realm.shown("TrafficPolicy") == {}


@pytest.mark.parametrize("namespace", ["Shop", "SHOP", "shop.", "ｓhop", "", "sh op"])
def test_a_namespace_in_other_letters_is_none(realm: Realm, namespace: str) -> None:
    realm.grant(GOVERNOR, "shop", [], ["shop"])
    assert realm.reason(realm.policy(3, namespace)) is Reason.MALFORMED


def test_a_kind_in_other_letters_is_another_kind(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3], ["shop"], ["TrafficPolicy"])
    assert realm.reason(realm.policy(3, kind="trafficpolicy")) is Reason.NAMESPACE_CLOSED


@pytest.mark.parametrize("key", ["capability/gossamer-system/x", "Capability/shop/x", "Capability//x"])
def test_what_only_looks_like_a_capability_grants_nothing(realm: Realm, key: str) -> None:
    kind, namespace, name = key.split("/")
    made = document(name, [3], ["shop"]) | {"kind": kind, "metadata": {"name": name, "namespace": namespace}}
    for by in (GOVERNOR, 3):
        realm.write(by, key, encode_policy(made))
    realm.close(GOVERNOR, "shop")
    assert realm.who_may() == {GOVERNOR, SECOND}


# ------------------------------------------------------------------ editing


def test_concurrent_versions_of_governors_grant_what_all_of_them_grant(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3, 4], ["shop", "web"], ["TrafficPolicy"], delegate=True)
    realm.grant(SECOND, "shop", [4, 5], ["shop"], [ALL], seen=[])
    assert realm.who_may() == {GOVERNOR, SECOND, 4}
    assert realm.who_may("web") == {GOVERNOR, SECOND}
    assert not realm.capabilities.rights().may_delegate(node(4), "shop", "TrafficPolicy")
    assert len(realm.shown()["shop"]) == 2
    realm.grant(SECOND, "shop", [5], ["shop"])  # settled by the next edit
    assert realm.who_may() == {GOVERNOR, SECOND, 5}


def test_of_concurrent_versions_one_that_cannot_be_read_grants_nothing(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3], ["shop"])
    later = document("shop", [3], ["shop"]) | {"spec": {"of": "a later version"}}
    realm.write(SECOND, "Capability/gossamer-system/shop", encode_policy(later), seen=[])
    assert realm.who_may() == {GOVERNOR, SECOND}


def test_a_concurrent_version_for_every_node_grants_what_the_other_does(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [ALL], ["shop"])
    realm.grant(SECOND, "shop", [3], ["shop"], seen=[])
    assert realm.who_may() == {GOVERNOR, SECOND, 3}


def test_a_delegate_neither_changes_nor_deletes_nor_restricts_a_governors(realm: Realm) -> None:
    realm.grant(GOVERNOR, "shop", [3, 4], ["shop"], delegate=True)
    before = realm.shown()
    for seen in (None, []):
        record = realm.grant(3, "shop", [5], ["shop"], seen=seen)
        assert realm.reason(record) is Reason.OVERRULED
        assert realm.reason(realm.withdraw(3, "shop")) is Reason.OVERRULED
        assert realm.who_may() == {GOVERNOR, SECOND, 3, 4}
        assert realm.shown() == before


def test_a_governor_changes_and_deletes_a_delegates(realm: Realm) -> None:
    realm.grant(GOVERNOR, "root", [3], ["shop"], delegate=True)
    old = realm.grant(3, "mine", [4], ["shop"])
    realm.withdraw(SECOND, "mine")
    assert realm.reason(old) is Reason.OVERRULED
    assert realm.who_may() == {GOVERNOR, SECOND, 3}
    realm.grant(3, "mine", [5], ["shop"])  # it may begin anew: nobody forbade that
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 5}
    realm.grant(GOVERNOR, "mine", [6], ["shop"])
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 6}
    assert realm.shown()["mine"] == [format_id(node(GOVERNOR))]


def test_delegates_of_one_name_do_not_stand_in_each_others_way(realm: Realm) -> None:
    realm.grant(GOVERNOR, "root", [3, 4], ["shop"], delegate=True)
    realm.grant(3, "mine", [5], ["shop"])
    realm.grant(4, "mine", [6], ["shop"])  # and it has seen the other's
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 4, 5, 6}
    assert set(realm.shown()["mine"]) == {format_id(node(3)), format_id(node(4))}
    realm.withdraw(4, "mine")
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 4, 5}
    assert realm.shown()["mine"] == [format_id(node(3))]


# ------------------------------------------------------------------ at the author's own peer


@pytest.mark.parametrize(
    ("by", "to", "namespaces", "kinds", "words"),
    [
        (GOVERNOR, [3], [ALL], [ALL], ""),
        (3, [4], ["shop"], ["HTTPRoute"], ""),
        (3, [4], ["shop", "web"], ["HTTPRoute"], "node-3 may not delegate HTTPRoute in namespace web"),
        (3, [4], ["shop"], [ALL], "node-3 may not delegate every kind in namespace shop"),
        (3, [4], [ALL], ["HTTPRoute"], "node-3 may not delegate HTTPRoute in every namespace"),
        (4, [4], ["shop"], ["HTTPRoute"], "node-4 may not delegate"),
    ],
)
def test_who_would_grant_too_much_is_told_what(
    realm: Realm, by: int, to: list[int], namespaces: list[str], kinds: list[str], words: str
) -> None:
    realm.grant(GOVERNOR, "three", [3], ["shop"], ["HTTPRoute"], delegate=True)
    found = refusal(realm, by, "new", encode_policy(document("new", to, namespaces, kinds)))
    assert found.startswith(words) if words else not found


def refusal(realm: Realm, by: int, name: str, payload: bytes) -> str:
    """What the author of a draft, which has seen everything, is told."""
    key = f"Capability/gossamer-system/{name}"
    seen = [each for each in realm.journal.records(POLICY) if each.key == key]
    identity = realm.people[by]
    return realm.capabilities.refusal(
        realm.journal.draft(
            writer=identity.id, kind=POLICY, key=key, payload=payload, context=context_for(seen, identity.id),
            now_ms=START_MS + 1_000, sign=identity.sign,
        )
    )  # fmt: skip


def test_who_would_change_anothers_capability_is_told_whose_it_is(realm: Realm) -> None:
    realm.grant(GOVERNOR, "root", [3, 4], ["shop"], delegate=True)
    realm.grant(3, "mine", [5], ["shop"])
    other = encode_policy(document("mine", [6], ["shop"]))
    for payload in (other, b""):
        assert "is that of node-3: only its author" in refusal(realm, 4, "mine", payload)
        assert refusal(realm, 3, "mine", payload) == ""
        assert refusal(realm, SECOND, "mine", payload) == ""
    assert "is that of node-1: only its author" in refusal(realm, 3, "root", b"")


def test_an_edit_is_judged_by_what_it_says_and_not_by_what_it_replaces(realm: Realm) -> None:
    realm.grant(GOVERNOR, "root", [3], ["shop"], delegate=True)
    realm.grant(3, "mine", [5], ["shop"])
    assert "may not delegate" in refusal(realm, 3, "mine", encode_policy(document("mine", [5], ["web"])))
    assert "may not delegate" in refusal(realm, 3, "mine", encode_policy(document("mine", [5], [ALL])))


# ------------------------------------------------------------------ bounds


def test_only_so_many_capabilities_of_one_delegate_count_the_same_ones_everywhere(
    realm: Realm, monkeypatch: Any
) -> None:
    monkeypatch.setattr("peer.rights.CAPABILITIES_PER_DELEGATE_MAX", 2)
    realm.grant(GOVERNOR, "root", [3], ["shop"], delegate=True)
    records = {name: realm.grant(3, name, [to], ["shop"]) for name, to in (("c", 7), ("b", 6), ("a", 5))}
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 5, 6}
    assert {name: realm.reason(each) for name, each in records.items()} == {
        "a": None, "b": None, "c": Reason.TOO_MANY,
    }  # fmt: skip
    assert "as many as count" in refusal(realm, 3, "d", encode_policy(document("d", [8], ["shop"])))
    realm.withdraw(3, "a")
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 6, 7}
    assert CAPABILITIES_PER_DELEGATE_MAX >= 2


@pytest.mark.parametrize(
    "spec",
    [
        {"subjects": [{"node": ALL}] * 257, "namespaces": ["shop"], "kinds": [ALL]},
        {"subjects": [], "namespaces": [f"n{n}" for n in range(65)], "kinds": [ALL]},
        {"subjects": [], "namespaces": ["shop"], "kinds": [f"K{n}" for n in range(17)]},
    ],
)
def test_one_that_names_too_much_is_not_read(realm: Realm, spec: dict[str, Any]) -> None:
    record = realm.write(
        GOVERNOR,
        "Capability/gossamer-system/big",
        encode_policy(document("big", [], ["shop"]) | {"spec": spec}),
    )
    assert read_grant(record) is None


def test_what_those_without_rights_write_is_not_even_read(realm: Realm, monkeypatch: Any) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(
        "peer.capabilities.read_grant", lambda record: (read.append(record.writer), read_grant(record))[1]
    )
    for number in range(20):
        realm.grant(5, f"junk-{number}", [5, 6], [ALL], delegate=True)
    realm.grant(GOVERNOR, "root", [3], ["shop"], delegate=True)
    realm.grant(3, "mine", [4], ["shop"])
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 4}
    assert set(read) == {node(GOVERNOR), node(3)}


def test_answers_are_remembered_up_to_a_bound(realm: Realm, monkeypatch: Any) -> None:
    monkeypatch.setattr("peer.grants.ANSWERS_MAX", 2)
    realm.grant(GOVERNOR, "root", [3], ["a", "b", "c", "d"])
    rights = realm.capabilities.rights()
    for namespace in ("a", "b", "c", "d", "a"):
        assert rights.may_write(node(3), namespace, "HTTPRoute")
    assert len(rights._grants._answers) <= 2


def test_rights_are_the_same_object_while_nothing_they_follow_from_changes(realm: Realm) -> None:
    realm.grant(GOVERNOR, "root", [3], ["shop"])
    rights = realm.capabilities.rights()
    realm.policy(3)
    assert realm.capabilities.rights() is rights
    realm.revoke(GOVERNOR)
    assert realm.capabilities.rights() is not rights


@given(st.binary(max_size=200))
def test_bytes_that_are_no_capability_grant_nothing(make_world: Any, data: bytes) -> None:
    realm = Realm(make_world(), 2)
    record = realm.write(GOVERNOR, "Capability/gossamer-system/x", data or b"\xc0")
    assert read_grant(record) is None
    assert realm.who_may() == {GOVERNOR, SECOND}


# ------------------------------------------------------------------ properties

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


def test_a_delegate_that_is_made_a_governor_later_overrules_by_the_same_records(realm: Realm) -> None:
    """Credentials are part of what rights follow from."""
    realm.grant(GOVERNOR, "root", [3], ["shop"])
    realm.grant(3, "root", [4], ["shop"])
    assert realm.who_may() == {GOVERNOR, SECOND, 3}
    identity, credential = realm.world.mesh.member(3)
    newer = replace(credential, govern=True, issued_at=credential.issued_at + 1)
    newer = newer.signed(realm.world.mesh.authority.sign(newer.signing_bytes()))
    assert realm.registry.introduce(identity.id, newer.encode()) == ""
    assert realm.who_may() == {GOVERNOR, SECOND, 3, 4}
    assert realm.shown() == {"root": [format_id(node(3))]}
