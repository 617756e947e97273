"""What cannot take effect yet: unjudged records, parts of deltas, and their bounds."""

from crdt.delta import Accept, Refuse, Wait
from crdt.journal import JournalLimits


def tenfold(crdt, count: int = 10):
    return crdt.Author(1).write_all((f"key{n}", b"x" * 50) for n in range(count))


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
