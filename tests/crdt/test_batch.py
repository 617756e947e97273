"""Drafts that build on one another: their figures are those of the move that merging them makes, at a constant cost."""

from hypothesis import given
from hypothesis import strategies as st

from crdt import batch as module
from crdt.log import Move, WriterLog
from crdt.record import DIGEST_MASK

EDITS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([b"", b"one", b"two" * 9])), min_size=1, max_size=12
)


@given(st.lists(EDITS, max_size=3), EDITS)
def test_the_figures_are_those_of_the_move(crdt, before, edits):
    author = crdt.Author(1)
    for each in before:
        author.write_all(each)
    log = author.journal._logs.get(author.id) or WriterLog()
    batch = author.journal.batch(author.id)
    for number, (key, payload) in enumerate(edits):
        record = author.journal.draft(
            writer=author.id, kind="policy", key=key, payload=payload, now_ms=crdt.NOW_MS + number,
            sign=crdt.sign_as(author.id), batch=batch,
        )  # fmt: skip
        move = log.plan(batch.drafts)
        assert isinstance(move, Move)
        assert (batch.head, batch.floor) == (record.seq, record.floor) == (move.head, move.floor)
        assert (batch.digest & DIGEST_MASK, batch.bytes) == (move.digest, move.bytes)
        assert batch.size == len(log.by_seq) + len(move.kept) - len(move.dropped)
    again = author.journal.batch(author.id, batch.drafts)
    assert (again.head, again.digest, again.bytes, again.size) == (
        batch.head, batch.digest, batch.bytes, batch.size,
    )  # fmt: skip
    assert author.journal.merge(batch.drafts, crdt.NOW_MS + 100).refused == ()


def test_a_draft_is_counted_once_however_many_came_before(crdt, monkeypatch):
    """A call may bring ten thousand documents: measured in records whose size is asked for."""
    asked: list[int] = []
    real = module.record_bytes
    monkeypatch.setattr(module, "record_bytes", lambda record: asked.append(record.seq) or real(record))
    author = crdt.Author(1)
    batch = author.journal.batch(author.id)
    for number in range(200):
        author.journal.draft(
            writer=author.id, kind="policy", key=f"k{number}", payload=b"x", now_ms=crdt.NOW_MS,
            sign=crdt.sign_as(author.id), batch=batch,
        )  # fmt: skip
    assert len(asked) <= 3 * 200
