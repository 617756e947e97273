"""Fingerprints of what a replica holds: incremental for the whole, by range for finding where two replicas differ.

Each writer has a term, a hash of its head and of the content of its live records; the fingerprint of a set of writers
is a hash of the sum of their terms. A sum needs no order, so one change costs one subtraction and one addition, and
prefix sums over the sorted writers give every range at once (Meyer, "Range-Based Set Reconciliation", 2023). Hashing
content and not the head alone makes two replicas that hold different forks of one journal differ.

Members choose what they write, and could choose it so that two replicas which differ look alike. A secret key would not
help, since every member would hold it. So sums are taken modulo 2^2048, where collisions are hard to find for anybody:
with k addends to choose, Wagner's search ("A Generalized Birthday Problem", 2002) takes about 2^(n / (1 + log2 k))
steps an addend for n bits. With the 16,384 records a writer may have, that is 2^9 for a sum of 128 bits and 2^136 for
one of 2048 (see also Lewi et al., "Securing Update Propagation with Homomorphic Hashing", 2019).

What travels is a hash of a sum: 16 bytes, for which a birthday search takes 2^64 steps, or the `CHECK_BYTES` of a range
or a writer, under a key that changes with every record in the mesh (crdt.reconcile), so that collisions cannot be
prepared. Who finds one nevertheless hides a difference until the next record: nothing is believed because of a
fingerprint, it only decides what is compared.

Invariant: equal states give equal fingerprints, whatever the order the records came in.
"""

from bisect import bisect_left
from collections.abc import Mapping
from hashlib import blake2b, shake_256
from itertools import accumulate
from typing import Final

from crdt.record import DIGEST_BYTES

FINGERPRINT_BYTES: Final = 16
CHECK_BYTES: Final = 8  # of a range or a single writer, within one reconciliation
SUM_BYTES: Final = DIGEST_BYTES
SUM_MODULUS: Final = 2 ** (8 * SUM_BYTES)

_TERM_BYTES: Final = 32


class Fingerprint:
    """The terms of all writers and their sum."""

    __slots__ = ("_ranges", "_sum", "_terms", "_value")

    def __init__(self) -> None:
        self._terms: dict[bytes, bytes] = {}
        self._sum = 0
        self._value: bytes | None = None
        self._ranges: Ranges | None = None

    @property
    def value(self) -> bytes:
        """16 bytes; zero for nothing held. O(1)."""
        if self._value is None:
            self._value = _digest(self._sum, FINGERPRINT_BYTES)
        return self._value

    def ranges(self) -> "Ranges":
        """A picture of now: the same one until something changes."""
        if self._ranges is None:
            self._ranges = Ranges(self._terms)
        return self._ranges

    def check(self, writer: bytes, key: bytes = b"") -> bytes | None:
        """A few bytes that tell this writer's state from another; None if nothing is held of it."""
        term = self._terms.get(writer)
        return None if term is None else blake2b(term, key=key, digest_size=CHECK_BYTES).digest()

    def note(self, writer: bytes, head: int, digest: int) -> None:
        """The writer's journal is at `head` (0: known to have forked) with live records of that digest, the sum of
        their content digests modulo `SUM_MODULUS`."""
        data = writer + head.to_bytes(8, "big") + digest.to_bytes(SUM_BYTES, "big")
        term = blake2b(data, digest_size=_TERM_BYTES).digest()
        old = self._terms.get(writer)
        if old is not None:
            self._sum -= _element(old)
        self._sum = (self._sum + _element(term)) % SUM_MODULUS
        self._terms[writer] = term
        self._value = self._ranges = None


class Ranges:
    """A frozen picture of the terms, sorted by writer, that can tell the fingerprint of any range of writers.

    A range is `[low, high)`; low b"" is the beginning and high None the end.
    """

    __slots__ = ("_sums", "writers")

    def __init__(self, terms: Mapping[bytes, bytes]) -> None:
        self.writers = sorted(terms)
        sums = accumulate((_element(terms[writer]) for writer in self.writers), initial=0)
        self._sums = [total % SUM_MODULUS for total in sums]

    def size(self, low: bytes, high: bytes | None) -> int:
        """How many writers are in a range."""
        start, end = self._span(low, high)
        return end - start

    def within(self, low: bytes, high: bytes | None) -> list[bytes]:
        """The writers of a range, sorted."""
        start, end = self._span(low, high)
        return self.writers[start:end]

    def fingerprint(self, low: bytes, high: bytes | None, key: bytes = b"") -> bytes:
        """A few bytes that tell the state of a range from another; zero when it is empty."""
        start, end = self._span(low, high)
        return _digest((self._sums[end] - self._sums[start]) % SUM_MODULUS, CHECK_BYTES, key)

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


def _element(term: bytes) -> int:
    """The number a term stands for."""
    return int.from_bytes(shake_256(term).digest(SUM_BYTES), "big")


def _digest(total: int, size: int, key: bytes = b"") -> bytes:
    """What a sum is compared by; zero for nothing."""
    return (
        blake2b(total.to_bytes(SUM_BYTES, "big"), key=key, digest_size=size).digest()
        if total
        else bytes(size)
    )


def _separator(below: bytes, above: bytes) -> bytes:
    """The shortest prefix of `above` that is greater than `below`."""
    same = next(index for index, (one, other) in enumerate(zip(below, above, strict=True)) if one != other)
    return above[: same + 1]
