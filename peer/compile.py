"""From the view to the snapshot: what this host's data plane is to do, and what became of every policy.

Each policy is compiled by itself. One that cannot be read, or on which this compiler itself breaks, is set aside with
the reason in its status, and the rest goes on: a bad update changes nothing but its own effect.

The root namespace is `gossamer-system`: an AuthorizationPolicy there without selection holds for the whole mesh,
and the one MeshConfig, `gossamer-system/default`, lives there. Of two TrafficPolicies for one service the first by
name holds. Concurrent edits: authorization takes the most restrictive reading (peer/workloads.py), as does
MeshConfig's defaultAction; of all else the first readable version holds. What restricts access and cannot be obeyed
keeps out whomever it may have been meant for (peer/unread.py).

Invariant: compilation is a pure function of its arguments; equal views give equal snapshots. Everything a snapshot
names is in it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from peer.attachment import Attachments, Place, attach
from peer.catalog import PolicyEntry, View
from peer.culprits import find
from peer.directory import Directory, ServiceKey, cluster_name, host_name
from peer.inbound import authorizations, inbound_services, request_timeout_s
from peer.limits import tightest
from peer.policies import Condition, Policy, Reader, Status
from peer.quarantine import by_weight
from peer.translate import with_traffic_policy
from peer.unread import Strictest, strictest
from proxy.resources.authorization import AuthorizationPolicySpec
from proxy.resources.capability import CAPABILITY
from proxy.resources.resource import MESH_CONFIG_NAME, ROOT_NAMESPACE
from proxy.resources.traffic import MeshConfigSpec, TrafficPolicySpec
from proxy.retry import RETRY_CONDITIONS
from proxy.snapshot import (
    AppProtocol,
    AuthzPolicy,
    AuthzRule,
    Certificate,
    CircuitBreaker,
    Cluster,
    Destination,
    Limits,
    Listener,
    RetryPolicy,
    Snapshot,
)

__all__ = ["Compiled", "Condition", "Reader", "Status", "close", "compile_snapshot", "listeners_for"]

HTTP_PORT_DEFAULT: Final = 80  # of an upstream nothing is known of yet
TRIES_MAX: Final = 64  # compilations to find the policies on which one broke: enough for four among hundreds

# Every answer of the default conditions says that the request was not processed.
_RETRY: Final = RetryPolicy(on=("connect-failure", "refused-stream", "unavailable", "cancelled"))
assert set(_RETRY.on) <= set(RETRY_CONDITIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A snapshot and what became of each policy, by `<Kind>/<namespace>/<name>`. `faults` are the tracebacks of those
    that were set aside by a mistake of ours."""

    snapshot: Snapshot
    statuses: Mapping[str, Status] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()  # those of which no version can be obeyed
    faults: Mapping[str, str] = field(default_factory=dict)


def compile_snapshot(
    view: View,
    *,
    version: int,
    listeners: Sequence[Listener] = (),
    certificates: Sequence[Certificate] = (),
    trust_bundle_pem: bytes = b"",
    limits: Limits | None = None,
    reader: Reader | None = None,
    quarantined: Sequence[PolicyEntry] = (),
) -> Compiled:
    """Compile a view. `listeners` are those of `listeners_for`. A `reader` kept from one call to the next reads each
    policy once; the result does not depend on it. Of `quarantined` policies, which are not in the view, nothing is
    obeyed but what they may have meant at their strictest."""
    reader = reader or Reader()
    directory = Directory(view)
    aside = tuple(strictest(each, each.versions) for each in quarantined)

    def attempt(policies: tuple[Policy, ...]) -> Compiled:
        return _compiled(
            view,
            directory,
            policies,
            version=version,
            listeners=listeners,
            certificates=certificates,
            trust_bundle_pem=trust_bundle_pem,
            limits=limits or Limits(),
            aside=aside,
        )

    policies = reader.read(view.policies)
    try:
        compiled = attempt(policies)
    except Exception as error:
        _set_aside_culprits(view, reader, policies, error, attempt)
        compiled = attempt(reader.read(view.policies))
    return replace(compiled, faults=dict(reader.faults))


def _set_aside_culprits(
    view: View,
    reader: Reader,
    policies: tuple[Policy, ...],
    error: Exception,
    attempt: Callable[[tuple[Policy, ...]], object],
) -> None:
    """Find the policies on which compiling breaks. Raises what was raised when it is not a policy's doing."""
    entries = {f"{each.kind}/{each.namespace}/{each.name}": each for each in view.policies}
    by_key = {policy.key: policy for policy in policies if policy.versions}
    errors: dict[str, Exception] = {}

    def reason(policies: tuple[Policy, ...]) -> str:
        try:
            attempt(policies)
        except Exception as problem:
            errors[repr(problem)] = problem
            return repr(problem)
        return ""

    if reason(()) or not by_key:
        raise error
    errors[repr(error)] = error

    def attempt_with(keys: tuple[str, ...]) -> str:
        chosen = set(keys)
        return reason(tuple(policy for policy in policies if policy.key in chosen))

    suspects = sorted(by_key, key=lambda key: by_weight(entries[key]))
    found = find(suspects, repr(error), attempt=attempt_with, tries_max=TRIES_MAX)
    for key, why in found.items():
        reader.set_aside(entries[key], errors.get(why, error))


def _compiled(
    view: View,
    directory: Directory,
    policies: tuple[Policy, ...],
    *,
    version: int,
    listeners: Sequence[Listener],
    certificates: Sequence[Certificate],
    trust_bundle_pem: bytes,
    limits: Limits,
    aside: Sequence[Strictest],
) -> Compiled:
    statuses = {policy.key: list(policy.conditions) for policy in policies}
    readable = [policy for policy in policies if policy.versions]

    routes = attach((each for each in readable if each.kind == "HTTPRoute"), directory)
    for name, found in routes.conditions.items():
        statuses[name] += found
    traffic = _traffic_policies(readable, directory, statuses)
    for policy in readable:
        if policy.kind in {"AuthorizationPolicy", "MeshConfig", CAPABILITY}:
            statuses[policy.key].append(_accepted())
        if policy.kind == "AuthorizationPolicy":
            statuses[policy.key] += _target_conditions(policy, directory)
    unread = [*aside, *(policy.unread for policy in policies)]
    default_deny, access_log = _mesh_config(readable, view)
    default_deny = default_deny or any(each.default_deny for each in unread)

    destinations, clusters = _reachable(directory, routes, traffic, tightest(readable))
    seals = [seal for each in unread for seal in each.seals]
    allowed = authorizations(directory, readable, view.trust_domain, default_deny, seals)
    return Compiled(
        snapshot=Snapshot(
            version=version,
            node=view.node,
            node_name=view.node_name,
            trust_domain=view.trust_domain,
            zone=view.zone,
            listeners=tuple(listeners),
            certificates=tuple(sorted(certificates, key=lambda each: each.identity)),
            trust_bundle_pem=trust_bundle_pem,
            revoked=tuple(sorted(view.revoked)),
            inbound=tuple(inbound_services(directory, allowed, traffic, destinations)),
            clusters=clusters,
            destinations=destinations,
            limits=limits,
            access_log=access_log,
        ),
        statuses={key: Status(conditions=tuple(each)) for key, each in sorted(statuses.items())},
        unread=frozenset(policy.key for policy in policies if not policy.versions),
    )


def close(snapshot: Snapshot) -> Snapshot:
    """The snapshot, with nobody let in to this host's services."""
    nobody = AuthzPolicy(name=f"{ROOT_NAMESPACE}/starting", variants=((AuthzRule(),),))
    return replace(
        snapshot,
        inbound=tuple(
            replace(each, authorization=replace(each.authorization, deny=(*each.authorization.deny, nobody)))
            for each in snapshot.inbound
        ),
    )


def listeners_for(view: View) -> tuple[Listener, ...]:
    """The sockets a host needs: `inbound`, `outbound`, and an `upstream:<local port>` for each upstream of a service.

    What comes through `outbound` is called as the account of the local services if they have one only, else as the
    node. Of two services that want the same local port the first by name gets it.
    """
    directory = Directory(view)
    accounts = {(each.namespace, each.account) for each in directory.local}
    outbound = Listener(
        name="outbound", kind="outbound", caller=f"spiffe://{view.trust_domain}/node/{view.node}"
    )
    if len(accounts) == 1:
        only = directory.local[0]
        outbound = replace(
            outbound,
            caller=directory.identity(only),
            caller_namespace=only.namespace,
            caller_service=only.name if len(directory.local) == 1 else only.account,
        )
    upstreams: dict[int, Listener] = {}
    for instance in directory.local:
        for namespace, service, port, local_port in instance.upstreams:
            key = (namespace, service)
            listener = Listener(
                name=f"upstream:{local_port}",
                kind="upstream",
                caller=directory.identity(instance),
                caller_namespace=instance.namespace,
                caller_service=instance.name,
                destination=cluster_name(key, port or _upstream_port(directory, key)),
            )
            upstreams.setdefault(local_port, listener)
    inbound = Listener(name="inbound", kind="inbound")
    return (inbound, outbound, *(upstreams[port] for port in sorted(upstreams)))


def _upstream_port(directory: Directory, key: ServiceKey) -> int:
    """The first HTTP port of a service, else its first."""
    service = directory.services.get(key)
    if service is None:
        return HTTP_PORT_DEFAULT
    return service.http_ports[0] if service.http_ports else service.first_port


# ---------------------------------------------------------------- TrafficPolicy and MeshConfig


def _traffic_policies(
    policies: Iterable[Policy], directory: Directory, statuses: Mapping[str, list[Condition]]
) -> dict[ServiceKey, TrafficPolicySpec]:
    """The policy of each service."""
    holding: dict[ServiceKey, TrafficPolicySpec] = {}
    holder: dict[ServiceKey, Policy] = {}
    for policy in policies:
        spec = policy.effective.spec
        if not isinstance(spec, TrafficPolicySpec):
            continue
        taken: list[str] = []
        for reference in spec.target_refs:
            key = (policy.namespace, reference.name)
            if holder.setdefault(key, policy) is policy:
                holding[key] = spec
            else:
                taken.append(f"{host_name(key)} has {holder[key].key}")
        if len(taken) == len(spec.target_refs):
            statuses[policy.key].append(
                Condition(type="Accepted", status="False", reason="Conflicted", message="; ".join(taken))
            )
        else:
            statuses[policy.key].append(_accepted("; ".join(taken)))
        statuses[policy.key] += _target_conditions(policy, directory)
    return holding


def _target_conditions(policy: Policy, directory: Directory) -> list[Condition]:
    """Whether the services a policy targets are there. It holds for them as soon as they are."""
    spec = policy.effective.spec
    if not isinstance(spec, TrafficPolicySpec | AuthorizationPolicySpec) or not spec.target_refs:
        return []
    keys = [(policy.namespace, each.name) for each in spec.target_refs]
    missing = [
        f"{host_name(key)} has no instance in the mesh" for key in keys if key not in directory.services
    ]
    if not missing:
        return [Condition(type="ResolvedRefs", status="True", reason="ResolvedRefs")]
    return [
        Condition(type="ResolvedRefs", status="False", reason="TargetNotFound", message="; ".join(missing))
    ]


def _accepted(message: str = "") -> Condition:
    return Condition(type="Accepted", status="True", reason="Accepted", message=message)


def _mesh_config(policies: Iterable[Policy], view: View) -> tuple[bool, bool]:
    """(default deny, access log)."""
    default_deny, access_log = view.default_deny, view.access_log
    for policy in policies:
        if (policy.kind, policy.namespace, policy.name) != ("MeshConfig", ROOT_NAMESPACE, MESH_CONFIG_NAME):
            continue
        specs = [each.spec for each in policy.versions if isinstance(each.spec, MeshConfigSpec)]
        actions = [each.default_action for each in specs if each.default_action is not None]
        if actions:
            default_deny = "DENY" in actions or (len(actions) < len(specs) and default_deny)
        if specs[0].access_log is not None:
            access_log = specs[0].access_log
    return default_deny, access_log


def _reachable(
    directory: Directory,
    routes: Attachments,
    traffic: Mapping[ServiceKey, TrafficPolicySpec],
    limits: Mapping[ServiceKey, CircuitBreaker],
) -> tuple[tuple[Destination, ...], tuple[Cluster, ...]]:
    """Every service port, and every one that a route names though no instance is there."""
    places: dict[Place, AppProtocol] = {
        (key, port): protocol
        for key, service in directory.services.items()
        for port, protocol in service.ports.items()
    }
    places |= {place: "http" for place in routes.places if place[0] not in directory.services}
    destinations: list[Destination] = []
    clusters: list[Cluster] = []
    for (key, port), protocol in sorted(places.items()):
        spec = traffic.get(key)
        destinations.append(routes.destination((key, port), protocol, request_timeout_s(spec, protocol)))
        cluster = _cluster(directory, key, port, protocol, spec)
        clusters.append(replace(cluster, breaker=limits[key]) if key in limits else cluster)
    return tuple(destinations), tuple(clusters)


def _cluster(
    directory: Directory, key: ServiceKey, port: int, protocol: AppProtocol, spec: TrafficPolicySpec | None
) -> Cluster:
    cluster = replace(directory.cluster(key, port, protocol), retry=_RETRY)
    return cluster if spec is None else with_traffic_policy(cluster, spec)
