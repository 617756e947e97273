"""The clock of one host: what its node takes for Unix time.

A perfect host has none of these, and its node sees the world's time. One with a bad clock is off by a constant, drifts
at a rate, or both, and may be set right or wrong while it runs. As the real driver does (`peer/clock.py`), a clock that
is set forward jumps, and one that is set back runs at half speed until it is right again.

Invariant: `read` never returns less than it returned before.
"""

from typing import Final

_SLEW: Final = 0.5  # the speed at which a clock waits for the time it should show


class HostClock:
    """`offset_s` ahead of the world at `now`, gaining `drift` seconds a second from then on."""

    __slots__ = ("_at", "_floor", "_rate", "_shown", "_slew_until")

    def __init__(self, now: float, *, offset_s: float = 0.0, drift: float = 0.0) -> None:
        assert drift > -_SLEW, "a clock that hardly runs is no clock"
        self._at = now
        self._shown = now + offset_s
        self._rate = 1.0 + drift
        self._slew_until: float | None = None  # world time until which it runs at half speed
        self._floor = self._shown

    def read(self, now: float) -> float:
        """What it shows at world time `now`."""
        if self._slew_until is not None and now >= self._slew_until:
            self._shown += (self._slew_until - self._at) * self._rate * _SLEW
            self._at, self._slew_until = self._slew_until, None
        self._floor = max(self._floor, self._shown + (now - self._at) * self._speed)
        return self._floor

    def set(self, now: float, *, offset_s: float, drift: float = 0.0) -> None:
        """From now on it should be `offset_s` ahead of the world and gain `drift`."""
        shown, goal = self.read(now), now + offset_s
        self._at, self._rate, self._slew_until = now, 1.0 + drift, None
        self._shown = max(shown, goal)
        if shown > goal:  # it meets the right time when what it gains less is what it was ahead
            self._slew_until = now + (shown - goal) / (self._rate * (1 - _SLEW))

    def reached(self, shown: float) -> None:
        """A timer for `shown` fired: it shows at least that (rounding may say a hair less)."""
        self._floor = max(self._floor, shown)

    def when(self, shown: float, now: float) -> float:
        """The world time at which it will show `shown`, at its present speed."""
        return now + (shown - self.read(now)) / self._speed

    @property
    def _speed(self) -> float:
        return self._rate if self._slew_until is None else self._rate * _SLEW
