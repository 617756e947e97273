"""A mesh of two engines: Envoy is the caller's proxy, or that of the application, and the other one is ours.

Between them is mTLS with HTTP/2 by ALPN, as sidecars of others speak it; grpcio is at both ends.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from proxy.snapshot import Authorization, AuthzPolicy, AuthzRule, Endpoint, Operation
from tests.loopback import reserved_port

from .certificates import spiffe
from .greeter import MIB, Greeter, Stub, refused
from .test_differential import program, running
from .twohosts import Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

TYPE = "type.googleapis.com/envoy"
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


def common(folder: Path, expected: str) -> dict[str, Any]:
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [
            {
                "certificate_chain": {"filename": f"{folder}/own.pem"},
                "private_key": {"filename": f"{folder}/own.key"},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": f"{folder}/root.pem"},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": expected}}],
        },
    }


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@asynccontextmanager
async def envoy(
    mesh: Mesh, folder: Path, account: str, to: int, *, inbound: str = "", outbound: str = ""
) -> AsyncIterator[int]:
    """Its port. As `account`, it takes HTTP/2 in TLS from `inbound`, or in plain, and sends it to the port `to`: in TLS
    to `outbound`, or in plain."""
    certificate = mesh.certificate(account)
    (folder / "own.pem").write_bytes(certificate.chain_pem)
    (folder / "own.key").write_bytes(certificate.key_pem)
    (folder / "root.pem").write_bytes(mesh.root.bundle_pem)
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "there", "timeout": "0s"}}],
                }
            ]
        },
    }
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    cluster: dict[str, Any] = {
        "name": "there",
        "typed_extension_protocol_options": HTTP2,
        "load_assignment": {
            "cluster_name": "there",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(to)}}]}],
        },
    }
    if inbound:
        typed = {"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"}
        tls = typed | {"common_tls_context": common(folder, inbound), "require_client_certificate": True}
        chain["transport_socket"] = {"name": "tls", "typed_config": tls}
    if outbound:
        typed = {"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
        tls = typed | {"common_tls_context": common(folder, outbound), "sni": "echo.default.mesh"}
        cluster["transport_socket"] = {"name": "tls", "typed_config": tls}
    with reserved_port() as port:
        resources = {
            "listeners": [{"name": "in", "address": address(port), "filter_chains": [chain]}],
            "clusters": [cluster],
        }
        config = folder / "envoy.json"
        config.write_text(json.dumps({"static_resources": resources}))
        flags = ("-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error")
        async with running([program("envoy"), *flags], port, folder / "log"):
            yield port


async def exchange_everything(stub: Stub) -> None:
    assert await stub.unary("Unary", b"hello") == b"hello"
    assert [part async for part in stub.spread("Spread", b"50")] == [b"%d" % n for n in range(50)]
    assert await stub.collect("Collect", iter([b"a", b"b"])) == b"a,b"
    chat = stub.chat()
    for number in range(5):
        await chat.write(b"%d" % number)
        assert await chat.read() == b"re: %d" % number
    await chat.done_writing()
    message = bytes(range(256)) * (MIB // 256)
    assert await stub.unary("Unary", message) == message
    error = await refused(stub.unary("Fail", b"5"))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "wörds % of\nthe server")


async def test_envoy_calls_a_service_of_ours(mesh: Mesh, greeter: Greeter, tmp_path: Path) -> None:
    deny = AuthzPolicy(
        name="default/no", variants=((AuthzRule(operations=(Operation(paths=("/t.Echo/Early",)),)),),)
    )
    service = Service("echo", {"b": greeter.port}, protocol="grpc", authorization=Authorization(deny=(deny,)))
    await mesh.serve(service)
    async with (
        envoy(mesh, tmp_path, "web", mesh.port("b/in"), outbound=spiffe("echo")) as port,
        Stub(port) as stub,
    ):
        await exchange_everything(stub)
        error = await refused(stub.collect("Early"))
        assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "RBAC: access denied")
    assert greeter.metadata[0]["x-forwarded-client-cert"] == f"By={spiffe('echo')};URI={spiffe('web')}"
    await mesh.log_line("b", path="/t.Echo/Chat", protocol="HTTP/2", source=spiffe("web"), code=200)


async def test_we_call_a_service_of_envoy(mesh: Mesh, greeter: Greeter, tmp_path: Path) -> None:
    async with envoy(mesh, tmp_path, "echo", greeter.port, inbound=spiffe("web")) as port:
        there = Endpoint(
            id="x/echo", node="x", host="127.0.0.1", port=port, sni="echo.default.mesh", identity=spiffe("echo")
        )  # fmt: skip
        await mesh.serve(Service("echo", {}, protocol="grpc", endpoints=(there,)))
        async with Stub(mesh.port()) as stub:
            await exchange_everything(stub)
    assert "x-request-id" in greeter.metadata[0]
