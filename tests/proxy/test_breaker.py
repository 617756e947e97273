"""Circuit breaker counters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.breaker import HELD, Breaker, SharedBreaker
from proxy.snapshot import CircuitBreaker


@pytest.mark.parametrize("what", ["request", "connection", "pending"])
def test_admits_up_to_the_limit_and_again_after_a_release(what: str) -> None:
    breaker = Breaker(CircuitBreaker(connections_max=2, pending_max=2, requests_max=2))
    opened, closed = getattr(breaker, f"open_{what}"), getattr(breaker, f"close_{what}")
    assert [opened() for _ in range(4)] == [True, True, False, False]
    closed()
    assert opened()
    assert not opened()
    statistics = breaker.statistics()
    refused = {
        "request": "requests_refused",
        "connection": "connections_refused",
        "pending": "pending_refused",
    }
    assert {name: getattr(statistics, name) for name in refused.values()} == {
        name: 3 if kind == what else 0 for kind, name in refused.items()
    }


def test_lower_limits_hold_at_once_and_admit_nothing_until_enough_was_released() -> None:
    breaker = Breaker(CircuitBreaker(requests_max=3))
    assert [breaker.open_request() for _ in range(3)] == [True] * 3
    breaker.limits = CircuitBreaker(requests_max=1)
    breaker.close_request()
    breaker.close_request()
    assert not breaker.open_request()
    breaker.close_request()
    assert breaker.open_request()


def test_closing_what_was_never_opened_is_a_programming_error() -> None:
    with pytest.raises(AssertionError):
        Breaker(CircuitBreaker()).close_connection()


# ---------------------------------------------------------------- shared by workers


def sharing(limits: CircuitBreaker, workers: int = 3) -> tuple[list[SharedBreaker], list[list[int]]]:
    """The breakers of so many workers, and what each has written down."""
    held = [[9] * HELD for _ in range(workers)]  # what was left by whoever had the place before
    return [SharedBreaker(limits, held[n], held[:n] + held[n + 1 :]) for n in range(workers)], held


@pytest.mark.parametrize("what", ["request", "pending"])
def test_workers_hold_the_limit_together(what: str) -> None:
    breakers, _ = sharing(CircuitBreaker(pending_max=4, requests_max=4))
    opened = [getattr(breaker, f"open_{what}") for breaker in breakers]
    assert [opened[n % 3]() for n in range(6)] == [True] * 4 + [False] * 2
    getattr(breakers[2], f"close_{what}")()
    assert opened[0]()
    assert not opened[1]()
    refused = {"request": "requests_refused", "pending": "pending_refused"}[what]
    assert sum(getattr(breaker.statistics(), refused) for breaker in breakers) == 3


def test_each_worker_may_have_one_connection_and_all_together_no_more_than_the_limit_otherwise() -> None:
    breakers, held = sharing(CircuitBreaker(connections_max=4))
    assert [breakers[0].open_connection() for _ in range(5)] == [True] * 4 + [False]
    assert [breakers[1].open_connection() for _ in range(2)] == [True, False]
    assert [each[0] for each in held] == [4, 1, 0]
    breakers[0].close_connection()
    breakers[0].close_connection()
    assert breakers[1].open_connection()
    assert not breakers[0].open_connection()


def test_a_breaker_that_has_left_counts_for_nobody() -> None:
    (one, other), held = sharing(CircuitBreaker(requests_max=1), workers=2)
    assert one.open_request()
    assert not other.open_request()
    one.leave()
    held[0][2] = 7  # the place is another cluster's now
    one.close_request()
    assert held[0][2] == 7
    Breaker(CircuitBreaker()).leave()


WHAT = st.sampled_from(["request", "pending", "connection"])


@given(st.lists(st.tuples(st.integers(0, 2), WHAT, st.booleans())))
def test_the_sum_never_exceeds_the_limit_and_is_what_was_written(steps: list[tuple[int, str, bool]]) -> None:
    breakers, held = sharing(CircuitBreaker(connections_max=3, pending_max=2, requests_max=3))
    counts = {"request": "requests", "connection": "connections", "pending": "pending"}
    for worker, what, opens in steps:
        breaker = breakers[worker]
        if opens:
            getattr(breaker, f"open_{what}")()
        elif getattr(breaker, counts[what]):
            getattr(breaker, f"close_{what}")()
        assert held == [[each.connections, each.pending, each.requests] for each in breakers]
        assert sum(each.requests for each in breakers) <= 3
        assert sum(each.pending for each in breakers) <= 2
        assert sum(each.connections for each in breakers) <= 3 + 2
