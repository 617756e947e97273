"""Services: what most instances say, endpoints, names."""

import random

from peer.directory import Directory, cluster_name, port_names
from proxy.snapshot import Endpoint
from tests.peer.meshview import OTHER, THIRD, instance, view


def endpoints(directory: Directory, port: int = 80) -> dict[str, Endpoint]:
    return {each.node: each for each in directory.cluster(("default", "cart"), port, "http").endpoints}


def test_a_remote_endpoint_is_its_peers_listener_and_a_local_one_the_application() -> None:
    directory = Directory(
        view(instance("cart"), instance("cart", OTHER, account="till", zone="z", labels=(("v", "1"),)))
    )
    assert endpoints(directory) == {
        "me": Endpoint(
            id="me/cart.default.mesh:80",
            node="me",
            host="127.0.0.1",
            port=8080,
            sni="cart.default.mesh",
            identity="spiffe://cluster.local/ns/default/sa/cart",
            local="cart.default.mesh",
        ),
        "other": Endpoint(
            id="other/cart.default.mesh:80",
            node="other",
            host="10.0.0.2",
            port=15006,
            sni="cart.default.mesh",
            identity="spiffe://cluster.local/ns/default/sa/till",
            zone="z",
            labels=(("v", "1"),),
        ),
    }


def test_health_and_membership_together_make_an_endpoint_healthy() -> None:
    healths = {"me": "unknown", OTHER: "failing", THIRD: "passing"}
    directory = Directory(
        view(
            *(
                instance("cart", node, health=health, reachable=node != THIRD)
                for node, health in healths.items()
            )
        )
    )
    assert {node: each.healthy for node, each in endpoints(directory).items()} == {
        "me": True,
        OTHER: False,
        THIRD: False,
    }


def test_the_first_port_has_the_plain_name_and_every_port_its_own() -> None:
    cart = instance("cart", on=["80:8080", "5432/tcp"])
    assert port_names(cart, 80) == ("cart.default.mesh", "p80.cart.default.mesh")
    assert port_names(cart, 5432) == ("p5432.cart.default.mesh",)


def test_ports_are_what_most_instances_say() -> None:
    directory = Directory(
        view(
            instance("cart", on=["81", "80"]),
            instance("cart", OTHER, on=["80", "81"]),
            instance("cart", THIRD, on=["80/tcp", "81"]),
        )
    )
    service = directory.services["default", "cart"]
    assert (service.first_port, dict(service.ports)) == (80, {80: "http", 81: "http"})
    assert set(endpoints(directory)) == {"me", OTHER}
    assert endpoints(directory)[OTHER].sni == "cart.default.mesh"
    assert endpoints(directory)["me"].sni == "p80.cart.default.mesh"


def test_http_ports_leave_out_tcp() -> None:
    directory = Directory(view(instance("cart", on=["5432/tcp", "80", "90/grpc"])))
    assert directory.services["default", "cart"].http_ports == (80, 90)


def test_names_that_are_no_labels_and_nodes_without_a_listener_are_left_out() -> None:
    odd = [instance("cart", name=name) for name in ("Cart", "a.b", "x" * 64, "")]
    directory = Directory(
        view(*odd, instance("cart", OTHER, inbound_port=0), instance("a", namespace="no good"))
    )
    assert list(directory.services) == [("default", "cart")]
    assert endpoints(directory) == {}


def test_the_order_of_the_view_makes_no_difference() -> None:
    instances = [
        instance(name, node) for name in ("cart", "shop/cart", "pay") for node in ("me", OTHER, THIRD)
    ]
    first = Directory(view(*instances))
    random.Random(1).shuffle(instances)
    again = Directory(view(*instances))
    assert list(first.services.items()) == list(again.services.items())
    assert first.local == again.local
    assert cluster_name(("shop", "cart"), 80) == "cart.shop.mesh:80"
