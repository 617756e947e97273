"""HTTP/2 connections to one application or endpoint, shared by its requests.

One connection carries as many requests at once as the application allows; another is made when none has room, up to
`CONNECTIONS_MAX`, and beyond that requests wait (pool_queue.py). The breaker counts connections as for HTTP/1.1.

Applications speak HTTP/2 by prior knowledge, endpoints when the handshake says so: if it says HTTP/1.1, or nothing, the
connection becomes the first of a `Pool`, which serves until it has none left. So a peer that is older is spoken to in
what it knows, and one that came back newer in what it knows now.

Invariant: one connection is being made at a time.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.breaker import Breaker
from proxy.embedded.dial import Dial, Place
from proxy.embedded.http2_upstream import Call, Http2Upstream
from proxy.embedded.pool import Pool
from proxy.embedded.pool_queue import PoolQueue
from proxy.embedded.tls_identity import H2

if TYPE_CHECKING:
    from proxy.embedded.carrier import Carrier
    from proxy.embedded.engine import Engine
    from proxy.embedded.exchange import Exchange

CONNECTIONS_MAX: Final = 8


class Http2Pool(PoolQueue):
    """As `Pool`, and what exchanges need of either is in carrier.py."""

    __slots__ = ("_dial", "_fallback", "_open", "_plain")

    def __init__(
        self, engine: "Engine", place: Place, breaker: Breaker, fallback: Place | None = None
    ) -> None:
        """`fallback`: the same place, where nothing but HTTP/1.1 is offered. None: prior knowledge."""
        super().__init__(engine, place, breaker)
        self._fallback = fallback
        self._plain: Pool | None = None
        self._open: dict[Http2Upstream, None] = {}
        self._dial: Dial | None = None

    def __repr__(self) -> str:
        return f"<Http2Pool {self.place} open={len(self._open)} waiting={len(self._waiting)}>"

    def take(self) -> "Carrier | None":
        for connection in self._open:
            if connection.has_room:
                return Call(connection)
        return None if self._plain is None else self._plain.take()

    def wait(self, exchange: "Exchange") -> bool:
        if self._plain is not None:
            if not self._plain.unused:
                return self._plain.wait(exchange)
            self._plain = None
        if not self._join(exchange):
            return False
        self._dial_for_waiting()
        if self._dial is None:
            if not self._open:  # the breaker allows no connection at all
                self._leave()
                return False
            for connection in list(self._open):
                self.on_room(connection)
        return True

    def forget(self, exchange: "Exchange") -> None:
        super().forget(exchange)
        if self._plain is not None:
            self._plain.forget(exchange)

    def retire(self) -> None:
        self._retired = True
        if self._plain is not None:
            self._plain.retire()
        for connection in list(self._open):
            connection.retire()

    @property
    def unused(self) -> bool:
        plain = self._plain
        return not (self._open or self._dial or self._waiting) and (plain is None or plain.unused)

    # ------------------------------------------------------------------ called by connections and the dial

    def on_connected(self, connection: Http2Upstream) -> None:
        assert self._dial is not None
        self._dial.settle()
        self._dial = None
        self._open[connection] = None
        self.on_room(connection)
        self._dial_for_waiting()
        if self._retired:
            connection.retire()
        elif not connection.streams:  # whoever it was made for waits no longer
            connection.on_idle()

    def on_room(self, connection: Http2Upstream) -> None:
        """It may take another call."""
        while self._waiting and connection.has_room:
            self._next().on_connection(Call(connection))

    def on_going(self) -> None:
        """A connection takes no new call."""
        self._dial_for_waiting()

    def on_closed(self, connection: Http2Upstream) -> None:
        self._open.pop(connection, None)
        self._breaker.close_connection()
        self._dial_for_waiting()

    def _dial_for_waiting(self) -> None:
        if not self._waiting or self._dial is not None:
            return
        if len(self._open) >= CONNECTIONS_MAX or not self._breaker.open_connection():
            return

        def failed(reason: str) -> None:
            self._dial = None
            self._breaker.close_connection()
            # Who waits, waits for this: to try again for each would take the time of all their timeouts.
            waiting = [] if self._open else list(self._waiting)
            for exchange in waiting:
                if exchange in self._waiting:
                    self.forget(exchange)
                    exchange.on_no_connection(reason)

        def negotiated(protocol: str) -> asyncio.Protocol:
            return connection if protocol == H2 else self._fall_back()

        connection = Http2Upstream(self._engine, self)
        self._dial = Dial(
            self._engine, self.place, self.connect_timeout_s, connection, failed,
            None if self._fallback is None else negotiated,
        )  # fmt: skip

    def _fall_back(self) -> asyncio.Protocol:
        """The connection that has just been made speaks HTTP/1.1, so whoever waits is to be served in that."""
        assert self._dial is not None
        assert self._fallback is not None
        plain = self._plain
        if plain is None:
            plain = self._plain = Pool(self._engine, self._fallback, self._breaker)
            plain.connect_timeout_s = self.connect_timeout_s
        upstream = plain.adopt(self._dial, self._waiting)
        self._waiting.clear()
        self._dial = None
        if self._retired:
            plain.retire()
        return upstream
