"""Frames and greetings: bounds, times, and hostile bytes."""

import asyncio
import socket
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.io.stream import (
    FRAME_BYTES_MAX,
    WRITE_BUFFER_MAX,
    FrameStream,
    Hello,
    StreamError,
    connect,
    decode_hello,
    encode_hello,
)
from trust.tls import client_context_unverified


@pytest.fixture
async def pair() -> Any:
    """Two ends of one connection, without TLS: frames do not know of it."""
    accepted: asyncio.Queue[FrameStream] = asyncio.Queue()

    def arrived(reader: Any, writer: Any) -> None:
        accepted.put_nowait(FrameStream(reader, writer))

    server = await asyncio.start_server(arrived, "127.0.0.1", 0, limit=FRAME_BYTES_MAX + 4)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    near, far = FrameStream(reader, writer), await accepted.get()
    yield near, far
    for end in (near, far):
        await end.closed()
    server.close()
    await server.wait_closed()


async def test_frames_arrive_whole_and_in_order(pair: Any) -> None:
    near, far = pair
    frames = [b"a", b"b" * 70_000, b"c" * FRAME_BYTES_MAX, b"d"]
    for frame in frames:
        near.write(frame)
    assert [await far.read() for _ in frames] == frames
    near.close()
    assert await far.read() == b""


@pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1, 2**32 - 1])
async def test_a_frame_of_an_impossible_length_is_refused_before_it_is_read(pair: Any, length: int) -> None:
    near, far = pair
    near._writer.write(length.to_bytes(4, "big"))
    with pytest.raises(StreamError, match=f"frame of {length} bytes"):
        await far.read()


async def test_a_frame_too_large_is_not_sent(pair: Any) -> None:
    near, _ = pair
    with pytest.raises(StreamError, match="over the bound"):
        near.write(bytes(FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize("part", [b"\0", b"\0\0\0", b"\0\0\0\x05", b"\0\0\0\x05abcd"])
async def test_a_frame_cut_short_is_an_error_and_no_frame(pair: Any, part: bytes) -> None:
    near, far = pair
    near._writer.write(part)
    near.close()
    with pytest.raises(StreamError, match="connection lost"):
        await far.read()


async def test_a_sender_that_trickles_does_not_extend_its_time(pair: Any) -> None:
    near, far = pair

    async def trickle() -> None:
        while True:
            near._writer.write(b"\0")
            await asyncio.sleep(0.01)

    near._writer.write((1000).to_bytes(4, "big"))
    trickling = asyncio.create_task(trickle())
    with pytest.raises(StreamError, match=r"no frame within 0\.1 s"):
        await far.read(0.1)
    trickling.cancel()
    await asyncio.gather(trickling, return_exceptions=True)


async def test_a_receiver_that_takes_nothing_is_cut_off(pair: Any) -> None:
    near, far = pair
    for end, option in ((near, socket.SO_SNDBUF), (far, socket.SO_RCVBUF)):
        end._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 4096)
    for _ in range(20):  # more than the kernel takes
        near.write(bytes(FRAME_BYTES_MAX))
    with pytest.raises(StreamError, match="nothing was taken"):
        await near.flush(0.05)
    for _ in range(2 * WRITE_BUFFER_MAX // FRAME_BYTES_MAX):
        near.write(bytes(FRAME_BYTES_MAX))
    assert near._writer.transport.is_closing()
    near.write(b"more")  # is not an error: the end is told by `read`


async def test_an_unreachable_peer_is_named_with_the_reason() -> None:
    context = client_context_unverified()
    with pytest.raises(StreamError, match=r"cannot connect to 127\.0\.0\.1:1: Connection refused"):
        await connect(("127.0.0.1", 1), context)
    with pytest.raises(StreamError, match="cannot connect to"):
        await connect(("x" * 70 + ".invalid", 1), context)


async def test_a_peer_that_accepts_and_says_nothing_is_given_up() -> None:
    callers: asyncio.Queue[Any] = asyncio.Queue()
    server = await asyncio.start_server(lambda _reader, writer: callers.put_nowait(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StreamError, match="no answer"):
        await connect(("127.0.0.1", port), client_context_unverified(), timeout_s=0.05)
    server.close()
    writer = await callers.get()
    writer.close()
    await writer.wait_closed()


async def test_a_peer_that_speaks_no_tls_is_named() -> None:
    async def web(reader: Any, writer: Any) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(web, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StreamError, match=f"the TLS handshake with 127.0.0.1:{port} failed"):
        await connect(("127.0.0.1", port), client_context_unverified())
    server.close()
    await server.wait_closed()


# ------------------------------------------------------------------ greetings


def test_a_greeting_comes_back_as_it_was_said() -> None:
    hello = Hello(root_certificate=b"der", issues=True, signers=(("10.0.0.1", 7946), ("::1", 1)))
    assert decode_hello(encode_hello(hello)) == hello


def test_more_signers_than_fit_are_left_out() -> None:
    many = tuple((f"10.0.0.{n}", 7946) for n in range(200))
    hello = Hello(root_certificate=b"der", issues=False, signers=many)
    assert decode_hello(encode_hello(hello)).signers == many[:16]


@pytest.mark.parametrize(
    "address",
    [["evil.example", 1], ["10.0.0.1", 0], ["10.0.0.1", 65536], ["10.0.0.1", True], [1, 1], "x", None, []],
)
def test_only_addresses_are_believed_to_be_addresses(address: Any) -> None:
    data = msgpack.packb([[1, 1], b"der", False, [address, ["10.0.0.1", 7946]]])
    assert decode_hello(data).signers == (("10.0.0.1", 7946),)


def test_a_later_version_says_so() -> None:
    with pytest.raises(StreamError, match="speaks protocols 2 to 2, this peer 1 to 1"):
        decode_hello(msgpack.packb([[2, 2], b"der", False, []]))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_greeting_or_refused(data: bytes) -> None:
    try:
        decode_hello(data)
    except StreamError:
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_value_is_a_greeting_or_refused(value: Any) -> None:
    for said in (value, [1, b"der", True, value], [1, b"der", True, [value]]):
        try:
            hello = decode_hello(msgpack.packb(said))
        except StreamError:
            continue
        assert len(hello.signers) <= 32
