"""The two tiers beside each other (simulations/validation.py), and the measures they are compared by."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from click.testing import CliRunner

from gossip.config import lan
from simulations.exact import EXACT, settled
from simulations.large import validate
from simulations.meanfield.arrays import Floats
from simulations.meanfield.parameters import Network
from simulations.validation import (
    COLUMNS,
    LARGE,
    Question,
    among_themselves,
    compare,
    distance,
    draw,
    edges_of,
    overlap,
)
from simulations.world import World


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


# ------------------------------------------------------------ the measures
def test_a_sample_overlaps_itself_wholly_and_one_that_is_elsewhere_not_at_all() -> None:
    sample = generator().random(100)
    assert (overlap(sample, sample, 8), distance(sample, sample)) == (1.0, 0.0)
    assert overlap(sample, sample + 2, 8) == pytest.approx(0.0, abs=0.05)
    assert distance(sample, sample + 2) == 1.0


def test_neither_measure_knows_which_sample_came_first() -> None:
    rng = generator()
    one, other = rng.random(70), rng.random(300) ** 2
    assert overlap(one, other, 8) == pytest.approx(overlap(other, one, 8))
    assert distance(one, other) == distance(other, one)


def test_the_overlap_of_two_uniforms_that_share_half_is_half() -> None:
    rng = generator()
    assert overlap(rng.random(20_000), rng.random(20_000) + 0.5, 50) == pytest.approx(0.5, abs=0.03)


def test_what_never_came_about_counts() -> None:
    sample = np.array([1.0, 2.0, 3.0, np.inf])
    assert overlap(sample, sample, 4) == 1.0
    assert distance(sample, np.array([1.0, 2.0, 3.0, 4.0])) == 0.25


def test_chance_leaves_less_where_the_values_of_a_run_hang_together() -> None:
    rng = generator()
    apart = [rng.random(50) for _ in range(100)]
    together = [rng.random() + rng.random(50) / 10 for _ in range(100)]
    medians = [
        np.median(among_themselves(runs, edges_of(np.concatenate(runs), 6), 20, seed=1))
        for runs in (apart, together)
    ]
    assert medians[0] > 0.95
    assert medians[1] < 0.9


# ------------------------------------------------------------ the tiers
def test_an_update_reaches_the_members_of_both_tiers_alike() -> None:
    """As alike as the arrays are to themselves; a tenth of a millisecond a hop left out tells them apart."""
    network = Network()
    exact = EXACT.updates(members=100, runs=25, seed=7, config=lan(), network=network)
    large = LARGE.updates(members=100, runs=500, seed=7, config=lan(), network=network)
    comparison = compare(Question.HEARD, exact, large, members=100)
    assert comparison.overlap > 0.95
    assert comparison.distance < 0.05


def test_a_crash_becomes_known_in_both_tiers_alike() -> None:
    """From the first suspicion on: when that is, is as random as the moment of the crash."""

    def since(first: Floats, then: Floats) -> Floats:
        return np.sort(then) - first.min()

    exact = EXACT.crashes(members=100, runs=2, seed=8, config=lan(), network=Network())
    large = LARGE.crashes(members=100, runs=25, seed=8, config=lan(), network=Network())
    for question, of in (
        (Question.SUSPECTED, lambda crash: since(crash.suspected_s, crash.suspected_s)[1:]),
        (Question.DEAD, lambda crash: since(crash.suspected_s, crash.dead_s)),
    ):
        comparison = compare(
            question, [of(crash) for crash in exact], [of(crash) for crash in large], members=100
        )
        assert comparison.overlap > 0.9
        assert comparison.distance < 0.12


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    runs = [generator(seed).random(50) for seed in range(20)]
    path = tmp_path / "figure.png"
    comparisons = [
        compare(question, runs[:5], runs, members=50) for question in (Question.HEARD, Question.DEAD)
    ]
    draw(comparisons, path, title="two tiers")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_a_row_for_each_question_and_draws_them(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    result = CliRunner().invoke(validate, [str(path), "--nodes", "32", "--runs", "2"])
    assert result.exit_code == 0, result.output
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("|")]
    assert rows[0] == list(COLUMNS)
    assert [row[:3] for row in rows[2:]] == [[question.value, "32", "2"] for question in Question]
    assert path.exists()


def test_each_update_of_the_node_has_a_mesh_of_its_own() -> None:
    """Or all of a comparison would err together, as one mesh is a little faster or slower than another."""
    made: list[int] = []

    def noting(*arguments: Any) -> World:
        made.append(arguments[1])
        return settled(*arguments)

    with patch("simulations.exact.settled", noting):
        EXACT.updates(members=10, runs=3, seed=4, config=lan(), network=Network())
    assert len(set(made)) == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--nodes", "31"),
        ("--nodes", "100,1000001"),
        ("--nodes", "some"),
        ("--runs", "100,20,0"),
        ("--runs", "100,20"),
        ("--runs", "few"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, option: str, value: str) -> None:
    result = CliRunner().invoke(validate, [str(tmp_path / "figure.png"), option, value])
    assert result.exit_code == 2
    assert option in result.output
