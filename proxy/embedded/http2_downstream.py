"""A caller's HTTP/2 connection: each stream is a request with its exchange (RFC 9113, prior knowledge, 3.3).

A request is the same to everything behind it as one that came in HTTP/1.1. Streams are bounded in number, and one
that was answered before its request was complete is reset with NO_ERROR (8.1), so that its place becomes free.

Invariant: `exchange` of a stream is set exactly from its request's head to the end of its exchange.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final, cast

from proxy.embedded import grpc
from proxy.embedded import http2_frames as wire
from proxy.embedded.caller import Caller
from proxy.embedded.chunked import Pairs
from proxy.embedded.exchange import NO_TRAILERS, Exchange
from proxy.embedded.heads import own_body, own_lines
from proxy.embedded.http1 import Request, Response
from proxy.embedded.http2_flow import Flow
from proxy.embedded.http2_heads import MalformedError, read_request, read_trailers
from proxy.embedded.http2_session import UNTAKEN_BYTES_MAX, Session
from proxy.embedded.wheel import NEVER

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.tunnel import Ended
    from proxy.embedded.upstream import Upstream

STREAMS_MAX: Final = 100  # of one connection at once
PREFACE_END: Final = b"SM\r\n\r\n"  # what follows the part that looks like an HTTP/1.1 head

ExchangeFor = Callable[[Caller, Request], Exchange]


class CallerStream(Flow):
    """One request. What an exchange calls is described in caller.py."""

    __slots__ = (
        "_abort_code",
        "_body",
        "_complete",
        "_request",
        "_trailers_in",
        "engine",
        "exchange",
        "peer_ip",
    )

    session: "Http2Downstream"

    def __init__(self, session: "Http2Downstream") -> None:
        super().__init__(session)
        self.engine: Engine = session.engine
        self.peer_ip = session.peer_ip
        self.exchange: Exchange | None = None

    def begin(self, stream_id: int, request: Request, *, complete: bool) -> None:
        self.open(stream_id, self.session.initial_window)
        self.remote_done = complete
        self._request: Request | None = request
        self._body: list[bytes] = []
        self._complete = complete
        self._trailers_in = NO_TRAILERS
        self._abort_code = wire.NO_ERROR
        if request.body > 0:
            self.expect(request.body)

    # ------------------------------------------------------------------ what came

    def add(self, body: bytes, *, end: bool, trailers: Pairs = NO_TRAILERS) -> None:
        """More of the body, to be handed on by `deliver`."""
        if body:
            self._body.append(body)
        self._complete = end
        self._trailers_in = trailers

    def deliver(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        request, self._request = self._request, None
        if request is not None:
            exchange = self.exchange = self.session.exchange_for(self, request)
            exchange.bytes_in = len(body)
            exchange.begin(body, self._complete, self._trailers_in)
        elif self.exchange is not None:
            self.exchange.bytes_in += len(body)
            self.exchange.on_request_body(body, self._complete, self._trailers_in)
        if self.exchange is not None:
            self.credit()

    def on_malformed(self) -> None:
        """The body is not as long as was said, or its trailers are none."""
        self.engine.recorder.increment("body_rejected")
        self._abort_code = wire.PROTOCOL_ERROR
        exchange = self.exchange
        if exchange is None:
            self._abandon(wire.PROTOCOL_ERROR)
        else:
            exchange.on_bad_body()

    def on_reset(self, code: int) -> None:
        self.deadline_s = NEVER
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.on_caller_gone()
        self.session.keep(self)

    def on_deadline(self) -> None:
        if self.exchange is not None:
            self.exchange.on_timeout()
        elif self.id in self.session.streams:
            self._abandon(wire.CANCEL)  # the caller does not take the rest of its answer

    # ------------------------------------------------------------------ flow

    @property
    def full(self) -> bool:
        return self.blocked

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_caller_full()

    def on_unblocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_caller_drained()

    def on_sent(self) -> None:
        if self.exchange is None:
            self._close()

    def _close(self) -> None:
        """Both the exchange and the answer are over."""
        self.deadline_s = NEVER
        if self.remote_done and self._abort_code == wire.NO_ERROR:
            self.session.forget(self)
        else:
            self.session.reset(self, self._abort_code)
        self.session.keep(self)

    # ------------------------------------------------------------------ for the exchange

    def protocol(self, request: Request) -> str:
        return "HTTP/2"

    def limit(self, timeout_s: float) -> None:
        self.engine.wheel.arm(self, timeout_s)

    def inform(self, exchange: Exchange, response: Response) -> None:
        self.send_headers(wire.status_field(response.status) + wire.lines_block(response.headers), end=False)

    def respond(
        self, exchange: Exchange, response: Response, headers: list[bytes], body: bytes, complete: bool,
        trailers: Pairs,
    ) -> None:  # fmt: skip
        block = wire.status_field(response.status) + wire.lines_block(headers)
        if response.length_told and response.status != 204 and (response.body >= 0):
            block += wire.field(b"content-length", response.length_told)
        if complete and not body and not trailers:
            self.send_headers(block, end=True)
            return
        self.send_headers(block, end=False)
        if body or complete:
            self.respond_more(body, complete, trailers)

    def respond_more(self, body: bytes, complete: bool, trailers: Pairs) -> None:
        self.send_body(
            body, end=complete, trailers=wire.pairs_block(trailers) if complete and trailers else b""
        )

    def reply(self, exchange: Exchange, status: int, message: str, headers: Pairs) -> None:
        self.answer(status, message, headers, to_head=exchange.request.method == "HEAD")

    def answer(self, status: int, message: str, headers: Pairs, *, to_head: bool) -> None:
        body = own_body(message)
        block = wire.status_field(status) + wire.lines_block(own_lines(body, headers))
        block += wire.field(b"content-length", b"%d" % len(body))
        if to_head or not body:
            self.send_headers(block, end=True)
        else:
            self.send_headers(block, end=False)
            self.send_body(body, end=True)

    def reply_grpc(self, exchange: Exchange, status: int, message: str) -> None:
        fields = [(b"content-type", grpc.CONTENT_TYPE), *grpc.failure_headers(status, message)]
        self.send_headers(wire.status_field(200) + wire.pairs_block(fields), end=True)

    def switch(
        self, exchange: Exchange, upstream: "Upstream", response: Response, headers: list[bytes], data: bytes,
        ended: "Ended",
    ) -> int:  # fmt: skip
        raise AssertionError("nobody asks for an upgrade in HTTP/2")

    def abort(self, reason: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.deadline_s = NEVER
        if self.id not in self.session.streams:
            return
        if exchange is not None and exchange.grpc and not (self.local_done or self._abort_code):
            self.send_body(b"", end=True, trailers=wire.pairs_block(grpc.failure_headers(503, reason)))
            if not self.local_done:
                self.engine.wheel.arm(self, self.engine.limits.idle_timeout_s)
            return
        self._abandon(self._abort_code or wire.INTERNAL_ERROR)

    def _abandon(self, code: int) -> None:
        self.deadline_s = NEVER
        self.session.reset(self, code)
        self.session.keep(self)

    def on_response_sent(self) -> None:
        self.exchange = None
        if self.id not in self.session.streams:
            return
        if self.local_done:
            self._close()
        else:
            self.engine.wheel.arm(self, self.engine.limits.idle_timeout_s)


class Http2Downstream(asyncio.Protocol, Session):
    """`exchange_for` makes the exchange of a request, as the kind of listener wants it."""

    __slots__ = ("_draining", "_free", "_preface_left", "engine", "exchange_for", "peer_ip", "transport")

    reporter: ClassVar[str] = "source"
    version: ClassVar[str] = "HTTP/2"

    def __init__(self, engine: "Engine", peer_ip: str, exchange_for: ExchangeFor) -> None:
        Session.__init__(self, engine.limits.header_bytes_max, engine.loop.time)
        self.engine = engine
        self.peer_ip = peer_ip
        self.exchange_for = exchange_for
        self.transport: asyncio.Transport
        self._preface_left = PREFACE_END
        self._free: list[CallerStream] = []  # the timer wheel forgets a stream late: it is used again
        self._draining = False

    def __repr__(self) -> str:
        return f"<Http2Downstream from {self.peer_ip} streams={len(self.streams)}>"

    # ------------------------------------------------------------------ asyncio.Protocol

    def adopt(self, transport: asyncio.Transport, early: bytes) -> None:
        """Take over a connection on which the first part of the preface has been read."""
        self.transport = transport
        engine = self.engine
        engine.wheel.arm(self, engine.limits.header_timeout_s)
        self.greet(
            b"",
            [
                (wire.MAX_CONCURRENT_STREAMS, STREAMS_MAX),
                (wire.MAX_HEADER_LIST_SIZE, engine.limits.header_bytes_max),
            ],
        )
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        if self._preface_left:
            size = min(len(data), len(self._preface_left))
            if data[:size] != self._preface_left[:size]:
                self.fail(wire.PROTOCOL_ERROR, "malformed preface")
                return
            self._preface_left = self._preface_left[size:]
            data = data[size:]
        was_open = self.block_open
        self.receive(data)
        if self.block_open and not was_open:
            self.engine.wheel.arm(self, self.engine.limits.header_timeout_s)
        elif was_open and not self.block_open:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline_s = NEVER
        self.engine.on_connection_end(self)
        if not self.closed:
            self.end(wire.CANCEL)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.full = True
        for stream in list(self.streams.values()):
            stream.on_blocked()

    def resume_writing(self) -> None:
        self.full = False
        for stream in list(self.streams.values()):
            if stream not in self.blocked:
                stream.on_unblocked()
        self.pump()

    def on_deadline(self) -> None:
        if not self.closed and (self.block_open or not self._greeted):
            self.fail(wire.PROTOCOL_ERROR, "a header block or the settings did not come in time")
        elif self.closed:
            self.transport.abort()
        elif not self.streams:
            self.fail(wire.NO_ERROR, "")

    def _rest(self) -> None:
        """The connection's own deadline while no header block is under way."""
        if self.streams:
            self.deadline_s = NEVER
        else:
            self.engine.wheel.arm(self, self.engine.limits.idle_timeout_s)

    # ------------------------------------------------------------------ Session

    def flush_soon(self) -> None:
        self.engine.loop.call_soon(self.flush)

    def transmit(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if self.full and self.transport.get_write_buffer_size() > UNTAKEN_BYTES_MAX:
            self.engine.recorder.increment("http2_cut")
            self.transport.abort()

    def on_failed(self, reason: str) -> None:
        self.deadline_s = NEVER
        if reason:
            self.engine.recorder.increment("http2_cut")
            self.engine.log_refusal(self, 0, reason)
        self.transport.close()
        self.engine.wheel.arm(self, 1.0)  # a close waits for the caller to take what is written

    def on_settings(self) -> None:
        if not self.streams:
            self._rest()

    def on_idle(self) -> None:
        if self._draining:
            self.fail(wire.NO_ERROR, "")
        elif not self.block_open:
            self._rest()

    def on_goaway(self, last: int) -> None:
        """The caller begins nothing more; what is under way goes on."""
        if not self.streams:
            self.fail(wire.NO_ERROR, "")

    def keep(self, stream: CallerStream) -> None:
        """The stream is over and may be another."""
        stream.id = 0
        if len(self._free) < STREAMS_MAX:
            self._free.append(stream)

    def on_block(self, stream_id: int, fields: Pairs, *, end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._trailers(cast(CallerStream, stream), fields, end=end)
            return
        if not stream_id & 1:
            raise wire.Http2Error(wire.PROTOCOL_ERROR, "a stream of the caller has an odd number")
        if stream_id <= self.top:
            self._for_nobody(stream_id)
            return
        self.top = stream_id
        if len(self.streams) >= STREAMS_MAX or self._draining:
            self.nuisance()
            self.refuse(stream_id, wire.REFUSED_STREAM)
            return
        try:
            request = read_request(fields, self.engine.limits.headers_max, end=end)
        except MalformedError as error:
            self._refuse_request(stream_id, error, end=end)
            return
        if not self.streams:
            self.deadline_s = NEVER
        begun = self._free.pop() if self._free else CallerStream(self)
        begun.begin(stream_id, request, complete=end)
        self.streams[stream_id] = begun
        self.touch(begun)

    def _trailers(self, stream: CallerStream, fields: Pairs, *, end: bool) -> None:
        if stream.remote_done:
            self._break(stream, wire.STREAM_CLOSED)
            return
        try:
            trailers = read_trailers(fields, self.engine.limits.headers_max)
        except MalformedError:
            end = False
        if not end or stream.short:
            stream.remote_done = True
            stream.on_malformed()
            return
        stream.remote_done = True
        stream.add(b"", end=True, trailers=trailers)
        self.touch(stream)

    def _refuse_request(self, stream_id: int, error: MalformedError, *, end: bool) -> None:
        self.nuisance()
        self.engine.recorder.increment("head_rejected")
        self.engine.log_refusal(self, error.status, error.reason)
        if not error.status:
            self.refuse(stream_id, wire.PROTOCOL_ERROR)
            return
        block = wire.status_field(error.status) + wire.lines_block(own_lines(b"", []))
        self.write_headers(stream_id, block + wire.field(b"content-length", b"0"), end=True)
        if not end:
            self.refuse(stream_id, wire.NO_ERROR)

    def on_data(self, stream: Flow, body: bytes, *, end: bool) -> None:
        cast(CallerStream, stream).add(body, end=end)

    def on_malformed(self, stream: Flow) -> None:
        stream.remote_done = True
        cast(CallerStream, stream).on_malformed()

    def deliver(self, stream: Flow) -> None:
        cast(CallerStream, stream).deliver()

    # ------------------------------------------------------------------ for the engine

    def close_if_idle(self) -> None:
        """A drain has begun. Say so, and take what was on its way until the caller has heard (6.8)."""
        if self.closed or self.transport.is_closing():
            return
        self.write(wire.goaway(wire.WINDOW_MAX, wire.NO_ERROR) + wire.frame(wire.PING, 0, 0, b"gossamer"))

    def on_ping_answered(self) -> None:
        if not self.engine.draining or self._draining:
            return
        self._draining = True
        if self.streams:
            self.write(wire.goaway(self.top, wire.NO_ERROR))
        else:
            self.fail(wire.NO_ERROR, "")
