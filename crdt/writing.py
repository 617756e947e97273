"""Writing: a replica drafts the next record of the writer whose key it has.

A draft is numbered and signed and nothing more: whoever asked for it makes it durable and merges it then, like any
record. What it signs are the figures of the journal once it is in (`crdt.batch`).

A writer whose replica lost records may be shown one that somebody else holds back for want of those before it, which
nobody has. Its numbers go on behind that one, and some way behind it (BEYOND), for what was written after it may wait
elsewhere. A log needs no number to follow the one before: to every replica what was left out looks superseded.

Invariant: nothing is drafted under a seq that was ever seen used.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from crdt.batch import Batch
from crdt.clock import VersionVector
from crdt.codec import CrdtError
from crdt.log import WriterLog
from crdt.record import SEQ_MAX, SIGNATURE_BYTES, Context, Record, RecordError, record_fault
from crdt.replica import Replica

BEYOND: Final = 1024  # numbers left free behind one that is known to be used and lost


class JournalError(CrdtError):
    """A record cannot be drafted now. Nothing was changed."""


class WritingReplica(Replica):
    """See the module's docstring."""

    def draft(
        self,
        *,
        writer: bytes,
        kind: str,
        key: str,
        payload: bytes,
        context: Context = (),
        now_ms: int,
        sign: Callable[[bytes], bytes],
        batch: Batch | None = None,
    ) -> Record:
        """The writer's next record, signed but not applied: make it durable, then `merge` it.

        `batch` are the earlier drafts, none of them merged yet; this one is added to it. Tombstones that no longer
        say anything are let go on the way, by the record's floor. What the writer's last record of the key covered
        stays covered, also where `context` does not know of it: it may have been made before that record was heard
        again from the peers, by a node whose disk had lost it. Raises JournalError when the writer may not
        write now, RecordError when the record would break a bound; then the batch is as it was.
        """
        if writer in self._forks:
            raise JournalError(
                "this node's journal has forked: two of its records share a seq. It needs a new identity"
            )
        batch = batch if batch is not None else self.batch(writer)
        head = batch.head
        if head < self._reserved.get(writer, 0):
            raise JournalError(
                f"this node has written {self._reserved[writer]} records but holds {head}: "
                "it must hear them from its peers first"
            )
        seq = head + 1
        replaced = batch.latest(kind, key)
        if replaced is not None and replaced.context:
            context = VersionVector([*context, *replaced.context]).entries
        unsigned = Record(
            writer=writer,
            seq=seq,
            kind=kind,
            key=key,
            payload=payload,
            context=context,
            hlc=self.clock.tick(now_ms),
            floor=batch.floor,
            rest=batch.rest(kind, key),
            signature=bytes(SIGNATURE_BYTES),
        )
        fault = record_fault(unsigned)
        if fault is not None:
            raise RecordError(fault)
        full = self.limits.exceeded_by(*batch.figures_with(unsigned))
        if full is not None:
            raise JournalError(full)
        record = replace(unsigned, signature=sign(unsigned.signing_bytes()))
        batch.add(record)
        return record

    def batch(self, writer: bytes, drafts: Iterable[Record] = ()) -> Batch:
        """A batch of drafts of that writer, to go on from these."""
        log, passed = self._logs.get(writer) or WriterLog(), self._passed.get(writer, 0)
        return Batch(log, drafts, used=min(passed + BEYOND, SEQ_MAX) if passed > log.head else 0)

    def pass_over(self, writer: bytes, seq: int) -> bool:
        """The writer has used `seq` (the caller has seen its signature): draft behind it, unless the head gets there
        first. Returns whether that was news."""
        if seq <= max(self._heads.get(writer, 0), self._passed.get(writer, 0)):
            return False
        self._passed[writer] = seq
        return True
