"""The channel between control process and worker."""

import socket
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded.ipc import (
    FRAME_BYTES_MAX,
    SOCKETS_PER_MESSAGE,
    Apply,
    Drain,
    FrameReader,
    Message,
    Outcome,
    ProtocolError,
    Report,
    Started,
    decode_message,
    encode_message,
    order_frame_bytes,
    receive_sockets,
    send_sockets,
)
from proxy.plane import Ejection, Series, SeriesDelta

SERIES = Series(
    "source", "web", "default", "spiffe://a", "echo", "default", "spiffe://b", "http", 200, "-", "mutual_tls"
)
EJECTION = Ejection(cluster="c", endpoint="e", node="n", reason="r", remaining_s=1.5, count=2)
MESSAGES: list[Message] = [
    Apply(7, b"snapshot", (("in", 11), ("out", 12))),
    Apply(7, b"snapshot", (), (0, 4095, -1)),
    Drain(8, 4.5),
    Started(4711),
    Outcome(7, ""),
    Outcome(7, "why not"),
    Outcome(7, "why not", ("HTTPRoute/default/r", "AuthorizationPolicy/default/p")),
    Report([(SERIES, SeriesDelta(requests=3, duration_sum_ms=1.5))], {"retries": 2}, (EJECTION,), 9, (b"certificate",)),
    Report(),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode_message(encode_message(message)[4:]) == message


def test_what_the_other_end_must_refuse_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.embedded.ipc.FRAME_BYTES_MAX", 1000)
    order = Apply(0xFFFF_FFFF, bytes(900), (("in", 2**63), ("out", 12)))
    size = len(encode_message(order)) - 4
    assert size <= order_frame_bytes(900, order.tokens) <= size + 8
    assert order_frame_bytes(1000, order.tokens) > 1000
    with pytest.raises(ProtocolError, match=r"frame of 1\d\d\d bytes, at most 1000"):
        encode_message(Apply(1, bytes(1000), ()))


@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_frames_are_found_however_the_stream_is_cut(cuts: list[int]) -> None:
    wire = b"".join(map(encode_message, MESSAGES))
    received: list[Message] = []
    reader = FrameReader(received.append)
    at = 0
    for size in cuts:
        reader.feed(wire[at : at + size])
        at += size
    reader.feed(wire[at:])
    assert received == MESSAGES


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_but_a_protocol_error(data: bytes) -> None:
    try:
        decode_message(data)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "body",
    [
        ["nonsense"],
        [],
        {},
        3,
        ["apply"],
        ["apply", 1, 2, 3],
        ["drain", "x", "y"],
        ["report", 1, 2, 3, 4],
        ["outcome", 1],
    ],
)
def test_what_is_no_message_is_refused(body: object) -> None:
    with pytest.raises(ProtocolError):
        decode_message(msgpack.packb(body))


def test_a_frame_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        FrameReader(lambda message: None).feed(struct.pack(">I", FRAME_BYTES_MAX + 1))


def test_sockets_travel_with_their_tokens() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there.setblocking(False)
    sent = [socket.socket() for _ in range(SOCKETS_PER_MESSAGE + 3)]
    with here, there:
        for sock in sent:
            sock.bind(("127.0.0.1", 0))
        assert receive_sockets(there) == {}
        send_sockets(here, list(enumerate(sent)))
        received = receive_sockets(there)
        assert {token: sock.getsockname() for token, sock in received.items()} == {
            token: sock.getsockname() for token, sock in enumerate(sent)
        }
        for sock in (*sent, *received.values()):
            sock.close()


def test_a_message_without_its_sockets_is_refused() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there.setblocking(False)
    with here, there:
        here.send(msgpack.packb([1, 2]))
        with pytest.raises(ProtocolError, match="0 sockets for 2 tokens"):
            receive_sockets(there)
        here.send(b"\xc1")
        with pytest.raises(ProtocolError):
            receive_sockets(there)


def test_a_reader_that_skips_goes_on_behind_what_it_cannot_read() -> None:
    """The workers of an earlier release may say things that this one has no words for."""
    frame = encode_message(Outcome(7, ""))
    strange = msgpack.packb(["hello", 1])
    heard: list[Message] = []
    reader = FrameReader(heard.append, skip=True)
    reader.feed(struct.pack(">I", len(strange)) + strange + frame + frame[:5])
    assert heard == [Outcome(7, "")]
    assert reader.unread == frame[:5]
    reader.feed(frame[5:])
    assert len(heard) == 2
    with pytest.raises(ProtocolError, match="at most"):
        reader.feed(struct.pack(">I", FRAME_BYTES_MAX + 1))
