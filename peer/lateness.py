"""How late this process runs, counted and told.

Who does not run misses the answers of others. The engine is told of it each time (`gossip/clockwork.py`) and trusts
itself less; the person who gave the process too little processor time is told here, once a minute.

Invariant: the log has at most one line a minute of it.
"""

import logging
import math
from typing import Final

log = logging.getLogger("gossamer.node")

TOLD_EVERY_S: Final = 60.0
LATE_S: Final = 0.25  # in a log: as late as makes an engine of profile `lan` doubt itself


class Lateness:
    """Counts since the start."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self._told_at = -math.inf
        self._times, self._most_s = 0, 0.0  # since it was told

    def note(self, now: float, lag_s: float) -> None:
        """A timer fired `lag_s` late, at `now` (s, never falling)."""
        self.count += 1
        self.seconds += lag_s
        if lag_s < LATE_S:
            return
        self._times, self._most_s = self._times + 1, max(self._most_s, lag_s)
        if now - self._told_at >= TOLD_EVERY_S:
            fields = {
                "times": self._times,
                "most_s": round(self._most_s, 3),
                "effect": "this peer trusts its own probes less",
            }
            log.warning("process_late", extra={"fields": fields})
            self._told_at, self._times, self._most_s = now, 0, 0.0
