"""When to ask for a stream: fingerprints that differ for good, told from those about to agree.

Right after a change the fingerprint of whoever made it is ahead of everybody's until the push has spread. A difference
counts when neither side's fingerprint changed within `diverged_settle_s` (each side says so of itself), or, under
changes so constant that nothing ever settles, when it has lasted at every look.

Journals and member lists differ in what a look can tell. A journal is compared peer by peer. A member list is the same
for all, and in a large mesh one peer is met rarely, so a node asks whether it differs from everybody it meets:
agreement with anyone shows that it is not the odd one out. Three things keep the streams few. The smaller id starts,
so that not both ends do. A node asks at most once in `members_spacing_s`, whomever. And a node whose exchanges change
nothing and that still agrees with nobody (it is full, or its clock is off) asks ever more rarely, and calls itself
unsettled meanwhile, so that nobody else asks it either.

Invariant: of each node, at most one request for member lists within `members_spacing_s`, one for journals to each
peer within `diverged_spacing_s`, and one stream of any kind to one address within `sync_spacing_s`.
"""

from typing import Final

from gossip.config import GossipConfig
from gossip.entry import Link
from gossip.events import Address

_GATE_ADDRESSES_MAX: Final = 4096
_QUIET_DOUBLINGS_MAX: Final = 5
_TRIED_MAX: Final = 256  # peers remembered
_PAIR: Final = 2  # members, where there is only one other to agree with


class SyncGate:
    """At most one stream to a member at an address within the spacing, whatever the reasons. The address alone would
    let who claims another's be streamed to in its place."""

    __slots__ = ("_asked", "_spacing_s")

    def __init__(self, spacing_s: float) -> None:
        self._spacing_s = spacing_s
        self._asked: dict[tuple[Address, bytes | None], float] = {}

    def ask(self, now: float, address: Address, node: bytes | None = None) -> bool:
        """Whether a stream may be asked for now; if so, it counts as asked."""
        asked = self._asked.get((address, node))
        if asked is not None and now - asked < self._spacing_s:
            return False
        if len(self._asked) >= _GATE_ADDRESSES_MAX:
            recent = {whom: at for whom, at in self._asked.items() if now - at < self._spacing_s}
            if len(recent) >= _GATE_ADDRESSES_MAX:
                return False
            self._asked = recent
        self._asked[address, node] = now
        return True


class Divergence:
    """Journals: what each peer's fingerprint says."""

    __slots__ = ("_changed_at", "_config", "_own")

    def __init__(self, config: GossipConfig, own: bytes, now: float) -> None:
        self._config = config
        self._own = own
        self._changed_at = now - config.diverged_settle_s

    def observe(self, now: float, own: bytes) -> None:
        """Take in this node's present fingerprint."""
        if own != self._own:
            self._own, self._changed_at = own, now

    def settled(self, now: float) -> bool:
        """Whether this node's fingerprint has not changed lately."""
        return now - self._changed_at >= self._config.diverged_settle_s

    def judge(self, now: float, link: Link, theirs: bytes, *, settled: bool) -> bool:
        """Whether a peer's fingerprint is worth a stream now; if so, it counts as told."""
        if theirs == self._own:
            link.differs_since = None
            return False
        if link.differs_since is None:
            link.differs_since = now
        lasting = now - link.differs_since >= self._config.diverged_patience_s
        if not (lasting or (settled and self.settled(now))):
            return False
        if link.diverged_at is not None and now - link.diverged_at < self._config.diverged_spacing_s:
            return False
        link.diverged_at = now
        return True


class ListDivergence:
    """Member lists: what the roots of all peers met say together."""

    __slots__ = (
        "_agreed",
        "_asked_at",
        "_changed_at",
        "_config",
        "_differs_since",
        "_fruitless",
        "_own",
        "_quiet_until",
        "_tried",
    )

    def __init__(self, config: GossipConfig, own: bytes, now: float) -> None:
        self._config = config
        self._own = own
        self._changed_at = now - config.diverged_settle_s
        self._differs_since: float | None = None
        self._asked_at = now - config.members_spacing_s
        self._fruitless = 0  # exchanges since this list last changed or agreed with another
        self._quiet_until = now
        self._tried: set[bytes] = set()  # whom these exchanges were with
        self._agreed: bytes | None = (
            None  # who said last that it agrees, since this list differed from another
        )

    def observe(self, now: float, own: bytes) -> None:
        """Take in the root of this node's present list."""
        if own != self._own:
            self._own, self._changed_at = own, now
            self._rest(now)

    def _rest(self, now: float) -> None:
        self._fruitless, self._quiet_until = 0, now
        self._tried.clear()

    def exchanged(self, now: float, peer: bytes | None, *, asked: bool) -> None:
        """An exchange of lists that differ has begun with `peer`; `asked` says that this node asked for it. One that
        another asks for again and again counts once: it shall not keep this node from asking others."""
        if peer in self._tried and not asked:
            return
        if peer is not None and len(self._tried) < _TRIED_MAX:
            self._tried.add(peer)
        wait_s = self._config.members_spacing_s * 2 ** min(self._fruitless, _QUIET_DOUBLINGS_MAX)
        self._fruitless += 1
        self._quiet_until = now + wait_s

    def settled(self, now: float) -> bool:
        """Whether this list has not changed lately and is not one that exchanges do not help."""
        return now >= self._quiet_until and now - self._changed_at >= self._config.diverged_settle_s

    def judge(
        self, now: float, peer: bytes, theirs: bytes, *, settled: bool, starts: bool, members: int
    ) -> bool:
        """Whether a peer's root is worth a stream now; if so, it counts as asked for. `settled` is of both sides,
        `starts` whether it is this one's turn, `members` the size of the mesh."""
        if theirs == self._own:
            self.agrees(now, peer, members)
            return False
        if self._differs_since is None:
            self._differs_since = now
        lasting = now >= self._quiet_until and now - self._differs_since >= self._config.members_patience_s(
            members
        )
        if not (lasting or (starts and settled)):
            return False
        if now - self._asked_at < self._config.members_spacing_s:
            return False
        self._asked_at = now
        if lasting:
            self._differs_since = now
        return True

    def agrees(self, now: float, peer: bytes, members: int) -> None:
        """A peer has the same list. It takes two of them to forget that others differ: one could just say so."""
        if self._differs_since is None and not self._fruitless:
            return  # there is nothing to forget
        alone, self._agreed = self._agreed in (None, peer), peer
        if alone and members > _PAIR and self._differs_since is not None:
            return
        self._differs_since = self._agreed = None
        self._rest(now)
