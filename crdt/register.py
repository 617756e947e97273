"""Registers: what a key is worth when several writers wrote it.

Each writer has at most one live record per key. A record's context names the dots of that key its author had seen; a
record that somebody else's context names is *covered*: replaced by one who knew it. What nobody covers is current.
Two that do not cover one another are concurrent, and both stay (a multi-value register, as in Shapiro et al., "A
comprehensive study of Convergent and Commutative Replicated Data Types", 2011, with dotted contexts after Almeida et
al., "Scalable and Accurate Causality Tracking", 2014). A deletion is a record without payload: it covers what it saw
and is itself worth nothing, so an edit it did not see survives it.

A context reaches no further than its author's time: it covers only what is stamped before it. An honest author's
clock is past all it has seen, so this costs nothing; without it one record could silence, by naming seqs not yet
used, what others will write in future.

Invariant: the outcome depends on the set of records alone, not on their order.
"""

from collections.abc import Iterable

from crdt.clock import VersionVector
from crdt.record import Context, Record


def versions(records: Iterable[Record]) -> tuple[Record, ...]:
    """The current versions of one key, latest stamp first; ties fall to the larger writer id. Empty: it is deleted.

    More than one: concurrent edits that nobody has settled. All replicas agree on the first: the last-writer-wins
    reading.
    """
    by_writer = _newest(records)
    covered = {
        writer
        for record in by_writer.values()
        for writer, seq in record.context
        if (other := by_writer.get(writer)) is not None and other.seq <= seq and other.hlc < record.hlc
    }
    current = [record for record in by_writer.values() if not record.deleted and record.writer not in covered]
    current.sort(key=lambda record: (record.hlc, record.writer), reverse=True)
    return tuple(current)


def context_for(records: Iterable[Record], editor: bytes | None = None) -> Context:
    """The context of an edit by somebody who sees `records` of the key: the dots of all of them, current, covered
    and deleted, and what the editor's own last record covered.

    Covered ones too, because the record that covers them may be superseded by one of its writer's that had not
    seen them.
    """
    seen: list[tuple[bytes, int]] = []
    for record in records:
        seen.append((record.writer, record.seq))
        if record.writer == editor:
            seen.extend(record.context)
    return VersionVector(seen).entries


def _newest(records: Iterable[Record]) -> dict[bytes, Record]:
    newest: dict[bytes, Record] = {}
    for record in records:
        known = newest.get(record.writer)
        if known is None or known.seq < record.seq:
            newest[record.writer] = record
    return newest
