"""Whom to try again who cannot be reached: dead members and seeds, for ever, ever more rarely, never many at once.

A partition looks like the death of everybody on the other side, and it heals only if somebody still knocks. Each
address waits twice as long after each attempt, up to a cap, and all of them together get one attempt per
`contact_interval_s`; the most overdue comes first, so under the cap the rate is shared fairly.

Invariant: one contact per interval in all; an attempt is never later than the cap, unless others are more overdue.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(slots=True)
class _Attempt:
    due: float
    count: int = 0


class Contacts(Generic[T]):
    """Targets (node ids, seed addresses) and when each is due."""

    __slots__ = ("_attempts", "_backoff_s", "_backoff_s_max")

    def __init__(self, *, backoff_s: float, backoff_s_max: float) -> None:
        self._backoff_s, self._backoff_s_max = backoff_s, backoff_s_max
        self._attempts: dict[T, _Attempt] = {}

    def add(self, target: T, now: float) -> None:
        """Start trying `target` after the first back-off, unless it is being tried."""
        self._attempts.setdefault(target, _Attempt(due=now + self._backoff_s))

    def remove(self, target: T) -> None:
        """Stop trying; a later `add` starts from the first back-off."""
        self._attempts.pop(target, None)

    def overdue(self, now: float, wanted: Callable[[T], bool]) -> tuple[float, T] | None:
        """(when it was due, who) of the most overdue target; those due but not wanted now wait another cap."""
        due = sorted(
            (attempt.due, index, target)
            for index, (target, attempt) in enumerate(self._attempts.items())
            if attempt.due <= now
        )
        for at, _, target in due:
            if wanted(target):
                return at, target
            self._attempts[target].due = now + self._backoff_s_max
        return None

    @property
    def deadline(self) -> float | None:
        """When the next target is due."""
        return min((attempt.due for attempt in self._attempts.values()), default=None)

    def tried(self, target: T, now: float) -> int:
        """Count an attempt now; returns how many there have been."""
        attempt = self._attempts[target]
        # 2**16 back-offs is beyond every cap; without the bound the power would overflow after some weeks
        wait_s = min(self._backoff_s_max, self._backoff_s * 2 ** min(attempt.count, 16))
        attempt.count += 1
        attempt.due = now + wait_s
        return attempt.count

    def __len__(self) -> int:
        return len(self._attempts)
