"""Reading replicated documents: what cannot be read is set aside with its reason."""

from dataclasses import replace
from typing import Any

import pytest

import peer.policies
from peer.catalog import PolicyEntry, PolicyVersion
from peer.policies import Policy, Reader
from proxy.resources.authorization import AuthorizationPolicySpec
from tests.peer.meshview import authz, entry, route


def read(*entries: PolicyEntry) -> tuple[Policy, ...]:
    return Reader().read(entries)


def with_document(policy: PolicyEntry, document: Any) -> PolicyEntry:
    return replace(policy, versions=(replace(policy.versions[0], resource=document),))


def test_policies_come_in_order_of_key() -> None:
    found = read(route("b", "x"), authz("z"), route("a", "x"))
    assert [each.key for each in found] == [
        "AuthorizationPolicy/default/z",
        "HTTPRoute/default/a",
        "HTTPRoute/default/b",
    ]


@pytest.mark.parametrize(
    ("policy", "reason", "message"),
    [
        (
            entry("HTTPRoute", "r", {"rules": "x"}),
            "Invalid",
            "HTTPRoute default/r: spec.parentRefs: is required",
        ),
        (entry("RateLimit", "r", {}), "UnsupportedKind", "this peer does not know the kind RateLimit"),
        (
            with_document(route("r", "x"), route("other", "x").versions[0].resource),
            "Invalid",
            "is of another policy",
        ),
        (with_document(route("r", "x"), "text"), "Invalid", "must be a mapping, not a string"),
        (with_document(route("r", "x"), {"kind": b"\xff"}), "Invalid", "kind: must be a string"),
        (replace(route("r", "x"), versions=()), "Invalid", "no version is left"),
    ],
)
def test_what_cannot_be_read_says_why(policy: PolicyEntry, reason: str, message: str) -> None:
    [found] = read(policy)
    assert found.versions == ()
    [condition] = found.conditions
    assert (condition.type, condition.status, condition.reason) == ("Accepted", "False", reason)
    assert message in condition.message


def test_of_concurrent_edits_the_first_readable_one_is_effective() -> None:
    [found] = read(
        entry("AuthorizationPolicy", "p", {"action": "NEWER"}, {"action": "DENY"}, {"action": "ALLOW"})
    )
    specs = [each.spec for each in found.versions]
    assert [spec.action for spec in specs if isinstance(spec, AuthorizationPolicySpec)] == ["DENY", "ALLOW"]
    [condition] = found.conditions
    assert (condition.type, condition.status, condition.reason) == ("Conflicted", "True", "ConcurrentEdits")
    assert condition.message.startswith(
        "3 concurrent edits (by w0, w1, w2); the next edit settles them; until then what any of them denies is "
        "denied; set aside: "
    )


GRANT = {"subjects": [{"node": "*"}], "namespaces": ["shop"], "kinds": ["*"]}
LIMIT = {"targetRefs": [{"kind": "Service", "name": "cart"}], "circuitBreaker": {"maxConnections": 1}}


@pytest.mark.parametrize(
    ("kind", "name", "spec", "meanwhile"),
    [
        ("AuthorizationPolicy", "p", {"action": "DENY"}, "what any of them denies is denied"),
        ("TrafficPolicy", "p", LIMIT, "the tightest of their limits hold, and else the latest is in force"),
        ("Capability", "gossamer-system/p", GRANT, "of governors' versions only what all grant is granted"),
        ("MeshConfig", "gossamer-system/default", {}, "who is denied by default in any of them is denied"),
    ],
)
def test_of_concurrent_edits_it_is_said_what_holds_until_they_are_settled(
    kind: str, name: str, spec: dict[str, Any], meanwhile: str
) -> None:
    [found] = read(entry(kind, name, spec, spec))
    assert len(found.versions) == 2
    assert f"the next edit settles them; until then {meanwhile}" in found.conditions[0].message


def test_of_edits_none_of_which_can_be_read_nothing_is_said_to_be_in_force() -> None:
    [found] = read(entry("RateLimit", "r", {}, {}))
    assert [each.type for each in found.conditions] == ["Accepted", "Conflicted"]
    assert found.conditions[1].message.endswith("the next edit settles them")


def test_a_message_is_bounded() -> None:
    rules = [{"to": [{"operation": {"nonsense" * 20: 1}}]}] * 100
    [found] = read(authz("p", *rules))
    assert len(found.conditions[0].message) <= 1_000


def test_each_version_is_read_once_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    parse = peer.policies.parse_resource

    def counting(document: Any) -> Any:
        nonlocal count
        count += 1
        return parse(document)

    monkeypatch.setattr(peer.policies, "parse_resource", counting)
    reader, first, second = Reader(), route("a", "x"), authz("b", {"to": "broken"})
    before = reader.read([first, second])
    assert reader.read([first, second]) == before
    assert count == 2
    reader.read([first])
    reader.read([first, second])
    assert count == 3
    newer = PolicyVersion(resource=first.versions[0].resource, writer="w0", seq=2, hlc=10)
    reader.read([replace(first, versions=(newer,)), second])
    assert count == 4
