"""Writers that lie about their own journals without two records of one seq that anybody still holds: replicas end up
alike whatever such a writer signs and whomever it tells, and what it gains is what it could have published."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.delta import Contradiction, Delta
from crdt.journal import Journal, JournalLimits
from crdt.record import Record
from crdt.replica import FORKED_HEAD


class Liar:
    """Signs whatever it likes."""

    def __init__(self, crdt) -> None:
        self.crdt = crdt
        self.id = crdt.writer_id(66)

    def sign(
        self, seq: int, key: str, others: Iterable[Record] = (), *, floor: int = 0, payload: bytes = b"x"
    ) -> Record:
        """A record which says that `others` and it are the whole journal."""
        blank = Record(
            writer=self.id, seq=seq, kind="policy", key=key, payload=payload, hlc=self.crdt.NOW_MS << 16,
            floor=floor, rest=bytes(32), signature=bytes(64),
        )  # fmt: skip
        return self.crdt.sign(replace(blank, rest=self.crdt.rest([*others, blank])))

    def whole(self, *live: Record) -> Delta:
        seq = live[-1].seq
        return Delta(writer=self.id, after=0, upto=seq, target=seq, records=live)

    def told(self, *live: Record) -> Journal:
        """A replica that was given these as a whole journal."""
        journal = self.crdt.replica()
        assert journal.absorb(self.whole(*live), self.crdt.NOW_MS).accepted == live
        return journal

    def walked(self, *records: Record) -> Journal:
        """A replica that heard these one by one."""
        journal = self.crdt.replica()
        assert journal.merge(records, self.crdt.NOW_MS).accepted == records
        return journal


@pytest.fixture
def liar(crdt) -> Liar:
    return Liar(crdt)


def held(journal: Journal, liar: Liar) -> list[Record]:
    return list(journal.delta(liar.id, 0, 2**30).records)


def settle(crdt, *journals: Journal) -> None:
    """Everybody talks to everybody a few times; then all hold the same."""
    for _ in range(3):
        for one, other in combinations(journals, 2):
            crdt.reconcile(one, other)
    assert len({journal.canonical() for journal in journals}) == 1
    assert len({journal.fingerprint() for journal in journals}) == 1


def test_one_head_cannot_stand_for_two_journals(crdt, liar):
    """{1, 4, 6} and {2, 3, 6} have one sum, and no seq in common that was used twice: signed sums of seqs could not
    tell them apart, and replicas that had been told one of them each differed for ever. A hash stands for one set."""
    one, two = liar.sign(1, "a"), liar.sign(2, "b")
    four, three = liar.sign(4, "d", [one]), liar.sign(3, "c", [two])
    last = liar.sign(6, "k", [one, four])
    left, right = liar.told(one, four), liar.told(two, three)
    left.merge([liar.sign(5, "k", [one, four])], crdt.NOW_MS)
    right.merge([liar.sign(5, "k", [two, three])], crdt.NOW_MS)
    assert left.merge([last], crdt.NOW_MS).accepted == (last,)
    assert right.merge([last], crdt.NOW_MS).accepted == ()
    settle(crdt, left, right)
    assert held(right, liar) == [one, four, last]


def test_what_was_left_out_without_a_word_is_gone_everywhere_and_its_writer_named(crdt, liar):
    """Who had held it refused what came for ever, and who had not took it."""
    one = liar.sign(1, "a")
    two = liar.sign(2, "b", [one])
    three = liar.sign(3, "c", [two])
    witness, stranger = liar.walked(one, two), liar.told(two, three)
    refused = witness.merge([three], crdt.NOW_MS).refused
    assert refused == ((three, "the live records up to 3 are not those their writer signed"),)
    (merge,) = crdt.reconcile(witness, stranger).merges
    assert merge.contradictions == (Contradiction(writer=liar.id, before=2, after=3),)
    assert (merge.accepted, merge.superseded) == ((three,), (one,))
    settle(crdt, witness, stranger)
    assert held(witness, liar) == [two, three]
    assert (witness.recast, stranger.recast) == ({liar.id: 1}, {})


def test_an_older_record_that_is_said_to_count_again_counts_everywhere(crdt, liar):
    old = liar.sign(1, "a", payload=b"old")
    new = liar.sign(2, "a", payload=b"new")
    last = liar.sign(3, "b", [old])
    witness, stranger = liar.walked(old, new), liar.told(old, last)
    witness.merge([last], crdt.NOW_MS)
    settle(crdt, witness, stranger)
    assert held(witness, liar) == [old, last]
    assert witness.get(liar.id, "policy", "a") == old
    assert list(witness.records("policy")) == [old, last]


def test_a_floor_that_goes_back_is_the_same_everywhere(crdt, liar):
    one = liar.sign(1, "a")
    two = liar.sign(2, "b", floor=1)
    three = liar.sign(3, "c", [one, two])
    witness, stranger = liar.walked(one, two), liar.told(one, two, three)
    assert witness.merge([three], crdt.NOW_MS).refused == ((three, "floor went back from 1 to 0"),)
    settle(crdt, witness, stranger)
    assert held(witness, liar) == [one, two, three]


def test_a_seq_used_twice_whose_records_are_both_replaced_leaves_no_difference(crdt, liar):
    """And no proof: it is as if the writer had published one after the other."""
    one, other = liar.sign(1, "a", payload=b"one"), liar.sign(1, "a", payload=b"other")
    last = liar.sign(2, "a", payload=b"last")
    left, right = liar.walked(one), liar.walked(other)
    for journal in (left, right):
        assert journal.merge([last], crdt.NOW_MS).accepted == (last,)
    settle(crdt, left, right)
    assert left.forks == {}


def test_a_seq_used_twice_is_proven_while_one_of_the_two_is_live_where_the_other_is_told(crdt, liar):
    one, other = liar.sign(1, "a"), liar.sign(1, "b")
    after = liar.sign(2, "c", [other])
    left, right = liar.walked(one), liar.walked(other, after)
    settle(crdt, left, right)
    assert left.heads[liar.id] == right.heads[liar.id] == FORKED_HEAD


def test_a_state_nobody_can_show_is_nowhere(crdt, liar):
    """A record that signs a set its writer keeps to itself, or one that cannot be."""
    one = liar.sign(1, "a")
    witness = liar.walked(one)
    hidden = liar.sign(2, "b", [liar.sign(1, "secret")])
    assert witness.merge([hidden], crdt.NOW_MS).refused
    assert witness.absorb(liar.whole(one, hidden), crdt.NOW_MS).refused
    assert held(witness, liar) == [one]


def test_a_courier_makes_no_writer_a_liar(crdt):
    """What leaves records out is refused, and the honest journal that follows is no contradiction."""
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("c", b"1"), ("b", b"2")])
    victim = author.at(2)
    whole = crdt.whole(author.journal, author.id)
    for records in ([author.records[3]], [author.records[0], author.records[3]]):
        refused = victim.absorb(replace(whole, records=tuple(records)), crdt.NOW_MS).refused
        assert refused[0][1] == "the live records up to 4 are not those their writer signed"
    merged = victim.absorb(whole, crdt.NOW_MS)
    assert merged.contradictions == ()
    assert merged.accepted == (author.records[2], author.records[3])
    assert victim.canonical() == author.journal.canonical()
    assert victim.recast == {}


def large(liar: Liar, count: int = 8, first: int = 1) -> list[Record]:
    """So many live records of 200 bytes, the last of which signs them all."""
    records: list[Record] = []
    for seq in range(first, first + count):
        records.append(liar.sign(seq, f"k{seq}", records, payload=b"x" * 200))
    return records


def test_a_journal_that_takes_the_place_of_another_comes_in_parts_and_is_shown_at_once(crdt, liar):
    before, after = large(liar), large(liar, 9, first=20)
    witness, server = liar.walked(*before), liar.told(*after)
    wrong = Delta(writer=liar.id, after=8, upto=28, target=28, records=(after[-1],))
    assert witness.absorb(wrong, crdt.NOW_MS).refused
    parts = crdt.parts(server, liar.id, 900)
    assert len(parts) > 2
    for part in parts[:-1]:
        assert not witness.absorb(part, crdt.NOW_MS).changed
        assert held(witness, liar) == before
        pushed = liar.sign(9, "odd", before)
        assert witness.merge([pushed], crdt.NOW_MS).waiting == ((pushed, "records before it are missing"),)
        assert witness.resume_after(liar.id, 28) == 0
    merged = witness.absorb(parts[-1], crdt.NOW_MS)
    assert (merged.accepted, merged.superseded) == (tuple(after), tuple(before))
    assert merged.contradictions == (Contradiction(writer=liar.id, before=8, after=28),)
    assert witness.canonical() == server.canonical()
    assert list(witness.waiting()) == []


def test_a_journal_that_is_to_take_the_place_of_another_waits_with_the_record_that_has_to(crdt, liar):
    before = large(liar, 3)
    early = [liar.sign(5, "e"), liar.sign(6, "f", [liar.sign(5, "e")])]
    early[0] = crdt.sign(replace(early[0], hlc=crdt.NOW_MS + 60_000 << 16))
    early[1] = liar.sign(6, "f", early[:1])
    witness = liar.walked(*before)
    assert witness.merge(
        [liar.sign(4, "odd")], crdt.NOW_MS
    ).contradictions  # its word alone is a whole journal
    witness = liar.walked(*before)
    for _ in range(2):
        assert not witness.absorb(liar.whole(*early), crdt.NOW_MS).changed
        assert not witness.retry_waiting(crdt.NOW_MS).changed
        assert held(witness, liar) == before
    witness.merge([early[1]], crdt.NOW_MS)
    merged = witness.retry_waiting(crdt.NOW_MS + 60_000)
    assert held(witness, liar) == (early if merged.changed else before)


def test_a_journal_beyond_its_bounds_takes_no_place(crdt, liar):
    before, after = large(liar, 2), large(liar, 9, first=20)
    witness = crdt.replica(JournalLimits(writer_records_max=8))
    witness.merge(before, crdt.NOW_MS)
    merged = witness.absorb(liar.whole(*after), crdt.NOW_MS)
    assert [reason for _, reason in merged.refused] == ["journal of 9 records, at most 8"]
    assert merged.contradictions == ()
    assert held(witness, liar) == before


@st.composite
def lies(draw) -> list[tuple[int, int, str, frozenset[int], int]]:
    """Of each record: its seq, key, the earlier records it says are live, and its floor."""
    plans = []
    for number in range(draw(st.integers(2, 7))):
        seq = draw(st.sampled_from([number + 1] * 9 + [max(1, number)]))
        others = draw(st.frozensets(st.integers(0, max(0, number - 1))))
        plans.append((seq, draw(st.sampled_from("abcd")), others, draw(st.sampled_from([0, 0, 0, 1, 2]))))
    return plans


PEERS = 3


@given(lies(), st.data())
def test_replicas_end_up_alike_whatever_a_writer_signs_and_whomever_it_tells(crdt, plans, data):
    liar = Liar(crdt)
    journals = [crdt.replica() for _ in range(PEERS)]
    signed: list[Record] = []
    for seq, key, chosen, wanted in plans:
        floor = min(wanted, seq - 1)
        newest = {
            record.key: record
            for record in sorted((signed[n] for n in chosen if n < len(signed)), key=lambda each: each.seq)
            if floor < record.seq < seq and record.key != key
        }
        others = sorted(newest.values(), key=lambda each: each.seq)
        record = liar.sign(seq, key, others, floor=floor)
        signed.append(record)
        for one, way in enumerate(
            data.draw(st.lists(st.sampled_from("pwpw-"), min_size=PEERS, max_size=PEERS))
        ):
            if way == "p":
                journals[one].merge([record], crdt.NOW_MS)
            elif way == "w":
                journals[one].absorb(liar.whole(*others, record), crdt.NOW_MS)
        if data.draw(st.booleans()):
            one, other = data.draw(st.permutations(journals))[:2]
            crdt.reconcile(one, other)
    heads = [journal.heads.get(liar.id, 0) for journal in journals]
    settle(crdt, *journals)
    assert journals[0].heads.get(liar.id, 0) >= max(heads)
    if not journals[0].forks and journals[0].heads:
        live = held(journals[0], liar)
        assert live[-1].rest == crdt.rest(live)
        copy = crdt.replica()
        assert copy.restore(live, dict(journals[0].heads)) == ()
        assert copy.canonical() == journals[0].canonical()
