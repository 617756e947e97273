"""How often a healthy member is declared dead because datagrams are lost (SWIM, section 4.2): scaled evidence.

Nobody can wait for an event of once in many million node-hours; it is put together from what can be counted.

1. Accusations an hour, and the chance q that a probe of a live member fails: meanfield/probing.py.
2. What an accusation does: played on arrays (meanfield/crowd.py) as often as `accusations` says. It spreads, reaches
   the accused by the witnesses' pings, the heralds or the crowd, and the refutation spreads; who tells the accusation
   to one who knows better is corrected; and after an unanswered ping a stream is tried, which brings the truth too.
   Counted is how many members hold the accused for a suspect for how long.
3. A verdict needs a member that suspects for as long as its evidence asks for (`gossip.suspicion.timeout_s`): the long
   wait with one accuser; with two a shorter one, and a further probe that failed by then; with three the short one, and
   two further probes that failed before the long wait is over.

The sum over these three is an upper bound of the model: members are added where their union counts; further probes are
taken to fail as if the accused never refuted and so nobody's accusation grew old; and what corrects a member that has
missed everything else is, later on, only a stream after an unanswered ping, its own or another's, each interval
anew. Members compare their lists as well, which is left out. What would add mistakes and is left out: loss that is not
independent (a cut, a full socket buffer, a process that stops), and several members accused at once.

Invariant: a member suspects from its first accusation until it hears the refutation, and not again.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from gossip.config import GossipConfig
from simulations.meanfield.arrays import Bools, Floats, Ints, first_of_each
from simulations.meanfield.crowd import Crowd, Kind
from simulations.meanfield.parameters import Network, suspicion_s
from simulations.meanfield.probing import Probing, probing
from simulations.meanfield.spread import batches

SETTLED_S: Final = 3.0
_ACCUSED, _REFUTED = 1, 2  # the items, as bits
_ACCUSATION, _REFUTATION = 0, 1  # and as numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistakes:
    """Rates for healthy members. `held` is how many members hold the accused for a suspect for as long as one, two and
    three accusers make them wait, an accusation on average."""

    members: int
    probing: Probing
    played: int  # accusations
    suspecting: float  # members that ever suspect, an accusation on average
    longest_s: float  # that any member suspected which heard the truth while it was played
    unended: int  # members that still suspected when playing ended, SETTLED_S after the accusation
    held: tuple[float, float, float]
    waits_s: tuple[float, float, float]
    likely: tuple[float, float, float]  # that there are one, two, three accusers by then

    @property
    def verdicts_per_hour(self) -> float:
        """Upper bound, a node."""
        rate = self.probing.expected
        return rate * sum(held * likely for held, likely in zip(self.held, self.likely, strict=True))

    @property
    def hours_played(self) -> float:
        """The node-hours in which there are as many accusations as were played."""
        return self.played / self.probing.expected


class _Accusation:
    """The story of one accusation of a healthy member in each mesh of a crowd."""

    def __init__(self, crowd: Crowd) -> None:
        config, members = crowd.config, crowd.members
        self._crowd = crowd
        self.suspected_at: Floats = np.full(crowd.rows, np.inf)
        self.cleared_at: Floats = np.full(crowd.rows, np.inf)
        firsts = np.arange(0, crowd.rows, members, dtype=np.int64)
        self._accused: Ints = firsts + crowd.rng.integers(0, members, len(firsts))
        told = crowd.others(self._accused, config.witnesses + config.heralds + 1)
        self._tells: Bools = np.zeros(crowd.rows, dtype=np.bool_)  # witnesses and heralds
        self._tells[told[:, 1:].ravel()] = True
        accusers, now = told[:, 0], np.zeros(len(firsts))
        self.suspected_at[accusers] = 0.0
        crowd.tell(accusers, now, _ACCUSATION, urgent=True, from_timer=True)
        for column in range(1, config.witnesses + 1):
            crowd.send(now, accusers, told[:, column], np.full(len(firsts), _ACCUSED))
        crowd.calendar.put(Kind.CONTACT, np.zeros(1), np.full(1, -1, dtype=np.int64))

    def suspects(self) -> Bools:
        return np.isfinite(self.suspected_at) & np.isinf(self.cleared_at)

    def over(self) -> bool:
        return bool(np.isfinite(self.cleared_at[self._accused]).all()) and not self.suspects().any()

    def heard(self, at: Floats, targets: Ints, senders: Ints, items: Ints) -> None:
        crowd, accused = self._crowd, self._accused[targets // self._crowd.members]
        knows, suspects = np.isfinite(self.cleared_at[targets]), np.isfinite(self.suspected_at[targets])
        told, refuted = (items & _ACCUSED) != 0, (items & _REFUTED) != 0
        if crowd.config.feedback:
            for again, item in ((refuted & knows, _REFUTED), (told & suspects & ~knows, _ACCUSED)):
                echoes = np.full(int(again.sum()), item)
                crowd.echoed(targets[again], senders[again], echoes, counts=True)
        wrong = told & ~refuted & knows & (targets != accused)  # the sender is behind: it is told at once
        crowd.send(at[wrong], targets[wrong], senders[wrong], np.full(int(wrong.sum()), _REFUTED))
        clears = ~knows & (refuted | (told & (targets == accused)))
        self._clear(*_first(targets[clears], at[clears]))
        learns = ~knows & ~refuted & told & ~suspects & (targets != accused)
        rows, moments = _first(targets[learns], at[learns])
        still = np.isinf(self.cleared_at[rows])
        rows, moments = rows[still], moments[still]
        self.suspected_at[rows] = moments
        crowd.tell(rows, moments, _ACCUSATION, urgent=True)
        called = self._tells[rows]
        rows, moments = rows[called], moments[called]
        crowd.send(moments, rows, self._accused[rows // crowd.members], np.full(len(rows), _ACCUSED))

    def _clear(self, rows: Ints, at: Floats) -> None:
        """Members hear the refutation, or the accused the accusation. Only who suspected it has news for others."""
        self.cleared_at[rows] = at
        self._crowd.drop(rows, _ACCUSED)
        own = rows == self._accused[rows // self._crowd.members]
        self._crowd.tell(rows, at, _REFUTATION, urgent=np.isfinite(self.suspected_at[rows]) | own)

    def due(self) -> None:
        """Streams after unanswered pings; row -1 stands for the plan of the next interval."""
        batch = self._crowd.calendar.take(Kind.CONTACT)
        if batch is None:
            return
        crowd, rng, network = self._crowd, self._crowd.rng, self._crowd.network
        at, (rows,) = batch
        for start_s in at[rows < 0].tolist():
            interval_s = crowd.config.probe_interval_s
            members = np.flatnonzero(self.suspects())
            for _ in range(2):  # it pings, and is pinged
                meets = members[rng.random(len(members)) < network.round_trip_lost * (1 - network.loss)]
                crowd.calendar.put(Kind.CONTACT, start_s + rng.random(len(meets)) * interval_s, meets)
            crowd.calendar.put(Kind.CONTACT, np.array([start_s + interval_s]), np.full(1, -1, dtype=np.int64))
        at, rows = at[rows >= 0], rows[rows >= 0]
        helps = np.isinf(self.cleared_at[rows]) & np.isfinite(self.cleared_at[crowd.others(rows)[:, 0]])
        self._clear(*_first(rows[helps], at[helps]))


def _first(rows: Ints, at: Floats) -> tuple[Ints, Floats]:
    rows, places = first_of_each(rows, at)
    return rows, at[places]


def mistakes(
    config: GossipConfig, members: int, network: Network, *, accusations: int = 20_000, seed: int = 0
) -> Mistakes:
    """Bound how often healthy members of a mesh of `members` are condemned."""
    probed = probing(config, network, seed=seed)
    held_s, ended = [], []
    for meshes, rng in batches(members, accusations, seed):
        crowd = Crowd(config, network, members=members, meshes=meshes, items=2, rng=rng)
        story = _Accusation(crowd)
        crowd.run(story, SETTLED_S)
        suspected = np.isfinite(story.suspected_at)
        until_s = np.minimum(story.cleared_at[suspected], SETTLED_S)
        held_s.append(until_s - story.suspected_at[suspected])
        ended.append(np.isfinite(story.cleared_at[suspected]))
    held, over = np.concatenate(held_s), np.concatenate(ended)
    alone_s, two_s, three_s = (suspicion_s(config, members, accusers=accusers) for accusers in (1, 2, 3))
    long, shorter, short = (_held(held, wait_s, config, network) for wait_s in (alone_s, two_s, three_s))
    further = [config.witnesses + math.ceil(wait_s / config.probe_interval_s) for wait_s in (two_s, alone_s)]
    q = probed.accuses
    return Mistakes(
        members=members,
        probing=probed,
        played=accusations,
        suspecting=len(held) / accusations,
        longest_s=float(held[over].max(initial=0.0)),
        unended=int((~over).sum()),
        held=(long / accusations, shorter / accusations, short / accusations),
        waits_s=(alone_s, two_s, three_s),
        likely=(1.0, further[0] * q, math.comb(further[1], 2) * q**2),
    )


def _held(held_s: Floats, wait_s: float, config: GossipConfig, network: Network) -> float:
    """How many suspect for `wait_s`: counted up to two thirds of what was simulated, and from there on who has met
    nobody by a stream. None counted counts as three, the 95 % bound (Hanley and Lippman-Hand, 1983)."""
    seen_s = min(wait_s, SETTLED_S * 2 / 3)
    counted = max(3.0, float((held_s >= seen_s).sum()))
    unmet = (1 - network.round_trip_lost * (1 - network.loss)) ** 2
    return counted * float(unmet ** math.floor((wait_s - seen_s) / config.probe_interval_s))
