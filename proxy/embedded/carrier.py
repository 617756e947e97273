"""What an exchange needs of the connection, or the stream of one, that it sends its request on, and of its source.

Invariant: an exchange calls `begin` once, then `send` until the request is complete; after its response is complete,
or after `drop`, the carrier serves others.
"""

from typing import TYPE_CHECKING, Protocol

from proxy.embedded.chunked import Pairs
from proxy.embedded.dial import Place

if TYPE_CHECKING:
    from proxy.embedded.exchange import Exchange


class Carrier(Protocol):
    """`reused`: the connection has carried a request before; `answered`: some byte came back for the present one."""

    reused: bool
    answered: bool

    def begin(self, exchange: "Exchange", body: bytes, complete: bool, trailers: Pairs) -> None:
        """Send the request's head with what there is of its body."""

    def send(self, body: bytes, complete: bool, trailers: Pairs) -> None:
        """More of the body. `trailers` count when `complete`."""

    def pause(self) -> None:
        """Take no more of the response: the caller does not."""

    def resume(self) -> None: ...

    def limit(self, timeout_s: float) -> None:
        """`Exchange.on_try_timeout` unless the response's head is here within `timeout_s`."""

    def drop(self) -> None:
        """The exchange no longer wants it, in whatever state it is."""


class Supplier(Protocol):
    """Connections to one place in one caller's name."""

    place: Place
    connect_timeout_s: float

    def take(self) -> Carrier | None:
        """One that is ready, if there is."""

    def wait(self, exchange: "Exchange") -> bool:
        """Tell `on_connection` or `on_no_connection` later. False: the breaker is open (503, flag UO)."""

    def forget(self, exchange: "Exchange") -> None:
        """The exchange waits no longer."""

    def retire(self) -> None:
        """Make no connection that outlives its request: the place or the certificate is no longer current."""

    @property
    def unused(self) -> bool: ...
