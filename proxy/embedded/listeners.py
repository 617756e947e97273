"""What happens to a connection a listener accepts: outbound and upstream in plain, inbound under mTLS.

Invariant: an inbound connection reaches a service only after a handshake in which the caller proved an identity of
the mesh, and only the service it named by SNI.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from proxy.embedded.caller import Caller
from proxy.embedded.compiled import Listening, Target
from proxy.embedded.downstream import Downstream
from proxy.embedded.exchange import Exchange
from proxy.embedded.http1 import HeadError, Request
from proxy.embedded.http2_downstream import Http2Downstream
from proxy.embedded.incoming import Incoming
from proxy.embedded.outgoing import Outgoing
from proxy.embedded.tcp import CONNECT_ESTABLISHED, TcpIncoming, TcpOutgoing
from proxy.embedded.tls_identity import H2
from proxy.embedded.tls_stream import TlsStream
from proxy.embedded.wheel import Timed
from trust.tls import PeerObject

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine


def accept(engine: "Engine", name: str) -> asyncio.Protocol:
    """The protocol of a connection just accepted on the listener called `name`."""
    listening = engine.runtime.listening[name]
    if listening.listener.kind == "inbound":
        return _InboundAcceptance.accept(engine)
    target = listening.target
    if target is not None and target.destination.protocol == "tcp":
        return TcpOutgoing(engine, listening, target)
    return OutboundConnection(engine, listening)


class OutboundConnection(Downstream):
    """From a caller on this host. After CONNECT to an http service every request goes there."""

    __slots__ = ("_connected_to", "_generation", "_host", "_listening", "_target")
    reporter = "source"

    def __init__(self, engine: "Engine", listening: Listening) -> None:
        super().__init__(engine)
        self._listening = listening
        self._connected_to = ""
        self._generation = 0  # of the runtime in which `_host` was looked up and `_target` found
        self._host = b""
        self._target: Target | None = None

    def exchange_for(self, request: Request) -> Exchange:
        return self.outgoing(self, request)

    def outgoing(self, caller: Caller, request: Request) -> Exchange:
        if request.host != self._host or self._generation != self.engine.generation:
            self._find_target(request.host)
        return Outgoing(caller, request, self._listening, self._target)

    def _find_target(self, host: bytes) -> None:
        """Until the host or the runtime is another, all requests go there."""
        engine = self.engine
        runtime = engine.runtime
        # The identity may have changed since; a listener that is gone serves what it accepted as it was.
        listening = self._listening = runtime.listening.get(self._listening.listener.name, self._listening)
        if self._connected_to:
            self._target = runtime.targets.get(self._connected_to)
        elif listening.listener.kind == "upstream":
            self._target = listening.target
        else:
            self._target = runtime.resolve(host, listening.namespace)
        self._host = host
        self._generation = engine.generation

    def take_http2(self, early: bytes) -> bool:
        self.detach()
        engine = self.engine
        connection = OutboundHttp2(engine, self)
        engine.connections.discard(self)
        engine.connections.add(connection)
        self.transport.set_protocol(connection)
        connection.adopt(self.transport, early)
        return True

    def on_connect(self, request: Request) -> None:
        if self._listening.listener.kind != "outbound" or self._connected_to:
            super().on_connect(request)
            return
        runtime = self.engine.runtime
        listening = self._listening = runtime.listening.get(self._listening.listener.name, self._listening)
        authority = request.target.decode("latin-1")
        target = runtime.resolve(request.target, listening.namespace) if ":" in authority else None
        if target is None:
            self._refuse(HeadError(404, f'no service "{authority}" in the mesh'))
        elif target.destination.protocol == "tcp":
            early = self.detach()
            self.engine.on_connection_end(self)
            connection = TcpOutgoing(self.engine, listening, target, CONNECT_ESTABLISHED)
            self.transport.set_protocol(connection)
            connection.adopt(self.transport, early)
        else:
            self._connected_to = target.name
            self._generation = 0
            self.transport.write(CONNECT_ESTABLISHED)


class OutboundHttp2(Http2Downstream):
    """From a caller on this host, after a preface on a connection that looked like one of HTTP/1.1."""

    __slots__ = ("_began_as",)
    reporter = "source"

    def __init__(self, engine: "Engine", began_as: OutboundConnection) -> None:
        super().__init__(engine, began_as.peer_ip)
        self._began_as = began_as

    def exchange_for(self, caller: Caller, request: Request) -> Exchange:
        return self._began_as.outgoing(caller, request)


class InboundConnection(Downstream):
    """From the mesh, after the handshake."""

    __slots__ = ("_caller", "_sni")
    reporter = "destination"

    def __init__(self, engine: "Engine", sni: str, caller: str) -> None:
        super().__init__(engine)
        self._sni = sni
        self._caller = caller

    def exchange_for(self, request: Request) -> Exchange:
        return Incoming(self, request, self.engine.runtime.inbound.get(self._sni), self._caller)


class InboundHttp2(Http2Downstream):
    """From the mesh, where the handshake agreed on HTTP/2: each stream is judged for itself."""

    __slots__ = ("_caller", "_sni")
    reporter = "destination"

    def __init__(self, engine: "Engine", peer_ip: str, sni: str, caller: str) -> None:
        super().__init__(engine, peer_ip)
        self._sni = sni
        self._caller = caller

    def exchange_for(self, caller: Caller, request: Request) -> Exchange:
        return Incoming(caller, request, self.engine.runtime.inbound.get(self._sni), self._caller)


class _InboundAcceptance(Timed):
    """An inbound connection while it shakes hands."""

    __slots__ = ("_engine", "stream")

    def __init__(self, engine: "Engine", stream: TlsStream) -> None:
        super().__init__()
        self._engine = engine
        self.stream = stream

    @classmethod
    def accept(cls, engine: "Engine") -> asyncio.Protocol:
        context = engine.runtime.server_context
        if context is None:
            return _Refusal()
        acceptance: _InboundAcceptance

        def establish(stream: TlsStream) -> asyncio.Protocol:
            return acceptance._establish(stream)

        def failed(stream: TlsStream, error: Exception) -> None:
            acceptance._fail(error)

        stream = TlsStream(context, server_side=True, server_name=None, establish=establish, failed=failed)
        acceptance = cls(engine, stream)
        if not engine.on_connection(acceptance):
            return _Refusal()
        engine.wheel.arm(acceptance, engine.limits.header_timeout_s)
        return stream

    def _establish(self, stream: TlsStream) -> asyncio.Protocol:
        engine = self._engine
        engine.wheel.forget(self)
        engine.on_connection_end(self)
        engine.streams.add(stream)
        engine.met.note(stream.ssl_object)
        peer = cast(PeerObject, stream.ssl_object)
        assert peer.peer is not None, "the context demands a certificate"
        inbound = engine.runtime.inbound.get(peer.sni)
        if inbound is not None and inbound.service.protocol == "tcp":
            return TcpIncoming(engine, inbound, peer.peer.spiffe)
        if peer.selected_alpn_protocol() == H2:
            address = stream.get_extra_info("peername")
            return InboundHttp2(engine, address[0] if address else "", peer.sni, peer.peer.spiffe)
        return InboundConnection(engine, peer.sni, peer.peer.spiffe)

    def _fail(self, error: Exception) -> None:
        self._engine.wheel.forget(self)
        self._engine.on_connection_end(self)
        self._engine.recorder.increment("tls_handshake_failed")
        self._engine.log_handshake_failure(str(error))

    def on_deadline(self) -> None:
        self.stream.abort()

    def on_drain(self) -> None:
        """Whoever shakes hands brings a request; the deadline stays."""


class _Refusal(asyncio.Protocol):
    """Closes what it is given: too many connections, or nothing to show in a handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()
