"""Golden metrics: each request once, each delta once."""

import gc

from proxy.embedded import telemetry
from proxy.embedded.plane import add_delta
from proxy.embedded.telemetry import Edge, Recorder
from proxy.plane import DURATION_BUCKETS_MS, Series, SeriesDelta


def edge(recorder: Recorder, service: str = "echo") -> Edge:
    return recorder.edge(
        "source", source=("web", "default", "spiffe://web"), destination=(service, "default", "spiffe://echo"),
        protocol="http", security="mutual_tls",
    )  # fmt: skip


def test_requests_add_up_per_code_and_flags_and_are_taken_once() -> None:
    recorder = Recorder()
    one = edge(recorder)
    assert edge(recorder) is one
    one.count(200, "-", 0.4, 10, 20)
    one.count(200, "-", 7.0, 1, 2)
    one.count(503, "UH", 99_999.0, 0, 0)
    recorder.increment("retries")
    recorder.increment("retries", 2)
    series, counters = recorder.take()
    by_code = {labels.code: (labels, delta) for labels, delta in series}
    labels, delta = by_code[200]
    assert labels == Series(
        "source",
        "web",
        "default",
        "spiffe://web",
        "echo",
        "default",
        "spiffe://echo",
        "http",
        200,
        "-",
        "mutual_tls",
    )
    assert (delta.requests, delta.duration_sum_ms, delta.request_bytes, delta.response_bytes) == (
        2,
        7.4,
        11,
        22,
    )
    assert delta.buckets[0] == 1
    assert delta.buckets[DURATION_BUCKETS_MS.index(7.5)] == 1
    assert by_code[503][0].flags == "UH"
    assert by_code[503][1].buckets[-1] == 1
    assert counters == {"retries": 3}
    assert recorder.take() == ([], {})


def test_a_bucket_holds_its_upper_bound() -> None:
    recorder = Recorder()
    counted = edge(recorder)
    for number, bound in enumerate(DURATION_BUCKETS_MS):
        counted.count(number, "-", bound, 0, 0)
    for labels, delta in recorder.take()[0]:
        assert delta.buckets.index(1) == labels.code


def test_what_was_counted_survives_its_runtime() -> None:
    recorder = Recorder()
    edge(recorder, "gone").count(200, "-", 1, 0, 0)
    gc.collect()
    (series, _) = recorder.take()
    assert [labels.destination_service for labels, _ in series] == ["gone"]


def test_edges_nobody_refers_to_are_forgotten(monkeypatch: object) -> None:
    recorder = Recorder()
    for number in range(telemetry.EDGES_MAX + 10):
        edge(recorder, str(number))
    gc.collect()
    assert recorder.take() == ([], {})


def test_too_many_edges_share_one() -> None:
    recorder = Recorder()
    kept = [edge(recorder, str(number)) for number in range(telemetry.EDGES_MAX)]
    extra = edge(recorder, "one too many")
    assert extra is edge(recorder, "and another")
    assert extra not in kept
    extra.count(200, "-", 1, 0, 0)
    series, counters = recorder.take()
    assert series[0][0].destination_service == ""
    assert counters == {"series_overflow": 2}


def test_deltas_of_workers_add_up() -> None:
    total = SeriesDelta(requests=1, duration_sum_ms=1.5)
    total.buckets[3] = 1
    other = SeriesDelta(requests=2, duration_sum_ms=2.0, request_bytes=5, response_bytes=6)
    other.buckets[3] = 2
    add_delta(total, other)
    assert (total.requests, total.duration_sum_ms, total.buckets[3]) == (3, 3.5, 3)
    assert (total.request_bytes, total.response_bytes) == (5, 6)


def test_what_two_reporters_see_at_once_counts_for_each() -> None:
    recorder = Recorder()
    joined = recorder.both(edge(recorder, "one"), edge(recorder, "other"))
    joined.count(200, "-", 1.0, 2, 3)
    series, _ = recorder.take()
    assert sorted(labels.destination_service for labels, _ in series) == ["one", "other"]
    first, second = (delta for _, delta in series)
    assert first == second
    first.buckets[0] += 1
    assert first != second, "each is counted on by itself"
