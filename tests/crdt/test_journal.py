"""The laws of merging, and records and claims as they come in."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from crdt.delta import Delta

EDITS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([b"", b"one", b"two"])), min_size=1, max_size=10
)
HISTORIES = st.lists(EDITS, min_size=1, max_size=3)


def tenfold(crdt, count: int = 10):
    return crdt.Author(1).write_all((f"key{n}", b"x" * 50) for n in range(count))


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
        assert "not those their writer signed" in merged.refused[0][1]
        assert journal.heads == {}
        assert journal.resume_after(author.id, author.records[-1].seq) == 0
        assert journal.absorb(delta, crdt.NOW_MS).accepted == delta.records
        assert journal.resume_after(author.id, 99) == delta.upto


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


def test_an_edit_covers_what_the_record_it_replaces_covered(crdt):
    """It was made before its author had heard its own journal again, and is numbered after."""
    other, author = crdt.Author(1), crdt.Author(2)
    replaced = other.write("k", b"theirs")
    author.journal.merge([replaced], crdt.NOW_MS)
    for number, context in enumerate([((other.id, 1),), (), ()]):
        record = author.journal.draft(
            writer=author.id, kind=replaced.kind, key="k", payload=b"%d" % number, context=context,
            now_ms=crdt.NOW_MS + 10, sign=crdt.sign_as(author.id),
        )  # fmt: skip
        author.journal.merge([record], crdt.NOW_MS + 10)
        assert record.context == ((other.id, 1),)
    batch = author.journal.batch(author.id)
    for key in ("new", "new", "k"):
        author.journal.draft(
            writer=author.id, kind=replaced.kind, key=key, payload=b"v", now_ms=crdt.NOW_MS + 20,
            context=((other.id, 7),) if not batch.drafts else (), sign=crdt.sign_as(author.id), batch=batch,
        )  # fmt: skip
    assert [record.context for record in batch.drafts] == [
        ((other.id, 7),), ((other.id, 7),), ((other.id, 1),),
    ]  # fmt: skip
