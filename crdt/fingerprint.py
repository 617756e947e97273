"""Fingerprints of what a replica holds: incremental for the whole, by range for finding where two replicas differ.

Each writer has a term, a keyed hash of its head and of the content of its live records; the fingerprint of a set of
writers is the sum of their terms modulo 2^128. A sum needs no order, so one change costs one subtraction and one
addition, and prefix sums over the sorted writers give every range at once (Meyer, "Range-Based Set Reconciliation",
2023). Hashing content and not the head alone makes two replicas that hold different forks of one journal differ.

The sum finds accidents, not attacks: who may write can make two different states of its *own* journal collide.
Nothing is believed because of a fingerprint; it only decides what is compared.

Invariant: equal states give equal fingerprints, whatever the order the records came in.
"""

from bisect import bisect_left
from collections.abc import Mapping
from hashlib import blake2b
from itertools import accumulate
from typing import Final

FINGERPRINT_BYTES: Final = 16
CHECK_BYTES: Final = 8  # of a range or a single writer, within one reconciliation

_MODULUS: Final = 2 ** (8 * FINGERPRINT_BYTES)


class Fingerprint:
    """The terms of all writers and their sum."""

    __slots__ = ("_key", "_sum", "_terms")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._terms: dict[bytes, int] = {}
        self._sum = 0

    @property
    def value(self) -> bytes:
        """16 bytes; zero for nothing held. O(1)."""
        return self._sum.to_bytes(FINGERPRINT_BYTES, "big")

    @property
    def terms(self) -> Mapping[bytes, int]:
        return self._terms

    def check(self, writer: bytes) -> bytes | None:
        """A few bytes that tell this writer's state from another; None if nothing is held of it."""
        term = self._terms.get(writer)
        return None if term is None else _check(term)

    def note(self, writer: bytes, head: int, digest: int) -> None:
        """The writer's journal is at `head` (0: known to have forked) with live records of that digest."""
        data = writer + head.to_bytes(8, "big") + digest.to_bytes(FINGERPRINT_BYTES, "big")
        hashed = blake2b(data, key=self._key, digest_size=FINGERPRINT_BYTES).digest()
        term = int.from_bytes(hashed, "big")
        self._sum = (self._sum - self._terms.get(writer, 0) + term) % _MODULUS
        self._terms[writer] = term


class Ranges:
    """A frozen picture of the terms, sorted by writer, that can tell the fingerprint of any range of writers.

    A range is `[low, high)`; low b"" is the beginning and high None the end.
    """

    __slots__ = ("_sums", "writers")

    def __init__(self, terms: Mapping[bytes, int]) -> None:
        self.writers = sorted(terms)
        self._sums = list(accumulate((terms[writer] for writer in self.writers), initial=0))

    def within(self, low: bytes, high: bytes | None) -> list[bytes]:
        """The writers of a range, sorted."""
        start, end = self._span(low, high)
        return self.writers[start:end]

    def fingerprint(self, low: bytes, high: bytes | None) -> bytes:
        """Of a range; zero when it is empty."""
        start, end = self._span(low, high)
        return ((self._sums[end] - self._sums[start]) % _MODULUS).to_bytes(FINGERPRINT_BYTES, "big")[
            -CHECK_BYTES:
        ]

    def split(self, low: bytes, high: bytes | None, parts: int) -> list[bytes]:
        """Bounds that cut a range of at least `parts` writers into that many of about equal size.

        Each bound is the shortest prefix that separates its neighbours, mostly two or three bytes.
        """
        start, end = self._span(low, high)
        cuts = [start + (end - start) * part // parts for part in range(1, parts)]
        return [_separator(self.writers[cut - 1], self.writers[cut]) for cut in cuts]

    def _span(self, low: bytes, high: bytes | None) -> tuple[int, int]:
        start = bisect_left(self.writers, low)
        return start, len(self.writers) if high is None else max(start, bisect_left(self.writers, high))


def _check(term: int) -> bytes:
    return term.to_bytes(FINGERPRINT_BYTES, "big")[-CHECK_BYTES:]


def _separator(below: bytes, above: bytes) -> bytes:
    """The shortest prefix of `above` that is greater than `below`."""
    same = next(index for index, (one, other) in enumerate(zip(below, above, strict=True)) if one != other)
    return above[: same + 1]
