from dataclasses import replace

import pytest

from crdt.delta import Delta, delta_fault


@pytest.fixture(scope="module")
def delta(crdt) -> Delta:
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"2"), ("a", b"3")])
    return crdt.whole(author.journal, author.id)


def test_a_delta_of_a_journal_has_no_fault(delta):
    assert delta_fault(delta) is None
    assert delta.complete


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: {"writer": b"?" * 16}, "another writer"),
        (lambda d: {"records": d.records[::-1]}, "rising"),
        (lambda d: {"after": 2}, "where it says"),
        (lambda d: {"upto": 4, "target": 4}, "where it says"),
        (lambda d: {"upto": 2}, "where it says"),
        (lambda d: {"target": 2}, "where it says"),
        (lambda d: {"records": ()}, "does not hold"),
    ],
)
def test_a_claim_that_contradicts_itself_is_a_fault(delta, change, why):
    assert why in delta_fault(replace(delta, **change(delta)))


def test_nothing_to_give_is_a_delta_too(delta):
    assert delta_fault(Delta(writer=delta.writer, after=9, upto=9, target=9)) is None


def test_two_records_of_one_seq_are_a_proof_not_a_fault(delta):
    pair = (delta.records[0], replace(delta.records[0], payload=b"other"))
    seq = pair[0].seq
    assert delta_fault(Delta(writer=delta.writer, after=0, upto=seq, target=seq, records=pair)) is None
