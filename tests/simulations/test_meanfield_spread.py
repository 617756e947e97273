"""One update among very many (simulations/meanfield/spread.py), against what theory says of push epidemics."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gossip.config import GossipConfig, lan, memberlist
from simulations.meanfield.parameters import Network
from simulations.meanfield.spread import spread

# longer ways make longer slices, and so shorter runs
SLOW = {loss: Network(loss=loss, latency_s=(0.005, 0.02)) for loss in (0.0, 0.3, 0.5, 0.7)}


@pytest.mark.parametrize("members", [1000, 20_000])
def test_without_loss_one_telling_a_round_takes_log2_n_plus_ln_n_rounds(members: int) -> None:
    """Pittel (1987): a synchronous push. Here too all tell in step, once a round is as long as the way of a datagram,
    and nobody's first round has to wait, since probes are rare."""
    config = replace(memberlist(), gossip_nodes=1, retransmit_mult=15, probe_interval_s=1e6)
    in_step = Network(latency_s=(config.gossip_interval_s,) * 2)
    result = spread(config, members, runs=10, seed=1, network=in_step, repaired=False)
    rounds = result.seconds(1.0) / config.gossip_interval_s
    assert rounds.mean() == pytest.approx(math.log2(members) + math.log(members), abs=2.0)


@pytest.mark.parametrize("loss", [0.3, 0.5, 0.6])
def test_a_limited_push_misses_the_share_that_the_final_size_equation_gives(loss: float) -> None:
    config = replace(memberlist(), retransmit_mult=1)
    members, runs = 5000, 10
    tellings = config.retransmits(members) * (1 - loss)
    missed = 0.5
    for _ in range(200):
        missed = math.exp(-tellings * (1 - missed))
    heard = np.isfinite(
        spread(config, members, runs=runs, seed=2, network=Network(loss=loss), repaired=False).heard_at
    )
    spreads = heard.mean(axis=1) > 0.1  # in the others all first tellings were lost
    assert spreads.sum() >= runs / 2
    assert 1 - heard[spreads].mean() == pytest.approx(missed, rel=0.06)


def test_an_update_that_all_have_at_once_is_told_no_more_than_its_limit() -> None:
    members = 2000
    sent = spread(memberlist(), members, runs=4, seed=3, repaired=False).datagrams
    limit = memberlist().retransmits(members)
    assert sent <= members * limit


def test_all_of_the_tellings_are_sent_when_nothing_ends_them_early() -> None:
    members = 2000
    lossy = Network(loss=0.3)
    result = spread(memberlist(), members, runs=4, seed=3, network=lossy, repaired=False)
    heard = np.isfinite(result.heard_at).sum() / 4
    # repeats are left out while all were told once, which costs nothing of the budget
    assert result.datagrams == pytest.approx(heard * memberlist().retransmits(members), rel=0.001)


def test_echoes_spare_tellings_where_the_profile_has_feedback() -> None:
    with_feedback = spread(lan(), 1000, runs=5, seed=4, repaired=False, network=Network(loss=0.1))
    without = spread(
        replace(lan(), feedback=False),
        1000,
        runs=5,
        seed=4,
        repaired=False,
        within_s=30.0,
        network=Network(loss=0.1),
    )
    assert 0.5 * without.datagrams <= with_feedback.datagrams < 0.9 * without.datagrams


@pytest.mark.parametrize("config", [lan(), memberlist()], ids=["lan", "memberlist"])
def test_more_loss_never_makes_it_faster(config: GossipConfig) -> None:
    medians = [
        np.median(spread(config, 5000, runs=3, seed=5, network=SLOW[loss]).seconds(0.99)) for loss in SLOW
    ]
    assert medians == sorted(medians)
    assert medians[-1] > 2 * medians[0]


def test_fingerprints_reach_those_whom_the_push_missed() -> None:
    lossy = SLOW[0.5]
    pushed = spread(lan(), 2000, runs=10, seed=6, network=lossy, repaired=False)
    repaired = spread(lan(), 2000, runs=10, seed=6, network=lossy)
    assert np.isinf(pushed.seconds(1.0)).any()
    assert repaired.seconds(1.0).max() < 5.0


def test_rounds_count_the_members_an_update_went_through() -> None:
    result = spread(lan(), 10_000, runs=3, seed=7)
    assert (result.hops.min(axis=1) == 0).all()
    assert (result.rounds(0.5) <= result.rounds(0.99)).all()
    assert (result.rounds(1.0) >= math.log(10_000, 7)).all()  # nobody tells more than six at once
    assert (result.rounds(1.0) <= 1.0 * math.log2(10_000)).all()


def test_nobody_hears_sooner_than_light_would_allow() -> None:
    result = spread(lan(), 3000, runs=3, seed=8)
    shortest_s = Network().latency_s[0]
    assert (result.heard_at >= result.hops * shortest_s - 1e-12).all()


def test_one_seed_gives_one_result_and_another_gives_another() -> None:
    lossy = Network(loss=0.2)
    first, again, other = (spread(lan(), 500, runs=3, seed=seed, network=lossy) for seed in (9, 9, 10))
    assert np.array_equal(first.heard_at, again.heard_at)
    assert np.array_equal(first.hops, again.hops)
    assert not np.array_equal(first.heard_at, other.heard_at)


def test_meshes_side_by_side_do_not_hear_of_each_other() -> None:
    together = spread(lan(), 100, runs=50, seed=11, repaired=False)
    assert ((together.heard_at == 0).sum(axis=1) == 1).all()
    assert (np.isfinite(together.heard_at).sum(axis=1) > 90).all()


def test_a_quarter_of_a_million_members_are_a_matter_of_seconds() -> None:
    result = spread(lan(), 250_000, seed=12)
    assert result.seconds(0.99)[0] < 0.05
    assert np.isfinite(result.heard_at).all()
