"""The members this node knows besides itself, what proves their states, and how each peer link stands.

Random choices are made over lists in order of arrival with the engine's rng, never over sets, so that one seed gives
one trace. Witnesses of a suspect are ranked by rendezvous hash (Thaler and Ravishankar, 1998): every node picks the
same few observers for one suspect without agreeing on anything, and the load spreads over the mesh.

Invariant: at most `members_max` entries; the live list, the counts and the prefix index agree with them.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import assert_never

from gossip.member import Member, State
from gossip.statement import Alive, Dead, Left, Suspect
from gossip.wire import SENDER_BYTES, ReplayWindow


@dataclass(slots=True)
class Link:
    """What is known of the datagram path to one member. `boot` is the latest that authenticated."""

    boot: int = 0
    window: ReplayWindow = field(default_factory=ReplayWindow)
    counter: int | None = (
        None  # of the last datagram sent to it; outlives its restarts, as our key for it does
    )
    knows_us: bool = False  # it can authenticate this node's boot; until then datagrams introduce us
    proved: tuple[str, int] | None = None  # it answered a ping sent to this address
    differs_since: float | None = None  # its journal fingerprint has differed from ours since
    diverged_at: float | None = None  # last told so
    corrected_at: float | None = None  # last sent better news than it had, unasked

    def enter(self, boot: int) -> None:
        """A new life of the peer: old counters, and what its old life knew of us, mean nothing now."""
        self.boot = boot
        self.window = ReplayWindow()
        self.knows_us = False
        self.proved = None


@dataclass(slots=True)
class Entry:
    """A member and its proofs: its own Alive (whole; `encoded` is its bytes), its Left, the signed suspicions of
    its present rank."""

    member: Member
    alive: Alive
    encoded: bytes
    left: Left | None = None
    evidence: dict[bytes, Suspect] = field(default_factory=dict)
    suspected_at: float = 0.0
    link: Link = field(default_factory=Link)

    def proofs(self) -> tuple[bytes, ...]:
        """The encoded statements that tell why it is not alive; none if it is, or was dropped without accusation.
        The suspicions of a suspect stay single: bundled they would be a verdict, which is not due yet."""
        match self.member.state:
            case State.ALIVE:
                return ()
            case State.SUSPECT:
                return tuple(suspicion.encode() for suspicion in self.evidence.values())
            case State.LEFT:
                return () if self.left is None else (self.left.encode(),)
            case State.DEAD:
                if not self.evidence:
                    return ()
                boot, incarnation = self.member.rank
                suspicions = tuple(self.evidence.values())
                dead = Dead(subject=self.member.id, boot=boot, incarnation=incarnation, suspicions=suspicions)
                return (dead.encode(),)
        assert_never(self.member.state)


class Roster:
    """Entries by id, in order of arrival."""

    def __init__(self, *, own: bytes, members_max: int) -> None:
        self._own = own
        self._members_max = members_max
        self._entries: dict[bytes, Entry] = {}
        self._prefixes: dict[bytes, bytes] = {}
        self._live: tuple[Entry, ...] | None = ()
        self.alive_count = 0

    def get(self, node: bytes) -> Entry | None:
        return self._entries.get(node)

    def by_prefix(self, prefix: bytes) -> Entry | None:
        """The member whose id starts with the sender field of a datagram."""
        node = self._prefixes.get(prefix)
        return None if node is None else self._entries[node]

    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def live(self) -> tuple[Entry, ...]:
        """Members alive or suspect, this node excluded."""
        if self._live is None:
            self._live = tuple(entry for entry in self._entries.values() if entry.member.live)
            self.alive_count = sum(entry.member.state is State.ALIVE for entry in self._live)
        return self._live

    @property
    def size(self) -> int:
        """Live members, this node included: the n of every formula."""
        return len(self.live()) + 1

    def able(self, subject: Member) -> int:
        """Members alive, this node included, that could accuse `subject`."""
        self.live()
        return self.alive_count + 1 - (subject.state is State.ALIVE)

    def add(self, entry: Entry) -> bool:
        """Take in a new member; when full, the one gone longest makes room. False if nobody can."""
        node = entry.member.id
        assert node != self._own, "this node is not one of the others"
        assert node not in self._entries, "a new member"
        if node[:SENDER_BYTES] in self._prefixes:
            return (
                False  # two ids of one prefix: 2^-64 by chance, so somebody made it; the first one keeps it
            )
        if len(self._entries) >= self._members_max:
            gone = [other for other in self._entries.values() if not other.member.live]
            if not gone:
                return False
            self.remove(min(gone, key=lambda other: other.member.since).member.id)
        self._entries[node] = entry
        self._prefixes[node[:SENDER_BYTES]] = node
        self._live = None
        return True

    def change(self, entry: Entry, member: Member) -> None:
        """Give `entry` its next member value."""
        entry.member = member
        self._live = None

    def remove(self, node: bytes) -> None:
        del self._entries[node]
        del self._prefixes[node[:SENDER_BYTES]]
        self._live = None

    def sample(self, rng: random.Random, entries: Iterable[Entry], count: int) -> list[Entry]:
        """Up to `count` of `entries`, at random."""
        population = list(entries)
        return rng.sample(population, min(count, len(population)))

    def witnesses(self, subject: bytes, count: int) -> list[bytes]:
        """The `count` living members, perhaps this node, ranked first for `subject`, which is not among them."""
        nodes = [
            entry.member.id for entry in self.live() if entry.member.state is State.ALIVE
        ] + [self._own]  # fmt: skip
        ranked = sorted((node for node in nodes if node != subject), key=lambda node: _score(subject, node))
        return ranked[:count]

    def __len__(self) -> int:
        return len(self._entries)


def _score(subject: bytes, node: bytes) -> bytes:
    return blake2b(subject + node, digest_size=8, person=b"gossamer/witness").digest()
