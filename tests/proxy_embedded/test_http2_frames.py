"""Frames and header blocks, judged by `hpack` and `hyperframe`."""

from contextlib import suppress

import hpack
import pytest
from hpack.hpack import decode_integer
from hyperframe.frame import Frame, HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded import http2_frames as wire
from proxy.embedded.http2_frames import BlockReader, Http2Error

names = st.sampled_from([b"x-a", b"accept", b"content-type", b"grpc-status", b":path", b"x" * 200])
values = st.one_of(st.sampled_from([b"", b"a", b"application/grpc"]), st.binary(max_size=40))
pairs = st.lists(st.tuples(names, values), max_size=12)


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


PIECES = st.one_of(
    st.sampled_from(
        [b"\x80", b"\x82", b"\xbd", b"\xbe", b"\xff", b"\x00", b"\x01", b"\x0e", b"\x0f", b"\x10", b"\x20"]
    ),
    st.sampled_from(
        [b"\x01a", b"\x7e" + b"b" * 126, b"\x7f\x00" + b"c" * 127, b"\x7f\x7f" + b"d" * 254, b"\x7f\x80\x01"]
    ),
    st.sampled_from([b"\x00\x01a\x01b", b"\x04\x02/p", b"\x81a", b"\x00\x00\x00", b"\x05\x03/"]),
    st.binary(max_size=6),
)


@given(st.lists(PIECES, max_size=8).map(b"".join), st.sampled_from([0, 60, 200, 1 << 20]))
def test_a_plain_block_reads_as_hpack_reads_it(block: bytes, list_bytes_max: int) -> None:
    plain = wire.read_plain(block, list_bytes_max)
    if plain is not None:
        decoder = hpack.Decoder(list_bytes_max)
        assert decoder.decode(block, raw=True) == plain
        assert len(decoder.header_table.dynamic_entries) == 0


@given(
    st.lists(st.tuples(names, st.binary(max_size=254).map(lambda value: value.strip(b" \t"))), max_size=12)
)
def test_what_is_written_here_needs_no_decoder(fields: list[tuple[bytes, bytes]]) -> None:
    fields = [(name, value) for name, value in fields if len(name) < 127]
    block = wire.method_field("POST") + wire.SCHEME_HTTP + wire.path_field(b"/p") + wire.pairs_block(fields)
    assert wire.read_plain(block, 1 << 20) == [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/p"), *fields
    ]  # fmt: skip
    assert wire.read_plain(block, sum(32 + len(n) + len(v) for n, v in fields) + 100) is None


@given(st.lists(pairs, min_size=1, max_size=12), st.lists(st.integers(0, 11), max_size=24))
def test_what_is_remembered_of_blocks_changes_no_meaning(
    lists: list[list[tuple[bytes, bytes]]], again: list[int]
) -> None:
    """A small table, so that entries go and come back under the same indices."""
    encoder, reader = hpack.Encoder(), BlockReader(1 << 20)
    encoder.header_table_size = 128
    for index in [*range(len(lists)), *again]:
        fields = lists[index % len(lists)]
        assert reader.read(encoder.encode(fields)) == fields


def test_a_block_that_only_refers_is_read_once() -> None:
    encoder, reader = hpack.Encoder(), BlockReader(4096)
    fields = [(b":method", b"POST"), (b"x-a", b"b")]
    first = reader.read(encoder.encode(fields))
    block = encoder.encode(fields)
    assert reader.read(block) == first
    assert reader.read(block) is reader.read(block)
    for number in range(wire.BLOCKS_REMEMBERED_MAX + 9):
        reader.read(
            b"\x10" + wire.pairs_block([(b"n", b"%d" % number)])[1:]
        )  # "never indexed": for hpack to read
    assert len(reader._known) == wire.BLOCKS_REMEMBERED_MAX


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"\x80", wire.COMPRESSION_ERROR),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", wire.COMPRESSION_ERROR),
        (b"\x00\x7f\xff", wire.COMPRESSION_ERROR),
        (b"\x40", wire.COMPRESSION_ERROR),
        (b"\x3f\xe2\x1f", wire.COMPRESSION_ERROR),  # a table larger than was offered
        (b"\x82\x20", wire.COMPRESSION_ERROR),  # its size changed after a field
        (wire.pairs_block([(b"x-a", b"y" * 900)] * 2), wire.ENHANCE_YOUR_CALM),
    ],
)
def test_blocks_that_end_the_connection(block: bytes, code: int) -> None:
    with pytest.raises(Http2Error) as caught:
        BlockReader(1024).read(block)
    assert caught.value.code == code


def test_few_bytes_cannot_stand_for_many() -> None:
    """An entry of 4 KiB, then a thousand references of a byte each."""
    block = b"\x40" + wire._text(b"x") + wire._text(b"y" * 3000) + b"\xbe" * 1000
    with pytest.raises(Http2Error, match="header list"):
        BlockReader(64 * 1024).read(block)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_list_or_an_error(block: bytes) -> None:
    with suppress(Http2Error):
        BlockReader(1024).read(block)


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
