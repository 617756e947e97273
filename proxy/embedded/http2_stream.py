"""A request on an HTTP/2 connection of a caller, as an exchange sees its caller (caller.py says what that needs).

One that was answered before it was complete is reset with NO_ERROR (RFC 9113, 8.1), so that its place becomes free.

Invariant: `exchange` is set exactly from the request's head to the end of its exchange; `Http2Downstream.keep` gets the
object once when all of the answer has been sent, or the stream was reset.
"""

from typing import TYPE_CHECKING

from proxy.embedded import grpc
from proxy.embedded import http2_frames as wire
from proxy.embedded.chunked import Pairs
from proxy.embedded.exchange import NO_TRAILERS, Exchange
from proxy.embedded.heads import own_body, own_lines
from proxy.embedded.http1 import Request, Response
from proxy.embedded.http2_flow import Flow
from proxy.embedded.http2_heads import Http2Response
from proxy.embedded.wheel import NEVER

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.http2_downstream import Http2Downstream
    from proxy.embedded.tunnel import Ended
    from proxy.embedded.upstream import Upstream


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
        if request.body >= 0:
            self.expect(request.body)  # of zero too: HTTP/1.1 would take what comes then for another request

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
        if isinstance(response, Http2Response) and headers is response.headers:
            block = response.block = response.block or _response_block(response, headers)
        else:
            block = _response_block(response, headers)
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


def _response_block(response: Response, headers: list[bytes]) -> bytes:
    block = wire.status_field(response.status) + wire.lines_block(headers)
    if response.length_told and response.status != 204 and response.body >= 0:
        block += wire.field(b"content-length", response.length_told)
    return block
