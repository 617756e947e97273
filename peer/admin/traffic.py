"""What the data plane reported, added up: cumulative request series of this host since the peer started.

Invariant: at most SERIES_MAX series exist. A new series beyond that evicts one that has been idle for an hour, else
its numbers are folded into an "overflow" series per reporter, protocol and class of status: totals stay true.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from proxy.plane import DURATION_BUCKETS_MS, Ejection, Series, SeriesDelta, Telemetry

# A scrape writes 27 lines a series: a thousand series are some 17 MB and 70 ms of the control process.
SERIES_MAX: Final = 1024
COUNTERS_MAX: Final = 256
IDLE_S: Final = 3600.0
RATE_WINDOW_S: Final = 10.0
OVERFLOW: Final = "overflow"


@dataclass(slots=True)
class Total:
    """A series since the peer started. `recent` holds (time, requests) of the rate window, oldest first."""

    requests: int = 0
    duration_sum_ms: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS_MS) + 1))
    request_bytes: int = 0
    response_bytes: int = 0
    touched_at: float = 0.0
    recent: list[tuple[float, int]] = field(default_factory=list)

    def add(self, delta: SeriesDelta, now: float) -> None:
        self.requests += delta.requests
        self.duration_sum_ms += delta.duration_sum_ms
        self.buckets = [have + more for have, more in zip(self.buckets, delta.buckets, strict=True)]
        self.request_bytes += delta.request_bytes
        self.response_bytes += delta.response_bytes
        self.touched_at = now
        self.recent = [(at, count) for at, count in self.recent if at > now - RATE_WINDOW_S]
        self.recent.append((now, delta.requests))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficStatistics:
    series: int
    evicted: int  # idle series given up for new ones
    overflowed: int  # requests folded into overflow series
    telemetries: int


class Traffic:
    """Cumulative traffic of this host. `now` is any clock in seconds that does not go back."""

    def __init__(self, *, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self._totals: OrderedDict[Series, Total] = OrderedDict()  # least recently seen first
        self._overflow: dict[Series, Total] = {}
        self._counters: dict[str, int] = {}
        self._ejections: tuple[Ejection, ...] = ()
        self._connections = 0
        self._evicted = 0
        self._overflowed = 0
        self._telemetries = 0
        self.started_at: float | None = None

    def observe(self, telemetry: Telemetry, now: float) -> None:
        """Add one report of a plane."""
        if self.started_at is None:
            self.started_at = now
        self._telemetries += 1
        self._connections = telemetry.connections
        self._ejections = telemetry.ejections
        for name, count in telemetry.counters.items():
            known = name in self._counters or len(self._counters) < COUNTERS_MAX
            slot = name if known else OVERFLOW
            self._counters[slot] = self._counters.get(slot, 0) + count
        for series, delta in telemetry.series.items():
            self._slot(series, delta, now).add(delta, now)

    def _slot(self, series: Series, delta: SeriesDelta, now: float) -> Total:
        total = self._totals.get(series)
        if total is None:
            if len(self._totals) >= self._series_max:
                oldest, idle = next(iter(self._totals.items()))
                if idle.touched_at > now - IDLE_S:
                    self._overflowed += delta.requests
                    return self._overflow.setdefault(_folded(series), Total())
                del self._totals[oldest]
                self._evicted += 1
            total = self._totals[series] = Total()
        self._totals.move_to_end(series)
        return total

    def totals(self) -> Iterator[tuple[Series, Total]]:
        """Every series, the overflow ones last."""
        yield from self._totals.items()
        yield from self._overflow.items()

    def statistics(self) -> TrafficStatistics:
        return TrafficStatistics(
            series=len(self._totals) + len(self._overflow),
            evicted=self._evicted,
            overflowed=self._overflowed,
            telemetries=self._telemetries,
        )

    @property
    def counters(self) -> Mapping[str, int]:
        """Named events of the plane since the peer started."""
        return self._counters

    @property
    def ejections(self) -> tuple[Ejection, ...]:
        """Endpoints out by passive health at the last report."""
        return self._ejections

    @property
    def connections(self) -> int:
        """Open downstream connections at the last report."""
        return self._connections


def _folded(series: Series) -> Series:
    return replace(
        series,
        source_service=OVERFLOW,
        source_namespace=OVERFLOW,
        source_principal="",
        destination_service=OVERFLOW,
        destination_namespace=OVERFLOW,
        destination_principal="",
        code=series.code // 100 * 100,
        flags="-",
        security="none",
    )
