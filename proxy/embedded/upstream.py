"""One HTTP/1.1 connection towards an endpoint or an application: one request at a time, kept alive between.

Invariant: `exchange` is set exactly while a request is out on this connection; bytes that come while it is not, or
beyond the end of a response, end the connection.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from proxy.embedded.chunked import ChunkedDecoder, ChunkedError, Pairs, encode_body
from proxy.embedded.heads import request_head
from proxy.embedded.http1 import CHUNKED, UNTIL_CLOSE, HeadError, Response, ResponseReader
from proxy.embedded.wheel import NEVER, Timed

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.exchange import Exchange
    from proxy.embedded.pool import Pool


class Upstream(asyncio.Protocol, Timed):
    """A pooled connection. `_left` counts down a body with a length; CHUNKED and UNTIL_CLOSE as in `Response.body`."""

    __slots__ = (
        "_buffer", "_decoder", "_engine", "_full", "_in_body", "_keep", "_left", "_paused", "_pool", "_reader",
        "_scanned", "answered", "exchange", "reused", "transport",
    )  # fmt: skip

    def __init__(self, engine: "Engine", pool: "Pool") -> None:
        Timed.__init__(self)
        self._engine = engine
        self._pool = pool
        self._reader = ResponseReader()
        self._buffer = b""
        self._scanned = 0
        self._in_body = False
        self._left = 0
        self._keep = True
        self._decoder: ChunkedDecoder | None = None
        self._full = False  # the socket takes no more for now
        self._paused = False  # reading, because the caller does not take more
        self.transport: asyncio.Transport
        self.exchange: Exchange | None = None
        self.reused = False  # it has carried a request before the present one
        self.answered = False  # some byte came back for the present request

    def __repr__(self) -> str:
        return f"<Upstream {self._pool.place} {'busy' if self.exchange else 'idle'}>"

    # ------------------------------------------------------------------ used by exchange and pool

    def begin(self, exchange: "Exchange", body: bytes, complete: bool, trailers: Pairs) -> None:
        """Send a request's head with what there is of its body."""
        self.exchange = exchange
        self.answered = False
        self.deadline_s = NEVER
        request = exchange.request
        head = request_head(
            request, (exchange.path_sent + exchange.query).encode("latin-1"), exchange.host, exchange.headers,
            b"traceparent: %b\r\nx-request-id: %b\r\n%b"
            % (exchange.traceparent, exchange.request_id, exchange.identity_line()),
        )  # fmt: skip
        if request.body == 0:
            self.transport.write(head)
        elif request.body == CHUNKED:
            self.transport.write(head + encode_body(body, complete, trailers))
        else:
            self.transport.write(head + body)

    def send(self, body: bytes, complete: bool, trailers: Pairs) -> None:
        """More of the request's body."""
        exchange = self.exchange
        assert exchange is not None
        if exchange.request.body == CHUNKED:
            body = encode_body(body, complete, trailers)
        if body:
            self.transport.write(body)

    def pause(self) -> None:
        """Read no more: the caller does not take what has come."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def limit(self, timeout_s: float) -> None:
        """The response's head must be here within `timeout_s`: the exchange's per-try timeout."""
        self._engine.wheel.arm(self, timeout_s)

    def drop(self) -> None:
        """The exchange no longer wants it, in whatever state it is."""
        self.exchange = None
        self.transport.abort()

    def close(self) -> None:
        self.exchange = None
        self.transport.close()

    def detach(self) -> None:
        """A tunnel takes the transport; `on_detached_end` when that is over."""
        self.exchange = None
        self.deadline_s = NEVER

    def on_detached_end(self) -> None:
        self._pool.on_closed(self)

    def on_deadline(self) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()
        elif not self._in_body:
            self.drop()
            exchange.on_try_timeout()

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TCPTransport is one, by duck typing
        self._pool.on_connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.wheel.forget(self)
        exchange, self.exchange = self.exchange, None
        self._pool.on_closed(self)
        if exchange is None:
            return
        if exc is None and self._in_body and self._left == UNTIL_CLOSE:
            exchange.on_response_body([], True, [])
        else:
            exchange.on_upstream_lost(self, str(exc) if exc else "the connection was closed")

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._full = True
        if self.exchange is not None:
            self.exchange.on_upstream_full()

    def resume_writing(self) -> None:
        self._full = False
        if self.exchange is not None:
            self.exchange.on_upstream_drained()

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:
            self.transport.abort()  # nobody asked
        elif self._in_body:
            self._take_body(data)
        else:
            self.answered = True
            self._take_head(data)

    # ------------------------------------------------------------------ the response

    def _take_head(self, data: bytes) -> None:
        exchange = self.exchange
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        limits = self._engine.limits
        while data and exchange is not None:
            end = data.find(b"\r\n\r\n", self._scanned) + 4
            if end < 4:
                if len(data) > limits.header_bytes_max:
                    self._break("the response's head is too large")
                self._buffer = data
                self._scanned = max(0, len(data) - 3)
                return
            self._scanned = 0
            try:
                response = self._reader.read(
                    data if len(data) == end else data[:end],
                    limits.headers_max,
                    to_head=exchange.request.method == "HEAD",
                )
            except HeadError as error:
                self._break(error.reason)
                return
            data = data[end:]
            if response.status >= 200:
                self._take_final(exchange, response, data)
                return
            if response.status == 101:
                self._switch(exchange, response, data)
                return
            exchange.on_informational(response)
            exchange = self.exchange

    def _take_final(self, exchange: "Exchange", response: Response, data: bytes) -> None:
        self.deadline_s = NEVER
        self._keep = response.keep_alive
        left = response.body
        pieces = [data] if data else []
        trailers = _NO_TRAILERS
        if left >= 0:
            if len(data) > left:
                self._keep = False  # more than was announced: nothing on this connection can be trusted
                data = data[:left]
                pieces = [data] if data else []
            self._left = left = left - len(data)
            complete = left == 0
        elif left == CHUNKED:
            self._left = left
            decoder = self._decoder = ChunkedDecoder()
            try:
                pieces = decoder.feed(data)
            except ChunkedError as error:
                self._break(str(error))
                return
            complete = decoder.done
            trailers = decoder.trailers
        else:
            self._left = left
            self._keep = complete = False
        if complete:
            self._end(exchange)
        else:
            self._in_body = True
        exchange.on_response(response, pieces, complete, trailers)

    def _take_body(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        trailers = _NO_TRAILERS
        pieces = [data]
        if self._left >= 0:
            if len(data) > self._left:
                self._keep = False
                pieces = [data[: self._left]]
                self._left = 0
            else:
                self._left -= len(data)
            complete = self._left == 0
        elif self._decoder is not None:
            try:
                pieces = self._decoder.feed(data)
            except ChunkedError as error:
                self._break(str(error))
                return
            complete = self._decoder.done
            trailers = self._decoder.trailers
        else:
            complete = False
        if complete:
            self._end(exchange)
        exchange.on_response_body(pieces, complete, trailers)

    def _end(self, exchange: "Exchange") -> None:
        """The response is complete. Free the connection first: what the exchange does next may want it."""
        if self._decoder is not None:
            self._keep = self._keep and not self._decoder.rest
            self._decoder = None
        self._in_body = False
        self.exchange = None
        exchange.upstream = None
        if self._keep and exchange.request_complete and not self._full:
            if self._paused:
                self.resume()
            self._pool.release(self)
        else:
            self.transport.close()

    def _switch(self, exchange: "Exchange", response: Response, data: bytes) -> None:
        if not exchange.request.upgrade:
            self._break("101 to a request that asked for no upgrade")
            return
        if response.upgrade.lower() not in {b"", exchange.request.upgrade}:
            self._break("101 to another protocol than was asked for")
            return
        exchange.on_switch(self, response, data)

    def _break(self, reason: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.on_upstream_broken(reason)


_NO_TRAILERS: list[tuple[bytes, bytes]] = []
