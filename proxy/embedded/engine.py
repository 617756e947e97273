"""Everything the connections of one worker share, and the bookkeeping of who is open.

A drain closes no connection that may be about to bring a request: one that has been idle for DRAIN_IDLE_S ends, one
that brings a request before is told in the answer that it ends.

Invariant: `active` is the number of exchanges and tunnels under way; a drain is over when it is zero and no connection
is left, for one may still have an answer to send.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from proxy.breaker import Breaker
from proxy.embedded.access_log import AccessLog, format_line
from proxy.embedded.clusters import Cluster
from proxy.embedded.met import MetCertificates
from proxy.embedded.telemetry import Recorder
from proxy.embedded.tls_stream import TlsStream
from proxy.embedded.trace import RequestIds
from proxy.embedded.wheel import TimerWheel
from proxy.plane import Ejection
from proxy.snapshot import Cluster as ClusterPolicy
from proxy.snapshot import Limits
from trust.errors import RevokedError
from trust.svid import Svid

if TYPE_CHECKING:
    from proxy.embedded.carrier import Supplier
    from proxy.embedded.runtime import PoolKey, Runtime
    from proxy.embedded.tunnel import Pipe

# Shorter than the idle timeout of any peer's listener, so that it is this side which closes.
POOL_IDLE_S_MAX: Final = 60.0
DRAIN_IDLE_S: Final = 1.0


class Closable(Protocol):
    """A connection that was accepted."""

    def on_drain(self) -> None:
        """A drain has begun: end as soon as nothing is under way, and nothing on its way here."""


class Refusing(Protocol):
    """A caller's connection, for the log."""

    peer_ip: str
    reporter: ClassVar[str]  # whose side of a request this is
    version: ClassVar[str]


class Engine:
    """One worker's state. `runtime` is replaced as a whole, see runtime.py."""

    __slots__ = (
        "_drained", "_log", "access_log", "active", "clusters", "connections", "draining", "generation", "limits",
        "loop", "make_breaker", "met", "pipes", "pool_idle_s", "pools", "recorder", "request_ids", "rng", "runtime",
        "streams", "troubled", "wheel",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, rng: random.Random, access_log: AccessLog | None
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.request_ids = RequestIds(rng)
        self.wheel = TimerWheel(loop)
        self.recorder = Recorder()
        self.met = MetCertificates()
        self.make_breaker: Callable[[ClusterPolicy], Breaker] = lambda cluster: Breaker(cluster.breaker)
        self._log = access_log
        self.access_log: AccessLog | None = None  # where requests are logged, unless the snapshot says not to
        self.pool_idle_s = POOL_IDLE_S_MAX  # how long a connection may wait for its next request
        self.runtime: Runtime
        self.generation = (
            0  # how many runtimes there have been; what a connection has found out is of one of them
        )
        self.limits = Limits()
        self.clusters: dict[str, Cluster] = {}
        self.troubled: set[Cluster] = set()
        self.pools: dict[PoolKey, Supplier] = {}
        self.connections: set[Closable] = set()
        self.streams: set[TlsStream] = set()
        self.pipes: set[Pipe] = set()
        self.active = 0
        self.draining = False
        self._drained: Callable[[], None] | None = None

    def serve(self, runtime: "Runtime") -> None:
        """The last step of `Runtime.commit`."""
        self.runtime = runtime
        self.generation += 1
        self.limits = runtime.snapshot.limits
        if self.draining:
            self._hurry()
        self.pool_idle_s = min(POOL_IDLE_S_MAX, self.limits.idle_timeout_s * 0.8)
        self.access_log = self._log if runtime.snapshot.access_log else None

    # ------------------------------------------------------------------ who is open

    def on_connection(self, connection: Closable) -> bool:
        """False: one too many; close it."""
        if len(self.connections) >= self.limits.connections_max:
            self.recorder.increment("connections_refused")
            return False
        self.connections.add(connection)
        return True

    def on_connection_end(self, connection: Closable) -> None:
        self.connections.discard(connection)
        if self.draining:
            self._end_drain()

    def on_exchange_end(self) -> None:
        self.active -= 1
        if self.draining:
            self._end_drain()

    def drain(self, drained: Callable[[], None]) -> None:
        """No new connection is taken, none kept alive; `drained` is called when nothing is left."""
        self.draining = True
        self._drained = drained
        self._hurry()
        for connection in list(self.connections):
            connection.on_drain()
        self._end_drain()

    def _hurry(self) -> None:
        self.limits = replace(self.limits, idle_timeout_s=min(self.limits.idle_timeout_s, DRAIN_IDLE_S))

    def _end_drain(self) -> None:
        if not self.active and not self.connections and self._drained is not None:
            drained, self._drained = self._drained, None
            drained()

    def check_peer(self, svid: Svid) -> None:
        """Asked in every handshake, of both sides. Raises RevokedError."""
        if self.runtime.revokes(svid):
            raise RevokedError(f"{svid.spiffe} has been revoked")

    # ------------------------------------------------------------------ once a second

    def sweep(self) -> None:
        """Let ejections expire, and forget TLS streams that have closed."""
        now_s = time.monotonic()
        self.troubled = {cluster for cluster in self.troubled if cluster.sweep(now_s)}
        self.streams = {stream for stream in self.streams if not stream.is_closing()}

    def ejections(self) -> tuple[Ejection, ...]:
        now_s = time.monotonic()
        return tuple(ejection for cluster in self.troubled for ejection in cluster.ejections(now_s))

    # ------------------------------------------------------------------ rare lines of the access log

    def log_refusal(self, down: Refusing, status: int, reason: str) -> None:
        """A head that is no request, or a connection in HTTP/2 that had to end (status 0)."""
        log = self.access_log
        if log is not None:
            fields: dict[str, object] = {
                "time": log.timestamp(), "reporter": down.reporter, "protocol": down.version, "code": status,
                "flags": "DPE", "source_ip": down.peer_ip, "reason": reason,
            }  # fmt: skip
            log.write(format_line(fields))

    def log_handshake_failure(self, reason: str) -> None:
        """An inbound connection whose caller proved nothing."""
        log = self.access_log
        if log is not None:
            fields: dict[str, object] = {
                "time": log.timestamp(), "reporter": "destination", "protocol": "tls", "code": 0, "flags": "DPE",
                "reason": reason,
            }  # fmt: skip
            log.write(format_line(fields))
