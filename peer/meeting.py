"""Which peers found the mesh: how those that were told to be N of them settle on one set. Pure.

Each proposes the first N it has met, itself among them, by when they started and then by id; met are those with which
it has a stream on which both proved themselves. Once it hears the same proposal from all in it, it is settled and says
so; who hears that from one of them and is in the set follows. More than N peers started at once may see different
first ones for a moment; then those that are in nobody's set wait until the mesh exists and ask to be let in.

That two sets are settled on takes peers that do not see each other, and is no danger: each peer takes part in one
founding ceremony only, and a ceremony needs a quorum of its founders (`trust/ceremony/electorate.py`).

Invariant: what is settled stays, and its members all proposed it or followed one who heard them all.
"""

from dataclasses import dataclass, field
from typing import Final

from trust.bootstrap import Card

MET_MAX: Final = 64


@dataclass(slots=True)
class Meeting:
    """See the module's theory. `me` is this peer's own card."""

    me: Card
    met: dict[bytes, Card] = field(default_factory=dict)
    settled: frozenset[bytes] | None = None
    _proposed: dict[bytes, frozenset[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.met[self.me.node] = self.me
        self._agree()

    def meet(self, card: Card) -> str:
        """A peer proved itself. Why it cannot be a founder together with this one, or ""."""
        mine = self.me
        if card.trust_domain != mine.trust_domain:
            return (
                f"{card.name} founds trust domain {card.trust_domain!r}, and this peer {mine.trust_domain!r}"
            )
        if card.expect != mine.expect:
            return f"{card.name} expects {card.expect} founders, and this peer {mine.expect}"
        if card.threshold != mine.threshold:
            return (
                f"{card.name} wants a threshold of {card.threshold}, and this peer {mine.threshold}: "
                "give both the same ca.signers and ca.threshold"
            )
        if card.node not in self.met and len(self.met) >= MET_MAX:
            return f"more than {MET_MAX} peers would found this mesh"
        self.met[card.node] = card
        return ""

    def proposal(self) -> frozenset[bytes] | None:
        """Whom this peer proposes (node ids); None while too few are there."""
        if self.settled is not None:
            return self.settled
        if len(self.met) < self.me.expect:
            return None
        order = sorted(self.met.values(), key=lambda card: (card.started_at, card.node))
        return frozenset(card.node for card in order[: self.me.expect])

    def hear(self, node: bytes, nodes: frozenset[bytes], *, settled: bool) -> None:
        """`node` proposes these, or has settled on them."""
        if node not in self.met or node not in nodes or len(nodes) != self.me.expect:
            return
        self._proposed[node] = nodes
        if self.settled is None and settled and self.me.node in nodes and nodes <= self.met.keys():
            self.settled = nodes
        self._agree()

    def _agree(self) -> None:
        mine = self.proposal()
        if self.settled is None and mine is not None and self.me.node in mine:
            others = mine - {self.me.node}
            if all(self._proposed.get(each) == mine for each in others):
                self.settled = mine

    def without_me(self) -> frozenset[bytes] | None:
        """Others have proposed a set that this peer is not in."""
        for nodes in self._proposed.values():
            if self.me.node not in nodes:
                return nodes
        return None

    def missing(self) -> int:
        """How many founders are still to be met."""
        return max(0, self.me.expect - len(self.met))
