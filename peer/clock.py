"""The clock of the node: Unix time that never falls.

It runs with the monotonic clock. Where the wall clock is found ahead (the host was suspended, or its time was set
right) it jumps there at once. Where the wall clock is found behind, it runs at half speed until the two agree: timers
go on, and nothing that was already stamped lies in the future of what comes next.

Invariant: `now` never returns less than it returned before.
"""

import time
from collections.abc import Callable
from typing import Final

APART_S_MAX: Final = 1.0  # less than that is not worth a jump


class Clock:
    """See the module's theory. `wall` and `monotonic` are the clocks of the system (s)."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._now = wall()
        self._at = monotonic()

    def now(self) -> float:
        at, wall = self._monotonic(), self._wall()
        passed = at - self._at
        self._at = at
        ahead = self._now + passed - wall
        if ahead < -APART_S_MAX:
            self._now = wall
        elif ahead > APART_S_MAX:
            self._now = max(self._now + passed / 2, wall)
        else:
            self._now += passed
        return self._now
