"""A token bucket: at most `rate_per_s` in the long run, `burst` at once.

Invariant: never more than `burst + rate_per_s * t` takes succeed within any t seconds.
"""


class TokenBucket:
    """Starts full. `now` must not run backwards; if it does, nothing is refilled."""

    __slots__ = ("_at", "_burst", "_rate_per_s", "_tokens")

    def __init__(self, *, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s, self._burst = rate_per_s, burst
        self._tokens, self._at = burst, now

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate_per_s)
            self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
