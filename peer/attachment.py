"""Which routes are attached to which destinations (Gateway API, GEP-1294: routes of services).

A route in the namespace of its parent is the service's own (producer route). One in another namespace is a caller's
(consumer route) and holds for callers of that namespace only, in place of the service's own. A parentRef without a
port means every HTTP port of the service. A parentRef with a port may name a service that has no instance at
present: the name is served all the same, so that a route can outlive the last instance of its parent.

A backendRef without a port means the service's first one. What cannot be resolved keeps its weight and gets no
cluster: its share of the requests is answered 500.

Invariant: rules of several routes stand in order of `<namespace>/<name>`; every cluster they name is a service port
of the directory.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from peer.directory import Directory, ServiceKey, cluster_name, host_name
from peer.policies import Condition, Policy
from peer.translate import route_rules
from proxy.resources.httproute import BackendRef, HTTPRouteSpec, ParentRef
from proxy.snapshot import AppProtocol, Destination, RouteRule

Place: TypeAlias = tuple[ServiceKey, int]


@dataclass(slots=True)
class Attached:
    """The rules at one service port: the service's own, and those of callers' namespaces."""

    own: list[RouteRule] = field(default_factory=list)
    callers: dict[str, list[RouteRule]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """All routes where they belong, and what became of each, by policy key."""

    places: Mapping[Place, Attached]
    conditions: Mapping[str, tuple[Condition, ...]]

    def destination(self, place: Place, protocol: AppProtocol, request_timeout_s: float) -> Destination:
        """A service port as callers see it."""
        key, port = place
        destination = Destination(
            service=key[1],
            namespace=key[0],
            port=port,
            protocol=protocol,
            cluster=cluster_name(key, port),
            request_timeout_s=request_timeout_s,
        )
        attached = self.places.get(place)
        if attached is None:
            return destination
        return replace(
            destination,
            rules=tuple(attached.own),
            routed=bool(attached.own),
            caller_rules=tuple(
                (namespace, tuple(rules)) for namespace, rules in sorted(attached.callers.items())
            ),
        )


def longest_timeouts_s(destinations: Iterable[Destination]) -> dict[str, float]:
    """By cluster, the longest request timeout of a rule that sends to it; 0 for none at all. A rule that gives none has
    that of its destination, which need not be the one the cluster belongs to. Clusters no rule sends to are absent."""
    longest: dict[str, float] = {}
    for each in destinations:
        for rules in (each.rules, *(rules for _, rules in each.caller_rules)):
            for rule in rules:
                given_s = rule.request_timeout_s
                timeout_s = each.request_timeout_s if given_s is None else given_s
                for backend in rule.backends:
                    longest[backend.cluster] = longer_s(longest.get(backend.cluster), timeout_s)
    return longest


def longer_s(one: float | None, other: float) -> float:
    """The longer of two timeouts, of which 0 is none at all and so the longest."""
    if one is None:
        return other
    return 0.0 if 0.0 in {one, other} else max(one, other)


def attach(policies: Iterable[Policy], directory: Directory) -> Attachments:
    """Attach the effective version of each route. `policies` are HTTPRoutes in order of key, each readable."""
    places: dict[Place, Attached] = {}
    conditions: dict[str, tuple[Condition, ...]] = {}
    for policy in policies:
        spec = policy.effective.spec
        assert isinstance(spec, HTTPRouteSpec)
        found, missing = _parents(spec.parent_refs, policy.namespace, directory)
        resolver = _Resolver(policy.namespace, directory)
        rules = route_rules(policy.key, spec, resolver.cluster_of)
        for place in found:
            attached = places.setdefault(place, Attached())
            if place[0][0] == policy.namespace:
                attached.own += rules
            else:
                attached.callers.setdefault(policy.namespace, []).extend(rules)
        conditions[policy.key] = (_accepted(found, missing, directory), resolver.condition())
    return Attachments(places=places, conditions=conditions)


def _parents(
    references: Iterable[ParentRef], namespace: str, directory: Directory
) -> tuple[list[Place], list[str]]:
    """The service ports meant, and what is wrong with the parents that mean none."""
    found: dict[Place, None] = {}
    missing: list[str] = []
    for reference in references:
        key = (reference.namespace or namespace, reference.name)
        service = directory.services.get(key)
        if reference.port is None:
            ports = () if service is None else service.http_ports
            if not ports:
                what = "no instance in the mesh" if service is None else "no HTTP port"
                missing.append(f"{host_name(key)} has {what}")
            found.update(dict.fromkeys((key, port) for port in ports))
        elif service is None or reference.port in service.http_ports:
            found[key, reference.port] = None
        else:
            missing.append(f"{host_name(key)} has no HTTP port {reference.port}")
    return list(found), missing


def _accepted(found: Iterable[Place], missing: list[str], directory: Directory) -> Condition:
    found = list(found)
    if not found:
        return Condition(
            type="Accepted", status="False", reason="NoMatchingParent", message="; ".join(missing)
        )
    notes = missing + [
        f"{host_name(key)} has no instance in the mesh at present"
        for key, _ in found
        if key not in directory.services
    ]
    return Condition(type="Accepted", status="True", reason="Accepted", message="; ".join(notes))


class _Resolver:
    """Finds the clusters of one route's backends and remembers what it could not find."""

    def __init__(self, namespace: str, directory: Directory) -> None:
        self._namespace = namespace
        self._directory = directory
        self._problems: dict[str, str] = {}  # message -> reason

    def cluster_of(self, reference: BackendRef) -> str:
        key = (reference.namespace or self._namespace, reference.name)
        service = self._directory.services.get(key)
        if service is None:
            self._problems[f"{host_name(key)} has no instance in the mesh"] = "BackendNotFound"
            return ""
        port = reference.port if reference.port is not None else service.first_port
        if port not in service.ports:
            self._problems[f"{host_name(key)} has no port {port}"] = "BackendNotFound"
            return ""
        if port not in service.http_ports:
            self._problems[f"{cluster_name(key, port)} does not speak HTTP"] = "UnsupportedProtocol"
            return ""
        return cluster_name(key, port)

    def condition(self) -> Condition:
        if not self._problems:
            return Condition(type="ResolvedRefs", status="True", reason="ResolvedRefs")
        message, reason = next(iter(self._problems.items()))
        return Condition(
            type="ResolvedRefs", status="False", reason=reason, message="; ".join(self._problems) or message
        )
