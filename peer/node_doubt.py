"""Doubt: whether this node knows how far its own journal goes, and whom it still asks.

A node whose disk was lost, or put back to an earlier state, may have written more than it holds. Whoever has those
records is one of the others; a number that is given out again would be an equivocation, for which a node is expelled.
One that was told by a single other node knows what that one held: the last record may just then have been on its way
to it, or have reached only others. So a node in doubt asks TELLERS members, or all where there are fewer, and goes on
with fewer only after WORD_S_MAX: a write that waits for a member who does not answer is a mesh that does not work. For
the same reason it waits for the addresses through which it joins (JOINING_S_MAX), but not for ever.

Whom it asks may have records of it that are in no journal: they wait for those before them, which nobody may have (the
last two that were acknowledged went with the disk, and the first of them reached nobody). So at the end of an exchange
each side shows the last of the other's records that it holds back (`peer/session.py`). It cannot be made up, for it has
its author's signature: the number is used. Whoever is shown one that it lacks is in doubt, even if its disk seemed
whole until then (it lied about a sync). It asks whether somebody has what lies between, and goes on some way behind it
if nobody has (`crdt/writing.py`). What nobody has stays lost.

What this cannot find out is a record whose every holder is out of reach while the node asks: cut off, dead, suspended,
or not yet started again; or that reached somebody who has been started again since, for what is held back is not kept
on disk (where nobody else has it, that number may be used again: nobody can tell). Who then answers may say in good
faith that it knows the mesh: it has taken it in once, and what was written while it was away it has not heard of
either. To be sure the node would have to wait for every member there ever was, dead ones too, and a single host that
burnt down would keep it from writing for good. Nor is a node in doubt that has no reason to be: where a disk lied about
its syncs and the database looks whole, one word is enough, and where nobody answers FIRST_SYNC_S_MAX
(`peer/memory.py`). It shows as an equivocation, when the holders are back.

Invariant: once settled, settled until a record of its own comes to light that it lacks, which happens once for each.
"""

import random
from collections.abc import Sequence
from typing import Final

from gossip.member import Member

TELLERS: Final = 3
WORD_S_MAX: Final = 5.0  # after the first word
JOINING_S_MAX: Final = (
    10.0  # likewise; an address that takes connections and says nothing is given up much later
)
ASK_AGAIN_S: Final = 0.5


class Doubt:
    """The doubt of one node about its own journal; `settled` from the beginning where there is none."""

    __slots__ = ("_joining_until", "_tellers", "_until", "deadline", "doubtful", "settled")

    def __init__(self, *, doubtful: bool) -> None:
        self.settled = not doubtful
        self.doubtful = doubtful  # at the start
        self._tellers: set[bytes] = set()
        self._until = self._joining_until = 0.0
        self.deadline: float | None = None  # when `ask` is due

    def reopen(self, now: float, node: bytes | None) -> None:
        """A record of this node's own has come to light that it does not hold: ask whether others have what was before
        it, after the one that has shown it."""
        self.settled, self.doubtful = False, True
        self._tellers = set() if node is None else {node}
        self._until, self._joining_until = now + WORD_S_MAX, now
        self.deadline = now

    def told(self, now: float, node: bytes | None) -> None:
        """A member that knows the mesh has told what it holds."""
        if self.settled or node is None:
            return
        if not self._tellers:
            self._until, self._joining_until = now + WORD_S_MAX, now + JOINING_S_MAX
        self._tellers.add(node)
        self.deadline = now

    def ask(
        self, now: float, others: Sequence[Member], rng: random.Random, *, joining: bool = False
    ) -> Member | None:
        """Whom to ask now; None when nobody is, for one of two reasons: it is not time, or it is settled. While this
        node is `joining` it does not know yet whom there is to ask: the first to call may be the one that lies."""
        if self.deadline is None or now < self.deadline:
            return None
        if joining and now < self._joining_until:
            self.deadline = now + ASK_AGAIN_S
            return None
        unasked = [member for member in others if member.id not in self._tellers]
        if len(self._tellers) >= TELLERS or not unasked or now >= self._until:
            self.settled, self.deadline = True, None
            return None
        self.deadline = now + ASK_AGAIN_S
        return rng.choice(unasked)
