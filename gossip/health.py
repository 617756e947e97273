"""Local health (Lifeguard, section 3.1, "LHA-Probe"): how far this node distrusts itself.

The score rises when this node's own view is in doubt (a probe failed and the relays did not even send their nacks,
somebody suspects this node, the event loop ran late) and falls with each probe answered. Timeouts are multiplied by
score + 1, so a node that is slow waits longer before it accuses others.

Invariant: 0 <= score < health_max.
"""


class LocalHealth:
    """The score and what it does to a duration."""

    __slots__ = ("_max", "score")

    def __init__(self, health_max: int) -> None:
        self._max = health_max
        self.score = 0

    def adjust(self, delta: int) -> None:
        """Move the score by `delta` within its bounds."""
        self.score = min(self._max - 1, max(0, self.score + delta))

    def stretch(self, duration_s: float) -> float:
        """`duration_s` as a node of this health should wait it."""
        return duration_s * (self.score + 1)

    def __repr__(self) -> str:
        return f"LocalHealth({self.score} of {self._max - 1})"
