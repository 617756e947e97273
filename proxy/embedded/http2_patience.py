"""How much work for nothing a peer may ask of a connection in HTTP/2.

A peer can make work with frames that ask for nothing. Each of them costs a token of a bucket that time and honest
traffic fill; windows that let out a few bytes at a time are not honest (CVE-2019-9511). Streams begun and taken back
have a bucket of their own (CVE-2023-44487), and so has whoever breaks a rule to have them reset (CVE-2025-8671). When
one is empty the connection ends with ENHANCE_YOUR_CALM.

Invariant: a bucket never holds more than its size.
"""

from collections.abc import Callable
from typing import Final

NUISANCES_MAX: Final = 1000  # at once: frames that carry nothing
NUISANCES_PER_S: Final = 100.0
RESETS_MAX: Final = 500  # at once: streams the peer takes back
RESETS_PER_S: Final = 100.0
DRIBBLE_BYTES: Final = 1024  # a window that lets out less of a body than this earns its peer nothing


class Bucket:
    """Tokens, refilled by time up to `size`."""

    __slots__ = ("_now", "_per_s", "_since_s", "_size", "_tokens")

    def __init__(self, size: int, per_s: float, now: Callable[[], float]) -> None:
        self._size = float(size)
        self._tokens = float(size)
        self._per_s = per_s
        self._now = now
        self._since_s = now()

    def take(self) -> bool:
        """False: empty."""
        if self._tokens < 1.0:
            now_s = self._now()
            self._tokens = min(self._size, self._tokens + (now_s - self._since_s) * self._per_s)
            self._since_s = now_s
            if self._tokens < 1.0:
                return False
        self._tokens -= 1.0
        return True

    def give(self, tokens: float) -> None:
        self._tokens = min(self._size, self._tokens + tokens)
