"""When a renewal that fails is worth a warning, and when it is a failure: early, and never taken back by time."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.renewal import Failure, standing

HELD = SimpleNamespace(not_before=0, not_after=3600)


def failed(since: float, attempts: int = 1) -> Failure:
    return Failure(reason="no signer answers", attempts=attempts, since=since)


def level(now: float, failure: Failure | None = None) -> str:
    return standing(HELD, failure, now).level


def test_all_is_well_while_nothing_fails_and_there_is_time() -> None:
    assert standing(HELD, None, 2000.0).words == ""
    assert level(2699) == "ok"


def test_a_first_failure_is_a_warning_with_its_reason_and_what_is_left() -> None:
    found = standing(HELD, failed(1800.0), 1830.0)
    assert found.level == "warn"
    assert found.words == "expires in 1770 s; renewal has failed 1 times in 30 s: no signer answers"


def test_an_eighth_of_the_life_of_failures_is_a_failure_long_before_the_end() -> None:
    assert level(1800 + 450, failed(1800.0, 9)) == "warn"
    assert level(1800 + 451, failed(1800.0, 9)) == "fail"
    # Renewal is tried from 0.6 of the life on at the latest, so it is told when more than a quarter is left.
    assert level(0.6 * 3600 + 451, failed(0.6 * 3600)) == "fail"
    assert 0.6 * 3600 + 451 < 0.75 * 3600


def test_a_certificate_that_nobody_renews_is_a_failure_even_if_nothing_failed() -> None:
    assert level(2701) == "fail"
    assert "was not renewed" in standing(HELD, None, 2701).words
    assert "expired 100 s ago" in standing(HELD, None, 3700).words


def test_one_that_was_never_had_is_awaited_until_the_first_failure() -> None:
    assert standing(None, None, 0.0).level == "warn"
    assert standing(None, failed(0.0), 1.0).level == "fail"


@given(since=st.floats(0, 3600), first=st.floats(0, 8000), second=st.floats(0, 8000))
def test_time_alone_makes_nothing_better(since: float, first: float, second: float) -> None:
    levels = ["ok", "warn", "fail"]
    early, late = sorted((max(first, since), max(second, since)))
    for failure in (None, failed(since)):
        assert levels.index(level(early, failure)) <= levels.index(level(late, failure))


@pytest.mark.parametrize("life_s", [10, 3600, 7 * 86_400])
def test_the_shares_hold_for_every_life(life_s: int) -> None:
    held = SimpleNamespace(not_before=0, not_after=life_s)
    assert standing(held, failed(life_s / 2), life_s * 0.6).level == "warn"
    assert standing(held, failed(life_s / 2), life_s * 0.63).level == "fail"
