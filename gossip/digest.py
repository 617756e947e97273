"""A digest of the member list: equal lists have equal digests, and where two differ it says roughly where.

Range-based set reconciliation (Meyer, 2023) with one level of fixed ranges: a node id is a hash, so its first byte
spreads the members evenly over 256 buckets. Each member contributes one 64-bit term, a hash of its id and its `Mark`:
the rank the subject signed last and the class this node holds it in. A bucket's value, and the root, is the sum of
its terms modulo 2^64, so a member that changes costs one subtraction and one addition, whatever n is.

Sums find accidents, not attacks: who may choose many terms can make two lists with one sum (Wagner, 2002). A member
that hides something this way hides what it could as well have left unsaid; what it does say is signed.

What counts must be the same for everybody who knows the same statements, so a suspect counts as alive (each accuser
tells of it at a time of its own, and it ends as alive or dead), and who is gone without a statement to show for it
does not count: the revoked (the journal tells of them) and those whose credential has run out (the clock does).

Invariant: the root is the sum of the bucket values; `count` is the number of terms in it.
"""

import struct
from array import array
from enum import IntEnum
from hashlib import blake2b
from typing import Final, NamedTuple

BUCKETS: Final = 256
ROOT_BYTES: Final = 8
_TERM: Final = struct.Struct(">16sQQB")
_VALUES: Final = struct.Struct(f">{BUCKETS}Q")
_MODULUS: Final = 1 << 64


class Standing(IntEnum):
    """In what class a member counts. Of two claims of one rank the higher class prevails."""

    NONE = 0  # not at all
    LIVE = 1  # alive or suspect
    DEAD = 2  # condemned, with the evidence at hand
    LEFT = 3


class Mark(NamedTuple):
    """What is told of a member without its statements. The greater mark is the one to believe."""

    boot: int
    incarnation: int
    standing: Standing

    @property
    def rank(self) -> tuple[int, int]:
        return self.boot, self.incarnation


class Digest:
    """256 sums and their sum. A copy costs nothing until either side of it changes."""

    __slots__ = ("_shared", "_sum", "_values", "count", "root")

    def __init__(self) -> None:
        self._values = array("Q", bytes(BUCKETS * ROOT_BYTES))
        self._sum = 0
        self._shared = False  # with a copy: to be copied before it is written to
        self.count = 0
        self.root = bytes(ROOT_BYTES)  # tells lists apart

    def replace(self, node: bytes, before: Mark | None, after: Mark | None) -> None:
        """`node`, counted as `before` until now (None or standing NONE: not at all), counts as `after`."""
        old = None if before is None or before.standing is Standing.NONE else before
        new = None if after is None or after.standing is Standing.NONE else after
        if old == new:
            return
        delta = (0 if new is None else _term(node, new)) - (0 if old is None else _term(node, old))
        if self._shared:
            self._values, self._shared = self._values[:], False
        self._values[node[0]] = (self._values[node[0]] + delta) % _MODULUS
        self._sum = (self._sum + delta) % _MODULUS
        self.root = self._sum.to_bytes(ROOT_BYTES, "big")
        self.count += (new is not None) - (old is not None)

    def values(self) -> bytes:
        """The values of all buckets, eight bytes each."""
        return _VALUES.pack(*self._values)

    def copy(self) -> "Digest":
        """The same digest, to go a way of its own from here."""
        other = Digest.__new__(Digest)
        other._values, other._sum, other.count = self._values, self._sum, self.count
        other.root = self.root
        other._shared = self._shared = True
        return other

    def __repr__(self) -> str:
        return f"Digest({self.root.hex()}, {self.count} members)"


def _term(node: bytes, mark: Mark) -> int:
    packed = _TERM.pack(node, mark.boot, mark.incarnation, mark.standing)
    return int.from_bytes(blake2b(packed, digest_size=8, person=b"gossamer/members").digest(), "big")
