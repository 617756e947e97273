"""Frames, and header blocks that are sent, judged by `hpack` and `hyperframe`."""

import hpack
import pytest
from hpack.hpack import decode_integer
from hyperframe.frame import Frame, HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded import http2_frames as wire
from proxy.embedded.http2_frames import Http2Error

names = st.sampled_from([b"x-a", b"accept", b"content-type", b"grpc-status", b":path", b"x" * 200])


@given(st.integers(0, 2**31), st.integers(4, 7))
def test_integers_are_those_of_hpack(value: int, bits: int) -> None:
    assert decode_integer(wire._integer(value, bits), bits) == (value, len(wire._integer(value, bits)))


@given(
    st.lists(st.tuples(names, st.binary(max_size=400).map(lambda value: value.strip(b" \t"))), max_size=12)
)
def test_a_block_reads_as_it_was_written(fields: list[tuple[bytes, bytes]]) -> None:
    assert list(hpack.Decoder().decode(wire.pairs_block(fields), raw=True)) == fields


def test_the_fields_of_static_entries() -> None:
    block = (
        wire.TABLE_SIZE_ZERO + wire.method_field("GET") + wire.method_field("POST") + wire.method_field("PUT")
        + wire.SCHEME_HTTP + wire.path_field(b"/p") + wire.authority_field(b"h")
        + b"".join(wire.status_field(status) for status in (200, 204, 206, 304, 400, 404, 500, 503))
        + wire.lines_block([b"a: b", b"c:", b"d: e: f "])
    )  # fmt: skip
    told = [b"200", b"204", b"206", b"304", b"400", b"404", b"500", b"503"]
    assert list(hpack.Decoder().decode(block, raw=True)) == [
        (b":method", b"GET"), (b":method", b"POST"), (b":method", b"PUT"), (b":scheme", b"http"), (b":path", b"/p"),
        (b":authority", b"h"), *((b":status", status) for status in told), (b"a", b"b"), (b"c", b""), (b"d", b"e: f"),
    ]  # fmt: skip


@given(
    st.integers(0, 9),
    st.integers(0, 255),
    st.integers(0, 2**31 - 1),
    st.sampled_from([0, 1, 255, 65_536, 70_000]),
)
def test_a_frame_s_head_reads_as_it_was_written(kind: int, flags: int, stream: int, size: int) -> None:
    raw = wire.frame(kind, flags, stream, memoryview(bytes(size)))
    assert len(raw) == wire.FRAME_HEAD_BYTES + size
    assert wire.frame_head(b"ab" + raw, 2) == (size, kind, flags, stream)
    reserved = raw[:5] + bytes((raw[5] | 0x80,)) + raw[6:]
    assert wire.frame_head(reserved, 0) == (size, kind, flags, stream)


@pytest.mark.parametrize("size", [0, 16_384, 16_385, 50_000])
def test_a_block_of_any_size_in_frames(size: int) -> None:
    raw, block = wire.headers(5, b"b" * size, end=True), b""
    frames = []
    while raw:
        frame, length = Frame.parse_frame_header(memoryview(raw[:9]))
        frame.parse_body(memoryview(raw[9 : 9 + length]))
        frames.append(frame)
        block += frame.data
        raw = raw[9 + length :]
    assert block == b"b" * size
    assert isinstance(frames[0], HeadersFrame)
    assert "END_STREAM" in frames[0].flags
    assert ["END_HEADERS" in frame.flags for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert {frame.stream_id for frame in frames} == {5}


def test_padding() -> None:
    assert wire.without_padding(0, b"abc") == b"abc"
    assert wire.without_padding(wire.PADDED, b"\x02abc\0\0") == b"abc"
    assert wire.without_padding(wire.PADDED, b"\x00") == b""
    for payload in (b"", b"\x01", b"\x04abc"):
        with pytest.raises(Http2Error, match="padding"):
            wire.without_padding(wire.PADDED, payload)
