"""Parts of a snapshot made ready to serve: destinations, services of this host, and the identities of listeners.

Invariant: everything here is immutable but for caches of what it already determines.
"""

import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from proxy.authorize import Decision, RequestFacts, compile_authorization
from proxy.embedded.clusters import Cluster
from proxy.embedded.heads import HeaderView, compile_edit
from proxy.embedded.telemetry import Edge, Recorder, Security
from proxy.headers import WRITTEN_IN_REQUESTS
from proxy.route import DestinationRoutes, compile_destination
from proxy.snapshot import (
    MESH_SUFFIX,
    Authorization,
    Destination,
    Endpoint,
    InboundService,
    Listener,
    RouteRule,
)

if TYPE_CHECKING:
    from proxy.embedded.carrier import Supplier
    from proxy.embedded.exchange import Exchange

_CALLERS_CACHED_MAX: Final = 1024
_DECISIONS_CACHED_MAX: Final = 1024
_FACTS_BYTES_MAX: Final = 256  # of a host and a path whose decision is remembered
_PATH: Final = re.compile(r"/[\x21-\x7e]*")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._:\[\]-]+")

Source = tuple[str, str, str]  # service, namespace, principal


@lru_cache(maxsize=4096)
def source_of(principal: str) -> Source:
    """What metrics call a SPIFFE ID: account, namespace, and itself."""
    parts = principal.removeprefix("spiffe://").split("/")
    if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa":
        return parts[4], parts[2], principal
    return "", "", principal


class Target:
    """A `Destination` with its rules compiled."""

    __slots__ = ("destination", "host", "name", "routes")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.name = f"{destination.service}.{destination.namespace}{MESH_SUFFIX}:{destination.port}"
        self.host = self.name.encode()  # of requests that have none
        self.routes: DestinationRoutes = compile_destination(destination)
        for rule in (*destination.rules, *(rule for _, rules in destination.caller_rules for rule in rules)):
            _check_filters(rule)


def _check_filters(rule: RouteRule) -> None:
    for edit in (rule.request_headers, rule.response_headers):
        if edit is not None:
            compile_edit(edit)
    change = rule.request_headers
    written = () if change is None else (*(name for name, _ in (*change.set, *change.add)), *change.remove)
    for name in WRITTEN_IN_REQUESTS.intersection(written):
        raise ValueError(f"{rule.name}: header filters must not change {name!r} of a request")
    for part in (rule.rewrite, rule.redirect):
        if part is None:
            continue
        for path in (part.path, part.path_prefix):
            if path is not None and not _PATH.fullmatch(path):
                raise ValueError(f"{rule.name}: {path!r} is no path to write")
        if part.hostname is not None and not _AUTHORITY.fullmatch(part.hostname):
            raise ValueError(f"{rule.name}: {part.hostname!r} is no host name")


def guilty_routes(destination: Destination) -> tuple[str, ...]:
    """The keys of the routes that cannot be made ready even by themselves."""
    guilty: dict[str, None] = {}
    for rule in (*destination.rules, *(rule for _, rules in destination.caller_rules for rule in rules)):
        try:
            Target(replace(destination, rules=(rule,), caller_rules=()))
        except Exception:
            # Whatever it is: the whole has failed and is told with its reason; this says only whose doing it is.
            guilty["/".join(rule.name.split("/")[:3])] = None
    return tuple(guilty)


def guilty_authorizations(service: InboundService) -> tuple[str, ...]:
    """The keys of the policies that cannot be made ready even by themselves."""
    guilty: dict[str, None] = {}
    for policy in (*service.authorization.deny, *service.authorization.allow):
        try:
            compile_authorization(Authorization(deny=(policy,), allow=(policy,)), service.protocol)
        except Exception:
            # Whatever it is: the service has failed as a whole and is told with its reason; this says only whose doing.
            guilty |= {f"AuthorizationPolicy/{name}": None for name in policy.name.split(",")}
    return tuple(guilty)


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

    __slots__ = (
        "_always", "_authorization", "_callers", "_certs", "_decided", "_edges", "application", "name", "service",
    )  # fmt: skip

    def __init__(self, service: InboundService) -> None:
        self.service = service
        self.name = f"{service.service}.{service.namespace}{MESH_SUFFIX}:{service.port}"
        self.application = f"{service.app_host}:{service.app_port}"
        self._authorization = compile_authorization(service.authorization, service.protocol)
        policies = service.authorization
        # Most services have no policy: then there is nothing to ask for each request.
        self._always = None if policies.deny or policies.allow else self._authorization.decide(RequestFacts())
        self._decided: dict[tuple[str, str, bytes, str, str], Decision] = {}
        self._edges: dict[tuple[Source, str], Edge] = {}
        self._callers: dict[str, Edge] = {}
        self._certs: dict[str, bytes] = {}

    def authorize(self, exchange: "Exchange", principal: str, ip: str) -> Decision:
        """May this request pass, as it is about to be sent?"""
        if self._always is not None:
            return self._always
        host, path = exchange.host, exchange.path_sent
        if self._authorization.reads_headers or len(host) + len(path) > _FACTS_BYTES_MAX:
            return self._decide(exchange, principal, ip)
        key = (principal, ip, host, exchange.request.method, path)
        decision = self._decided.get(key)
        if decision is None:
            decision = self._decide(exchange, principal, ip)
            if len(self._decided) >= _DECISIONS_CACHED_MAX:
                self._decided.clear()
            self._decided[key] = decision
        return decision

    def _decide(self, exchange: "Exchange", principal: str, ip: str) -> Decision:
        service = self.service
        ours = ((b"traceparent", exchange.traceparent), (b"x-request-id", exchange.request_id))
        headers = HeaderView([*exchange.headers, *ours], exchange.host, exchange.request)
        return self._authorization.decide(
            RequestFacts(
                principal=principal, ip=ip, port=service.port, app_port=service.app_port, sni=service.sni,
                host=exchange.host.decode("latin-1"), method=exchange.request.method, path=exchange.path_sent,
                headers=headers,
            )
        )  # fmt: skip

    def authorize_connection(self, principal: str, ip: str) -> Decision:
        """May this TCP connection pass?"""
        return self._authorization.decide(
            RequestFacts(
                principal=principal,
                ip=ip,
                port=self.service.port,
                app_port=self.service.app_port,
                sni=self.service.sni,
            )
        )

    def forwarded_cert(self, caller: str) -> bytes:
        """The x-forwarded-client-cert line (Envoy's format) the application reads."""
        line = self._certs.get(caller)
        if line is None:
            line = f"x-forwarded-client-cert: By={self.service.identity};URI={caller}\r\n".encode("latin-1")
            if len(self._certs) < _CALLERS_CACHED_MAX:
                self._certs[caller] = line
        return line

    def edge_from(self, recorder: Recorder, caller: str) -> Edge:
        """Where a call from the mesh counts, by the caller that its certificate names."""
        edge = self._callers.get(caller)
        if edge is None:
            edge = self.edge(recorder, source_of(caller), "mutual_tls")
            if len(self._callers) < _CALLERS_CACHED_MAX:
                self._callers[caller] = edge
        return edge

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


class Leg:
    """A caller's way to one endpoint: what follows from the two alone, and is the same for all requests. `inbound` is
    the service of an endpoint on this host, None also when it has left; then `pool` is None as well."""

    __slots__ = ("edge", "identity_line", "inbound", "pool")

    def __init__(
        self, listening: Listening, edge: Edge, inbound: Inbound | None, pool: "Supplier | None"
    ) -> None:
        self.edge = edge
        self.inbound = inbound
        self.pool = pool
        self.identity_line = b"" if inbound is None else inbound.forwarded_cert(listening.identity)
