"""Who is probed when, and the probes under way (SWIM, sections 3.1 and 4.3; Lifeguard, section 3.1).

Two orders. SWIM's randomised round robin (`RoundRobin`): each node walks the members in a random order of its own, so
a member is probed once an interval on average, but by nobody at all in an interval with probability 1/e.

Ours (`Rotation`): time is cut into epochs of one probe interval, and in epoch e the node of rank r among the sorted
live ids probes the node of rank r + shift(e) mod n. That is a permutation, so in every epoch everybody is probed by
exactly one other; and at a moment of the epoch that a hash of the *target* gives, so that a member is probed every
interval to the second and a crash meets its first probe after half an interval on average and after one at most. The
shifts of n - 1 successive epochs are a permutation of 1 .. n - 1 too, so that each pair meets within 2n - 3 intervals
as in SWIM. Nobody agrees on anything: where clocks or views differ for a while, a few members are probed twice or not
at all in an epoch, and the order is no worse than a random one.

A probe has two stages: a direct ping, and after the probe timeout requests to k relays (and a stream, see the
engine). It fails when neither an ack nor better news arrived by its end.

Invariant: at most `probes_max` probes and `relays_max` relayed ones; one probe per target at a time.
"""

import math
import random
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from gossip.entry import Entry
from gossip.member import Member
from gossip.message import SEQUENCE_MAX
from gossip.roster import Roster

RELAYS_PER_MEMBER_MAX: Final = 16  # so that no member takes the places of all others


class Purpose(Enum):
    ROUND = "round"  # the round robin's turn
    WITNESS = "witness"  # a suspicion reached one of the suspect's witnesses
    CONTACT = "contact"  # a dead member, in case it is back
    RECALL = "recall"  # a suspect of this node's own that stays one, in case the way to it is open again


@dataclass(slots=True)
class Probe:
    """One probe under way. `asked` are the relays, once it came to that."""

    target: bytes
    rank: tuple[int, int]  # the target's when the probe started; a higher one by now is proof of life
    sequence: int
    purpose: Purpose
    begun_at: float
    asks_at: float
    ends_at: float
    indirect: bool = False
    asked: tuple[bytes, ...] = ()
    nacked: tuple[bytes, ...] = ()

    @property
    def judges(self) -> bool:
        """Whether it says something of a target that counts as alive, and of this node, when it fails."""
        return self.purpose is Purpose.ROUND or self.purpose is Purpose.WITNESS


@dataclass(slots=True)
class Relay:
    """A ping sent for another member. `reply_bytes_max` bounds the answer until the address is proved."""

    target: bytes
    requester: bytes
    reply_to: tuple[str, int]
    reply_bytes_max: int
    sequence: int
    nack_at: float
    ends_at: float
    nacked: bool = False


class RoundRobin:
    """Slots of the roster drawn without replacement (Fisher and Yates, of which only the swaps are kept)."""

    __slots__ = ("_left", "_removals", "_slots", "_swaps")

    def __init__(self) -> None:
        self._left = 0
        self._slots = 0
        self._removals = 0
        self._swaps: dict[int, int] = {}

    def next(self, roster: Roster, rng: random.Random) -> Entry | None:
        """The next live member, or None if there is none."""
        if roster.others == 0:
            return None
        if roster.removals != self._removals:
            self._left = 0
        while (
            self._slots < roster.slots and self._left
        ):  # newcomers get a random place of what is still to come
            self._swaps[self._left] = self._slots
            self._left += 1
            self._slots += 1
        while True:
            if self._left == 0:
                self._left = self._slots = roster.slots
                self._removals = roster.removals
                self._swaps.clear()
            entry = roster.get(roster.in_slot(self._draw(rng)))
            if entry is not None and entry.member.live:
                return entry

    def _draw(self, rng: random.Random) -> int:
        chosen = rng.randrange(self._left)
        self._left -= 1
        last = self._swaps.pop(self._left, self._left)
        if chosen == self._left:
            return last
        slot = self._swaps.get(chosen, chosen)
        self._swaps[chosen] = last
        return slot


class Rotation:
    """The permutation of each epoch, as this node sees the members."""

    __slots__ = ("_epoch", "_interval_s", "_own", "_target")

    def __init__(self, own: bytes, interval_s: float) -> None:
        self._own = own
        self._interval_s = interval_s
        self._epoch = -1
        self._target: bytes | None = None

    def plan(self, now: float, roster: Roster) -> float:
        """When to probe next; whom is decided now."""
        self._epoch = max(self._epoch + 1, math.floor(now / self._interval_s))
        self._target = self.target(self._epoch, roster)
        at = self._at()
        if at < now:  # its moment of this epoch is over
            self._epoch += 1
            self._target = self.target(self._epoch, roster)
            at = max(now, self._at())
        return at

    def next(self, roster: Roster) -> Entry | None:
        """The member planned for now, if it is still live."""
        entry = None if self._target is None else roster.get(self._target)
        return entry if entry is not None and entry.member.live else None

    def target(self, epoch: int, roster: Roster) -> bytes | None:
        """Whom this node probes in an epoch, or None if it is alone."""
        size = roster.size
        if size < 2:
            return None
        return roster.at_rank((roster.own_rank + shift(epoch, size)) % size)

    def _at(self) -> float:
        phase = 0.0 if self._target is None else _phase(self._target)
        return (self._epoch + phase) * self._interval_s


def shift(epoch: int, size: int) -> int:
    """How far around the ring of `size` members everybody looks in an epoch: 1 .. size - 1, each once a cycle."""
    cycle, place = divmod(epoch, size - 1)
    stride = _stride(cycle, size - 1)
    return (place * stride + cycle) % (size - 1) + 1


@lru_cache(maxsize=256)
def _stride(cycle: int, period: int) -> int:
    """A number coprime to `period`, another one in each cycle."""
    seed = blake2b(cycle.to_bytes(8, "big"), digest_size=8, person=b"gossamer/stride").digest()
    stride = int.from_bytes(seed, "big") % period
    while math.gcd(stride, period) != 1:
        stride += 1
    return stride


def _phase(node: bytes) -> float:
    """When in an epoch a member is probed: 0 <= phase < 1, by its id, which is a hash."""
    return int.from_bytes(node[-4:], "big") / 2**32


class Probes:
    """Probes and relayed probes by sequence number."""

    def __init__(self, *, probes_max: int, relays_max: int, rng: random.Random) -> None:
        self._probes_max, self._relays_max = probes_max, relays_max
        self._sequence = rng.getrandbits(32)
        self._probes: dict[int, Probe] = {}
        self._targets: dict[bytes, int] = {}
        self._relays: dict[int, Relay] = {}

    def start(
        self, member: Member, purpose: Purpose, *, begun_at: float, asks_at: float, ends_at: float
    ) -> Probe | None:
        """A new probe, or None if the target is being probed already or too many are under way."""
        if member.id in self._targets or len(self._probes) >= self._probes_max:
            return None
        probe = Probe(
            target=member.id,
            rank=member.rank,
            sequence=self._number(),
            purpose=purpose,
            begun_at=begun_at,
            asks_at=asks_at,
            ends_at=ends_at,
        )
        self._probes[probe.sequence] = probe
        self._targets[member.id] = probe.sequence
        return probe

    def relay(self, relay: Relay) -> int | None:
        """The sequence number for a ping on behalf of another, or None if too many are under way."""
        own = sum(other.requester == relay.requester for other in self._relays.values())
        if len(self._relays) >= self._relays_max or own >= RELAYS_PER_MEMBER_MAX:
            return None
        sequence = self._number()
        self._relays[sequence] = relay
        return sequence

    def finish(self, sequence: int, *, sender: bytes) -> Probe | None:
        """The probe that an ack by `sender` (the target or a relay asked) ends, if any."""
        probe = self._probes.get(sequence)
        if probe is None or (sender != probe.target and sender not in probe.asked):
            return None
        self._drop(probe)
        return probe

    def finish_target(self, target: bytes) -> Probe | None:
        """The probe of `target`, ended by other proof that it lives."""
        sequence = self._targets.get(target)
        return None if sequence is None else self.finish(sequence, sender=target)

    def finish_relay(self, sequence: int, *, sender: bytes) -> Relay | None:
        """The relayed probe that an ack by `sender` answers, which is over with it."""
        relay = self._relays.get(sequence)
        if relay is None or relay.target != sender:
            return None
        del self._relays[sequence]
        return relay

    def nack(self, sequence: int, *, sender: bytes) -> None:
        """A relay said that it is fine and the target silent."""
        probe = self._probes.get(sequence)
        if probe is not None and sender in probe.asked and sender not in probe.nacked:
            probe.nacked = (*probe.nacked, sender)

    def asking(self, now: float) -> list[Probe]:
        """Probes whose direct ping ran out of time; their indirect stage starts."""
        if not self._probes:
            return []
        due = [probe for probe in self._probes.values() if not probe.indirect and probe.asks_at <= now]
        for probe in due:
            probe.indirect = True
        return due

    def failed(self, now: float) -> list[Probe]:
        """Probes whose time is up; they are over."""
        if not self._probes:
            return []
        due = [probe for probe in self._probes.values() if probe.ends_at <= now]
        for probe in due:
            self._drop(probe)
        return due

    def nacks_due(self, now: float) -> list[Relay]:
        """Relayed probes to be nacked now; those whose time is up are dropped."""
        if not self._relays:
            return []
        due = [relay for relay in self._relays.values() if not relay.nacked and relay.nack_at <= now]
        for relay in due:
            relay.nacked = True
        for sequence in [number for number, relay in self._relays.items() if relay.ends_at <= now]:
            del self._relays[sequence]
        return due

    def delay(self, lag_s: float) -> None:
        """This node was not running for `lag_s`: what it waits for gets that much longer."""
        for probe in self._probes.values():
            probe.begun_at += lag_s
            probe.asks_at += lag_s
            probe.ends_at += lag_s

    @property
    def deadline(self) -> float | None:
        """When the next stage of anything is due."""
        least = None
        for probe in self._probes.values():
            at = probe.ends_at if probe.indirect else probe.asks_at
            if least is None or at < least:
                least = at
        for relay in self._relays.values():
            at = relay.ends_at if relay.nacked else relay.nack_at
            if least is None or at < least:
                least = at
        return least

    def clear(self) -> None:
        """Probe nobody any more."""
        self._probes.clear()
        self._targets.clear()

    def __len__(self) -> int:
        return len(self._probes)

    def _number(self) -> int:
        """The next sequence number not in use."""
        self._sequence = self._sequence + 1 & SEQUENCE_MAX
        while self._sequence in self._probes or self._sequence in self._relays:
            self._sequence = self._sequence + 1 & SEQUENCE_MAX
        return self._sequence

    def _drop(self, probe: Probe) -> None:
        del self._probes[probe.sequence]
        del self._targets[probe.target]
