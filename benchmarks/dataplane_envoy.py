"""Envoy as a sidecar pair: what Istio would have it do, as static configuration.

Each request is routed, judged by the RBAC filter (by principal where there is TLS), told apart by
`x-forwarded-client-cert`, counted, and sent to a cluster with outlier detection and circuit breakers.
"""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.dataplane_identities import Identities
from benchmarks.dataplane_systems import FORBIDDEN, Backends, Entry, Running, System, free_ports, spawn
from benchmarks.dataplane_tools import program

_TYPE: Final = "type.googleapis.com/envoy"
_FILTERS: Final = f"{_TYPE}.extensions.filters"
_HTTP2: Final = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


def _tls(identities: Identities, shown: str, peer: dict[str, str], alpn: list[str]) -> dict[str, Any]:
    folder = identities.folder
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": alpn,
        "tls_certificates": [
            {
                "certificate_chain": {"filename": f"{folder}/{shown}.pem"},
                "private_key": {"filename": f"{folder}/{shown}.key"},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": f"{folder}/root.pem"},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": peer}],
        },
    }


def _socket_out(identities: Identities, alpn: list[str]) -> dict[str, Any]:
    tls = _tls(identities, "web", {"exact": identities.spiffe("far")}, alpn)
    typed = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": tls,
        "sni": "far.default.mesh",
    }
    return {"name": "tls", "typed_config": typed}


def _socket_in(identities: Identities, alpn: list[str]) -> dict[str, Any]:
    tls = _tls(identities, "far", {"prefix": "spiffe://bench.local/"}, alpn)
    typed = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": tls,
        "require_client_certificate": True,
        "disable_stateless_session_resumption": True,
    }
    return {"name": "tls", "typed_config": typed}


def _rules(web: str | None, *, paths: bool) -> dict[str, Any]:
    """Allow `web` (None: whoever it is, on this host) what is not forbidden."""
    principal: dict[str, Any] = {"any": True}
    if web is not None:
        principal = {"authenticated": {"principal_name": {"exact": web}}}
    permission: dict[str, Any] = {"any": True}
    if paths:
        permission = {"not_rule": {"url_path": {"path": {"prefix": FORBIDDEN}}}}
    return {
        "action": "ALLOW",
        "policies": {"web-only": {"permissions": [permission], "principals": [principal]}},
    }


def _http(cluster: str, web: str | None) -> dict[str, Any]:
    manager = f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "120s"}}
    filters = [
        {
            "name": "rbac",
            "typed_config": {
                "@type": f"{_FILTERS}.http.rbac.v3.RBAC",
                "rules": _rules(web, paths=True),
            },
        },
        {"name": "router", "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"}},
    ]
    typed: dict[str, Any] = {
        "@type": manager,
        "stat_prefix": cluster,
        "http_filters": filters,
        "normalize_path": True,
        "merge_slashes": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    if web is not None:
        typed |= {
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"uri": True},
        }
    return {"name": "http", "typed_config": typed}


def _tcp(cluster: str, web: str | None) -> list[dict[str, Any]]:
    rbac = {
        "@type": f"{_FILTERS}.network.rbac.v3.RBAC",
        "stat_prefix": "rbac",
        "rules": _rules(web, paths=False),
    }
    proxy = {
        "@type": f"{_FILTERS}.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": cluster,
        "cluster": cluster,
    }
    return [{"name": "rbac", "typed_config": rbac}, {"name": "tcp", "typed_config": proxy}]


def _listener(port: int, filters: list[dict[str, Any]], tls: dict[str, Any] | None = None) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": filters}
    if tls is not None:
        chain["transport_socket"] = tls
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": f"port-{port}", "address": address, "filter_chains": [chain]}


def _cluster(name: str, port: int, tls: dict[str, Any] | None = None, *, http2: bool = False) -> Any:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    cluster: dict[str, Any] = {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "outlier_detection": {},
        "circuit_breakers": {"thresholds": [{"max_requests": 1024, "max_retries": 3}]},
    }
    if tls is not None:
        cluster["transport_socket"] = tls
    if http2:
        cluster["typed_extension_protocol_options"] = _HTTP2
    return cluster


class Envoy(System):
    """Two Envoys of one worker thread each."""

    name = "envoy"

    async def start(
        self, folder: Path, identities: Identities, backends: Backends, stack: AsyncExitStack
    ) -> Running:
        web = identities.spiffe("web")
        plain, mtls, grpc, grpc_mtls, tcp, tcp_mtls, sink = outer = free_ports(7)
        far, far_grpc, far_tcp, far_sink = inner = free_ports(4)
        a = {
            "listeners": [
                _listener(plain, [_http("app", None)]),
                _listener(mtls, [_http("far", None)]),
                _listener(grpc, [_http("app-grpc", None)]),
                _listener(grpc_mtls, [_http("far-grpc", None)]),
                _listener(sink, [_http("far-sink", None)]),
                _listener(tcp, _tcp("app-tcp", None)),
                _listener(tcp_mtls, _tcp("far-tcp", None)),
            ],
            "clusters": [
                _cluster("app", backends.http),
                _cluster("app-grpc", backends.grpc, http2=True),
                _cluster("app-tcp", backends.tcp),
                _cluster("far", far, _socket_out(identities, [])),
                _cluster("far-sink", far_sink, _socket_out(identities, [])),
                _cluster("far-grpc", far_grpc, _socket_out(identities, ["h2"]), http2=True),
                _cluster("far-tcp", far_tcp, _socket_out(identities, [])),
            ],
        }
        b = {
            "listeners": [
                _listener(far, [_http("app", web)], _socket_in(identities, [])),
                _listener(far_sink, [_http("app-sink", web)], _socket_in(identities, [])),
                _listener(far_grpc, [_http("app-grpc", web)], _socket_in(identities, ["h2"])),
                _listener(far_tcp, _tcp("app-tcp", web), _socket_in(identities, [])),
            ],
            "clusters": [
                _cluster("app", backends.http),
                _cluster("app-sink", backends.sink),
                _cluster("app-grpc", backends.grpc, http2=True),
                _cluster("app-tcp", backends.tcp),
            ],
        }
        pids = []
        for side, resources, ports in (("a", a, outer), ("b", b, inner)):
            config = folder / f"envoy-{side}.json"
            config.write_text(json.dumps({"static_resources": resources}))
            pids.append(
                await spawn(
                    stack, folder / f"envoy-{side}.log", ports, program("envoy"), "-c", str(config),
                    "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning",
                )
            )  # fmt: skip
        return Running(
            name=self.name,
            a=(pids[0],),
            b=(pids[1],),
            entries={
                "plain": Entry(port=plain, host="near", hops="a"),
                "mtls": Entry(port=mtls, host="far", hops="ab"),
                "inbound": Entry(port=far, host="far.default.mesh", hops="b"),
                "sink": Entry(port=sink, host="far", hops="ab"),
                "grpc": Entry(port=grpc, host="near-grpc", hops="a"),
                "grpc_mtls": Entry(port=grpc_mtls, host="far-grpc", hops="ab"),
                "tcp": Entry(port=tcp, host="", hops="a"),
                "tcp_mtls": Entry(port=tcp_mtls, host="", hops="ab"),
            },
        )
