"""A crowd of members that tell one another things: SWIM's dissemination (section 4.1) on arrays.

Each member holds up to eight items, as bits of one byte, and for each how often it has still to tell it. An item is
told in gossip rounds of `fan_out` datagrams (one at once when the news is urgent, then one each gossip interval)
and on the pings and acks that go anyway; a datagram carries all items that the sender has still to tell.

The gossip timer runs on through silence, and starts anew with any timer of the node that fires when it has run out:
with a ping of its own, and with the reaping, which all members do at the same moments (gossip/clockwork.py). So news
does not wait for a tick quite at random: who pinged lately ticks later. But what a node learns from a timer of its own
(a probe that failed, a suspicion that ran out) it tells in that very step, if its latest tick is a gossip interval ago.

Several meshes of the same size stand side by side in one array (member i of mesh m is row m * members + i), so that a
hundred runs of a hundred members cost little more than one.

Time is cut into slices no longer than the least latency. What happens in a slice is done kind by kind, arrivals first;
what it sends arrives in a later one. Pings and acks, whose moments are random, are looked at every 20 slices.

Who was heard to tell an item is not told it, and hearing may count like telling (Demers et al., 1987, feedback); which
echoes do is the story's to say.

Invariant: an item is told at most `limit` times by each member that was given it, and to one member at most once
while the crowd remembers who was told (up to REMEMBERED_MEMBERS_MAX members a mesh).
"""

import heapq
from enum import IntEnum
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from gossip.clockwork import _REAP_INTERVAL_S as REAP_INTERVAL_S
from gossip.config import GossipConfig, ProbeOrder
from simulations.meanfield.arrays import Bools, Bytes, Floats, Ints, distinct_others, first_of_each
from simulations.meanfield.parameters import Network

REMEMBERED_MEMBERS_MAX: Final = 4096
ITEMS_MAX: Final = 8
_SLICES_A_RIDE: Final = 20
Column = NDArray[np.int64]


class Kind(IntEnum):
    """What can be due, in the order in which a slice does it."""

    ARRIVAL = 0  # target, sender, items
    TIMER = 1  # of the story: a wait is over
    PROBE = 2  # of the story: a member probes
    FAILURE = 3  # of the story: a probe of a member's failed
    CONTACT = 4  # of the story: a member meets another
    ROUND = 5  # a gossip round at once: member
    TICK = 6  # a gossip round of the tick: member
    PING = 7  # a ping of one's own: member
    ACK = 8  # an ack of one's own: member


class Calendar:
    """Batches of events by slice and kind; within a batch in no order."""

    def __init__(self, slice_s: float) -> None:
        self.slice_s = slice_s
        self.now = 0  # the slice that is being done
        self._batches: dict[int, dict[Kind, list[tuple[Floats, tuple[Column, ...]]]]] = {}
        self._slices: list[int] = []

    def put(self, kind: Kind, at: Floats, *columns: Column) -> None:
        """Events of one kind at times `at`; what is late is due now."""
        if not len(at):
            return
        places = np.maximum((at / self.slice_s).astype(np.int64), self.now)
        if places.min() == places.max():
            self._file(int(places[0]), kind, at, columns)
            return
        order = np.argsort(places, kind="stable")
        ordered = places[order]
        bounds = np.concatenate(([0], np.flatnonzero(np.diff(ordered)) + 1, [len(ordered)]))
        for start, end in pairwise(bounds.tolist()):
            chosen = order[start:end]
            self._file(int(ordered[start]), kind, at[chosen], tuple(column[chosen] for column in columns))

    def _file(self, place: int, kind: Kind, at: Floats, columns: tuple[Column, ...]) -> None:
        if place not in self._batches:
            self._batches[place] = {}
            heapq.heappush(self._slices, place)
        self._batches[place].setdefault(kind, []).append((at, columns))

    def advance(self) -> bool:
        """Go to the next slice in which anything is due; False if there is none."""
        while self._slices:
            place = self._slices[0]
            if self._batches[place]:
                self.now = place
                return True
            heapq.heappop(self._slices)
            del self._batches[place]
        return False

    def take(self, kind: Kind) -> tuple[Floats, tuple[Column, ...]] | None:
        """The events of a kind due in this slice, once; None if there are none."""
        batch = self._batches[self.now].pop(kind, None)
        if batch is None:
            return None
        if len(batch) == 1:
            return batch[0]
        width = len(batch[0][1])
        columns = tuple(np.concatenate([columns[i] for _, columns in batch]) for i in range(width))
        return np.concatenate([at for at, _ in batch]), columns


class Story(Protocol):
    """What a simulation makes of what the crowd hears."""

    def heard(self, at: Floats, targets: Ints, senders: Ints, items: Ints) -> None:
        """Datagrams arrived; one target may have several."""

    def due(self) -> None:
        """Do what the story itself put into the calendar for this slice."""

    def over(self) -> bool:
        """Whether nothing that happens now matters any more."""


class Crowd:
    """`meshes` meshes of `members` members each; all of them reachable but those not in `up`."""

    def __init__(
        self,
        config: GossipConfig,
        network: Network,
        *,
        members: int,
        meshes: int,
        items: int,
        rng: np.random.Generator,
    ) -> None:
        assert members > 16, "for a handful of members run the engine itself"
        assert 0 < items <= ITEMS_MAX, "items are bits of a byte"
        self.config, self.network, self.rng = config, network, rng
        self.members, self.rows = members, members * meshes
        self.limit, self.fan_out = config.retransmits(members), config.fan_out(members)
        self.calendar = Calendar(network.latency_s[0])
        self.up: Bools = np.ones(self.rows, dtype=np.bool_)
        self.pending: Bytes = np.zeros(self.rows, dtype=np.uint8)  # items still to be told
        self.proofs: Bytes | None = None  # what goes along with item 7, a verdict
        self.datagrams = 0
        self.tellings: tuple[float, Ints] | None = None  # (width, counts): datagrams by mesh and time, if set
        self._left: Bytes = np.zeros((items, self.rows), dtype=np.uint8)
        self._echoes: Bytes = np.zeros((items, self.rows), dtype=np.uint8)
        self._ticking: Bools = np.zeros(self.rows, dtype=np.bool_)
        self._riding = {kind: np.zeros(self.rows, dtype=np.bool_) for kind in (Kind.PING, Kind.ACK)}
        self._ticked_at: Floats = np.full(self.rows, -np.inf)
        self._clock_at: Floats = (
            rng.random(self.rows // members) * REAP_INTERVAL_S
        )  # all clocks of a mesh at 0
        remembers = members <= REMEMBERED_MEMBERS_MAX
        self._told: Bytes | None = np.zeros((self.rows, members), dtype=np.uint8) if remembers else None

    # ------------------------------------------------------------ running
    def run(self, story: Story, until_s: float) -> None:
        """Let time pass until nothing is due, the story is over, or `until_s`."""
        calendar = self.calendar
        while calendar.advance() and calendar.now * calendar.slice_s < until_s and not story.over():
            arrivals = calendar.take(Kind.ARRIVAL)
            if arrivals is not None:
                at, (targets, senders, items) = arrivals
                story.heard(at, targets, senders, items)
            story.due()
            for kind in (Kind.ROUND, Kind.TICK):
                batch = calendar.take(kind)
                if batch is not None:
                    self._round(batch[0], batch[1][0], tick=kind is Kind.TICK)
            for kind in (Kind.PING, Kind.ACK):
                batch = calendar.take(kind)
                if batch is not None:
                    self._ride(kind, batch[0], batch[1][0])

    # ------------------------------------------------------------ telling
    def tell(
        self, rows: Ints, at: Floats, item: int, *, urgent: Bools | bool, from_timer: bool = False
    ) -> None:
        """Members `rows`, each once, have an item to tell from `at` on. `from_timer`: a timer of theirs told them."""
        if not len(rows):
            return
        self._left[item, rows] = self.limit
        self._echoes[item, rows] = 0
        self.pending[rows] |= np.uint8(1 << item)
        if self._told is not None:
            self._told[rows] &= np.uint8(0xFF ^ (1 << item))
        if self.config.urgent_rounds_per_s > 0:
            now = np.broadcast_to(np.asarray(urgent), rows.shape)
            self.calendar.put(Kind.ROUND, at[now] + self.network.handling_s, rows[now])
        quiet = ~self._ticking[rows]
        self._wake(rows[quiet], at[quiet], from_timer=from_timer)

    def drop(self, rows: Ints, items: int) -> None:
        """Tell `items` (bits) no more."""
        self.pending[rows] &= np.uint8(0xFF ^ items)

    def echoed(self, rows: Ints, senders: Ints, items: Ints, *, counts: bool) -> None:
        """Members heard from `senders` what they have: these need not be told, and each echo that `counts` is as good
        as a telling, for up to half of the limit (gossip/broadcast.py)."""
        if self._told is not None:
            np.bitwise_or.at(self._told, (rows, senders % self.members), items.astype(np.uint8))
        if not counts:
            return
        waiting = self.pending[rows] & items
        for item in range(len(self._left)):
            having, echoes = np.unique(rows[(waiting >> item & 1) == 1], return_counts=True)
            if len(having):
                echoes = np.minimum(echoes, self.limit // 2 - self._echoes[item, having])
                self._echoes[item, having] += echoes.astype(np.uint8)
                left = np.maximum(self._left[item, having].astype(np.int64) - echoes, 0)
                self._left[item, having] = left
                self._spent(having[left == 0], item)

    def send(self, at: Floats, senders: Ints, targets: Ints, items: Ints) -> None:
        """Datagrams with `items`, some of which are lost, and those to whom is not `up` all."""
        self.datagrams += len(senders)
        if self.tellings is not None:
            width_s, counts = self.tellings
            places = np.minimum((at / width_s).astype(np.int64), counts.shape[1] - 1)
            np.add.at(counts, (senders // self.members, places), 1)
        arrives = self.up[targets]
        if self.network.loss:
            arrives &= self.rng.random(len(senders)) >= self.network.loss
        at, senders, targets, items = at[arrives], senders[arrives], targets[arrives], items[arrives]
        self.calendar.put(Kind.ARRIVAL, at + self.delays_s(len(at)), targets, senders, items)

    def delays_s(self, count: int) -> Floats:
        """How long `count` datagrams take."""
        return self.rng.uniform(*self.network.latency_s, count)

    def others(self, rows: Ints, count: int = 1) -> Ints:
        """`count` distinct others of the same mesh for each of `rows`, an array (len(rows), count)."""
        own = rows % self.members
        return distinct_others(self.rng, own, self.members, count) + (rows - own)[:, None]

    def _spent(self, rows: Ints, item: int) -> None:
        self.pending[rows] &= np.uint8(0xFF ^ (1 << item))

    def _wake(self, rows: Ints, at: Floats, *, from_timer: bool) -> None:
        """Start the ticks of members that were quiet, and watch out for their next ping and ack."""
        interval_s, tick_s = self.config.probe_interval_s, self.config.gossip_interval_s
        pinged_s, ping_s = self._turns(rows, at)
        reaped_s = (at + self._clock_at[rows // self.members]) % REAP_INTERVAL_S
        since_s = np.minimum(np.minimum(pinged_s, reaped_s), at - self._ticked_at[rows])
        wait_s = np.maximum(0.0, tick_s - since_s) if from_timer else tick_s - since_s % tick_s
        self._ticking[rows] = True
        self.calendar.put(Kind.TICK, at + wait_s, rows)
        ack_s = self._until_pinged(len(rows), again=False) * interval_s
        for kind, until_s in ((Kind.PING, ping_s), (Kind.ACK, ack_s)):
            still = ~self._riding[kind][rows]
            self._riding[kind][rows] = True
            self.calendar.put(kind, self._coarse(at + until_s)[still], rows[still])

    def _turns(self, rows: Ints, at: Floats) -> tuple[Floats, Floats]:
        """(time since the latest ping, time until the next) of members at times `at`: under a permutation a ping's
        moment within an epoch is the target's, and so another one in each."""
        interval_s = self.config.probe_interval_s
        this, other = self.rng.random((2, len(rows))) * interval_s
        if self.config.probe_order is ProbeOrder.ROUND_ROBIN:
            return this, interval_s - this
        moment = self._moment(rows, at)
        done = this <= moment
        since_s = np.where(done, moment - this, moment + interval_s - other)
        return since_s, np.where(done, interval_s - moment + other, this - moment)

    def _until_next_ping(self, rows: Ints, at: Floats) -> Floats:
        """Time until the ping after the one that members send at times `at`."""
        interval_s = self.config.probe_interval_s
        if self.config.probe_order is ProbeOrder.ROUND_ROBIN:
            return np.full(len(rows), interval_s)
        return np.asarray(interval_s - self._moment(rows, at) + self.rng.random(len(rows)) * interval_s)

    def _moment(self, rows: Ints, at: Floats) -> Floats:
        """How far into its epoch."""
        return np.asarray((at + self._clock_at[rows // self.members]) % self.config.probe_interval_s)

    def _until_pinged(self, count: int, *, again: bool) -> Floats:
        """Probe intervals until a member is pinged (`again`: just was)."""
        if self.config.probe_order is ProbeOrder.ROUND_ROBIN:
            return self.rng.exponential(1.0, count)
        return np.ones(count) if again else self.rng.random(count)

    def _coarse(self, at: Floats) -> Floats:
        """Later than `at`, at one of fewer moments: pings come at random moments, so some slices do for all of them."""
        grain_s = _SLICES_A_RIDE * self.calendar.slice_s
        return np.asarray((np.floor(at / grain_s) + 1) * grain_s)

    def _round(self, at: Floats, rows: Ints, *, tick: bool) -> None:
        """A gossip round of each of `rows`."""
        rows, places = first_of_each(rows, at)
        at = at[places]
        busy = self.pending[rows] != 0
        if tick:
            self._ticking[rows[~busy]] = False
            rows, at = rows[busy], at[busy]
            self._ticked_at[rows] = at
            self.calendar.put(Kind.TICK, at + self.config.gossip_interval_s, rows)
        else:
            rows, at = rows[busy], at[busy]
        targets = self.others(rows, self.fan_out)
        for column in range(self.fan_out):
            self._transmit(at, rows, targets[:, column])

    def _ride(self, kind: Kind, at: Floats, rows: Ints) -> None:
        """What rides on a ping, or on the ack to a ping that came."""
        interval_s = self.config.probe_interval_s
        busy = self.pending[rows] != 0
        self._riding[kind][rows[~busy]] = False
        rows, at = rows[busy], at[busy]
        if kind is Kind.PING:
            self.calendar.put(kind, self._coarse(at + self._until_next_ping(rows, at)), rows)
        else:
            next_s = self._until_pinged(len(rows), again=True) * interval_s
            self.calendar.put(kind, self._coarse(at + next_s), rows)
            if self.network.loss:
                pinged = self.rng.random(len(rows)) >= self.network.loss
                rows, at = rows[pinged], at[pinged]
        self._transmit(at, rows, self.others(rows)[:, 0])

    def _transmit(self, at: Floats, rows: Ints, targets: Ints) -> None:
        """One datagram from each of `rows`, each once, with all it has to tell that target."""
        items = self.pending[rows]
        if self._told is not None:
            items = items & ~self._told[rows, targets % self.members]
        telling = items != 0
        at, rows, targets, items = at[telling], rows[telling], targets[telling], items[telling]
        if not len(rows):
            return
        if self._told is not None:
            self._told[rows, targets % self.members] |= items
        for item in range(len(self._left)):
            having = rows[(items >> item & 1) != 0]
            if len(having):
                left = self._left[item, having] - np.uint8(1)
                self._left[item, having] = left
                self._spent(having[left == 0], item)
        if self.proofs is not None:
            items = np.where(items & 0x80, items | self.proofs[rows], items)
        self.send(at, rows, targets, items.astype(np.int64))
