"""The comparison of the two tiers (simulations/validation.py), and the large tier against the real engine."""

from pathlib import Path

import numpy as np
import pytest

from gossip.config import GossipConfig, lan, memberlist
from simulations.meanfield.parameters import Network
from simulations.meanfield.spread import spread
from simulations.validation import (
    Question,
    attainable,
    bins_for,
    compare,
    distance,
    draw,
    meanfield_samples,
    overlap,
)
from tests.simulations.meanfield_engines import engine_samples, network_like_world, settled_mesh, spreads


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


# ---------------------------------------------------------------- the estimators
def test_a_sample_overlaps_itself_wholly() -> None:
    sample = generator().random(100)
    assert overlap(sample, sample, 8) == 1.0
    assert distance(sample, sample) == 0.0


def test_samples_apart_do_not_overlap() -> None:
    sample = generator().random(100)
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


def test_what_is_attainable_is_what_samples_of_one_distribution_attain() -> None:
    rng = generator()
    for first, second in ((60, 60), (40, 200), (500, 500)):
        bins = bins_for(first, second)
        values = [overlap(rng.random(first), rng.random(second), bins) for _ in range(300)]
        assert np.mean(values) == pytest.approx(attainable(first, second, bins), abs=0.03)


def test_what_never_came_about_counts() -> None:
    sample = np.array([1.0, 2.0, 3.0, np.inf])
    assert overlap(sample, sample, 4) == 1.0
    assert distance(sample, np.array([1.0, 2.0, 3.0, 4.0])) == 0.25


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    def later(question: Question, **arguments: object) -> np.ndarray:
        return meanfield_samples(question, **arguments) + 0.001

    comparisons = [
        compare(
            later,
            question,
            members=members,
            exact_runs=5,
            large_runs=5,
            seed=1,
            config=lan(),
            network=Network(),
        )
        for question in (Question.HEARD, Question.DEAD)
        for members in (50, 100)
    ]
    path = tmp_path / "figure.png"
    draw(comparisons, path, title="two tiers")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "overlap" in str(comparisons[0])


# ---------------------------------------------------------------- the large tier against the engine
# Each bound is the distance that samples of one distribution, of so many independent runs, stay within 999 times of
# 1000 (1.95 times the root of 1/a + 1/b): a tier that is wrong by a tenth of the spread of its values fails it.
def bound(exact_runs: int, large_runs: int) -> float:
    return 1.95 * float(np.sqrt(1 / exact_runs + 1 / large_runs))


@pytest.mark.parametrize(("members", "runs"), [(32, 30), (100, 8)])
@pytest.mark.parametrize("config", [lan(), memberlist()], ids=["lan", "memberlist"])
def test_an_update_spreads_as_among_real_engines(config: GossipConfig, members: int, runs: int) -> None:
    exact = spreads(members, runs, 1, config, 0.0)
    large = spread(
        config, members, runs=400, seed=1, network=network_like_world(), repaired=False, within_s=3.0
    )
    for share in (0.5, 0.9):
        engines = exact[:, int(np.ceil(share * members)) - 1]
        assert distance(engines, large.seconds(share)) < bound(runs, 400)
    # from the first hearing on (before it a run may wait for the publisher's tick, all of its members alike)
    engines, arrays = (np.sort(heard, axis=1)[:, 1:] for heard in (exact, large.heard_at))
    assert distance((engines - engines[:, :1]).ravel(), (arrays - arrays[:, :1]).ravel()) < 0.1


def test_under_loss_the_push_misses_as_many_as_among_real_engines() -> None:
    members, runs, loss = 32, 20, 0.3
    exact = spreads(members, runs, 2, lan(), loss)
    network = network_like_world(loss)
    large = spread(lan(), members, runs=600, seed=2, network=network, repaired=False, within_s=3.0).heard_at
    engines, arrays = (np.isinf(heard).any(axis=1).mean() for heard in (exact, large))
    assert engines == pytest.approx(arrays, abs=3.3 * np.sqrt(arrays * (1 - arrays) / runs))
    assert distance(exact[:, 1:].ravel(), large[large > 0]) < 0.12


@pytest.mark.parametrize("question", [Question.SUSPECTED, Question.DEAD])
@pytest.mark.parametrize("config", [lan(), memberlist()], ids=["lan", "memberlist"])
def test_a_crash_is_detected_as_among_real_engines(config: GossipConfig, question: Question) -> None:
    runs = 12
    comparison = compare(
        engine_samples,
        question,
        members=32,
        exact_runs=runs,
        large_runs=400,
        seed=1,
        config=config,
        network=network_like_world(),
    )
    assert comparison.distance < bound(runs, 400)
    assert np.median(comparison.large) == pytest.approx(np.median(comparison.exact), rel=0.12)


def test_probes_of_real_engines_fail_as_often_as_computed() -> None:
    """Streams are made to fail, so that loss alone decides; each failed probe of a member is one accusation."""
    from simulations.meanfield.parameters import probe_fails

    loss, seconds, members = 0.2, 40, 32
    world = settled_mesh(members, seed=3, config=lan(), loss=loss)
    world._sync = lambda host, request: None
    accusations = 0
    for host in world.up():
        judge = host.engine._parts.judge
        accuse = judge.accuse

        def counted(now: float, entry: object, accuse=accuse) -> None:
            nonlocal accusations
            accusations += 1
            accuse(now, entry)

        judge.accuse = counted
    world.run(seconds)
    fails = probe_fails(lan(), Network(loss=loss, stream_segments=10**6))
    expected = fails * members * seconds
    assert expected > 15
    # witnesses probe the accused too: three more probes an accusation
    assert accusations == pytest.approx(expected, abs=3.3 * np.sqrt(expected) + 0.1 * expected)
