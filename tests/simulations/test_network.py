"""Delays, loss and walls."""

import random
from itertools import groupby, permutations

import pytest

from simulations.network import (
    LAN,
    Latency,
    Network,
    Shape,
    apart,
    bridged,
    majorities_ring,
    one_way,
)


@pytest.fixture
def network() -> Network:
    net = Network(random.Random(1))
    for _ in range(8):
        net.attach("")
    return net


def passed(network: Network, source: int = 0, target: int = 1, count: int = 4000) -> int:
    return sum(len(network.delays_s(source, target)) for _ in range(count))


def test_a_delay_is_the_base_and_a_part_of_the_jitter(network: Network) -> None:
    delays = [network.delays_s(0, 1)[0] for _ in range(1000)]
    assert LAN.base_s <= min(delays) < LAN.base_s + LAN.jitter_s / 50
    assert LAN.base_s + LAN.jitter_s * 0.98 < max(delays) <= LAN.base_s + LAN.jitter_s


def test_an_exponential_jitter_has_its_mean_and_a_tail() -> None:
    latency, rng = Latency(base_s=1.0, jitter_s=0.1, shape=Shape.EXPONENTIAL), random.Random(1)
    drawn = [latency.draw(rng) - 1.0 for _ in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.1, rel=0.1)
    assert max(drawn) > 0.5


def test_zones_are_as_far_apart_as_the_matrix_says_both_ways() -> None:
    far = Latency(base_s=0.1)
    network = Network(random.Random(1), between={("eu", "us"): far})
    for zone in ("eu", "us", "eu", "asia"):
        network.attach(zone)
    assert not network.plain
    assert network.delay_s(0, 1) == network.delay_s(1, 0) == 0.1
    assert network.delay_s(0, 2) < 0.001
    assert network.delay_s(0, 3) < 0.001  # the matrix says nothing of these two


def test_loss_of_all_of_one_direction_and_of_one_link(network: Network) -> None:
    assert network.plain
    network.set_loss(0.3)
    assert passed(network) == pytest.approx(2800, rel=0.05)
    network.set_loss(0.5, source=0)
    assert passed(network) == pytest.approx(4000 * 0.7 * 0.5, rel=0.08)
    network.set_loss(0.0)
    network.set_loss(0.9, target=1)
    assert passed(network) == pytest.approx(4000 * 0.5 * 0.1, rel=0.2)
    network.set_loss(0.0, source=0)
    network.set_loss(0.0, target=1)
    assert network.plain
    network.set_loss(1.0, source=2, target=3)
    assert passed(network, 2, 3) == 0
    assert passed(network, 3, 2) == 4000


def test_some_datagrams_come_twice_and_some_late(network: Network) -> None:
    network.duplication, network.reordering = 0.25, 0.5
    network.settle()
    assert passed(network) == pytest.approx(5000, rel=0.05)
    late = sum(network.delays_s(0, 1)[0] > 0.001 for _ in range(4000))
    assert late == pytest.approx(2000, rel=0.1)


def test_groups_reach_themselves_only_and_the_rest_is_one_more_group() -> None:
    wall = apart([[0, 1], [2, 3]])
    open_pairs = {pair for pair in permutations(range(6), 2) if not wall(*pair)}
    assert open_pairs == {(0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4)}


def test_a_bridge_reaches_both_sides_which_do_not_reach_each_other() -> None:
    wall = bridged([0, 1], [2, 3], [4])
    closed = {pair for pair in permutations(range(5), 2) if wall(*pair)}
    assert closed == {(a, b) for a, b in permutations(range(4), 2) if (a < 2) != (b < 2)}


@pytest.mark.parametrize("count", [5, 6, 7, 12, 31])
def test_in_a_ring_of_majorities_each_sees_a_majority_and_no_two_the_same(count: int) -> None:
    wall = majorities_ring(range(count))
    seen = [frozenset(b for b in range(count) if not wall(a, b)) for a in range(count)]
    assert all(count // 2 < len(view) < count for view in seen)
    assert len(set(seen)) == count
    assert all(wall(a, b) == wall(b, a) for a, b in permutations(range(count), 2))


def test_a_one_way_cut_closes_one_way() -> None:
    wall = one_way([0], [1, 2])
    assert wall(0, 1)
    assert wall(0, 2)
    assert not wall(1, 0)
    assert not wall(0, 3)


def test_walls_stand_together_and_are_taken_down_by_name(network: Network) -> None:
    network.cut("a", one_way([0], [1]))
    network.cut("b", one_way([2], [3]))
    assert network.is_cut(0, 1)
    assert network.is_cut(2, 3)
    assert not network.is_cut(1, 0)
    network.heal("a")
    assert not network.is_cut(0, 1)
    assert network.is_cut(2, 3)
    assert network.delays_s(2, 3) == ()
    network.heal()
    assert network.plain


def test_losses_come_in_bursts_of_a_mean_length(network: Network) -> None:
    network.burst = 10.0
    network.set_loss(0.3)
    passed = [bool(network.delays_s(0, 1)) for _ in range(60_000)]
    runs = [len(list(run)) for lost, run in groupby(passed, key=lambda each: not each) if lost]
    assert sum(runs) / len(passed) == pytest.approx(0.3, abs=0.03)
    assert sum(runs) / len(runs) == pytest.approx(10, rel=0.1)
    network.set_loss(0.0)
    assert network.plain


def test_everything_is_lost_in_one_burst_without_end(network: Network) -> None:
    network.burst = 10.0
    network.set_loss(1.0, source=0)
    assert not any(network.delays_s(0, 1) for _ in range(1000))


def test_what_is_damaged_differs_in_one_bit_or_does_not_arrive(network: Network) -> None:
    network.corruption = 0.5
    network.settle()
    assert not network.plain
    data = bytes(range(64))
    arrived = [network.damaged(data) for _ in range(1000)]
    damaged = [each for each in arrived if each != data]
    assert 400 < len(damaged) < 600
    for each in damaged:
        changed = [a ^ b for a, b in zip(each, data, strict=True) if a != b]
        assert len(changed) == 1
        assert changed[0].bit_count() == 1
    network.flips = False
    assert {network.damaged(data) for _ in range(100)} == {data, b""}


def test_a_share_arrives_once_more_much_later(network: Network) -> None:
    network.replaying = 0.5
    network.settle()
    copies = [network.delays_s(0, 1) for _ in range(1000)]
    again = [each for each in copies if len(each) == 2]
    assert 400 < len(again) < 600
    assert max(later - first for first, later in again) > 5
