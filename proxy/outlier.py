"""Passive health: endpoints that fail real requests are ejected for a while (Envoy's outlier detection).

Every 5xx, connect failure, reset and timeout is a failure; `consecutive_5xx` of them in a row eject the endpoint for
`base_ejection_time * n`, n being how often it was ejected (at most `max_ejection_time`). n falls by one for every
`interval` the endpoint stays in, as in Envoy. At most `max_ejection_percent` of the endpoints are out at a time, but
one may always be when there are two or more; 0 percent means none ever.

The state of an endpoint is a table, `TRANSITIONS`; thresholds and limits turn what happened into its events.

Invariant: state is keyed by endpoint id and survives snapshot swaps; an endpoint no longer in the cluster leaves no
trace; `ejected` changes only in `record`, `sweep` and `update`, each of which says whether it did.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from proxy.snapshot import Cluster, Outlier


class State(Enum):
    """What passive health thinks of an endpoint."""

    HEALTHY = "healthy"  # the last request succeeded, or there was none
    FAILING = "failing"  # some failures in a row, not enough (or no room) to eject
    EJECTED = "ejected"  # gets no requests


class Event(Enum):
    """What the table knows. `LIMIT` is a failure that reaches the threshold while there is room to eject."""

    SUCCESS = "success"
    FAILURE = "failure"
    LIMIT = "limit"
    EXPIRED = "expired"  # the ejection's time is over
    CHECK_PASSED = "check passed"  # an active check passed that had failed


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.HEALTHY, Event.SUCCESS): State.HEALTHY,
    (State.HEALTHY, Event.FAILURE): State.FAILING,
    (State.HEALTHY, Event.LIMIT): State.EJECTED,
    (State.HEALTHY, Event.EXPIRED): State.HEALTHY,
    (State.HEALTHY, Event.CHECK_PASSED): State.HEALTHY,
    (State.FAILING, Event.SUCCESS): State.HEALTHY,
    (State.FAILING, Event.FAILURE): State.FAILING,
    (State.FAILING, Event.LIMIT): State.EJECTED,
    (State.FAILING, Event.EXPIRED): State.FAILING,
    (State.FAILING, Event.CHECK_PASSED): State.HEALTHY,
    # Late answers of requests sent before the ejection change nothing.
    (State.EJECTED, Event.SUCCESS): State.EJECTED,
    (State.EJECTED, Event.FAILURE): State.EJECTED,
    (State.EJECTED, Event.LIMIT): State.EJECTED,
    (State.EJECTED, Event.EXPIRED): State.HEALTHY,
    (State.EJECTED, Event.CHECK_PASSED): State.HEALTHY,
}


@dataclass(slots=True)
class _Record:
    """One endpoint. `multiplier` is Envoy's ejection back-off; `credited_at` is when it last fell or was raised."""

    state: State = State.HEALTHY
    failures: int = 0
    multiplier: int = 0
    until: float = 0.0
    credited_at: float = 0.0
    reason: str = ""
    checked_healthy: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectedEndpoint:
    """An ejection as people are told of it."""

    endpoint: str  # endpoint id
    reason: str
    remaining_s: float
    count: int  # the multiplier: ejections not yet forgiven


class OutlierDetector:
    """Passive health of one cluster, as one worker sees it."""

    __slots__ = ("_records", "ejected", "overflow", "policy")

    def __init__(self, cluster: Cluster, now: float) -> None:
        self.policy: Outlier = cluster.outlier
        self.ejected: frozenset[str] = frozenset()
        self.overflow = 0  # ejections that found no room
        self._records: dict[str, _Record] = {}
        self.update(cluster, now)

    def __repr__(self) -> str:
        return f"<OutlierDetector {len(self.ejected)} of {len(self._records)} ejected>"

    def update(self, cluster: Cluster, now: float) -> bool:
        """Take over a new snapshot's cluster. Known endpoints keep their state, unless one whose active check failed is
        healthy again: that un-ejects it. True: `ejected` changed."""
        self.policy = cluster.outlier
        records: dict[str, _Record] = {}
        for endpoint in cluster.endpoints:
            record = self._records.get(endpoint.id)
            if record is None:
                record = _Record(credited_at=now, checked_healthy=endpoint.healthy)
            elif endpoint.healthy and not record.checked_healthy:
                self._apply(record, Event.CHECK_PASSED, now)
            record.checked_healthy = endpoint.healthy
            records[endpoint.id] = record
        self._records = records
        if not self.policy.enabled:
            for record in records.values():
                self._apply(record, Event.EXPIRED, now)
                self._apply(record, Event.SUCCESS, now)
        return self._settle()

    def record(self, endpoint: str, failed: bool, now: float, reason: str = "consecutive 5xx") -> bool:
        """Tell the outcome of one attempt. `failed`: a 5xx of the endpoint, or no response because of it (not a limit
        of this side, not the caller going away). True: `ejected` changed. Unknown endpoints are ignored."""
        record = self._records.get(endpoint)
        if record is None or not self.policy.enabled:
            return False
        if not failed:
            if record.failures:
                self._apply(record, Event.SUCCESS, now)
            return False
        if record.state is State.EJECTED:
            return False
        record.failures += 1
        if record.failures < self.policy.consecutive_5xx:
            self._apply(record, Event.FAILURE, now)
            return False
        if len(self.ejected) >= self.ejectable:
            self.overflow += 1
            self._apply(record, Event.FAILURE, now)
            return False
        record.reason = reason
        self._apply(record, Event.LIMIT, now)
        return self._settle()

    def sweep(self, now: float) -> bool:
        """Let ejections expire and old ones be forgiven. Call at `deadline`, or about once a second.
        True: `ejected` changed."""
        for record in self._records.values():
            if record.state is State.EJECTED:
                if now >= record.until:
                    self._apply(record, Event.EXPIRED, now)
            elif record.multiplier:
                forgiven = int((now - record.credited_at) / self.policy.interval_s)
                if forgiven > 0:
                    record.multiplier = max(0, record.multiplier - forgiven)
                    record.credited_at += forgiven * self.policy.interval_s
        return self._settle()

    @property
    def deadline(self) -> float | None:
        """When the next ejection ends."""
        return min((self._records[endpoint].until for endpoint in self.ejected), default=None)

    @property
    def ejectable(self) -> int:
        """How many endpoints may be out at a time."""
        total = len(self._records)
        if total < 2 or self.policy.max_ejection_percent <= 0:
            return 0
        return max(1, total * self.policy.max_ejection_percent // 100)

    def state(self, endpoint: str) -> State:
        """The state of a known endpoint; an unknown one is healthy."""
        record = self._records.get(endpoint)
        return State.HEALTHY if record is None else record.state

    def ejections(self, now: float) -> tuple[EjectedEndpoint, ...]:
        """The endpoints that are out, by id."""
        return tuple(
            EjectedEndpoint(
                endpoint=endpoint,
                reason=self._records[endpoint].reason,
                remaining_s=max(0.0, self._records[endpoint].until - now),
                count=self._records[endpoint].multiplier,
            )
            for endpoint in sorted(self.ejected)
        )

    def _apply(self, record: _Record, event: Event, now: float) -> None:
        before, after = record.state, TRANSITIONS[record.state, event]
        record.state = after
        if after is State.HEALTHY:
            record.failures = 0
        if after is State.EJECTED and before is not State.EJECTED:
            record.multiplier += 1
            policy = self.policy
            duration_s = min(
                policy.base_ejection_time_s * record.multiplier,
                max(policy.max_ejection_time_s, policy.base_ejection_time_s),
            )
            record.until = now + duration_s
        if before is State.EJECTED and after is not State.EJECTED:
            record.credited_at = now

    def _settle(self) -> bool:
        ejected = frozenset(key for key, record in self._records.items() if record.state is State.EJECTED)
        changed = ejected != self.ejected
        self.ejected = ejected
        return changed
