"""Requests that wait for a connection to one place, longest first.

What a pool of either version of HTTP does alike is here; each of its places in the queue is counted by the cluster's
breaker (`proxy/breaker.py`).

Invariant: a waiting exchange is told exactly once: `on_connection` or `on_no_connection`, unless it called `forget`.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from proxy.breaker import Breaker
from proxy.embedded.dial import Place

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine
    from proxy.embedded.exchange import Exchange

CONNECT_TIMEOUT_S: Final = 5.0  # unless the cluster says otherwise


class PoolQueue:
    """Base of `Pool` and `Http2Pool`. `_retired`: no connection is to outlive its requests."""

    __slots__ = ("_breaker", "_engine", "_retired", "_waiting", "connect_timeout_s", "place")

    def __init__(self, engine: "Engine", place: Place, breaker: Breaker) -> None:
        self.place = place
        self.connect_timeout_s = CONNECT_TIMEOUT_S
        self._engine = engine
        self._breaker = breaker
        self._waiting: deque[Exchange] = deque()
        self._retired = False

    def forget(self, exchange: "Exchange") -> None:
        """The exchange waits no longer."""
        try:
            self._waiting.remove(exchange)
        except ValueError:
            return
        self._breaker.close_pending()

    def _join(self, exchange: "Exchange") -> bool:
        """The exchange waits from now on. False: the breaker is open."""
        if not self._breaker.open_pending():
            return False
        self._waiting.append(exchange)
        return True

    def _leave(self) -> None:
        """The last one that came waits for nothing."""
        self._waiting.pop()
        self._breaker.close_pending()

    def _next(self) -> "Exchange":
        """Who has waited longest, and waits no longer."""
        exchange = self._waiting.popleft()
        self._breaker.close_pending()
        return exchange
