"""What the replicated records mean here and now: the view from which snapshots are compiled.

A node's services are in the view while the node is alive or suspected; its policies stay when it is gone.
What a revoked node wrote is left out.

Invariant: a view is immutable and a pure function of journal, membership, revocations and local registrations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Health = Literal["passing", "failing", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """A port of a service: `port` is the service's, `target` the application's."""

    name: str
    port: int
    target: int
    protocol: Literal["http", "grpc", "tcp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInstance:
    """One service on one node. `address` and `ports[].target` matter only on that node itself."""

    node: str  # printed node id
    node_name: str
    host: str  # the peer's address, as gossiped
    inbound_port: int
    zone: str
    reachable: bool  # the member is alive (or suspect), not draining
    namespace: str
    name: str
    account: str
    address: str
    ports: tuple[ServicePort, ...]
    labels: tuple[tuple[str, str], ...]
    health: Health
    upstreams: tuple[
        tuple[str, str, int, int], ...
    ] = ()  # (namespace, service, service port or 0, local port)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One live (not superseded) edit of a policy. `resource` is the document as its author wrote it. `carried`: the
    records (printed node id, seq) that a document stands in which a person signed; she has no journal of her own."""

    resource: Mapping[str, Any]
    writer: str  # printed id of the author
    seq: int
    hlc: int
    carried: tuple[tuple[str, int], ...] = ()

    @property
    def records(self) -> tuple[tuple[str, int], ...]:
        """Where it stands in journals."""
        return self.carried or ((self.writer, self.seq),)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEntry:
    """A policy by key. Several versions are concurrent edits; the first is the effective one (highest hlc, writer)."""

    kind: str
    namespace: str
    name: str
    versions: tuple[PolicyVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything the compiler needs. Pure data."""

    node: str
    node_name: str
    trust_domain: str
    zone: str
    services: tuple[ServiceInstance, ...] = ()
    policies: tuple[PolicyEntry, ...] = ()
    revoked: tuple[str, ...] = ()
    access_log: bool = True
    default_deny: bool = False
    statuses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What membership says of a node that its services need."""

    id: str
    name: str
    host: str
    inbound_port: int
    zone: str
    reachable: bool
