"""A snapshot made ready to serve: names resolved, rules and policies compiled, certificates loaded.

`build` does everything that can fail and touches nothing that serves; `commit` cannot fail, and ends with the old
runtime replaced. Requests look at `engine.runtime` when they begin, so each sees one snapshot for its decisions.

Invariant: a runtime never changes after `commit`, but for caches of what it already determines.
"""

import hashlib
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from proxy import snapshot as seam
from proxy.balance import EndpointLoad
from proxy.breaker import Breaker
from proxy.embedded.clusters import Cluster
from proxy.embedded.compiled import Inbound, Leg, Listening, Target, guilty_authorizations, guilty_routes
from proxy.embedded.dial import Place
from proxy.embedded.http2_pool import Http2Pool
from proxy.embedded.pool import Pool
from proxy.embedded.tls_identity import ACCEPTED, H2, HTTP_1_1, NOTHING, OFFERED, UPGRADE, TlsIdentity
from proxy.retry import RetryRules
from proxy.snapshot import MESH_SUFFIX, Certificate, CircuitBreaker, Endpoint, InboundService, Snapshot
from trust.bundle import TrustBundle
from trust.errors import TrustError
from trust.identity import spiffe_node
from trust.revocation import serial_subject
from trust.svid import Svid
from trust.tls import PeerObject, ServerContext, server_context

if TYPE_CHECKING:
    from proxy.embedded.carrier import Supplier
    from proxy.embedded.engine import Engine

NAMES_CACHED_MAX: Final = 4096  # Host values resolved, per runtime

PoolKey = tuple[str, ...]


class UnservableError(ValueError):
    """The snapshot breaks its own invariants. What serves goes on serving. `policies` are the keys of those at
    fault, where that is known."""

    def __init__(self, reason: str, *, policies: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.policies = policies


class NoCertificateError(Exception):
    """The caller's certificate is still being issued: calls in its name fail closed."""


class Runtime:
    """One snapshot, served. Make with `build`, then `commit`."""

    __slots__ = (
        "_by_service", "_commits", "_engine", "_legs", "_names", "_pools", "_tls_identities", "_tls_key", "clusters",
        "inbound", "listening", "revoked", "server_context", "snapshot", "targets",
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
        self._by_service: dict[tuple[str, str], Target] = {}
        self._names: dict[tuple[bytes, str], Target] = {}
        self._pools: dict[PoolKey, Supplier] = {}
        self._legs: dict[tuple[Listening, EndpointLoad], Leg] = {}  # as many as the snapshot has of both
        self._tls_identities: dict[str, TlsIdentity] = {}
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
        except UnservableError:
            raise
        except (TrustError, ValueError, ssl.SSLError) as error:
            raise UnservableError(str(error)) from error
        return runtime

    def commit(self) -> None:
        """Make this the runtime that serves."""
        engine = self._engine
        for commit in self._commits:
            commit()
        self._commits.clear()
        for name, cluster in engine.clusters.items():
            if name not in self.clusters:
                cluster.breaker.leave()
        engine.clusters = self.clusters
        engine.troubled = {cluster for cluster in engine.troubled if cluster.name in self.clusters}
        engine.serve(self)
        self._retire_pools()
        for stream in list(engine.streams):
            peer = cast(PeerObject, stream.ssl_object).peer  # contexts of trust.tls make no other
            if peer is not None and self.revokes(peer):
                engine.recorder.increment("connections_cut_revoked")
                stream.abort()

    def revokes(self, svid: Svid) -> bool:
        """Whether the leaf, its identity, or the node that holds its key is revoked. Asked in handshakes, and of every
        open connection when the list changes."""
        revoked = self.revoked
        return bool(revoked) and not revoked.isdisjoint(
            (svid.spiffe, serial_subject(svid.serial), spiffe_node(svid.id.trust_domain, svid.node))
        )

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
            try:
                target = Target(destination)
            except Exception as error:
                # Also a mistake of ours on what is in one policy: named, it costs that policy and not all that is new.
                raise UnservableError(_words(error), policies=guilty_routes(destination)) from error
            rules = (*destination.rules, *(rule for _, rules in destination.caller_rules for rule in rules))
            names = [destination.cluster, *(backend.cluster for rule in rules for backend in rule.backends)]
            for name in names:
                if name and name not in self.clusters:
                    raise UnservableError(
                        f"{target.name} refers to cluster {name!r}, which is not in the snapshot"
                    )
            self.targets[target.name] = target
            key = (destination.service, destination.namespace)
            known = self._by_service.get(key)
            # Without a port the first one listed is meant, and of those one that speaks HTTP.
            if known is None or (known.destination.protocol == "tcp" and destination.protocol != "tcp"):
                self._by_service[key] = target

    def _build_inbound(self) -> None:
        for service in self.snapshot.inbound:
            try:
                self.inbound[service.sni] = Inbound(service)
            except Exception as error:
                # Also a mistake of ours on what is in one policy: named, it costs that policy and not all that is new.
                raise UnservableError(_words(error), policies=guilty_authorizations(service)) from error

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
            known = previous._tls_identities.get(identity) if previous is not None else None
            if known is None or known.key != key:
                known = TlsIdentity(key, certificate, bundle, engine.check_peer)
            self._tls_identities[identity] = known
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
            self.server_context = server_context(
                bundle=bundle, identities=presented, check=engine.check_peer, alpn=ACCEPTED
            )

    # ------------------------------------------------------------------ names

    def resolve(self, host: bytes, namespace: str) -> Target | None:
        """`cart`, `cart.shop` or `cart.shop.mesh`, each with or without a port, as written in Host."""
        key = (host, namespace)
        target = self._names.get(key)
        if target is None:
            target = self._resolve(host.decode("latin-1").lower(), namespace)
            if target is not None and len(self._names) < NAMES_CACHED_MAX:
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
        return self._by_service.get((service, namespace))

    # ------------------------------------------------------------------ connections

    def leg(self, listening: Listening, cluster: Cluster, load: EndpointLoad) -> Leg:
        """The way of this caller to this endpoint of the cluster. Raises NoCertificateError."""
        leg = self._legs.get((listening, load))
        if leg is None:
            endpoint = load.endpoint
            recorder = self._engine.recorder
            edge = listening.edge(recorder, None, cluster, endpoint)
            inbound = self.inbound.get(endpoint.local) if endpoint.local else None
            if inbound is not None:
                edge = recorder.both(edge, inbound.edge(recorder, listening.source, "none"))
                pool: Supplier | None = self.application_pool(inbound)
            else:
                pool = None if endpoint.local else self.pool(listening, endpoint, cluster)
            leg = self._legs[listening, load] = Leg(listening, edge, inbound, pool)
        return leg

    def pool(
        self, listening: Listening, endpoint: Endpoint, cluster: Cluster, *, upgrade: bool = False
    ) -> "Supplier":
        """The mTLS connections of this caller to this endpoint, or those that a request can `upgrade`. Raises
        NoCertificateError."""
        kind = UPGRADE if upgrade else cluster.cluster.protocol
        pool = self._pools.get((listening.identity, endpoint.id, kind))
        if pool is None:
            place = self.place(listening, endpoint, OFFERED[kind])
            key = ("mesh", self._tls_identities[listening.identity].key, *_place_key(kind, endpoint))
            pool = self._engine.pools.get(key)
            if pool is None:
                if H2 in OFFERED[kind]:
                    fallback = self.place(listening, endpoint, (HTTP_1_1,))
                    pool = Http2Pool(self._engine, place, cluster.breaker, fallback)
                else:
                    pool = Pool(self._engine, place, cluster.breaker)
                self._engine.pools[key] = pool
            pool.connect_timeout_s = cluster.cluster.connect_timeout_s
            self._pools[listening.identity, endpoint.id, kind] = pool
        return pool

    def place(self, listening: Listening, endpoint: Endpoint, offered: tuple[str, ...] = NOTHING) -> Place:
        """Where an endpoint of another host is reached, in this caller's name. Raises NoCertificateError."""
        known = self._tls_identities.get(listening.identity)
        if known is None:
            raise NoCertificateError(f"no certificate for {listening.identity or 'this caller'} yet")
        context = known.expecting(endpoint.identity, offered)
        return Place(host=endpoint.host, port=endpoint.port, context=context, server_name=endpoint.sni)

    def application_pool(self, inbound: Inbound) -> "Supplier":
        """The plain connections to an application of this host."""
        service = inbound.service
        pool = self._pools.get(("", service.sni))
        if pool is None:
            key = _application_key(service)
            pool = self._engine.pools.get(key)
            if pool is None:
                place = Place(host=service.app_host, port=service.app_port)
                kind = Http2Pool if service.protocol == "grpc" else Pool
                pool = self._engine.pools[key] = kind(self._engine, place, Breaker(CircuitBreaker()))
            self._pools["", service.sni] = pool
        return pool

    def _retire_pools(self) -> None:
        """Let go of pools that hold an old certificate or lead to a place that is gone."""
        applications = {_application_key(inbound.service) for inbound in self.inbound.values()}
        certificates = {identity.key for identity in self._tls_identities.values()}
        places = {
            _place_key(kind, endpoint)
            for cluster in self.snapshot.clusters
            for endpoint in cluster.endpoints
            for kind in (cluster.protocol, UPGRADE)
        }
        pools = self._engine.pools
        for key in list(pools):
            if key not in applications and not (key[1] in certificates and key[2:] in places):
                pools.pop(key).retire()


def _update(state: Cluster, cluster: seam.Cluster, retry: RetryRules, now_s: float) -> Callable[[], None]:
    return lambda: state.update(cluster, retry, now_s)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _digest(anchors: str, certificate: Certificate) -> str:
    parts = (anchors.encode(), certificate.chain_pem, certificate.key_pem)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _place_key(kind: str, endpoint: Endpoint) -> PoolKey:
    return (
        kind, endpoint.id, endpoint.host, str(endpoint.port), endpoint.sni, endpoint.identity
    )  # fmt: skip


def _application_key(service: InboundService) -> PoolKey:
    version = "HTTP/2" if service.protocol == "grpc" else "HTTP/1.1"
    return ("application", service.app_host, str(service.app_port), version)
