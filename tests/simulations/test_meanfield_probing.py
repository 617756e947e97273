"""Probes of healthy members that fail (simulations/meanfield/probing.py), against theory and the node itself."""

import numpy as np
import pytest

from gossip.config import GossipConfig, lan, memberlist
from simulations.meanfield.parameters import Network
from simulations.meanfield.probing import probing, stream_s
from simulations.streams import RTO_S
from simulations.tables.ground import warm
from simulations.tables.watch import Watch


def test_without_loss_nobody_accuses() -> None:
    result = probing(lan(), Network(), members=200, intervals=50)
    assert result.accusations == result.expected == result.unanswered == 0


def test_a_stream_that_loses_nothing_takes_its_round_trips_and_one_that_does_its_retransmissions() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    assert stream_s(Network(), 1000, rng).max() < 0.02
    loss = 0.3
    took_s = stream_s(Network(loss=loss), 20_000, rng)
    at_once = (1 - loss) ** 6  # a first packet, two directions of a handshake, three frames
    assert (took_s < RTO_S).mean() == pytest.approx(at_once, abs=0.01)
    once_again = at_once * (2 * loss - loss**2 + 3 * loss)  # the handshake's or one frame's
    assert (took_s < 2 * RTO_S).mean() == pytest.approx(at_once + once_again, abs=0.01)


def test_counting_and_conditioning_say_the_same() -> None:
    result = probing(lan(), Network(loss=0.2), seed=2)
    accusations = result.accusations * result.node_hours
    assert accusations > 5000
    assert result.accusations == pytest.approx(result.expected, rel=0.05)


def test_conditioning_finds_what_is_too_rare_to_count() -> None:
    few = probing(lan(), Network(loss=0.05), members=500, intervals=200, seed=3)
    many = probing(lan(), Network(loss=0.05), seed=4)
    assert few.expected == pytest.approx(many.expected, rel=0.05)
    assert few.expected_error < 0.05 * few.expected


@pytest.mark.parametrize(("loss", "nodes", "lasts_s"), [(0.3, 64, 16), (0.5, 32, 12)])
def test_the_node_itself_is_accused_as_often(loss: float, nodes: int, lasts_s: int) -> None:
    """Within three standard errors of what is counted, four tenths; leaving out that streams are sent again, that late
    answers lengthen the wait, or that refutations outrun probes, is six tenths off."""
    settle_s = 6
    with warm(nodes, profile="lan", seed=5) as world:
        everybody = {host.id for host in world.hosts}
        world.network.set_loss(loss)
        world.run(settle_s)
        with Watch(world) as watch:
            world.run(lasts_s)
        counted = watch.accusations(everybody)
    rate = probing(lan(), Network(loss=loss, latency_s=(0.0002, 0.0005)), intervals=200, seed=5).accusations
    expected = rate * nodes * lasts_s / 3600
    assert expected > 45
    assert counted == pytest.approx(expected, abs=3 * expected**0.5)


def _rate(config: GossipConfig, network: Network) -> float:
    return probing(config, network, members=500, intervals=200, seed=6).expected


def test_fixed_short_waits_mean_more_accusations() -> None:
    losing = Network(loss=0.3)
    assert _rate(memberlist(), losing) > _rate(lan(), losing)
