"""Header blocks that came, judged by `hpack`: what is remembered must change no meaning."""

from collections.abc import Sequence
from contextlib import suppress

import hpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.embedded import http2_blocks as blocks
from proxy.embedded import http2_frames as wire
from proxy.embedded.http2_blocks import BlockReader
from proxy.embedded.http2_frames import Http2Error

ROOMY = 1 << 20
names = st.sampled_from([b"x-a", b"accept", b"content-type", b"grpc-status", b":path", b"x" * 200])
values = st.one_of(st.sampled_from([b"", b"a", b"application/grpc"]), st.binary(max_size=40))
fields = st.lists(st.tuples(names, values), max_size=12)


def coded(text: bytes) -> bytes:
    """In Huffman's code."""
    raw = hpack.Encoder().huffman_coder.encode(text)
    return bytes((0x80 | len(raw),)) + raw


def _written(size: int, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = size
    return encoder.encode(fields)


REPRESENTATIONS = st.sampled_from(
    [
        b"\x80", b"\x82", b"\x88", b"\xbd", b"\xbe", b"\xbf", b"\xc0", b"\xff", b"\xff\x00", b"\xff\x80\x01",
        b"\xff\xff\xff\xff\xff\x00", b"\xff\xff\xff\xff\xff\xff\x00", b"\x00", b"\x04", b"\x0e", b"\x0f\x00",
        b"\x0f\x2f", b"\x0f\x30", b"\x10", b"\x14", b"\x1f\x2f", b"\x40", b"\x44", b"\x7e", b"\x7f\x00", b"\x7f\x01",
        b"\x20", b"\x30", b"\x3f\x00", b"\x3f\x45", b"\x3f\x80\x00", b"\x3f\xe1\x1f", b"\x3f\xe2\x1f",
    ]
)  # fmt: skip
STRINGS = st.sampled_from(
    [
        b"\x00", b"\x01a", b"\x02ab", b"\x7e" + b"b" * 126, b"\x7f\x00" + b"c" * 127, b"\x7f\x7f" + b"d" * 254,
        b"\x7f\x80\x01", b"\x80", b"\x81a", b"\x81\xff", b"\x84\xff\xff\xff\xff", coded(b"a"), coded(b"Mon, 23 Nov"),
        b"\xff\x00" + b"\x1c" * 127, b"\x7f\x80\x80\x80\x80\x00" + b"e" * 127,
        b"\x7f\x80\x80\x80\x80\x80\x00" + b"f" * 127,
    ]
)  # fmt: skip
LITERALS = st.builds(
    lambda first, name, value: first + (name if first in {b"\x00", b"\x10", b"\x40"} else b"") + value,
    st.sampled_from([b"\x00", b"\x10", b"\x40", b"\x41", b"\x5f", b"\x04", b"\x14", b"\x7e", b"\x0f\x2f"]),
    STRINGS,
    STRINGS,
)
BLOCKS = st.one_of(
    st.lists(LITERALS, max_size=4).map(b"".join),
    st.lists(st.one_of(LITERALS, REPRESENTATIONS), max_size=6).map(b"".join),
    st.lists(st.one_of(REPRESENTATIONS, STRINGS, st.binary(max_size=3)), max_size=8).map(b"".join),
    st.builds(_written, st.sampled_from([0, 40, 128, 300, 4096]), fields),
)


def _judged(judge: hpack.Decoder, block: bytes) -> list[tuple[bytes, bytes]] | int:
    """What the plain decoder makes of a block: its fields, or the code the connection ends with."""
    try:
        return [(bytes(name), bytes(value)) for name, value in judge.decode(block, raw=True)]
    except hpack.OversizedHeaderListError:
        return wire.ENHANCE_YOUR_CALM
    except (hpack.HPACKError, IndexError):
        return wire.COMPRESSION_ERROR


def _read(reader: BlockReader, block: bytes) -> list[tuple[bytes, bytes]] | int:
    try:
        return list(reader.read(block).pairs)
    except Http2Error as error:
        return error.code


def _agree(reader: BlockReader, judge: hpack.Decoder, sent: Sequence[bytes]) -> None:
    for block in sent:
        told = _read(reader, block)
        assert told == _judged(judge, block)
        if isinstance(told, int):
            return
        table = judge.header_table
        assert list(reader._table) == list(table.dynamic_entries)
        assert (reader._table_bytes, reader._table_bytes_max) == (table._current_size, table.maxsize)


@given(
    st.lists(BLOCKS, min_size=1, max_size=6),
    st.lists(st.integers(0, 5), max_size=24),
    st.sampled_from([0, 60, 200, ROOMY]),
)
@example([b"\x3f\x45\x40\x01a\x01b", b"\x40\x01a\x7e" + b"c" * 126, b"\xbe"], [1, 1, 1, 2], ROOMY)
def test_any_blocks_in_any_order_mean_what_a_plain_decoder_says(
    known: list[bytes], order: list[int], list_bytes_max: int
) -> None:
    """Those that are remembered as well, and the table is the same after each of them."""
    sent = [*known, *(known[index % len(known)] for index in order)]
    _agree(BlockReader(list_bytes_max), hpack.Decoder(list_bytes_max), sent)


@given(
    st.lists(fields, min_size=1, max_size=12),
    st.lists(st.integers(0, 11), max_size=48),
    st.sampled_from([128, 4096]),
)
def test_what_an_encoder_writes_means_what_it_was_given(
    lists: list[list[tuple[bytes, bytes]]], again: list[int], table_bytes: int
) -> None:
    """In a small table entries go and come back under the same indices."""
    encoder, reader, judge = hpack.Encoder(), BlockReader(ROOMY), hpack.Decoder(ROOMY)
    encoder.header_table_size = table_bytes
    for index in [*range(len(lists)), *again]:
        block = encoder.encode(lists[index % len(lists)])
        _agree(reader, judge, [block])
        assert list(reader._table) == list(encoder.header_table.dynamic_entries)


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4]), max_size=60))
def test_blocks_that_add_the_same_entries_again_and_again(order: list[int]) -> None:
    """As an application answers that writes every field as a new entry."""
    lists = [
        [b"\x76" + coded(b"nginx"), b"\x61" + coded(b"Mon, 23 Nov 2026 16:10:0%d GMT" % n)] for n in (1, 2)
    ]
    each = [b"".join(parts) for parts in lists] + [
        b"\xbe\xbf",
        b"\x88\xc0",
        b"\x40\x01n" + b"\x7e" + b"v" * 126,
    ]
    start = [b"\x88" + b"".join(lists[0])]
    _agree(BlockReader(ROOMY), hpack.Decoder(ROOMY), start + [each[index] for index in order])


def known(reader: BlockReader, block: bytes) -> bool:
    """Whether the block is remembered by now."""
    first = reader.read(block)
    return reader.read(block) is first


def test_a_block_is_remembered_from_the_second_time_on() -> None:
    reader, block = BlockReader(4096), b"\x83" + wire.pairs_block([(b"x-a", b"b")])
    first, second, third = (reader.read(block) for _ in range(3))
    assert first.pairs == second.pairs == third.pairs == [(b":method", b"POST"), (b"x-a", b"b")]
    assert first is not second
    assert second is third


def test_a_block_that_refers_to_the_table_is_read_anew_when_that_has_changed() -> None:
    reader = BlockReader(4096)
    reader.read(b"\x40\x01a\x01b")
    assert known(reader, b"\xbe") is False
    assert known(reader, b"\xbe") is True
    reader.read(b"\x40\x01c\x01d")
    assert reader.read(b"\xbe").pairs == [(b"c", b"d")]
    assert not any(known(reader, b"\xbe\x40\x01e\x01f") for _ in range(3))
    assert len(reader._known) == 1


def test_what_is_never_to_be_indexed_is_not_remembered() -> None:
    reader = BlockReader(4096)
    block = b"\x10" + coded(b"authorization") + coded(b"secret") + b"\x40" + coded(b"x-a") + coded(b"shown")
    for _ in range(3):
        assert known(reader, block) is False
    assert sorted(reader._strings.values()) == [b"authorization", b"shown", b"x-a"]
    assert not reader._known
    assert not reader._seen


def test_what_is_remembered_is_bounded() -> None:
    reader = BlockReader(ROOMY)
    for number in range(400):
        block = wire.pairs_block([(b"x-a", b"%0100d" % number)] * 3)
        assert not known(reader, block)
        assert known(reader, block)
        assert 0 < reader._remembered_bytes <= blocks.REMEMBERED_BYTES_MAX
        held = sum(
            len(block) + sum(len(n) + len(v) + blocks.FIELD_BYTES for n, v in each.pairs)
            for block, each in reader._known.items()
        )
        assert held == reader._remembered_bytes
        reader.read(wire.pairs_block([(b"x-b", b"%d" % number)]))
        assert len(reader._seen) <= blocks.SEEN_MAX
    large = wire.pairs_block([(b"x-a", b"a" * blocks.BLOCK_BYTES_MAX)])
    assert not any(known(reader, large) for _ in range(3))


def test_few_bytes_are_not_remembered_for_many() -> None:
    """A block of 200 bytes that stands for 25 KB."""
    reader = BlockReader(ROOMY)
    reader.read(b"\x40\x01a\x7e" + b"b" * 126)
    assert not any(known(reader, b"\xbe" * 200) for _ in range(3))
    assert reader._remembered_bytes == 0


def test_remembered_strings_are_bounded() -> None:
    reader = BlockReader(ROOMY)
    for number in range(3 * blocks.STRINGS_MAX):
        reader.read(b"\x00\x01a" + coded(b"%d" % number))
        assert 0 < len(reader._strings) <= blocks.STRINGS_MAX
    raw = b"\x1c" * (blocks.STRING_BYTES_MAX + 1)  # longer than is kept
    reader.read(b"\x00\x01a\xff" + bytes((len(raw) - 127 + 128, 0)) + raw)
    assert raw not in reader._strings


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"\x80", wire.COMPRESSION_ERROR),
        (b"\xbe", wire.COMPRESSION_ERROR),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", wire.COMPRESSION_ERROR),
        (b"\x00\x01a\x7f\x80\x80\x80\x80\x80\x00" + b"b" * 127, wire.COMPRESSION_ERROR),  # six bytes for 127
        (b"\x00\x7f\xff", wire.COMPRESSION_ERROR),
        (b"\x00\x01a\x02b", wire.COMPRESSION_ERROR),
        (b"\x40", wire.COMPRESSION_ERROR),
        (b"\x3f\xe2\x1f", wire.COMPRESSION_ERROR),  # a table larger than was offered
        (b"\x82\x20", wire.COMPRESSION_ERROR),  # its size changed after a field
        (b"\x00\x01a\x81\x00", wire.COMPRESSION_ERROR),  # no code of Huffman's
        (wire.pairs_block([(b"x-a", b"y" * 900)] * 2), wire.ENHANCE_YOUR_CALM),
    ],
)
def test_blocks_that_end_the_connection(block: bytes, code: int) -> None:
    with pytest.raises(Http2Error) as caught:
        BlockReader(1024).read(block)
    assert caught.value.code == code


def test_index_0_is_none_in_a_full_table_either() -> None:
    reader = BlockReader(ROOMY)
    reader.read(b"\x40\x01a\x01b" * 100)
    with pytest.raises(Http2Error, match="index 0"):
        reader.read(b"\x80")


def test_few_bytes_cannot_stand_for_many() -> None:
    """An entry of 4 KiB, then a thousand references of a byte each."""
    block = b"\x40" + wire._text(b"x") + wire._text(b"y" * 3000) + b"\xbe" * 1000
    with pytest.raises(Http2Error, match="header list"):
        BlockReader(64 * 1024).read(block)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_list_or_an_error(block: bytes) -> None:
    with suppress(Http2Error):
        BlockReader(1024).read(block)
