import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.codec import pack
from gossip.errors import MalformedError
from gossip.message import (
    FRAMING_BYTES,
    Ack,
    Body,
    Gossip,
    Message,
    Nack,
    Ping,
    PingRequest,
    decode_body,
    encode_body,
    item_bytes,
)

SEQUENCES = st.integers(0, 2**32 - 1)
FINGERPRINTS = st.binary(min_size=16, max_size=16)
HEADS = {
    "fingerprint": FINGERPRINTS,
    "settled": st.booleans(),
    "members": st.binary(min_size=8, max_size=8),
    "members_settled": st.booleans(),
}
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping, sequence=SEQUENCES, **HEADS),
    st.builds(Ack, sequence=SEQUENCES, **HEADS),
    st.builds(PingRequest, sequence=SEQUENCES, target=FINGERPRINTS, **HEADS),
    st.builds(Nack, sequence=SEQUENCES),
    st.just(Gossip()),
)
ITEMS = st.lists(st.binary(max_size=300), max_size=4).map(tuple)


@given(MESSAGES, st.integers(0, 2**64 - 1), ITEMS, ITEMS)
def test_bodies_round_trip_and_items_take_the_room_reckoned(
    message: Message, known_boot: int, updates: tuple[bytes, ...], payloads: tuple[bytes, ...]
) -> None:
    if sum(map(len, [*updates, *payloads])) > 1200:
        return
    body = Body(message=message, known_boot=known_boot, updates=updates, payloads=payloads)
    encoded = encode_body(body)
    assert decode_body(encoded) == body
    bare = len(encode_body(Body(message=message, known_boot=known_boot, updates=(), payloads=())))
    assert len(encoded) <= bare + sum(map(item_bytes, [*updates, *payloads])) + FRAMING_BYTES


@given(
    st.builds(Ack, sequence=SEQUENCES, **HEADS),
    st.builds(Ping, sequence=SEQUENCES, **HEADS)
    | st.builds(PingRequest, sequence=SEQUENCES, target=FINGERPRINTS, **HEADS),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
def test_an_ack_is_no_larger_than_what_it_answers_whatever_it_says(
    ack: Ack, asked: Ping | PingRequest, known: int, other: int
) -> None:
    answer = Body(message=ack, known_boot=other, updates=(), payloads=())
    assert len(encode_body(answer)) <= len(
        encode_body(Body(message=asked, known_boot=known, updates=(), payloads=()))
    )


@given(st.binary(max_size=1500))
def test_any_bytes_are_a_body_or_malformed(data: bytes) -> None:
    try:
        decode_body(data)
    except MalformedError:
        pass


@pytest.mark.parametrize(
    "values",
    [
        [9, bytes(12), b"", bytes(24), 0, [], []],
        [1, bytes(11), b"", bytes(24), 0, [], []],
        [1, bytes(12), b"", bytes(23), 0, [], []],
        [2, bytes(12), b"", bytes(16), 0, [], []],
        [1, bytes(12), b"", bytes(24), 4, [], []],
        [1, bytes(12), b"", bytes(24), True, [], []],
        [3, bytes(12), bytes(15), bytes(24), 0, [], []],
        [5, bytes(12), b"", b"", 0, [b""] * 65, []],
        [5, bytes(12), b"", b"", 0, [1], []],
        [5, bytes(12), b"", b"", 0, [], [bytes(1201)]],
        [5, bytes(12), b"", b"", 0, []],
    ],
)
def test_bodies_out_of_shape_are_malformed(values: list[object]) -> None:
    with pytest.raises(MalformedError):
        decode_body(pack(values))
