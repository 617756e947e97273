"""Writing our own: drafts, batches, limits, floors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.delta import INTRODUCTION_BYTES_MAX
from crdt.journal import JournalError, JournalLimits
from crdt.record import RECORD_BYTES_MAX, SEQ_MAX, RecordError
from crdt.writing import BEYOND

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


# ------------------------------------------------------------------ numbers that are used and lost


def lost(crdt, held=(3,), upto=4):
    """An author whose disk kept one record of `upto`, and a peer that has that one too and holds some others back."""
    author = crdt.Author(1).write_all([(f"k{number}", b"old") for number in range(upto)])
    peer = author.at(1)
    peer.merge([author.records[seq - 1] for seq in held], crdt.NOW_MS)
    author.journal = author.at(1)
    return author, peer


def test_what_is_held_back_proves_how_far_its_writer_has_come(crdt):
    author, peer = lost(crdt, held=(3, 4, 6, 5), upto=6)
    assert peer.heads[author.id] == 1
    assert peer.held_back(author.id) == author.records[5]
    assert author.journal.held_back(author.id) is None
    assert peer.held_back(crdt.writer_id(2)) is None


def test_what_is_not_verified_proves_nothing(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1")])
    author.now_ms += 2 * crdt.DRIFT_MS
    peer = author.at(1)
    assert peer.merge([author.write("c")], crdt.NOW_MS).waiting
    assert peer.held_back(author.id) is None
    peer.merge([author.records[2]], author.now_ms)
    assert peer.held_back(author.id) == author.records[2]


def test_a_number_that_is_used_and_lost_is_passed_over(crdt):
    author, peer = lost(crdt)
    assert author.journal.pass_over(author.id, 3)
    again = author.draft("k2", b"new")
    batch = [again, author.draft("k3", b"new", pending=[again])]
    assert [record.seq for record in batch] == [3 + BEYOND + 1, 3 + BEYOND + 2]
    assert author.journal.enter(batch, crdt.NOW_MS).accepted == tuple(batch)
    assert author.write("k4").seq == 3 + BEYOND + 3, "and from there on one by one"
    assert peer.merge(batch, crdt.NOW_MS).accepted == (), "a gap, until the two compare"
    crdt.reconcile(peer, author.journal)
    assert peer.canonical() == author.journal.canonical()
    assert not peer.forks
    assert not peer.recast
    assert peer.held_back(author.id) is None, "what was lost is let go"


def test_without_that_the_number_would_be_used_twice(crdt):
    author, peer = lost(crdt)
    for key in ("x", "y", "z"):
        author.write(key)
    crdt.reconcile(peer, author.journal)
    assert author.id in peer.forks


@pytest.mark.parametrize("bytes_max", [1, 400, 2**20])
def test_what_was_lost_does_not_mix_with_what_comes_in_parts(crdt, bytes_max):
    author, peer = lost(crdt, held=(3, 4))
    author.journal.pass_over(author.id, 4)
    first = author.draft("k0", b"new")
    author.journal.enter([first], crdt.NOW_MS)
    for key in ("k2", "x", "k2"):
        author.write(key, b"new")
    for _ in range(2):  # the first time it may not add up; then the whole journal is asked for
        after = peer.resume_after(author.id, author.journal.heads[author.id])
        for delta in crdt.parts(author.journal, author.id, bytes_max, after):
            peer.absorb(delta, crdt.NOW_MS)
    assert peer.canonical() == author.journal.canonical()
    assert not peer.forks
    assert not peer.recast


def test_a_head_that_gets_there_after_all_leaves_no_gap(crdt):
    author, _ = lost(crdt)
    author.journal.pass_over(author.id, 3)
    author.journal.merge(author.records, crdt.NOW_MS)
    assert author.draft("x").seq == 5


def test_only_news_is_news(crdt):
    author, _ = lost(crdt)
    assert not author.journal.pass_over(author.id, 1)
    assert author.journal.pass_over(author.id, 3)
    assert not author.journal.pass_over(author.id, 3)
    assert not author.journal.pass_over(author.id, 2)
    assert author.journal.pass_over(author.id, 4)
    assert author.draft("x").seq == 4 + BEYOND + 1


def test_there_is_no_number_behind_the_last_one(crdt):
    author, _ = lost(crdt)
    author.journal.pass_over(author.id, SEQ_MAX - 1)
    with pytest.raises(RecordError):
        author.draft("x")


def test_a_passed_number_is_still_passed_after_a_restart(crdt):
    author, _ = lost(crdt)
    author.journal.pass_over(author.id, 3)
    author.journal.enter([author.draft("x")], crdt.NOW_MS)
    again = crdt.replica()
    assert again.restore(author.journal.records("policy"), author.journal.heads) == ()
    author.journal = again
    assert author.write("y").seq == 3 + BEYOND + 2
