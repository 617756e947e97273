"""What Prometheus reads: the traffic of this host under Istio's names, and the mesh's own `gossamer_*` gauges.

Names and labels are Istio's (istio.io/latest/docs/reference/config/metrics), so that existing dashboards work
unchanged. Request series are written as text here, with the labels of a series escaped once a scrape: through
prometheus_client's sample objects the same thousand series took 0.9 s of the process that answers gossip. All else
goes through a prometheus_client registry.

`istio_request_bytes` and `istio_response_bytes` are summaries (`_sum`, `_count`): the plane reports sums.

Invariant: rendering changes nothing, and a name or value from another peer cannot break out of its label.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from peer.admin.traffic import Total, Traffic
from proxy.plane import DURATION_BUCKETS_MS, Series
from proxy.snapshot import MESH_SUFFIX

UNKNOWN: Final = "unknown"

LABELS: Final = (
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_canonical_service",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_canonical_service",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "response_code",
    "response_flags",
    "connection_security_policy",
    "grpc_response_status",
)
# Istio's TCP metrics know no status.
TCP_LABELS: Final = tuple(label for label in LABELS if label not in ("response_code", "grpc_response_status"))

GaugeValue = float | Mapping[tuple[str, ...], float]


def label_values(series: Series) -> list[str]:
    """The values of LABELS. What is not known is "unknown", as in Istio."""
    source = series.source_service or UNKNOWN
    source_namespace = series.source_namespace or UNKNOWN
    name = series.destination_service or UNKNOWN
    namespace = series.destination_namespace or UNKNOWN
    return [
        series.reporter,
        source,
        source_namespace,
        spiffe_uri(series.source_principal),
        source,
        name,
        namespace,
        spiffe_uri(series.destination_principal),
        name,
        f"{name}.{namespace}{MESH_SUFFIX}" if series.destination_service else UNKNOWN,
        name,
        namespace,
        series.protocol,
        str(series.code),
        series.flags,
        series.security,
        series.grpc_status,
    ]


def spiffe_uri(principal: str) -> str:
    """A principal as a URI, whichever way it was written; "unknown" when there is none."""
    if not principal:
        return UNKNOWN
    return principal if principal.startswith("spiffe://") else "spiffe://" + principal


def traffic_text(traffic: Traffic) -> str:
    """The request series in Prometheus' text format."""
    http: list[tuple[str, Total]] = []
    tcp: dict[str, list[int]] = {}
    for series, total in traffic.totals():
        if series.protocol != "tcp":
            http.append((_label_text(LABELS, label_values(series)), total))
            continue
        values = label_values(series)
        del values[_GRPC_STATUS], values[_STATUS]  # without it, series that differ in nothing else are one
        row = tcp.setdefault(_label_text(TCP_LABELS, values), [0, 0, 0])
        row[0] += total.requests
        row[1] += total.request_bytes
        row[2] += total.response_bytes
    lines: list[str] = []
    _head(lines, "istio_requests_total", "counter", "Requests.")
    lines += [f"istio_requests_total{{{labels}}} {total.requests}" for labels, total in http]
    name = "istio_request_duration_milliseconds"
    _head(lines, name, "histogram", "Duration of requests in milliseconds.")
    for labels, total in http:
        count = 0
        for bound, inside in zip(_BOUNDS, total.buckets, strict=True):
            count += inside
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {count}')
        lines.append(f"{name}_count{{{labels}}} {count}")
        lines.append(f"{name}_sum{{{labels}}} {total.duration_sum_ms}")
    for name, words, attribute in (
        ("istio_request_bytes", "Bytes of request bodies.", "request_bytes"),
        ("istio_response_bytes", "Bytes of response bodies.", "response_bytes"),
    ):
        _head(lines, name, "summary", words)
        for labels, total in http:
            lines.append(f"{name}_count{{{labels}}} {total.requests}")
            lines.append(f"{name}_sum{{{labels}}} {getattr(total, attribute)}")
    for column, (name, words) in enumerate(_TCP_FAMILIES):
        _head(lines, name, "counter", words)
        lines += [f"{name}{{{labels}}} {row[column]}" for labels, row in tcp.items()]
    return "\n".join(lines) + "\n"


_STATUS: Final = LABELS.index("response_code")
_GRPC_STATUS: Final = LABELS.index("grpc_response_status")
_BOUNDS: Final = (*(str(float(bound)) for bound in DURATION_BUCKETS_MS), "+Inf")
_TCP_FAMILIES: Final = (
    ("istio_tcp_connections_closed_total", "Closed TCP connections."),
    ("istio_tcp_received_bytes_total", "Bytes received over TCP connections."),
    ("istio_tcp_sent_bytes_total", "Bytes sent over TCP connections."),
)
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def _head(lines: list[str], name: str, kind: str, words: str) -> None:
    lines += (f"# HELP {name} {words}", f"# TYPE {name} {kind}")


def _label_text(names: Iterable[str], values: Iterable[str]) -> str:
    return ",".join(
        f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True)
    )


def _plane_families(traffic: Traffic) -> Iterator[Metric]:
    events = CounterMetricFamily(
        "gossamer_proxy_events", "What the data plane counted, by event.", labels=["event"]
    )
    for name, count in sorted(traffic.counters.items()):
        events.add_metric([name], count)
    yield events
    yield GaugeMetricFamily("gossamer_proxy_connections", "Open downstream connections.", traffic.connections)
    ejected = GaugeMetricFamily(
        "gossamer_outlier_ejected_seconds",
        "Remaining time of endpoints that passive health took out.",
        labels=["cluster", "endpoint", "reason"],
    )
    longest: dict[tuple[str, str, str], float] = {}  # several workers may have ejected the same endpoint
    for item in traffic.ejections:
        key = (item.cluster, item.endpoint, item.reason)
        longest[key] = max(longest.get(key, 0.0), item.remaining_s)
    for key, remaining_s in sorted(longest.items()):
        ejected.add_metric(list(key), remaining_s)
    yield ejected
    have = traffic.statistics()
    yield GaugeMetricFamily("gossamer_metrics_series", "Request series held.", have.series)
    yield CounterMetricFamily(
        "gossamer_metrics_overflow", "Requests folded into overflow series.", have.overflowed
    )
    yield CounterMetricFamily("gossamer_metrics_evicted", "Idle series given up for new ones.", have.evicted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A number asked for at every scrape. With `labels`, `read` returns a mapping of label values to numbers."""

    name: str  # gossamer_*; a counter's name ends in _total
    help: str
    read: Callable[[], GaugeValue]
    labels: tuple[str, ...] = ()

    def family(self) -> Metric:
        counts = self.name.endswith("_total")
        make = CounterMetricFamily if counts else GaugeMetricFamily
        family = make(self.name, self.help, labels=self.labels)
        value = self.read()
        rows = value if isinstance(value, Mapping) else {(): value}
        for labels, number in sorted(rows.items()):
            family.add_metric(list(labels), number)
        return family


class Metrics(Collector):
    """Everything one scrape shows."""

    def __init__(self, traffic: Traffic, gauges: Iterable[Gauge] = ()) -> None:
        self._traffic = traffic
        self._gauges: list[Gauge] = []
        for gauge in gauges:
            self.add(gauge)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def add(self, gauge: Gauge) -> None:
        if any(known.name == gauge.name for known in self._gauges):
            raise AssertionError(f"gauge {gauge.name} exists")
        self._gauges.append(gauge)

    def collect(self) -> Iterator[Metric]:
        """All but the request series (prometheus_client's Collector)."""
        yield from _plane_families(self._traffic)
        for gauge in self._gauges:
            yield gauge.family()

    def render(self) -> bytes:
        """Prometheus text exposition."""
        return traffic_text(self._traffic).encode() + generate_latest(self._registry)
