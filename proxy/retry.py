"""Retries: what may be tried again, how soon, and how many at once.

Conditions carry Envoy's `retry_on` names and meaning (`connect-failure`, `refused-stream`, `reset`, `gateway-error`,
`5xx`, and the gRPC statuses `unavailable`, `cancelled`). Back-off is Envoy's: fully jittered, uniform in
[0, (2^n - 1) * base), capped. The budget is Envoy's too: concurrent retries may be at most `budget_percent` of the
cluster's requests in flight, and always `budget_floor`, so that retries cannot multiply an overload.

Invariant: what has begun to be answered, or whose body cannot be replayed, is never tried again; and a failure the
cluster's breaker caused is no failure of an endpoint and has no name here.
"""

import random
from collections.abc import Callable
from enum import Enum
from typing import Final

from proxy.snapshot import RetryPolicy

RETRY_CONDITIONS: Final = (
    "connect-failure",
    "refused-stream",
    "reset",
    "gateway-error",
    "5xx",
    "unavailable",
    "cancelled",
)
_GATEWAY_STATUSES: Final = frozenset({502, 503, 504})
_GRPC_CANCELLED: Final = 1
_GRPC_UNAVAILABLE: Final = 14


class Failure(Enum):
    """How an attempt failed when no complete response head came back."""

    CONNECT = (
        "connect-failure"  # no connection, no handshake, or the wrong identity: the request was never sent
    )
    REFUSED = (
        "refused-stream"  # REFUSED_STREAM, or a kept-alive connection its peer had closed: not processed
    )
    RESET = "reset"  # the connection broke after the request was sent
    TIMEOUT = "per-try-timeout"  # this attempt's own timeout, not the request's
    PROTOCOL = "upstream-protocol-error"  # what came back is no response


# Which conditions a failure satisfies. Envoy: `5xx` covers every way of not getting a response at all.
_MEETS: Final = {
    Failure.CONNECT: frozenset({"connect-failure", "gateway-error", "5xx"}),
    Failure.REFUSED: frozenset({"refused-stream", "reset", "gateway-error", "5xx"}),
    Failure.RESET: frozenset({"reset", "gateway-error", "5xx"}),
    Failure.TIMEOUT: frozenset({"reset", "gateway-error", "5xx"}),
    Failure.PROTOCOL: frozenset({"reset", "gateway-error", "5xx"}),
}


class RetryRules:
    """A `RetryPolicy` made ready for the hot path. Immutable."""

    __slots__ = ("_failures", "_grpc", "_status", "policy")

    def __init__(self, policy: RetryPolicy) -> None:
        on = frozenset(policy.on)
        unknown = sorted(on - frozenset(RETRY_CONDITIONS))
        if unknown:
            raise ValueError(f"unknown retry conditions: {', '.join(unknown)}")
        self.policy = policy
        self._failures = frozenset(failure for failure in Failure if on & _MEETS[failure])
        self._status: Callable[[int], bool] = _status_test(on)
        self._grpc = frozenset(
            ([_GRPC_UNAVAILABLE] if "unavailable" in on else [])
            + ([_GRPC_CANCELLED] if "cancelled" in on else [])
        )

    def may_follow(self, attempt: int, *, replayable: bool) -> bool:
        """Whether an attempt after `attempt` (the first is 1) is possible at all. `replayable`: the whole request
        body is at hand, which the plane holds back only up to `policy.body_bytes_max`."""
        return replayable and attempt <= self.policy.attempts

    def failure(self, failure: Failure) -> bool:
        """Whether this failure is one to retry on."""
        return failure in self._failures

    def status(self, status: int, grpc_status: int | None = None) -> bool:
        """Whether this response is one to retry on. Nothing of it may have been sent on yet.

        `grpc_status` is that of a trailers-only response (in its head); None when there is none.
        """
        if grpc_status is not None and grpc_status in self._grpc:
            return True
        return self._status(status)

    def backoff_s(self, attempt: int, rng: random.Random) -> float:
        """How long to wait before the attempt after `attempt` (the first is 1), in seconds."""
        policy = self.policy
        # 2^20 * 25 ms is far beyond any cap; the clamp keeps the float finite for absurd attempt counts.
        ceiling = ((1 << min(attempt, 20)) - 1) * policy.backoff_base_s
        return rng.random() * min(ceiling, policy.backoff_max_s)


def _status_test(on: frozenset[str]) -> Callable[[int], bool]:
    if "5xx" in on:
        return lambda status: 500 <= status <= 599
    if "gateway-error" in on:
        return _GATEWAY_STATUSES.__contains__
    return lambda status: False


class RetryBudget:
    """Concurrent retries of one cluster. Belongs to the cluster's name and survives snapshot swaps."""

    __slots__ = ("active", "refused")

    def __init__(self) -> None:
        self.active = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<RetryBudget {self.active} active, {self.refused} refused>"

    def acquire(self, policy: RetryPolicy, requests_active: int) -> bool:
        """Count a retry; False (nothing counted): no retry now. `requests_active`: the cluster's requests in flight."""
        allowed = max(policy.budget_floor, int(requests_active * policy.budget_percent / 100.0))
        if self.active >= allowed:
            self.refused += 1
            return False
        self.active += 1
        return True

    def release(self) -> None:
        """The retry ended, however."""
        assert self.active > 0, "a retry was released that was not acquired"
        self.active -= 1
