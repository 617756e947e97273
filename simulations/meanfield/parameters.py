"""What the large simulations need to know of the protocol and of the network, in one place.

The protocol's constants and formulas are the engine's own: `GossipConfig`, and `gossip.suspicion.timeout_s`,
`retransmits`, `push_pull_s`, which are called, not copied. What a node makes of its own probes (its local health and
its estimate of round trips, which move together) is played with the engine's own classes, see `Prober`.

Invariant: nothing in this package carries a constant of the protocol.
"""

import random
from dataclasses import dataclass
from typing import Final

import numpy as np

from gossip.config import GossipConfig
from gossip.health import LocalHealth
from gossip.rtt import RoundTrips
from gossip.suspicion import accusers_needed, timeout_s
from simulations.crypto import Costs
from simulations.meanfield.arrays import Floats, Ints

_COSTS: Final = Costs()
NEWS_S: Final = (
    _COSTS.input_s + _COSTS.open_s + _COSTS.verify_s + 3 * _COSTS.seal_s
)  # a step, a signature, a round
_ZONE: Final = "all"
_PROBES_PLAYED: Final = 6000
_PROBES_FORGOTTEN: Final = 1000  # from the start, while the estimates settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What lies between the members. A stream is retransmitted by its kernel, so loss delays and does not stop it;
    but in the part of a second that is left of a probe no retransmission comes (the first is after a second, RFC 6298),
    so a stream saves a probe only if none of `stream_segments` segments that must go in turn is lost. None: streams
    always save it, as in a network that loses only datagrams."""

    loss: float = 0.0
    latency_s: tuple[float, float] = (0.0005, 0.002)  # one way, uniform
    stream_segments: int | None = None
    stream_round_trips: float = 3.0  # until a stream proves that its peer lives
    handling_s: float = NEWS_S  # from the arrival of news until it is passed on

    def __post_init__(self) -> None:
        assert 0 <= self.loss < 1, "a loss is a probability, and not 1"
        assert 0 < self.latency_s[0] <= self.latency_s[1], "latencies are positive"

    @property
    def round_trip_lost(self) -> float:
        """That a datagram or its answer is lost."""
        return 1 - (1 - self.loss) ** 2

    @property
    def stream_lost(self) -> float:
        """That a stream does not come about while a probe waits for it."""
        return 0.0 if self.stream_segments is None else 1 - (1 - self.loss) ** self.stream_segments


def relays_fail(config: GossipConfig, network: Network) -> float:
    """That no relay brings an ack: each needs four datagrams in turn."""
    return float((1 - (1 - network.loss) ** 4) ** config.indirect_probes)


def suspicion_s(config: GossipConfig, members: int, *, accusers: int, health: int = 0) -> float:
    """From the first accusation to the verdict in a mesh of `members`, the suspect one of them."""
    return timeout_s(config, members=members, able=members - 1, accusers=accusers, health=health)


def needed(config: GossipConfig, members: int) -> int:
    """How many accusers make a Dead true for who has not waited itself."""
    return accusers_needed(config, members - 1)


class Prober:
    """The state of a node that has long been probing healthy members through a network: samples of what it waits for
    an answer, until it asks relays (`direct_s`) and until it accuses (`probe_s`), and of its `health`, drawn together.

    One node's probes are played one after the other; at loss, an answer to the second ping is taken for a slow one,
    which makes the node wait longer, and probes that fail without nacks make it doubt itself."""

    def __init__(self, config: GossipConfig, network: Network, seed: int) -> None:
        rng = random.Random(seed)
        health, trips = LocalHealth(config.health_max), RoundTrips(config)
        count = _PROBES_PLAYED - _PROBES_FORGOTTEN
        self.direct_s, self.probe_s = np.empty(count), np.empty(count)
        self.health = np.empty(count, dtype=np.int64)
        for number in range(_PROBES_PLAYED):
            direct_s = trips.timeout_s(_ZONE)
            place = number - _PROBES_FORGOTTEN
            if place >= 0:
                self.direct_s[place] = health.stretch(direct_s)
                self.probe_s[place] = health.stretch(direct_s * (1 + config.indirect_timeout_mult))
                self.health[place] = health.score
            self._play(config, network, rng, health, trips)

    @staticmethod
    def _play(
        config: GossipConfig, network: Network, rng: random.Random, health: LocalHealth, trips: RoundTrips
    ) -> None:
        rtt_s = rng.uniform(*network.latency_s) + rng.uniform(*network.latency_s)
        if rng.random() >= network.round_trip_lost:
            trips.measured(_ZONE, rtt_s)
            health.adjust(-1)
            return
        stream_s = 2 * rng.uniform(*network.latency_s) * network.stream_round_trips
        streams = rng.random() >= network.stream_lost
        if rng.random() >= network.round_trip_lost and not (streams and stream_s < rtt_s):
            trips.measured(
                _ZONE, health.stretch(trips.timeout_s(_ZONE)) + rtt_s
            )  # the second ping is answered first
            health.adjust(-1)
        elif streams or rng.random() >= relays_fail(config, network):
            health.adjust(-1)
        else:
            nacks = sum(rng.random() >= network.round_trip_lost for _ in range(config.indirect_probes))
            health.adjust(config.indirect_probes - nacks if config.indirect_probes else 1)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Floats, Floats, Ints]:
        """(direct_s, probe_s, health) of `count` nodes."""
        chosen = rng.integers(0, len(self.health), count)
        return self.direct_s[chosen], self.probe_s[chosen], self.health[chosen]
