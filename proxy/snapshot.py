"""What every data plane is given: one immutable, versioned picture of the mesh as this host needs it.

`peer/compile.py` makes a `Snapshot` from the replicated state; a plane (`proxy/plane.py`) applies it whole or
rejects it whole. The decision modules beside this file (route, authorize, balance, outlier, retry) take parts
of it and nothing else, so that every engine decides alike.

Invariant: a snapshot is self-contained. No name in it refers to anything outside it: every backend names a
cluster in `clusters`, every local endpoint an entry of `inbound`, every caller a certificate in `certificates`
(or one still being issued, in which case calls in that name fail closed).

Units: `_s` seconds (float), `_ms` milliseconds, sizes in bytes. Names: a service's full name is
`<service>.<namespace>.mesh`, a cluster is named `<service>.<namespace>.mesh:<port>`.
"""

from dataclasses import dataclass
from typing import Final, Literal

import msgpack
from pydantic import TypeAdapter, ValidationError

MESH_SUFFIX: Final = ".mesh"
SNAPSHOT_BYTES_MAX: Final = 64 * 1024 * 1024

AppProtocol = Literal["http", "grpc", "tcp"]
Balancer = Literal["p2c_ewma", "least_request", "round_robin", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StringMatch:
    """How a string is compared. `prefix_path` goes by segment (Gateway API); `regex` is anchored at both ends."""

    kind: Literal["exact", "prefix", "suffix", "prefix_path", "regex", "present"]
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMatch:
    """A header (name in lower case) and what its value must be."""

    name: str
    value: StringMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """All given conditions must hold (Gateway API HTTPRouteMatch). An empty match matches every request."""

    path: StringMatch | None = None
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[HeaderMatch, ...] = ()
    method: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A weighted target. `cluster` is "" for a backendRef that resolves to nothing: its share gets 500."""

    cluster: str
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderEdit:
    """Header filters, applied as set, then add, then remove; names in lower case."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Gateway API RequestRedirect; `None` keeps that part of the request."""

    scheme: str | None = None
    hostname: str | None = None
    port: int | None = None
    path: str | None = None
    path_prefix: str | None = None
    status: int = 302


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Gateway API URLRewrite: host, whole path, or the matched prefix."""

    hostname: str | None = None
    path: str | None = None
    path_prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRule:
    """One rule with its matches (any of them), in the order of precedence the compiler gave it."""

    name: str  # "<kind>/<namespace>/<route name>/<rule index or name>", for logs and `why`
    matches: tuple[RouteMatch, ...]
    backends: tuple[Backend, ...]
    hostnames: tuple[
        str, ...
    ] = ()  # in lower case, "*.suffix" allowed; compared with Host without port; () is any
    request_timeout_s: float | None = None  # None: the destination's; 0: no timeout
    per_try_timeout_s: float | None = (
        None  # Gateway API backendRequest; None: the cluster's retry policy's; 0: none
    )
    request_headers: HeaderEdit | None = None
    response_headers: HeaderEdit | None = None
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """Passive health, with Envoy's field names and defaults."""

    consecutive_5xx: int = 5
    interval_s: float = 10.0
    base_ejection_time_s: float = 30.0
    max_ejection_time_s: float = 300.0
    max_ejection_percent: int = 10  # at least one endpoint may always be ejected when there are two or more
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Attempts after the first. Only bodies of at most `body_bytes_max` are replayed."""

    attempts: int = 2
    on: tuple[str, ...] = ("connect-failure", "refused-stream")
    per_try_timeout_s: float | None = None
    backoff_base_s: float = 0.025
    backoff_max_s: float = 0.25
    budget_percent: float = 20.0
    budget_floor: int = 3
    body_bytes_max: int = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """Limits per cluster; 503 with flag UO beyond them."""

    connections_max: int = 1024
    pending_max: int = 1024
    requests_max: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place a cluster's requests can go.

    `host`, `port`: the inbound listener of the endpoint's peer; with `local` set, the application itself.
    `local` is the SNI of an entry of `Snapshot.inbound` when the endpoint is on this host (no TLS, same decisions).
    """

    id: str  # "<node id>/<service>.<namespace>.mesh:<port>": the key of pools, load and outlier state
    node: str
    host: str
    port: int
    sni: str
    identity: str  # SPIFFE ID it must present in the handshake
    zone: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    healthy: bool = True  # active checks and membership together
    local: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The endpoints of one service port and how to treat them."""

    name: str
    service: str
    namespace: str
    protocol: AppProtocol
    endpoints: tuple[Endpoint, ...]
    balancer: Balancer = "p2c_ewma"
    panic_threshold_percent: int = 50
    locality_preferred: bool = False  # endpoints of the own zone first, while enough of them are available
    connect_timeout_s: float = 5.0
    outlier: Outlier = Outlier()
    breaker: CircuitBreaker = CircuitBreaker()
    retry: RetryPolicy = RetryPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A name callers use. With no rules every request goes to `cluster`; with rules and no match: 404.

    `caller_rules` are the rules of routes in a caller's own namespace; a caller whose namespace is in it gets
    those instead of `rules` (Gateway API GAMMA consumer routes).
    """

    service: str
    namespace: str
    port: int
    protocol: AppProtocol
    cluster: str
    rules: tuple[RouteRule, ...] = ()
    routed: bool = False  # some route is attached: no matching rule is a 404, never a fall-through
    caller_rules: tuple[tuple[str, tuple[RouteRule, ...]], ...] = ()
    request_timeout_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who calls. Within one tuple any value may match; a tuple left empty is no condition; `not_*` must not match.

    Patterns as in Istio: exact, "prefix*", "*suffix", "*" (any non-empty). Principals are written without
    `spiffe://`: `<trust domain>/ns/<namespace>/sa/<account>`.
    """

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is asked for. Same patterns as `Source`; ports are the service's (and more where that restricts, see
    authorize.py)."""

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    not_ports: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Istio `when`: a key such as `request.headers[x-user]`, `source.principal`, `destination.port`."""

    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthzRule:
    """Any source and any operation and every condition. An empty tuple of sources or operations is no condition."""

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthzPolicy:
    """One policy. More than one variant means concurrent edits that nobody settled yet: the most restrictive
    reading holds, so a DENY fires if any variant matches and an ALLOW only if every variant does."""

    name: str  # "<namespace>/<name>"
    variants: tuple[tuple[AuthzRule, ...], ...]
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """DENY, then ALLOW, then the default (Istio). `allow` empty: the default decides."""

    deny: tuple[AuthzPolicy, ...] = ()
    allow: tuple[AuthzPolicy, ...] = ()
    default_deny: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundService:
    """A service port on this host, reached by SNI: `<service>.<namespace>.mesh` for the first port of the service,
    `p<port>.<service>.<namespace>.mesh` for each."""

    sni: str
    service: str
    namespace: str
    port: int
    protocol: AppProtocol
    identity: str  # SPIFFE ID of the account: the certificate presented
    app_host: str
    app_port: int
    labels: tuple[tuple[str, str], ...] = ()
    authorization: Authorization = Authorization()
    request_timeout_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listening socket the control process owns and hands over by `name`.

    inbound: mTLS, service by SNI. outbound: explicit proxy (Host, absolute-form, CONNECT). upstream: a port that
    *is* `destination` ("<service>.<namespace>.mesh:<port>"), called as `caller`.
    """

    name: str
    kind: Literal["inbound", "outbound", "upstream"]
    caller: str = ""  # SPIFFE ID used towards the mesh (outbound, upstream)
    caller_namespace: str = "default"
    caller_service: str = ""  # for metrics; "" is the node itself
    destination: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An X.509-SVID with its key. `repr` never shows the key."""

    identity: str
    chain_pem: bytes
    key_pem: bytes
    not_after: int  # Unix seconds

    def __repr__(self) -> str:
        return f"Certificate({self.identity!r}, not_after={self.not_after})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the HTTP planes; each answers with the status in its comment."""

    header_bytes_max: int = 64 * 1024  # 431
    headers_max: int = 100  # 431
    idle_timeout_s: float = 300.0  # connection closed
    header_timeout_s: float = 10.0  # 408: a request head must be complete within this
    connections_max: int = 16_384  # accepted connections per worker; beyond it accepted and closed at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a data plane needs. Versions rise; a plane reports the version it serves."""

    version: int
    node: str  # printed node id
    node_name: str
    trust_domain: str
    zone: str = ""
    listeners: tuple[Listener, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    trust_bundle_pem: bytes = b""
    # SPIFFE IDs and certificate serials ("serial:<hex>") refused in handshakes, cut when live
    revoked: tuple[str, ...] = ()
    inbound: tuple[InboundService, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    destinations: tuple[Destination, ...] = ()
    limits: Limits = Limits()
    access_log: bool = True


class SnapshotError(ValueError):
    """The bytes are no snapshot. Nothing was changed."""


_ADAPTER: Final = TypeAdapter(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """MessagePack form for the pipe between control process and worker."""
    packed: bytes = msgpack.packb(_ADAPTER.dump_python(snapshot), use_bin_type=True)
    return packed


def decode_snapshot(data: bytes) -> Snapshot:
    """Inverse of `encode_snapshot`. Raises SnapshotError."""
    if len(data) > SNAPSHOT_BYTES_MAX:
        raise SnapshotError(f"snapshot of {len(data)} bytes, at most {SNAPSHOT_BYTES_MAX}")
    try:
        return _ADAPTER.validate_python(msgpack.unpackb(data, raw=False, strict_map_key=False))
    except (ValueError, TypeError, ValidationError, msgpack.UnpackException) as error:
        raise SnapshotError(f"not a snapshot: {error}") from error
