"""What is still to happen in a world, in the order in which it will.

A heap of all of it is as deep as the world is large, and each comparison on the way down looks at two events that lie
anywhere in memory. So only what is due in the present slot of time (a millisecond) is in a heap; the rest lies unsorted
in the slots it belongs to (Brown, "Calendar queues", 1988), of which there is a heap too, of plain numbers.

Invariant: `upto` gives events in the order of (time, sequence), whenever they were put in.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Final

SLOTS_PER_S: Final = 1000.0

Handler = Callable[[Any, Any], None]
Event = tuple[float, int, Handler, Any, Any]


class Schedule:
    """Events `(time, sequence, handler, first, second)`; times in seconds."""

    __slots__ = ("_later", "_sequence", "_slot", "_slots", "_soon")

    def __init__(self) -> None:
        self._soon: list[Event] = []  # a heap: what is due in `_slot` or before
        self._slot = -1
        self._later: dict[int, list[Event]] = {}  # by slot
        self._slots: list[int] = []  # a heap of these
        self._sequence = 0

    def put(self, at: float, handler: Handler, first: Any, second: Any) -> None:
        """Let `handler(first, second)` be called at that time."""
        self._sequence = sequence = self._sequence + 1
        slot = int(at * SLOTS_PER_S)
        if slot <= self._slot:
            heappush(self._soon, (at, sequence, handler, first, second))
            return
        events = self._later.get(slot)
        if events is None:
            self._later[slot] = [(at, sequence, handler, first, second)]
            heappush(self._slots, slot)
        else:
            events.append((at, sequence, handler, first, second))

    def upto(self, end: float) -> Iterator[Event]:
        """Take out what is due by `end`, one by one; what is put in meanwhile is among it."""
        soon, slots, last = self._soon, self._slots, int(end * SLOTS_PER_S)
        while True:
            while soon and soon[0][0] <= end:
                yield heappop(soon)
            if soon or not slots or slots[0] > last:
                return
            self._slot = heappop(slots)
            soon += self._later.pop(self._slot)
            heapify(soon)

    def __len__(self) -> int:
        return len(self._soon) + sum(map(len, self._later.values()))
