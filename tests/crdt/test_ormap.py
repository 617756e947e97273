"""The map: keys are independent of one another, deleted ones are absent, order does not matter."""

import random

from hypothesis import given
from hypothesis import strategies as st

from crdt.ormap import live_versions
from crdt.register import context_for, versions

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["edit", "delete", "hear"]), st.integers(0, 2), st.integers(0, 2), st.sampled_from("abc")
    ),
    max_size=25,
)  # fmt: skip


def test_deleted_keys_are_absent_and_the_rest_is_sorted(crdt):
    author = crdt.Author(1).write_all([("b", b"1"), ("a", b"1"), ("c", b"1"), ("c", b"")])
    folded = live_versions(author.journal.records("policy"))
    assert list(folded) == ["a", "b"]
    assert [record.payload for record in folded["a"]] == [b"1"]


def test_nothing_is_worth_nothing():
    assert live_versions([]) == {}


@given(STEPS, st.integers(0, 1000))
def test_each_key_is_its_own_register_in_whichever_order_records_come(crdt, steps, seed):
    authors = [crdt.Author(number) for number in range(3)]
    for number, (step, one, other, key) in enumerate(steps):
        author = authors[one]
        if step == "hear":
            author.journal.absorb(crdt.whole(authors[other].journal, authors[other].id), crdt.NOW_MS)
            continue
        payload = b"" if step == "delete" else b"%d" % number
        held = [each for each in author.journal.records("policy") if each.key == key]
        record = author.draft(key, payload, context=context_for(held, author.id))
        author.journal.merge([record], crdt.NOW_MS)
    for author in authors:
        records = list(author.journal.records("policy"))
        found = live_versions(records)
        random.Random(seed).shuffle(records)
        assert live_versions(records) == found
        for key in "abc":
            assert found.get(key, ()) == versions(each for each in records if each.key == key)
