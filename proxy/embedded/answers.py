"""How responses are written to an HTTP/1.1 caller (RFC 9112, section 6).

The exchange hands over messages; how long a body is said to be, in which coding it goes, and whether the connection
stays after it is decided here.

Invariant: a response that says neither its length nor its coding is the connection's last.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.embedded import grpc
from proxy.embedded.chunked import Pairs, encode_body
from proxy.embedded.heads import own_response, response_head
from proxy.embedded.http1 import Request, Response
from proxy.embedded.wheel import Timed

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.exchange import Exchange

COALESCED_BYTES_MAX: Final = 64 * 1024  # head and body in one write up to here; beyond it a copy costs more
_CLOSE: Final = b"connection: close\r\n"
_KEEP_1_0: Final = b"connection: keep-alive\r\n"


class Answers(Timed):
    """The writing half of `Downstream`. The deadline is the one of the request under way, or of the connection."""

    __slots__ = ("_encode", "close_after", "engine", "full", "peer_ip", "transport")

    def __init__(self, engine: "Engine") -> None:
        super().__init__()
        self.engine = engine
        self.transport: asyncio.Transport
        self.peer_ip = ""
        self.full = False  # the caller's socket takes no more for now
        self.close_after = False  # the response under way said so
        self._encode = False  # its body goes out in chunks

    def protocol(self, request: Request) -> str:
        """For the log."""
        return f"HTTP/1.{request.minor}"

    def keeps(self, request: Request) -> bool:
        """Whether the connection stays after this response."""
        return not request.connection_close and not self.engine.draining

    def limit(self, timeout_s: float) -> None:
        self.engine.wheel.arm(self, timeout_s)

    def abort(self, reason: str) -> None:
        self.transport.abort()

    def inform(self, exchange: "Exchange", response: Response) -> None:
        if exchange.request.minor:
            self.transport.write(response_head(response.status, response.reason, response.headers, b""))

    def respond(
        self, exchange: "Exchange", response: Response, headers: list[bytes], body: bytes, complete: bool,
        trailers: Pairs,
    ) -> None:  # fmt: skip
        framing = self._framing(exchange, response)
        if self._encode:
            body = encode_body(body, complete, trailers)
        if len(body) <= COALESCED_BYTES_MAX:
            self.transport.write(response_head(response.status, response.reason, headers, framing, body))
        else:
            self.transport.write(response_head(response.status, response.reason, headers, framing))
            self.transport.write(body)

    def respond_more(self, body: bytes, complete: bool, trailers: Pairs) -> None:
        if self._encode:
            body = encode_body(body, complete, trailers)
        if body:
            self.transport.write(body)

    def reply(self, exchange: "Exchange", status: int, message: str, headers: Pairs) -> None:
        keep = self._keep(exchange)
        to_head = exchange.request.method == "HEAD"
        self.transport.write(own_response(status, message, keep=keep, headers=headers, to_head=to_head))

    def reply_grpc(self, exchange: "Exchange", status: int, message: str) -> None:
        fields = [(b"content-type", grpc.CONTENT_TYPE), *grpc.failure_headers(status, message)]
        keep = self._keep(exchange)
        self.transport.write(own_response(200, "", keep=keep, headers=fields, to_head=False))

    def _keep(self, exchange: "Exchange") -> bytes:
        request = exchange.request
        if exchange.request_complete and self.keeps(request):
            return b"" if request.minor else _KEEP_1_0
        self.close_after = True
        return _CLOSE

    def _framing(self, exchange: "Exchange", response: Response) -> bytes:
        """The lines that say how long the body is, and whether the connection stays."""
        request = exchange.request
        close_delimited = self._encode = False
        if response.body >= 0:
            if response.status == 204:
                length = b""
            elif response.length_told:
                length = b"content-length: %b\r\n" % response.length_told
            elif request.method == "HEAD" or response.status == 304:
                length = b""
            else:
                length = b"content-length: 0\r\n"
        elif request.minor:
            length = b"transfer-encoding: chunked\r\n"
            self._encode = True
        else:
            length = b""
            close_delimited = True
        # A gRPC stream's response begins before its request is complete: whether the connection stays is seen later.
        complete = exchange.request_complete or (exchange.grpc and self._encode)
        if complete and not close_delimited and self.keeps(request):
            return length if request.minor else length + _KEEP_1_0
        self.close_after = True
        return length + _CLOSE
