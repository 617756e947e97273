"""Rights: who may publish what follows from the records alone, never exceeds what the granter has, and goes with it."""

from typing import Any

import pytest

from crdt.register import context_for
from peer.grants import read_grant
from peer.records import POLICY, encode_policy
from peer.rights import CAPABILITIES_PER_DELEGATE_MAX, Reason
from tests.peer.realm import ALL, EVERYBODY, GOVERNOR, SECOND, START_MS, Realm, document, node, realm
from trust.identity import format_id

__all__ = ["realm"]  # a fixture


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
