"""What an exchange needs of the connection, or the stream of one, that its request came on.

Invariant: an exchange calls `respond` or `reply` at most once, `respond_more` only between a `respond` that was not
complete and the piece that is, and nothing but `on_response_sent` after that or after `abort`.
"""

from typing import TYPE_CHECKING, Protocol

from proxy.embedded.chunked import Pairs
from proxy.embedded.http1 import Request, Response
from proxy.embedded.tunnel import Ended

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.exchange import Exchange
    from proxy.embedded.upstream import Upstream


class Caller(Protocol):
    """`full`: the caller takes no more of the response for now; `Exchange.on_caller_full` and `on_caller_drained` tell
    of changes."""

    engine: "Engine"
    peer_ip: str

    @property
    def full(self) -> bool: ...

    def protocol(self, request: Request) -> str:
        """The version of HTTP, for the log."""

    def limit(self, timeout_s: float) -> None:
        """`Exchange.on_timeout` unless the request ends, or this is called again, within `timeout_s`."""

    def hold(self, why: int) -> None:
        """Take no more of the request's body; `why` is one of HOLD_*."""

    def release(self, why: int) -> None:
        """Reasons to hold are gone; when none is left the body goes on."""

    def inform(self, exchange: "Exchange", response: Response) -> None:
        """A response with a status below 200."""

    def respond(
        self, exchange: "Exchange", response: Response, headers: list[bytes], body: bytes, complete: bool,
        trailers: Pairs,
    ) -> None:  # fmt: skip
        """The response's head, with `headers` instead of its own, and what there is of the body."""

    def respond_more(self, body: bytes, complete: bool, trailers: Pairs) -> None:
        """More of the body. `trailers` count when `complete`."""

    def reply(self, exchange: "Exchange", status: int, message: str, headers: Pairs) -> None:
        """A whole answer in the mesh's own name."""

    def switch(
        self, exchange: "Exchange", upstream: "Upstream", response: Response, headers: list[bytes], data: bytes,
        ended: Ended,
    ) -> int:  # fmt: skip
        """Answer `101` and make a pipe of both connections."""

    def reply_grpc(self, exchange: "Exchange", status: int, message: str) -> None:
        """The same to a gRPC caller: trailers alone, with the gRPC status that stands for `status`."""

    def abort(self, reason: str) -> None:
        """End the response where it is and say that it is incomplete, in HTTP/1.1 by closing the connection."""

    def on_response_sent(self) -> None:
        """The exchange is over."""
