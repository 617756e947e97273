"""How often healthy members accuse each other because datagrams are lost: the probing process on arrays.

Each member probes one other an interval (gossip/probe.py). A probe fails if the ping or its ack is lost, and the second
ping or its ack, and one of the four datagrams by way of each relay, and if the stream tried meanwhile comes about too
late. The first three are products of probabilities. The last depends on how long the prober waits: on its estimate of
round trips, into which late answers go (gossip/rtt.py), and on its local health (Lifeguard, section 3.1), which suffers
from failures, from nacks that do not come and from being accused; so these are simulated, for all members side by side.
What is lost of a stream is sent again: within a probe's time mostly once or twice (simulations/streams.py).

A probe that fails accuses nobody whom another's accusation has made raise its incarnation since it began.

Two estimates come of it. `accusations` are those that happened: at heavy loss there are many. `expected` is conditional
Monte Carlo (Asmussen and Glynn, 2007, section V.4): every probe counts with the probability that both pings and all
relays fail, which is known, times whether its stream, drawn whether needed or not, would have been too late. A
million node-hours are 3.6 billion probes; a ten-thousandth of them say it.

Left out: streams under way for other reasons, which save some more at heavy loss; loss that is not independent.

Invariant: without loss nobody accuses; `expected` and `accusations` estimate the same but for those whom a refutation
has overtaken.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gossip import rtt
from gossip.config import GossipConfig
from simulations.crypto import Costs
from simulations.meanfield.arrays import Bools, Floats, Ints
from simulations.meanfield.parameters import Network
from simulations.streams import RTO_S, RTO_S_MAX, SYN_RTO_S

_ALPHA, _BETA, _K = rtt._ALPHA, rtt._BETA, rtt._K
_FRAMES: Final = (
    3  # in turn until a stream proves that its peer lives: its opening, a list's root, the answer
)
_WAYS: Final = 8  # one after the other in the same time: TCP, TLS, these frames
_HANDSHAKES_S: Final = 2 * Costs().handshake_s
_SETTLE: Final = 60  # intervals, until health and estimates are what they stay
_RETRIES_MAX: Final = 40
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """What became of the probes of `node_hours` of healthy members. Shares are of all regular probes."""

    node_hours: float
    unanswered: float  # share: no ack to the first ping in time
    second: float  # share: saved by the second ping
    relayed: float  # share: by a relay
    streamed: float  # share: by a stream
    failed: float  # share
    outrun: float  # share: failed, but the target had meanwhile announced something
    accusations: float  # an hour and node, counted
    expected: float  # an hour and node, by conditional Monte Carlo
    expected_error: float  # of that, one standard error
    health: float  # mean
    accuses: float = field(kw_only=True)  # share: by conditional Monte Carlo, that a probe fails


@dataclass(slots=True)
class _Round:
    """The probes that began in one interval, one a member, in the order of the members."""

    targets: Ints
    begun_at: Floats
    over_at: Floats
    measured_s: Floats  # nan: no round trip was measured
    failed: Bools
    missing: Ints  # nacks, if it failed
    open: Bools


def stream_s(network: Network, count: int, rng: np.random.Generator) -> Floats:
    """When each of `count` streams has proved that its peer lives, seconds after it was asked for."""
    loss, took_s = network.loss, np.full(count, _HANDSHAKES_S)
    took_s += rng.uniform(*network.latency_s, (_WAYS, count)).sum(axis=0)
    if loss == 0:
        return took_s
    tries = np.minimum(rng.geometric(1 - loss, (1 + _FRAMES, count)) - 1, _RETRIES_MAX)
    took_s += SYN_RTO_S * (2.0 ** tries[0] - 1)
    took_s += RTO_S * (rng.geometric((1 - loss) ** 2, count) - 1)  # the handshake needs both directions
    waits_s = np.concatenate(([0.0], np.minimum(RTO_S * 2.0 ** np.arange(_RETRIES_MAX), RTO_S_MAX).cumsum()))
    return np.asarray(took_s + waits_s[tries[1:]].sum(axis=0))


class _Members:
    """All members, and their probes under way."""

    def __init__(
        self, config: GossipConfig, network: Network, members: int, rng: np.random.Generator
    ) -> None:
        self.config, self.network, self.members, self.rng = config, network, members, rng
        self.health = np.zeros(members, dtype=np.int64)
        self.srtt_s = np.full(members, 2 * sum(network.latency_s) / 2)
        self.rttvar_s = self.srtt_s / 2
        self.refuted_at: Floats = np.full(members, -np.inf)
        self.rounds: list[_Round] = []
        self.phase_s = rng.random(members) * config.probe_interval_s  # when in an epoch each one is probed
        self.conditional: list[float] = []
        self.count_anew()

    def count_anew(self) -> None:
        """Forget what was counted so far."""
        self.unanswered = self.second = self.relayed = self.streamed = 0
        self.failed = self.outrun = self.accused = 0
        self.conditional.clear()

    def timeout_s(self) -> Floats:
        """gossip/rtt.py"""
        expected_s = self.srtt_s + _K * self.rttvar_s
        return np.clip(expected_s, self.config.probe_timeout_s_min, self.config.probe_timeout_s)

    def begin(self, epoch: int) -> None:
        """Everybody probes somebody, as a permutation."""
        config, network, rng, count = self.config, self.network, self.rng, self.members
        targets = (np.arange(count) + int(rng.integers(1, count))) % count
        begun_at = epoch * config.probe_interval_s + self.phase_s[targets]
        wait_s = self.timeout_s()
        direct_s = wait_s * (self.health + 1)
        rest_s = direct_s * config.indirect_timeout_mult
        rtt_s = rng.uniform(*network.latency_s, (2, count)).sum(axis=0)
        first, second = rng.random((2, count)) >= network.round_trip_lost
        stream = stream_s(network, count, rng)
        asked = (config.indirect_probes, count)
        arrives = rng.random((4, *asked)) >= network.loss  # request, ping, ack, ack
        relayed = arrives.all(axis=0).any(axis=0)
        by_stream = ~first & ~second & ~relayed & (stream < rest_s)
        failed = ~(first | second | relayed | by_stream)
        nack_s = config.nack_share * wait_s[rng.integers(0, count, asked)]
        nacks = (
            arrives[0] & ~(arrives[1] & arrives[2]) & (rng.random(asked) >= network.loss) & (nack_s < rest_s)
        )
        took_s = np.where(first, rtt_s, direct_s + rtt_s)
        took_s = np.where(by_stream, direct_s + stream, took_s)
        self.rounds.append(
            _Round(
                targets=targets,
                begun_at=begun_at,
                over_at=begun_at + np.where(failed, direct_s + rest_s, took_s),
                measured_s=np.where(first | second, took_s, np.nan),
                failed=failed,
                missing=config.indirect_probes - nacks.sum(axis=0) if config.indirect_probes else np.ones(count, int),
                open=np.ones(count, dtype=np.bool_),
            )
        )  # fmt: skip
        self.unanswered += int((~first).sum())
        self.second += int((~first & second).sum())
        self.relayed += int((~first & ~second & relayed).sum())
        self.streamed += int(by_stream.sum())
        self.conditional.append(float((stream >= rest_s).mean()))

    def settle(self, until_s: float) -> None:
        """What is over by then has its effect, the probes begun first first."""
        for probes in self.rounds:
            over = np.flatnonzero(probes.open & (probes.over_at <= until_s))
            probes.open[over] = False
            well = over[~probes.failed[over]]
            self._adjust(well, -1)
            self._measure(well, probes.measured_s[well])
            ill = over[probes.failed[over]]
            self.failed += len(ill)
            fresh = self.refuted_at[probes.targets[ill]] < probes.begun_at[ill]
            self.outrun += int((~fresh).sum())
            ill = ill[fresh]
            self._adjust(ill, probes.missing[ill])
            self._accuse(probes.targets[ill], probes.over_at[ill])
        self.rounds = [probes for probes in self.rounds if probes.open.any()]

    def _accuse(self, targets: Ints, at: Floats) -> None:
        """Accusations, each of which is refuted at once; the witnesses, whose own probes are no surer, get by on what
        their first ping brings."""
        self.accused += len(targets)
        np.maximum.at(self.refuted_at, targets, at)
        self._adjust(np.unique(targets), 1)
        witnesses = self.rng.integers(0, self.members, (self.config.witnesses, len(targets))).ravel()
        answered = np.unique(witnesses[self.rng.random(len(witnesses)) >= self.network.round_trip_lost])
        self._adjust(answered, -1)
        self._measure(answered, self.rng.uniform(*self.network.latency_s, (2, len(answered))).sum(axis=0))

    def _adjust(self, rows: Ints, by: Ints | int) -> None:
        self.health[rows] = np.clip(self.health[rows] + by, 0, self.config.health_max - 1)

    def _measure(self, rows: Ints, rtt_s: Floats) -> None:
        known = ~np.isnan(rtt_s)
        rows, rtt_s = rows[known], rtt_s[known]
        self.rttvar_s[rows] += _BETA * (np.abs(self.srtt_s[rows] - rtt_s) - self.rttvar_s[rows])
        self.srtt_s[rows] += _ALPHA * (rtt_s - self.srtt_s[rows])


def probing(
    config: GossipConfig, network: Network, *, members: int = 2000, intervals: int = 500, seed: int = 0
) -> Probing:
    """Let `members` healthy ones probe each other for `intervals`, after they have settled."""
    crowd = _Members(config, network, members, np.random.Generator(np.random.PCG64(seed)))
    health = 0.0
    for epoch in range(_SETTLE + intervals):
        if epoch == _SETTLE:
            crowd.count_anew()
        crowd.settle(epoch * config.probe_interval_s)
        crowd.begin(epoch)
        health += float(crowd.health.mean()) if epoch >= _SETTLE else 0.0
    probes, hours = members * intervals, members * intervals * config.probe_interval_s / _HOUR_S
    pings_fail = network.round_trip_lost**2
    relays_fail = (1 - (1 - network.loss) ** 4) ** config.indirect_probes
    late = np.array(crowd.conditional)
    hourly = pings_fail * relays_fail * _HOUR_S / config.probe_interval_s
    return Probing(
        node_hours=hours,
        unanswered=crowd.unanswered / probes,
        second=crowd.second / probes,
        relayed=crowd.relayed / probes,
        streamed=crowd.streamed / probes,
        failed=crowd.failed / probes,
        outrun=crowd.outrun / probes,
        accusations=crowd.accused / hours,
        expected=hourly * float(late.mean()),
        expected_error=hourly * float(late.std(ddof=1)) / len(late) ** 0.5,
        health=health / intervals,
        accuses=pings_fail * relays_fail * float(late.mean()),
    )
