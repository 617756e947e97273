"""How often a healthy member is declared dead because datagrams are lost (SWIM, section 4.2; Lifeguard, section 5).

Nobody can wait for an event of 10^-12 per node-hour. It is a chain, and each link is known well:

1. A probe of a live member fails: a product of loss probabilities (`parameters.probe_fails`), exact.
2. Given that, the accusation spreads and the accused hears of it: from the witnesses' pings, or from the crowd. It
   refutes, and the refutation spreads. Others accuse too if their probes fail as well, which is as unlikely again.
3. Some member's timer runs out before the refutation reaches that member.

For 2 and 3, conditional Monte Carlo (Asmussen and Glynn, 2007, sections V.4 and VI) in a mean field:

- The crowd is simulated (meanfield/crowd.py) for how many tellings S(t) were sent by time t. They go to members at
  random, so one member has missed all of them with probability (1 - (1 - loss) / (n - 1)) ** S(t): computed, not
  counted. S(t) of some dozens of runs carries its scatter.
- Which further probes fail, and how long the accused stays unaware, is drawn from a distribution under which the rare
  is common, and each draw weighs as much as it is rarer in truth (importance sampling). Whether a prober that failed,
  or the member whose timer runs out, has missed the refutation until then, is a factor and not a draw.

What errs is on the side of more mistakes: the members whose timers run out are summed, not united; besides the crowd's
tellings only these reach a member: the correction that comes back when it tells a refuted accusation itself, once 99 %
know better, and the streams (after unanswered pings, push-pull, and member lists compared on pings if they are).
What is left out would add mistakes: loss that is not independent (a cut, an overrun socket buffer, a process that
stops), and accusations of others at the same time. It is an estimate of what independent loss does, and nothing else.

Invariant: the estimator is unbiased for this model whatever the tilts; they only decide its scatter.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from gossip.config import GossipConfig, ProbeOrder
from simulations.meanfield.arrays import Bools, Floats, Ints
from simulations.meanfield.crowd import Crowd
from simulations.meanfield.parameters import Network, Prober, probe_fails, relays_fail, suspicion_s
from simulations.meanfield.spread import Update, batches

_BIN_S: Final = 0.01
_CURVE_S: Final = 20.0
_TILTED_FAILURES: Final = 1.5  # further probes that fail in a tilted trial, on average
_TILTED_HAZARD: Final = 0.2  # of the accused learning of it, in a tilted trial, against the true one
_TILTED_SHARE: Final = (
    0.7  # of the trials; the others are as in truth, which bounds every weight (a defensive mixture)
)
_BLOCK: Final = 50_000  # trials drawn at once
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistakes:
    """Rates for one healthy member among `members` healthy ones. `low` and `high` bound the 95 % interval of what was
    simulated; the first link is exact."""

    members: int
    probe_fails: float
    suspicions_per_hour: float
    verdict_if_suspected: float
    low: float
    high: float

    @property
    def verdicts_per_hour(self) -> float:
        return self.suspicions_per_hour * self.verdict_if_suspected

    def expected(self, node_hours: float) -> tuple[float, float, float]:
        """(expected wrong verdicts, low, high) in so many hours of healthy members. Scaled evidence: what a chain of
        measured links says, not a count."""
        scale = node_hours * self.suspicions_per_hour
        return scale * self.verdict_if_suspected, scale * self.low, scale * self.high


@dataclass(frozen=True, slots=True)
class _Curves:
    """-log of the chance that one member has missed an epidemic's tellings, by run and time; when 99 % had heard."""

    missed: Floats  # (runs, bins)
    known_s: float

    def at(self, runs: Ints, since_s: Floats) -> Floats:
        """-log of the chance at `since_s` after the start; 0 before it."""
        places = np.clip((since_s / _BIN_S).astype(np.int64) - 1, -1, self.missed.shape[1] - 1)
        values = self.missed[runs, np.maximum(places, 0)]
        return np.where(places < 0, 0.0, values)

    def when(self, runs: Ints, exponent: Floats) -> Floats:
        """When -log of the chance reaches `exponent`; inf if it never does."""
        times = np.full(len(runs), np.inf)
        for run in np.unique(runs):
            chosen = np.flatnonzero(runs == run)
            places = np.searchsorted(self.missed[run], exponent[chosen])
            times[chosen] = np.where(places < self.missed.shape[1], (places + 1) * _BIN_S, np.inf)
        return times


def _curves(config: GossipConfig, members: int, network: Network, runs: int, seed: int) -> _Curves:
    """Tellings of one item in `runs` epidemics."""
    bins = int(_CURVE_S / _BIN_S)
    missed, known_s = [], 0.0
    reach = -np.log1p(-(1 - network.loss) / (members - 1))
    for meshes, rng in batches(members, runs, seed):
        crowd = Crowd(config, network, members=members, meshes=meshes, items=1, rng=rng)
        counts = np.zeros((meshes, bins), dtype=np.int64)
        crowd.tellings = (_BIN_S, counts)
        update = Update(crowd, None)
        crowd.run(update, _CURVE_S)
        in_order = np.sort(update.heard_at)
        known_s = max(known_s, float(in_order[math.ceil(0.99 * len(in_order)) - 1]))
        missed.append(np.cumsum(counts, axis=1) * reach)
    return _Curves(np.concatenate(missed), known_s)


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """What becomes of one probe of a live member that has been accused: chances of (answered, failed though the first
    ping told it, failed though a later one did, failed and it heard nothing), and when it was told."""

    chances: Floats
    tilted: Floats
    told_s: Floats

    @classmethod
    def of(cls, config: GossipConfig, network: Network, direct_s: float, tilt: float) -> "_Outcomes":
        loss = network.loss
        lost, unheard = network.round_trip_lost, loss
        relays, relays_unheard = relays_fail(config, network), (1 - (1 - loss) ** 2) ** config.indirect_probes
        first = (lost - unheard) * lost * relays * network.stream_lost
        nothing = unheard * unheard * relays_unheard * network.stream_lost
        later = unheard * lost * relays * network.stream_lost - nothing
        chances = np.array([1 - first - later - nothing, first, later, nothing])
        failing = chances[1:] / max(chances[1:].sum(), 1e-300)
        mixed = tilt * (failing + 1 / 3) / 2  # half as in truth, half all alike
        return cls(
            chances=chances,
            tilted=np.concatenate(([1 - tilt], mixed)),
            told_s=np.array([0.0, 0.0, direct_s, np.inf]),
        )


class _Trials:
    """Many accusations of a healthy member, drawn with weights."""

    def __init__(
        self, config: GossipConfig, members: int, network: Network, *, count: int, compared: bool, seed: int
    ) -> None:
        self._config, self._members, self._network, self._compared = config, members, network, compared
        prober = Prober(config, network, seed)
        self._direct_s, self._probe_s = float(prober.direct_s.mean()), float(prober.probe_s.mean())
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
        self._count = count
        self._waits_s = np.array(
            [np.inf]
            + [
                suspicion_s(config, members, accusers=accusers)
                for accusers in range(1, config.confirmations + 2)
            ]
        )

    def values(self, curves: _Curves) -> tuple[Floats, Ints]:
        """(weighted chance that some member condemns, run) of each trial."""
        runs = self._rng.integers(0, len(curves.missed), self._count)
        ends_s, failed, told_s, weights = self._probes(curves.known_s)
        exponents, unlikelier = self._exponents()
        weights *= unlikelier
        aware_s = np.minimum(told_s, curves.when(runs, exponents))
        verdict_s, counted = self._verdicts(ends_s, failed)
        missed = np.zeros(self._count)
        for column in range(ends_s.shape[1]):
            since_s = ends_s[:, column] - aware_s
            missed += np.where(counted[:, column], curves.at(runs, since_s), 0.0)
        missed += self._unreached(curves, runs, aware_s, verdict_s)
        return weights * np.minimum(1.0, (self._members - 1) * np.exp(-missed)), runs

    def _exponents(self) -> tuple[Floats, Floats]:
        """(how much hazard the accused survives unaware, the weight): exponential in truth."""
        tilted = self._rng.random(self._count) < _TILTED_SHARE
        exponents = self._rng.exponential(np.where(tilted, 1 / _TILTED_HAZARD, 1.0))
        ratio = _TILTED_HAZARD * np.exp(
            (1 - _TILTED_HAZARD) * exponents
        )  # of the tilted density to the true one
        return exponents, 1 / (_TILTED_SHARE * ratio + 1 - _TILTED_SHARE)

    def _probes(self, known_s: float) -> tuple[Floats, Bools, Floats, Floats]:
        """(when each further probe ends, whether it failed, when the accused was told by any, the weight). A prober
        whose turn it is tells of the accusation if it began when that was known; the witnesses know."""
        config, rng = self._config, self._rng
        interval_s = config.probe_interval_s
        later = int(self._waits_s[1] / interval_s) + 1
        if config.probe_order is ProbeOrder.PERMUTATION:
            turns_s = np.broadcast_to(interval_s * np.arange(1, later + 1), (self._count, later))
        else:
            turns_s = np.cumsum(rng.exponential(interval_s, (self._count, later)), axis=1)
        witnesses_s = np.full((self._count, config.witnesses), self._probe_s)
        ends_s = np.concatenate((witnesses_s, turns_s), axis=1)
        tilt = min(0.4, _TILTED_FAILURES / (config.witnesses + later))
        tilts = np.full(ends_s.shape[1], tilt)
        soon = config.witnesses + int(self._waits_s[-1] / interval_s)  # these can shorten the wait the most
        tilts[:soon] = np.maximum(tilt, min(0.4, _TILTED_FAILURES / max(1, soon)))
        failed = np.empty(ends_s.shape, dtype=np.bool_)
        told_s, ratio = np.full(self._count, np.inf), np.ones(self._count)
        tilted = rng.random(self._count) < _TILTED_SHARE
        for column, share in enumerate(tilts):
            outcomes = _Outcomes.of(config, self._network, self._direct_s, float(share))
            likely = rng.choice(4, self._count, p=outcomes.chances)
            drawn = np.where(tilted, rng.choice(4, self._count, p=outcomes.tilted), likely)
            ratio *= (outcomes.tilted / np.maximum(outcomes.chances, 1e-300))[drawn]
            failed[:, column] = drawn != 0
            started_s = ends_s[:, column] - self._probe_s
            tells = (started_s >= known_s) | (column < config.witnesses)
            told_s = np.minimum(told_s, np.where(tells, started_s + outcomes.told_s[drawn], np.inf))
        return ends_s, failed, told_s, 1 / (_TILTED_SHARE * ratio + 1 - _TILTED_SHARE)

    def _verdicts(self, ends_s: Floats, failed: Bools) -> tuple[Floats, Bools]:
        """(when a member that heard everything at once condemns, which failed probes that took)."""
        accused_s = np.sort(np.where(failed, ends_s, np.inf), axis=1)
        verdict_s = np.full(self._count, self._waits_s[1])
        for accusers in range(2, len(self._waits_s)):
            verdict_s = np.minimum(verdict_s, np.maximum(self._waits_s[accusers], accused_s[:, accusers - 2]))
        return verdict_s, failed & (ends_s <= verdict_s[:, None])

    def _unreached(self, curves: _Curves, runs: Ints, aware_s: Floats, verdict_s: Floats) -> Floats:
        """-log of the chance that one member has not heard the refutation by its verdict."""
        config, network = self._config, self._network
        since_s = np.maximum(0.0, verdict_s - np.minimum(aware_s, verdict_s))
        missed = curves.at(runs, since_s)
        known_s = verdict_s - since_s + curves.known_s
        # what it tells itself of the accusation comes back corrected: its rounds from the one at 0 on
        rounds = config.retransmits(self._members) // config.gossip_nodes
        corrected = -np.log1p(-0.99 * (1 - network.loss) ** 2)
        for number in range(2 if config.urgent_rounds_per_s > 0 else 0, rounds):
            told_s = number * config.gossip_interval_s
            missed += np.where(
                (told_s > known_s) & (told_s < verdict_s), config.gossip_nodes * corrected, 0.0
            )
        streams_per_s = 2 * network.round_trip_lost / config.probe_interval_s
        streams_per_s += 2 / config.push_pull_s(self._members)
        if self._compared:
            streams_per_s += 2 * (1 - network.loss) / config.probe_interval_s
        quiet_s = curves.known_s + config.probe_interval_s  # until a stream surely meets somebody who knows
        missed += streams_per_s * np.maximum(0.0, since_s - quiet_s)
        return missed


def mistakes(
    config: GossipConfig,
    members: int,
    network: Network,
    *,
    runs: int = 32,
    trials: int = 400_000,
    compared: bool = False,
    seed: int = 0,
) -> Mistakes:
    """Estimate how often a healthy member is condemned. `runs` epidemics are simulated and `trials` accusations drawn;
    `compared`: members' lists are compared on pings."""
    assert network.loss > 0, "without loss nothing fails"
    fails = probe_fails(config, network)
    curves = _curves(config, members, network, runs, seed)
    drawn = _Trials(config, members, network, count=_BLOCK, compared=compared, seed=seed)
    blocks = [drawn.values(curves) for _ in range(-(-trials // _BLOCK))]
    values, run_of = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
    by_run = np.array([values[run_of == run].mean() for run in range(runs) if (run_of == run).any()])
    mean = float(values.mean())
    error = 1.96 * float(by_run.std(ddof=1)) / len(by_run) ** 0.5
    return Mistakes(
        members=members,
        probe_fails=fails,
        suspicions_per_hour=fails * _HOUR_S / config.probe_interval_s,
        verdict_if_suspected=mean,
        low=max(0.0, mean - error),
        high=mean + error,
    )
