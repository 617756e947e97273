"""Whom to try again who cannot be reached: dead members, suspects of this node's own, and seeds, for ever, ever more
rarely, never many at once.

A partition looks like the death of everybody on the other side, and it heals only if somebody still knocks. Each
address waits about twice as long after each attempt, up to a cap, and all of them together get one attempt per
`contact_interval_s`; the most overdue comes first, so under the cap the rate is shared fairly.

Invariant: one contact per interval in all; an attempt is never later than the cap, unless others are more overdue.
"""

import heapq
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

URGENT_ATTEMPTS: Final = 16  # at the first back-off, before it grows

T = TypeVar("T", bound=Hashable)


@dataclass(slots=True)
class _Attempt:
    due: float
    count: int = 0


class Contacts(Generic[T]):
    """Targets (node ids, seed addresses) and when each is due. The heap may hold entries that are over."""

    __slots__ = ("_attempts", "_backoff_s", "_backoff_s_max", "_heap", "_serial")

    def __init__(self, *, backoff_s: float, backoff_s_max: float) -> None:
        self._backoff_s, self._backoff_s_max = backoff_s, backoff_s_max
        self._attempts: dict[T, _Attempt] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._serial = 0

    def add(self, target: T, now: float, *, share: float = 1.0) -> None:
        """Start trying `target` after `share` of the first back-off, unless it is being tried."""
        if target not in self._attempts:
            self._attempts[target] = _Attempt(due=now + share * self._backoff_s)
            self._push(target)

    def remove(self, target: T) -> None:
        """Stop trying; a later `add` starts from the first back-off."""
        self._attempts.pop(target, None)

    def overdue(
        self, now: float, wanted: Callable[[T], bool], *, known: Callable[[T], bool] = lambda _: True
    ) -> tuple[float, T] | None:
        """(when it was due, who) of the most overdue target; those due but not wanted now wait another cap, those no
        longer known are forgotten."""
        while (due := self.deadline) is not None and due <= now:
            target = self._heap[0][2]
            if not known(target):
                self.remove(target)
                continue
            if wanted(target):
                return due, target
            self._attempts[target].due = now + self._backoff_s_max
            self._push(target)
        return None

    @property
    def deadline(self) -> float | None:
        """When the next target is due."""
        heap = self._heap
        while heap:
            due, _, target = heap[0]
            attempt = self._attempts.get(target)
            if attempt is not None and attempt.due == due:
                return due
            heapq.heappop(heap)
        return None

    def tried(self, target: T, now: float, *, share: float = 1.0, urgent: bool = False) -> int:
        """Count an attempt now; returns how many there have been. The next one is due after `share` of the back-off:
        random shares keep those apart who began together. While it is `urgent` it begins to grow later."""
        attempt = self._attempts[target]
        # 2**16 back-offs is beyond every cap; without the bound the power would overflow after some weeks
        doublings = min(max(0, attempt.count - URGENT_ATTEMPTS * urgent), 16)
        wait_s = min(self._backoff_s_max, self._backoff_s * 2**doublings)
        attempt.count += 1
        attempt.due = now + share * wait_s
        self._push(target)
        return attempt.count

    def _push(self, target: T) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (self._attempts[target].due, self._serial, target))

    def __len__(self) -> int:
        return len(self._attempts)
