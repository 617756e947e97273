"""Service files: short and long form, defaults, faults."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resources import (
    CheckSpec,
    PortSpec,
    ResourceError,
    ServiceSpec,
    UpstreamSpec,
    load_yaml,
    parse_service_documents,
)


def parse(text: str) -> tuple[ServiceSpec, ...]:
    return parse_service_documents(load_yaml(text, "cart.yaml"), "cart.yaml")


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ResourceError) as caught:
        parse(text)
    return caught.value.problems


@pytest.mark.parametrize("protocol", ["http", "grpc", "tcp"])
def test_every_protocol_of_an_application(protocol: str) -> None:
    [service] = parse(f"service: {{name: cart, port: 1, protocol: {protocol}}}")
    assert [port.protocol for port in service.ports] == [protocol]


def test_the_short_form() -> None:
    assert parse("service: {name: cart, port: 8080}") == (
        ServiceSpec(
            namespace="default",
            name="cart",
            account="cart",
            address="127.0.0.1",
            ports=(PortSpec(name="", port=8080, target=8080, protocol="http"),),
        ),
    )


def test_the_long_form() -> None:
    [service] = parse(
        """
service:
  name: cart-v1
  namespace: shop
  account: cart
  address: 127.0.0.2
  ports: [{name: http, port: 80, target: 8080}, {name: db, port: 5432, protocol: tcp}]
  protocol: tcp
  labels: {version: v1, app: cart}
  check: {http: /healthz, interval: 10s, timeout: 500ms}
  upstreams: [{service: payments, local_port: 9191}, {service: db, namespace: data, port: 5432, local_port: 5432}]
"""
    )
    assert service == ServiceSpec(
        namespace="shop",
        name="cart-v1",
        account="cart",
        address="127.0.0.2",
        ports=(
            PortSpec(name="http", port=80, target=8080, protocol="tcp"),
            PortSpec(name="db", port=5432, target=5432, protocol="tcp"),
        ),
        labels=(("app", "cart"), ("version", "v1")),
        check=CheckSpec(http="/healthz", interval_s=10.0, timeout_s=0.5),
        upstreams=(
            UpstreamSpec(namespace="shop", service="payments", port=0, local_port=9191),
            UpstreamSpec(namespace="data", service="db", port=5432, local_port=5432),
        ),
    )
    assert service.key == "shop/cart-v1"


def test_checks_of_each_kind() -> None:
    checks = [
        parse(f"service: {{name: a, port: 1, check: {check}}}")[0].check
        for check in ("{tcp: true}", "{exec: [a, b]}")
    ]
    assert checks == [CheckSpec(tcp=True), CheckSpec(exec=("a", "b"))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "cart.yaml: holds no service"),
        ("kind: HTTPRoute", "document 1: this is a resource, not a service: publish it with `gossamer apply`"),
        ("name: cart", "cart.yaml: document 1: service: is required"),
        ("service: cart", "cart.yaml: document 1: service: must be a mapping, not a string"),
        ("service: {port: 1}", "cart.yaml: document 1: service.name: is required"),
        ("service: {name: cart}", "service default/cart: service: port or ports is required"),
        ("service: {name: cart, port: 70000}", "service default/cart: service.port: must be <= 65535"),
        ("service: {name: cart, port: '80'}", "service.port: must be a whole number, not a string"),
        ("service: {name: Cart, port: 1}", "service.name: must be a DNS label"),
        ("service: {name: cart, port: 1, protocol: udp}", "protocol: must be one of http, grpc, tcp, not 'udp'"),
        ("service: {name: cart, port: 1, address: localhost}", "address: must be an IP address, not 'localhost'"),
        ("service: {name: cart, port: 1, labels: {v: 1}}", "service.labels.v: must be a string, not the number 1"),
        ("service: {name: cart, port: 1, lables: {}}", "service.lables: unknown field (did you mean labels?)"),
        ("service: {name: cart, ports: [{port: 1}, {port: 1}]}", "service: ports: the port 1 occurs twice"),
        ("service: {name: cart, ports: [{port: 1, name: a}, {port: 2, name: a}]}", "ports: the name a occurs twice"),
        ("service: {name: cart, port: 1, check: {}}", "service.check: exactly one of http, tcp and exec is required"),
        ("service: {name: cart, port: 1, check: {http: /, tcp: true}}", "exactly one of http, tcp and exec"),
        ("service: {name: cart, port: 1, check: {tcp: false}}", "service.check.tcp: must be true"),
        ("service: {name: cart, port: 1, check: {http: healthz}}", "check.http: must be a path that begins with '/'"),
        ('service: {name: cart, port: 1, check: {http: "/a\\r\\nb"}}', "check.http: must be a path"),
        ("service: {name: cart, port: 1, check: {tcp: true, interval: 5}}", "check.interval: must be a duration"),
        ("service: {name: cart, port: 1, check: {tcp: true, timeout: 9s}}", "timeout: must not be longer"),
        ("service: {name: cart, port: 1, upstreams: [{service: a}]}", "service.upstreams[0].local_port: is required"),
        (
            "service: {name: cart, port: 1, upstreams: [{service: a, local_port: 5}, {service: b, local_port: 5}]}",
            "upstreams: the local_port 5 occurs twice",
        ),
        ("service: {name: a, port: 1}\n---\nservice: {name: a, port: 2}", "service default/a: is in the file twice"),
        ("service: {name: a, port: 1}\nextra: 1", "document 1: service default/a: extra: unknown field"),
    ],
)  # fmt: skip
def test_faults(text: str, expected: str) -> None:
    assert any(expected in each for each in problems(text)), problems(text)


ANYTHING: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**400), st.text(max_size=5), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["name", "port", "ports", "check", "tcp", "labels", "upstreams", "address"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.lists(st.one_of(ANYTHING, st.fixed_dictionaries({"service": ANYTHING})), max_size=2))
def test_no_document_is_more_than_an_error(documents: list[Any]) -> None:
    try:
        services = parse_service_documents(documents, "f")
    except ResourceError:
        return
    assert len(services) == len(documents)


def test_port_is_short_for_one_more_entry_of_ports() -> None:
    """The file of the documentation gives both."""
    text = """
    service:
      name: cart
      port: 8080
      ports: [{name: http, port: 80, target: 8080, protocol: http}, {name: db, port: 5432, protocol: tcp}]
    """
    (spec,) = parse_service_documents(load_yaml(text, "cart.yaml"), "cart.yaml")
    assert [(p.port, p.target, p.protocol) for p in spec.ports] == [
        (8080, 8080, "http"),
        (80, 8080, "http"),
        (5432, 5432, "tcp"),
    ]
    (same,) = parse_service_documents([{"service": {"name": "a", "port": 1, "ports": [{"port": 1}]}}], "a")
    assert [p.port for p in same.ports] == [1]


def test_a_check_more_often_than_once_a_second_waits_no_longer_than_that() -> None:
    (service,) = parse("service: {name: a, port: 1, check: {tcp: true, interval: 500ms}}")
    assert service.check == CheckSpec(tcp=True, interval_s=0.5, timeout_s=0.5)
