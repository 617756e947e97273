"""Wrong verdicts as a chain of unlikely losses (simulations/meanfield/mistakes.py)."""

from dataclasses import replace

import numpy as np
import pytest

from gossip.config import lan, memberlist
from simulations.meanfield import mistakes as chain
from simulations.meanfield.mistakes import mistakes
from simulations.meanfield.parameters import Network, probe_fails
from simulations.meanfield.spread import spread


def lossy(loss: float) -> Network:
    return Network(loss=loss, stream_segments=8)


def test_a_probe_fails_as_often_as_playing_it_out_says() -> None:
    loss, rng, count = 0.3, np.random.Generator(np.random.PCG64(1)), 400_000
    arrives = rng.random((count, 4 + 4 * 3 + 8)) >= loss
    direct, again = arrives[:, 0:2].all(axis=1), arrives[:, 2:4].all(axis=1)
    relays = arrives[:, 4:16].reshape(count, 3, 4).all(axis=2).any(axis=1)
    stream = arrives[:, 16:].all(axis=1)
    failed = 1 - (direct | again | relays | stream).mean()
    assert failed == pytest.approx(probe_fails(lan(), lossy(loss)), rel=0.03)


def test_the_outcomes_of_a_probe_add_up_to_its_failure() -> None:
    for loss in (0.05, 0.5):
        outcomes = chain._Outcomes.of(lan(), lossy(loss), 0.2, 0.3)
        assert outcomes.chances.sum() == pytest.approx(1.0)
        assert outcomes.tilted.sum() == pytest.approx(1.0)
        assert outcomes.chances[1:].sum() == pytest.approx(probe_fails(lan(), lossy(loss)))


def test_what_is_computed_from_the_tellings_is_what_counting_gives() -> None:
    """The chance to be missed by an epidemic altogether, by its formula and by counting members."""
    network, members = Network(loss=0.5), 1000
    curves = chain._curves(memberlist(), members, network, 40, seed=3)
    counted = np.isinf(
        spread(memberlist(), members, runs=400, seed=4, network=network, repaired=False, within_s=30).heard_at
    )
    spreads = counted.mean(axis=1) < 0.5
    computed = np.exp(-curves.missed[:, -1]).mean()
    assert computed == pytest.approx(counted[spreads].mean(), rel=0.2)


def test_tilting_changes_the_scatter_and_not_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(lan(), retransmit_mult=1, witnesses=3)
    tilted = mistakes(config, 200, lossy(0.5), trials=200_000, seed=5)
    monkeypatch.setattr(chain, "_TILTED_SHARE", 0.0)
    plain = mistakes(config, 200, lossy(0.5), trials=200_000, seed=5)
    assert plain.low < plain.high
    assert tilted.verdict_if_suspected == pytest.approx(plain.verdict_if_suspected, rel=0.15)


def test_seeds_agree_within_their_intervals() -> None:
    results = [mistakes(lan(), 128, lossy(0.05), seed=seed) for seed in range(4)]
    for one in results:
        for other in results:
            assert one.low < other.high
            assert other.low < one.high


def test_more_loss_means_more_mistakes() -> None:
    rates = [
        mistakes(lan(), 128, lossy(loss), seed=6).verdicts_per_hour for loss in (0.02, 0.05, 0.1, 0.2, 0.3)
    ]
    assert rates == sorted(rates)


def test_member_lists_compared_on_pings_prevent_mistakes() -> None:
    without = mistakes(lan(), 128, lossy(0.05), seed=7).verdicts_per_hour
    assert mistakes(lan(), 128, lossy(0.05), seed=7, compared=True).verdicts_per_hour < without


def test_no_wrong_verdict_is_to_be_expected_in_a_million_node_hours_at_five_percent_loss() -> None:
    result = mistakes(lan(), 128, lossy(0.05), seed=8)
    expected, low, high = result.expected(1e6)
    assert 0 < low < expected < high < 1e-3


def test_one_seed_gives_one_result() -> None:
    assert mistakes(lan(), 100, lossy(0.05), seed=9, trials=50_000) == mistakes(
        lan(), 100, lossy(0.05), seed=9, trials=50_000
    )
