"""Writers, replicas and sessions for the tests of replicated data. Stateless, so that hypothesis may share it."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import blake2b
from types import SimpleNamespace

import pytest

from crdt.delta import Accept, Delta, Merged, Refuse, Verdict, Wait
from crdt.journal import Journal, JournalLimits
from crdt.log import WriterLog
from crdt.reconcile import Reconciliation
from crdt.record import SIGNATURE_BYTES, Record, content_digest, rest_hash

NOW_MS = 1_700_000_000_000
DRIFT_MS = 5000


def writer_id(number: int) -> bytes:
    return blake2b(b"writer %d" % number, digest_size=16).digest()


def sign_as(writer: bytes) -> Callable[[bytes], bytes]:
    """A keyed hash in place of a signature: verifiable, unforgeable to the tests' forgers, and quick."""
    return lambda message: blake2b(message, key=writer, digest_size=SIGNATURE_BYTES).digest()


def sign(record: Record) -> Record:
    return replace(record, signature=sign_as(record.writer)(record.signing_bytes()))


def verify(record: Record, now_ms: int) -> Verdict:
    if record.signature != sign_as(record.writer)(record.signing_bytes()):
        return Refuse("signature does not verify")
    if record.hlc >> 16 > now_ms + DRIFT_MS:
        return Wait("stamped in the future")
    return Accept()


def rest(live: Iterable[Record]) -> bytes:
    """What the newest of a writer's live records has to sign of the others."""
    *others, _ = sorted(live, key=lambda record: record.seq)
    return rest_hash(sum(map(content_digest, others)))


class Author:
    """A writer with a journal of its own. `at(head)` is the journal of a replica that holds it up to there."""

    def __init__(self, number: int) -> None:
        self.id = writer_id(number)
        self.journal = Journal(verify=verify)
        self.records: list[Record] = []
        self.now_ms = NOW_MS

    def draft(
        self, key: str, payload: bytes = b"x", *, kind: str = "policy", pending=(), context=()
    ) -> Record:
        return self.journal.draft(
            writer=self.id,
            kind=kind,
            key=key,
            payload=payload,
            context=context,
            now_ms=self.now_ms,
            sign=sign_as(self.id),
            batch=self.journal.batch(self.id, pending),
        )

    def write(self, key: str, payload: bytes = b"x", *, kind: str = "policy", context=()) -> Record:
        record = self.draft(key, payload, kind=kind, context=context)
        assert self.journal.merge([record], self.now_ms).accepted == (record,)
        self.records.append(record)
        return record

    def write_all(self, edits: Iterable[tuple[str, bytes]]) -> "Author":
        for key, payload in edits:
            self.write(key, payload)
        return self

    def at(self, head: int) -> Journal:
        journal = Journal(verify=verify)
        journal.merge(self.records[:head], self.now_ms)
        assert journal.heads.get(self.id, 0) == head
        return journal


def replica(
    limits: JournalLimits | None = None, verify: Callable[[Record, int], Verdict] = verify
) -> Journal:
    return Journal(verify=verify, limits=limits)


def whole(journal: Journal, writer: bytes, after: int = 0) -> Delta:
    return journal.delta(writer, after, 2**40)


def parts(journal: Journal, writer: bytes, bytes_max: int, after: int = 0) -> list[Delta]:
    """A delta as it flows in bounded frames."""
    found = [journal.delta(writer, after, bytes_max)]
    while not found[-1].complete:
        found.append(journal.delta(writer, found[-1].upto, bytes_max))
    return found


def merged_kinds(merged: Merged) -> dict[str, int]:
    return {
        "accepted": len(merged.accepted),
        "superseded": len(merged.superseded),
        "duplicates": merged.duplicates,
        "waiting": len(merged.waiting),
        "refused": len(merged.refused),
        "equivocations": len(merged.equivocations),
    }


def live_by_definition(records: Iterable[Record]) -> list[Record]:
    """live(h) as the log's docstring defines it, computed the slow way from the full history up to h."""
    newest: dict[tuple[str, str], Record] = {}
    floor = 0
    for record in sorted(records, key=lambda record: record.seq):
        newest[record.kind, record.key] = record
        floor = record.floor
    return sorted((r for r in newest.values() if r.seq > floor), key=lambda record: record.seq)


def log_of(records: Iterable[Record]) -> WriterLog:
    log = WriterLog()
    for record in records:
        log.commit(log.plan([record]))
    return log


def reconcile(
    one: Journal, other: Journal, *, now_ms: int = NOW_MS, between: Callable[[], None] = lambda: None
) -> SimpleNamespace:
    """Run a whole session, absorbing as it goes. Gives the bytes, the frames and what the merges said."""
    sessions = Reconciliation(one, initiator=True), Reconciliation(other, initiator=False)
    journals = one, other
    assert sessions[1].start() == []
    queue = deque((1, frame) for frame in sessions[0].start())
    frames, merges = [], []
    while queue:
        side, frame = queue.popleft()
        frames.append(frame)
        step = sessions[side].receive(frame)
        for delta, introduction in step.deltas:
            if introduction is not None:
                journals[side].introduce(delta.writer, introduction)
            merges.append(journals[side].absorb(delta, now_ms))
        between()
        queue.extend((1 - side, reply) for reply in step.send)
    assert all(session.done for session in sessions)
    return SimpleNamespace(frames=frames, bytes=sum(map(len, frames)), merges=merges, sessions=sessions)


@pytest.fixture(scope="session")
def crdt() -> SimpleNamespace:
    """Everything above, by name."""
    names = (
        Author,
        rest,
        sign,
        sign_as,
        verify,
        replica,
        whole,
        parts,
        merged_kinds,
        live_by_definition,
        log_of,
    )
    return SimpleNamespace(
        **{thing.__name__: thing for thing in names},
        writer_id=writer_id,
        reconcile=reconcile,
        NOW_MS=NOW_MS,
        DRIFT_MS=DRIFT_MS,
    )
