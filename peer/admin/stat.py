"""`gossamer stat`: who calls whom, how much, how well, how fast, as this host saw it.

One row per (source, destination, reporter). A call between two services of this host is seen from both ends; the
callee's view of it is the one that arrived without TLS (same host, no TLS), and is left out where the
caller's view of the same pair exists. So each request is in at most one row of one host.

Counts and percentiles are since the peer started; `rps` is over the last RATE_WINDOW_S seconds. Percentiles are
interpolated linearly inside their histogram bucket; beyond the last bound they are that bound.

Invariant: pure; the rows are a function of the totals and `now`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from peer.admin.metrics import UNKNOWN
from peer.admin.traffic import RATE_WINDOW_S, Total, Traffic
from proxy.plane import DURATION_BUCKETS_MS, Series

_SERVER_ERROR: Final = 500
_GRPC_FAILURES: Final = frozenset(("2", "4", "12", "13", "14", "15"))  # as outlier detection counts them
_RATE_WINDOW_S_MIN: Final = 1.0

_Key = tuple[str, str, str]


def stat_rows(traffic: Traffic, now: float) -> list[dict[str, Any]]:
    """[{source, destination, requests, success_rate, rps, p50_ms, p95_ms, p99_ms, reporter, protocol}], by name."""
    sums: dict[_Key, Total] = {}
    good: dict[_Key, int] = {}
    protocols: dict[_Key, str] = {}
    for pair, series, total in told_once(traffic):
        key = (*pair, series.reporter)
        into = sums.setdefault(key, Total())
        into.requests += total.requests
        into.duration_sum_ms += total.duration_sum_ms
        into.buckets = [have + more for have, more in zip(into.buckets, total.buckets, strict=True)]
        into.recent.extend(total.recent)
        good[key] = good.get(key, 0) + (total.requests if _succeeded(series) else 0)
        protocols[key] = series.protocol
    since = traffic.started_at if traffic.started_at is not None else now
    return [_row(key, sums[key], good[key], protocols[key], now, since) for key in sorted(sums)]


def told_once(traffic: Traffic) -> Iterator[tuple[tuple[str, str], Series, Total]]:
    """((source, destination), series, total), each request in one of them."""
    items = list(traffic.totals())
    told_by_source = {_pair(series) for series, _ in items if series.reporter == "source"}
    for series, total in items:
        pair = _pair(series)
        if series.reporter == "source" or series.security != "none" or pair not in told_by_source:
            yield pair, series, total


def _row(key: _Key, total: Total, good: int, protocol: str, now: float, since: float) -> dict[str, Any]:
    window_s = min(max(now - since, _RATE_WINDOW_S_MIN), RATE_WINDOW_S)
    recent = sum(count for at, count in total.recent if at > now - RATE_WINDOW_S)
    return {
        "source": key[0],
        "destination": key[1],
        "requests": total.requests,
        "success_rate": round(good / total.requests, 6) if total.requests else None,
        "rps": round(recent / window_s, 3),
        "p50_ms": percentile_ms(total.buckets, 0.50),
        "p95_ms": percentile_ms(total.buckets, 0.95),
        "p99_ms": percentile_ms(total.buckets, 0.99),
        "reporter": key[2],
        "protocol": protocol,
    }


def percentile_ms(buckets: Sequence[int], quantile: float) -> float | None:
    """The duration below which `quantile` of the requests stayed, or None when there were none."""
    count = sum(buckets)
    if not count:
        return None
    rank = quantile * count
    below = 0
    lower = 0.0
    for bound, inside in zip(DURATION_BUCKETS_MS, buckets, strict=False):
        if inside and below + inside >= rank:
            return round(lower + (bound - lower) * (rank - below) / inside, 3)
        below += inside
        lower = bound
    return float(DURATION_BUCKETS_MS[-1])


def _succeeded(series: Series) -> bool:
    """Not the server's fault: everything but 5xx, what stands for one in gRPC, and what ended without a status."""
    if series.protocol == "tcp":
        return series.flags in ("", "-")
    return 0 < series.code < _SERVER_ERROR and series.grpc_status not in _GRPC_FAILURES


def _pair(series: Series) -> tuple[str, str]:
    return (
        _named(series.source_namespace, series.source_service),
        _named(series.destination_namespace, series.destination_service),
    )


def _named(namespace: str, service: str) -> str:
    return f"{namespace or UNKNOWN}/{service}" if service else UNKNOWN
