"""Traffic added up, Istio's names written as Prometheus reads them, and the rows of `stat`."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from peer.admin.metrics import LABELS, TCP_LABELS, Gauge, Metrics, label_values, traffic_text
from peer.admin.stat import percentile_ms, stat_rows
from peer.admin.traffic import COUNTERS_MAX, IDLE_S, OVERFLOW, Traffic
from proxy.plane import DURATION_BUCKETS_MS, Ejection, Series, SeriesDelta, Telemetry


def series(**changes) -> Series:
    values = {
        "reporter": "source",
        "source_service": "web",
        "source_namespace": "default",
        "source_principal": "spiffe://cluster.local/ns/default/sa/web",
        "destination_service": "cart",
        "destination_namespace": "shop",
        "destination_principal": "cluster.local/ns/shop/sa/cart",
        "protocol": "http",
        "code": 200,
        "flags": "-",
        "security": "mutual_tls",
    } | changes
    return Series(**values)


def delta(requests: int = 1, bucket: int = 3, **changes) -> SeriesDelta:
    made = SeriesDelta(requests=requests, **changes)
    made.buckets[bucket] = requests
    return made


def telemetry(items=None, *, counters=None, ejections=(), connections=0) -> Telemetry:
    return Telemetry(
        series=items or {}, counters=counters or {}, ejections=tuple(ejections), connections=connections
    )


def samples(text: str | bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = text.decode() if isinstance(text, bytes) else text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name: str, **labels) -> float:
    hits = [
        number
        for (sample, have), number in found.items()
        if sample == name and labels.items() <= dict(have).items()
    ]
    assert len(hits) == 1, (name, labels, hits)
    return hits[0]


def test_deltas_add_up_under_istios_names():
    traffic = Traffic()
    first = delta(10, duration_sum_ms=25.5, request_bytes=100, response_bytes=2000)
    traffic.observe(telemetry({series(): first}), 1.0)
    traffic.observe(telemetry({series(): delta(5, bucket=21, duration_sum_ms=100_000)}), 2.0)
    found = samples(traffic_text(traffic))
    assert value(found, "istio_requests_total") == 15
    assert value(found, "istio_request_duration_milliseconds_bucket", le="3.0") == 10
    assert value(found, "istio_request_duration_milliseconds_bucket", le="2.0") == 0
    assert value(found, "istio_request_duration_milliseconds_bucket", le="60000.0") == 10
    assert value(found, "istio_request_duration_milliseconds_bucket", le="+Inf") == 15
    assert value(found, "istio_request_duration_milliseconds_count") == 15
    assert value(found, "istio_request_duration_milliseconds_sum") == 100_025.5
    assert value(found, "istio_request_bytes_sum") == 100
    assert value(found, "istio_response_bytes_sum") == 2000
    assert value(found, "istio_response_bytes_count") == 15


def test_the_labels_are_istios():
    traffic = Traffic()
    traffic.observe(telemetry({series(): delta()}), 1.0)
    labels = dict(
        next(have for name, have in samples(traffic_text(traffic)) if name == "istio_requests_total")
    )
    assert labels == {
        "reporter": "source",
        "source_workload": "web",
        "source_workload_namespace": "default",
        "source_principal": "spiffe://cluster.local/ns/default/sa/web",
        "source_canonical_service": "web",
        "destination_workload": "cart",
        "destination_workload_namespace": "shop",
        "destination_principal": "spiffe://cluster.local/ns/shop/sa/cart",
        "destination_canonical_service": "cart",
        "destination_service": "cart.shop.mesh",
        "destination_service_name": "cart",
        "destination_service_namespace": "shop",
        "request_protocol": "http",
        "response_code": "200",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
        "grpc_response_status": "",
    }


def test_a_grpc_status_is_a_label_and_a_failure_where_it_stands_for_one():
    traffic = Traffic()
    ended = {series(protocol="grpc", grpc_status=status): delta(5) for status in ("0", "5", "14", "13")}
    traffic.observe(telemetry(ended), 1.0)
    found = samples(traffic_text(traffic))
    assert value(found, "istio_requests_total", grpc_response_status="14") == 5
    [row] = stat_rows(traffic, 60.0)
    assert row["success_rate"] == 0.5


def test_what_is_not_known_is_unknown():
    blank = series(source_service="", source_namespace="", source_principal="", destination_service="")
    have = dict(zip(LABELS, label_values(blank), strict=True))
    assert have["source_workload"] == have["source_principal"] == have["destination_service"] == "unknown"


def test_tcp_connections_have_istios_tcp_metrics_and_no_status():
    traffic = Traffic()
    traffic.observe(
        telemetry(
            {
                series(protocol="tcp", code=0): delta(2, request_bytes=10, response_bytes=20),
                series(protocol="tcp", code=1): delta(1, request_bytes=1, response_bytes=2),
            }
        ),
        1.0,
    )
    found = samples(traffic_text(traffic))
    assert value(found, "istio_tcp_connections_closed_total") == 3
    assert value(found, "istio_tcp_received_bytes_total") == 11
    assert value(found, "istio_tcp_sent_bytes_total") == 22
    assert not [name for name, _ in found if name == "istio_requests_total"]
    assert not {"response_code", "grpc_response_status"} & set(TCP_LABELS)


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_name_can_break_out_of_its_label(service, flags):
    traffic = Traffic()
    traffic.observe(telemetry({series(destination_service=service, flags=flags): delta(7)}), 1.0)
    lines = [line for line in traffic_text(traffic).split("\n") if line.startswith("istio_requests_total{")]
    assert len(lines) == 1
    assert lines[0].endswith("} 7")
    unescaped = re.findall(r'(\w+)="((?:[^"\\\n]|\\["\\n])*)"', lines[0])
    assert [name for name, _ in unescaped] == list(LABELS)


def test_beyond_the_bound_series_are_folded_and_totals_stay_true():
    traffic = Traffic(series_max=10)
    for number in range(100):
        traffic.observe(
            telemetry({series(destination_service=f"s{number}", code=200 + number): delta(2)}), 1.0
        )
    found = samples(Metrics(traffic).render())
    assert sum(number for (name, _), number in found.items() if name == "istio_requests_total") == 200
    folded = [
        dict(have)
        for name, have in found
        if name == "istio_requests_total" and OVERFLOW in dict(have).values()
    ]
    assert len(folded) == 1
    assert folded[0]["response_code"] == "200"
    assert value(found, "gossamer_metrics_series") == 11
    assert value(found, "gossamer_metrics_overflow_total") == 180
    assert traffic.statistics().overflowed == 180


def test_an_idle_series_gives_way_to_a_new_one_and_a_busy_one_does_not():
    traffic = Traffic(series_max=2)
    traffic.observe(telemetry({series(destination_service="idle"): delta()}), 0.0)
    traffic.observe(telemetry({series(destination_service="busy"): delta()}), 1.0)
    traffic.observe(telemetry({series(destination_service="busy"): delta()}), IDLE_S)
    traffic.observe(telemetry({series(destination_service="new"): delta()}), IDLE_S + 1)
    assert {have.destination_service for have, _ in traffic.totals()} == {"busy", "new"}
    assert traffic.statistics().evicted == 1
    assert traffic.statistics().overflowed == 0


def test_plane_counters_ejections_and_connections_are_shown():
    traffic = Traffic()
    traffic.observe(telemetry(counters={"retries": 2}, connections=4), 1.0)
    ejection = {
        "cluster": "cart.shop.mesh:80",
        "endpoint": "n/cart",
        "node": "n",
        "reason": "5xx",
        "count": 1,
    }
    traffic.observe(
        telemetry(
            counters={"retries": 1},
            connections=3,
            ejections=[Ejection(**ejection, remaining_s=30.0), Ejection(**ejection, remaining_s=12.0)],
        ),
        2.0,
    )
    found = samples(Metrics(traffic).render())
    assert value(found, "gossamer_proxy_events_total", event="retries") == 3
    assert value(found, "gossamer_proxy_connections") == 3
    assert value(found, "gossamer_outlier_ejected_seconds", cluster="cart.shop.mesh:80", reason="5xx") == 30.0


def test_counter_names_are_bounded_too():
    traffic = Traffic()
    traffic.observe(telemetry(counters={f"c{number}": 1 for number in range(COUNTERS_MAX + 50)}), 1.0)
    assert len(traffic.counters) == COUNTERS_MAX + 1
    assert traffic.counters[OVERFLOW] == 50


def test_gauges_are_asked_for_at_every_scrape():
    members = {("alive",): 3.0}
    metrics = Metrics(
        Traffic(),
        [
            Gauge(name="gossamer_members", help="Members by state.", read=lambda: members, labels=("state",)),
            Gauge(name="gossamer_records_total", help="Records merged.", read=lambda: 7),
        ],
    )
    assert value(samples(metrics.render()), "gossamer_members", state="alive") == 3
    members[("dead",)] = 1.0
    found = samples(metrics.render())
    assert value(found, "gossamer_members", state="dead") == 1
    assert value(found, "gossamer_records_total") == 7
    with pytest.raises(AssertionError, match="gossamer_members exists"):
        metrics.add(Gauge(name="gossamer_members", help="", read=lambda: 0))


# ---------------------------------------------------------------- stat


def test_a_row_has_the_documented_shape():
    traffic = Traffic()
    traffic.observe(
        telemetry(
            {series(): delta(99), series(code=503, flags="UH"): delta(1), series(code=404): delta(100)}
        ),
        100.0,
    )
    assert stat_rows(traffic, 110.0) == [
        {
            "source": "default/web", "destination": "shop/cart", "requests": 200, "success_rate": 0.995, "rps": 0.0,
            "p50_ms": 2.5, "p95_ms": 2.95, "p99_ms": 2.99, "reporter": "source", "protocol": "http",
        }
    ]  # fmt: skip


def test_rps_is_over_the_last_ten_seconds():
    traffic = Traffic()
    for second in range(95):
        traffic.observe(telemetry({series(): delta(50)}), float(second))
    assert stat_rows(traffic, 94.0)[0]["rps"] == 50.0
    for second in range(95, 100):
        traffic.observe(telemetry({series(): delta(0)}), float(second))
    assert stat_rows(traffic, 99.0)[0]["rps"] == 25.0
    assert stat_rows(traffic, 120.0)[0]["rps"] == 0.0


def test_a_young_peer_does_not_divide_by_the_whole_window():
    traffic = Traffic()
    traffic.observe(telemetry({series(): delta(100)}), 10.0)
    traffic.observe(telemetry({series(): delta(100)}), 12.0)
    assert stat_rows(traffic, 12.0)[0]["rps"] == 100.0


def test_a_call_inside_this_host_is_counted_once():
    """The callee's view of it has no TLS; what came from other hosts has, and stays."""
    traffic = Traffic()
    traffic.observe(
        telemetry(
            {
                series(security="none"): delta(10),  # as the caller saw it
                series(reporter="destination", security="none"): delta(10),  # the same ten
                series(reporter="destination"): delta(4),  # from web on another host
            }
        ),
        1.0,
    )
    rows = stat_rows(traffic, 1.0)
    assert [(row["reporter"], row["requests"]) for row in rows] == [("destination", 4), ("source", 10)]


def test_a_call_only_the_callee_reported_is_kept():
    traffic = Traffic()
    traffic.observe(
        telemetry({series(reporter="destination", security="none", source_service=""): delta(3)}), 1.0
    )
    assert [(row["source"], row["requests"]) for row in stat_rows(traffic, 1.0)] == [("unknown", 3)]


def test_no_traffic_is_no_rows():
    assert stat_rows(Traffic(), 5.0) == []


def test_percentiles_are_interpolated_inside_their_bucket():
    buckets = [0] * (len(DURATION_BUCKETS_MS) + 1)
    assert percentile_ms(buckets, 0.5) is None
    buckets[7] = 100  # 7.5 to 10 ms
    assert percentile_ms(buckets, 0.5) == 8.75
    assert percentile_ms(buckets, 0.99) == 9.975
    buckets[-1] = 300  # beyond the last bound
    assert percentile_ms(buckets, 0.5) == 60_000.0


@given(st.lists(st.floats(0, 60_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(durations, quantile):
    bounds = (0.0, *DURATION_BUCKETS_MS)
    buckets = [0] * (len(DURATION_BUCKETS_MS) + 1)
    for duration in durations:
        buckets[next(i for i, bound in enumerate(DURATION_BUCKETS_MS) if duration <= bound)] += 1
    ordered = sorted(durations)
    rank = quantile * len(ordered)
    true = ordered[min(len(ordered) - 1, max(0, -int(-rank // 1) - 1))]
    index = next(i for i, bound in enumerate(DURATION_BUCKETS_MS) if true <= bound)
    found = percentile_ms(buckets, quantile)
    assert found is not None
    assert bounds[index] - 0.001 <= found <= bounds[index + 1] + 0.001


@given(st.lists(st.integers(0, 50), min_size=22, max_size=22))
def test_percentiles_rise_with_the_quantile(buckets):
    values = [percentile_ms(buckets, quantile) for quantile in (0.1, 0.5, 0.9, 0.99)]
    if any(buckets):
        assert values == sorted(values)
