"""Circuit breaker counters."""

import pytest

from proxy.breaker import Breaker
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
