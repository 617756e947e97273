"""Drafts of one writer that build on one another, before any of them is merged.

The figures that a draft signs are those of the journal once it is in. They are kept as the batch grows, so that a draft
costs what it changes, not what was drafted before it.

Invariant: the figures are those of the move (`crdt.log.WriterLog.plan`) that merging the batch makes.
"""

from collections.abc import Iterable
from itertools import takewhile

from crdt.log import WriterLog
from crdt.record import Record, content_digest, record_bytes, rest_hash


class Batch:
    """The `drafts` so far, in rising seq, on top of a log that must not change meanwhile. `head`, `floor`, `digest`,
    `bytes` and `size` (records) are those of the log once all of them are in. Their numbers begin behind `used`."""

    __slots__ = ("_log", "_newest", "bytes", "digest", "drafts", "floor", "head", "size")

    def __init__(self, log: WriterLog, drafts: Iterable[Record] = (), *, used: int = 0) -> None:
        self._log = log
        self._newest: dict[tuple[str, str], Record] = {}
        self.drafts: list[Record] = []
        self.head = max(log.head, used)
        self.floor = log.spent_upto()  # every draft names it: tombstones that say nothing any more are let go
        self.digest, self.bytes, self.size = log.digest, log.bytes, len(log.by_seq)
        for _, record in takewhile(lambda held: held[0] <= self.floor, log.by_seq.items()):
            self._drop(record)
        for draft in drafts:
            self.add(draft)

    def latest(self, kind: str, key: str) -> Record | None:
        """The writer's newest record of that key, drafts included: what the next draft of it replaces."""
        earlier = self._newest.get((kind, key))
        if earlier is not None:
            return earlier
        held = self._log.get(kind, key)
        return held if held is not None and held.seq > self.floor else None

    def rest(self, kind: str, key: str) -> bytes:
        """The hash of all that stays when this key is written once more: what the draft has to sign."""
        old = self.latest(kind, key)
        return rest_hash(self.digest - (0 if old is None else content_digest(old)))

    def figures_with(self, draft: Record) -> tuple[int, int]:
        """How many records and bytes the log has with one more draft."""
        old = self._replaced(draft)
        size, length = (1, record_bytes(old)) if old is not None else (0, 0)
        return self.size + 1 - size, self.bytes + record_bytes(draft) - length

    def add(self, draft: Record) -> None:
        """The next draft."""
        assert (draft.seq, draft.floor) == (self.head + 1, self.floor), "not of this batch"
        old = self._replaced(draft)
        if old is not None:
            self._drop(old)
        self._newest[draft.kind, draft.key] = draft
        self.drafts.append(draft)
        self.head = draft.seq
        self.digest += content_digest(draft)
        self.bytes += record_bytes(draft)
        self.size += 1

    def _replaced(self, draft: Record) -> Record | None:
        return self.latest(draft.kind, draft.key)

    def _drop(self, record: Record) -> None:
        self.digest -= content_digest(record)
        self.bytes -= record_bytes(record)
        self.size -= 1
