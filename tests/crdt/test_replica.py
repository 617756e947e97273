from dataclasses import replace

import pytest

from crdt.delta import Equivocation
from crdt.journal import JournalError
from crdt.replica import Damage


@pytest.fixture
def author(crdt):
    author = crdt.Author(1)
    author.write_all([("a", b"1"), ("b", b"1"), ("a", b"2"), ("b", b"")])
    return author


def stored(author):
    return list(live(author)), dict(author.journal.heads)


def live(author):
    return author.journal.delta(author.id, 0, 2**30).records


def test_what_was_stored_comes_back_whole(crdt, author):
    journal = crdt.replica()
    records, heads = stored(author)
    assert journal.restore(records[::-1], heads, {author.id: b"credential"}) == ()
    assert journal.canonical() == author.journal.canonical()
    assert journal.fingerprint() == author.journal.fingerprint()
    assert journal.heads == author.journal.heads
    assert journal.introductions == {author.id: b"credential"}
    assert journal.clock.last >= max(record.hlc for record in records)


def test_a_restored_journal_goes_on_drafting(crdt, author):
    journal = crdt.replica()
    journal.restore(*stored(author))
    author.journal = journal
    assert author.write("c").seq == 5


def test_superseded_records_left_in_the_store_do_no_harm(crdt, author):
    journal = crdt.replica()
    assert journal.restore(author.records, {author.id: 4}) == ()
    assert journal.canonical() == author.journal.canonical()


def test_a_writer_whose_records_do_not_add_up_is_left_out_and_named(crdt, author):
    other = crdt.Author(2).write_all([("a", b"1"), ("b", b"1")])
    journal = crdt.replica()
    damage = journal.restore([*live(author), other.records[1]], {author.id: 4, other.id: 2})
    assert damage == (
        Damage(writer=other.id, reason="the live records up to 2 are not those their writer signed"),
    )
    assert journal.heads == {author.id: 4}
    assert journal.canonical() == author.journal.canonical()


@pytest.mark.parametrize("lost", ["the last record", "all records", "the head"])
def test_what_does_not_reach_its_stored_head_is_left_out(crdt, author, lost):
    records, heads = stored(author)
    if lost == "the head":
        heads = {}
    else:
        records = records[:-1] if lost == "the last record" else []
    journal = crdt.replica()
    (damage,) = journal.restore(records, heads)
    assert "stored records end at" in damage.reason
    assert journal.heads == {}


def test_a_node_whose_own_journal_was_damaged_drafts_only_after_its_peers_told_it_its_head(crdt, author):
    peer = author.journal
    author.journal = crdt.replica()
    author.journal.restore([], {author.id: 4})
    with pytest.raises(JournalError, match="has written 4 records but holds 0"):
        author.draft("c")
    author.journal.absorb(crdt.whole(peer, author.id), crdt.NOW_MS)
    assert author.write("c").seq == 5


def test_proofs_of_equivocation_are_restored(crdt, author):
    proof = Equivocation(
        first=author.records[3], second=crdt.sign(replace(author.records[3], payload=b"other"))
    )
    journal = crdt.replica()
    journal.restore(*stored(author), equivocations=[proof])
    assert journal.forks == {author.id: proof}
    assert journal.merge([author.write("c")], crdt.NOW_MS).refused


def test_restoring_is_for_an_empty_journal(crdt, author):
    with pytest.raises(AssertionError):
        author.journal.restore([], {})


def test_a_delta_is_what_a_replica_at_that_head_lacks(crdt, author):
    journal = author.journal
    assert [record.seq for record in journal.delta(author.id, 0, 2**30).records] == [3, 4]
    assert [record.seq for record in journal.delta(author.id, 3, 2**30).records] == [4]
    for nothing in (
        journal.delta(author.id, 4, 2**30),
        journal.delta(author.id, 9, 2**30),
        journal.delta(b"?" * 16, 2, 9),
    ):
        assert nothing.records == ()
        assert nothing.after == nothing.upto == nothing.target


def test_a_delta_holds_one_record_however_little_room_there_is(crdt, author):
    sizes = [len(part.records) for part in crdt.parts(author.journal, author.id, 1)]
    assert sizes == [1, 1]


def test_records_are_found_by_writer_kind_and_key(crdt, author):
    assert author.journal.get(author.id, "policy", "a") == author.records[2]
    assert author.journal.get(author.id, "policy", "b").deleted
    assert author.journal.get(author.id, "service", "a") is None
    assert author.journal.get(b"?" * 16, "policy", "a") is None
    assert set(author.journal.records("policy")) == set(author.records[2:])
    assert list(author.journal.records("service")) == []


def test_replicas_that_hold_different_forks_do_not_look_in_sync(crdt):
    one, other = crdt.Author(1).write_all([("a", b"1"), ("b", b"1")]), crdt.Author(1)
    other.write_all([("a", b"2"), ("b", b"1")])
    assert one.journal.heads == other.journal.heads
    assert one.journal.fingerprint() != other.journal.fingerprint()
    assert one.journal.check(one.id) != other.journal.check(one.id)
