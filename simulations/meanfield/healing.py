"""How long two halves of a mesh take to be one again after a long partition (coarse).

Each side holds the other for dead, and knocks for ever (gossip/contact.py): every member at one dead member per
`contact_interval_s`, at each of them at doubling distances up to `contact_backoff_s_max`, each fourth time with a
stream. What follows the first knock that is answered:

1. The two exchange their members over a stream. Each tells, at once, all of its own side that the other side calls dead
   (`Judge.summoned`), and each of these refutes with a higher incarnation, which its side soon knows.
2. From then on every stream across the cut brings the whole other side back for the two members it joins: a member is
   healed once it has had such a stream, its own knock answered or another's.
3. With `compared`, members of one side whose lists differ find out by their pings and exchange them.

Modelled: who knocks when (the partition lasted longer than the cap, phases are random), loss of knocks, what a stream
of the whole list takes, each member's first stream after the summons. Left out: the refutations that also travel by
gossip, which only help, but at large n cannot do it (n / 2 statements in datagrams of some six each); streams that
queue at one member; several partitions at once.

Invariant: nobody is healed before the first contact, and nobody by a stream that began before the summons.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gossip.config import GossipConfig
from simulations.meanfield.arrays import Bools, Floats, Ints
from simulations.meanfield.parameters import Network

_STATEMENT_BYTES: Final = 450  # a whole Alive with its credential, in a stream
_STREAM_BYTES_PER_S: Final = 10e6
_STREAM_ROUND_TRIPS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Healing:
    """Seconds after the network came back. `healed_at`: when each member sees the other side alive."""

    first_contact_s: float
    summoned_s: float  # the first stream across is done: from now on the dead refute
    healed_at: Floats

    def seconds(self, share: float) -> float:
        return float(np.quantile(self.healed_at, share, method="inverted_cdf"))


def stream_s(members: int, network: Network) -> float:
    """How long an exchange of the whole list takes."""
    latency_s = sum(network.latency_s) / 2
    return 2 * _STREAM_ROUND_TRIPS * latency_s + members * _STATEMENT_BYTES / _STREAM_BYTES_PER_S


def knock_interval_s(config: GossipConfig, dead: int) -> float:
    """How often a member knocks at one of `dead` members that have long been dead to it."""
    return max(config.contact_interval_s, config.contact_backoff_s_max / dead)


def healing(
    config: GossipConfig,
    members: int,
    *,
    seed: int = 0,
    network: Network | None = None,
    compared: bool = False,
    within_s: float = 600.0,
) -> Healing:
    """Heal one mesh of `members` that was cut into halves for long."""
    network = network or Network()
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    side: Bools = np.arange(members) < members // 2
    halves = (np.flatnonzero(side), np.flatnonzero(~side))
    took_s = stream_s(members, network)
    interval_s = knock_interval_s(config, members // 2)
    phase_s = rng.random(members) * interval_s
    healed_at = np.full(members, np.inf)
    first_s = summoned_s = np.inf
    turn = 0
    while np.isinf(healed_at).any() and turn * interval_s < within_s:
        at = phase_s + turn * interval_s
        # the longest waiting of the other side, in each member's own order
        targets = np.where(side, rng.choice(halves[1], members), rng.choice(halves[0], members))
        streams = rng.random(members) < 1 / config.contact_stream_every
        answered = streams | (rng.random(members) >= network.round_trip_lost)
        if np.isinf(first_s) and answered.any():
            first_s = float(at[answered].min())
            summoned_s = first_s + took_s
        joined = answered & (at >= summoned_s)
        np.minimum.at(healed_at, np.flatnonzero(joined), at[joined] + took_s)
        np.minimum.at(healed_at, targets[joined], at[joined] + took_s)
        if compared:
            _compare(config, network, halves, healed_at, turn * interval_s, interval_s, took_s, rng)
        turn += 1
    return Healing(first_contact_s=first_s, summoned_s=summoned_s, healed_at=healed_at)


def _compare(
    config: GossipConfig,
    network: Network,
    halves: tuple[Ints, Ints],
    healed_at: Floats,
    start_s: float,
    span_s: float,
    took_s: float,
    rng: np.random.Generator,
) -> None:
    """Members not healed ping, or are pinged by, others of their side within a span; a difference that both have had
    for `diverged_settle_s` is settled over a stream."""
    for half in halves:
        for _ in range(2):
            behind = half[healed_at[half] > start_s]
            pings = rng.random(len(behind)) < min(1.0, span_s / config.probe_interval_s) * (1 - network.loss)
            behind = behind[pings]
            at = start_s + rng.random(len(behind)) * span_s
            ahead_at = healed_at[rng.choice(half, len(behind))]
            meets = at >= ahead_at + config.diverged_settle_s
            np.minimum.at(healed_at, behind[meets], at[meets] + took_s)
