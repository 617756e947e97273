from hypothesis import given
from hypothesis import strategies as st

from crdt.journal import Journal
from crdt.record import SEQ_MAX, Record
from crdt.register import context_for, versions

KEY = "default/HTTPRoute/cart"


class Editor:
    """Somebody who edits one key, seeing what their replica holds."""

    def __init__(self, crdt, number: int) -> None:
        self.crdt = crdt
        self.id = crdt.writer_id(number)
        self.journal: Journal = crdt.replica()

    def seen(self) -> list[Record]:
        return [record for record in self.journal.records("policy") if record.key == KEY]

    def edit(self, payload: bytes, now_ms: int = 0) -> Record:
        record = self.journal.draft(
            writer=self.id,
            kind="policy",
            key=KEY,
            payload=payload,
            context=context_for(self.seen(), self.id),
            now_ms=now_ms or self.crdt.NOW_MS,
            sign=self.crdt.sign_as(self.id),
        )
        self.journal.merge([record], self.crdt.NOW_MS)
        return record

    def hear(self, *records: Record) -> None:
        self.journal.merge(records, self.crdt.NOW_MS)

    def payloads(self) -> set[bytes]:
        return {record.payload for record in versions(self.seen())}


def editors(crdt, count: int) -> list[Editor]:
    return [Editor(crdt, number) for number in range(count)]


def test_an_edit_replaces_what_its_author_saw(crdt):
    ann, bob = editors(crdt, 2)
    bob.hear(ann.edit(b"one"))
    bob.edit(b"two")
    assert bob.payloads() == {b"two"}


def test_concurrent_edits_both_stay_visible(crdt):
    ann, bob = editors(crdt, 2)
    hers, his = ann.edit(b"hers"), bob.edit(b"his")
    ann.hear(his)
    bob.hear(hers)
    assert ann.payloads() == bob.payloads() == {b"hers", b"his"}
    assert versions(ann.seen()) == versions(bob.seen())


def test_the_next_edit_settles_a_conflict(crdt):
    ann, bob, eve = editors(crdt, 3)
    eve.hear(ann.edit(b"hers"), bob.edit(b"his"))
    settled = eve.edit(b"settled")
    for editor in (ann, bob):
        editor.hear(*eve.seen())
        assert editor.payloads() == {b"settled"}
    assert dict(settled.context).keys() == {ann.id, bob.id}


def test_a_deletion_wins_over_what_it_saw(crdt):
    ann, bob = editors(crdt, 2)
    first = ann.edit(b"one")
    bob.hear(first)
    bob.edit(b"")
    assert bob.payloads() == set()
    bob.hear(first)
    assert bob.payloads() == set()


def test_a_concurrent_edit_survives_a_deletion(crdt):
    ann, bob = editors(crdt, 2)
    bob.hear(ann.edit(b"one"))
    deletion = bob.edit(b"")
    ann.edit(b"two")
    ann.hear(deletion)
    assert ann.payloads() == {b"two"}


def test_what_was_replaced_stays_replaced_when_its_replacer_writes_again(crdt):
    """Bob's second record supersedes his first, the one that covered Ann's."""
    ann, bob = editors(crdt, 2)
    bob.hear(ann.edit(b"one"))
    bob.edit(b"two")
    bob.edit(b"three")
    assert bob.payloads() == {b"three"}


def test_a_covered_edit_stays_covered_when_a_third_edits(crdt):
    ann, bob, eve = editors(crdt, 3)
    bob.hear(ann.edit(b"one"))
    bob.edit(b"two")
    eve.hear(*bob.seen())
    third = eve.edit(b"three")
    assert dict(third.context).keys() == {ann.id, bob.id}
    bob.hear(third)
    bob.edit(b"")
    assert bob.payloads() == set()


def test_an_editor_keeps_covering_what_is_out_of_its_sight(crdt):
    ann, bob = editors(crdt, 2)
    bob.hear(ann.edit(b"one"))
    bob.edit(b"two")
    bob.journal.evict(ann.id)
    again = bob.edit(b"three")
    assert dict(again.context).keys() == {ann.id, bob.id}


def test_naming_seqs_not_yet_used_does_not_silence_the_future(crdt):
    mallory, bob = editors(crdt, 2)
    greedy = mallory.journal.draft(
        writer=mallory.id,
        kind="policy",
        key=KEY,
        payload=b"mine for ever",
        context=((bob.id, SEQ_MAX),),
        now_ms=crdt.NOW_MS,
        sign=crdt.sign_as(mallory.id),
    )
    his = bob.edit(b"his", crdt.NOW_MS + 1)
    assert {record.payload for record in versions([greedy, his])} == {b"mine for ever", b"his"}


def test_the_latest_stamp_comes_first_and_the_larger_writer_breaks_ties(crdt):
    ann, bob, eve = editors(crdt, 3)
    early, late = ann.edit(b"1"), bob.edit(b"2", crdt.NOW_MS + 9)
    tied = eve.edit(b"3")
    assert tied.hlc == early.hlc
    expected = [late, *sorted([early, tied], key=lambda record: record.writer, reverse=True)]
    assert list(versions([tied, early, late])) == expected
    assert versions([]) == ()


STEPS = st.lists(
    st.tuples(st.sampled_from(["edit", "delete", "hear"]), st.integers(0, 3), st.integers(0, 3)), max_size=25
)


@given(STEPS, st.randoms())
def test_editors_agree_and_only_what_nobody_saw_replaced_is_current(crdt, steps, random):
    """Against a model with full causal histories: a version is current if no record's history includes it."""
    people = editors(crdt, 4)
    knows: dict[Record, frozenset[Record]] = {}  # each record and all its author had ever seen
    seen: list[set[Record]] = [set() for _ in people]
    for number, (step, one, other) in enumerate(steps):
        editor = people[one]
        if step == "hear":
            for record in people[other].journal.delta(people[other].id, 0, 2**30).records:
                editor.hear(record)
            for person in people:
                missing = people[other].journal.delta(
                    person.id, editor.journal.heads.get(person.id, 0), 2**30
                )
                editor.journal.absorb(missing, crdt.NOW_MS)
            seen[one] |= seen[other]
        else:
            record = editor.edit(b"" if step == "delete" else b"%d" % number)
            knows[record] = frozenset(seen[one])
            seen[one].add(record)
        everything = set(seen[one])
        replaced = {old for record in everything for old in knows[record]}
        expected = {record for record in everything - replaced if not record.deleted}
        held = editor.seen()
        random.shuffle(held)
        assert set(versions(held)) == expected
