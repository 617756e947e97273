"""A policy that restricts access and cannot be obeyed keeps everybody out of what it selects, and of nothing else."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import peer.compile
from peer.catalog import PolicyEntry, PolicyVersion, View
from peer.compile import Compiled, compile_snapshot
from peer.quarantine import REJECTED, Quarantine
from peer.unread import Seal, strictest
from proxy.authorize import RequestFacts, compile_authorization
from proxy.resources.resource import ROOT_NAMESPACE
from tests.peer.meshview import authz, entry, instance, view

CART = instance("cart", labels=(("app", "cart"),))
SHOP = instance("shop", on=("80:8081",), labels=(("app", "shop"),))
ELSEWHERE = instance("away/cart", on=("80:8082",), labels=(("app", "cart"),))
EVERYWHERE = (CART, SHOP, ELSEWHERE)
REFS = [{"kind": "Service", "name": "cart"}]


def open_services(compiled: Compiled) -> set[str]:
    """The services of this host that let a caller in whom no policy names."""
    return {
        f"{each.namespace}/{each.service}"
        for each in compiled.snapshot.inbound
        if compile_authorization(each.authorization, each.protocol).decide(RequestFacts()).allowed
    }


def compiled(*policies: PolicyEntry, **changes: Any) -> Compiled:
    return compile_snapshot(view(*EVERYWHERE, *policies), version=1, **changes)


ALL = {"default/cart", "default/shop", "away/cart"}


@pytest.mark.parametrize(
    ("policy", "left_open"),
    [
        (authz("p", newer=1), {"away/cart"}),
        (authz("p", action="NEWER"), {"away/cart"}),
        (authz("p", newer=1, selector={"matchLabels": {"app": "cart"}}), {"default/shop", "away/cart"}),
        (authz("p", newer=1, targetRefs=REFS), {"default/shop", "away/cart"}),
        (authz("p", newer=1, targetRefs=[{"kind": "Service", "group": "core", "name": "shop"}]),
         {"default/cart", "away/cart"}),
        (authz("away/p", newer=1), {"default/cart", "default/shop"}),
        (authz(f"{ROOT_NAMESPACE}/p", newer=1), set()),
        (authz(f"{ROOT_NAMESPACE}/p", newer=1, selector={"matchLabels": {"app": "cart"}}), {"default/shop"}),
        # A selection that cannot be read is the namespace.
        (authz("p", targetRefs=[{"kind": "Gateway", "name": "cart"}]), {"away/cart"}),
        (authz("p", targetRefs=[*REFS, "cart"]), {"away/cart"}),
        (authz("p", newer=1, targetRefs=[]), {"away/cart"}),
        (authz("p", selector={"matchLabels": {"app": "cart"}, "matchExpressions": []}), {"away/cart"}),
        (authz("p", selector={"matchLabels": {}}), {"away/cart"}),
        (authz("p", selector={"matchLabels": {"app": 1}}), {"away/cart"}),
        (authz("p", selector={"matchLabels": {"app": "cart"}}, targetRefs=REFS), {"away/cart"}),
        # What restricts nobody keeps nobody out.
        (entry("AuthorizationPolicy", "p", {"newer": 1}, annotations={"istio.io/dry-run": "true"}), ALL),
        (entry("HTTPRoute", "p", {"newer": 1}), ALL),
        (entry("RateLimit", "p", {"newer": 1}), ALL),
        (entry("MeshConfig", f"{ROOT_NAMESPACE}/default", {"newer": 1}), ALL),
        (entry("MeshConfig", f"{ROOT_NAMESPACE}/default", {"newer": 1, "defaultAction": "ALLOW"}), ALL),
        (entry("MeshConfig", f"{ROOT_NAMESPACE}/default", {"newer": 1, "defaultAction": "DENY"}), set()),
        (entry("MeshConfig", f"{ROOT_NAMESPACE}/default", {"newer": 1, "default_action": ["?"]}), set()),
        (entry("MeshConfig", f"{ROOT_NAMESPACE}/default", "?"), set()),
        (entry("MeshConfig", f"{ROOT_NAMESPACE}/other", {"newer": 1, "defaultAction": "DENY"}), ALL),
    ],
)  # fmt: skip
def test_what_cannot_be_read_keeps_out_whomever_it_may_mean(policy: PolicyEntry, left_open: set[str]) -> None:
    found = compiled(policy)
    key = f"{policy.kind}/{policy.namespace}/{policy.name}"
    assert not found.statuses[key].accepted
    assert open_services(found) == left_open
    shut = left_open != ALL
    assert found.statuses[key].message.startswith(("nobody is let in", "requests are denied")) == shut


def test_the_decision_names_the_policy() -> None:
    found = compiled(authz("p", newer=1))
    (cart,) = [each for each in found.snapshot.inbound if each.sni == "cart.default.mesh"]
    decision = compile_authorization(cart.authorization).decide(RequestFacts())
    assert (decision.allowed, decision.policy) == (False, "default/p")


def test_a_policy_that_breaks_the_compiler_keeps_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = authz("bad", {"to": [{"operation": {"paths": ["/boom"]}}]}, targetRefs=REFS)
    translate = peer.policies.authorization_rules

    def break_on_boom(spec: Any, trust_domain: str) -> Any:
        if any(each.operation.paths == ("/boom",) for rule in spec.rules for each in rule.to):
            raise ZeroDivisionError("a mistake")
        return translate(spec, trust_domain)

    monkeypatch.setattr(peer.policies, "authorization_rules", break_on_boom)
    found = compiled(bad, authz("good", {}))
    assert found.faults.keys() == {"AuthorizationPolicy/default/bad"}
    assert open_services(found) == ALL - {"default/cart"}


def test_of_concurrent_edits_the_one_that_cannot_be_read_is_a_reading_too() -> None:
    edits = ({"action": "ALLOW", "rules": [{}]}, {"newer": 1, "targetRefs": REFS})
    assert open_services(compiled(entry("AuthorizationPolicy", "p", *edits))) == ALL - {"default/cart"}


def test_what_is_in_quarantine_without_a_version_before_keeps_out() -> None:
    policy = authz("p", {}, targetRefs=REFS)
    quarantine = Quarantine()
    quarantine.hold(policy, REJECTED, "why", instead=None)
    admitted = quarantine.admit([policy])
    found = compile_snapshot(
        replace(view(*EVERYWHERE), policies=admitted), version=1, quarantined=quarantine.absent
    )
    assert open_services(found) == ALL - {"default/cart"}
    (status,) = quarantine.overlay(found.statuses).values()
    assert status.message == "nobody is let in to what it selects: why"


def test_where_a_version_before_is_in_force_that_holds() -> None:
    before = authz("p", {}, targetRefs=REFS)
    after = replace(before, versions=(replace(before.versions[0], seq=2),))
    quarantine = Quarantine()
    quarantine.hold(after, REJECTED, "why", instead=before)
    assert quarantine.admit([after]) == (before,)
    assert quarantine.absent == ()
    (status,) = quarantine.overlay({}).values()
    assert status.message == "why; version w0:1 stays in force"


def test_what_earlier_lives_said_is_not_said_twice() -> None:
    policy = authz("p", {})
    quarantine = Quarantine()
    version = tuple((each.writer, each.seq) for each in policy.versions)
    quarantine.restore(
        "AuthorizationPolicy/default/p", version, "nobody is let in to what it selects: ended workers"
    )
    quarantine.admit([policy])
    (status,) = quarantine.overlay({}).values()
    assert status.message == "nobody is let in to what it selects: ended workers"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "spec",
                    "selector",
                    "matchLabels",
                    "targetRefs",
                    "kind",
                    "name",
                    "metadata",
                    "annotations",
                    "defaultAction",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(document=_JSON, kind=st.sampled_from(["AuthorizationPolicy", "MeshConfig", "HTTPRoute"]))
def test_whatever_a_document_holds_there_is_an_answer(document: Any, kind: str) -> None:
    version = PolicyVersion(resource=document, writer="w", seq=1, hlc=1)
    policy = PolicyEntry(kind=kind, namespace=ROOT_NAMESPACE, name="default", versions=(version,))
    found = strictest(policy, policy.versions)
    assert all(isinstance(each, Seal) and each.namespace == ROOT_NAMESPACE for each in found.seals)
    assert not (kind == "HTTPRoute" and found.words)


def test_a_view_without_anything_is_open() -> None:
    empty: View = view(*EVERYWHERE)
    assert open_services(compile_snapshot(empty, version=1)) == ALL
