"""Who died lately: they are gossiped to for a while, so that who is wrongly thought dead hears of it.

A partition of a large mesh kills half of it within seconds, and each gossip round asks for a few of them at random: so
they can be counted and picked by number without being listed.

Invariant: nothing here takes longer the more have died, but for moving eight bytes of each along when one goes.
"""

from bisect import bisect_left
from collections.abc import Iterator

_SETTLED_AT_ONCE_MAX = 64  # so that a round after a great dying takes no longer than others


class Burials:
    """Ids of members dead, in the order in which they were told of, each with the time of its death."""

    __slots__ = ("_deaths", "_number", "_numbers", "_order")

    def __init__(self) -> None:
        self._order: list[int] = []  # numbers of deaths, ascending
        self._deaths: dict[int, tuple[bytes, float]] = {}
        self._numbers: dict[bytes, int] = {}
        self._number = 0

    def add(self, node: bytes, since: float) -> None:
        """`node` is dead since then; not there yet."""
        assert node not in self._numbers, "one death at a time"
        self._number += 1
        self._numbers[node] = self._number
        self._deaths[self._number] = node, since
        self._order.append(self._number)

    def remove(self, node: bytes) -> None:
        """Count it no more, if it is here."""
        number = self._numbers.pop(node, None)
        if number is not None:
            del self._deaths[number]
            del self._order[bisect_left(self._order, number)]

    def settle(self, now: float, within_s: float) -> None:
        """Forget those at the front whose death is `within_s` ago or longer, some at a time."""
        for _ in range(_SETTLED_AT_ONCE_MAX):
            if not self._order:
                return
            node, since = self._deaths[self._order[0]]
            if now - since < within_s:
                return
            self.remove(node)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> bytes:
        """The one in that place of the order; raises IndexError."""
        return self._deaths[self._order[place]][0]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._numbers)
