"""How long a participant waits: for electors to gather, for an opening, for an attempt, before it asks or moves on.

The time of an attempt runs from when a quorum has come to it (`gathering`), then from its opening. It doubles
as attempts fail, so that in the end it suffices however slow the network is. What is missing is asked for again after
twice as long each time, and soon after something came. Between two attempts lies a pause that doubles too.

Invariant: every time a participant waits for has an end in `deadline`, unless only others can bring it further.
"""

from trust.ceremony.events import BACKOFF_MAX, Timing


class Patience:
    """All times of one participant, in seconds of its clock. None is never."""

    def __init__(self, timing: Timing) -> None:
        self.target: int | None = None  # the attempt it is about to enter
        self.enter_at = 0.0
        self.gather_until: float | None = None  # a leader waits for stragglers
        self.until: float | None = None  # of the attempt
        self.resend_at: float | None = None
        self._timing = timing
        self._blame_from: float | None = None
        self._entered_at = 0.0
        self._failures = 0
        self._quiet = 0

    def entered(self, now: float, *, first: bool) -> None:
        """In another attempt now."""
        self._failures += not first
        self.target = self.gather_until = self.until = self._blame_from = None
        self._entered_at = now
        self._quiet, self.resend_at = 0, now + self._timing.resend_s

    def gathered(self, now: float, *, hopeless: bool) -> None:
        """A quorum is here; with `hopeless`, its leader's word does not count."""
        self.gather_until = now + self._timing.gather_s
        self.until = now + (0 if hopeless else self._timing.open_s)

    def opened(self, now: float) -> None:
        """The attempt is open."""
        whole = self._timing.attempt_s * min(2 ** (self._failures // 2), BACKOFF_MAX)
        self.until = now + whole
        self._blame_from = now + whole / 2

    def resumed(self, now: float, *, opened: bool) -> None:
        """Back after a restart, in an attempt."""
        self._entered_at = self.resend_at = now
        if opened:
            self.until = now + self._timing.attempt_s

    def heard(self, now: float) -> None:
        """Something came that brings this further."""
        self._quiet = 0
        if self.resend_at is not None:
            self.resend_at = min(self.resend_at, now + self._timing.resend_s)

    def asked(self, now: float) -> None:
        """What is missing was asked for."""
        wait = self._timing.resend_s * 2 ** min(self._quiet, 16)
        self._quiet += 1
        self.resend_at = now + min(wait, self._timing.resend_s_max)

    def aim(self, now: float, number: int, *, at_once: bool = False) -> bool:
        """Enter attempt `number` after the pause. Whether it was not about to enter another one already."""
        fresh = self.target is None
        if fresh:
            pause = min(self._timing.pace_s * 2 ** min(self._failures, 16), self._timing.pace_s_max)
            self.enter_at = now if at_once else max(now, self._entered_at + pause)
        self.target = max(number, self.target or 0)
        return fresh

    def may_blame(self, now: float) -> bool:
        """Whether others had time enough in this attempt."""
        return self._blame_from is not None and now >= self._blame_from

    def is_due(self, now: float) -> bool:
        """Whether the pause before the next attempt is over."""
        return self.target is not None and now >= self.enter_at

    def is_over(self, now: float) -> bool:
        """Whether the time of the attempt is over."""
        return self.until is not None and now >= self.until

    def must_ask(self, now: float) -> bool:
        """Whether it is time to ask for what is missing."""
        return self.resend_at is not None and now >= self.resend_at

    def may_answer(self, last: float | None, now: float) -> bool:
        """Whether who was answered at `last` is answered again."""
        return last is None or now - last >= self._timing.resend_s / 2
