"""The history of a policy as this node knows it: what its journal holds of the key, and what its disk remembers
(`peer/io/history.py`).

Each version says which ones it replaced: of the versions its author had seen (the record's context), those that no
other of them had replaced already.

Invariant: nothing but the records decides the outcome.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from crdt import register
from crdt.clock import Dot, VersionVector
from crdt.codec import CrdtError
from crdt.record import Record, decode_record
from peer.records import PayloadError, decode_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class PastVersion:
    """A version of a policy. `document` is None for a deletion, and for what cannot be read. `objection` says why it is
    not obeyed, if so."""

    record: Record
    current: bool
    replaced: tuple[Dot, ...]
    objection: str = ""

    @property
    def document(self) -> Mapping[str, Any] | None:
        try:
            return None if self.record.deleted else decode_policy(self.record.payload)
        except PayloadError:
            return None


def versions(
    held: Iterable[tuple[Record, str]],
    past: Iterable[bytes],
    key: str,
    *,
    read: Callable[[Record], Record] = lambda record: record,
    live: Callable[[Iterable[Record]], Iterable[Record]] = register.versions,
    judge: Callable[[Record], str] = lambda _record: "",
) -> list[PastVersion]:
    """All versions that are known, latest first. `held` are those of the journal, each with why it is not obeyed;
    `past` the encoded records of the disk, of which those that cannot be read are left out. `read` gives a record as
    its author's, `live` which of the records that are obeyed are in force, and `judge` why one of `past` would not be
    obeyed now ("": it would), so that what its author had no right to does not look as if it had been in force."""
    held = tuple(held)
    obeyed = [record for record, objection in held if not objection]
    current = {record.dot for record in live(obeyed)}
    known: dict[Dot, Record] = {}
    for record in map(read, obeyed):
        known[record.dot] = _joined(record, known.get(record.dot))  # several members may have published it
    current |= {dot for dot, each in known.items() if each.deleted and not _covered(each, known.values())}
    objections: dict[Dot, str] = {}
    for record, objection in held:
        authored = read(record)
        if objection and known.setdefault(authored.dot, authored) is authored:
            objections[authored.dot] = objection
    for data in past:
        decoded = _decoded(data)
        if decoded is not None and decoded.key == key:
            authored = read(decoded)
            if known.setdefault(authored.dot, authored) is authored and (objection := judge(decoded)):
                objections[authored.dot] = objection
    ordered = sorted(known.values(), key=lambda each: (each.hlc, each.writer), reverse=True)
    return [
        PastVersion(
            record=record,
            current=record.dot in current,
            replaced=_replaced(record, known),
            objection=objections.get(record.dot, ""),
        )
        for record in ordered
    ]


def _joined(record: Record, other: Record | None) -> Record:
    """One version that has seen what either has."""
    if other is None:
        return record
    return replace(record, context=VersionVector([*record.context, *other.context]).entries)


def _covered(record: Record, others: Iterable[Record]) -> bool:
    """As crdt.register.versions has it, for deletions too."""
    return any(
        writer == record.writer and seq >= record.seq and record.hlc < other.hlc
        for other in others
        for writer, seq in other.context
    )


def _replaced(record: Record, known: Mapping[Dot, Record]) -> tuple[Dot, ...]:
    """What the record replaced at first hand."""
    seen = [Dot(writer, seq) for writer, seq in record.context]
    through = {
        (writer, seq)
        for dot in seen
        if (other := known.get(dot)) is not None
        for writer, seq in other.context
    }
    return tuple(
        dot for dot in seen if not any(writer == dot.writer and seq >= dot.seq for writer, seq in through)
    )


def _decoded(data: bytes) -> Record | None:
    try:
        return decode_record(data)
    except CrdtError:
        return None
