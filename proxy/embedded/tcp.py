"""Connections carried as bytes: services that speak plain TCP, from a caller on this host or from the mesh.

The caller's connection is not read before the far one stands, so a server that speaks first works. A caller's
connection that finds no endpoint, or none that may be reached, or that the cluster's breaker has no room for, is reset:
TCP has no other way to say so.

A caller may close its half before the far one stands (`nc -N` does): it is told there.

Invariant: not one byte is passed on before the caller's identity was authorised, here or at the far end.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, cast

from proxy.balance import EndpointLoad
from proxy.embedded.access_log import format_line
from proxy.embedded.clusters import Cluster
from proxy.embedded.compiled import Inbound, Listening, Target
from proxy.embedded.dial import Dial, Place
from proxy.embedded.heads import own_response
from proxy.embedded.pool_queue import CONNECT_TIMEOUT_S
from proxy.embedded.runtime import NoCertificateError
from proxy.embedded.tunnel import splice
from proxy.retry import Failure

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine

CONNECT_ESTABLISHED: Final = b"HTTP/1.1 200 Connection Established\r\n\r\n"
_clock = time.monotonic


class _Far(asyncio.Protocol):
    """The far connection until the two are joined."""

    __slots__ = ("_near",)

    def __init__(self, near: "TcpConnection") -> None:
        self._near = near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._near.on_far(cast(asyncio.Transport, transport))  # uvloop's TCPTransport is one, by duck typing


class TcpConnection(asyncio.Protocol, ABC):
    """The caller's side, until it is joined with the far one. `greeting` is written first: CONNECT's answer."""

    __slots__ = (
        "_dial",
        "_early",
        "_ended",
        "_flags",
        "_greeting",
        "_half_closed",
        "_started_s",
        "_upstream",
        "engine",
        "transport",
    )

    def __init__(self, engine: "Engine", greeting: bytes = b"") -> None:
        self.engine = engine
        self.transport: asyncio.Transport
        self._greeting = greeting
        self._early = b""
        self._half_closed = False
        self._dial: Dial | None = None
        self._ended = False
        self._flags = "-"
        self._upstream = ""
        self._started_s = _clock()

    @abstractmethod
    def start(self) -> None:
        """Find the other side and `_reach` it, or `_refuse`."""

    @abstractmethod
    def on_unreachable(self, reason: str) -> None: ...

    @abstractmethod
    def account(self, received: int, sent: int, duration_ms: float) -> None: ...

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.adopt(cast(asyncio.Transport, transport), b"")

    def adopt(self, transport: asyncio.Transport, early: bytes) -> None:
        """Take over a connection, with what has been read from it already."""
        self.transport = transport
        self._early = early
        self.engine.active += 1
        if not self.engine.on_connection(self):
            self._refuse("UO", "too many connections")
            return
        self.start()

    def data_received(self, data: bytes) -> None:
        # One read may come before the far connection stands; the rest waits in the kernel.
        self._early += data
        self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._half_closed = True
        return not self._ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._flags = "DC"
        if self._dial is not None:
            self._dial.abandon()
        self._end(0, 0)

    def on_drain(self) -> None:
        """A pipe in use is waited for."""

    # ------------------------------------------------------------------ the far side

    def _reach(self, place: Place, timeout_s: float) -> None:
        self._upstream = str(place)
        self._dial = Dial(self.engine, place, timeout_s, _Far(self), self.on_unreachable)

    def on_far(self, far: asyncio.Transport) -> None:
        if self._dial is not None:
            self._dial.settle()
            self._dial = None
        if self._ended:
            far.abort()
            return
        if self._greeting:
            self.transport.write(self._greeting)
        early, self._early = self._early, b""
        if early:
            far.write(early)
        splice(
            self.engine,
            self.transport,
            far,
            lambda received, sent: self._end(received + len(early), sent),
            first_ended=self._half_closed,
        )  # the pipe owns both from here

    def _refuse(self, flags: str, reason: str) -> None:
        self._flags = flags
        if self._greeting:
            answer = own_response(503, reason, keep=b"connection: close\r\n", headers=[], to_head=False)
            self.transport.write(answer)
            self.transport.close()
        else:
            self.transport.abort()
        self._end(0, 0)

    def _end(self, received: int, sent: int) -> None:
        if self._ended:
            return
        self._ended = True
        self.engine.on_connection_end(self)
        self.account(received, sent, (_clock() - self._started_s) * 1000.0)
        self.engine.on_exchange_end()

    def _log(
        self,
        *,
        reporter: str,
        duration_ms: float,
        received: int,
        sent: int,
        source: str,
        destination: str,
        policy: str,
    ) -> None:
        log = self.engine.access_log
        if log is None:
            return
        fields: dict[str, object] = {
            "time": log.timestamp(), "reporter": reporter, "protocol": "tcp", "code": 0, "flags": self._flags,
            "duration_ms": round(duration_ms, 3), "bytes_in": received, "bytes_out": sent, "source": source,
            "destination": destination, "upstream": self._upstream,
        }  # fmt: skip
        if policy:
            fields["authz_policy"] = policy
        log.write(format_line(fields))


class TcpOutgoing(TcpConnection):
    """From a caller on this host to a tcp destination."""

    __slots__ = (
        "_admitted",
        "_attempt",
        "_cluster",
        "_inbound",
        "_listening",
        "_load",
        "_policy",
        "_sent_s",
        "_target",
        "_tried",
    )

    def __init__(self, engine: "Engine", listening: Listening, target: Target, greeting: bytes = b"") -> None:
        super().__init__(engine, greeting)
        self._listening = listening
        self._target = target
        self._cluster: Cluster | None = None
        self._inbound: Inbound | None = None
        self._load: EndpointLoad | None = None
        self._tried: tuple[str, ...] = ()
        self._attempt = 1
        self._admitted = False  # counted by the cluster's breaker
        self._policy = ""
        self._sent_s = 0.0

    def start(self) -> None:
        target = self._target
        name = target.destination.cluster
        table = target.routes.table(self._listening.namespace)
        if table is not None:
            matched = table.match("", "/", "", {})
            backend = None if matched is None else matched.choose(self.engine.rng)
            name = "" if backend is None else backend.cluster
        self._cluster = self.engine.runtime.clusters.get(name)
        if self._cluster is None:
            self._refuse("NC", f"no valid backend for {target.name}")
            return
        if not self._cluster.breaker.open_connection():
            self._refuse("UO", "upstream overflow: too many connections")
            return
        self._admitted = True
        self._try()

    def _try(self) -> None:
        cluster = self._cluster
        assert cluster is not None
        load = cluster.balancer.choose(_clock(), self.engine.rng, self._tried)
        if load is None:
            self._refuse("UH", "no healthy upstream")
            return
        runtime = self.engine.runtime
        endpoint = load.endpoint
        inbound = runtime.inbound.get(endpoint.local) if endpoint.local else None
        if inbound is not None:
            peer = self.transport.get_extra_info("peername")
            decision = inbound.authorize_connection(self._listening.identity, peer[0] if peer else "")
            self._inbound = inbound
            if not decision.allowed:
                self._policy = decision.policy or decision.reason
                self.engine.recorder.increment("authz_denied")
                self._refuse("-", "RBAC: access denied")
                return
            place = Place(host=inbound.service.app_host, port=inbound.service.app_port)
        else:
            try:
                place = runtime.place(self._listening, endpoint)
            except NoCertificateError as error:
                self._refuse("UF", str(error))
                return
        load.started()
        self._load = load
        self._sent_s = _clock()
        self._reach(place, cluster.cluster.connect_timeout_s)

    def on_unreachable(self, reason: str) -> None:
        self._dial = None
        cluster, load = self._cluster, self._load
        assert cluster is not None
        assert load is not None
        self._load = None
        now_s = _clock()
        load.finished(now_s, now_s - self._sent_s, True)
        cluster.observe(load.endpoint.id, True, now_s, Failure.CONNECT.value)
        self._tried = (*self._tried, load.endpoint.id)
        if cluster.retry.failure(Failure.CONNECT) and cluster.retry.may_follow(
            self._attempt, replayable=True
        ):
            self._attempt += 1
            self.engine.recorder.increment("retries")
            self._try()
        else:
            self._refuse("UF", reason)

    def on_far(self, far: asyncio.Transport) -> None:
        if self._cluster is not None and self._load is not None:
            self._cluster.observe(self._load.endpoint.id, False, _clock(), "")
        super().on_far(far)

    def account(self, received: int, sent: int, duration_ms: float) -> None:
        load, self._load = self._load, None
        endpoint = None
        if load is not None:
            load.abandoned()  # how long a connection lives says nothing of the endpoint
            endpoint = load.endpoint
        if self._admitted and self._cluster is not None:
            self._cluster.breaker.close_connection()
        recorder = self.engine.recorder
        self._listening.edge(recorder, self._target, self._cluster, endpoint).count(
            0, self._flags, duration_ms, received, sent
        )
        if self._inbound is not None:
            self._inbound.edge(recorder, self._listening.source, "none").count(
                0, self._flags, duration_ms, received, sent
            )
        self._log(
            reporter="source", duration_ms=duration_ms, received=received, sent=sent,
            source=self._listening.identity, destination=self._target.name, policy=self._policy,
        )  # fmt: skip


class TcpIncoming(TcpConnection):
    """From the mesh to an application on this host."""

    __slots__ = ("_caller", "_inbound", "_policy")

    def __init__(self, engine: "Engine", inbound: Inbound, caller: str) -> None:
        super().__init__(engine)
        self._inbound = inbound
        self._caller = caller
        self._policy = ""

    def start(self) -> None:
        inbound = self._inbound
        peer = self.transport.get_extra_info("peername")
        decision = inbound.authorize_connection(self._caller, peer[0] if peer else "")
        if not decision.allowed:
            self._policy = decision.policy or decision.reason
            self.engine.recorder.increment("authz_denied")
            self._refuse("-", "RBAC: access denied")
            return
        self._reach(Place(host=inbound.service.app_host, port=inbound.service.app_port), CONNECT_TIMEOUT_S)

    def on_unreachable(self, reason: str) -> None:
        self._dial = None
        self._refuse("UF", reason)

    def account(self, received: int, sent: int, duration_ms: float) -> None:
        self._inbound.edge_from(self.engine.recorder, self._caller).count(
            0, self._flags, duration_ms, received, sent
        )
        self._log(
            reporter="destination", duration_ms=duration_ms, received=received, sent=sent,
            source=self._caller, destination=self._inbound.name, policy=self._policy,
        )  # fmt: skip
