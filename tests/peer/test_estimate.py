"""What a sample says about all members."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.estimate import ASKED_MAX, Count, choose, wilson


def test_all_are_asked_while_they_are_few_and_a_sample_of_more() -> None:
    few, many = list(range(ASKED_MAX)), list(range(10 * ASKED_MAX))
    assert choose(few, random.Random(1)) == few
    chosen = choose(many, random.Random(1))
    assert len(set(chosen)) == ASKED_MAX
    assert set(chosen) <= set(many)
    assert chosen != choose(many, random.Random(2))


@pytest.mark.parametrize(
    ("successes", "asked", "low", "high"),
    [  # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(successes: int, asked: int, low: float, high: float) -> None:
    assert wilson(successes, asked) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_interval_holds_the_share_and_is_symmetric(one: int, other: int) -> None:
    successes, asked = min(one, other), max(one, other)
    low, high = wilson(successes, asked)
    assert 0 <= low <= high <= 1
    if asked:
        assert low - 1e-12 <= successes / asked <= high + 1e-12
        mirrored = wilson(asked - successes, asked)
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(5)
    for truth in (0.5, 0.9, 0.99):
        tries = 2000
        seen = [sum(rng.random() < truth for _ in range(ASKED_MAX)) for _ in range(tries)]
        covered = sum(low <= truth <= high for low, high in (wilson(each, ASKED_MAX) for each in seen))
        assert covered / tries > 0.93


@given(st.integers(1, 100), st.integers(1, 300))
def test_a_share_is_reached_exactly_when_enough_are_there(percent: int, asked: int) -> None:
    """In floating point 0.07 * 100 is more than 7."""
    needed = math.ceil(percent * asked / 100)
    share = percent / 100
    assert Count(members=asked, asked=asked, enforced=needed).reaches(share)
    assert not Count(members=asked, asked=asked, enforced=needed - 1).reaches(share)


def test_words() -> None:
    assert Count(members=3, asked=3, enforced=2).words() == "2 of 3 members"
    words = Count(members=12_000, asked=300, enforced=297).words()
    assert words == (
        "297 of 300 members asked at random (an estimated 99.0% of all 12000, with 95 % confidence 97.1% to 99.7%)"
    )
    missing = Count(members=30, asked=30, enforced=0, missing=tuple(f"n{n}" for n in range(30)))
    assert missing.missing_words() == "n0, n1, n2, n3, n4, n5, n6, n7, n8, n9 and 20 more"


def test_nobody_to_ask_is_enough() -> None:
    assert Count(members=0, asked=0, enforced=0).reaches(1.0)
    assert Count(members=0, asked=0, enforced=0).document()["share"] == 1.0
