"""The member list that two nodes compare: this node and its roster, with the digest that sums them up.

The roster keeps the digest of the others as they change; this node's own part is brought up to date here, whenever it
is looked at, because only this node moves it and it is cheap to tell. Nothing here makes entries of members that the
roster shares with others (gossip/census.py).

Invariant: what is told of a member is signed by who must sign it, and is of now: nothing of the revoked, nothing under
a credential that has run out.
"""

from collections.abc import Collection, Iterator, Mapping

from gossip.census import NOBODY, Census, Seat
from gossip.digest import BUCKETS, Mark, Standing
from gossip.entry import Entry
from gossip.presence import Presence
from gossip.roster import Roster
from gossip.statement import Alive, Left
from gossip.sync import Lack


class MemberList:
    """See the module's theory. `census` is what the roster starts from, this node perhaps among them."""

    __slots__ = ("_alive", "_counted", "_evicted", "_left", "_now", "_presence", "_roster")

    def __init__(
        self,
        presence: Presence,
        roster: Roster,
        evicted: Mapping[bytes, str],
        *,
        now: float,
        census: Census = NOBODY,
    ) -> None:
        self._presence = presence
        self._roster = roster
        self._evicted = evicted
        self._now = now
        seat = census.seats.get(presence.id)
        self._counted = None if seat is None else Mark(*seat.member.rank, Standing.LIVE)
        self._alive: Alive | None = None  # what this node said of itself when it was last looked at
        self._left: Left | None = None

    def observe(self, now: float) -> bytes:
        """Take in the time and this node's own present standing; the root of the list as of now."""
        self._now = now
        presence, counted = self._presence, self._counted
        if presence.alive is self._alive and presence.left is self._left:
            return self._roster.digest.root
        self._alive, self._left = presence.alive, presence.left
        standing = Standing.LIVE if presence.left is None else Standing.LEFT
        if counted is None or counted.rank != presence.rank or counted.standing is not standing:
            mark = Mark(*presence.rank, standing)
            self._roster.digest.replace(presence.id, counted, mark)
            self._counted = mark
        return self._roster.digest.root

    @property
    def root(self) -> bytes:
        """Eight bytes that tell lists apart."""
        return self.observe(self._now)

    @property
    def count(self) -> int:
        """How many members count."""
        self.observe(self._now)
        return self._roster.digest.count

    def values(self) -> bytes:
        """The values of all buckets (gossip/digest.py)."""
        self.observe(self._now)
        return self._roster.digest.values()

    def marks(self, buckets: Collection[int]) -> Iterator[tuple[bytes, Mark]]:
        """Each member that counts in one of `buckets`; this node, if it does, first."""
        own = self._presence.id
        if own[0] in buckets:
            yield own, self._own()
        for bucket in buckets:
            following = bytes((bucket + 1,)) if bucket + 1 < BUCKETS else None
            for node in self._roster.between(bytes((bucket,)), following):
                mark = self._mark(node)
                if mark is not None and mark.standing is not Standing.NONE:
                    yield node, mark

    def lack(self, node: bytes, mark: Mark) -> Lack:
        """What of the statements behind `mark` would be news here. Of the revoked nothing is."""
        if node in self._evicted:
            return Lack.NOTHING
        held = self._own() if node == self._presence.id else self._mark(node)
        if held is None or held.rank < mark.rank:
            return Lack.EVERYTHING
        if held.standing is Standing.NONE:
            return Lack.NOTHING  # whom the clock has taken out only a later rank can bring back
        return Lack.PROOFS if held < mark else Lack.NOTHING

    def alive(self, node: bytes) -> bytes | None:
        """The whole Alive of a member; None if nothing may be told of it."""
        if node == self._presence.id:
            return self._presence.encoded
        known = self._tellable(node)
        return None if known is None else known.encoded

    def proofs(self, node: bytes) -> tuple[bytes, ...]:
        """The statements that tell why a member is not alive, if it is not."""
        if node == self._presence.id:
            return () if self._presence.left is None else (self._presence.left.encode(),)
        known = self._tellable(node)
        return known.proofs() if isinstance(known, Entry) else ()

    def _tellable(self, node: bytes) -> Entry | Seat | None:
        known = self._roster.peek(node)
        if known is None or node in self._evicted or self._now >= known.member.credential.expires_at:
            return None
        return known

    def _mark(self, node: bytes) -> Mark | None:
        known = self._roster.peek(node)
        if known is None:
            return None
        return Mark(*known.member.rank, known.counted if isinstance(known, Entry) else Standing.LIVE)

    def _own(self) -> Mark:
        self.observe(self._now)
        assert self._counted is not None, "observed just now"
        return self._counted

    def __repr__(self) -> str:
        return f"MemberList({self.root.hex()}, {self.count} members)"
