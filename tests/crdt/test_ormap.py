from hypothesis import given
from hypothesis import strategies as st

from crdt.ormap import ObservedMap, live_versions

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["edit", "delete", "hear", "evict"]),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from("abc"),
    ),
    max_size=25,
)


def test_deleted_keys_are_absent_and_the_rest_is_sorted(crdt):
    author = crdt.Author(1).write_all([("b", b"1"), ("a", b"1"), ("c", b"1"), ("c", b"")])
    folded = live_versions(author.journal.records("policy"))
    assert list(folded) == ["a", "b"]
    assert [record.payload for record in folded["a"]] == [b"1"]


@given(STEPS)
def test_the_incremental_map_equals_the_fold(crdt, steps):
    authors = [crdt.Author(number) for number in range(3)]
    maps = [ObservedMap("policy", author.journal) for author in authors]
    for number, (step, one, other, key) in enumerate(steps):
        author, folded = authors[one], maps[one]
        before = live_versions(author.journal.records("policy"))
        match step:
            case "hear":
                delta = crdt.whole(authors[other].journal, authors[other].id)
                changed = folded.observe(author.journal.absorb(delta, crdt.NOW_MS))
            case "evict":
                changed = folded.withdraw(author.journal.evict(authors[other].id, ["policy"]))
            case _:
                payload = b"" if step == "delete" else b"%d" % number
                record = author.draft(key, payload, context=folded.context_for(key, author.id))
                changed = folded.observe(author.journal.merge([record], crdt.NOW_MS))
        after = live_versions(author.journal.records("policy"))
        assert {key: folded.versions(key) for key in folded} == after
        assert set(changed) == {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        assert set(folded.conflicts()) == {k for k, current in after.items() if len(current) > 1}


def test_a_map_starts_from_what_the_journal_holds(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1")])
    author.write("a", b"1", kind="service")
    folded = ObservedMap("policy", author.journal)
    assert list(folded) == ["a", "b"]
    assert len(folded) == 2
    assert "a" in folded
    assert "c" not in folded
    assert folded.versions("c") == ()


def test_an_edit_of_another_kind_changes_nothing(crdt):
    author = crdt.Author(1)
    folded = ObservedMap("policy", author.journal)
    record = author.draft("a", kind="service")
    assert folded.observe(author.journal.merge([record], crdt.NOW_MS)) == ()
    assert len(folded) == 0


def test_the_context_of_an_unknown_key_is_empty(crdt):
    assert ObservedMap("policy", crdt.Author(1).journal).context_for("a") == ()
