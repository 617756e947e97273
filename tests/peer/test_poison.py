"""Policies with a valid signature and a bad effect: whatever a member publishes, it costs itself at most.

Each goes through what a peer does with a replicated document: decode the payload, read it, compile it beside a good
policy, and make the snapshot ready as a worker does.
"""

import math
import time
from typing import Any

import pytest

from crdt.codec import pack
from peer.catalog import PolicyEntry, PolicyVersion
from peer.compile import Compiled, compile_snapshot
from peer.records import PAYLOAD_BYTES_MAX, POLICY, PayloadError, decode_policy, encode_policy
from proxy.authorize import RequestFacts, compile_authorization
from proxy.embedded.compiled import Inbound, Target
from proxy.resources import parse_documents
from proxy.snapshot import decode_snapshot, encode_snapshot
from tests.peer.meshview import OTHER, authz, entry, instance, route, view

GOOD = route("good", "cart", {"name": "cart"}, matches=[{"path": {"value": "/good"}}])
SECONDS_MAX = 3.0  # on a busy machine; a tenth of it alone


def served(*poison: PolicyEntry) -> Compiled:
    """Compiled beside GOOD, sent to a worker and made ready there."""
    services = (instance("cart"), instance("shop", OTHER))
    begun = time.perf_counter()
    found = compile_snapshot(view(*services, GOOD, *poison), version=1)
    snapshot = decode_snapshot(encode_snapshot(found.snapshot))
    for destination in snapshot.destinations:
        Target(destination)
    for inbound in snapshot.inbound:
        Inbound(inbound)
    assert time.perf_counter() - begun < SECONDS_MAX
    assert found.statuses["HTTPRoute/default/good"].accepted
    [cart] = [each for each in snapshot.destinations if each.service == "cart"]
    assert "HTTPRoute/default/good/0" in [rule.name for rule in cart.rules]
    assert found.faults == {}
    return found


def reason(found: Compiled, key: str) -> str:
    return found.statuses[key].reason


def document(policy: PolicyEntry) -> dict[str, Any]:
    return dict(policy.versions[0].resource)


def test_deny_all_is_legitimate() -> None:
    lock = authz("lock", {}, action="DENY")
    found = served(lock)
    assert found.statuses["AuthorizationPolicy/default/lock"].accepted
    [cart] = [each for each in found.snapshot.inbound if each.sni == "cart.default.mesh"]
    assert not compile_authorization(cart.authorization).decide(RequestFacts()).allowed


def test_ten_thousand_rules_are_too_many() -> None:
    rules = [{"from": [{"source": {"principals": [f"p{n}"]}}]} for n in range(10_000)]
    assert reason(served(authz("big", *rules)), "AuthorizationPolicy/default/big") == "Invalid"


def test_as_many_rules_as_are_allowed_apply() -> None:
    rules = [{"from": [{"source": {"principals": [f"p{n}-{m}" for m in range(16)]}}]} for n in range(256)]
    big = authz("big", *rules, action="DENY")
    assert len(encode_policy(document(big))) <= PAYLOAD_BYTES_MAX[POLICY]
    assert served(big).statuses["AuthorizationPolicy/default/big"].accepted


def test_the_largest_payload_is_read_or_refused_in_time() -> None:
    filler = "x" * 1000
    annotations = {f"a{n}": filler for n in range(126)}
    policy = authz("big", {})
    big = document(policy)
    big["metadata"] = big["metadata"] | {"annotations": annotations}
    assert 0.95 * PAYLOAD_BYTES_MAX[POLICY] < len(encode_policy(big)) <= PAYLOAD_BYTES_MAX[POLICY]
    decoded = decode_policy(encode_policy(big))
    replicated = PolicyEntry(
        kind=policy.kind, namespace="default", name="big",
        versions=(PolicyVersion(resource=decoded, writer="w", seq=1, hlc=1),),
    )  # fmt: skip
    assert reason(served(replicated), "AuthorizationPolicy/default/big") in {"", "Invalid"}
    with pytest.raises(PayloadError):
        decode_policy(encode_policy(big | {"more": "x" * PAYLOAD_BYTES_MAX[POLICY]}))


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*b",
        "a{1,1000}" * 4,
        "(" * 500 + ")" * 500,
        ".*" * 400,
        "[a-z]{900}",
        "(?=x)",
        "\\1",
        "(",
    ],
)
def test_a_regular_expression_applies_or_is_refused_and_takes_no_time(pattern: str) -> None:
    bad = route("rx", "cart", matches=[{"path": {"type": "RegularExpression", "value": f"/{pattern}"}}])
    found = served(bad)
    assert reason(found, "HTTPRoute/default/rx") in {"", "Invalid"}
    [cart] = [each for each in found.snapshot.destinations if each.service == "cart"]
    begun = time.perf_counter()
    for rule in cart.rules:
        Target(cart)
        assert rule.name
    assert time.perf_counter() - begun < SECONDS_MAX


def test_routes_in_a_circle_are_one_hop_each() -> None:
    """A route decides once, at the caller: no rule is asked again about a backend, so a circle is no loop."""
    found = served(
        route("self", "cart", {"name": "cart"}),
        route("there", "cart", {"name": "shop"}, matches=[{"path": {"value": "/x"}}]),
        route("back", "shop", {"name": "cart"}),
    )
    assert all(status.accepted for status in found.statuses.values())


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (entry("RateLimit", "r", {"requests": 5}), "UnsupportedKind"),
        (entry("X" * 200, "r", {}), "UnsupportedKind"),
        (entry("TrafficPolicy", "r", {"targetRefs": [{"kind": "Service", "name": "cart"}], "newer": 1}), "Invalid"),
        (entry("TrafficPolicy", "r", {"targetRefs": [{"kind": "Service", "name": "cart"}],
                                      "timeouts": {"request": math.nan}}), "Invalid"),
        (entry("TrafficPolicy", "r", {"targetRefs": [{"kind": "Service", "name": "cart"}],
                                      "timeouts": {"request": math.inf}}), "Invalid"),
        (entry("HTTPRoute", "r", {"parentRefs": [{"kind": "Service", "name": "cart", "port": 80.5}]}), "Invalid"),
        (route("r", "cart", {"name": "cart", "weight": 2**70}), "Invalid"),
    ],
)  # fmt: skip
def test_what_this_version_cannot_mean_is_set_aside(policy: PolicyEntry, wanted: str) -> None:
    found = served(policy)
    assert reason(found, f"{policy.kind}/default/r") == wanted


def test_no_record_holds_a_fraction() -> None:
    for number in (0.5, math.nan, math.inf):
        with pytest.raises(PayloadError):
            encode_policy({"kind": "TrafficPolicy", "spec": {"x": number}})
    with pytest.raises(PayloadError):
        decode_policy(b"\x82\xa4kind\xa1T\xa4spec\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00")


def test_no_record_is_nested_deeply() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(PayloadError):
        encode_policy({"kind": "T", "spec": deep})
    nested = b"\x82\xa4kind\xa1T\xa4spec" + b"\x91" * 100_000 + b"\x01"
    with pytest.raises(PayloadError):
        decode_policy(nested)
    with pytest.raises(PayloadError):
        decode_policy(pack({"kind": "T", "spec": [[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]}))


def test_a_deep_document_that_came_another_way_is_set_aside() -> None:
    deep: Any = {"x": 1}
    for _ in range(900):
        deep = {"x": deep}
    assert reason(served(entry("TrafficPolicy", "r", deep)), "TrafficPolicy/default/r") == "Invalid"


def test_what_apply_refuses_it_refuses_in_time() -> None:
    begun = time.perf_counter()
    for policy in (
        authz("big", *[{}] * 10_000),
        entry("TrafficPolicy", "r", {"timeouts": {"request": math.nan}}),
    ):
        with pytest.raises(ValueError, match=r"."):
            parse_documents([document(policy)], "test")
    assert time.perf_counter() - begun < SECONDS_MAX
