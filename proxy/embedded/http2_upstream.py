"""HTTP/2 to an application of this host, or under TLS to another host: each request is a stream of a shared connection.

Invariant: `exchange` of a call is set exactly while its request is out; a call that ends frees its stream before the
exchange hears of it, for what the exchange does next may want it.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from proxy.embedded import http2_frames as wire
from proxy.embedded.chunked import Pairs
from proxy.embedded.exchange import NO_TRAILERS
from proxy.embedded.http1 import Response
from proxy.embedded.http2_blocks import FIELD_BYTES, Fields
from proxy.embedded.http2_flow import Flow
from proxy.embedded.http2_heads import MalformedError, response_of, trailers_of
from proxy.embedded.http2_link import Link
from proxy.embedded.wheel import NEVER

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.exchange import Exchange
    from proxy.embedded.http2_pool import Http2Pool

STREAMS_MAX: Final = 256  # at once on one connection, whatever the application allows
INDEXED_NAME_BYTES_MAX: Final = 32  # of a name that is a number in a block
_OWN_FIELDS_BYTES: Final = (
    640  # at most: the names of pseudo-header fields, the method, and what the mesh writes
)
_PAUSED: Final = 1


class Call(Flow):
    """One request. What an exchange calls is described in carrier.py."""

    __slots__ = (
        "_complete",
        "_head_seen",
        "_pieces",
        "_response",
        "_trailers_in",
        "answered",
        "exchange",
        "reused",
    )

    session: "Http2Upstream"

    def __init__(self, session: "Http2Upstream") -> None:
        super().__init__(session)
        self.exchange: Exchange | None = None
        self.reused = session.top > 0
        self.answered = False
        self._response: Response | None = None
        self._pieces: list[bytes] = []
        self._head_seen = self._complete = False
        self._trailers_in = NO_TRAILERS
        self.open(session.next_id(), session.initial_window)

    # ------------------------------------------------------------------ used by the exchange

    def begin(self, exchange: "Exchange", body: bytes, complete: bool, trailers: Pairs) -> None:
        block = _request_block(exchange)
        if len(block) > self.session.surely_taken and _list_bytes(exchange) > self.session.list_bytes_max:
            exchange.on_head_too_large()
            return
        self.exchange = exchange
        self.session.begin(self)
        end = complete and not body and not trailers
        self.send_headers(block, end=end)
        if not end and (body or complete):
            self.send(body, complete, trailers)

    def send(self, body: bytes, complete: bool, trailers: Pairs) -> None:
        block = wire.pairs_block(trailers) if complete and trailers else b""
        self.send_body(body, end=complete, trailers=block)

    def pause(self) -> None:
        self.hold(_PAUSED)

    def resume(self) -> None:
        self.release(_PAUSED)

    def limit(self, timeout_s: float) -> None:
        self.session.engine.wheel.arm(self, timeout_s)

    def drop(self) -> None:
        self.exchange = None
        self.deadline_s = NEVER
        if self.id in self.session.streams:
            self.session.reset(self, wire.CANCEL)

    # ------------------------------------------------------------------ what came

    def on_block(self, fields: Fields, *, end: bool) -> None:
        exchange = self.exchange
        assert exchange is not None, "a call without an exchange has no stream"
        headers_max = self.session.fields_max
        self.answered = True
        try:
            if not self._head_seen:
                to_head = exchange.request.method == "HEAD"
                response = response_of(fields, headers_max, to_head=to_head, end=end)
                if response.status < 200:
                    exchange.on_informational(response)
                    return
                self._take_head(response, end=end)
            elif end and not self.short:
                self._trailers_in = trailers_of(fields, headers_max)
            else:
                raise MalformedError("trailers before the end of the body")
        except MalformedError as error:
            self.on_broken(error.reason)
            return
        self.remote_done = self._complete = end
        self.session.touch(self)

    def _take_head(self, response: Response, *, end: bool) -> None:
        self._head_seen = True
        self.deadline_s = NEVER
        self._response = response
        if not end:
            self.expect(max(response.body, -1))

    def add(self, body: bytes, *, end: bool) -> None:
        if body:
            self._pieces.append(body)
        self._complete = end

    def deliver(self) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        response, self._response = self._response, None
        pieces, self._pieces = self._pieces, []
        complete = self._complete
        if complete:
            self._free(exchange)
        if response is not None:
            exchange.on_response(response, pieces, complete, self._trailers_in)
        elif pieces or complete:
            exchange.on_response_body(pieces, complete, self._trailers_in)
        if not complete and self.exchange is not None:
            self.credit()

    def _free(self, exchange: "Exchange") -> None:
        self.exchange = None
        exchange.upstream = None
        self.session.expect_reset()  # after a whole answer: send no more of the request (RFC 9113, 8.1)
        if self.id in self.session.streams:
            if self.local_done:
                self.session.forget(self)
            else:
                self.session.reset(self, wire.CANCEL)  # the answer came before the request was complete

    def on_broken(self, reason: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.deadline_s = NEVER
        if self.id in self.session.streams:
            self.session.reset(self, wire.PROTOCOL_ERROR)
        if exchange is not None:
            exchange.on_upstream_broken(reason)

    def on_reset(self, code: int) -> None:
        self.deadline_s = NEVER
        self.deliver()  # what came before
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        if self.session.failure:
            exchange.on_upstream_broken(self.session.failure)
        elif code == wire.REFUSED_STREAM:
            exchange.on_upstream_refused("the application refused the stream")
        elif self.session.closed:
            exchange.on_upstream_lost(self, "the connection was closed")
        else:
            exchange.on_upstream_lost(self, f"the stream was reset with code {code}")

    def on_deadline(self) -> None:
        exchange = self.exchange
        if exchange is not None and not self._head_seen:
            self.drop()
            exchange.on_try_timeout()

    # ------------------------------------------------------------------ flow

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_upstream_full()

    def on_unblocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_upstream_drained()

    def on_sent(self) -> None: ...


def _request_block(exchange: "Exchange") -> bytes:
    request = exchange.request
    block = b"".join(
        (
            wire.method_field(request.method), wire.SCHEME_HTTP,
            wire.path_field((exchange.path_sent + exchange.query).encode("latin-1")),
            wire.authority_field(exchange.host), wire.pairs_block(exchange.headers),
            wire.field(b"traceparent", exchange.traceparent), wire.field(b"x-request-id", exchange.request_id),
        )
    )  # fmt: skip
    identity = exchange.identity_line()
    if identity:
        block += wire.lines_block([identity.rstrip()])
    if request.body > 0:
        block += wire.field(b"content-length", b"%d" % request.body)
    if request.expects:
        block += wire.field(b"expect", b"100-continue")
    return block + _TE_TRAILERS if exchange.grpc else block


def _list_bytes(exchange: "Exchange") -> int:
    """How large the head is as a list of fields (RFC 9113, 6.5.2), or a little more."""
    fields = sum(len(name) + len(value) + FIELD_BYTES for name, value in exchange.headers)
    return fields + len(exchange.path_sent) + len(exchange.query) + len(exchange.host) + _OWN_FIELDS_BYTES


class Http2Upstream(Link):
    """A connection of an `Http2Pool`. `failure`: how the application broke the protocol.

    `list_bytes_max` is how large a head another host takes: to one that is larger it would have to end the connection,
    with the requests of others on it. A head is made larger on its way, by a route's filters and by escapes. A block of
    `surely_taken` bytes is no larger than that as a list. What an application takes is its own affair.
    """

    __slots__ = ("_going", "_next", "_pool", "failure", "list_bytes_max", "surely_taken")

    def __init__(self, engine: "Engine", pool: "Http2Pool") -> None:
        super().__init__(engine)
        self.list_bytes_max = self.surely_taken = wire.WINDOW_MAX
        if pool.place.context is not None:
            self.widen()
            self._limit_heads(self.header_bytes_max)
        self.failure = ""
        self._pool = pool
        self._next = 1
        self._going = False  # no new call

    def __repr__(self) -> str:
        return f"<Http2Upstream {self._pool.place} calls={len(self.streams)}>"

    def _limit_heads(self, list_bytes_max: int) -> None:
        self.list_bytes_max = list_bytes_max
        self.surely_taken = list_bytes_max - self.fields_max * (FIELD_BYTES + INDEXED_NAME_BYTES_MAX)

    # ------------------------------------------------------------------ used by calls and the pool

    @property
    def has_room(self) -> bool:
        return not (self._going or self.closed) and len(self.streams) < min(
            self.peer_streams_max, STREAMS_MAX
        )

    def next_id(self) -> int:
        return self._next

    def begin(self, call: Call) -> None:
        assert call.id == self._next, "one call begins after the other"
        self.top = call.id
        self._next += 2
        if self._next > wire.WINDOW_MAX:
            self._going = True
        self.streams[call.id] = call
        self.deadline_s = NEVER

    def retire(self) -> None:
        """No new call; the end when there is none."""
        self._going = True
        if not self.streams:
            self._finish()

    def _finish(self) -> None:
        if not self.closed:
            self.write(wire.goaway(0, wire.NO_ERROR))
            self.flush()
            self.end(wire.NO_ERROR)
            self.transport.close()

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TCPTransport is one, by duck typing
        self.greet(wire.PREFACE, [(wire.ENABLE_PUSH, 0), (wire.MAX_HEADER_LIST_SIZE, self.header_bytes_max)])
        self._pool.on_connected(self)

    def data_received(self, data: bytes) -> None:
        if not self.closed:
            self.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.wheel.forget(self)
        self._going = True
        self._pool.on_closed(self)
        if not self.closed:
            self.end(wire.CANCEL)

    def on_deadline(self) -> None:
        if not self.streams:
            self._finish()

    # ------------------------------------------------------------------ Session

    def on_untaken(self) -> None: ...

    def fail(self, code: int, reason: str) -> None:
        self.failure = reason
        super().fail(code, reason)

    def on_failed(self, reason: str) -> None:
        self.transport.abort()

    def on_settings(self) -> None:
        if self._pool.place.context is not None and self.peer_list_bytes_max is not None:
            self._limit_heads(self.peer_list_bytes_max)
        self._pool.on_room(self)

    def on_idle(self) -> None:
        if self._going:
            self._finish()
        else:
            self.engine.wheel.arm(self, self.engine.pool_idle_s)

    def forget(self, stream: Flow) -> None:
        self.engine.wheel.forget(stream)  # its timeout is seconds away, and thousands begin in one
        super().forget(stream)
        self._pool.on_room(self)

    def on_goaway(self, last: int) -> None:
        self._going = True
        for call in [call for call in self.streams.values() if call.id > last]:
            self.forget(call)
            call.on_reset(wire.REFUSED_STREAM)
        if not self.streams:
            self._finish()
        self._pool.on_going()

    def on_block(self, stream_id: int, fields: Fields, *, end: bool) -> None:
        call = self.streams.get(stream_id)
        if call is None:
            self._for_nobody(stream_id)
        elif call.remote_done:
            self._break(call, wire.STREAM_CLOSED)
        else:
            cast(Call, call).on_block(fields, end=end)

    def on_data(self, stream: Flow, body: bytes, *, end: bool) -> None:
        cast(Call, stream).add(body, end=end)

    def on_malformed(self, stream: Flow) -> None:
        cast(Call, stream).on_broken("the body is not as long as was said")

    def deliver(self, stream: Flow) -> None:
        cast(Call, stream).deliver()


_TE_TRAILERS: Final = wire.field(b"te", b"trailers")
