"""Circuit breaking: how much of one cluster's capacity this worker may hold at once (Envoy's circuit breakers).

Three counters, each with a limit: connections to the cluster, requests waiting for a connection, requests in flight.
A limit is not an error of the endpoint, so what is refused here never counts for outlier detection or retries.

Invariant: a counter is never negative and never above its limit at the moment of admission; limits may be lowered
below what is in use, which admits nothing more until enough was released.
"""

from dataclasses import dataclass

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

    def statistics(self) -> BreakerStatistics:
        return BreakerStatistics(
            connections=self.connections,
            pending=self.pending,
            requests=self.requests,
            connections_refused=self.connections_refused,
            pending_refused=self.pending_refused,
            requests_refused=self.requests_refused,
        )
