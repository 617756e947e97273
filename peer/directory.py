"""The services of the mesh as this host sees them: names, ports, endpoints.

A service is a name that gathers instances; an instance is one registration on one node. Its ports and their
protocols are what most instances say (ties: the lower one), and an instance that says otherwise of a port is no
endpoint of it.

Invariant: everything is sorted by name and node, so equal views give equal directories. Registrations whose names
are no DNS labels, or that repeat one of the same node, are left out: a member's word goes no further than its own
services.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from peer.catalog import ServiceInstance, ServicePort, View
from proxy.resources.fields import LABEL
from proxy.snapshot import MESH_SUFFIX, AppProtocol, Cluster, Endpoint
from trust.identity import spiffe_workload

ServiceKey: TypeAlias = tuple[str, str]  # (namespace, name)
V = TypeVar("V", int, AppProtocol)


def host_name(key: ServiceKey) -> str:
    """`cart.default.mesh`."""
    namespace, name = key
    return f"{name}.{namespace}{MESH_SUFFIX}"


def cluster_name(key: ServiceKey, port: int) -> str:
    """`cart.default.mesh:80`."""
    return f"{host_name(key)}:{port}"


def port_names(instance: ServiceInstance, port: int) -> tuple[str, ...]:
    """The SNIs a port of an instance is reached by. The first is the one used by callers."""
    name = host_name((instance.namespace, instance.name))
    own = f"p{port}.{name}"
    return (name, own) if instance.ports[0].port == port else (own,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One name. `ports` is in the order most instances give them: the first one is the default."""

    key: ServiceKey
    instances: tuple[ServiceInstance, ...]
    ports: Mapping[int, AppProtocol]

    @property
    def first_port(self) -> int:
        return next(iter(self.ports))

    @property
    def http_ports(self) -> tuple[int, ...]:
        """The ports that HTTP routes can be attached to."""
        return tuple(port for port, protocol in self.ports.items() if protocol != "tcp")


class Directory:
    """All services of a view. Immutable."""

    def __init__(self, view: View) -> None:
        self._node = view.node
        self._trust_domain = view.trust_domain
        grouped: dict[ServiceKey, dict[str, ServiceInstance]] = {}
        for instance in sorted(view.services, key=lambda each: (each.namespace, each.name, each.node)):
            if LABEL.fullmatch(instance.name) and LABEL.fullmatch(instance.namespace) and instance.ports:
                grouped.setdefault((instance.namespace, instance.name), {}).setdefault(
                    instance.node, instance
                )
        self.services: Mapping[ServiceKey, Service] = {
            key: _service(key, tuple(instances.values())) for key, instances in grouped.items()
        }
        self.local: tuple[ServiceInstance, ...] = tuple(
            instance
            for service in self.services.values()
            for instance in service.instances
            if instance.node == view.node
        )

    def identity(self, instance: ServiceInstance) -> str:
        """The SPIFFE ID of who stands behind an instance."""
        return spiffe_workload(self._trust_domain, instance.namespace, instance.account)

    def cluster(self, key: ServiceKey, port: int, protocol: AppProtocol) -> Cluster:
        """A service port with its endpoints and default treatment."""
        service = self.services.get(key)
        instances = () if service is None else service.instances
        endpoints = (self._endpoint(instance, port, protocol) for instance in instances)
        return Cluster(
            name=cluster_name(key, port),
            service=key[1],
            namespace=key[0],
            protocol=protocol,
            endpoints=tuple(endpoint for endpoint in endpoints if endpoint is not None),
        )

    def _endpoint(self, instance: ServiceInstance, port: int, protocol: AppProtocol) -> Endpoint | None:
        served = port_of(instance, port)
        if served is None or served.protocol != protocol:
            return None
        local = instance.node == self._node
        if not local and not (instance.host and instance.inbound_port):
            return None  # its peer carries no traffic
        sni = port_names(instance, port)[0]
        key = (instance.namespace, instance.name)
        return Endpoint(
            id=f"{instance.node}/{cluster_name(key, port)}",
            node=instance.node,
            host=instance.address if local else instance.host,
            port=served.target if local else instance.inbound_port,
            sni=sni,
            identity=self.identity(instance),
            zone=instance.zone,
            labels=instance.labels,
            healthy=instance.reachable and instance.health != "failing",
            local=sni if local else "",
        )


def port_of(instance: ServiceInstance, port: int) -> ServicePort | None:
    """An instance's own statement about a port, the first one if it repeats itself."""
    return next((each for each in instance.ports if each.port == port), None)


def _service(key: ServiceKey, instances: tuple[ServiceInstance, ...]) -> Service:
    first = _most_common(instance.ports[0].port for instance in instances)
    numbers = {first: None} | {each.port: None for instance in instances for each in instance.ports}
    ports: dict[int, AppProtocol] = {}
    for number in numbers:
        said = [port_of(instance, number) for instance in instances]
        ports[number] = _most_common(each.protocol for each in said if each is not None)
    return Service(key=key, instances=instances, ports=ports)


def _most_common(values: Iterable[V]) -> V:
    """The value most often given; of several, the lowest."""
    counts = Counter(values)
    most = max(counts.values())
    return min(value for value, count in counts.items() if count == most)
