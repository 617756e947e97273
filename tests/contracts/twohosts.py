"""A mesh of two hosts with real workers, sockets and certificates.

Nothing here knows which engine is tested: `PLANES` names them, and each test of the contract runs on each.
"""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from proxy.embedded.plane import EmbeddedPlane
from proxy.plane import Applied, Plane, Rejected, Series, SeriesDelta
from proxy.snapshot import (
    Authorization,
    Certificate,
    Cluster,
    Destination,
    Endpoint,
    InboundService,
    Listener,
    Snapshot,
)
from trust.bundle import TrustBundle
from trust.identity import format_id
from trust.tls import Caller

from .certificates import TRUST_DOMAIN, MeshRoot, spiffe
from .client import Connection, Reply, call, connect
from .patience import TIMEOUT_S, until

PLANES: dict[str, Callable[..., Plane]] = {"embedded": EmbeddedPlane}
LOCAL, REMOTE = "a", "b"  # callers are on the former
BOTH = pytest.mark.parametrize("where", [LOCAL, REMOTE])  # hosts that an application is on


def listening_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(256)
    return sock


@dataclass
class Service:
    """`on` maps hosts ("a", "b") to the application's port there; what is not on "a" is reached over mTLS."""

    name: str
    on: dict[str, int]
    protocol: str = "http"
    port: int = 80
    authorization: Authorization = field(default_factory=Authorization)
    cluster: dict[str, Any] = field(default_factory=dict)
    destination: dict[str, Any] = field(default_factory=dict)
    inbound: dict[str, Any] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()  # besides those of `on`
    identity: str = ""  # what callers expect, when that is not the service's own

    @property
    def cluster_name(self) -> str:
        return f"{self.name}.default.mesh:{self.port}"


class Mesh:
    """Two hosts: callers are on "a"."""

    def __init__(self, root: MeshRoot, planes: dict[str, Plane], logs: dict[str, Path]) -> None:
        self.root = root
        self.planes = planes
        self.logs = logs
        self.version = 0
        self.sockets = {name: listening_socket() for name in ("a/out", "a/in", "b/out", "b/in")}
        self.certificates: dict[str, Certificate] = {}
        self.snapshots: dict[str, Snapshot] = {}

    def port(self, name: str = "a/out") -> int:
        return int(self.sockets[name].getsockname()[1])

    def certificate(self, account: str) -> Certificate:
        if account not in self.certificates:
            self.certificates[account] = self.root.certificate(account)
        return self.certificates[account]

    def endpoint(self, service: Service, host: str) -> Endpoint:
        return Endpoint(
            id=f"{host}/{service.cluster_name}", node=host, host="127.0.0.1", port=self.port(f"{host}/in"),
            sni=f"{service.name}.default.mesh", identity=service.identity or spiffe(service.name),
            local=f"{service.name}.default.mesh" if host == "a" else "",
        )  # fmt: skip

    def snapshot(
        self, host: str, services: tuple[Service, ...], *, caller: str = "web", upstreams: tuple[str, ...] = (),
        **changes: Any,
    ) -> Snapshot:  # fmt: skip
        local = [service for service in services if host in service.on]
        accounts = {caller, *(service.name for service in local)}
        listeners = [
            Listener(name="in", kind="inbound"),
            Listener(name="out", kind="outbound", caller=spiffe(caller), caller_service=caller),
        ]
        if host == "a":
            for name in upstreams:
                if f"a/{name}" not in self.sockets:
                    self.sockets[f"a/{name}"] = listening_socket()
                target = next(s for s in services if s.name == name)
                listeners.append(
                    Listener(
                        name=name, kind="upstream", caller=spiffe(caller), caller_service=caller,
                        destination=target.cluster_name,
                    )
                )  # fmt: skip
        snapshot = Snapshot(
            version=self.version, node=format_id(self.root.identity.id), node_name=host, trust_domain=TRUST_DOMAIN,
            trust_bundle_pem=self.root.bundle_pem,
            listeners=tuple(listeners),
            certificates=tuple(self.certificate(account) for account in sorted(accounts)),
            inbound=tuple(
                InboundService(
                    **{
                        "sni": f"{s.name}.default.mesh", "service": s.name, "namespace": "default", "port": s.port,
                        "protocol": s.protocol, "identity": spiffe(s.name), "app_host": "127.0.0.1",
                        "app_port": s.on[host], "authorization": s.authorization, **s.inbound,
                    }
                )
                for s in local
            ),
            clusters=tuple(
                Cluster(
                    name=s.cluster_name, service=s.name, namespace="default", protocol=s.protocol,
                    endpoints=(*(self.endpoint(s, each) for each in s.on), *s.endpoints), **s.cluster,
                )
                for s in services
            ),
            destinations=tuple(
                Destination(
                    service=s.name, namespace="default", port=s.port, protocol=s.protocol, cluster=s.cluster_name,
                    **s.destination,
                )
                for s in services
            ),
        )  # fmt: skip
        if host == "b":  # callers are on "a": nothing leaves "b"
            snapshot = replace(snapshot, clusters=(), destinations=())
        return replace(snapshot, **changes)

    async def apply(self, host: str, snapshot: Snapshot) -> Applied | Rejected:
        self.snapshots[host] = snapshot
        return await self.planes[host].apply(
            snapshot,
            {listener.name: self.sockets[f"{host}/{listener.name}"] for listener in snapshot.listeners},
        )

    async def serve(self, *services: Service, **changes: Any) -> None:
        """Both hosts serve these and nothing else."""
        self.version += 1
        for host in ("b", "a"):
            snapshot = self.snapshot(host, services, **changes)
            outcome = await self.apply(host, snapshot)
            assert outcome == Applied(version=self.version), outcome

    async def call(self, **request: Any) -> Reply:
        return await call(self.port(), **request)

    @asynccontextmanager
    async def inbound(
        self, service: str, *, account: str = "web", sni: str | None = None, expecting: str | None = None
    ) -> AsyncIterator[Connection]:
        """A connection straight to the inbound listener of "b"."""
        caller = Caller(
            certificate=self.certificate(account),
            bundle=TrustBundle.from_pem(TRUST_DOMAIN, self.root.bundle_pem),
        )
        context = caller.expecting(expecting or spiffe(service))
        name = f"{service}.default.mesh" if sni is None else sni
        async with connect(self.port("b/in"), ssl=context, server_hostname=name) as connection:
            yield connection

    async def log_line(self, host: str, **wanted: Any) -> dict[str, Any]:
        """The first access-log line with these fields, once it is there."""

        def found() -> dict[str, Any] | None:
            for line in self.logs[host].read_text().splitlines():
                entry: dict[str, Any] = json.loads(line)
                if all(entry.get(name) == value for name, value in wanted.items()):
                    return entry
            return None

        entry: dict[str, Any] = await until(found, f"a log line with {wanted}")
        return entry

    async def observed(self, host: str, **wanted: Any) -> tuple[Series, SeriesDelta]:
        """The first series with these labels, once it is reported."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            for series, delta in self.planes[host].observations().series.items():
                if all(getattr(series, name) == value for name, value in wanted.items()):
                    return series, delta
            await asyncio.sleep(0.05)
        raise AssertionError(f"no series with {wanted}")

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()
