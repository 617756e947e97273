from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.delta import INTRODUCTION_BYTES_MAX, Accept, Delta, Equivocation, Refuse, Wait
from crdt.journal import Journal, JournalError, JournalLimits
from crdt.record import RECORD_BYTES_MAX, RecordError, record_bytes

EDITS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([b"", b"one", b"two"])), min_size=1, max_size=10
)
HISTORIES = st.lists(EDITS, min_size=1, max_size=3)


def tenfold(crdt, count: int = 10):
    return crdt.Author(1).write_all((f"key{n}", b"x" * 50) for n in range(count))


def forged(crdt, record, **changes):
    """Another record, truly signed by the same writer."""
    return crdt.sign(replace(record, **changes))


# ---------------------------------------------------------------------- the laws


@st.composite
def deliveries(draw, authors):
    """Any interleaving of pushes, duplicates, whole deltas, parts of deltas, from replicas that lag or not."""
    steps = []
    for _ in range(draw(st.integers(0, 25))):
        author = draw(st.sampled_from(authors))
        last = len(author.records)
        if draw(st.booleans()):
            steps.append(("push", author, draw(st.sampled_from(author.records))))
        else:
            head = draw(st.integers(1, last))
            after = draw(st.integers(0, head))
            room = draw(st.sampled_from([1, 500, 2**30]))
            steps.append(("absorb", author, author.at(head).delta(author.id, after, room)))
    return steps


@given(HISTORIES, st.data())
def test_the_state_of_a_writer_is_a_function_of_its_head(crdt, histories, data):
    """At every moment, however the records came: equal heads, equal bytes, equal fingerprint."""
    authors = [crdt.Author(n).write_all(edits) for n, edits in enumerate(histories)]
    journal = crdt.replica()
    for step, author, what in data.draw(deliveries(authors)):
        merged = journal.merge([what], crdt.NOW_MS) if step == "push" else journal.absorb(what, crdt.NOW_MS)
        assert merged.refused == ()
        assert merged.equivocations == ()
        expected = crdt.live_by_definition(author.records[: journal.heads.get(author.id, 0)])
        assert list(journal.delta(author.id, 0, 2**30).records) == expected
    straight = crdt.replica()
    for author in authors:
        straight.merge(author.records[: journal.heads.get(author.id, 0)], crdt.NOW_MS)
    assert journal.heads == straight.heads
    assert journal.canonical() == straight.canonical()
    assert journal.fingerprint() == straight.fingerprint()


@given(HISTORIES, st.data())
def test_all_deliveries_end_alike(crdt, histories, data):
    """Commutative, associative, idempotent: any deliveries, then what was missing, in any order."""
    authors = [crdt.Author(n).write_all(edits) for n, edits in enumerate(histories)]
    records = [record for author in authors for record in author.records]
    journal = crdt.replica()
    for step, _, what in data.draw(deliveries(authors)):
        _ = journal.merge([what], crdt.NOW_MS) if step == "push" else journal.absorb(what, crdt.NOW_MS)
    journal.merge(data.draw(st.permutations(records)), crdt.NOW_MS)
    straight = crdt.replica()
    straight.merge(records, crdt.NOW_MS)
    assert journal.canonical() == straight.canonical()
    assert journal.fingerprint() == straight.fingerprint()
    assert list(journal.waiting()) == []


@given(HISTORIES, st.data())
def test_what_is_reported_is_what_a_store_needs(crdt, histories, data):
    """Inserting `accepted` and removing `superseded`, call by call, leaves exactly the live records."""
    authors = [crdt.Author(n).write_all(edits) for n, edits in enumerate(histories)]
    journal, stored = crdt.replica(), {}
    for step, _, what in data.draw(deliveries(authors)):
        merged = journal.merge([what], crdt.NOW_MS) if step == "push" else journal.absorb(what, crdt.NOW_MS)
        stored.update({record.dot: record for record in merged.accepted})
        for record in merged.superseded:
            del stored[record.dot]
    live = {r.dot: r for author in authors for r in journal.delta(author.id, 0, 2**30).records}
    assert stored == live
    restored = crdt.replica()
    assert restored.restore(stored.values(), dict(journal.heads)) == ()
    assert restored.canonical() == journal.canonical()
    assert restored.fingerprint() == journal.fingerprint()


@given(EDITS, st.data())
def test_a_delta_with_something_left_out_changes_nothing(crdt, edits, data):
    author = crdt.Author(1).write_all(edits)
    delta = crdt.whole(author.journal, author.id)
    kept = [record for record in delta.records[:-1] if data.draw(st.booleans())] + [delta.records[-1]]
    journal = crdt.replica()
    merged = journal.absorb(replace(delta, records=tuple(kept)), crdt.NOW_MS)
    if len(kept) == len(delta.records):
        assert journal.canonical() == author.journal.canonical()
    else:
        assert "sum to" in merged.refused[0][1]
        assert journal.heads == {}
        assert journal.resume_after(author.id, author.records[-1].seq) == 0
        assert journal.absorb(delta, crdt.NOW_MS).accepted == delta.records
        assert journal.resume_after(author.id, 99) == delta.upto


# ---------------------------------------------------------------------- pushes


def test_records_are_taken_in_place_when_they_come_in_order(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("a", b"2")])
    merged = crdt.replica().merge(author.records, crdt.NOW_MS)
    assert merged.accepted == tuple(author.records)
    assert merged.superseded == (author.records[0],)


def test_a_record_ahead_of_its_predecessors_waits_for_them(crdt):
    author, journal = tenfold(crdt, 4), crdt.replica()
    merged = journal.merge([author.records[2], author.records[3], author.records[1]], crdt.NOW_MS)
    assert crdt.merged_kinds(merged) | {"waiting": 3} == crdt.merged_kinds(merged)
    assert journal.heads == {}
    assert journal.merge([author.records[0]], crdt.NOW_MS).accepted == tuple(author.records)
    assert list(journal.waiting()) == []


def test_a_delta_fills_a_gap_and_what_waited_follows(crdt):
    author, journal = tenfold(crdt, 6), crdt.replica()
    journal.merge(author.records[4:], crdt.NOW_MS)
    merged = journal.absorb(author.at(4).delta(author.id, 0, 2**30), crdt.NOW_MS)
    assert merged.accepted == tuple(author.records)
    assert journal.heads == {author.id: 6}


def test_duplicates_are_counted_and_change_nothing(crdt):
    author, journal = crdt.Author(1).write_all([("a", b"1"), ("a", b"2")]), crdt.replica()
    journal.merge(author.records, crdt.NOW_MS)
    merged = journal.merge(author.records * 2, crdt.NOW_MS)
    assert merged.duplicates == 4
    assert not merged.changed


def test_a_record_that_does_not_verify_is_refused(crdt):
    author, journal = tenfold(crdt, 2), crdt.replica()
    bad = replace(author.records[0], payload=b"tampered")
    assert journal.merge([bad], crdt.NOW_MS).refused == ((bad, "signature does not verify"),)
    assert journal.merge(author.records, crdt.NOW_MS).accepted == tuple(author.records)


def test_a_forgery_does_not_push_out_what_waits(crdt):
    author, journal = tenfold(crdt, 3), crdt.replica()
    journal.merge([author.records[2]], crdt.NOW_MS)
    journal.merge([replace(author.records[2], payload=b"tampered")], crdt.NOW_MS)
    assert journal.merge(author.records[:2], crdt.NOW_MS).accepted == tuple(author.records)


def test_a_long_gap_drains_in_one_go(crdt):
    author = tenfold(crdt, 3000)
    journal = crdt.replica()
    merged = journal.merge(reversed(author.records), crdt.NOW_MS)
    assert merged.accepted == tuple(author.records)


# ---------------------------------------------------------------------- waiting


class Judge:
    """A verifier whose opinion of unknown writers changes as they are introduced."""

    def __init__(self, crdt) -> None:
        self.crdt, self.known, self.asked = crdt, set(), 0

    def __call__(self, record, now_ms):
        self.asked += 1
        if record.writer not in self.known:
            return Wait("unknown writer")
        return self.crdt.verify(record, now_ms)


def test_an_unknown_writer_waits_until_it_is_introduced(crdt):
    author, judge = tenfold(crdt, 3), Judge(crdt)
    journal = crdt.replica(verify=judge)
    merged = journal.merge(author.records, crdt.NOW_MS)
    assert [reason for _, reason in merged.waiting] == ["unknown writer"] * 3
    assert not journal.retry_waiting(crdt.NOW_MS).changed
    journal.introduce(author.id, b"credential")
    judge.known.add(author.id)
    assert journal.retry_waiting(crdt.NOW_MS).accepted == tuple(author.records)
    assert journal.introductions == {author.id: b"credential"}


def test_a_whole_delta_waits_and_is_not_asked_for_again(crdt):
    author, judge = tenfold(crdt, 5), Judge(crdt)
    journal = crdt.replica(verify=judge)
    journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS)
    assert journal.heads == {}
    assert journal.resume_after(author.id, 5) == 5
    assert journal.resume_after(author.id, 4) == 0
    judge.known.add(author.id)
    assert journal.retry_waiting(crdt.NOW_MS).accepted == tuple(author.records)


def test_a_record_from_the_future_waits_for_its_time_and_is_never_clamped(crdt):
    author = crdt.Author(1)
    author.write("a", b"1")
    author.now_ms = crdt.NOW_MS + crdt.DRIFT_MS + 1000
    early = author.write("b", b"1")
    journal = crdt.replica()
    merged = journal.merge(author.records, crdt.NOW_MS)
    assert merged.waiting == ((early, "stamped in the future"),)
    assert journal.clock.last < early.hlc
    assert not journal.retry_waiting(crdt.NOW_MS).changed
    assert journal.retry_waiting(crdt.NOW_MS + 1000).accepted == (early,)
    assert journal.get(author.id, "policy", "b") == early


def test_what_waits_is_judged_once_more_only_where_it_stopped(crdt):
    author, judge = tenfold(crdt, 50), Judge(crdt)
    journal = crdt.replica(verify=judge)
    journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS)
    judge.asked = 0
    journal.retry_waiting(crdt.NOW_MS)
    assert judge.asked == 1


def test_what_was_verified_while_the_rest_waits_is_not_verified_again(crdt):
    author, judge = tenfold(crdt, 20), Judge(crdt)
    author.write("key0", b"newer")  # the first seq is superseded: nothing may show before the whole delta
    author.now_ms = crdt.NOW_MS + crdt.DRIFT_MS + 1000
    author.write("early")
    journal = crdt.replica(verify=judge)
    journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS)
    judge.known.add(author.id)
    for asked in (21, 1, 1):
        judge.asked = 0
        assert not journal.retry_waiting(crdt.NOW_MS).changed
        assert judge.asked == asked
    assert journal.retry_waiting(author.now_ms).accepted == tuple(author.records[1:])


def test_one_record_from_the_future_does_not_hold_up_those_before_it(crdt):
    author, journal = tenfold(crdt, 5), crdt.replica()
    author.now_ms = crdt.NOW_MS + crdt.DRIFT_MS + 1000
    early = author.write("early")
    merged = journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS)
    assert merged.accepted == tuple(author.records[:5])
    assert merged.waiting == ((early, "stamped in the future"),)
    assert journal.resume_after(author.id, 6) == 6
    assert journal.retry_waiting(author.now_ms).accepted == (early,)


def test_a_refused_record_of_a_waiting_delta_frees_those_before_it(crdt):
    author, known = tenfold(crdt, 3), []

    def judge(record, now_ms):
        if not known:
            return Wait("unknown writer")
        return Refuse("revoked") if record.seq == 3 else Accept()

    journal = crdt.replica(verify=judge)
    journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS)
    known.append(author.id)
    merged = journal.retry_waiting(crdt.NOW_MS)
    assert merged.accepted == tuple(author.records[:2])
    assert merged.refused == ((author.records[2], "revoked"),)
    assert list(journal.waiting()) == []


def test_a_record_refused_after_its_wait_is_dropped(crdt):
    author = tenfold(crdt, 1)
    verdicts = iter([Wait("unknown writer"), Refuse("revoked")])
    journal = crdt.replica(verify=lambda record, now_ms: next(verdicts))
    journal.merge(author.records, crdt.NOW_MS)
    assert journal.retry_waiting(crdt.NOW_MS).refused == ((author.records[0], "revoked"),)
    assert list(journal.waiting()) == []


def test_quarantine_is_bounded_and_overflow_is_counted_and_heals(crdt):
    author = tenfold(crdt, 40)
    limits = JournalLimits(writer_bytes_max=10_000, held_writer_bytes_max=10_000, held_bytes_max=20_000)
    journal = crdt.replica(limits)
    journal.merge(author.records[1:], crdt.NOW_MS)
    assert journal.statistics().held_bytes <= 10_000
    assert journal.statistics().overflowed > 0
    journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS)
    assert journal.canonical() == author.journal.canonical()


def test_a_delta_that_does_not_fit_into_quarantine_claims_nothing(crdt):
    author = tenfold(crdt, 40)
    limits = JournalLimits(writer_bytes_max=10_000, held_writer_bytes_max=10_000, held_bytes_max=20_000)
    journal = crdt.replica(limits)
    first, *rest = crdt.parts(author.journal, author.id, 8000)
    for part in (first, *rest):
        assert journal.absorb(part, crdt.NOW_MS).refused == ()
    assert journal.heads == {}
    assert journal.resume_after(author.id, 40) == 0


# ---------------------------------------------------------------------- parts of deltas


def test_parts_show_only_when_the_whole_is_there(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("a", b"2"), ("c", b"1")])
    journal = crdt.replica()
    first, *rest = crdt.parts(author.journal, author.id, 1)
    assert not journal.absorb(first, crdt.NOW_MS).changed
    assert journal.heads == {}
    assert journal.resume_after(author.id, 4) == first.upto == 2
    for part in rest:
        merged = journal.absorb(part, crdt.NOW_MS)
    assert [record.seq for record in merged.accepted] == [2, 3, 4]


def test_parts_cut_at_different_heads_join(crdt):
    author = tenfold(crdt, 4)
    first = author.journal.delta(author.id, 0, 1)
    author.write("key0", b"newer")
    rest = crdt.whole(author.journal, author.id, first.upto)
    journal = crdt.replica()
    journal.absorb(first, crdt.NOW_MS)
    journal.absorb(rest, crdt.NOW_MS)
    assert journal.canonical() == author.journal.canonical()


def test_a_part_from_a_replica_that_lags_does_not_complete_a_claim(crdt):
    """Key a at seq 1 is superseded at 4, so the first part, cut at head 4, leaves it out: head 3 must not show."""
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("c", b"1"), ("a", b"2")])
    journal = crdt.replica()
    journal.absorb(author.journal.delta(author.id, 0, 1), crdt.NOW_MS)
    journal.absorb(author.at(3).delta(author.id, 2, 2**30), crdt.NOW_MS)
    assert journal.heads == {}
    journal.absorb(author.at(3).delta(author.id, 0, 2**30), crdt.NOW_MS)
    assert journal.heads == {author.id: 3}
    assert journal.get(author.id, "policy", "a").payload == b"1"


# ---------------------------------------------------------------------- equivocation


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
    assert "sum to" in journal.merge([author.records[2]], crdt.NOW_MS).refused[0][1]
    assert journal.resume_after(author.id, 3) == 0
    assert journal.absorb(crdt.whole(author.journal, author.id), crdt.NOW_MS).equivocations


# ---------------------------------------------------------------------- drafting


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


# ---------------------------------------------------------------------- floors


def test_tombstones_disappear_and_nothing_older_comes_back(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("a", b""), ("b", b"1")])
    old, new = crdt.replica(), crdt.replica()
    old.merge(author.records[:1], crdt.NOW_MS)
    for journal in (old, new):
        journal.absorb(author.journal.delta(author.id, journal.heads.get(author.id, 0), 2**30), crdt.NOW_MS)
        journal.merge(author.records[:2], crdt.NOW_MS)
        assert [record.key for record in journal.records("policy")] == ["b"]
    assert old.canonical() == new.canonical() == author.journal.canonical()


# ---------------------------------------------------------------------- hostile claims


def test_a_delta_that_contradicts_itself_is_refused_whole(crdt):
    author, journal = tenfold(crdt, 3), crdt.replica()
    delta = replace(crdt.whole(author.journal, author.id), upto=7, target=7)
    assert len(journal.absorb(delta, crdt.NOW_MS).refused) == 3
    assert journal.heads == {}


def test_one_bad_record_refuses_the_delta(crdt):
    author, journal = tenfold(crdt, 3), crdt.replica()
    delta = crdt.whole(author.journal, author.id)
    bad = replace(delta, records=(*delta.records[:2], replace(delta.records[2], payload=b"tampered")))
    assert journal.absorb(bad, crdt.NOW_MS).refused
    assert journal.heads == {}


def test_nothing_to_give_is_absorbed_without_effect(crdt):
    empty = Delta(writer=crdt.writer_id(1), after=0, upto=0, target=0)
    assert not crdt.replica().absorb(empty, crdt.NOW_MS).changed


@given(HISTORIES, st.data())
def test_no_mixture_of_authentic_records_leads_astray(crdt, histories, data):
    """A courier may claim anything about authentic records: a head reached is a true state, or none is."""
    author = crdt.Author(0).write_all([edit for edits in histories for edit in edits])
    journal = crdt.replica()
    for _ in range(data.draw(st.integers(1, 6))):
        records = sorted(data.draw(st.sets(st.sampled_from(author.records), min_size=1)), key=lambda r: r.seq)
        after = data.draw(st.integers(0, records[0].seq - 1))
        target = records[-1].seq + data.draw(st.sampled_from([0, 0, 1, 5]))
        claim = Delta(
            writer=author.id, after=after, upto=records[-1].seq, target=target, records=tuple(records)
        )
        journal.absorb(claim, crdt.NOW_MS)
        head = journal.heads.get(author.id, 0)
        assert list(journal.delta(author.id, 0, 2**30).records) == crdt.live_by_definition(
            author.records[:head]
        )


# ---------------------------------------------------------------------- eviction


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
