"""The messages of a signing session: canonical, bounded, and nothing else decodes."""

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.codec import pack
from trust.errors import SessionError
from trust.frost import Commitment
from trust.groupkey import EPOCH_MAX
from trust.polynomial import PARTICIPANTS_MAX
from trust.sessionwire import (
    ATTEMPT_MAX,
    DETAIL_CHARS_MAX,
    REQUEST_BYTES_MAX,
    TO_COORDINATOR_BYTES_MAX,
    TO_SIGNER_BYTES_MAX,
    CommitReply,
    CommitRequest,
    Reason,
    RefusalReply,
    ShareReply,
    ShareRequest,
    ToCoordinator,
    ToSigner,
    decode_to_coordinator,
    decode_to_signer,
)

SESSION, ROW = b"s" * 16, Commitment(identifier=b"i" * 32, hiding=b"h" * 32, binding=b"b" * 32)
SHARE_REQUEST = ShareRequest(session=SESSION, epoch=3, attempt=1, request=b"please", commitments=(ROW, ROW))

sessions = st.binary(min_size=16, max_size=16)
words = st.binary(min_size=32, max_size=32)
epochs = st.integers(0, EPOCH_MAX)
attempts = st.integers(1, ATTEMPT_MAX)
rows = st.builds(Commitment, identifier=words, hiding=words, binding=words)
to_signer = st.builds(CommitRequest, session=sessions, epoch=epochs) | st.builds(
    ShareRequest,
    session=sessions,
    epoch=epochs,
    attempt=attempts,
    request=st.binary(max_size=64),
    commitments=st.lists(rows, min_size=1, max_size=4).map(tuple),
)
to_coordinator = (
    st.builds(CommitReply, session=sessions, epoch=epochs, hiding=words, binding=words)
    | st.builds(
        ShareReply, session=sessions, epoch=epochs, attempt=attempts, share=words, hiding=words, binding=words
    )
    | st.builds(
        RefusalReply,
        session=sessions,
        epoch=epochs,
        attempt=st.integers(0, ATTEMPT_MAX),
        reason=st.sampled_from(Reason),
        detail=st.text(max_size=DETAIL_CHARS_MAX),
    )
)


@given(to_signer)
def test_reads_back_what_a_coordinator_says(message: ToSigner) -> None:
    assert decode_to_signer(message.encode()) == message
    with pytest.raises(SessionError, match="not a signer's reply"):
        decode_to_coordinator(message.encode())


@given(to_coordinator)
def test_reads_back_what_a_signer_says(message: ToCoordinator) -> None:
    assert decode_to_coordinator(message.encode()) == message
    with pytest.raises(SessionError, match="not a request to a signer"):
        decode_to_signer(message.encode())


def test_the_largest_messages_fit_their_bounds_and_larger_ones_do_not() -> None:
    largest = ShareRequest(
        session=SESSION,
        epoch=EPOCH_MAX,
        attempt=ATTEMPT_MAX,
        request=bytes(REQUEST_BYTES_MAX),
        commitments=(ROW,) * PARTICIPANTS_MAX,
    )
    assert len(largest.encode()) <= TO_SIGNER_BYTES_MAX
    assert decode_to_signer(largest.encode()) == largest
    for larger in (
        replace(SHARE_REQUEST, request=bytes(REQUEST_BYTES_MAX + 1)),
        replace(SHARE_REQUEST, commitments=(ROW,) * (PARTICIPANTS_MAX + 1)),
        replace(largest, request=bytes(REQUEST_BYTES_MAX + 100)),
        replace(SHARE_REQUEST, epoch=EPOCH_MAX + 1),
        replace(SHARE_REQUEST, attempt=ATTEMPT_MAX + 1),
    ):
        with pytest.raises(SessionError):
            decode_to_signer(larger.encode())
    refusal = RefusalReply(
        session=SESSION,
        epoch=EPOCH_MAX,
        attempt=0,
        reason=Reason.POLICY,
        detail="\U0001f512" * DETAIL_CHARS_MAX,
    )
    assert len(refusal.encode()) <= TO_COORDINATOR_BYTES_MAX
    assert decode_to_coordinator(refusal.encode()) == refusal
    with pytest.raises(SessionError):
        decode_to_coordinator(replace(refusal, detail="a" * (DETAIL_CHARS_MAX + 1)).encode())
    with pytest.raises(SessionError, match="at most"):
        decode_to_coordinator(refusal.encode()[:-1] + bytes(TO_COORDINATOR_BYTES_MAX))


@pytest.mark.parametrize(
    "fields",
    [
        ["share", SESSION, 0, 1, b"", b""],
        ["share", SESSION, 0, 1, b"", bytes(95)],
        ["share", SESSION, 0, 1, b"", bytes(97)],
        ["share", SESSION, 0, 0, b"", bytes(96)],
        ["share", SESSION, 0, 1, b""],
        ["commit", SESSION[1:], 0],
        ["commit", SESSION, 0, 0],
        ["commit", SESSION, -1],
        ["commits", SESSION, 0],
        [b"commit", SESSION, 0],
        [],
    ],
    ids=repr,
)
def test_what_is_no_request_is_refused(fields: list[object]) -> None:
    with pytest.raises(SessionError):
        decode_to_signer(msgpack.packb(fields))


@pytest.mark.parametrize(
    "fields",
    [
        ["part", SESSION, 0, 0, bytes(32), bytes(32), bytes(32)],
        ["part", SESSION, 0, 1, bytes(31), bytes(32), bytes(32)],
        ["commitment", SESSION, 0, bytes(32), bytes(33)],
        ["refusal", SESSION, 0, 0, "whim", ""],
        ["refusal", SESSION, 0, 0, "policy", b"bytes"],
    ],
    ids=repr,
)
def test_what_is_no_reply_is_refused(fields: list[object]) -> None:
    with pytest.raises(SessionError):
        decode_to_coordinator(msgpack.packb(fields))


@given(st.binary(max_size=120), st.sampled_from(["commit", "share", "commitment", "part", "refusal"]))
def test_arbitrary_bytes_raise_nothing_but_session_errors(data: bytes, kind: str) -> None:
    for hostile in (data, bytes([0x90 | (len(data) % 16)]) + pack([kind])[1:] + data):
        for decode in (decode_to_signer, decode_to_coordinator):
            try:
                decoded = decode(hostile)
            except SessionError:
                continue
            assert decoded.encode() == hostile
