"""Envoy takes our leafs in a mutual handshake, as server and as client, and refuses the others.

Its TLS context judges the chain, the dates and, with `match_typed_subject_alt_names`, the names: one that matches is
enough, so two names pass. That there is exactly one, the network RBAC filter sees before any byte is handed on: to
it the names of a caller are one text with commas between, and no SPIFFE ID has a comma. Towards upstreams there is no
such filter: there an exact name holds, and that nobody has two is the issuance policy's promise (`draft_svid`).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from trust.bundle import TrustBundle
from trust.tls import server_context

TYPE = "type.googleapis.com/envoy"
ONE_OF_OURS = r"spiffe://cluster\.local/[^,]+"


def common(directory: Path, shown: str, names: dict[str, Any]) -> dict[str, Any]:
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"filename": f"{directory}/{shown}.pem"},
                "private_key": {"filename": f"{directory}/{shown}.key"},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": f"{directory}/root.pem"},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": names}],
        },
    }


def exactly_one_name() -> dict[str, Any]:
    """The network RBAC filter: allow a caller whose names, all of them, are one SPIFFE ID of ours."""
    ssl_inputs = f"{TYPE}.extensions.matching.common_inputs.ssl.v3"

    def action(name: str, verdict: str) -> dict[str, Any]:
        typed = {"@type": f"{TYPE}.config.rbac.v3.Action", "name": name, "action": verdict}
        return {"action": {"name": "verdict", "typed_config": typed}}

    predicate = {
        "single_predicate": {
            "input": {"name": "names", "typed_config": {"@type": f"{ssl_inputs}.UriSanInput"}},
            "value_match": {"safe_regex": {"google_re2": {}, "regex": ONE_OF_OURS}},
        }
    }
    return {
        "name": "one-name",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.network.rbac.v3.RBAC",
            "stat_prefix": "one",
            "matcher": {
                "matcher_list": {"matchers": [{"predicate": predicate, "on_match": action("one", "ALLOW")}]},
                "on_no_match": action("other", "DENY"),
            },
        },
    }


def listener(port: int, filters: list[dict[str, Any]], tls: dict[str, Any] | None) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": filters}
    if tls is not None:
        typed = {"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"}
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": typed | {"common_tls_context": tls, "require_client_certificate": True},
        }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": f"port-{port}", "address": address, "filter_chains": [chain]}


def hello() -> dict[str, Any]:
    routes = [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
    ]
    return {
        "name": "http",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "http_filters": [
                {
                    "name": "router",
                    "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"},
                }
            ],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        },
    }


def forward(cluster: str) -> dict[str, Any]:
    typed = {"@type": f"{TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy"}
    return {"name": "tcp", "typed_config": typed | {"stat_prefix": "tcp", "cluster": cluster}}


def upstream(name: str, port: int, tls: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": tls,
            },
        },
    }


def envoy(software: Any, directory: Path, ports: list[int], resources: dict[str, Any]) -> Any:
    (directory / "envoy.json").write_text(json.dumps({"static_resources": resources}))
    command = (
        "-c",
        f"{directory}/envoy.json",
        "--use-dynamic-base-id",
        "--concurrency",
        "1",
        "-l",
        "warning",
    )
    return software.running(ports, directory / "log", software.program("envoy"), *command)


@pytest.fixture
async def serving(
    cart: Any, software: Any, tmp_path: Path, reserve: Callable[[], int]
) -> AsyncIterator[tuple[int, int]]:
    """(the port judged by the TLS context alone, the port with the filter)"""
    software.write_identity(tmp_path, "cart", cart.good())
    (tmp_path / "root.pem").write_bytes(cart.live.root_pem)
    plain, filtered = reserve(), reserve()
    tls = common(tmp_path, "cart", {"prefix": "spiffe://cluster.local/"})
    listeners = [
        listener(plain, [hello()], tls),
        listener(filtered, [exactly_one_name(), hello()], tls),
    ]
    async with envoy(software, tmp_path, [plain, filtered], {"listeners": listeners}):
        yield plain, filtered


async def test_a_good_leaf_is_taken_and_each_bad_one_is_refused_by_envoy_as_server(
    serving: tuple[int, int], web: Any, software: Any
) -> None:
    plain, filtered = serving
    for port in serving:
        answer = await software.get(port, web, web.good(), software.CART)
        assert answer.startswith("HTTP/1.1 200")
        for kind in ("forged", "of_another_root", "of_another_mesh", "expired", "of_another_domain"):
            assert await software.get(port, web, getattr(web, kind)(), software.CART) == "", kind
    assert await software.get(filtered, web, web.two_names(), software.CART) == ""
    # The words of this file's head: were this to change, so should they.
    assert "hello" in await software.get(plain, web, web.two_names(), software.CART)


async def test_our_side_refuses_an_envoy_that_shows_two_names(
    web: Any, cart: Any, software: Any, tmp_path: Path, reserve: Callable[[], int]
) -> None:
    software.write_identity(tmp_path, "cart", cart.two_names())
    (tmp_path / "root.pem").write_bytes(cart.live.root_pem)
    port = reserve()
    tls = common(tmp_path, "cart", {"prefix": "spiffe://cluster.local/"})
    async with envoy(software, tmp_path, [port], {"listeners": [listener(port, [hello()], tls)]}):
        with pytest.raises(software.ssl.SSLCertVerificationError, match="exactly one URI name"):
            await software.get(port, web, web.good(), software.CART)


async def test_envoy_as_client_takes_the_good_leaf_of_our_server_and_refuses_each_bad_one(
    web: Any, cart: Any, software: Any, tmp_path: Path, reserve: Callable[[], int]
) -> None:
    """Each of our servers shows one leaf; Envoy, as web, calls it as cart for whoever connects to its plain port."""
    kinds = ("good", "forged", "of_another_root", "of_another_mesh", "expired", "of_another_domain")
    callers: dict[str, list[str]] = {kind: [] for kind in kinds}
    software.write_identity(tmp_path, "web", web.good())
    (tmp_path / "root.pem").write_bytes(web.live.root_pem)
    bundle = TrustBundle(cart.live.trust_domain, [cart.live.root_der])
    listeners, clusters, ports = [], [], {}
    async with AsyncExitStack() as servers:
        for kind in kinds:

            async def answer(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str = kind
            ) -> None:
                callers[kind].append(writer.get_extra_info("ssl_object").peer.spiffe)
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                await writer.drain()
                writer.close()

            context = server_context(bundle=bundle, default=getattr(cart, kind)())
            server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
            await servers.enter_async_context(server)
            ports[kind] = reserve()
            tls = common(tmp_path, "web", {"exact": software.CART})
            listeners.append(listener(ports[kind], [forward(kind)], None))
            clusters.append(upstream(kind, server.sockets[0].getsockname()[1], tls))
        resources = {"listeners": listeners, "clusters": clusters}
        async with envoy(software, tmp_path, list(ports.values()), resources):
            for kind in kinds:
                callers[kind].clear()  # of those who only looked whether the port is open
                reader, writer = await asyncio.open_connection("127.0.0.1", ports[kind])
                writer.write(software.REQUEST)
                async with asyncio.timeout(software.PATIENCE_S):
                    try:
                        answered = (await reader.read()).decode()
                    except ConnectionError:
                        answered = ""
                writer.close()
                assert ("hello" in answered) is (kind == "good"), kind
            assert set(callers["good"]) == {software.WEB}
