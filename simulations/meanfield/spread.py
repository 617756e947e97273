"""How fast one update reaches everybody: a push epidemic with a limit, and what repairs the rest.

One member publishes. Who hears it for the first time tells it on, at once and then on its gossip tick, `retransmits(n)`
times in all (meanfield/crowd.py). Under loss some hear nothing (the epidemic's limit, see the package), and learn from
the fingerprints on pings and acks instead: when two members that have not changed lately differ, they reconcile over a
stream; so do two of which one did not answer the other's ping, since that is when the engine tries a stream anyway.
Rarest, and for a protocol without fingerprints the only repair, is the regular push-pull.

Rounds are hops: how many members the update went through before it reached this one. That is what a round is in the
literature's synchronous model; with rounds sent at once it has nothing to do with the gossip interval. Who had it over
a stream, or from one who had, has none.

Invariant: `heard_at` never changes once it is set, and nobody hears earlier than who told it.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from gossip.config import GossipConfig
from simulations.meanfield.arrays import Floats, Ints, first_of_each
from simulations.meanfield.crowd import REMEMBERED_MEMBERS_MAX, Crowd, Kind
from simulations.meanfield.parameters import Network, Prober

_STREAMED: Final = 0b11  # the item, and that it came over a stream
ROWS_MAX: Final = 2_000_000  # members simulated side by side: about 100 MB
CELLS_MAX: Final = 1 << 27  # pairs remembered side by side, a byte each


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What became of one update in each of several runs: row r of each array is run r, one column a member."""

    heard_at: Floats  # seconds after it was published; inf: not within the time simulated
    hops: Ints  # members it went through; 0 for the publisher, -1 where a stream had part in it
    datagrams: float  # a run, on average

    def seconds(self, share: float) -> Floats:
        """Until that share of the members had it, of each run."""
        return np.sort(self.heard_at, axis=1)[:, math.ceil(share * self.heard_at.shape[1]) - 1]

    def rounds(self, share: float) -> Floats:
        """The hops within which that share of the members it was pushed to had it, of each run."""
        values = [np.sort(hops[hops >= 0]) for hops in self.hops]
        return np.array([hops[math.ceil(share * len(hops)) - 1] for hops in values], dtype=np.float64)


class Update:
    """The story of one update in each mesh of a crowd. Without a `prober` the push is all there is, and goes on until
    nobody tells it any more. A `statement` about a member is told like a record, but for its echoes."""

    def __init__(self, crowd: Crowd, prober: Prober | None, *, statement: bool = False) -> None:
        self._crowd, self._prober, self._statement = crowd, prober, statement
        self.heard_at: Floats = np.full(crowd.rows, np.inf)
        self.hops: Ints = np.zeros(crowd.rows, dtype=np.int64)
        self._missing = crowd.rows
        firsts = np.arange(0, crowd.rows, crowd.members, dtype=np.int64)
        publishers = firsts + crowd.rng.integers(0, crowd.members, len(firsts))
        self._take_in(publishers, np.zeros(len(firsts)))
        if prober is not None:
            crowd.calendar.put(Kind.TIMER, np.zeros(1), np.zeros(1, dtype=np.int64))

    def heard(self, at: Floats, targets: Ints, senders: Ints, items: Ints) -> None:
        fresh = np.flatnonzero(np.isinf(self.heard_at[targets]))
        rows, places = first_of_each(targets[fresh], at[fresh])
        places = fresh[places]
        pushed = (items[places] == 1) & (self.hops[senders[places]] >= 0)
        self.hops[rows] = np.where(pushed, self.hops[senders[places]] + 1, -1)
        self._take_in(rows, at[places])
        if not self._statement:  # the one it came from counts, and all others are only known to have it
            self._crowd.echoed(rows, senders[places], items[places], counts=True)
            self._crowd.echoed(targets, senders, items, counts=False)
        elif self._crowd.config.feedback:
            again = np.ones(len(targets), dtype=np.bool_)
            again[places] = False
            self._crowd.echoed(targets[again], senders[again], items[again], counts=True)

    def _take_in(self, rows: Ints, at: Floats) -> None:
        self.heard_at[rows] = at
        self._missing -= len(rows)
        self._crowd.tell(rows, at, 0, urgent=True)

    def over(self) -> bool:
        return self._missing == 0 and self._prober is not None

    # ------------------------------------------------------------ repair
    def due(self) -> None:
        window = self._crowd.calendar.take(Kind.TIMER)
        if window is not None:
            self._plan_contacts(float(window[0][0]))
        contacts = self._crowd.calendar.take(Kind.CONTACT)
        if contacts is not None and self._prober is not None:
            self._contact(self._prober, contacts[0], *contacts[1])

    def _plan_contacts(self, start_s: float) -> None:
        """Those who lack the update will ping, be pinged, and perhaps push-pull within the next probe interval."""
        crowd, rng = self._crowd, self._crowd.rng
        config = crowd.config
        interval_s = config.probe_interval_s
        lacking = np.flatnonzero(np.isinf(self.heard_at))
        # everybody pings once and is pinged once an interval on average, whatever the order
        for streams, share in ((0, 1.0), (0, 1.0), (1, 2 * interval_s / config.push_pull_s(crowd.members))):
            chosen = lacking if share == 1.0 else lacking[rng.random(len(lacking)) < share]
            moments = start_s + rng.random(len(chosen)) * interval_s
            crowd.calendar.put(Kind.CONTACT, moments, chosen, np.full(len(chosen), streams))
        next_s = np.array([start_s + interval_s])
        crowd.calendar.put(Kind.TIMER, next_s, np.zeros(1, dtype=np.int64))

    def _contact(self, prober: Prober, at: Floats, rows: Ints, streams: Ints) -> None:
        """A member without the update and another meet by a ping, or (`streams`) over a stream."""
        crowd, network = self._crowd, self._crowd.network
        lacking = np.isinf(self.heard_at[rows])
        at, rows, streams = at[lacking], rows[lacking], streams[lacking]
        others = crowd.others(rows)[:, 0]
        answers = crowd.rng.random((2, len(rows))) >= network.loss
        settled = at - self.heard_at[others] >= crowd.config.diverged_settle_s
        differs = answers[0] & settled  # the ping came, and who was pinged compares
        waits = ~answers.all(axis=0)  # no ack: a stream is tried
        direct_s, _, _ = prober.draw(crowd.rng, len(rows))
        at = np.where(differs | (streams == 1), at, at + direct_s)
        meets = (differs | waits | (streams == 1)) & (self.heard_at[others] <= at)
        rows, others, at = rows[meets], others[meets], at[meets]
        took_s = crowd.delays_s(len(at)) + crowd.delays_s(len(at))
        crowd.calendar.put(Kind.ARRIVAL, at + took_s, rows, others, np.full(len(rows), _STREAMED))


def spread(
    config: GossipConfig,
    members: int,
    *,
    runs: int = 1,
    seed: int = 0,
    network: Network | None = None,
    within_s: float = 600.0,
    repaired: bool = True,
) -> Spread:
    """Publish one update in each of `runs` meshes, until everybody has it. `repaired` False: the push alone, until
    nobody tells it any more."""
    network = network or Network()
    prober = Prober(config, network, seed) if repaired else None
    heard_at, hops, datagrams = [], [], 0
    for meshes, rng in batches(members, runs, seed):
        crowd = Crowd(config, network, members=members, meshes=meshes, items=1, rng=rng)
        update = Update(crowd, prober)
        crowd.run(update, within_s)
        heard_at.append(update.heard_at.reshape(meshes, members))
        hops.append(update.hops.reshape(meshes, members))
        datagrams += crowd.datagrams
    return Spread(heard_at=np.concatenate(heard_at), hops=np.concatenate(hops), datagrams=datagrams / runs)


def batches(members: int, runs: int, seed: int) -> list[tuple[int, np.random.Generator]]:
    """(meshes, generator) of the batches into which `runs` are cut so that each fits into memory."""
    most = max(1, ROWS_MAX // members)
    if members <= REMEMBERED_MEMBERS_MAX:
        most = max(1, min(most, CELLS_MAX // members**2))
    sizes = [min(most, runs - start) for start in range(0, runs, most)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    return [
        (size, np.random.Generator(np.random.PCG64(child))) for size, child in zip(sizes, seeds, strict=True)
    ]
