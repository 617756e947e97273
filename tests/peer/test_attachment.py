"""Routes at their services: producers, consumers, ports, backends, and what is said of what is missing."""

from typing import Any

import pytest

from peer.attachment import Attachments, attach, longer_s, longest_timeouts_s
from peer.directory import Directory
from peer.policies import Condition, Reader
from proxy.snapshot import Backend
from tests.peer.meshview import OTHER, PolicyEntry, ServiceInstance, entry, instance, route, view


def attached(*items: ServiceInstance | PolicyEntry) -> Attachments:
    mesh = view(*items)
    return attach(Reader().read(mesh.policies), Directory(mesh))


def condition(found: Attachments, kind: str, name: str = "HTTPRoute/default/r") -> Condition:
    [condition] = [each for each in found.conditions[name] if each.type == kind]
    return condition


CART = instance("cart", on=["80:8080", "81:8081", "5432/tcp"])


def test_a_route_without_port_is_at_every_http_port_of_the_service() -> None:
    found = attached(CART, route("r", "cart", "cart"))
    assert [place for place, _ in found.places.items()] == [
        (("default", "cart"), 80),
        (("default", "cart"), 81),
    ]
    assert condition(found, "Accepted").status == "True"


def test_a_route_with_port_is_there_alone() -> None:
    assert list(attached(CART, route("r", "cart", "cart", port=81)).places) == [(("default", "cart"), 81)]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([route("r", "nobody", "cart")], "nobody.default.mesh has no instance in the mesh"),
        ([CART, route("r", "cart", "cart", port=82)], "cart.default.mesh has no HTTP port 82"),
        ([CART, route("r", "cart", "cart", port=5432)], "cart.default.mesh has no HTTP port 5432"),
        (
            [instance("cart", on=["5432/tcp"]), route("r", "cart", "cart")],
            "cart.default.mesh has no HTTP port",
        ),
    ],
)
def test_a_route_without_parent_is_not_accepted(items: list[Any], message: str) -> None:
    found = attached(*items)
    assert found.places == {}
    assert condition(found, "Accepted") == Condition(
        type="Accepted", status="False", reason="NoMatchingParent", message=message
    )


def test_a_name_with_port_is_served_though_no_instance_is_left() -> None:
    found = attached(instance("cart-v2"), route("r", "cart", "cart-v2", port=80))
    assert list(found.places) == [(("default", "cart"), 80)]
    accepted = condition(found, "Accepted")
    assert accepted.status == "True"
    assert accepted.message == "cart.default.mesh has no instance in the mesh at present"


def test_rules_stand_in_order_of_namespace_and_name() -> None:
    found = attached(CART, route("b", "cart", "cart"), route("a", "cart", "cart", name="first"))
    names = [rule.name for rule in found.places[("default", "cart"), 80].own]
    assert names == ["HTTPRoute/default/a/first", "HTTPRoute/default/b/0"]


def test_a_route_in_another_namespace_is_for_its_callers_only() -> None:
    found = attached(CART, route("shop/r", "default/cart", {"name": "cart", "namespace": "default"}))
    destination = found.destination((("default", "cart"), 80), "http", 15.0)
    assert (destination.rules, destination.routed) == ((), False)
    [(namespace, rules)] = destination.caller_rules
    assert namespace == "shop"
    assert rules[0].backends == (Backend(cluster="cart.default.mesh:80"),)


def test_a_producer_route_makes_the_destination_routed() -> None:
    found = attached(CART, route("r", "cart"))
    destination = found.destination((("default", "cart"), 80), "http", 15.0)
    assert destination.routed
    assert [rule.backends for rule in destination.rules] == [()]


def test_a_backend_without_port_is_the_services_first_one() -> None:
    found = attached(
        CART, instance("v2", on=[9000, 80]), route("r", "cart", {"name": "v2", "weight": 3}, port=80)
    )
    assert found.places[("default", "cart"), 80].own[0].backends == (
        Backend(cluster="v2.default.mesh:9000", weight=3),
    )


@pytest.mark.parametrize(
    ("backend", "reason", "message"),
    [
        ({"name": "nobody"}, "BackendNotFound", "nobody.default.mesh has no instance in the mesh"),
        (
            {"name": "cart", "namespace": "shop"},
            "BackendNotFound",
            "cart.shop.mesh has no instance in the mesh",
        ),
        ({"name": "cart", "port": 82}, "BackendNotFound", "cart.default.mesh has no port 82"),
        ({"name": "cart", "port": 5432}, "UnsupportedProtocol", "cart.default.mesh:5432 does not speak HTTP"),
    ],
)
def test_a_backend_that_does_not_resolve_keeps_its_weight_and_gets_no_cluster(
    backend: dict[str, Any], reason: str, message: str
) -> None:
    found = attached(CART, route("r", "cart", "cart", backend | {"weight": 9}, port=80))
    assert found.places[("default", "cart"), 80].own[0].backends == (
        Backend(cluster="cart.default.mesh:80"),
        Backend(cluster="", weight=9),
    )
    assert condition(found, "ResolvedRefs") == Condition(
        type="ResolvedRefs", status="False", reason=reason, message=message
    )
    assert condition(found, "Accepted").status == "True"


def test_one_parent_named_twice_gets_the_rules_once() -> None:
    parents = [{"kind": "Service", "name": "cart"}, {"kind": "Service", "name": "cart", "port": 80}]
    found = attached(CART, entry("HTTPRoute", "r", {"parentRefs": parents, "rules": [{}]}))
    assert len(found.places[("default", "cart"), 80].own) == 1


def test_the_effective_version_is_attached() -> None:
    one, two = (
        {"parentRefs": [{"kind": "Service", "name": "cart"}], "rules": [{"name": n}]} for n in ("one", "two")
    )
    found = attached(CART, entry("HTTPRoute", "r", one, two))
    assert [rule.name for rule in found.places[("default", "cart"), 80].own] == ["HTTPRoute/default/r/one"]


def test_a_rule_without_a_timeout_has_that_of_its_destination() -> None:
    found = attached(
        CART,
        instance("v2", OTHER),
        route("a", "cart", "v2"),
        route("b", "cart", "cart", "v2", timeouts={"request": "5s"}),
    )
    for usual_s, longest_s in ((50.0, 50.0), (1.0, 5.0), (0.0, 0.0)):
        cart = found.destination((("default", "cart"), 80), "http", usual_s)
        assert longest_timeouts_s([cart]) == {"cart.default.mesh:80": 5.0, "v2.default.mesh:80": longest_s}


def test_the_longest_timeout_towards_each_cluster() -> None:
    found = attached(
        CART,
        instance("v2", OTHER),
        route("a", "cart", "cart", timeouts={"request": "40s"}),
        route("b", "cart", "cart", "v2", timeouts={"request": "60s"}),
        route("c", "cart", "v2", timeouts={"request": "0s"}),
        route("d", "cart", {"name": "cart", "port": 81}),
    )
    cart = found.destination((("default", "cart"), 80), "http", 50.0)
    assert longest_timeouts_s([cart]) == {
        "cart.default.mesh:80": 60.0, "v2.default.mesh:80": 0.0, "cart.default.mesh:81": 50.0
    }  # fmt: skip
    assert longer_s(None, 5.0) == 5.0
