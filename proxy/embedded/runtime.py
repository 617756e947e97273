"""A snapshot made ready to serve: names resolved, rules and policies compiled, certificates loaded.

`build` does everything that can fail and touches nothing that serves; `commit` cannot fail, and ends with the old
runtime replaced. Requests look at `engine.runtime` when they begin, so each sees one snapshot for its decisions.

Invariant: a runtime never changes after `commit`, but for caches of what it already determines.
"""

import hashlib
import re
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from proxy import snapshot as seam
from proxy.authorize import Decision, RequestFacts, compile_authorization
from proxy.breaker import Breaker
from proxy.embedded.clusters import Cluster
from proxy.embedded.dial import Place
from proxy.embedded.heads import compile_edit
from proxy.embedded.pool import Pool
from proxy.embedded.telemetry import Edge, Recorder, Security
from proxy.retry import RetryRules
from proxy.route import DestinationRoutes, compile_destination
from proxy.snapshot import (
    MESH_SUFFIX,
    Certificate,
    CircuitBreaker,
    Destination,
    Endpoint,
    InboundService,
    Listener,
    RouteRule,
    Snapshot,
)
from trust.bundle import TrustBundle
from trust.errors import TrustError
from trust.tls import Caller, ServerContext, server_context

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.exchange import Exchange

__all__ = [
    "Cluster",
    "Inbound",
    "Listening",
    "NoCertificateError",
    "Runtime",
    "Target",
    "UnservableError",
    "source_of",
]

NAMES_CACHED_MAX: Final = 4096  # Host values resolved, per runtime
_CALLERS_CACHED_MAX: Final = 1024
_PATH: Final = re.compile(r"/[\x21-\x7e]*")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._:\[\]-]+")

PoolKey = tuple[str, ...]
Source = tuple[str, str, str]  # service, namespace, principal


class UnservableError(ValueError):
    """The snapshot breaks its own invariants. What serves goes on serving."""


class NoCertificateError(Exception):
    """The caller's certificate is still being issued: calls in its name fail closed."""


@lru_cache(maxsize=4096)
def source_of(principal: str) -> Source:
    """What metrics call a SPIFFE ID: account, namespace, and itself."""
    parts = principal.removeprefix("spiffe://").split("/")
    if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa":
        return parts[4], parts[2], principal
    return "", "", principal


class Target:
    """A `Destination` with its rules compiled."""

    __slots__ = ("destination", "name", "routes")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.name = f"{destination.service}.{destination.namespace}{MESH_SUFFIX}:{destination.port}"
        self.routes: DestinationRoutes = compile_destination(destination)
        for rule in (*destination.rules, *(rule for _, rules in destination.caller_rules for rule in rules)):
            _check_filters(rule)


def _check_filters(rule: RouteRule) -> None:
    for edit in (rule.request_headers, rule.response_headers):
        if edit is not None:
            compile_edit(edit)
    for part in (rule.rewrite, rule.redirect):
        if part is None:
            continue
        for path in (part.path, part.path_prefix):
            if path is not None and not _PATH.fullmatch(path):
                raise ValueError(f"{rule.name}: {path!r} is no path to write")
        if part.hostname is not None and not _AUTHORITY.fullmatch(part.hostname):
            raise ValueError(f"{rule.name}: {part.hostname!r} is no host name")


class Listening:
    """A listener's identity and what its requests mean."""

    __slots__ = ("_edges", "identity", "listener", "namespace", "source", "target")

    def __init__(self, listener: Listener, target: Target | None) -> None:
        self.listener = listener
        self.identity = listener.caller
        self.namespace = listener.caller_namespace
        self.source: Source = (listener.caller_service, listener.caller_namespace, listener.caller)
        self.target = target
        self._edges: dict[tuple[str, str], Edge] = {}

    def edge(
        self, recorder: Recorder, target: Target | None, cluster: Cluster | None, endpoint: Endpoint | None
    ) -> Edge:
        """Whose count a request is: the backend's when one was chosen, else the destination's."""
        name = cluster.name if cluster is not None else target.name if target is not None else ""
        local = endpoint is None or endpoint.local != ""
        key = (name, "" if endpoint is None else endpoint.identity + ("/" if local else ""))
        edge = self._edges.get(key)
        if edge is None:
            if cluster is not None:
                destination: Source = (cluster.cluster.service, cluster.cluster.namespace, "")
                protocol = cluster.cluster.protocol
            elif target is not None:
                destination = (target.destination.service, target.destination.namespace, "")
                protocol = target.destination.protocol
            else:
                destination, protocol = ("", "", ""), "http"
            if endpoint is not None:
                destination = (*destination[:2], endpoint.identity)
            edge = self._edges[key] = recorder.edge(
                "source",
                source=self.source,
                destination=destination,
                protocol=protocol,
                security="none" if local else "mutual_tls",
            )
        return edge


class Inbound:
    """A service of this host with its policies compiled."""

    __slots__ = ("_authorization", "_certs", "_edges", "_always", "application", "name", "service")

    def __init__(self, service: InboundService) -> None:
        self.service = service
        self.name = f"{service.service}.{service.namespace}{MESH_SUFFIX}:{service.port}"
        self.application = f"{service.app_host}:{service.app_port}"
        self._authorization = compile_authorization(service.authorization, service.protocol)
        policies = service.authorization
        # Most services have no policy: then there is nothing to ask for each request.
        self._always = None if policies.deny or policies.allow else self._authorization.decide(RequestFacts())
        self._edges: dict[tuple[Source, str], Edge] = {}
        self._certs: dict[str, bytes] = {}

    def authorize(self, exchange: "Exchange", principal: str, ip: str) -> Decision:
        """May this request pass?"""
        if self._always is not None:
            return self._always
        request = exchange.request
        return self._authorization.decide(
            RequestFacts(
                principal=principal, ip=ip, port=self.service.port, sni=self.service.sni,
                host=request.host.decode("latin-1"), method=request.method, path=exchange.path, headers=exchange.view,
            )
        )  # fmt: skip

    def authorize_connection(self, principal: str, ip: str) -> Decision:
        """May this TCP connection pass?"""
        return self._authorization.decide(
            RequestFacts(principal=principal, ip=ip, port=self.service.port, sni=self.service.sni)
        )

    def forwarded_cert(self, caller: str) -> bytes:
        """The x-forwarded-client-cert line (Envoy's format) the application reads."""
        line = self._certs.get(caller)
        if line is None:
            line = f"x-forwarded-client-cert: By={self.service.identity};URI={caller}\r\n".encode("latin-1")
            if len(self._certs) < _CALLERS_CACHED_MAX:
                self._certs[caller] = line
        return line

    def edge(self, recorder: Recorder, source: Source, security: Security) -> Edge:
        edge = self._edges.get((source, security))
        if edge is None:
            service = self.service
            edge = recorder.edge(
                "destination",
                source=source,
                destination=(service.service, service.namespace, service.identity),
                protocol=service.protocol,
                security=security,
            )
            if len(self._edges) < _CALLERS_CACHED_MAX:
                self._edges[source, security] = edge
        return edge


class Runtime:
    """One snapshot, served. Make with `build`, then `commit`."""

    __slots__ = (
        "_commits", "_engine", "_names", "_pools", "_tls_callers", "_tls_key", "clusters", "inbound", "listening",
        "revoked", "server_context", "snapshot", "targets",
    )  # fmt: skip

    def __init__(self, engine: "Engine", snapshot: Snapshot) -> None:
        self._engine = engine
        self.snapshot = snapshot
        self.clusters: dict[str, Cluster] = {}
        self.inbound: dict[str, Inbound] = {}
        self.listening: dict[str, Listening] = {}
        self.targets: dict[str, Target] = {}
        self.revoked = frozenset(snapshot.revoked)
        self.server_context: ServerContext | None = None
        self._names: dict[tuple[bytes, str], Target | None] = {}
        self._pools: dict[tuple[str, str], Pool] = {}
        self._tls_callers: dict[str, tuple[str, Caller]] = {}
        self._tls_key = ""
        self._commits: list[Callable[[], None]] = []

    @classmethod
    def build(
        cls, engine: "Engine", snapshot: Snapshot, previous: "Runtime | None", now_s: float
    ) -> "Runtime":
        """Everything that can fail. Raises UnservableError with the reason."""
        runtime = cls(engine, snapshot)
        try:
            runtime._build_clusters(now_s)
            runtime._build_destinations()
            runtime._build_inbound()
            runtime._build_listeners()
            runtime._build_tls(previous)
        except (TrustError, ValueError, ssl.SSLError) as error:
            raise UnservableError(str(error)) from error
        return runtime

    def commit(self) -> None:
        """Make this the runtime that serves."""
        engine = self._engine
        for commit in self._commits:
            commit()
        self._commits.clear()
        engine.clusters = self.clusters
        engine.troubled = {cluster for cluster in engine.troubled if cluster.name in self.clusters}
        engine.runtime = self
        engine.limits = self.snapshot.limits
        self._retire_pools()
        for stream in list(engine.streams):
            peer = stream.ssl_object.peer  # type: ignore[attr-defined]  # contexts of trust.tls make PeerObjects
            if peer is not None and (
                peer.spiffe in self.revoked or f"serial:{peer.serial.hex()}" in self.revoked
            ):
                engine.recorder.increment("connections_cut_revoked")
                stream.abort()

    # ------------------------------------------------------------------ building

    def _build_clusters(self, now_s: float) -> None:
        known = self._engine.clusters
        locals_known = {service.sni for service in self.snapshot.inbound}
        for cluster in self.snapshot.clusters:
            for endpoint in cluster.endpoints:
                if endpoint.local and endpoint.local not in locals_known:
                    raise UnservableError(
                        f"endpoint {endpoint.id} is said to be local, but {endpoint.local!r} is not"
                    )
            retry = RetryRules(cluster.retry)
            state = known.get(cluster.name)
            if state is None:
                state = Cluster(self._engine, cluster, retry, self.snapshot.zone, now_s)
            else:
                self._commits.append(_update(state, cluster, retry, now_s))
            self.clusters[cluster.name] = state

    def _build_destinations(self) -> None:
        for destination in self.snapshot.destinations:
            target = Target(destination)
            rules = (*destination.rules, *(rule for _, rules in destination.caller_rules for rule in rules))
            names = [destination.cluster, *(backend.cluster for rule in rules for backend in rule.backends)]
            for name in names:
                if name and name not in self.clusters:
                    raise UnservableError(
                        f"{target.name} refers to cluster {name!r}, which is not in the snapshot"
                    )
            self.targets[target.name] = target

    def _build_inbound(self) -> None:
        for service in self.snapshot.inbound:
            self.inbound[service.sni] = Inbound(service)

    def _build_listeners(self) -> None:
        for listener in self.snapshot.listeners:
            if listener.name in self.listening:
                raise UnservableError(f"two listeners are named {listener.name!r}")
            target = self.targets.get(listener.destination)
            if listener.kind == "upstream" and target is None:
                raise UnservableError(f"listener {listener.name!r} leads to unknown {listener.destination!r}")
            self.listening[listener.name] = Listening(listener, target)

    def _build_tls(self, previous: "Runtime | None") -> None:
        snapshot = self.snapshot
        inbound_wanted = any(listener.kind == "inbound" for listener in snapshot.listeners)
        if not snapshot.trust_bundle_pem:
            if inbound_wanted:
                raise UnservableError("an inbound listener needs a trust bundle")
            return
        engine = self._engine
        bundle = TrustBundle.from_pem(snapshot.trust_domain, snapshot.trust_bundle_pem)
        anchors = hashlib.sha256(
            snapshot.trust_domain.encode() + b"\0" + snapshot.trust_bundle_pem
        ).hexdigest()
        certificates = {certificate.identity: certificate for certificate in snapshot.certificates}
        for identity, certificate in certificates.items():
            key = _digest(anchors, certificate)
            known = previous._tls_callers.get(identity) if previous is not None else None
            if known is None or known[0] != key:
                known = (key, Caller(certificate=certificate, bundle=bundle, check=engine.check_peer))
            self._tls_callers[identity] = known
        if not inbound_wanted:
            return
        presented = {
            service.sni: certificates[service.identity]
            for service in snapshot.inbound
            if service.identity in certificates
        }
        self._tls_key = "/".join(
            [anchors, *(f"{sni}={_digest(anchors, each)}" for sni, each in sorted(presented.items()))]
        )
        if (
            previous is not None
            and previous.server_context is not None
            and previous._tls_key == self._tls_key
        ):
            self.server_context = previous.server_context
        else:
            self.server_context = server_context(bundle=bundle, identities=presented, check=engine.check_peer)

    # ------------------------------------------------------------------ names

    def resolve(self, host: bytes, namespace: str) -> Target | None:
        """`cart`, `cart.shop` or `cart.shop.mesh`, each with or without a port, as written in Host."""
        key = (host, namespace)
        try:
            return self._names[key]
        except KeyError:
            target = self._resolve(host.decode("latin-1").lower(), namespace)
            if len(self._names) < NAMES_CACHED_MAX:
                self._names[key] = target
            return target

    def _resolve(self, host: str, namespace: str) -> Target | None:
        name, colon, port = host.partition(":")
        if colon and not (port.isascii() and port.isdigit()):
            return None
        name = name.removesuffix(".")
        labels = name.removesuffix(MESH_SUFFIX).split(".") if name.endswith(MESH_SUFFIX) else name.split(".")
        if name.endswith(MESH_SUFFIX) and len(labels) != 2:
            return None
        if len(labels) == 1:
            service = labels[0]
        elif len(labels) == 2:
            service, namespace = labels
        else:
            return None
        if colon:
            return self.targets.get(f"{service}.{namespace}{MESH_SUFFIX}:{int(port[:5])}")
        candidates = [
            target
            for target in self.targets.values()
            if target.destination.service == service and target.destination.namespace == namespace
        ]
        spoken = [target for target in candidates if target.destination.protocol != "tcp"]
        return next(iter(spoken or candidates), None)

    # ------------------------------------------------------------------ connections

    def pool(self, listening: Listening, endpoint: Endpoint, cluster: Cluster) -> Pool:
        """The mTLS connections of this caller to this endpoint. Raises NoCertificateError."""
        pool = self._pools.get((listening.identity, endpoint.id))
        if pool is None:
            place = self.place(listening, endpoint)
            key = self._pool_key(self._tls_callers[listening.identity][0], endpoint)
            pool = self._engine.pools.get(key)
            if pool is None:
                pool = self._engine.pools[key] = Pool(self._engine, place, cluster.breaker)
            pool.connect_timeout_s = cluster.cluster.connect_timeout_s
            self._pools[listening.identity, endpoint.id] = pool
        return pool

    def place(self, listening: Listening, endpoint: Endpoint) -> Place:
        """Where an endpoint of another host is reached, in this caller's name. Raises NoCertificateError."""
        known = self._tls_callers.get(listening.identity)
        if known is None:
            raise NoCertificateError(f"no certificate for {listening.identity or 'this caller'} yet")
        context = known[1].expecting(endpoint.identity)
        return Place(host=endpoint.host, port=endpoint.port, context=context, server_name=endpoint.sni)

    def application_pool(self, inbound: Inbound) -> Pool:
        """The plain connections to an application of this host."""
        service = inbound.service
        pool = self._pools.get(("", service.sni))
        if pool is None:
            key = _application_key(service)
            pool = self._engine.pools.get(key)
            if pool is None:
                place = Place(host=service.app_host, port=service.app_port)
                pool = self._engine.pools[key] = Pool(self._engine, place, Breaker(CircuitBreaker()))
            self._pools["", service.sni] = pool
        return pool

    def _pool_key(self, certificate: str, endpoint: Endpoint) -> PoolKey:
        return (
            "mesh",
            certificate,
            endpoint.id,
            endpoint.host,
            str(endpoint.port),
            endpoint.sni,
            endpoint.identity,
        )

    def _retire_pools(self) -> None:
        """Let go of pools that hold an old certificate or lead to a place that is gone."""
        applications = {_application_key(inbound.service) for inbound in self.inbound.values()}
        certificates = {digest for digest, _ in self._tls_callers.values()}
        places = {
            (endpoint.id, endpoint.host, str(endpoint.port), endpoint.sni, endpoint.identity)
            for cluster in self.snapshot.clusters
            for endpoint in cluster.endpoints
        }
        pools = self._engine.pools
        for key in list(pools):
            if key not in applications and not (key[1] in certificates and key[2:] in places):
                pools.pop(key).retire()


def _update(state: Cluster, cluster: seam.Cluster, retry: RetryRules, now_s: float) -> Callable[[], None]:
    return lambda: state.update(cluster, retry, now_s)


def _digest(anchors: str, certificate: Certificate) -> str:
    parts = (anchors.encode(), certificate.chain_pem, certificate.key_pem)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _application_key(service: InboundService) -> PoolKey:
    return ("application", service.app_host, str(service.app_port))
