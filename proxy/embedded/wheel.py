"""One timer for every connection of a worker.

A request needs deadlines (head, connect, whole request, idle), and nearly all of them are moved or dropped before
they fire. So moving a deadline costs nothing here: an entry carries its own `deadline_s`, the wheel only remembers one
slot for it, and when that slot comes the entry either fires, moves to the slot of its later deadline, or falls out
(Varghese & Lauck 1987, scheme 6, with lazy deletion). Moving a deadline later is one attribute store.

A connection that has ended is taken out (`forget`): its slot may be minutes away, and what it held (a TLS session is
some 40 KiB) would stay as long.

Invariant: an entry never fires before its deadline, and at most one resolution (plus loop lag) after it. It is in one
slot at most. An entry that raises takes no other one's deadline with it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

RESOLUTION_S: Final = 0.01
NEVER: Final = float("inf")
_UNPLACED: Final = 1 << 62


class Timed(ABC):
    """Base of what has a deadline. `deadline_s` is on the loop's clock; `NEVER` is none."""

    __slots__ = ("deadline_s", "slot", "slot_s")

    def __init__(self) -> None:
        self.deadline_s = NEVER
        self.slot = _UNPLACED  # the earliest slot that holds this entry
        self.slot_s = NEVER  # and when that is

    @abstractmethod
    def on_deadline(self) -> None:
        """The deadline has passed; it is `NEVER` again when this is called."""


class TimerWheel:
    """Slots of `RESOLUTION_S`, and one `call_at` for the earliest one: an idle worker does not wake up."""

    __slots__ = ("_call_at", "_clock", "_handle", "_order", "_slots", "_wake_slot")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._clock: Callable[[], float] = loop.time
        self._call_at = loop.call_at
        self._slots: dict[int, dict[Timed, None]] = {}
        self._order: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._wake_slot = _UNPLACED

    def arm(self, entry: Timed, delay_s: float) -> None:
        """Move the entry's only deadline. Costs a store unless the new one comes before the slot it waits in."""
        deadline_s = entry.deadline_s = self._clock() + delay_s
        if deadline_s < entry.slot_s:
            slot = int(deadline_s / RESOLUTION_S) + 1
            if slot < entry.slot:
                self._place(entry, slot)

    def forget(self, entry: Timed) -> None:
        """The entry has ended: it has no deadline, and the wheel holds it no more."""
        entry.deadline_s = NEVER
        if entry.slot != _UNPLACED:
            waiting = self._slots.get(entry.slot)
            if waiting is not None:
                waiting.pop(entry, None)
            entry.slot = _UNPLACED
            entry.slot_s = NEVER

    def _place(self, entry: Timed, slot: int) -> None:
        if entry.slot != _UNPLACED:
            earlier = self._slots.get(entry.slot)
            if earlier is not None:
                earlier.pop(entry, None)
        entry.slot = slot
        entry.slot_s = slot * RESOLUTION_S
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting[entry] = None
            return
        self._slots[slot] = {entry: None}
        heappush(self._order, slot)
        if slot < self._wake_slot:
            self._sleep_until(slot)

    def _sleep_until(self, slot: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._wake_slot = slot
        self._handle = self._call_at(slot * RESOLUTION_S, self._turn)

    def _turn(self) -> None:
        self._handle = None
        self._wake_slot = _UNPLACED
        now_s = self._clock()
        order = self._order
        try:
            while order and order[0] * RESOLUTION_S <= now_s:
                slot = heappop(order)
                try:
                    self._visit_all(slot, now_s)
                finally:
                    if self._slots[slot]:  # one raised, which the loop reports: the others are next
                        heappush(order, slot)
                    else:
                        del self._slots[slot]
        finally:
            if order and order[0] < self._wake_slot:
                self._sleep_until(order[0])

    def _visit_all(self, slot: int, now_s: float) -> None:
        waiting = self._slots[slot]
        for entry in list(waiting):
            waiting.pop(entry, None)  # it may have ended meanwhile
            self._visit(entry, slot, now_s)

    def _visit(self, entry: Timed, slot: int, now_s: float) -> None:
        if entry.slot != slot:
            return  # it was placed earlier since, and this is the leftover
        entry.slot = _UNPLACED
        entry.slot_s = NEVER
        if entry.deadline_s == NEVER:
            return
        if entry.deadline_s <= now_s:
            entry.deadline_s = NEVER
            entry.on_deadline()
        else:
            self._place(entry, int(entry.deadline_s / RESOLUTION_S) + 1)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._slots.clear()
        self._order.clear()
