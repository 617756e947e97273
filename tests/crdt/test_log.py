from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.log import PIECE, Mismatch, Move, WriterLog
from crdt.record import DIGEST_MASK, Record, content_digest

EDITS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([b"", b"one", b"two"])), min_size=1, max_size=14
)


@given(EDITS)
def test_a_log_holds_the_newest_record_of_each_key_above_the_floor(crdt, edits):
    records = crdt.Author(1).write_all(edits).records
    for head in range(1, len(records) + 1):
        log = crdt.log_of(records[:head])
        assert list(log.by_seq.values()) == crdt.live_by_definition(records[:head])
        assert (log.head, log.floor) == (head, records[head - 1].floor)
        assert crdt.rest(log.by_seq.values()) == records[head - 1].rest
        assert {r for keys in log.by_kind.values() for r in keys.values()} == set(log.by_seq.values())


@given(EDITS, st.data())
def test_a_jump_arrives_where_single_steps_do(crdt, edits, data):
    records = crdt.Author(1).write_all(edits).records
    start = data.draw(st.integers(0, len(records) - 1))
    jumped, walked = crdt.log_of(records[:start]), crdt.log_of(records)
    move = jumped.plan(walked.after(start))
    assert isinstance(move, Move)
    jumped.commit(move)
    for name in ("head", "floor", "digest", "bytes", "by_seq", "by_kind"):
        assert getattr(jumped, name) == getattr(walked, name), name


@given(EDITS, st.data())
def test_a_courier_who_leaves_out_what_is_live_is_found_out(crdt, edits, data):
    """And so is one who puts older, authentic records in its place."""
    records = crdt.Author(1).write_all(edits).records
    live = crdt.log_of(records).after(0)
    offered = data.draw(st.sets(st.sampled_from(records[:-1]))) if len(records) > 1 else set()
    claim = sorted({*offered, records[-1]}, key=lambda record: record.seq)
    outcome = WriterLog().plan(claim)
    if set(live) <= set(claim):
        assert isinstance(outcome, Move)
        assert list(outcome.kept) == live
    else:
        assert isinstance(outcome, Mismatch)


def test_planning_changes_nothing(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("a", b"2")])
    log = crdt.log_of(author.records[:1])
    log.plan([author.records[1]])
    assert (log.head, list(log.by_seq)) == (1, [1])


def test_a_floor_does_not_go_back(crdt):
    author = crdt.Author(1).write_all([("a", b""), ("b", b"1")])
    assert author.records[1].floor == 1
    log = crdt.log_of(author.records)
    back = crdt.sign(replace(author.records[1], seq=3, floor=0))
    assert log.plan([back]) == Mismatch("floor went back from 1 to 0")


def test_tombstones_go_once_nothing_live_is_older(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("b", b""), ("a", b""), ("c", b"1")])
    assert [record.floor for record in author.records] == [0, 0, 0, 0, 4]
    assert [record.key for record in crdt.log_of(author.records).after(0)] == ["c"]


def test_a_tombstone_of_what_others_wrote_stays(crdt):
    author = crdt.Author(1)
    author.write("a", b"", context=((crdt.writer_id(2), 1),))
    author.write_all([("b", b""), ("c", b"1")])
    assert [record.key for record in crdt.log_of(author.records).after(0)] == ["a", "b", "c"]


@pytest.mark.parametrize(("after", "seqs"), [(0, [2, 4, 5]), (2, [4, 5]), (4, [5]), (5, []), (9, [])])
def test_what_follows_a_seq_comes_in_rising_order(crdt, after, seqs):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("c", b"1"), ("c", b"2"), ("a", b"2")])
    assert [record.seq for record in crdt.log_of(author.records).after(after)] == seqs


@given(EDITS, st.data())
def test_what_a_floor_voids_is_known_by_its_pieces(crdt, edits, data):
    """Whatever was planned before, in vain or not: each plan tells of the digest as it is then."""
    writer, log, live = crdt.writer_id(1), WriterLog(), {}
    with patch("crdt.log.PIECE", 2):
        for seq, (key, payload) in enumerate(edits, 1):
            floor = data.draw(st.integers(log.floor, seq - 1))
            vain = data.draw(st.lists(st.integers(log.floor, seq - 1), max_size=2))
            live = {name: old for name, old in live.items() if old.seq > floor and name != key}
            odd = Record(
                writer=writer, seq=seq, kind="policy", key=key, payload=payload, hlc=1, floor=floor,
                rest=bytes(32), signature=bytes(64),
            )  # fmt: skip
            for wrong in vain:
                assert isinstance(log.plan([replace(odd, floor=wrong)]), Mismatch)
            live[key] = replace(odd, rest=crdt.rest([*live.values(), odd]))
            move = log.plan([live[key]])
            assert isinstance(move, Move)
            log.commit(move)
            assert list(log.by_seq.values()) == sorted(live.values(), key=lambda record: record.seq)
            assert log.digest == sum(map(content_digest, live.values())) & DIGEST_MASK


def test_records_that_do_not_add_up_cost_what_they_are_and_not_what_is_held(crdt):
    """One pushed record each: else a few datagrams a second, each about a large journal, would keep a node busy."""
    author = crdt.Author(1)
    held = 8 * PIECE
    batch = author.journal.batch(author.id)
    for number in range(held):
        author.journal.draft(
            writer=author.id, kind="policy", key=f"k{number}", payload=b"x", now_ms=author.now_ms,
            sign=crdt.sign_as(author.id), batch=batch,
        )  # fmt: skip
    drafts = batch.drafts
    journal = crdt.replica()
    journal.merge(drafts, author.now_ms)

    def hashed(seq: int, floor: int) -> int:
        odd = replace(drafts[-1], seq=seq, key="odd", floor=floor, rest=bytes(32))
        with patch("crdt.log.content_digest", side_effect=content_digest) as counted:
            assert journal.merge([crdt.sign(odd)], author.now_ms).refused
        return counted.call_count

    assert hashed(held + 1, 0) <= 1
    assert hashed(held + 1, held) <= held
    for floor in (held, 0, held // 2, held - 1, PIECE + 3):
        assert hashed(held + 1, floor) <= PIECE
    author.journal.merge(drafts, author.now_ms)
    following = author.write("k0", b"new")
    assert journal.merge([following], author.now_ms).accepted == (following,)
    for floor in (held, held - 1):  # what moved since is hashed again, and no more
        assert hashed(held + 2, floor) <= 2 * PIECE
