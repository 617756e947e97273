"""Time without trust in clocks: hybrid logical clocks, dots and version vectors.

A hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014) stays close to wall time and yet respects
causality: what is written after a record was seen carries a larger stamp. A stamp is one integer, 48 bits of Unix
milliseconds above 16 bits of counter, so that comparing stamps is comparing integers; a counter that overflows
carries into the milliseconds.

A dot names one write, `(writer, seq)`. A version vector says, writer by writer, up to which seq somebody has seen.

Invariant: a clock never goes back, and no stamp is given out twice.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

Hlc: TypeAlias = int

COUNTER_BITS: Final = 16
HLC_MAX: Final = 2**64 - 1


def hlc_ms(stamp: Hlc) -> int:
    """The Unix milliseconds in a stamp."""
    return stamp >> COUNTER_BITS


def hlc_at(now_ms: int) -> Hlc:
    """The smallest stamp of that millisecond."""
    return now_ms << COUNTER_BITS


class HybridClock:
    """Gives out stamps. `now_ms` is Unix time in milliseconds and may go back; stamps do not."""

    __slots__ = ("_last",)

    def __init__(self, last: Hlc = 0) -> None:
        self._last = last

    @property
    def last(self) -> Hlc:
        """The largest stamp given out or seen."""
        return self._last

    def tick(self, now_ms: int) -> Hlc:
        """A stamp larger than any given out or observed before."""
        self._last = max(self._last + 1, hlc_at(now_ms))
        assert self._last <= HLC_MAX, "the clock ran out of its 48 bits"
        return self._last

    def observe(self, stamp: Hlc, now_ms: int) -> None:
        """Note a stamp of somebody else's. Judge first whether it is too far ahead: the clock follows it."""
        self._last = max(self._last, stamp, hlc_at(now_ms))

    def __repr__(self) -> str:
        return f"HybridClock({hlc_ms(self._last)} ms + {self._last & (2**COUNTER_BITS - 1)})"


@dataclass(frozen=True, slots=True, order=True)
class Dot:
    """One write: the seq-th of its writer. Seqs start at 1."""

    writer: bytes
    seq: int


class VersionVector(Mapping[bytes, int]):
    """What somebody has seen: writer -> highest seq. Immutable; a writer not in it is at 0.

    Vectors form a join-semilattice: `merge` is the least upper bound, `descends` the order.
    """

    __slots__ = ("_seqs",)

    def __init__(self, entries: Mapping[bytes, int] | Iterable[tuple[bytes, int]] = ()) -> None:
        seqs: dict[bytes, int] = {}
        for writer, seq in entries.items() if isinstance(entries, Mapping) else entries:
            if seq > seqs.get(writer, 0):
                seqs[writer] = seq
        self._seqs = seqs

    def __getitem__(self, writer: bytes) -> int:
        return self._seqs[writer]

    def __iter__(self) -> Iterator[bytes]:
        return iter(sorted(self._seqs))

    def __len__(self) -> int:
        return len(self._seqs)

    def __hash__(self) -> int:
        return hash(frozenset(self._seqs.items()))

    def __repr__(self) -> str:
        return f"VersionVector({', '.join(f'{writer.hex()[:8]}:{self[writer]}' for writer in self)})"

    @property
    def entries(self) -> tuple[tuple[bytes, int], ...]:
        """Sorted by writer: the form a record's context has."""
        return tuple(sorted(self._seqs.items()))

    def merge(self, other: "VersionVector") -> "VersionVector":
        """The least vector that has seen what either has."""
        return VersionVector([*self._seqs.items(), *other._seqs.items()])

    def descends(self, other: "VersionVector") -> bool:
        """Whether everything `other` has seen is seen here too. Two that do not descend are concurrent."""
        return all(self._seqs.get(writer, 0) >= seq for writer, seq in other._seqs.items())
