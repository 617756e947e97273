"""The seam between the peer and whatever carries its traffic.

A plane serves one snapshot at a time. `apply` is all or nothing: on `Rejected` the plane goes on with the
snapshot it had. The control process owns every listening socket and passes them by listener name, so that a
plane can crash, restart or be replaced while connections wait in the kernel's queue.

Invariant: nothing here knows which engine is behind it; the contract suite in tests/contracts runs on each.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from proxy.snapshot import Snapshot

# Upper bounds (ms) of the latency histogram; Istio's own plus finer steps below 10 ms. The last bucket is +Inf.
DURATION_BUCKETS_MS: Final = (
    0.5, 1, 2, 3, 4, 5, 7.5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 10000, 30000, 60000,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    version: int


Fault = Literal["snapshot", "deadly", "plane"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Why a snapshot is not served. `fault`: `snapshot` will not be served by this engine; a worker that was given a
    `deadly` one ended, twice; `plane`: nothing is known against the snapshot, it may be served when tried again.
    `policies` are the keys (`<Kind>/<namespace>/<name>`) of those at fault, where the engine can tell."""

    version: int
    reason: str
    fault: Fault = "snapshot"
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """One time series of requests, with what Istio's labels need."""

    reporter: Literal["source", "destination"]
    source_service: str  # "" when the caller is a node or unknown
    source_namespace: str
    source_principal: str  # SPIFFE ID, "" when unknown
    destination_service: str
    destination_namespace: str
    destination_principal: str
    protocol: str
    code: int
    flags: str  # Envoy's response flags, "-" when none
    security: Literal["mutual_tls", "none"]
    grpc_status: str = ""  # 0 to 16, "" when the response had none


@dataclass(slots=True)
class SeriesDelta:
    """What was added to a series since the last report. `buckets` has len(DURATION_BUCKETS_MS) + 1 counts."""

    requests: int = 0
    duration_sum_ms: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS_MS) + 1))
    request_bytes: int = 0
    response_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejection:
    """An endpoint that passive health took out, as one worker sees it."""

    cluster: str
    endpoint: str
    node: str
    reason: str
    remaining_s: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What a plane saw since the last call of `observations`."""

    series: Mapping[Series, SeriesDelta]
    counters: Mapping[str, int]  # deltas of named counters: retries, tls_handshake_failed, head_rejected, ...
    ejections: tuple[Ejection, ...]  # a state, not a delta
    connections: int  # a state: open downstream connections
    met: tuple[bytes, ...] = ()  # certificates (DER) that callers and servers showed, each once as a rule


@dataclass(frozen=True, slots=True, kw_only=True)
class OldWorker:
    """A worker that goes on serving while its control process is replaced: its channel, and what had been read of it
    and not understood yet."""

    pid: int
    stream: socket.socket
    unread: bytes


class Plane(Protocol):
    """One data-plane engine."""

    async def start(self) -> None:
        """Start workers. They serve nothing until the first `apply`."""

    async def apply(self, snapshot: Snapshot, sockets: Mapping[str, socket.socket]) -> Applied | Rejected:
        """Serve `snapshot`; `sockets` holds one bound, listening socket per `snapshot.listeners` name."""

    def watch(self, ended: Callable[[int], None]) -> None:
        """Tell, with the snapshot's version, of each worker that ends by itself while it serves one. (The end of one
        that is being given a snapshot is that `apply`'s answer.) The plane starts another by itself."""

    def observations(self) -> Telemetry:
        """Deltas since the last call."""

    async def drain(self, timeout_s: float) -> None:
        """Finish what is in flight: no keep-alive, no new connection; returns when idle or after `timeout_s`."""

    async def stop(self) -> None:
        """End the workers at once."""

    def processes(self) -> tuple[int, ...]:
        """Process ids of the workers."""

    async def bequeath(self) -> tuple[OldWorker, ...]:
        """Leave the workers to the process that takes over, which `adopt`s them: they go on with what they serve. This
        plane applies nothing any more, and is not stopped."""

    async def adopt(self, workers: Sequence[OldWorker], drain_s: float) -> None:
        """Workers of the process before. They serve on beside the own ones until those serve a first snapshot, and
        are then drained, for at most `drain_s`, and ended."""
