"""Passive health: the whole table, ejection times, limits, snapshot swaps."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.outlier import TRANSITIONS, Event, OutlierDetector, State
from proxy.snapshot import Cluster, Endpoint, Outlier


def cluster(size: int, **policy: Any) -> Cluster:
    return Cluster(
        name="c.default.mesh:80",
        service="c",
        namespace="default",
        protocol="http",
        endpoints=tuple(
            Endpoint(id=f"e{index}", node=f"n{index}", host="10.0.0.1", port=1, sni="c", identity="i")
            for index in range(size)
        ),
        outlier=Outlier(**policy),
    )


def unwell(whole: Cluster, endpoint: str) -> Cluster:
    """The same when the active check of one endpoint has failed."""
    endpoints = tuple(replace(each, healthy=each.id != endpoint) for each in whole.endpoints)
    return replace(whole, endpoints=endpoints)


def fail(detector: OutlierDetector, endpoint: str, times: int, now: float = 0.0) -> bool:
    return sum(detector.record(endpoint, True, now) for _ in range(times)) > 0


def test_the_table_has_every_pair_and_says_what_the_theory_says() -> None:
    assert set(TRANSITIONS) == set(product(State, Event))
    expected = {
        State.HEALTHY: [State.HEALTHY, State.FAILING, State.EJECTED, State.HEALTHY, State.HEALTHY],
        State.FAILING: [State.HEALTHY, State.FAILING, State.EJECTED, State.FAILING, State.HEALTHY],
        State.EJECTED: [State.EJECTED, State.EJECTED, State.EJECTED, State.HEALTHY, State.HEALTHY],
    }
    assert {state: [TRANSITIONS[state, event] for event in Event] for state in State} == expected


def test_consecutive_failures_eject_and_a_success_in_between_starts_over() -> None:
    detector = OutlierDetector(cluster(3), 0.0)
    assert not fail(detector, "e0", 4)
    assert detector.state("e0") is State.FAILING
    detector.record("e0", False, 0.0)
    assert detector.state("e0") is State.HEALTHY
    assert not fail(detector, "e0", 4)
    assert detector.record("e0", True, 0.0)
    assert detector.ejected == {"e0"}


def test_ejection_lasts_base_times_count_up_to_the_maximum() -> None:
    detector = OutlierDetector(cluster(2, interval_s=1e9), 0.0)
    now, lasted = 0.0, []
    for _ in range(12):
        fail(detector, "e0", 5, now)
        assert detector.deadline is not None
        lasted.append(detector.deadline - now)
        now = detector.deadline
        assert detector.sweep(now)
        assert detector.state("e0") is State.HEALTHY
    assert lasted == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


def test_nothing_expires_early() -> None:
    detector = OutlierDetector(cluster(2), 0.0)
    fail(detector, "e0", 5)
    assert not detector.sweep(29.9)
    assert detector.ejected == {"e0"}
    assert detector.ejections(10.0)[0].remaining_s == pytest.approx(20.0)
    assert detector.sweep(30.0)
    assert detector.deadline is None


def test_each_interval_without_ejection_forgives_one() -> None:
    detector = OutlierDetector(cluster(2), 0.0)
    for start in (0.0, 31.0):
        fail(detector, "e0", 5, start)
        detector.sweep(start + 100.0)
    assert detector.sweep(200.0) is False
    fail(detector, "e0", 5, 200.0)
    assert detector.ejections(200.0)[0].count == 1


@pytest.mark.parametrize(
    ("size", "percent", "allowed"),
    [(0, 10, 0), (1, 100, 0), (2, 10, 1), (5, 10, 1), (20, 10, 2), (10, 50, 5), (10, 100, 10), (10, 0, 0)],
)
def test_at_most_a_share_is_out_but_one_may_always_be(size: int, percent: int, allowed: int) -> None:
    detector = OutlierDetector(cluster(size, max_ejection_percent=percent), 0.0)
    for index in range(size):
        fail(detector, f"e{index}", 5)
    assert len(detector.ejected) == allowed
    assert detector.overflow == (0 if size == 0 else size - allowed)


def test_an_endpoint_there_was_no_room_for_is_ejected_by_its_next_failure_once_there_is() -> None:
    detector = OutlierDetector(cluster(2), 0.0)
    fail(detector, "e0", 5)
    fail(detector, "e1", 5, 10.0)
    assert detector.ejected == {"e0"}
    detector.sweep(30.0)
    assert detector.record("e1", True, 31.0)
    assert detector.ejected == {"e1"}


def test_late_answers_change_nothing_while_ejected() -> None:
    detector = OutlierDetector(cluster(3), 0.0)
    fail(detector, "e0", 5)
    detector.record("e0", False, 1.0)
    detector.record("e0", True, 1.0)
    assert detector.ejected == {"e0"}
    assert detector.ejections(1.0)[0].count == 1


def test_state_survives_a_swap_and_health_regained_ends_an_ejection() -> None:
    before = cluster(3)
    detector = OutlierDetector(before, 0.0)
    fail(detector, "e0", 5)
    assert not detector.update(unwell(before, "e0"), 1.0)
    assert detector.ejected == {"e0"}
    assert detector.update(before, 2.0)
    assert detector.ejected == frozenset()


def test_an_endpoint_that_left_leaves_no_trace() -> None:
    before = cluster(3)
    detector = OutlierDetector(before, 0.0)
    fail(detector, "e0", 5)
    assert detector.update(replace(before, endpoints=before.endpoints[1:]), 1.0)
    assert detector.ejections(1.0) == ()
    detector.update(before, 2.0)
    assert detector.state("e0") is State.HEALTHY
    assert not detector.record("nobody", True, 2.0)


def test_switching_it_off_lets_everyone_back_in() -> None:
    before = cluster(3)
    detector = OutlierDetector(before, 0.0)
    fail(detector, "e0", 5)
    assert detector.update(replace(before, outlier=Outlier(enabled=False)), 1.0)
    assert not fail(detector, "e1", 50, 1.0)
    assert detector.ejected == frozenset()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ok", "fail", "fail", "fail", "sweep", "check"]),
        st.sampled_from([f"e{index}" for index in range(5)]),
        st.floats(0.0, 40.0),
    ),
    max_size=80,
)


@given(STEPS, st.integers(0, 100))
def test_whatever_happens_the_limits_hold(steps: list[tuple[str, str, float]], percent: int) -> None:
    whole = cluster(5, consecutive_5xx=2, max_ejection_percent=percent)
    detector = OutlierDetector(whole, 0.0)
    now = 0.0
    for what, endpoint, elapsed in steps:
        now += elapsed
        before = detector.ejected
        match what:
            case "sweep":
                changed = detector.sweep(now)
            case "check":
                changed = detector.update(unwell(whole, endpoint), now)
                assert not changed
                changed = detector.update(whole, now)
            case _:
                changed = detector.record(endpoint, what == "fail", now)
        assert changed == (detector.ejected != before)
        assert len(detector.ejected) <= detector.ejectable
        assert detector.ejected == {f"e{i}" for i in range(5) if detector.state(f"e{i}") is State.EJECTED}
        assert all(each.remaining_s <= 300.0 for each in detector.ejections(now))
    detector.sweep(now + 301.0)
    assert detector.ejected == frozenset()
