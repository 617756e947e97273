"""How often a signer helps with an epoch that it has no reason for itself: fresh shares that a fellow signer wants, or
one more try for a wish that the last epoch did not bring about.

A chain of epochs has an end (EPOCHS_MAX), and journals keep it: whoever could have the others make one after another
would use it up in a day. FAVOURS_MAX in FAVOURS_S is a year's worth, with enough at once for people who try things.
What operators want, here or at as many signers as have the root, is no favour, nor is what this node sees a reason for,
nor what as many signers as have the root wish for: they can do it without this one, which would lose its seat.

Invariant: at most FAVOURS_MAX epochs in any FAVOURS_S of one life of the process.
"""

from collections import deque
from typing import Final

FAVOURS_MAX: Final = 6
FAVOURS_S: Final = 6 * 3600.0


class Favours:
    """See the module's theory. Times are seconds of a clock that never falls."""

    def __init__(self) -> None:
        self._done: deque[float] = deque(maxlen=FAVOURS_MAX)
        self._vain: tuple[bytes, ...] | None = None  # what was wished for here, and the last epoch is not

    def sealed(self, now: float, keys: tuple[bytes, ...], own: tuple[bytes, ...] | None) -> None:
        """An epoch of signers `keys` is there, and this node wished for `own` (public keys; None for no change)."""
        if keys == own:
            self._vain = None
            return
        self._vain = own
        self._done.append(now)

    def needed(self, own: tuple[bytes, ...] | None) -> bool:
        """Whether it would be one, for a node that wishes for `own`."""
        return own is None or own == self._vain

    def wait_s(self, now: float) -> float:
        """How long until there may be another one; 0.0 if there may."""
        if len(self._done) < FAVOURS_MAX:
            return 0.0
        return max(0.0, self._done[0] + FAVOURS_S - now)
