"""Which AuthorizationPolicies hold for which local process, and what they mean together.

A policy protects a process, not a name. All local services behind which the same (address, target port) stands are
one workload (and so are services joined by a chain of such), and what selects any of them, by its labels or by
targetRef, holds for all: calling the process by another of its names is no way around a policy.

A policy with neither selector nor targetRefs holds for its namespace; in the root namespace (`gossamer-system`) for
the whole mesh, and a selector there looks at all namespaces (as Istio's root namespace).

Concurrent edits that nobody settled are readings of what the policy is, and a request must pass under every one of
them. For one workload a version may deny, allow, or be absent (it selects others, or is a dry run):

- what any version denies is denied; - if every version allows, a request must be allowed by all of them to be
allowed by the policy; - if some versions allow and others are absent or deny, then the policy may or may not be an
ALLOW policy here. Where another ALLOW policy surely holds, or the mesh denies by default, the reading without it is
the stricter one and it allows nothing. Where it is all there is, the reading with it is, and every such policy must
allow.

What may have been meant to keep somebody out and cannot be obeyed keeps everybody out (peer/unread.py).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from peer.catalog import ServiceInstance
from peer.directory import ServiceKey
from peer.policies import Policy
from peer.translate import authorization_rules
from peer.unread import Seal
from proxy.resources.authorization import AuthorizationPolicySpec
from proxy.resources.resource import ROOT_NAMESPACE, Resource
from proxy.snapshot import Authorization, AuthzPolicy, AuthzRule

Rules = tuple[AuthzRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The local services that are one process."""

    services: tuple[ServiceInstance, ...]

    def in_namespace(self, namespace: str) -> bool:
        return namespace == ROOT_NAMESPACE or any(each.namespace == namespace for each in self.services)

    def has_label(self, name: str, value: str) -> bool:
        return any((name, value) in each.labels for each in self.services)

    def is_service(self, key: ServiceKey) -> bool:
        return any((each.namespace, each.name) == key for each in self.services)


def workloads(local: Sequence[ServiceInstance]) -> tuple[Workload, ...]:
    """The workloads of a host, each with its services in the given order."""
    group_of = list(range(len(local)))
    seen: dict[tuple[str, int], int] = {}
    for index, instance in enumerate(local):
        for port in instance.ports:
            other = seen.setdefault((instance.address, port.target), index)
            merged, kept = group_of[index], group_of[other]
            group_of = [kept if group == merged else group for group in group_of]
    return tuple(
        Workload(services=tuple(each for each, other in zip(local, group_of, strict=True) if other == group))
        for group in dict.fromkeys(group_of)
    )


def selects(resource: Resource, workload: Workload) -> bool:
    """Whether a version of a policy holds for a workload."""
    spec = resource.spec
    assert isinstance(spec, AuthorizationPolicySpec)
    if spec.target_refs:
        return any(workload.is_service((resource.namespace, ref.name)) for ref in spec.target_refs)
    if not workload.in_namespace(resource.namespace):
        return False
    if spec.selector is not None:
        return all(workload.has_label(name, value) for name, value in spec.selector.match_labels.items())
    return True


def sealed(seal: Seal, workload: Workload) -> bool:
    """Whether a seal holds for a workload: as `selects`, of a policy that cannot be obeyed."""
    if seal.services:
        return any(workload.is_service((seal.namespace, name)) for name in seal.services)
    return workload.in_namespace(seal.namespace) and all(
        workload.has_label(name, value) for name, value in seal.labels
    )


@dataclass(slots=True)
class _Reading:
    """What the versions of one policy say about one workload."""

    name: str
    versions: int
    denies: list[Rules] = field(default_factory=list)
    allows: list[Rules] = field(default_factory=list)
    dry_denies: list[Rules] = field(default_factory=list)
    dry_allows: list[Rules] = field(default_factory=list)

    @property
    def surely_allows(self) -> bool:
        return len(self.allows) == self.versions


def authorization(
    policies: Iterable[Policy],
    workload: Workload,
    *,
    trust_domain: str,
    default_deny: bool,
    seals: Iterable[Seal] = (),
) -> Authorization:
    """All that holds for a workload. `policies` are AuthorizationPolicies in order of key."""
    readings = [
        _read(policy, workload, lambda spec: authorization_rules(spec, trust_domain)) for policy in policies
    ]
    holding = {f"{each.namespace}/{each.name}" for each in seals if sealed(each, workload)}
    deny = [_policy(name, [(AuthzRule(),)]) for name in sorted(holding)]
    deny += [_policy(each.name, each.denies) for each in readings if each.denies]
    deny += [_policy(each.name, each.dry_denies, dry_run=True) for each in readings if each.dry_denies]
    allow = [_policy(each.name, each.allows) for each in readings if each.surely_allows]
    unsure = [each for each in readings if each.allows and not each.surely_allows]
    if unsure and not allow and not default_deny:
        name = ",".join(each.name for each in unsure)
        allow.append(_policy(name, [rules for each in unsure for rules in each.allows]))
    allow += [_policy(each.name, each.dry_allows, dry_run=True) for each in readings if each.dry_allows]
    return Authorization(deny=tuple(deny), allow=tuple(allow), default_deny=default_deny)


def _read(
    policy: Policy, workload: Workload, rules_of: Callable[[AuthorizationPolicySpec], Rules]
) -> _Reading:
    reading = _Reading(name=f"{policy.namespace}/{policy.name}", versions=len(policy.versions))
    for version in policy.versions:
        spec = version.spec
        assert isinstance(spec, AuthorizationPolicySpec)
        if not selects(version, workload):
            continue
        match spec.action, version.dry_run:
            case "DENY", False:
                reading.denies.append(rules_of(spec))
            case "DENY", True:
                reading.dry_denies.append(rules_of(spec))
            case _, False:
                reading.allows.append(rules_of(spec))
            case _, True:
                reading.dry_allows.append(rules_of(spec))
    return reading


def _policy(name: str, variants: Sequence[Rules], *, dry_run: bool = False) -> AuthzPolicy:
    return AuthzPolicy(name=name, variants=tuple(variants), dry_run=dry_run)
