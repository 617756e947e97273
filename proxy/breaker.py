"""Circuit breaking: how much of one cluster's capacity a host may hold at once (Envoy's circuit breakers).

Three counters, each with a limit: connections to the cluster, requests waiting for a connection, requests in flight.
A limit is not an error of the endpoint, so what is refused here never counts for outlier detection or retries.

Invariant: a counter is never negative and never above its limit at the moment of admission; limits may be lowered
below what is in use, which admits nothing more until enough was released. Where several workers share the limits
(`SharedBreaker`) that holds for their sum but for what others admit in the same moment: at most one more for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from proxy.snapshot import CircuitBreaker


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatistics:
    """Counters now, and how often each limit refused."""

    connections: int
    pending: int
    requests: int
    connections_refused: int
    pending_refused: int
    requests_refused: int


class Breaker:
    """The counters of one cluster. They belong to the cluster's name and survive snapshot swaps (`limits` is set)."""

    __slots__ = (
        "connections",
        "connections_refused",
        "limits",
        "pending",
        "pending_refused",
        "requests",
        "requests_refused",
    )

    def __init__(self, limits: CircuitBreaker) -> None:
        self.limits = limits
        self.connections = self.pending = self.requests = 0
        self.connections_refused = self.pending_refused = self.requests_refused = 0

    def __repr__(self) -> str:
        return f"<Breaker {self.connections} connections, {self.pending} pending, {self.requests} requests>"

    def open_request(self) -> bool:
        """Count a request in flight; False (nothing counted): answer 503 with flag UO."""
        if self.requests >= self.limits.requests_max:
            self.requests_refused += 1
            return False
        self.requests += 1
        return True

    def close_request(self) -> None:
        """The request ended, however."""
        assert self.requests > 0, "a request was closed that was not open"
        self.requests -= 1

    def open_connection(self) -> bool:
        """Count a new connection; False: none may be made, the request has to wait for one (`open_pending`)."""
        if self.connections >= self.limits.connections_max:
            self.connections_refused += 1
            return False
        self.connections += 1
        return True

    def close_connection(self) -> None:
        """The connection ended, or could not be made."""
        assert self.connections > 0, "a connection was closed that was not open"
        self.connections -= 1

    def open_pending(self) -> bool:
        """Count a request that waits for a connection; False: 503 with flag UO."""
        if self.pending >= self.limits.pending_max:
            self.pending_refused += 1
            return False
        self.pending += 1
        return True

    def close_pending(self) -> None:
        """The request got its connection, or gave up."""
        assert self.pending > 0, "a pending request was closed that was not open"
        self.pending -= 1

    def leave(self) -> None:
        """The cluster is gone; what is still under way is counted nowhere else."""

    def statistics(self) -> BreakerStatistics:
        return BreakerStatistics(
            connections=self.connections,
            pending=self.pending,
            requests=self.requests,
            connections_refused=self.connections_refused,
            pending_refused=self.pending_refused,
            requests_refused=self.requests_refused,
        )


HELD: Final = 3


class Held(Protocol):
    """Where a worker writes what it holds of a cluster: HELD numbers, its connections, pending requests, requests."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class SharedBreaker(Breaker):
    """One worker's part of limits that several share: it reads what the others hold. Each may have one connection
    whatever they hold, as in Envoy, for a worker without any could serve nobody."""

    __slots__ = ("_others", "_own")

    def __init__(self, limits: CircuitBreaker, own: Held, others: Sequence[Held]) -> None:
        super().__init__(limits)
        self._own: Held = own
        self._others = others
        own[0] = own[1] = own[2] = 0

    def open_request(self) -> bool:
        if self.requests + sum([other[2] for other in self._others]) >= self.limits.requests_max:
            self.requests_refused += 1
            return False
        self.requests += 1
        self._own[2] = self.requests
        return True

    def close_request(self) -> None:
        super().close_request()
        self._own[2] = self.requests

    def open_connection(self) -> bool:
        elsewhere = sum([other[0] for other in self._others]) if self.connections else 0
        if self.connections + elsewhere >= self.limits.connections_max:
            self.connections_refused += 1
            return False
        self.connections += 1
        self._own[0] = self.connections
        return True

    def close_connection(self) -> None:
        super().close_connection()
        self._own[0] = self.connections

    def open_pending(self) -> bool:
        if self.pending + sum([other[1] for other in self._others]) >= self.limits.pending_max:
            self.pending_refused += 1
            return False
        self.pending += 1
        self._own[1] = self.pending
        return True

    def close_pending(self) -> None:
        super().close_pending()
        self._own[1] = self.pending

    def leave(self) -> None:
        self._own[0] = self._own[1] = self._own[2] = 0
        self._own = [0] * HELD
