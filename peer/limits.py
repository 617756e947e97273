"""What limits hold while concurrent edits of TrafficPolicies are not settled: the tightest of all readings.

Each version of a policy is a reading of what it is. For one service some versions may target it and others not, and the
first policy by name that targets a service holds for it; so a service may be held by any version that targets it, of
every policy up to the first that targets it in all its versions, and by none if there is no such policy. Of each limit
the least of these holds. All else a TrafficPolicy says is no restriction, and the effective version's holds.

Invariant: no limit here is looser than under any one reading; services without unsettled edits are not named.
"""

from collections.abc import Iterable, Iterator

from peer.directory import ServiceKey
from peer.policies import Policy
from peer.translate import breaker_of
from proxy.resources.traffic import TrafficPolicySpec
from proxy.snapshot import CircuitBreaker


def tightest(policies: Iterable[Policy]) -> dict[ServiceKey, CircuitBreaker]:
    """The limits of the services that unsettled edits bear on. `policies` are in order of key."""
    traffic = [policy for policy in policies if policy.kind == "TrafficPolicy"]
    contested = {key for policy in traffic if len(policy.versions) > 1 for key in _targets(policy)}
    found: dict[ServiceKey, CircuitBreaker] = {}
    for key in sorted(contested):
        readings = list(_readings(key, [policy for policy in traffic if policy.namespace == key[0]]))
        found[key] = CircuitBreaker(
            connections_max=min(each.connections_max for each in readings),
            pending_max=min(each.pending_max for each in readings),
            requests_max=min(each.requests_max for each in readings),
        )
    return found


def _targets(policy: Policy) -> Iterator[ServiceKey]:
    for spec in _specs(policy):
        for reference in spec.target_refs:
            yield policy.namespace, reference.name


def _readings(key: ServiceKey, policies: Iterable[Policy]) -> Iterator[CircuitBreaker]:
    for policy in policies:
        specs = _specs(policy)
        holding = [spec for spec in specs if any(each.name == key[1] for each in spec.target_refs)]
        for spec in holding:
            yield breaker_of(spec, CircuitBreaker())
        if holding and len(holding) == len(specs):
            return
    yield CircuitBreaker()


def _specs(policy: Policy) -> list[TrafficPolicySpec]:
    return [each.spec for each in policy.versions if isinstance(each.spec, TrafficPolicySpec)]
