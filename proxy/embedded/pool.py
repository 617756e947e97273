"""Connections to one place in one caller's name, kept alive between requests.

The connection used last is used first, so that what a burst left over runs into the idle timeout. When none is free a
request waits and a new connection is made for it; whichever connection becomes free first serves the request that
waits longest (pool_queue.py). The cluster's breaker counts connections too (`proxy/breaker.py`).

Invariant: a connection is in `idle` only while no exchange uses it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from proxy.breaker import Breaker
from proxy.embedded.dial import Dial, Place
from proxy.embedded.pool_queue import PoolQueue
from proxy.embedded.upstream import Upstream

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.exchange import Exchange


class Pool(PoolQueue):
    """All connections of one (caller, endpoint)."""

    __slots__ = ("_dials", "_idle", "_open")

    def __init__(self, engine: "Engine", place: Place, breaker: Breaker) -> None:
        super().__init__(engine, place, breaker)
        self._idle: list[Upstream] = []
        self._open: set[Upstream] = set()
        self._dials: dict[Upstream, Dial] = {}

    def __repr__(self) -> str:
        return (
            f"<Pool {self.place} open={len(self._open)} idle={len(self._idle)} waiting={len(self._waiting)}>"
        )

    def take(self) -> Upstream | None:
        """A kept-alive connection, if there is one."""
        idle = self._idle
        while idle:
            upstream = idle.pop()
            if not upstream.transport.is_closing():
                upstream.reused = True
                return upstream
        return None

    def wait(self, exchange: "Exchange") -> bool:
        """Queue for a connection, making one when the limit allows. False: the breaker is open (503, flag UO)."""
        if not self._join(exchange):
            return False
        self._dial_for_waiting()
        if (
            not self._dials and not self._open
        ):  # other endpoints of the cluster hold every connection it may have
            self._leave()
            return False
        return True

    def retire(self) -> None:
        """Make no connection that outlives its request: the place or the certificate is no longer current."""
        self._retired = True
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.close()

    @property
    def unused(self) -> bool:
        return not (self._open or self._dials or self._waiting)

    def adopt(self, dial: Dial, waiting: Iterable["Exchange"]) -> Upstream:
        """The protocol for a connection that another pool has nearly made, counted already, as are those who wait."""
        upstream = Upstream(self._engine, self)
        self._dials[upstream] = dial
        self._waiting.extend(waiting)
        return upstream

    # ------------------------------------------------------------------ called by Upstream and Dial

    def on_connected(self, upstream: Upstream) -> None:
        self._dials.pop(upstream).settle()
        self._open.add(upstream)
        self._offer(upstream)

    def release(self, upstream: Upstream) -> None:
        """The exchange is over and the connection fit for another."""
        if self._retired or upstream.transport.is_closing():
            upstream.close()
            return
        upstream.reused = True
        if self._waiting:
            self._next().on_connection(upstream)
        else:
            self._rest(upstream)

    def on_closed(self, upstream: Upstream) -> None:
        self._open.discard(upstream)
        self._breaker.close_connection()
        if upstream in self._idle:
            self._idle.remove(upstream)
        self._dial_for_waiting()

    def _offer(self, upstream: Upstream) -> None:
        if self._waiting:
            self._next().on_connection(upstream)
        elif self._retired:
            upstream.close()
        else:
            self._rest(upstream)

    def _rest(self, upstream: Upstream) -> None:
        """It is idle now; close it after a while."""
        self._idle.append(upstream)
        self._engine.wheel.arm(upstream, self._engine.pool_idle_s)

    def _dial_for_waiting(self) -> None:
        if len(self._waiting) <= len(self._dials) or not self._breaker.open_connection():
            return
        upstream = Upstream(self._engine, self)

        def failed(reason: str) -> None:
            del self._dials[upstream]
            self._breaker.close_connection()
            if self._waiting:
                self._next().on_no_connection(reason)
            self._dial_for_waiting()

        self._dials[upstream] = Dial(self._engine, self.place, self.connect_timeout_s, upstream, failed)
