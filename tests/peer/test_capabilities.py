"""Rights over time: what closes a namespace for good, what is looked at anew on a change, and what is remembered."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.grants import read_grant
from peer.records import CLOSURE
from tests.peer.realm import ALL, EVERYBODY, GOVERNOR, SECOND, Realm, document, node, realm
from trust.identity import format_id

__all__ = ["realm"]  # a fixture


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


# ------------------------------------------------------------------ bounds


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
