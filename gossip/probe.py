"""Who is probed when, and the probes under way (SWIM, sections 3.1 and 4.3; Lifeguard, section 3.1).

Targets come in randomised round robin: a shuffled list walked to its end and shuffled again, newcomers put in at a
random place, so that every member is probed within 2n - 1 intervals and on average once per interval by somebody.
A probe has two stages: a direct ping, and after the probe timeout requests to k relays (and a stream, see the
engine). It fails when neither an ack nor better news arrived by its end.

Invariant: at most `probes_max` probes and `relays_max` relayed ones; one probe per target at a time.
"""

import random
from dataclasses import dataclass
from enum import Enum

from gossip.member import Member
from gossip.message import SEQUENCE_MAX
from gossip.roster import Entry, Roster


class Purpose(Enum):
    ROUND = "round"  # the round robin's turn
    WITNESS = "witness"  # a suspicion reached one of the suspect's witnesses
    CONTACT = "contact"  # a dead member, in case it is back


@dataclass(slots=True)
class Probe:
    """One probe under way. `asked` are the relays, once it came to that."""

    target: bytes
    rank: tuple[int, int]  # the target's when the probe started; a higher one by now is proof of life
    sequence: int
    purpose: Purpose
    asks_at: float
    ends_at: float
    indirect: bool = False
    asked: tuple[bytes, ...] = ()
    nacked: tuple[bytes, ...] = ()


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
    """The shuffled list of targets."""

    __slots__ = ("_next", "_order")

    def __init__(self) -> None:
        self._order: list[bytes] = []
        self._next = 0

    def add(self, node: bytes, rng: random.Random) -> None:
        """Put a newcomer at a random place of what is still to come."""
        self._order.insert(rng.randint(self._next, len(self._order)), node)

    def next(self, roster: Roster, rng: random.Random) -> Entry | None:
        """The next live member, or None if there is none."""
        for _ in range(2):
            while self._next < len(self._order):
                entry = roster.get(self._order[self._next])
                self._next += 1
                if entry is not None and entry.member.live:
                    return entry
            self._order = [entry.member.id for entry in roster.live()]
            rng.shuffle(self._order)
            self._next = 0
        return None


class Probes:
    """Probes and relayed probes by sequence number."""

    def __init__(self, *, probes_max: int, relays_max: int, rng: random.Random) -> None:
        self._probes_max, self._relays_max = probes_max, relays_max
        self._sequence = rng.getrandbits(32)
        self._probes: dict[int, Probe] = {}
        self._targets: dict[bytes, int] = {}
        self._relays: dict[int, Relay] = {}

    def start(self, member: Member, purpose: Purpose, *, asks_at: float, ends_at: float) -> Probe | None:
        """A new probe, or None if the target is being probed already or too many are under way."""
        if member.id in self._targets or len(self._probes) >= self._probes_max:
            return None
        probe = Probe(
            target=member.id,
            rank=member.rank,
            sequence=self._number(),
            purpose=purpose,
            asks_at=asks_at,
            ends_at=ends_at,
        )
        self._probes[probe.sequence] = probe
        self._targets[member.id] = probe.sequence
        return probe

    def relay(self, relay: Relay) -> int | None:
        """The sequence number for a ping on behalf of another, or None if too many are under way."""
        if len(self._relays) >= self._relays_max:
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
        due = [probe for probe in self._probes.values() if not probe.indirect and probe.asks_at <= now]
        for probe in due:
            probe.indirect = True
        return due

    def failed(self, now: float) -> list[Probe]:
        """Probes whose time is up; they are over."""
        due = [probe for probe in self._probes.values() if probe.ends_at <= now]
        for probe in due:
            self._drop(probe)
        return due

    def nacks_due(self, now: float) -> list[Relay]:
        """Relayed probes to be nacked now; those whose time is up are dropped."""
        due = [relay for relay in self._relays.values() if not relay.nacked and relay.nack_at <= now]
        for relay in due:
            relay.nacked = True
        for sequence in [number for number, relay in self._relays.items() if relay.ends_at <= now]:
            del self._relays[sequence]
        return due

    def delay(self, lag_s: float) -> None:
        """This node was not running for `lag_s`: what it waits for gets that much longer."""
        for probe in self._probes.values():
            probe.asks_at += lag_s
            probe.ends_at += lag_s

    @property
    def deadline(self) -> float | None:
        """When the next stage of anything is due."""
        times = [probe.ends_at if probe.indirect else probe.asks_at for probe in self._probes.values()]
        times += [relay.ends_at if relay.nacked else relay.nack_at for relay in self._relays.values()]
        return min(times, default=None)

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
