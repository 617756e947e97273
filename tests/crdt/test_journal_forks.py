"""Equivocation and eviction."""

from dataclasses import replace

import pytest

from crdt.delta import Accept, Equivocation
from crdt.journal import Journal, JournalError
from crdt.record import record_bytes
from crdt.replica import FORKED_HEAD


def forged(crdt, record, **changes):
    """Another record, truly signed by the same writer."""
    return crdt.sign(replace(record, **changes))


def two_of_one_seq(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1")])
    return author, forged(crdt, author.records[1], payload=b"the other")


def test_two_records_of_one_seq_are_an_equivocation_with_both_as_the_proof(crdt):
    author, other = two_of_one_seq(crdt)
    journal = crdt.replica()
    journal.merge(author.records, crdt.NOW_MS)
    merged = journal.merge([other], crdt.NOW_MS)
    proof = Equivocation(first=author.records[1], second=other)
    assert merged.equivocations == (proof,)
    assert merged.changed
    assert journal.forks == {author.id: proof}
    assert journal.heads[author.id] == FORKED_HEAD
    assert all(isinstance(crdt.verify(record, crdt.NOW_MS), Accept) for record in (proof.first, proof.second))


def test_another_key_under_the_same_seq_is_an_equivocation_too(crdt):
    author, _ = two_of_one_seq(crdt)
    journal = crdt.replica()
    journal.merge(author.records, crdt.NOW_MS)
    other = forged(crdt, author.records[0], key="z")
    assert journal.merge([other], crdt.NOW_MS).equivocations


def test_a_forgery_convicts_nobody(crdt):
    author, _ = two_of_one_seq(crdt)
    journal = crdt.replica()
    journal.merge(author.records, crdt.NOW_MS)
    merged = journal.merge([replace(author.records[1], payload=b"the other")], crdt.NOW_MS)
    assert merged.equivocations == ()
    assert merged.refused[0][1] == "signature does not verify"
    assert journal.forks == {}


def test_the_same_signed_twice_is_a_duplicate(crdt):
    author, _ = two_of_one_seq(crdt)
    journal = crdt.replica(verify=lambda record, now_ms: Accept())
    journal.merge(author.records, crdt.NOW_MS)
    merged = journal.merge([replace(author.records[1], signature=b"r" * 64)], crdt.NOW_MS)
    assert crdt.merged_kinds(merged) == crdt.merged_kinds(merged) | {"duplicates": 1, "equivocations": 0}


def test_a_superseded_seq_is_not_held_and_cannot_be_told_from_a_duplicate(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("a", b"2")])
    journal = crdt.replica()
    journal.merge(author.records, crdt.NOW_MS)
    merged = journal.merge([forged(crdt, author.records[0], payload=b"the other")], crdt.NOW_MS)
    assert merged.duplicates == 1


def test_two_of_one_seq_are_found_while_they_wait(crdt):
    author, other = two_of_one_seq(crdt)
    journal = crdt.replica()
    merged = journal.merge([author.records[1], other], crdt.NOW_MS)
    assert merged.equivocations == (Equivocation(first=author.records[1], second=other),)


def test_what_waited_is_compared_with_what_came_by_a_delta(crdt):
    author, other = two_of_one_seq(crdt)
    author.write("c")
    journal = crdt.replica()
    journal.merge([other], crdt.NOW_MS)
    merged = journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS)
    assert merged.equivocations == (Equivocation(first=author.records[1], second=other),)


def test_a_delta_can_carry_the_proof_itself(crdt):
    author, other = two_of_one_seq(crdt)
    accuser, stranger = crdt.replica(), crdt.replica()
    accuser.merge([*author.records, other], crdt.NOW_MS)
    proof = accuser.delta(author.id, 0, 2**30)
    assert set(proof.records) == {author.records[1], other}
    assert stranger.absorb(proof, crdt.NOW_MS).equivocations
    assert stranger.canonical() == accuser.canonical()
    assert stranger.fingerprint() == accuser.fingerprint()


def test_a_forked_writer_is_frozen(crdt):
    author, other = two_of_one_seq(crdt)
    journal = crdt.replica()
    journal.merge([*author.records, other], crdt.NOW_MS)
    later = author.write("c")
    assert journal.merge([later], crdt.NOW_MS).refused == ((later, "its writer equivocated"),)
    delta = crdt.whole(author.journal, author.id)
    assert len(journal.absorb(delta, crdt.NOW_MS).refused) == 3
    assert journal.get(author.id, "policy", "a") == author.records[0]
    with pytest.raises(JournalError, match="new identity"):
        journal.draft(
            writer=author.id,
            kind="policy",
            key="a",
            payload=b"",
            now_ms=crdt.NOW_MS,
            sign=crdt.sign_as(author.id),
        )


def test_a_fork_further_back_does_not_add_up(crdt):
    """The branch's second record took another key, so its third signs another sum."""
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("c", b"1")])
    branch = crdt.Author(1).write_all([("a", b"1"), ("a", b"2")])
    journal = crdt.replica()
    journal.merge(branch.records, crdt.NOW_MS)
    assert "not those their writer signed" in journal.merge([author.records[2]], crdt.NOW_MS).refused[0][1]
    assert journal.resume_after(author.id, 3) == 0
    assert journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS).equivocations


def test_evicting_takes_kinds_from_view_and_leaves_the_journal_whole(crdt):
    author = crdt.Author(1)
    author.write("a", kind="service")
    author.write("b", kind="policy")
    journal: Journal = crdt.replica()
    journal.merge(author.records, crdt.NOW_MS)
    before = journal.fingerprint()
    assert journal.evict(author.id, ["service"]) == (author.records[0],)
    assert journal.evict(author.id, ["service"]) == ()
    assert journal.get(author.id, "service", "a") is None
    assert list(journal.records("service")) == []
    assert list(journal.records("policy")) == [author.records[1]]
    assert journal.fingerprint() == before
    assert len(journal.delta(author.id, 0, 2**30).records) == 2
    later = author.write("c", kind="service")
    journal.merge([later], crdt.NOW_MS)
    assert list(journal.records("service")) == []
    assert journal.evict(author.id) == (author.records[1],)
    assert list(journal.records("policy")) == []
    assert journal.hidden(author.id, "anything")


def test_statistics_count_what_happened(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("b", b"")])
    journal = crdt.replica()
    journal.merge([*author.records, author.records[0]], crdt.NOW_MS)
    statistics = journal.statistics()
    assert (statistics.writers, statistics.records, statistics.tombstones) == (1, 2, 1)
    assert (statistics.accepted, statistics.duplicates, statistics.refused) == (3, 1, 0)
    assert statistics.bytes == sum(map(record_bytes, journal.delta(author.id, 0, 2**30).records))
    assert repr(journal) == "Journal(1 writers, 0 records waiting)"
