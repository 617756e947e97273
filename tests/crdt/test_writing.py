"""Writing our own: drafts, batches, limits, floors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.delta import INTRODUCTION_BYTES_MAX
from crdt.journal import JournalError, JournalLimits
from crdt.record import RECORD_BYTES_MAX, RecordError

EDITS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([b"", b"one", b"two"])), min_size=1, max_size=10
)


def test_a_draft_is_not_applied(crdt):
    author = crdt.Author(1)
    before = author.journal.canonical()
    assert author.draft("a").seq == 1
    assert author.draft("a").seq == 1
    assert author.journal.canonical() == before


@given(EDITS, EDITS)
def test_a_batch_of_drafts_merges_like_single_ones(crdt, before, edits):
    author, single = crdt.Author(1).write_all(before), crdt.Author(1).write_all(before)
    batch = []
    for key, payload in edits:
        batch.append(author.draft(key, payload, pending=batch))
    merged = author.journal.merge(batch, crdt.NOW_MS)
    assert merged.accepted == tuple(batch)
    assert merged.refused == ()
    single.write_all(edits)
    assert [r.payload for r in author.journal.records("policy") if r.payload] == [
        r.payload for r in single.journal.records("policy") if r.payload
    ]


def test_stamps_of_drafts_are_past_everything_seen(crdt):
    ahead, author = crdt.Author(2), crdt.Author(1)
    ahead.now_ms += 3000
    seen = ahead.write("a")
    author.journal.merge([seen], crdt.NOW_MS)
    assert author.draft("a").hlc > seen.hlc


def test_a_node_that_lost_its_disk_goes_on_where_its_peers_say_it_was(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("a", b"2")])
    peer = crdt.replica()
    peer.merge(author.records, crdt.NOW_MS)
    author.journal = crdt.replica()
    author.journal.absorb(peer.delta(author.id, 0, 2**30), crdt.NOW_MS)
    record = author.write("c")
    assert record.seq == 4
    assert record.hlc > author.records[2].hlc
    assert peer.merge([record], crdt.NOW_MS).accepted == (record,)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "Not A Kind"}, "kind"),
        ({"key": "k" * 513}, "key of 513 bytes"),
        ({"payload": b"x" * RECORD_BYTES_MAX}, "bytes"),
        ({"context": ((b"?", 1),)}, "context"),
    ],
)
def test_a_draft_past_a_bound_is_refused_in_words(crdt, change, why):
    author = crdt.Author(1)
    arguments = {"key": "a", "payload": b"x", **change}
    with pytest.raises(RecordError, match=why):
        author.draft(arguments.pop("key"), arguments.pop("payload"), **arguments)


@pytest.mark.parametrize("limits", [JournalLimits(writer_records_max=2), JournalLimits(writer_bytes_max=500)])
def test_a_full_journal_takes_no_more_of_its_writer_on_either_side(crdt, limits):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1")])
    third = author.write("c")
    journal = crdt.replica(limits)
    journal.merge(author.records[:2], crdt.NOW_MS)
    (refused,) = journal.merge([third], crdt.NOW_MS).refused
    assert refused[0] == third
    assert "at most" in refused[1]
    author.journal = journal
    with pytest.raises(JournalError, match="at most"):
        author.draft("d")
    assert author.draft("a", b"2").seq == 3


def test_the_number_of_writers_is_bounded(crdt):
    journal = crdt.replica(JournalLimits(writers_max=2))
    records = [crdt.Author(n).write("a") for n in range(3)]
    merged = journal.merge(records, crdt.NOW_MS)
    assert merged.accepted == tuple(records[:2])
    assert merged.refused == ((records[2], "more than 2 writers"),)


def test_introductions_are_bounded(crdt):
    journal = crdt.replica(JournalLimits(writers_max=1))
    with pytest.raises(JournalError, match="4097 bytes"):
        journal.introduce(b"w" * 16, bytes(INTRODUCTION_BYTES_MAX + 1))
    journal.introduce(b"w" * 16, b"credential")
    journal.introduce(b"w" * 16, b"renewed")
    with pytest.raises(JournalError, match="introduced already"):
        journal.introduce(b"v" * 16, b"credential")


def test_tombstones_disappear_and_nothing_older_comes_back(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("a", b""), ("b", b"1")])
    old, new = crdt.replica(), crdt.replica()
    old.merge(author.records[:1], crdt.NOW_MS)
    for journal in (old, new):
        journal.absorb(author.journal.delta(author.id, journal.heads.get(author.id, 0), 2**30), crdt.NOW_MS)
        journal.merge(author.records[:2], crdt.NOW_MS)
        assert [record.key for record in journal.records("policy")] == ["b"]
    assert old.canonical() == new.canonical() == author.journal.canonical()
