"""Group testing: exactly the culprits, within the bound."""

from hypothesis import given
from hypothesis import strategies as st

from peer.culprits import UNTRIED, find


@given(st.sets(st.integers(0, 199), min_size=1, max_size=5))
def test_exactly_the_culprits_are_found(guilty: set[int]) -> None:
    tries = 0

    def attempt(chosen: tuple[int, ...]) -> str:
        nonlocal tries
        tries += 1
        found = sorted(guilty & set(chosen))
        return f"{found[0]} is bad" if found else ""

    found = find(range(200), "bad", attempt=attempt, tries_max=1000)
    assert set(found) == guilty
    assert tries <= 2 * len(guilty) * 8


def test_a_single_suspect_needs_no_try() -> None:
    assert find(["a"], "why", attempt=lambda _: "never asked", tries_max=0) == {"a": "why"}


def test_of_two_that_fail_only_together_one_is_a_culprit() -> None:
    found = find(range(8), "clash", attempt=lambda c: "clash" if {2, 5} <= set(c) else "", tries_max=100)
    assert found == {5: "clash"}


def test_whoever_cannot_be_tried_any_more_counts_as_a_culprit() -> None:
    tries: list[tuple[int, ...]] = []

    def attempt(chosen: tuple[int, ...]) -> str:
        tries.append(chosen)
        return "bad"

    found = find(range(64), "bad", attempt=attempt, tries_max=5)
    assert len(tries) == 5
    assert set(found) == set(range(64))
    assert UNTRIED in found.values()
