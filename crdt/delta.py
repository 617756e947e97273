"""What journals hand to one another and what they say about it: verdicts, deltas, outcomes.

Invariant: everything here is immutable data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

from crdt.record import Record

INTRODUCTION_BYTES_MAX: Final = 4096  # a writer's credential, opaque here


@dataclass(frozen=True, slots=True)
class Accept:
    """The record is authentic and well-formed."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It cannot be judged yet: its writer is unknown so far, or it is stamped in the future."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """It is not authentic or not well-formed, and never will be.

    Must depend on the record and its writer's credential alone, so that all replicas agree: a refused record ends its
    writer's journal there. What depends on other state, such as who may write which policy, is for the fold to judge.
    """

    reason: str


Verdict: TypeAlias = Accept | Wait | Refuse
Verify: TypeAlias = Callable[[Record, int], Verdict]  # (record, now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A claim about one writer: `records` (rising seq) are all of `(after, upto]` that are live at head `target`.

    With `upto < target` it is a part: what is superseded between the two is missing from it, so that it may be shown
    only once the rest is there. Two records of one seq are the proof of an equivocation.
    """

    writer: bytes
    after: int
    upto: int
    target: int
    records: tuple[Record, ...] = ()

    @property
    def complete(self) -> bool:
        return self.upto >= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivocation:
    """Two different records of one writer under one seq, both signed by it. Anybody can check the proof."""

    first: Record
    second: Record

    @property
    def writer(self) -> bytes:
        return self.first.writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """What a writer signed at head `after` does not follow from what it signed at head `before`. Both stand on its
    signatures, but the proof is both journals; so it is told, and what was signed last counts."""

    writer: bytes
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a call changed. To be durable: insert `accepted`, then remove `superseded`, in one transaction."""

    accepted: tuple[Record, ...] = ()  # newly taken, in the order they took effect
    superseded: tuple[
        Record, ...
    ] = ()  # no longer live: by a newer record of the key, or by the writer's floor
    duplicates: int = 0
    waiting: tuple[
        tuple[Record, str], ...
    ] = ()  # kept for later, unless the bounds of the quarantine say otherwise
    refused: tuple[tuple[Record, str], ...] = ()
    equivocations: tuple[Equivocation, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.accepted or self.superseded or self.equivocations)


def delta_fault(delta: Delta) -> str | None:
    """Why a delta cannot be one, as far as its shape goes."""
    if any(record.writer != delta.writer for record in delta.records):
        return "delta holds records of another writer"
    seqs = [record.seq for record in delta.records]
    if any(one > other for one, other in pairwise(seqs)):
        return "delta is not in rising order"
    if seqs and not delta.after < seqs[0] <= seqs[-1] == delta.upto <= delta.target:
        return "delta does not end where it says"
    if not seqs and not delta.after == delta.upto == delta.target:
        return "delta claims records it does not hold"
    return None
