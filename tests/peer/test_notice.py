"""What nodes tell of policies that are not in force on them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.codec import pack
from peer.notice import (
    MESSAGE_BYTES_MAX,
    QUARANTINE_BYTES_MAX,
    Notice,
    NoticeError,
    changes,
    decode_notice,
    encode_notice,
)

dots = st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.integers(1, 2**60)), max_size=40)
words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=400)


@given(dots, words)
def test_a_notice_is_bounded_and_comes_back(version: Any, message: str) -> None:
    payload = encode_notice(Notice(version=tuple(version), reason="RejectedByDataPlane", message=message))
    assert len(payload) <= QUARANTINE_BYTES_MAX
    found = decode_notice(payload)
    assert found.version == tuple(version)[:16]
    assert message.startswith(found.message)
    assert len(found.message.encode()) <= MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    "data",
    [
        [], {}, {"version": [], "reason": "x y", "message": ""}, {"version": [], "reason": "", "message": ""},
        {"version": [], "reason": "x" * 41, "message": ""}, {"version": [], "reason": "x", "message": "a\nb"},
        {"version": [], "reason": "x", "message": "m" * 201}, {"version": [[b"w", 1]], "reason": "x", "message": ""},
        {"version": [[b"w" * 16, 0]], "reason": "x", "message": ""},
        {"version": [[b"w" * 16, True]], "reason": "x", "message": ""},
        {"version": [[b"w" * 16, 1]] * 17, "reason": "x", "message": ""},
    ],
)  # fmt: skip
def test_what_is_no_notice_is_refused(data: Any) -> None:
    with pytest.raises(NoticeError):
        decode_notice(pack(data))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_notice_or_refused(data: bytes) -> None:
    try:
        decode_notice(data)
    except NoticeError:
        pass


def test_only_what_changed_is_written() -> None:
    assert changes({"a": b"1", "b": b"2"}, {"b": b"2", "c": b"3"}) == {"a": b"1", "c": b""}
