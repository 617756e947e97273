"""One crash among very many (simulations/meanfield/detection.py), against closed forms."""

from dataclasses import replace

import numpy as np
import pytest

from gossip.config import GossipConfig, lan, memberlist
from gossip.suspicion import timeout_s
from simulations.meanfield.arrays import Floats
from simulations.meanfield.detection import Detection, detection, first_probes_s
from simulations.meanfield.parameters import Network, Prober

# longer ways make longer slices, and so shorter runs
SLOW = {loss: Network(loss=loss, latency_s=(0.005, 0.02)) for loss in (0.0, 0.3, 0.6)}


def first_suspicion_s(result: Detection) -> Floats:
    """By run."""
    return np.asarray(result.suspected_at.min(axis=1))


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


# ---------------------------------------------------------------- the first probe
def test_under_a_permutation_the_first_probe_comes_evenly_within_an_interval() -> None:
    first_s = np.sort(first_probes_s(lan(), 1000, 4000, generator()).min(axis=1))
    assert first_s.max() < 1.0
    assert np.abs(first_s - np.linspace(0, 1, 4000)).max() < 0.03


@pytest.mark.parametrize("members", [64, 3000])
def test_under_round_robin_the_first_probe_is_exponential(members: int) -> None:
    """SWIM, section 3.1: nobody probes a member in one interval with probability (1 - 1 / (n - 1)) ** (n - 1)."""
    first_s = np.sort(first_probes_s(memberlist(), members, 2000, generator()).min(axis=1))
    expected = -np.log(1 - (np.arange(2000) + 0.5) / 2000)
    assert first_s.mean() == pytest.approx(1.0, abs=0.08)
    below = 1 - np.exp(-first_s)
    assert np.abs(below - (np.arange(2000) + 0.5) / 2000).max() < 0.04
    assert first_s[-20] == pytest.approx(expected[-20], rel=0.25)


def test_under_round_robin_each_observer_comes_by_within_two_passes() -> None:
    each_s = first_probes_s(memberlist(), 50, 500, generator())
    assert each_s.max() < 2 * 49
    # the wait until the next event, where the time between two has mean one pass and variance a sixth of its square
    assert each_s.mean() == pytest.approx(49 * (1 + 1 / 6) / 2, rel=0.03)


# ---------------------------------------------------------------- verdicts
def test_the_first_verdict_is_one_corroborated_wait_after_the_first_suspicion() -> None:
    config, members = lan(), 1000
    result = detection(config, members, runs=20, seed=2)
    floor_s = timeout_s(config, members=members, able=members - 1, accusers=config.confirmations + 1)
    waited_s = result.first_verdict_s - first_suspicion_s(result)
    assert waited_s == pytest.approx(np.full(20, floor_s), abs=0.002)


def test_memberlist_waits_its_longer_floor() -> None:
    config, members = memberlist(), 1000
    result = detection(config, members, runs=8, seed=2)
    waited_s = result.first_verdict_s - first_suspicion_s(result)
    assert (waited_s >= 12.0 - 1e-6).all()
    assert np.median(waited_s) == pytest.approx(12.0, abs=0.01)  # two more probes came by meanwhile


def test_without_anybody_to_confirm_the_wait_is_the_ceiling() -> None:
    config = replace(memberlist(), probe_interval_s=1.0, confirmations=2, gossip_nodes=3)
    members = 3_000
    only_one = replace(
        config, suspicion_max_mult=1.0
    )  # ceiling and floor are one: confirmations change nothing
    result = detection(only_one, members, runs=2, seed=3)
    ceiling_s = timeout_s(only_one, members=members, able=members - 1, accusers=1)
    assert result.first_verdict_s - first_suspicion_s(result) == pytest.approx([ceiling_s] * 2, abs=0.002)


def test_the_first_suspicion_comes_a_probe_after_the_first_probe() -> None:
    result = detection(lan(), 100, runs=300, seed=4, network=Network(latency_s=(0.002, 0.004)))
    probe_s = 0.2 * (1 + lan().indirect_timeout_mult)
    assert first_suspicion_s(result).min() == pytest.approx(probe_s, abs=0.02)
    assert first_suspicion_s(result).max() == pytest.approx(probe_s + 1.0, abs=0.02)
    assert first_suspicion_s(result).mean() == pytest.approx(probe_s + 0.5, abs=0.06)


def test_witnesses_make_the_difference() -> None:
    config = replace(lan(), suspicion_mult_corroborated=0.8, refutation_s=0.1)
    with_them, without = (
        detection(replace(config, witnesses=witnesses), 300, runs=10, seed=5) for witnesses in (3, 0)
    )
    waited_s = with_them.first_verdict_s - first_suspicion_s(with_them)
    assert waited_s == pytest.approx(np.full(10, 0.8), abs=0.005)
    # without them the second confirmation is the second next probe of the order, two intervals later
    waited_s = without.first_verdict_s - first_suspicion_s(without)
    assert waited_s == pytest.approx(np.full(10, 2.0 + 0.1), abs=0.01)


def test_nobody_has_a_verdict_before_a_suspicion() -> None:
    for config in (lan(), memberlist()):
        result = detection(config, 300, runs=20, seed=6, network=SLOW[0.3])
        assert np.isfinite(result.dead_at).all()
        assert (result.suspected_at <= result.dead_at).all()
        assert (first_suspicion_s(result) > 0).all()


@pytest.mark.parametrize("config", [lan(), memberlist()], ids=["lan", "memberlist"])
def test_more_loss_never_speeds_up_detection(config: GossipConfig) -> None:
    means = [
        detection(config, 300, runs=40, seed=7, network=SLOW[loss]).all_verdicts_s.mean()
        for loss in (0.0, 0.3, 0.6)
    ]
    assert means[0] < means[1] < means[2]


def test_one_seed_gives_one_result() -> None:
    lossy = Network(loss=0.2)
    first, again, other = (detection(lan(), 200, runs=4, seed=seed, network=lossy) for seed in (8, 8, 9))
    assert np.array_equal(first.dead_at, again.dead_at)
    assert not np.array_equal(first.dead_at, other.dead_at)


def test_a_crash_among_a_thousand_is_known_in_time_and_among_a_hundred_thousand_too() -> None:
    thousand = detection(lan(), 1000, runs=40, seed=10).dead_at
    assert np.median(thousand) <= 3.0
    assert np.quantile(thousand, 0.99) <= 6.0
    assert np.quantile(detection(lan(), 100_000, seed=10).dead_at, 0.99) <= 6.0


# ---------------------------------------------------------------- what a prober waits
def test_a_prober_in_a_good_network_waits_the_floor() -> None:
    prober = Prober(lan(), Network(), 1)
    assert prober.direct_s == pytest.approx(np.full(len(prober.direct_s), 0.2))
    assert (prober.health == 0).all()


def test_a_prober_that_sees_loss_waits_longer_but_never_beyond_its_bound_while_healthy() -> None:
    prober = Prober(lan(), Network(loss=0.3), 1)
    assert 0.25 < prober.direct_s.mean() <= 0.5
    assert (prober.health == 0).all()  # streams answered


def test_a_prober_doubts_itself_where_streams_fail_too() -> None:
    prober = Prober(lan(), Network(loss=0.5, stream_segments=8), 1)
    assert prober.health.mean() > 1
    assert prober.health.max() == lan().health_max - 1
