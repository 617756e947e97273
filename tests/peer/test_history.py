"""The versions of a policy: what replaced what, who is ignored, and that bytes from the disk break nothing."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from crdt.clock import Dot
from crdt.record import Record, encode_record
from peer.history import versions

KEY = "TrafficPolicy/default/a"
A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def record(
    writer: bytes, seq: int, *context: tuple[bytes, int], hlc: int = 0, payload: bytes = b"\x80"
) -> Record:
    return Record(
        writer=writer, seq=seq, kind="policy", key=KEY, payload=payload, context=context, hlc=hlc or seq, floor=0,
        rest=bytes(32), signature=bytes(64),
    )  # fmt: skip


def told(held: Any, past: Any = ()) -> list[tuple[str, int, bool, list[tuple[str, int]]]]:
    def place(writer: bytes, seq: int) -> tuple[str, int]:
        return writer[:1].decode(), seq

    return [
        (
            *place(each.record.writer, each.record.seq),
            each.current,
            [place(dot.writer, dot.seq) for dot in each.replaced],
        )
        for each in versions([(each, "") for each in held], [encode_record(each) for each in past], KEY)
    ]


def test_a_chain_of_edits_by_two_authors() -> None:
    first, second = record(A, 1), record(A, 2, (A, 1))
    third = record(B, 1, (A, 2), hlc=3)
    fourth = record(A, 3, (A, 2), (B, 1), hlc=4)
    assert told([fourth, third], [second, first]) == [
        ("a", 3, True, [("b", 1)]),
        ("b", 1, False, [("a", 2)]),
        ("a", 2, False, [("a", 1)]),
        ("a", 1, False, []),
    ]


def test_concurrent_edits_and_the_one_that_settles_them() -> None:
    one, two = record(A, 1), record(B, 1, hlc=2)
    assert told([one, two]) == [("b", 1, True, []), ("a", 1, True, [])]
    settled = record(A, 2, (A, 1), (B, 1), hlc=3)
    assert told([settled, two], [one])[0] == ("a", 2, True, [("a", 1), ("b", 1)])
    assert [current for _, _, current, _ in told([settled, two], [one])] == [True, False, False]


def test_a_deletion_is_a_version_without_a_document() -> None:
    gone = record(A, 2, (A, 1), payload=b"")
    found = versions([(gone, "")], [encode_record(record(A, 1))], KEY)
    assert [(each.record.deleted, each.current, each.document is None) for each in found] == [
        (True, True, True),
        (False, False, True),  # and this one is no resource
    ]


def test_what_is_not_obeyed_replaces_nothing() -> None:
    mine = record(A, 1)
    theirs = record(B, 1, (A, 1), hlc=2)
    found = versions([(mine, ""), (theirs, "may not publish policies")], [], KEY)
    assert [(each.record.writer, each.current, each.objection) for each in found] == [
        (B, False, "may not publish policies"),
        (A, True, ""),
    ]


def test_a_document_of_an_author_is_one_version_whoever_published_it() -> None:
    other, again = record(B, 1, (A, 1), hlc=2), record(A, 2, (A, 1), hlc=3)
    past = record(B, 7, hlc=1)

    def read(each: Record) -> Record:
        return replace(each, writer=C, seq=5, hlc=2)

    held = [(other, ""), (again, "")]
    found = versions(held, [encode_record(past)], KEY, read=read, live=lambda records: map(read, records))
    assert [(each.record.dot, each.current, each.objection) for each in found] == [(Dot(C, 5), True, "")]
    assert found[0].replaced == (Dot(A, 1),)
    (found_one,) = versions([(other, "is revoked"), (again, "")], [], KEY, read=read, live=lambda _: [])
    assert (found_one.current, found_one.objection) == (False, "")
    (found_one,) = versions([(other, "is revoked")], [], KEY, read=read)
    assert (found_one.current, found_one.objection) == (False, "is revoked")


def test_what_the_disk_has_of_another_key_is_left_out() -> None:
    assert versions([], [encode_record(record(A, 1))], "TrafficPolicy/default/b") == []


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_from_the_disk_are_a_version_or_left_out(past: list[bytes]) -> None:
    assert len(versions([(record(A, 1), "")], past, KEY)) == 1
