"""A snapshot made ready: names, pools, and what is refused before anything changes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy.embedded.compiled import source_of
from proxy.embedded.engine import Engine
from proxy.embedded.runtime import NoCertificateError, Runtime, UnservableError
from proxy.snapshot import Cluster, Destination, Endpoint, InboundService, Listener, Snapshot
from trust.errors import RevokedError
from trust.identity import parse_spiffe, spiffe_node
from trust.svid import Svid

from .conftest import TRUST_DOMAIN, Issuer


def destination(name: str, port: int = 80, protocol: Any = "http", namespace: str = "default") -> Destination:
    return Destination(
        service=name,
        namespace=namespace,
        port=port,
        protocol=protocol,
        cluster=f"{name}.{namespace}.mesh:{port}",
    )


def cluster(name: str, port: int = 80, namespace: str = "default", protocol: Any = "http") -> Cluster:
    full = f"{name}.{namespace}.mesh"
    endpoint = Endpoint(
        id=f"n/{full}:{port}", node="n", host="127.0.0.1", port=1, sni=full, identity=f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{name}"
    )  # fmt: skip
    return Cluster(
        name=f"{full}:{port}", service=name, namespace=namespace, protocol=protocol, endpoints=(endpoint,)
    )


@pytest.fixture
def snapshot(issuer: Issuer) -> Snapshot:
    web = issuer.certificate("web")
    return Snapshot(
        version=1, node="n", node_name="n", trust_domain=TRUST_DOMAIN, trust_bundle_pem=issuer.bundle_pem,
        certificates=(web,),
        listeners=(
            Listener(name="out", kind="outbound", caller=web.identity, caller_service="web"),
            Listener(name="anonymous", kind="outbound", caller="spiffe://unit.mesh/ns/default/sa/none"),
        ),
        clusters=(
            cluster("cart"), cluster("cart", 5432, protocol="tcp"), cluster("db", 5432, protocol="tcp"),
            cluster("cart", namespace="shop"), cluster("mixed", 1, protocol="tcp"), cluster("mixed", 2),
        ),
        destinations=(
            destination("cart"), destination("cart", 5432, "tcp"), destination("db", 5432, "tcp"),
            destination("cart", namespace="shop"), destination("mixed", 1, "tcp"), destination("mixed", 2),
        ),
    )  # fmt: skip


def serve(engine: Engine, snapshot: Snapshot, previous: Runtime | None = None) -> Runtime:
    runtime = Runtime.build(engine, snapshot, previous, 0.0)
    runtime.commit()
    return runtime


@pytest.mark.parametrize(
    ("host", "namespace", "name"),
    [
        ("cart", "default", "cart.default.mesh:80"), ("cart", "shop", "cart.shop.mesh:80"),
        ("cart.shop", "default", "cart.shop.mesh:80"), ("cart.shop.mesh", "default", "cart.shop.mesh:80"),
        ("cart:5432", "default", "cart.default.mesh:5432"), ("CART.Default.Mesh.:80", "x", "cart.default.mesh:80"),
        ("db", "default", "db.default.mesh:5432"), ("mixed", "default", "mixed.default.mesh:2"),
        ("cart", "elsewhere", None), ("cart:81", "default", None), ("cart:", "default", None),
        ("cart:8x", "default", None),
        ("", "default", None), (".", "default", None), ("cart.default.mesh.mesh", "default", None),
        ("mesh", "default", None),
        ("cart.mesh", "default", None), ("[::1]:80", "default", None), ("cart:99999999999999", "default", None),
    ],
)  # fmt: skip
async def test_names_resolve_in_the_callers_namespace(
    engine: Engine, snapshot: Snapshot, host: str, namespace: str, name: str | None
) -> None:
    runtime = serve(engine, snapshot)
    for _ in range(2):  # the second time from the cache
        target = runtime.resolve(host.encode(), namespace)
        assert (None if target is None else target.name) == name


async def test_unknown_names_are_not_remembered(engine: Engine, snapshot: Snapshot) -> None:
    runtime = serve(engine, snapshot)
    for number in range(10_000):
        assert runtime.resolve(b"junk-%d" % number, "default") is None
    assert len(runtime._names) == 0


@pytest.mark.parametrize(
    ("principal", "source"),
    [
        ("spiffe://td/ns/shop/sa/web", ("web", "shop", "spiffe://td/ns/shop/sa/web")),
        ("spiffe://td/node/abc", ("", "", "spiffe://td/node/abc")),
        ("", ("", "", "")),
    ],
)
def test_metrics_name_a_caller_by_its_account(principal: str, source: tuple[str, str, str]) -> None:
    assert source_of(principal) == source


async def test_pools_survive_a_snapshot_that_changes_nothing_for_them(
    engine: Engine, snapshot: Snapshot
) -> None:
    first = serve(engine, snapshot)
    pool = first.pool(
        first.listening["out"], snapshot.clusters[0].endpoints[0], first.clusters["cart.default.mesh:80"]
    )
    second = serve(engine, replace(snapshot, version=2), first)
    assert (
        second.pool(
            second.listening["out"],
            snapshot.clusters[0].endpoints[0],
            second.clusters["cart.default.mesh:80"],
        )
        is pool
    )


async def test_pools_end_with_their_certificate_or_their_endpoint(
    engine: Engine, snapshot: Snapshot, issuer: Issuer
) -> None:
    endpoint = snapshot.clusters[0].endpoints[0]
    moved = replace(snapshot.clusters[0], endpoints=(replace(endpoint, port=2),))
    for changed in (
        replace(snapshot, certificates=(issuer.certificate("web"),)),
        replace(snapshot, clusters=(moved, *snapshot.clusters[1:])),
    ):
        runtime = serve(engine, snapshot)
        pool = runtime.pool(runtime.listening["out"], endpoint, runtime.clusters["cart.default.mesh:80"])
        serve(engine, changed, runtime)
        assert pool not in engine.pools.values()
        assert pool.unused


async def test_the_way_to_an_endpoint_is_found_once_and_ends_with_the_snapshot(
    engine: Engine, snapshot: Snapshot, issuer: Issuer
) -> None:
    first = serve(engine, snapshot)
    clusters = first.clusters["cart.default.mesh:80"]
    (load,) = clusters.balancer.loads.values()
    leg = first.leg(first.listening["out"], clusters, load)
    assert first.leg(first.listening["out"], clusters, load) is leg
    assert leg.pool is first.pool(first.listening["out"], load.endpoint, clusters)
    second = serve(engine, replace(snapshot, certificates=(issuer.certificate("web"),)), first)
    assert second.leg(second.listening["out"], clusters, load).pool is not leg.pool, (
        "the certificate is another"
    )
    with pytest.raises(NoCertificateError):
        second.leg(second.listening["anonymous"], clusters, load)


async def test_a_caller_without_a_certificate_gets_no_pool(engine: Engine, snapshot: Snapshot) -> None:
    runtime = serve(engine, snapshot)
    with pytest.raises(NoCertificateError):
        runtime.pool(
            runtime.listening["anonymous"], snapshot.clusters[0].endpoints[0], runtime.clusters["cart.default.mesh:80"]
        )  # fmt: skip


async def test_what_was_learned_of_a_cluster_survives_until_it_is_gone(
    engine: Engine, snapshot: Snapshot
) -> None:
    first = serve(engine, snapshot)
    known = first.clusters["cart.default.mesh:80"]
    second = serve(engine, replace(snapshot, version=2), first)
    assert second.clusters["cart.default.mesh:80"] is known
    empty = serve(engine, replace(snapshot, clusters=(), destinations=()), second)
    assert serve(engine, snapshot, empty).clusters["cart.default.mesh:80"] is not known


async def test_a_refused_snapshot_changes_nothing(engine: Engine, snapshot: Snapshot) -> None:
    runtime = serve(engine, snapshot)
    limits_before = runtime.clusters["cart.default.mesh:80"].breaker.limits
    changed = replace(snapshot.clusters[0], breaker=replace(snapshot.clusters[0].breaker, requests_max=1))
    broken = replace(snapshot, clusters=(changed,))  # the other destinations' clusters are gone
    with pytest.raises(UnservableError, match="not in the snapshot"):
        Runtime.build(engine, broken, runtime, 0.0)
    assert engine.runtime is runtime
    assert runtime.clusters["cart.default.mesh:80"].breaker.limits is limits_before


async def test_revocations_count_for_handshakes(
    engine: Engine, snapshot: Snapshot, spiffe: Callable[[str], str]
) -> None:
    node = bytes(range(16))
    peer = Svid(
        id=parse_spiffe(spiffe("batch")), spiffe=spiffe("batch"), node=node, serial=b"\x01\xff", not_before=0,
        not_after=1, public_der=b"",
    )  # fmt: skip
    other = spiffe_node(TRUST_DOMAIN, bytes(16))
    serve(engine, replace(snapshot, revoked=(spiffe("web"), "serial:01fe", other)))
    engine.check_peer(peer)
    for revoked in (peer.spiffe, "serial:01ff", spiffe_node(TRUST_DOMAIN, node)):
        serve(engine, replace(snapshot, revoked=(revoked,)))
        with pytest.raises(RevokedError):
            engine.check_peer(peer)


async def test_an_inbound_service_without_its_certificate_is_not_offered(
    engine: Engine, snapshot: Snapshot, issuer: Issuer, spiffe: Callable[[str], str]
) -> None:
    service = InboundService(
        sni="echo.default.mesh", service="echo", namespace="default", port=80, protocol="http", identity=spiffe("echo"),
        app_host="127.0.0.1", app_port=1,
    )  # fmt: skip
    listening = replace(snapshot, inbound=(service,), listeners=(Listener(name="in", kind="inbound"),))
    runtime = serve(engine, listening)
    assert repr(runtime.server_context) == f"ServerContext({TRUST_DOMAIN}, 0 names, client required)"
    again = serve(engine, replace(listening, version=2), runtime)
    assert again.server_context is runtime.server_context, "nothing changed"
    issued = serve(engine, replace(listening, certificates=(issuer.certificate("echo"),)), again)
    assert repr(issued.server_context) == f"ServerContext({TRUST_DOMAIN}, 1 names, client required)"
