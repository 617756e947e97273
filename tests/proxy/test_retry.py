"""Retries: conditions, back-off, budget."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.retry import RETRY_CONDITIONS, Failure, RetryBudget, RetryRules
from proxy.snapshot import RetryPolicy


def rules(*on: str, **changes: Any) -> RetryRules:
    return RetryRules(RetryPolicy(on=on, **changes))


@pytest.mark.parametrize(
    ("condition", "failures"),
    [
        ("connect-failure", {Failure.CONNECT}),
        ("refused-stream", {Failure.REFUSED}),
        ("reset", set(Failure) - {Failure.CONNECT}),
        ("gateway-error", set(Failure)),
        ("5xx", set(Failure)),
        ("unavailable", set()),
        ("cancelled", set()),
    ],
)
def test_each_condition_covers_the_failures_envoy_says(condition: str, failures: set[Failure]) -> None:
    assert {each for each in Failure if rules(condition).failure(each)} == failures


def test_the_defaults_retry_only_what_was_not_processed() -> None:
    default = RetryRules(RetryPolicy())
    assert default.failure(Failure.CONNECT)
    assert default.failure(Failure.REFUSED)
    assert not default.failure(Failure.RESET)
    assert not any(default.status(status) for status in range(200, 600))


@pytest.mark.parametrize(
    ("condition", "statuses"),
    [("5xx", set(range(500, 600))), ("gateway-error", {502, 503, 504}), ("reset", set())],
)
def test_statuses(condition: str, statuses: set[int]) -> None:
    assert {each for each in range(100, 600) if rules(condition).status(each)} == statuses


def test_grpc_statuses_need_their_condition() -> None:
    assert rules("unavailable").status(200, 14)
    assert rules("cancelled").status(200, 1)
    assert not rules("cancelled").status(200, 14)
    assert not rules("unavailable").status(200, None)


def test_attempts_count_those_after_the_first() -> None:
    two = rules("5xx", attempts=2)
    assert [two.may_follow(attempt, replayable=True) for attempt in (1, 2, 3)] == [True, True, False]
    assert not two.may_follow(1, replayable=False)
    assert not rules("5xx", attempts=0).may_follow(1, replayable=True)


def test_an_unknown_condition_is_refused() -> None:
    assert "retriable-4xx" not in RETRY_CONDITIONS
    with pytest.raises(ValueError, match="retriable-4xx"):
        rules("retriable-4xx")


@given(st.integers(1, 10_000), st.integers())
def test_backoff_is_jittered_below_a_ceiling_that_doubles_and_is_capped(attempt: int, seed: int) -> None:
    wait_s = rules("5xx").backoff_s(attempt, random.Random(seed))
    assert 0.0 <= wait_s <= 0.25
    if attempt <= 3:
        assert wait_s <= (2**attempt - 1) * 0.025


def test_backoff_spreads_over_its_whole_range() -> None:
    rng = random.Random(1)
    waits = [rules("5xx").backoff_s(1, rng) for _ in range(1000)]
    assert min(waits) < 0.002
    assert max(waits) > 0.023
    assert sum(waits) / 1000 == pytest.approx(0.0125, rel=0.1)


def test_the_budget_is_a_share_of_requests_with_a_floor() -> None:
    policy = RetryPolicy(budget_percent=20.0, budget_floor=3)
    for requests, allowed in [(0, 3), (10, 3), (15, 3), (100, 20)]:
        budget = RetryBudget()
        assert sum(budget.acquire(policy, requests) for _ in range(200)) == allowed
        assert budget.refused == 200 - allowed


def test_a_released_retry_makes_room() -> None:
    policy, budget = RetryPolicy(budget_percent=0.0, budget_floor=1), RetryBudget()
    assert budget.acquire(policy, 10)
    assert not budget.acquire(policy, 10)
    budget.release()
    assert budget.acquire(policy, 10)
