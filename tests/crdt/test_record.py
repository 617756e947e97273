import tracemalloc
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.clock import Dot
from crdt.codec import MalformedError, pack, unpack
from crdt.record import (
    CONTEXT_ENTRIES_MAX,
    KEY_BYTES_MAX,
    RECORD_BYTES_MAX,
    SEQ_MAX,
    Record,
    content_digest,
    decode_record,
    encode_record,
    record_bytes,
    record_fault,
    same_content,
)

IDS = st.binary(min_size=16, max_size=16)


@st.composite
def records(draw) -> Record:
    writer, seq = draw(IDS), draw(st.integers(1, SEQ_MAX))
    context = draw(st.dictionaries(IDS, st.integers(1, SEQ_MAX), max_size=5))
    context.pop(writer, None)
    return Record(
        writer=writer,
        seq=seq,
        kind=draw(st.from_regex(r"[a-z][a-z0-9._-]{0,31}", fullmatch=True)),
        key=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=120)),
        payload=draw(st.binary(max_size=400)),
        context=tuple(sorted(context.items())),
        hlc=draw(st.integers(1, 2**64 - 1)),
        floor=draw(st.integers(0, seq - 1)),
        rest=draw(st.binary(min_size=32, max_size=32)),
        signature=draw(st.binary(min_size=64, max_size=64)),
    )


RECORD = Record(
    writer=b"w" * 16,
    seq=7,
    kind="policy",
    key="default/HTTPRoute/cart",
    payload=b"{}",
    context=((b"a" * 16, 3), (b"w" * 16, 2)),
    hlc=5 << 16,
    floor=1,
    rest=b"r" * 32,
    signature=b"s" * 64,
)


@given(records())
def test_a_record_decodes_to_itself(record):
    assert decode_record(encode_record(record)) == record


@given(records())
def test_the_estimate_of_the_size_is_an_upper_bound_and_close(record):
    actual = len(encode_record(record))
    slack = 70 + 10 * len(record.context)
    assert actual <= record_bytes(record) <= actual + slack


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed(data):
    with pytest.raises(MalformedError):
        decode_record(data)


@given(records(), st.data())
def test_a_damaged_record_is_malformed_or_another_record(record, data):
    damaged = bytearray(encode_record(record))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_record(bytes(damaged))
    except MalformedError:
        return
    assert decoded != record
    assert encode_record(decoded) == damaged


@given(
    st.lists(
        st.none()
        | st.integers().filter(lambda i: abs(i) < 2**63)
        | st.text()
        | st.binary()
        | st.lists(st.integers(0, 9)),
        min_size=11,
        max_size=11,
    )
)
def test_fields_of_any_type_are_malformed_or_a_record(values):
    try:
        decode_record(pack([2, *values[1:]]))
    except MalformedError:
        return
    pytest.fail("eleven arbitrary values made a record")


@pytest.mark.parametrize("name", [field.name for field in fields(Record) if field.name != "signature"])
def test_the_signature_covers_every_field(name):
    changed = {
        "writer": b"v" * 16,
        "kind": "service",
        "key": "other",
        "payload": b"",
        "context": (),
        "rest": b"t" * 32,
    }.get(name, 6 if name != "hlc" else 9)
    other = replace(RECORD, **{name: changed})
    assert other.signing_bytes() != RECORD.signing_bytes()
    assert content_digest(other) != content_digest(RECORD)
    assert not same_content(other, RECORD)


def test_what_is_signed_carries_a_label_of_its_own():
    assert RECORD.signing_bytes().startswith(b"gossamer/record/2\0")


def test_signing_twice_does_not_change_what_is_said():
    assert same_content(RECORD, replace(RECORD, signature=b"t" * 64))


def test_an_empty_payload_is_a_deletion():
    assert replace(RECORD, payload=b"").deleted
    assert not RECORD.deleted
    assert RECORD.dot == Dot(b"w" * 16, 7)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"writer": b"short"}, "writer of 5 bytes"),
        ({"seq": 0, "context": (), "floor": 0}, "seq 0"),
        ({"seq": SEQ_MAX + 1}, "seq"),
        ({"kind": ""}, "kind"),
        ({"kind": "k" * 33}, "kind"),
        ({"kind": "Policy"}, "kind"),
        ({"kind": "policy\n"}, "kind"),
        ({"key": "ü" * (KEY_BYTES_MAX // 2 + 1)}, "key of 514 bytes"),
        ({"context": ((b"b" * 16, 1), (b"a" * 16, 1))}, "sorted"),
        ({"context": ((b"a" * 16, 1), (b"a" * 16, 2))}, "sorted"),
        ({"context": ((b"a" * 15, 1),)}, "pairs"),
        ({"context": ((b"a" * 16, 0),)}, "seq 0"),
        ({"context": ((b"w" * 16, 7),)}, "cannot have seen"),
        ({"context": tuple((n.to_bytes(16, "big"), 1) for n in range(1, CONTEXT_ENTRIES_MAX + 2))}, "entries"),
        ({"hlc": 0}, "stamp"),
        ({"floor": 7}, "floor"),
        ({"rest": b"r" * 31}, "31 bytes, not 32"),
        ({"rest": b"r" * 33}, "33 bytes, not 32"),
        ({"signature": b""}, "signature"),
        ({"payload": b"x" * RECORD_BYTES_MAX}, "bytes"),
    ],
)  # fmt: skip
def test_each_bound_is_kept_by_both_ends(change, why):
    record = replace(RECORD, **change)
    assert why in record_fault(record)
    with pytest.raises(MalformedError):
        decode_record(encode_record(record))


def test_the_largest_record_fits():
    room = RECORD_BYTES_MAX - record_bytes(replace(RECORD, payload=b""))
    largest = replace(RECORD, payload=b"x" * room)
    assert decode_record(encode_record(largest)) == largest


def test_a_text_that_is_no_unicode_is_a_fault_not_an_error():
    assert record_fault(replace(RECORD, key="\ud800")) == "key is not Unicode text"


def test_another_format_is_refused_by_name():
    values = unpack(encode_record(RECORD), bytes_max=10_000)
    with pytest.raises(MalformedError, match="format 2"):
        decode_record(pack([1, *values[1:]]))


def test_records_share_their_kind_and_strange_kinds_stay_nowhere():
    """Decoding comes before any signature: what it remembers has to be little."""
    one, other = (decode_record(encode_record(replace(RECORD, seq=seq))) for seq in (9, 10))
    assert one.kind is other.kind
    tracemalloc.start()
    try:
        for number in range(2000):
            decode_record(encode_record(replace(RECORD, kind=f"k{number:031}")))
        for number in range(50):
            parts = unpack(encode_record(RECORD), bytes_max=2000)
            parts[3] = f"{number}".ljust(200_000, "k")
            with pytest.raises(MalformedError, match="kind"):
                decode_record(pack(parts))
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
