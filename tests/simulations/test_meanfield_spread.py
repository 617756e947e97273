"""One update among very many (simulations/meanfield/spread.py), against what theory says of push epidemics."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gossip.config import GossipConfig, lan, memberlist
from simulations.meanfield import crowd as crowds
from simulations.meanfield.crowd import Crowd
from simulations.meanfield.parameters import Network
from simulations.meanfield.spread import spread

# longer ways make longer slices, and so shorter runs
SLOW = {loss: Network(loss=loss, latency_s=(0.005, 0.02)) for loss in (0.0, 0.3, 0.5, 0.7)}


@pytest.mark.parametrize("members", [1000, 20_000])
def test_without_loss_one_telling_an_interval_takes_2_ln_n_intervals(
    members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Janson (1999): who knows tells one other an interval, out of step with the others; growing to half of them takes
    ln n intervals and finding the last takes ln n more. The sum below is the expectation for random intervals."""
    monkeypatch.setattr(crowds, "REAP_INTERVAL_S", 1e6)  # which brings members without pings into step
    config = replace(
        memberlist(), gossip_nodes=1, gossip_nodes_max=1, retransmit_mult=15, probe_interval_s=1e6
    )
    at_once = Network(latency_s=(1e-3, 1e-3))
    intervals = spread(config, members, runs=10, seed=1, network=at_once, repaired=False).seconds(1.0)
    intervals /= config.gossip_interval_s
    knowing = np.arange(1, members)
    expected = ((members - 1) / (knowing * (members - knowing))).sum()
    assert expected == pytest.approx(2 * math.log(members) + 2 * np.euler_gamma, abs=0.1)
    assert intervals.mean() == pytest.approx(expected, abs=2.0)


@pytest.mark.parametrize("loss", [0.2, 0.3, 0.5])
def test_a_limited_push_misses_the_share_that_the_final_size_equation_gives(loss: float) -> None:
    config = replace(memberlist(), retransmit_mult=1)
    members, runs = 5000, 10
    tellings = (config.retransmits(members) - 1) * (1 - loss)  # the one it came from counts as told
    missed = 0.5
    for _ in range(200):
        missed = math.exp(-tellings * (1 - missed))
    heard = np.isfinite(
        spread(config, members, runs=runs, seed=2, network=Network(loss=loss), repaired=False).heard_at
    )
    spreads = heard.mean(axis=1) > 0.1  # in the others all first tellings were lost
    assert spreads.sum() >= 3
    assert 1 - heard[spreads].mean() == pytest.approx(missed, rel=0.06)


def test_an_update_that_all_have_at_once_is_told_no_more_than_its_limit() -> None:
    members = 2000
    sent = spread(memberlist(), members, runs=4, seed=3, repaired=False).datagrams
    limit = memberlist().retransmits(members)
    assert sent <= members * limit


def test_all_of_the_tellings_are_sent_before_it_is_over() -> None:
    members = 2000
    result = spread(memberlist(), members, runs=4, seed=3, network=Network(loss=0.3), repaired=False)
    heard = np.isfinite(result.heard_at).sum() / 4
    limit = memberlist().retransmits(members)
    # a record counts as told once to the one it came from; the publisher has it from nobody
    assert result.datagrams == pytest.approx(1 + heard * (limit - 1), rel=1e-3)


def test_echoes_that_count_spare_half_of_the_tellings_and_no_more() -> None:
    config, members = lan(), 5000
    sent = {}
    for echoes in (0, 3, 100):
        rng = np.random.Generator(np.random.PCG64(4))
        crowd = Crowd(config, Network(), members=members, meshes=1, items=1, rng=rng)
        teller = np.array([7])
        crowd.tell(teller, np.zeros(1), 0, urgent=False)
        senders = np.arange(100, 100 + echoes)
        crowd.echoed(np.repeat(teller, echoes), senders, np.ones(echoes, dtype=np.int64), counts=True)
        crowd.run(Deaf(), 60.0)
        sent[echoes] = crowd.datagrams
    limit = config.retransmits(members)
    assert sent == {0: limit, 3: limit - 3, 100: limit - limit // 2}


class Deaf:
    """A story in which nobody makes anything of what arrives."""

    def heard(self, *arrivals: object) -> None:
        pass

    def due(self) -> None:
        pass

    def over(self) -> bool:
        return False


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
    assert ((result.hops == 0).sum(axis=1) == 1).all()
    assert (result.rounds(0.5) <= result.rounds(0.99)).all()
    assert (
        result.rounds(0.5) >= math.log(5_000, 6)
    ).all()  # each tells five at once: at best six times as many
    assert (result.rounds(0.99) <= math.log2(10_000)).all()


@pytest.mark.parametrize(("members", "runs"), [(1000, 10), (10_000, 2)])
@pytest.mark.parametrize(("loss", "most"), [(0.0, 1.0), (0.3, 1.3)])
def test_an_update_takes_no_more_hops_than_was_aimed_at(
    members: int, runs: int, loss: float, most: float
) -> None:
    network = Network(loss=loss, latency_s=(0.0002, 0.0005))
    wide = spread(lan(), members, runs=runs, seed=1, network=network)
    assert np.median(wide.rounds(1.0)) <= most * math.log2(members)
    narrow = spread(replace(lan(), gossip_nodes_max=3), members, runs=runs, seed=1, network=network)
    assert np.median(narrow.rounds(1.0)) > most * math.log2(members)


def test_what_a_stream_brought_has_no_rounds() -> None:
    result = spread(replace(lan(), retransmit_mult=1), 2000, runs=3, seed=7, network=Network(loss=0.5))
    assert np.isfinite(result.heard_at).all()
    assert 0.01 < (result.hops < 0).mean() < 0.9


def test_nobody_hears_sooner_than_light_would_allow() -> None:
    result = spread(lan(), 3000, runs=3, seed=8)
    shortest_s = Network().latency_s[0]
    assert (result.heard_at >= np.maximum(0, result.hops) * shortest_s - 1e-12).all()


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
    assert result.seconds(0.99)[0] < 0.3
    assert np.isfinite(result.heard_at).all()
