"""What this host's own services are given: who may call each, by which names and ports, and how long it may take.

Services of one workload are one process, so what holds for one of them holds for all (`peer/workloads.py`).

Invariant: each port of a local service is there once for each name it is called by, and with its authorization.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from peer.attachment import longer_s, longest_timeouts_s
from peer.catalog import ServiceInstance
from peer.directory import Directory, ServiceKey, cluster_name, port_names
from peer.policies import Policy
from peer.unread import Seal
from peer.workloads import authorization, workloads
from proxy.resources.traffic import TrafficPolicySpec
from proxy.snapshot import AppProtocol, Authorization, Destination, InboundService

REQUEST_TIMEOUT_S: Final = 15.0  # Envoy's route timeout


def request_timeout_s(spec: TrafficPolicySpec | None, protocol: AppProtocol) -> float:
    """How long a request to a service may take; 0: as long as it likes."""
    given = spec.timeouts.request if spec is not None and spec.timeouts is not None else None
    if given is not None:
        return given
    # A gRPC call brings its own deadline, and its streams may last.
    return 0.0 if protocol == "grpc" else REQUEST_TIMEOUT_S


def authorizations(
    directory: Directory,
    policies: Sequence[Policy],
    trust_domain: str,
    default_deny: bool,
    seals: Sequence[Seal],
) -> dict[ServiceKey, Authorization]:
    """What holds for each local service: the same for all services of one workload."""
    holding = [each for each in policies if each.kind == "AuthorizationPolicy"]
    allowed: dict[ServiceKey, Authorization] = {}
    for workload in workloads(directory.local):
        found = authorization(
            holding, workload, trust_domain=trust_domain, default_deny=default_deny, seals=seals
        )
        allowed |= {(each.namespace, each.name): found for each in workload.services}
    return allowed


def inbound_services(
    directory: Directory,
    allowed: Mapping[ServiceKey, Authorization],
    traffic: Mapping[ServiceKey, TrafficPolicySpec],
    destinations: Iterable[Destination],
) -> Iterable[InboundService]:
    longest = longest_timeouts_s(destinations)
    for instance in directory.local:
        key = (instance.namespace, instance.name)
        # The callee must not give up before a caller whose route is more patient does.
        for number in dict.fromkeys(each.port for each in instance.ports):
            protocol = next(each.protocol for each in instance.ports if each.port == number)
            own_s = request_timeout_s(traffic.get(key), protocol)
            timeout_s = longer_s(longest.get(cluster_name(key, number)), own_s)
            yield from _inbound_port(directory, instance, number, allowed[key], timeout_s)


def _inbound_port(
    directory: Directory, instance: ServiceInstance, number: int, allowed: Authorization, timeout_s: float
) -> Iterable[InboundService]:
    port = next(each for each in instance.ports if each.port == number)
    for sni in port_names(instance, number):
        yield InboundService(
            sni=sni,
            service=instance.name,
            namespace=instance.namespace,
            port=port.port,
            protocol=port.protocol,
            identity=directory.identity(instance),
            app_host=instance.address,
            app_port=port.target,
            labels=instance.labels,
            authorization=allowed,
            request_timeout_s=timeout_s,
        )
