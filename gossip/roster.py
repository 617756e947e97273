"""The members this node knows besides itself (gossip/entry.py: what proves their states, how each peer link stands).

Nothing costs more the more members there are, but what asks for all of them: counts are kept, ranks and witnesses come
from a sorted order (gossip/order.py), random members from slots that are drawn until one suits, and who has been gone
for longest from an order too, so that a full roster takes in who joins as readily as an empty one. An engine may start
from a shared `Census`; a member of it gets an entry of its own when it is first dealt with.

Witnesses of a suspect are the living members that follow a hash of the suspect on the ring of ids (Karger et al.,
1997): every node picks the same few observers for one suspect without agreeing on anything, the load spreads over
the mesh, and members that differ between two nodes' views move few of them.

Invariant: at most `members_max` entries; counts, order, slots and the indices agree with them.
"""

import random
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from gossip.burial import Burials
from gossip.census import NOBODY, Census, Seat
from gossip.digest import Mark, Standing
from gossip.entry import NO_EVIDENCE, Entry, Link
from gossip.member import Member, State
from gossip.order import IdOrder
from gossip.wire import SENDER_BYTES
from trust.identity import ID_BYTES

_DRAWS_MAX: Final = 16  # draws per member wanted before the few that suit are listed instead


class Roster:
    """Entries by id. `census` is where it starts from."""

    __slots__ = (
        "_burials",
        "_census",
        "_counts",
        "_entries",
        "_expiry_at",
        "_gone",
        "_holders",
        "_known",
        "_members_max",
        "_order",
        "_own",
        "_own_rank",
        "_prefixes",
        "_reaped",
        "_slot_of",
        "_slots",
        "digest",
        "others",
        "removals",
    )

    def __init__(self, *, own: bytes, members_max: int, census: Census = NOBODY) -> None:
        self._own = own
        self._members_max = members_max
        self._census = census
        self.digest = census.digest.copy()  # of all members; gossip/view.py adds this node
        self._entries: dict[bytes, Entry] = {}
        self._reaped: set[bytes] = set()  # census members that are gone
        self._prefixes: dict[bytes, bytes] = {}
        self._slots: list[bytes] = []  # members beyond the census
        self._slot_of: dict[bytes, int] = {}
        self._known = IdOrder(census.ids)  # everybody, this node excluded
        self._order = IdOrder(census.ids)  # everybody live, this node included
        self._order.add(own)
        self._own_rank: int | None = None  # until the order changes
        self._known.remove(own)
        self._holders: dict[tuple[str, int], tuple[bytes, ...]] = {}  # live, the last announced last
        self._burials = Burials()
        self._gone: SortedList[tuple[float, bytes]] | None = None  # since when, and who: dead or left
        self._expiry_at: float = census.expires_at if census.ids else float("inf")
        counted = len(census.ids) - (own in census.seats)
        self._counts = {State.ALIVE: counted, State.SUSPECT: 0, State.DEAD: 0, State.LEFT: 0}
        self.others = counted  # live members, this node excluded
        self.removals = 0  # so far; slots have moved whenever it rises

    # ------------------------------------------------------------ who is there
    def get(self, node: bytes) -> Entry | None:
        """The entry of a member, made from the census at its first use."""
        entry = self._entries.get(node)
        return self._seated(node) if entry is None else entry

    def _seated(self, node: bytes) -> Entry | None:
        """A new entry for a member of the census that has none yet."""
        seat = self._census.seats.get(node)
        if seat is None or node == self._own or node in self._reaped:
            return None
        entry = self._entries[node] = Entry(
            member=seat.member,
            alive=seat.alive,
            encoded=seat.encoded,
            link=Link(boot=seat.member.boot),
            evidence=NO_EVIDENCE,
            counted=Standing.LIVE,
        )
        return entry

    def peek(self, node: bytes) -> Entry | Seat | None:
        """What is known of a member, without making an entry of its own."""
        entry = self._entries.get(node)
        if entry is not None:
            return entry
        return None if node == self._own or node in self._reaped else self._census.seats.get(node)

    def member(self, node: bytes) -> Member | None:
        """A member as it is known, without making an entry of its own."""
        known = self.peek(node)
        return None if known is None else known.member

    def by_prefix(self, prefix: bytes) -> Entry | None:
        """The member whose id starts with the sender field of a datagram."""
        node = self._prefixes.get(prefix) or self._census.prefixes.get(prefix)
        return None if node is None else self.get(node)

    def holder(self, address: tuple[str, int]) -> bytes | None:
        """The live member last announced at `address`."""
        holders = self._at(address)
        return holders[-1] if holders else None

    def _at(self, address: tuple[str, int]) -> tuple[bytes, ...]:
        holders = self._holders.get(address)
        if holders is None:
            node = self._census.addresses.get(address)
            holders = () if node is None or node == self._own or node in self._reaped else (node,)
        return holders

    def members(self) -> Iterator[Member]:
        """All members, sorted by id."""
        for node in self._known:
            entry = self._entries.get(node)
            yield self._census.seats[node].member if entry is None else entry.member

    def entries(self) -> Iterator[Entry]:
        """All entries, sorted by id; each member of the census gets one by this."""
        for node in list(self._known):
            entry = self.get(node)
            assert entry is not None, "whoever is in the order is a member"
            yield entry

    def between(self, low: bytes, high: bytes | None) -> Iterator[bytes]:
        """Ids of members from `low` on and below `high`."""
        return self._known.between(low, high)

    def live(self) -> Iterator[Entry]:
        """Members alive or suspect, sorted by id, this node excluded."""
        for node in list(self._order):
            if node != self._own:
                entry = self.get(node)
                assert entry is not None, "whoever is in the order is a member"
                yield entry

    # ------------------------------------------------------------ how many
    @property
    def size(self) -> int:
        """Live members, this node included: the n of every formula."""
        return self.others + 1

    def count(self, state: State) -> int:
        """Members in `state`, this node excluded."""
        return self._counts[state]

    def able(self, subject: Member) -> int:
        """Members alive, this node included, that could accuse `subject`."""
        return self._counts[State.ALIVE] + 1 - (subject.state is State.ALIVE)

    @property
    def full(self) -> bool:
        return len(self._known) >= self._members_max

    def __len__(self) -> int:
        return len(self._known)

    # ------------------------------------------------------------ the order
    @property
    def own_rank(self) -> int:
        """This node's rank among the live ids."""
        if self._own_rank is None:
            self._own_rank = self._order.rank(self._own)
        return self._own_rank

    def at_rank(self, rank: int) -> bytes:
        """The live id of that rank; perhaps this node's."""
        return self._order.at(rank)

    def witnesses(self, subject: bytes, count: int) -> list[bytes]:
        """The `count` living members, perhaps this node, that follow the subject's point on the ring."""
        point = blake2b(subject, digest_size=ID_BYTES, person=b"gossamer/witness").digest()
        alive = (node for node in self._order.after(point) if node != subject and self._is_alive(node))
        return list(islice(alive, count))

    def _is_alive(self, node: bytes) -> bool:
        entry = self._entries.get(node)
        return entry is None or entry.member.state is State.ALIVE  # no entry: this node, or as in the census

    # ------------------------------------------------------------ at random
    @property
    def slots(self) -> int:
        """How many slots there are; every member has one, this node may have one too."""
        return len(self._census.ids) + len(self._slots)

    def in_slot(self, slot: int) -> bytes:
        """The id in a slot; perhaps one gone, or this node's."""
        base = len(self._census.ids)
        return self._census.ids[slot] if slot < base else self._slots[slot - base]

    def sample_live(self, rng: random.Random, count: int) -> list[Entry]:
        """Up to `count` live members at random."""
        return self._sample(rng, count, frozenset(), alive=False)

    def sample_alive(self, rng: random.Random, count: int, *, but: bytes = b"") -> list[Entry]:
        """Up to `count` members at random that are alive and not suspect; `but` is left out."""
        return self._sample(rng, count, frozenset((but,)), alive=True)

    def _sample(
        self, rng: random.Random, count: int, without: frozenset[bytes], *, alive: bool
    ) -> list[Entry]:
        if self.others > 4 * count:
            chosen: dict[bytes, Entry] = {}
            slots, base = self.slots, len(self._census.ids)
            for _ in range(_DRAWS_MAX * count):
                slot = int(rng.random() * slots)
                node = self._census.ids[slot] if slot < base else self._slots[slot - base]
                if node in chosen or node in without or not self._suits(node, alive=alive):
                    continue
                entry = self.get(node)
                assert entry is not None, "whoever suits is a member"
                chosen[node] = entry
                if len(chosen) == count:
                    return list(chosen.values())
        pool = [node for node in self._order if node not in without and self._suits(node, alive=alive)]
        picked = (self.get(node) for node in rng.sample(pool, min(count, len(pool))))
        return [entry for entry in picked if entry is not None]

    def _suits(self, node: bytes, *, alive: bool) -> bool:
        entry = self._entries.get(node)
        if entry is None:
            return node != self._own and node not in self._reaped
        state = entry.member.state
        return state is State.ALIVE or (state is State.SUSPECT and not alive)

    def lately_dead(self, now: float, within_s: float) -> Burials:
        """Members that died less than `within_s` ago and are still dead; after a great dying some others too."""
        self._burials.settle(now, within_s)
        return self._burials

    def mourn_no_more(self, node: bytes) -> None:
        """It is none of the lately dead: it shall not come back."""
        self._burials.remove(node)

    def sample_dead(self, rng: random.Random, count: int) -> list[Entry]:
        """Up to `count` of the lately dead at random."""
        places = rng.sample(range(len(self._burials)), min(count, len(self._burials)))
        return [self._entries[self._burials[place]] for place in places]

    # ------------------------------------------------------------ changes
    def add(self, entry: Entry) -> bool:
        """Take in a new member; when full, the one gone longest makes room. False if nobody can."""
        node = entry.member.id
        assert node != self._own, "this node is not one of the others"
        assert node not in self._known, "a new member"
        prefix = node[:SENDER_BYTES]
        if self.by_prefix(prefix) is not None or prefix == self._own[:SENDER_BYTES]:
            return (
                False  # two ids of one prefix: 2^-64 by chance, so somebody made it; the first one keeps it
            )
        if len(self) >= self._members_max:
            if not self._gone:
                return False
            self.remove(self._gone[0][1])
        self._entries[node] = entry
        self._prefixes[prefix] = node
        if node in self._census.seats:
            self._reaped.discard(node)
        else:
            self._slot_of[node] = len(self._slots)
            self._slots.append(node)
        self._known.add(node)
        self._count(entry.member, 1)
        self._digest(entry, entry.member.rank, entry.standing())
        self._expiry_at = min(self._expiry_at, entry.member.credential.expires_at)
        return True

    def change(self, entry: Entry, member: Member) -> None:
        """Give `entry` its next member value."""
        before, entry.member = entry.member, member
        if before.live and member.live and before.address == member.address:
            self._counts[before.state] -= 1
            self._counts[member.state] += 1
        else:
            self._count(before, -1)
            self._count(member, 1)
        self._digest(entry, before.rank, entry.standing())
        self._expiry_at = min(self._expiry_at, member.credential.expires_at)

    def withdraw(self, entry: Entry) -> None:
        """Its credential has run out: it stops counting in the digest, unless it changes."""
        self._digest(entry, entry.member.rank, Standing.NONE)

    def _digest(self, entry: Entry, before: tuple[int, int], standing: Standing) -> None:
        """Count as `standing` from now on whom the digest counts at rank `before`."""
        member = entry.member
        self.digest.replace(member.id, Mark(*before, entry.counted), Mark(*member.rank, standing))
        entry.counted = standing

    def remove(self, node: bytes) -> None:
        """Forget a member."""
        entry = self.get(node)
        assert entry is not None, "a member"
        self.withdraw(entry)
        self._count(entry.member, -1)
        del self._entries[node]
        self._known.remove(node)
        self._burials.remove(node)
        self._prefixes.pop(node[:SENDER_BYTES], None)
        if node in self._census.seats:
            self._reaped.add(node)
        else:
            slot, last = self._slot_of.pop(node), self._slots.pop()
            if last != node:
                self._slots[slot], self._slot_of[last] = last, slot
        self.removals += 1

    def _count(self, member: Member, by: int) -> None:
        """Keep the counts, the order and the indices in step with one member value that comes or goes."""
        self._counts[member.state] += by
        self.others += by if member.live else 0
        node, address = member.id, member.address
        if member.live:
            self._own_rank = None
            if by > 0:
                self._order.add(node)
            else:
                self._order.remove(node)
            others = tuple(holder for holder in self._at(address) if holder != node)
            self._holders[address] = (*others, node) if by > 0 else others
            if not self._holders[address] and address not in self._census.addresses:
                del self._holders[address]
            return
        if self._gone is None:
            self._gone = SortedList()
        if by > 0:
            self._gone.add((member.since, node))
        else:
            self._gone.remove((member.since, node))
        if member.state is State.DEAD:
            if by > 0:
                self._burials.add(node, member.since)
            else:
                self._burials.remove(node)

    # ------------------------------------------------------------ time
    def expiring(self, now: float, grace_s: float) -> tuple[list[Entry], list[Entry]]:
        """(live members whose credential has expired, members not live for whom that was `grace_s` ago). Those in
        between are withdrawn. Costs nothing before the first of them is due."""
        if now < self._expiry_at:
            return [], []
        expired: list[Entry] = []
        gone: list[Entry] = []
        following = float("inf")
        for member in list(self.members()):
            expires_at = member.credential.expires_at
            if expires_at > now:
                following = min(following, expires_at)
                continue
            entry = self.get(member.id)
            assert entry is not None, "a member"
            if not member.live and now < expires_at + grace_s:
                self.withdraw(entry)
                following = min(following, expires_at + grace_s)
                continue
            (expired if member.live else gone).append(entry)
            following = min(following, now + grace_s)
        self._expiry_at = following
        return expired, gone
