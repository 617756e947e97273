"""The whole compilation: golden cases, statuses, listeners, determinism, and that nothing a member says breaks it."""

import random
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import peer.attachment
import peer.compile
import peer.policies
from peer.catalog import PolicyEntry, ServiceInstance, View
from peer.compile import Compiled, Reader, compile_snapshot, listeners_for
from proxy.authorize import compile_authorization
from proxy.resources import ROOT_NAMESPACE
from proxy.route import compile_destination
from proxy.snapshot import (
    Authorization,
    AuthzPolicy,
    AuthzRule,
    Backend,
    Certificate,
    CircuitBreaker,
    Cluster,
    Destination,
    HeaderEdit,
    InboundService,
    Outlier,
    Redirect,
    RetryPolicy,
    Rewrite,
    RouteMatch,
    RouteRule,
    Snapshot,
    Source,
    StringMatch,
    decode_snapshot,
    encode_snapshot,
)
from tests.peer.meshview import OTHER, THIRD, authz, entry, instance, route, view


def compiled(*items: ServiceInstance | PolicyEntry, **changes: Any) -> Compiled:
    return compile_snapshot(view(*items, **changes), version=1)


def snapshot(*items: ServiceInstance | PolicyEntry, **changes: Any) -> Snapshot:
    return compiled(*items, **changes).snapshot


def conditions(found: Compiled, key: str) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in found.statuses[key].conditions}


def cluster(found: Snapshot, name: str) -> Cluster:
    return next(each for each in found.clusters if each.name == name)


def destination(found: Snapshot, service: str, port: int = 80) -> Destination:
    return next(each for each in found.destinations if (each.service, each.port) == (service, port))


def inbound(found: Snapshot, sni: str) -> InboundService:
    return next(each for each in found.inbound if each.sni == sni)


# ---------------------------------------------------------------- golden cases


def test_an_empty_mesh() -> None:
    assert snapshot() == Snapshot(version=1, node="me", node_name="me", trust_domain="cluster.local")


def test_a_canary() -> None:
    found = snapshot(
        instance("cart", labels=(("version", "v1"),)),
        instance("cart", OTHER),
        instance("cart-v2", OTHER, account="cart"),
        route(
            "canary",
            "cart",
            {"name": "cart", "weight": 90},
            {"name": "cart-v2", "weight": 10},
            matches=[{"path": {"value": "/api"}}],
            timeouts={"request": "30s", "backendRequest": "2s"},
        ),
    )
    assert destination(found, "cart") == Destination(
        service="cart",
        namespace="default",
        port=80,
        protocol="http",
        cluster="cart.default.mesh:80",
        routed=True,
        rules=(
            RouteRule(
                name="HTTPRoute/default/canary/0",
                matches=(RouteMatch(path=StringMatch(kind="prefix_path", value="/api")),),
                backends=(
                    Backend(cluster="cart.default.mesh:80", weight=90),
                    Backend(cluster="cart-v2.default.mesh:80", weight=10),
                ),
                request_timeout_s=30.0,
                per_try_timeout_s=2.0,
            ),
        ),
    )
    assert [each.name for each in found.clusters] == ["cart.default.mesh:80", "cart-v2.default.mesh:80"]
    assert [each.node for each in cluster(found, "cart.default.mesh:80").endpoints] == ["me", OTHER]
    assert (
        cluster(found, "cart-v2.default.mesh:80").endpoints[0].identity
        == "spiffe://cluster.local/ns/default/sa/cart"
    )
    # The callee is as patient as the most patient route.
    assert found.inbound == tuple(
        InboundService(
            sni=sni,
            service="cart",
            namespace="default",
            port=80,
            protocol="http",
            identity="spiffe://cluster.local/ns/default/sa/cart",
            app_host="127.0.0.1",
            app_port=8080,
            labels=(("version", "v1"),),
            request_timeout_s=30.0,
        )
        for sni in ("cart.default.mesh", "p80.cart.default.mesh")
    )


def test_a_callee_is_as_patient_as_the_destination_whose_route_leads_there() -> None:
    patient = {"targetRefs": [{"kind": "Service", "name": "cart"}], "timeouts": {"request": "60s"}}
    found = snapshot(
        instance("cart", OTHER), instance("cart-v2"), route("canary", "cart", "cart-v2"),
        entry("TrafficPolicy", "t", patient),
    )  # fmt: skip
    assert destination(found, "cart").request_timeout_s == 60.0
    assert inbound(found, "cart-v2.default.mesh").request_timeout_s == 60.0


def test_filters() -> None:
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}
    found = snapshot(
        instance("cart"),
        entry(
            "HTTPRoute",
            "r",
            {
                "parentRefs": [{"kind": "Service", "name": "cart"}],
                "hostnames": ["*.shop.example"],
                "rules": [
                    {
                        "filters": [
                            {
                                "type": "RequestHeaderModifier",
                                "requestHeaderModifier": {
                                    "set": [{"name": "X-A", "value": "1"}],
                                    "add": [{"name": "X-B", "value": "2"}],
                                    "remove": ["X-C"],
                                },
                            },
                            {
                                "type": "ResponseHeaderModifier",
                                "responseHeaderModifier": {"remove": ["Server"]},
                            },
                            {"type": "URLRewrite", "urlRewrite": {"hostname": "h", "path": path}},
                        ]
                    },
                    {
                        "filters": [
                            {
                                "type": "RequestRedirect",
                                "requestRedirect": {
                                    "scheme": "https",
                                    "port": 8443,
                                    "path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"},
                                    "statusCode": 301,
                                },
                            }
                        ]
                    },
                ],
            },
        ),
    )
    first, second = destination(found, "cart").rules
    assert first.hostnames == ("*.shop.example",)
    assert first.request_headers == HeaderEdit(set=(("x-a", "1"),), add=(("x-b", "2"),), remove=("x-c",))
    assert first.response_headers == HeaderEdit(remove=("server",))
    assert first.rewrite == Rewrite(hostname="h", path_prefix="/")
    assert second.redirect == Redirect(scheme="https", port=8443, path="/new", status=301)


def test_traffic_policy_changes_what_it_says_and_nothing_else() -> None:
    spec = {
        "targetRefs": [{"kind": "Service", "name": "cart"}],
        "loadBalancer": {
            "policy": "LEAST_REQUEST",
            "panicThreshold": 0,
            "localityLbSetting": {"enabled": True},
        },
        "timeouts": {"request": "3s", "connect": "200ms"},
        "retries": {
            "attempts": 1,
            "retryOn": ["5xx"],
            "perTryTimeout": "1s",
            "retryBackOff": {"baseInterval": "10ms"},
            "retryBudget": {"budget_percent": 50, "min_retry_concurrency": 0},
        },
        "circuitBreaker": {"max_connections": 7, "max_pending_requests": 0},
        "outlierDetection": {"consecutive_5xx": 3, "max_ejection_percent": 100},
    }
    found = snapshot(instance("cart", on=[80, 81]), instance("pay"), entry("TrafficPolicy", "t", spec))
    for port in (80, 81):
        cart = cluster(found, f"cart.default.mesh:{port}")
        assert (cart.balancer, cart.panic_threshold_percent, cart.locality_preferred) == (
            "least_request",
            0,
            True,
        )
        assert cart.connect_timeout_s == pytest.approx(0.2)
        assert cart.retry == RetryPolicy(
            attempts=1,
            on=("5xx",),
            per_try_timeout_s=1.0,
            backoff_base_s=0.01,
            backoff_max_s=0.1,
            budget_percent=50,
            budget_floor=0,
        )
        assert cart.breaker == CircuitBreaker(connections_max=7, pending_max=0)
        assert cart.outlier == Outlier(consecutive_5xx=3, max_ejection_percent=100)
        assert destination(found, "cart", port).request_timeout_s == 3.0
    assert inbound(found, "cart.default.mesh").request_timeout_s == 3.0
    pay = cluster(found, "pay.default.mesh:80")
    assert (pay.balancer, pay.outlier, pay.breaker) == ("p2c_ewma", Outlier(), CircuitBreaker())
    assert pay.retry == RetryPolicy(on=("connect-failure", "refused-stream", "unavailable", "cancelled"))
    assert destination(found, "pay").request_timeout_s == 15.0


def test_a_grpc_call_brings_its_own_deadline_unless_a_policy_says_otherwise() -> None:
    found = snapshot(instance("cart", on=["80/grpc"]))
    assert destination(found, "cart").request_timeout_s == 0.0
    assert inbound(found, "cart.default.mesh").request_timeout_s == 0.0
    strict = entry(
        "TrafficPolicy",
        "t",
        {"targetRefs": [{"kind": "Service", "name": "cart"}], "timeouts": {"request": "3s"}},
    )
    found = snapshot(instance("cart", on=["80/grpc"]), strict)
    assert destination(found, "cart").request_timeout_s == 3.0
    assert inbound(found, "cart.default.mesh").request_timeout_s == 3.0


def test_authorization_is_the_workloads_under_every_name() -> None:
    found = snapshot(
        instance("cart"),
        instance("cart-v1", on=["90:8080"]),
        instance("pay", on=[9000]),
        authz("only-web", {"from": [{"source": {"principals": ["cluster.local/ns/default/sa/web"]}}]},
              targetRefs=[{"kind": "Service", "name": "cart-v1"}]),
        trust_domain="shop.example",
    )  # fmt: skip
    wanted = Authorization(
        allow=(
            AuthzPolicy(
                name="default/only-web",
                variants=((AuthzRule(sources=(Source(principals=("shop.example/ns/default/sa/web",)),)),),),
            ),
        )
    )
    snis = ("cart.default.mesh", "p80.cart.default.mesh", "cart-v1.default.mesh", "p90.cart-v1.default.mesh")
    assert [inbound(found, sni).authorization for sni in snis] == [wanted] * 4
    assert inbound(found, "pay.default.mesh").authorization == Authorization()


def test_a_service_known_by_a_route_alone_has_an_empty_cluster() -> None:
    found = snapshot(instance("v2"), route("r", "cart", "v2", port=80))
    assert destination(found, "cart").routed
    assert cluster(found, "cart.default.mesh:80").endpoints == ()


# ---------------------------------------------------------------- mesh config


def config(*specs: dict[str, Any]) -> PolicyEntry:
    return entry("MeshConfig", f"{ROOT_NAMESPACE}/default", *specs)


@pytest.mark.parametrize(
    ("specs", "local_deny", "denies", "logs"),
    [
        ([], False, False, True),
        ([], True, True, True),
        ([{"defaultAction": "DENY", "accessLog": False}], False, True, False),
        ([{"defaultAction": "ALLOW"}], True, False, True),
        ([{"defaultAction": "ALLOW", "accessLog": False}, {"defaultAction": "DENY"}], False, True, False),
        ([{"accessLog": False}, {"defaultAction": "ALLOW"}], True, True, False),
        ([{"default_action": "BROKEN"}], True, True, True),
    ],
)
def test_mesh_config(specs: list[dict[str, Any]], local_deny: bool, denies: bool, logs: bool) -> None:
    policies = [config(*specs)] if specs else []
    found = snapshot(instance("cart"), *policies, default_deny=local_deny)
    assert inbound(found, "cart.default.mesh").authorization.default_deny is denies
    assert found.access_log is logs


# ---------------------------------------------------------------- statuses


def test_what_does_not_compile_is_set_aside_and_the_rest_goes_on() -> None:
    found = compiled(
        instance("cart"),
        entry(
            "HTTPRoute",
            "bad",
            {"parentRefs": [{"kind": "Service", "name": "cart"}], "rules": [{"retry": {}}]},
        ),
        route("good", "cart", "cart"),
        entry("VirtualService", "x", {}),
    )
    assert [rule.name for rule in destination(found.snapshot, "cart").rules] == ["HTTPRoute/default/good/0"]
    assert conditions(found, "HTTPRoute/default/bad") == {"Accepted": ("False", "Invalid")}
    assert conditions(found, "VirtualService/default/x") == {"Accepted": ("False", "UnsupportedKind")}
    assert found.statuses["HTTPRoute/default/good"].accepted
    assert not found.statuses["HTTPRoute/default/bad"].accepted
    [condition] = found.statuses["HTTPRoute/default/bad"].document()["conditions"]
    assert condition["message"] == "HTTPRoute default/bad: spec.rules[0].retry: is not supported yet"


def test_every_policy_has_a_status() -> None:
    target = {"targetRefs": [{"kind": "Service", "name": "cart"}]}
    found = compiled(
        instance("cart"),
        route("r", "cart", "cart"),
        authz("p"),
        authz("q", targetRefs=[{"kind": "Service", "name": "nobody"}]),
        entry("TrafficPolicy", "t", target),
        entry("TrafficPolicy", "u", target),
        config({}),
    )
    assert {key: conditions(found, key) for key in found.statuses} == {
        "HTTPRoute/default/r": {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")},
        "AuthorizationPolicy/default/p": {"Accepted": ("True", "Accepted")},
        "AuthorizationPolicy/default/q": {
            "Accepted": ("True", "Accepted"),
            "ResolvedRefs": ("False", "TargetNotFound"),
        },
        "TrafficPolicy/default/t": {
            "Accepted": ("True", "Accepted"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        },
        "TrafficPolicy/default/u": {
            "Accepted": ("False", "Conflicted"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        },
        f"MeshConfig/{ROOT_NAMESPACE}/default": {"Accepted": ("True", "Accepted")},
    }


def test_a_conflict_is_shown() -> None:
    found = compiled(instance("cart"), entry("AuthorizationPolicy", "p", {}, {"action": "DENY"}))
    assert conditions(found, "AuthorizationPolicy/default/p") == {
        "Conflicted": ("True", "ConcurrentEdits"),
        "Accepted": ("True", "Accepted"),
    }


# ---------------------------------------------------------------- listeners

NODE_CALLER = ("spiffe://cluster.local/node/me", "default", "")


def outbound(*services: ServiceInstance) -> tuple[str, str, str]:
    [found] = [each for each in listeners_for(view(*services)) if each.name == "outbound"]
    return found.caller, found.caller_namespace, found.caller_service


def test_without_a_service_or_with_several_accounts_the_node_calls() -> None:
    assert outbound() == NODE_CALLER
    assert outbound(instance("web", OTHER)) == NODE_CALLER
    assert outbound(instance("web"), instance("pay")) == NODE_CALLER


def test_a_single_account_calls_as_itself() -> None:
    assert outbound(instance("shop/web", account="front")) == (
        "spiffe://cluster.local/ns/shop/sa/front",
        "shop",
        "web",
    )
    both = (instance("echo"), instance("echo-v1", account="echo"))
    assert outbound(*both) == ("spiffe://cluster.local/ns/default/sa/echo", "default", "echo")


def test_an_upstream_is_called_as_its_service_at_the_port_meant() -> None:
    upstreams = (
        ("default", "pay", 0, 9191),
        ("default", "pay", 5432, 9192),
        ("default", "db", 0, 9193),
        ("default", "nobody", 0, 9194),
    )
    found = listeners_for(
        view(
            instance("web", upstreams=upstreams),
            instance("pay", OTHER, on=["5432/tcp", "8000"]),
            instance("db", THIRD, on=["5432/tcp"]),
            instance("job", upstreams=(("default", "pay", 0, 9191), ("default", "pay", 0, 9000))),
        )
    )
    assert [each.name for each in found] == ["inbound", "outbound"] + [
        f"upstream:{port}" for port in (9000, 9191, 9192, 9193, 9194)
    ]
    by_name = {each.name: each for each in found}
    # Of two services that want 9191 the first by name has it.
    assert by_name["upstream:9191"].caller == "spiffe://cluster.local/ns/default/sa/job"
    assert {name: each.destination for name, each in by_name.items() if each.kind == "upstream"} == {
        "upstream:9000": "pay.default.mesh:8000",
        "upstream:9191": "pay.default.mesh:8000",
        "upstream:9192": "pay.default.mesh:5432",
        "upstream:9193": "db.default.mesh:5432",
        "upstream:9194": "nobody.default.mesh:80",
    }


# ---------------------------------------------------------------- laws

NAMES = st.sampled_from(["cart", "pay", "shop/cart", "shop/web"])
INSTANCES = st.builds(
    instance,
    NAMES,
    st.sampled_from(["me", OTHER, THIRD]),
    on=st.lists(
        st.sampled_from([80, 81, "80:8080", "5432/tcp", "80/tcp", "90/grpc"]), min_size=1, max_size=3
    ),
    health=st.sampled_from(["passing", "failing", "unknown"]),
    reachable=st.booleans(),
    address=st.sampled_from(["127.0.0.1", "127.0.0.2"]),
)
BACKENDS = st.sampled_from(
    ["cart", "pay", {"name": "nobody"}, {"name": "web", "namespace": "shop", "port": 80, "weight": 0}]
)
ROUTES = st.builds(
    lambda name, to, backends, port: route(name, to, *backends, port=port),
    NAMES,
    st.sampled_from(["cart", "default/cart", "shop/web", "ghost"]),
    st.lists(BACKENDS, max_size=3),
    st.sampled_from([None, 80, 99]),
)
NONSENSE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.binary(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["rules", "parentRefs", "targetRefs", "action", "x"]), inner, max_size=3
        ),
    ),
    max_leaves=8,
)
BROKEN = st.builds(
    entry, st.sampled_from(["HTTPRoute", "AuthorizationPolicy", "TrafficPolicy", "Odd"]), NAMES, NONSENSE
)
AUTHZ = st.builds(
    lambda name, action, labels: authz(name, {}, action=action, **labels),
    NAMES,
    st.sampled_from(["ALLOW", "DENY"]),
    st.sampled_from([{}, {"targetRefs": [{"kind": "Service", "name": "cart"}]}]),
)
TRAFFIC = st.builds(
    lambda name: entry("TrafficPolicy", name, {"targetRefs": [{"kind": "Service", "name": "cart"}]}), NAMES
)


def distinct(items: list[Any]) -> list[Any]:
    """One registration a name and node, one policy a key: what the view guarantees."""

    def key(item: Any) -> tuple[str, ...]:
        if isinstance(item, ServiceInstance):
            return item.namespace, item.name, item.node
        return item.kind, item.namespace, item.name, ""

    return list({key(item): item for item in items}.values())


MESHES = st.lists(st.one_of(INSTANCES, ROUTES, AUTHZ, TRAFFIC, BROKEN), max_size=15).map(distinct)


@given(MESHES, st.integers())
def test_the_order_of_the_view_makes_no_difference(items: list[Any], seed: int) -> None:
    shuffled = list(items)
    random.Random(seed).shuffle(shuffled)
    reader = Reader()
    first = compile_snapshot(view(*items), version=1, reader=reader)
    assert compile_snapshot(view(*shuffled), version=1) == first
    assert compile_snapshot(view(*shuffled), version=1, reader=reader) == first
    assert listeners_for(view(*items)) == listeners_for(view(*shuffled))


@given(MESHES)
def test_a_snapshot_is_whole_and_every_plane_can_take_it(items: list[Any]) -> None:
    found = compiled(*items)
    snapshot = found.snapshot
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot
    names = [each.name for each in snapshot.clusters]
    assert len(set(names)) == len(names)
    assert {each.cluster for each in snapshot.destinations} == set(names)
    snis = [each.sni for each in snapshot.inbound]
    assert len(set(snis)) == len(snis)
    for each in snapshot.destinations:
        compile_destination(each)
        rules = [*each.rules, *(rule for _, rules in each.caller_rules for rule in rules)]
        assert {backend.cluster for rule in rules for backend in rule.backends} <= {"", *names}
    for service in snapshot.inbound:
        compile_authorization(service.authorization, service.protocol)
    for each in snapshot.clusters:
        assert {endpoint.local for endpoint in each.endpoints} <= {"", *snis}
    assert set(found.statuses) == {
        f"{item.kind}/{item.namespace}/{item.name}" for item in items if isinstance(item, PolicyEntry)
    }


def test_what_the_caller_gives_is_passed_on() -> None:
    certificates = [
        Certificate(identity=f"spiffe://x/{name}", chain_pem=b"", key_pem=b"", not_after=1) for name in "ba"
    ]
    mesh = view(instance("cart"), revoked=("z", "a"), zone="z1")
    listeners = listeners_for(mesh)
    found = compile_snapshot(
        mesh, version=7, listeners=listeners, certificates=certificates, trust_bundle_pem=b"pem"
    ).snapshot
    assert (found.version, found.listeners, found.trust_bundle_pem, found.zone) == (
        7,
        listeners,
        b"pem",
        "z1",
    )
    assert [each.identity for each in found.certificates] == ["spiffe://x/a", "spiffe://x/b"]
    assert found.revoked == ("a", "z")


def test_a_snapshot_is_made_of_immutable_parts() -> None:
    def check(value: Any) -> None:
        if is_dataclass(value):
            hash(value)
            for each in fields(value):
                check(getattr(value, each.name))
        elif isinstance(value, tuple):
            for part in value:
                check(part)
        else:
            assert isinstance(value, str | int | float | bytes | None), type(value)

    check(snapshot(instance("cart"), route("r", "cart", "cart"), authz("p", {})))
    assert isinstance(view(), View)


# ---------------------------------------------------------------- a mistake of ours


def test_a_policy_on_which_the_compiler_breaks_is_set_aside_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = peer.attachment.route_rules
    broken: set[str] = {"HTTPRoute/default/r3", "HTTPRoute/default/r11"}
    calls = 0

    def route_rules(key: str, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if key in broken:
            raise KeyError("a mistake")
        return real(key, *rest)

    monkeypatch.setattr(peer.attachment, "route_rules", route_rules)
    items = [instance("cart"), *(route(f"r{n}", "cart", {"name": "cart"}) for n in range(16))]
    reader = Reader()
    found = compile_snapshot(view(*items), version=1, reader=reader)
    for n in range(16):
        key = f"HTTPRoute/default/r{n}"
        expected = ("False", "Invalid") if key in broken else ("True", "Accepted")
        assert conditions(found, key)["Accepted"] == expected
    [condition] = found.statuses["HTTPRoute/default/r3"].conditions
    assert condition.message == "does not compile: KeyError: 'a mistake'"
    assert set(found.faults) == broken
    assert "route_rules" in found.faults["HTTPRoute/default/r3"]
    assert len(destination(found.snapshot, "cart").rules) == 14

    calls = 0  # a version is tried once: the next compilation does not look for it again
    again = compile_snapshot(view(*items), version=1, reader=reader)
    assert again == found
    assert calls == 14


def test_a_policy_on_which_the_reader_breaks_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(_document: Any) -> Any:
        raise RecursionError("too deep")

    monkeypatch.setattr(peer.policies, "parse_resource", parse)
    found = compiled(instance("cart"), route("r", "cart", {"name": "cart"}))
    assert conditions(found, "HTTPRoute/default/r") == {"Accepted": ("False", "Invalid")}
    assert set(found.faults) == {"HTTPRoute/default/r"}


def test_a_mistake_that_is_no_policys_doing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a mistake")

    monkeypatch.setattr(peer.compile, "inbound_services", broken)
    with pytest.raises(KeyError, match="a mistake"):
        compiled(instance("cart"), route("r", "cart", {"name": "cart"}))
