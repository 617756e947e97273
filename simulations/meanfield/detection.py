"""How long a crash takes to be noticed, believed, and known to all (SWIM, sections 3 and 4; Lifeguard, section 3.2).

One member of a settled mesh stops. What follows is played as the engine does it (gossip/judge.py, parts.py, probe.py):

1. A probe of it fails: the first one after half an interval on average where the probing order is a permutation, after
   one interval, exponentially distributed, where everybody walks a random round robin of its own (SWIM, section 3.1);
   each of the n - 1 then has its own place for the victim, drawn here for each.
2. The accusation spreads (meanfield/crowd.py) and goes straight to the witnesses, who probe at once; every later probe
   of the regular order adds an accuser as well. A member keeps, and tells on, as many accusations as it expects
   confirmations, and one.
3. Each member's own timer runs from the first accusation it heard, for as long as its accusers so far make it
   (`gossip.suspicion.timeout_s`), and not less than `refutation_s` from the latest of them. When it runs out the
   verdict spreads, and is believed by whoever then holds enough accusers and has held them for that long, or at once
   by all where one word is enough.

Members that under loss missed an accusation others have get it from those they meet, as updates are repaired
(meanfield/spread.py); a verdict met that way is only evidence.

At most seven accusers a victim are told apart; nobody keeps more than three. Only one member crashes; nobody else is
suspected meanwhile.

Invariant: nobody has a verdict before it has a suspicion, and no suspicion is earlier than the first failed probe.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gossip.config import GossipConfig, ProbeOrder
from simulations.meanfield.arrays import Bytes, Floats, Ints, first_of_each
from simulations.meanfield.crowd import Crowd, Kind
from simulations.meanfield.parameters import Network, Prober, needed, suspicion_s
from simulations.meanfield.spread import batches

_ACCUSERS_MAX: Final = 7
_ACCUSED: Final = 0x7F  # the items that are accusations, one an accuser
_TURNS_PLANNED: Final = 600  # probe intervals; by then everybody has long had a verdict
_ROUNDING_S: Final = 1e-9
_DRAWS_MAX: Final = 8  # for a next prober; in a small mesh all may have had their turn
_DEAD: Final = 7  # the item that is the verdict
_BITS: Final = np.array([number.bit_count() for number in range(256)], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What became of one crash in each of several runs: row r is run r, one column an observer. Seconds after the
    crash; inf: not within the time simulated."""

    suspected_at: Floats
    dead_at: Floats
    datagrams: float  # that carried something of it, a run, on average

    @property
    def first_verdict_s(self) -> Floats:
        return np.asarray(self.dead_at.min(axis=1))

    @property
    def all_verdicts_s(self) -> Floats:
        return np.asarray(self.dead_at.max(axis=1))


def first_probes_s(config: GossipConfig, members: int, meshes: int, rng: np.random.Generator) -> Floats:
    """(meshes, members - 1): when each of the others first probes one member in particular, seconds after some moment
    of a settled mesh. Under a permutation one of them does within an interval, and for the others it is inf."""
    others, interval_s = members - 1, config.probe_interval_s
    if config.probe_order is ProbeOrder.PERMUTATION:
        times = np.full((meshes, others), np.inf)
        times[np.arange(meshes), rng.integers(0, others, meshes)] = rng.random(meshes) * interval_s
        return times
    at, place, next_place = rng.integers(0, others, (3, meshes, others))  # in each one's list
    turns = np.where(place >= at, place - at, others - at + next_place)
    return np.asarray((turns + rng.random((meshes, others))) * interval_s)


def _said_before(rows: Ints, news: Ints) -> Ints:
    """Of `news`, sorted by who hears it and when, what an earlier one has told the same member in this slice."""
    again = np.zeros(len(rows), dtype=np.int64)
    for item in range(_ACCUSERS_MAX):
        having = np.flatnonzero(news >> item & 1)
        later = having[1:][rows[having][1:] == rows[having][:-1]]
        again[later] |= 1 << item
    return again


class _Crash:
    """The story of one crash in each mesh of a crowd."""

    def __init__(self, crowd: Crowd, prober: Prober) -> None:
        config, rng, members = crowd.config, crowd.rng, crowd.members
        self._crowd, self._prober = crowd, prober
        self.suspected_at: Floats = np.full(crowd.rows, np.inf)
        self.dead_at: Floats = np.full(crowd.rows, np.inf)
        self._accused_at: Floats = np.full(crowd.rows, np.inf)  # when it heard the latest accusation it kept
        self._evidence: Bytes = np.zeros(crowd.rows, dtype=np.uint8)
        crowd.proofs = self._evidence
        meshes = crowd.rows // members
        self.victims: Ints = np.arange(meshes, dtype=np.int64) * members + rng.integers(0, members, meshes)
        crowd.up[self.victims] = False
        self._accusers = np.full((meshes, _ACCUSERS_MAX), -1, dtype=np.int64)
        self._count = np.zeros(meshes, dtype=np.int64)
        self._needed = needed(config, members)
        health_of = prober.draw(rng, crowd.rows)[2]
        self._timeout_s = np.array(
            [
                [np.inf]
                + [
                    suspicion_s(config, members, accusers=accusers, health=health)
                    for accusers in range(1, _ACCUSERS_MAX + 1)
                ]
                for health in range(config.health_max)
            ]
        )
        self._health: Bytes = health_of.astype(np.uint8)
        self._witnesses = crowd.others(self.victims, min(config.witnesses, members - 1))
        self._is_witness = np.zeros(crowd.rows, dtype=np.bool_)
        self._is_witness[self._witnesses.ravel()] = True
        self._probing = np.zeros(crowd.rows, dtype=np.bool_)
        self._had_turn = np.zeros(crowd.rows, dtype=np.bool_)
        self._undecided = crowd.rows - meshes
        self._plan_probes(meshes)
        crowd.calendar.put(Kind.CONTACT, np.zeros(1), np.full(1, -1, dtype=np.int64))

    def over(self) -> bool:
        return self._undecided == 0

    # ------------------------------------------------------------ probes
    def _plan_probes(self, meshes: int) -> None:
        crowd, config = self._crowd, self._crowd.config
        first_s = first_probes_s(config, crowd.members, meshes, crowd.rng).ravel()
        soon = first_s < _TURNS_PLANNED * config.probe_interval_s
        again = np.full(int(soon.sum()), config.probe_order is ProbeOrder.PERMUTATION, dtype=np.int64)
        first = np.flatnonzero(crowd.up)[soon]
        self._had_turn[first] = True
        crowd.calendar.put(Kind.PROBE, first_s[soon], first, again)

    def _probe(self, at: Floats, rows: Ints, again: Ints) -> None:
        """Members probe the victim: they will accuse it, unless they have a verdict by then. `again`: the next
        interval brings the next prober of that mesh."""
        crowd = self._crowd
        next_at = at[again == 1] + crowd.config.probe_interval_s
        next_rows = self._next_probers(self.victims[rows[again == 1] // crowd.members])
        crowd.calendar.put(Kind.PROBE, next_at, next_rows, np.ones(len(next_rows), dtype=np.int64))
        starts = np.isinf(self.dead_at[rows]) & ~self._probing[rows]
        rows, places = first_of_each(rows[starts], at[starts])
        self._probing[rows] = True
        fails_at = at[starts][places] + self._prober.draw(crowd.rng, len(rows))[1]
        crowd.calendar.put(Kind.FAILURE, fails_at, rows)

    def _next_probers(self, victims: Ints) -> Ints:
        """Whose turn is next: not one's who had it lately, since a cycle of the permutation meets each pair once."""
        rows = self._crowd.others(victims)[:, 0]
        for _ in range(_DRAWS_MAX):
            again = self._had_turn[rows]
            if not again.any():
                break
            rows[again] = self._crowd.others(victims[again])[:, 0]
        self._had_turn[rows] = True
        return rows

    def _accuse(self, at: Floats, rows: Ints) -> None:
        """Probes failed. Few at a time, so one by one: each accuser of a mesh is an item of its own."""
        crowd = self._crowd
        for moment, row in sorted(zip(at.tolist(), rows.tolist(), strict=True)):
            mesh = row // crowd.members
            self._probing[row] = False
            enough = _BITS[self._evidence[row]] > crowd.config.confirmations
            if not np.isinf(self.dead_at[row]) or enough or self._count[mesh] == _ACCUSERS_MAX:
                continue
            if row in self._accusers[mesh]:
                continue
            item = int(self._count[mesh])
            self._accusers[mesh, item] = row
            self._count[mesh] += 1
            one, now = np.array([row]), np.array([moment])
            first = bool(np.isinf(self.suspected_at[row]))
            self._evidence[row] |= np.uint8(1 << item)
            if first:
                self.suspected_at[row] = moment
                others = self._witnesses[mesh][self._witnesses[mesh] != row]
                senders, items = np.full(len(others), row), np.full(len(others), 1 << item)
                crowd.send(np.full(len(others), moment), senders, others, items)
            crowd.tell(one, now, item, urgent=first, from_timer=True)
            self._accused(one, now)

    # ------------------------------------------------------------ what is heard
    def heard(self, at: Floats, targets: Ints, senders: Ints, items: Ints) -> None:
        open_ = np.isinf(self.dead_at[targets])
        known = self._evidence[targets].astype(np.int64)
        said = np.where(
            items >> _DEAD, 1 << _DEAD, items
        )  # a verdict names accusers, but accuses nobody itself
        repeated = said & np.where(open_, known, 1 << _DEAD)
        echoes = repeated != 0
        if self._crowd.config.feedback:
            self._crowd.echoed(targets[echoes], senders[echoes], repeated[echoes], counts=True)
        matters = np.flatnonzero(open_ & ((items & ~known) != 0))
        if not len(matters):
            return
        order = matters[np.lexsort((at[matters], targets[matters]))]
        rows, starts = np.unique(targets[order], return_index=True)
        news = items[order] & ~known[order]
        self._weigh(rows, at[order][starts], np.bitwise_or.reduceat(items[order], starts).astype(np.uint8))
        if self._crowd.config.feedback:
            again = _said_before(targets[order], news)
            echoes = again != 0
            self._crowd.echoed(targets[order][echoes], senders[order][echoes], again[echoes], counts=True)

    def _weigh(self, rows: Ints, at: Floats, items: Bytes) -> None:
        """Members, each once, hear items."""
        crowd = self._crowd
        known = self._evidence[rows]
        room = _BITS[known] <= crowd.config.confirmations
        new = np.where(room, items & np.uint8(_ACCUSED) & ~known, np.uint8(0))
        self._evidence[rows] = known | new
        first = np.isinf(self.suspected_at[rows]) & (new != 0)
        self.suspected_at[rows[first]] = at[first]
        latest_at = np.where(new != 0, at, self._accused_at[rows])
        had_its_time = at - latest_at >= crowd.config.refutation_s
        dead = (items >> _DEAD) == 1
        condemned = dead & had_its_time & (_BITS[known | new] >= self._needed)
        self._condemn(rows[condemned], at[condemned], from_timer=False)
        left = ~condemned
        for item in range(_ACCUSERS_MAX):
            having = left & (new >> item & 1 == 1)
            crowd.tell(rows[having], at[having], item, urgent=first[having])
        called = first & left & self._is_witness[rows]
        no_more = np.zeros(int(called.sum()), dtype=np.int64)
        crowd.calendar.put(Kind.PROBE, at[called], rows[called], no_more)
        changed = left & (new != 0)
        self._accused(rows[changed], at[changed])

    # ------------------------------------------------------------ timers and verdicts
    def _due_at(self, rows: Ints) -> Floats:
        wait_s = self._timeout_s[self._health[rows], _BITS[self._evidence[rows]]]
        least_at = self._accused_at[rows] + self._crowd.config.refutation_s
        return np.asarray(np.maximum(self.suspected_at[rows] + wait_s, least_at))

    def _accused(self, rows: Ints, at: Floats) -> None:
        """Members, each once, hold one accusation more."""
        self._accused_at[rows] = at
        self._crowd.calendar.put(Kind.TIMER, self._due_at(rows), rows)

    def _condemn(self, rows: Ints, at: Floats, *, from_timer: bool) -> None:
        self.dead_at[rows] = at
        self._undecided -= len(rows)
        self._crowd.drop(rows, _ACCUSED)
        self._crowd.tell(rows, at, _DEAD, urgent=True, from_timer=from_timer)

    def due(self) -> None:
        calendar = self._crowd.calendar
        timers = calendar.take(Kind.TIMER)
        if timers is not None:
            at, (rows,) = timers
            due = self._due_at(rows) <= at + _ROUNDING_S
            late = np.isinf(self.dead_at[rows]) & due
            rows, places = first_of_each(rows[late], at[late])
            self._condemn(rows, at[late][places], from_timer=True)
        probes = calendar.take(Kind.PROBE)
        if probes is not None:
            self._probe(probes[0], *probes[1])
        failures = calendar.take(Kind.FAILURE)
        if failures is not None:
            self._accuse(failures[0], failures[1][0])
        contacts = calendar.take(Kind.CONTACT)
        if contacts is not None:
            self._contact(contacts[0], contacts[1][0])

    # ------------------------------------------------------------ repair
    def _contact(self, at: Floats, rows: Ints) -> None:
        """Members that lack evidence meet others; row -1 stands for the plan of the next interval."""
        crowd, network, rng = self._crowd, self._crowd.network, self._crowd.rng
        interval_s = crowd.config.probe_interval_s
        for start_s in at[rows < 0].tolist():
            lacking = np.isinf(self.dead_at) & crowd.up & (_BITS[self._evidence] < self._needed)
            lacking &= np.repeat(self._count > 0, crowd.members)
            members = np.flatnonzero(lacking)
            for _ in range(2):  # it pings, and is pinged
                crowd.calendar.put(Kind.CONTACT, start_s + rng.random(len(members)) * interval_s, members)
            crowd.calendar.put(Kind.CONTACT, np.array([start_s + interval_s]), np.full(1, -1, dtype=np.int64))
        at, rows = at[rows >= 0], rows[rows >= 0]
        unanswered = rng.random(len(rows)) < network.round_trip_lost
        at, rows = at[unanswered], rows[unanswered]  # no ack: a stream is tried
        at = at + self._prober.draw(rng, len(rows))[0]
        others = crowd.others(rows)[:, 0]
        items = (self._evidence[others] & ~self._evidence[rows]).astype(np.int64)
        useful = (items != 0) & crowd.up[others]
        at, rows, others, items = at[useful], rows[useful], others[useful], items[useful]
        took_s = crowd.delays_s(len(at)) + crowd.delays_s(len(at))
        crowd.calendar.put(Kind.ARRIVAL, at + took_s, rows, others, items)


def detection(
    config: GossipConfig,
    members: int,
    *,
    runs: int = 1,
    seed: int = 0,
    network: Network | None = None,
    within_s: float = 600.0,
) -> Detection:
    """Crash one member in each of `runs` settled meshes."""
    network = network or Network()
    prober = Prober(config, network, seed)
    suspected_at, dead_at, datagrams = [], [], 0
    for meshes, rng in batches(members, runs, seed):
        crowd = Crowd(config, network, members=members, meshes=meshes, items=8, rng=rng)
        crash = _Crash(crowd, prober)
        crowd.run(crash, within_s)
        suspected_at.append(crash.suspected_at[crowd.up].reshape(meshes, members - 1))
        dead_at.append(crash.dead_at[crowd.up].reshape(meshes, members - 1))
        datagrams += crowd.datagrams
    return Detection(
        suspected_at=np.concatenate(suspected_at),
        dead_at=np.concatenate(dead_at),
        datagrams=datagrams / runs,
    )
