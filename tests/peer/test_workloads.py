"""Which policies hold for which process, and what unsettled edits come to."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.catalog import PolicyEntry, ServiceInstance
from peer.policies import Reader
from peer.workloads import Workload, authorization, selects, workloads
from proxy.authorize import RequestFacts, compile_authorization
from proxy.resources import parse_resource
from proxy.snapshot import Authorization
from tests.peer.meshview import authz, entry, instance

FROM_A, FROM_B = (
    {"from": [{"source": {"principals": [f"cluster.local/ns/default/sa/{each}"]}}]} for each in "ab"
)
LABELS = (("app", "cart"), ("version", "v1"))


def groups(*instances: ServiceInstance) -> list[list[str]]:
    return [[each.name for each in workload.services] for workload in workloads(instances)]


def test_services_with_one_address_and_target_are_one_workload() -> None:
    assert groups(instance("a"), instance("b", on=["81:8080"]), instance("c", on=[9000])) == [
        ["a", "b"],
        ["c"],
    ]
    assert groups(instance("a"), instance("b", address="127.0.0.2")) == [["a"], ["b"]]


def test_services_joined_by_a_chain_are_one_workload_in_whatever_order() -> None:
    chain = [instance("a", on=["80:1"]), instance("b", on=["80:2"]), instance("c", on=["80:1", "81:2"])]
    assert groups(*chain) == [["a", "b", "c"]]
    assert sorted(groups(*chain[::-1])[0]) == ["a", "b", "c"]


def decided(entries: list[PolicyEntry], workload: Workload, caller: str = "a", **options: bool) -> bool:
    return compile_authorization(combined(entries, workload, **options)).decide(request(caller)).allowed


def combined(entries: list[PolicyEntry], workload: Workload, *, default_deny: bool = False) -> Authorization:
    return authorization(
        Reader().read(entries), workload, trust_domain="cluster.local", default_deny=default_deny
    )


def request(caller: str) -> RequestFacts:
    return RequestFacts(principal=f"spiffe://cluster.local/ns/default/sa/{caller}", method="GET", path="/")


CART = Workload(services=(instance("cart"), instance("cart-v1", on=["81:8080"], labels=LABELS)))
SHOP = Workload(services=(instance("shop/web"),))


@pytest.mark.parametrize(
    ("name", "spec", "cart", "shop"),
    [
        ("p", {}, True, False),
        ("shop/p", {}, False, True),
        ("gossamer-system/p", {}, True, True),
        ("p", {"selector": {"matchLabels": {"app": "cart"}}}, True, False),
        ("p", {"selector": {"matchLabels": {"app": "cart", "version": "v2"}}}, False, False),
        ("shop/p", {"selector": {"matchLabels": {"app": "cart"}}}, False, False),
        ("gossamer-system/p", {"selector": {"matchLabels": {"app": "cart"}}}, True, False),
        ("p", {"targetRefs": [{"kind": "Service", "name": "cart-v1"}]}, True, False),
        (
            "p",
            {"targetRefs": [{"kind": "Service", "name": "x"}, {"kind": "Service", "name": "cart"}]},
            True,
            False,
        ),
        ("shop/p", {"targetRefs": [{"kind": "Service", "name": "cart"}]}, False, False),
        ("gossamer-system/p", {"targetRefs": [{"kind": "Service", "name": "cart"}]}, False, False),
    ],
)
def test_selection(name: str, spec: dict[str, Any], cart: bool, shop: bool) -> None:
    resource = parse_resource(authz(name, **spec).versions[0].resource)
    assert (selects(resource, CART), selects(resource, SHOP)) == (cart, shop)


def test_labels_are_gathered_over_all_services_of_a_workload() -> None:
    spread = Workload(
        services=(instance("a", labels=(("app", "x"),)), instance("b", labels=(("app", "y"), ("tier", "z"))))
    )
    policy = authz("p", selector={"matchLabels": {"app": "x", "tier": "z"}})
    assert selects(parse_resource(policy.versions[0].resource), spread)


def test_a_policy_of_one_name_protects_the_process_under_every_name() -> None:
    deny = authz("p", FROM_A, action="DENY", targetRefs=[{"kind": "Service", "name": "cart-v1"}])
    [workload] = workloads(CART.services)
    assert not decided([deny], workload, "a")
    assert decided([deny], workload, "b")


def test_policies_are_in_order_of_name_and_dry_runs_apart() -> None:
    found = combined(
        [
            authz("z", FROM_A),
            authz("b", FROM_A),
            entry(
                "AuthorizationPolicy", "dry", {"rules": [FROM_A]}, annotations={"istio.io/dry-run": "true"}
            ),
        ],
        CART,
    )
    assert [(each.name, each.dry_run) for each in found.allow] == [
        ("default/b", False),
        ("default/z", False),
        ("default/dry", True),
    ]


def test_a_dry_run_alone_leaves_the_default() -> None:
    dry = entry("AuthorizationPolicy", "dry", {}, annotations={"istio.io/dry-run": "true"})
    assert decided([dry], CART)
    assert not decided([dry], CART, default_deny=True)


# ---------------------------------------------------------------- unsettled edits

ALLOW_A = {"rules": [FROM_A]}
ALLOW_B = {"rules": [FROM_B]}
DENY_A = {"action": "DENY", "rules": [FROM_A]}
ELSEWHERE = {"rules": [FROM_A], "selector": {"matchLabels": {"app": "other"}}}


@pytest.mark.parametrize(
    ("versions", "a", "b", "c"),
    [
        ([ALLOW_A, ALLOW_B], False, False, False),
        ([ALLOW_A, {"rules": [FROM_A, FROM_B]}], True, False, False),
        ([DENY_A, {"action": "DENY", "rules": [FROM_B]}], False, False, True),
        ([ALLOW_A, DENY_A], False, False, False),
        ([ALLOW_B, DENY_A], False, True, False),
        ([ALLOW_A, ELSEWHERE], True, False, False),
        ([ELSEWHERE, ALLOW_A], True, False, False),
        ([DENY_A, ELSEWHERE], False, True, True),
        ([ELSEWHERE, ELSEWHERE], True, True, True),
    ],
)
def test_concurrent_edits_come_to_the_most_restrictive_reading(
    versions: list[dict[str, Any]], a: bool, b: bool, c: bool
) -> None:
    edits = [entry("AuthorizationPolicy", "p", *versions)]
    assert [decided(edits, CART, caller) for caller in "abc"] == [a, b, c]


def test_an_edit_that_may_not_be_an_allow_here_opens_nothing_another_keeps_shut() -> None:
    firm = authz("firm", FROM_B)
    unsure = entry("AuthorizationPolicy", "unsure", ALLOW_A, ELSEWHERE)
    assert not decided([firm, unsure], CART, "a")
    assert decided([firm, unsure], CART, "b")
    assert not decided([unsure], CART, "a", default_deny=True)


def test_of_several_unsure_policies_every_one_must_allow() -> None:
    one = entry("AuthorizationPolicy", "one", {"rules": [FROM_A, FROM_B]}, ELSEWHERE)
    two = entry("AuthorizationPolicy", "two", {"rules": [FROM_A]}, ELSEWHERE)
    assert [decided([one, two], CART, caller) for caller in "abc"] == [True, False, False]
    [allow] = combined([one, two], CART).allow
    assert allow.name == "default/one,default/two"


SPECS = st.builds(
    lambda action, rules, here: {
        "action": action,
        "rules": rules,
        **({} if here else {"selector": {"matchLabels": {"app": "other"}}}),
    },
    st.sampled_from(["ALLOW", "DENY"]),
    st.lists(st.sampled_from([FROM_A, FROM_B, {}]), max_size=2),
    st.booleans(),
)


@given(st.lists(st.lists(SPECS, min_size=1, max_size=3), max_size=3), st.booleans())
def test_what_every_reading_allows_and_nothing_else_is_allowed(
    policies: list[list[dict[str, Any]]], default_deny: bool
) -> None:
    """The oracle: try every choice of one version per policy. Stricter than all of them together would break callers
    for no reason, laxer would let one of two authors open what the other closed."""
    edits = [entry("AuthorizationPolicy", f"p{index}", *versions) for index, versions in enumerate(policies)]
    for caller in "abc":
        readings = [
            decided(
                [entry("AuthorizationPolicy", f"p{index}", version) for index, version in enumerate(choice)],
                CART,
                caller,
                default_deny=default_deny,
            )
            for choice in product(*policies)
        ]
        assert decided(edits, CART, caller, default_deny=default_deny) == all(readings)
