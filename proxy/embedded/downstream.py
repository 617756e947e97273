"""A caller's HTTP/1.1 connection: one request after the other, answered in order.

A request is handed to an exchange when its head is complete; its body follows in pieces. What is pipelined behind it
stays unread until the response has been sent. The connection holds back reading for any of the reasons in
`exchange.py` and here (HOLD_*), and all of them must be gone before it reads on.

No request is begun while the caller leaves earlier answers unread, nor more than a few in one turn of the loop: the
mesh's own answers cost a caller nothing to ask for, and no backend's slowness limits them.

Invariant: bytes of one request never reach the exchange of another, and after an error in framing nothing more is
read.
"""

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, cast

from proxy.embedded.answers import Answers
from proxy.embedded.chunked import ChunkedDecoder, ChunkedError
from proxy.embedded.exchange import HOLD_PIPELINED, NO_TRAILERS, Exchange
from proxy.embedded.heads import own_response, response_head
from proxy.embedded.http1 import CHUNKED, HeadError, Request, RequestReader, Response, looks_like_a_head
from proxy.embedded.tunnel import Ended, splice

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.upstream import Upstream

LINGER_S: Final = (
    1.0  # how long a refused body is read and dropped, so that the answer is not lost to a reset
)
LINGER_BYTES_MAX: Final = 1024 * 1024
REQUESTS_PER_TURN: Final = 64  # pipelined, of one connection
EMPTY_LINES_MAX: Final = 4  # before a request

# Why the next request is not looked at yet; bits beside those of exchange.py.
HOLD_ANSWERS: Final = 8  # the caller does not take the answers to those before it
HOLD_TURN: Final = 16  # other connections have their turn

PREFACE_HEAD: Final = b"PRI * HTTP/2.0\r\n\r\n"

# Phases
_HEAD: Final = 0
_BODY: Final = 1
_RESPONSE: Final = 2  # the request is complete, its response is not
_LINGER: Final = 3
_DETACHED: Final = 4


class Downstream(asyncio.Protocol, Answers):
    """Base of the connections of outbound, upstream and inbound listeners."""

    __slots__ = (
        "_buffer", "_consuming", "_decoder", "_empty_lines", "_exchange", "_head_begun", "_held", "_left", "_lingered",
        "_phase", "_reader", "_scanned",
    )  # fmt: skip

    reporter: ClassVar[str]  # whose side of a request this is, for the log
    version: ClassVar[str] = "HTTP/1.1"

    def __init__(self, engine: "Engine") -> None:
        Answers.__init__(self, engine)
        self._reader = RequestReader()
        self._buffer = b""
        self._scanned = 0
        self._head_begun = False
        self._phase = _HEAD
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._exchange: Exchange | None = None
        self._held = 0
        self._consuming = False
        self._lingered = 0
        self._empty_lines = 0  # since the last request

    def __repr__(self) -> str:
        return f"<{type(self).__name__} from {self.peer_ip} phase={self._phase}>"

    # ------------------------------------------------------------------ for the kinds of listeners

    @abstractmethod
    def exchange_for(self, request: Request) -> Exchange:
        """The exchange of a request on this connection."""

    def on_connect(self, request: Request) -> None:
        """CONNECT: only the outbound listener is a forward proxy."""
        self._refuse(HeadError(405, "CONNECT is for the outbound listener"))

    def take_http2(self, early: bytes) -> bool:
        """The connection began as HTTP/2 does; `early` follows the first part of its preface. False: refuse it."""
        return False

    # ------------------------------------------------------------------ for the exchange

    def hold(self, why: int) -> None:
        if not self._held and not self.transport.is_closing():
            self.transport.pause_reading()
        self._held |= why

    def release(self, why: int) -> None:
        if self._held & why:
            self._held &= ~why
            if not self._held and not self.transport.is_closing():
                self.transport.resume_reading()

    def switch(
        self, exchange: Exchange, upstream: "Upstream", response: Response, headers: list[bytes], data: bytes,
        ended: "Ended",
    ) -> int:  # fmt: skip
        """Answer `101`, then `data`; from here on this connection and `upstream`'s are one pipe, and `ended` hears
        of its end. Returns how much the caller had sent into it already."""
        framing = b"connection: upgrade\r\nupgrade: %b\r\n" % (response.upgrade or exchange.request.upgrade)
        self.transport.write(response_head(101, response.reason, headers, framing) + data)
        rest = self.detach()
        if rest:
            upstream.transport.write(rest)

        def closed(to_upstream: int, to_caller: int) -> None:
            self.on_detached_end()
            ended(to_upstream, to_caller)

        splice(self.engine, self.transport, upstream.transport, closed)
        return len(rest)

    def detach(self) -> bytes:
        """A tunnel takes the transport; what was read beyond the request is returned."""
        rest, self._buffer = self._buffer, b""
        self._phase = _DETACHED
        self._exchange = None
        self.engine.wheel.forget(self)
        return rest

    def on_detached_end(self) -> None:
        self.engine.on_connection_end(self)

    def on_response_sent(self) -> None:
        """The exchange is over. Read on, or close."""
        request_complete = self._phase == _RESPONSE
        self._exchange = self._decoder = None
        if self.close_after or not request_complete or self.transport.is_closing():
            if request_complete and not self._buffer:
                self.transport.close()
            else:
                self._linger()
            return
        self._phase = _HEAD
        self._head_begun = False
        engine = self.engine
        engine.wheel.arm(self, engine.limits.idle_timeout_s)
        if self._held or self._buffer:
            self._read_on()

    def _read_on(self) -> None:
        """Go on with the next request, for whatever kept it waiting is over."""
        if self.transport.is_closing():
            return
        held, self._held = self._held, 0
        if not self._consuming and self._buffer:
            data, self._buffer = self._buffer, b""
            self._consume(data)
        if held and not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    def on_drain(self) -> None:
        """Between two requests the next one may be on its way: it has a moment, and is the last."""
        if self._phase == _HEAD and self._exchange is None and not self._head_begun:
            self.engine.wheel.arm(self, self.engine.limits.idle_timeout_s)

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TCPTransport is one, by duck typing
        peer = transport.get_extra_info("peername")
        self.peer_ip = peer[0] if peer else ""
        if not self.engine.on_connection(self):
            self.transport.abort()
            return
        self.engine.wheel.arm(self, self.engine.limits.idle_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._phase == _DETACHED:
            return
        self.engine.wheel.forget(self)
        self._buffer = b""
        exchange, self._exchange = self._exchange, None
        self.engine.on_connection_end(self)
        if exchange is not None:
            exchange.on_caller_gone()

    def eof_received(self) -> bool:
        # As Envoy and nginx do: half-closed is gone, or a caller that died would hold its request until the timeout.
        return False

    def pause_writing(self) -> None:
        self.full = True
        if self._exchange is not None:
            self._exchange.on_caller_full()

    def resume_writing(self) -> None:
        self.full = False
        if self._exchange is not None:
            self._exchange.on_caller_drained()
        elif self._held & HOLD_ANSWERS:
            self._read_on()

    def _on_turn(self) -> None:
        if self._held & HOLD_TURN:
            self._read_on()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        self._consume(data)

    def on_deadline(self) -> None:
        if self._exchange is not None:
            self._exchange.on_timeout()
        elif self._phase == _HEAD and self.full:
            self.transport.abort()  # a close would wait for the caller to take the answers
        elif self._phase == _HEAD and self._head_begun:
            self._refuse(HeadError(408, "the request's head did not arrive in time"))
        else:
            self.transport.close()

    # ------------------------------------------------------------------ reading

    def _consume(self, data: bytes) -> None:
        self._consuming = True
        begun = 0
        while data:
            phase = self._phase
            if phase == _HEAD:
                if self.full or self._held & HOLD_TURN:
                    self._buffer = data
                    self.hold(HOLD_ANSWERS if self.full else HOLD_TURN)
                    break
                if begun == REQUESTS_PER_TURN:
                    self._buffer = data
                    self.hold(HOLD_TURN)
                    self.engine.loop.call_soon(self._on_turn)
                    break
                begun += 1
                data = self._take_head(data)
            elif phase == _BODY:
                data = self._take_body(data)
            elif phase == _RESPONSE:
                self._buffer = data
                self.hold(HOLD_PIPELINED)
                break
            else:
                self._drop(data)
                break
        self._consuming = False

    def _take_head(self, data: bytes) -> bytes:
        """Begins an exchange when the head is complete. Returns what follows the head and the body's beginning."""
        limits = self.engine.limits
        if data[0] == 13:  # an empty line before a request is tolerated (RFC 9112, 2.2)
            if data == b"\r":
                self._buffer = data
                return b""
            if data[:2] == b"\r\n":
                return self._skip_empty_lines(data)
        end = data.find(b"\r\n\r\n", self._scanned) + 4
        if end < 4 or end > limits.header_bytes_max:
            self._wait_for_head(data)
            return b""
        self._scanned = 0
        head = data if len(data) == end else data[:end]
        try:
            request = self._reader.read(head, limits.headers_max)
        except HeadError as error:
            if head == PREFACE_HEAD and self.take_http2(data[end:]):
                return b""
            self._refuse(error)
            return b""
        self._empty_lines = 0
        self._buffer = data[end:]
        if request.method == "CONNECT":
            self.on_connect(request)
        else:
            self._begin(self.exchange_for(request), request.body)
        rest, self._buffer = self._buffer, b""
        return rest

    def _skip_empty_lines(self, data: bytes) -> bytes:
        at = 0
        while data[at : at + 2] == b"\r\n":
            at += 2
            self._empty_lines += 1
            if self._empty_lines > EMPTY_LINES_MAX:
                self._refuse(HeadError(400, "empty lines instead of a request"))
                return b""
        return data[at:]

    def _wait_for_head(self, data: bytes) -> None:
        limits = self.engine.limits
        if len(data) > limits.header_bytes_max:
            self._refuse(HeadError(431, f"the request's head is larger than {limits.header_bytes_max} bytes"))
            return
        if self._scanned == 0 and not looks_like_a_head(data):
            self._refuse(HeadError(400, "not an HTTP/1.1 request"))
            return
        self._buffer = data
        self._scanned = max(0, len(data) - 3)
        if not self._head_begun:
            self._head_begun = True
            self.engine.wheel.arm(self, limits.header_timeout_s)

    def _begin(self, exchange: Exchange, length: int) -> None:
        """Start an exchange with the body's beginning; what follows it is left in the buffer."""
        self.close_after = False
        self._exchange = exchange
        if length == 0:
            self._phase = _RESPONSE
            exchange.begin(b"", True, NO_TRAILERS)
            return
        data, self._buffer = self._buffer, b""
        self._left = length
        self._phase = _BODY
        body, trailers = b"", NO_TRAILERS
        if length > 0:
            body, self._buffer = data[:length], data[length:]
            self._left = length - len(body)
            exchange.bytes_in = len(body)
            if self._left == 0:
                self._phase = _RESPONSE
        else:
            decoder = self._decoder = ChunkedDecoder()
            trailers = decoder.trailers
            try:
                body = self._decode(exchange, data)
            except ChunkedError as error:
                self._exchange = None
                self._refuse(HeadError(400, str(error)))
                return
        exchange.begin(body, self._phase == _RESPONSE, trailers)

    def _decode(self, exchange: Exchange, data: bytes) -> bytes:
        """What `data` holds of the chunked body. Sets the phase and the buffer when it is complete."""
        decoder = self._decoder
        assert decoder is not None
        pieces = decoder.feed(data)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        exchange.bytes_in += len(body)
        if decoder.done:
            self._buffer = decoder.rest
            self._phase = _RESPONSE
        return body

    def _take_body(self, data: bytes) -> bytes:
        exchange = self._exchange
        assert exchange is not None
        if self._left == CHUNKED:
            try:
                body = self._decode(exchange, data)
            except ChunkedError:
                self._break_body(exchange)
                return b""
            data, self._buffer = self._buffer, b""
        else:
            body = data if len(data) <= self._left else data[: self._left]
            data = data[len(body) :]
            self._left -= len(body)
            exchange.bytes_in += len(body)
            if self._left == 0:
                self._phase = _RESPONSE
        decoder = self._decoder
        trailers = NO_TRAILERS if decoder is None else decoder.trailers
        exchange.on_request_body(body, self._phase == _RESPONSE, trailers)
        return data

    def _break_body(self, exchange: Exchange) -> None:
        """A chunked body that is none: what has been sent on cannot be completed."""
        self.engine.recorder.increment("body_rejected")
        self._phase = _LINGER
        exchange.on_bad_body()

    # ------------------------------------------------------------------ refusing

    def _refuse(self, error: HeadError) -> None:
        """Answer a request that is none, and close."""
        self.engine.recorder.increment("head_rejected")
        self.engine.log_refusal(self, error.status, error.reason)
        answer = own_response(
            error.status, error.reason, keep=b"connection: close\r\n", headers=[], to_head=False
        )
        self.transport.write(answer)
        self._linger()

    def _linger(self) -> None:
        """Say that nothing more comes, and drop what still arrives, for a moment."""
        self._phase = _LINGER
        self._buffer = b""
        self._exchange = None
        if self.transport.is_closing():
            return
        if self._held:
            self._held = 0
            self.transport.resume_reading()
        self.transport.write_eof()
        self.engine.wheel.arm(self, LINGER_S)

    def _drop(self, data: bytes) -> None:
        self._lingered += len(data)
        if self._lingered > LINGER_BYTES_MAX:
            self.transport.abort()
