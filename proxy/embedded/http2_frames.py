"""HTTP/2 frames and header blocks as bytes (RFC 9113, sections 4 and 6; RFC 7541).

Header blocks are written without a dynamic table: every field that no static entry holds is a literal, neither
indexed nor Huffman coded. On one host the bytes saved would cost more time than they are worth, and an encoder
without memory cannot be made to disagree with its decoder. Blocks are read with `hpack`; a block that changed
nothing in the decoder's table means the same when it comes again, and that is remembered (most calls of a gRPC
channel have a block of a few bytes which only refers to the table).

Invariant: a decoder holds at most `TABLE_BYTES_MAX` in its table, and gives out no list larger than it was made for.
"""

from functools import lru_cache
from typing import Final

import hpack
from hpack.table import HeaderTable

from proxy.embedded.chunked import Pairs

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES: Final = 9
FRAME_BYTES_MAX: Final = 16_384  # of a payload, unless the one who is to read it says more
MESH_FRAME_BYTES_MAX: Final = (
    64 * 1024
)  # what is asked for between hosts: a fourth of the work for a large body
WINDOW_MAX: Final = 2**31 - 1
TABLE_BYTES_MAX: Final = 4096
BLOCKS_REMEMBERED_MAX: Final = 64
REMEMBERED_BYTES_MAX: Final = 512  # of a block

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB

_STATUS_INDEX: Final = {200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}


class Http2Error(Exception):
    """The connection breaks the protocol or a bound; it ends with GOAWAY `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


# ---------------------------------------------------------------------------------------------- frames


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    head = b"%b%c%c%b" % (len(payload).to_bytes(3, "big"), kind, flags, stream.to_bytes(4, "big"))
    return b"".join((head, payload))


def settings(pairs: list[tuple[int, int]]) -> bytes:
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)
    return frame(SETTINGS, 0, 0, payload)


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def goaway(last_stream: int, code: int, reason: str = "") -> bytes:
    payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + reason.encode()[:128]
    return frame(GOAWAY, 0, 0, payload)


def headers(stream: int, block: bytes, *, end: bool) -> bytes:
    """HEADERS, with as many CONTINUATION as the block needs."""
    flags = END_STREAM if end else 0
    if len(block) <= FRAME_BYTES_MAX:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [block[at : at + FRAME_BYTES_MAX] for at in range(0, len(block), FRAME_BYTES_MAX)]
    frames = [frame(HEADERS, flags, stream, parts[0])]
    frames += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    frames.append(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))
    return b"".join(frames)


def without_padding(flags: int, payload: bytes) -> bytes:
    """Raises Http2Error when the padding is longer than what it pads."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


# ---------------------------------------------------------------------------------------------- writing blocks


def _integer(value: int, bits: int) -> bytes:
    """RFC 7541, 5.1, with zeros in front of the prefix."""
    ceiling = (1 << bits) - 1
    if value < ceiling:
        return bytes((value,))
    encoded = bytearray((ceiling,))
    value -= ceiling
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_LENGTHS: Final = tuple(_integer(length, 7) for length in range(256))


def _text(value: bytes) -> bytes:
    size = len(value)
    return (_LENGTHS[size] if size < 256 else _integer(size, 7)) + value


@lru_cache(maxsize=1024)
def _name(name: bytes) -> bytes:
    return b"\0" + _text(name)


def field(name: bytes, value: bytes) -> bytes:
    return _name(name) + _text(value)


def indexed_name(index: int, value: bytes) -> bytes:
    """A literal whose name is that of a static entry (`index` below 15)."""
    return bytes((index,)) + _text(value)


def lines_block(lines: list[bytes]) -> bytes:
    """The block of header lines as they stand in HTTP/1.1, "name: value"."""
    parts = []
    for line in lines:
        name, _, value = line.partition(b":")
        parts.append(_name(name))
        parts.append(_text(value.strip(b" \t")))
    return b"".join(parts)


def pairs_block(pairs: Pairs) -> bytes:
    return b"".join([_name(name) + _text(value.strip(b" \t")) for name, value in pairs])


def status_field(status: int) -> bytes:
    index = _STATUS_INDEX.get(status)
    return bytes((0x80 | index,)) if index is not None else indexed_name(8, b"%d" % status)


def method_field(method: str) -> bytes:
    if method == "GET":
        return b"\x82"
    return b"\x83" if method == "POST" else indexed_name(2, method.encode())


SCHEME_HTTP: Final = b"\x86"
TABLE_SIZE_ZERO: Final = (
    b"\x20"  # in front of the first block: what the peer allows can then never be too small
)


def path_field(path: bytes) -> bytes:
    return indexed_name(4, path)


def authority_field(authority: bytes) -> bytes:
    return indexed_name(1, authority)


# ---------------------------------------------------------------------------------------------- reading blocks


_STATIC: Final[tuple[tuple[bytes, bytes], ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)


def read_plain(block: bytes, list_bytes_max: int) -> Pairs | None:
    """The fields of a block that refers to nothing but the static table and spells the rest out, as those written above
    do: such a block leaves a decoder as it is, so none is needed. None: the decoder has to look."""
    pairs: Pairs = []
    at, size, room = 0, len(block), list_bytes_max
    try:
        while at < size:
            first = block[at]
            at += 1
            if first > 0x80:
                pair = _STATIC[first & 0x7F]
                pairs.append(pair)
                room -= len(pair[0]) + len(pair[1]) + 32
                continue
            if first == 0:
                length = block[at]
                at += 1
                if length > 126:
                    return None
                name = block[at : at + length]
                at += length
            elif first < 15:
                name = _STATIC[first][0]
            else:
                return None
            length = block[at]
            at += 1
            if length > 126:
                if length != 127 or block[at] > 127:
                    return None
                length += block[at]
                at += 1
            value = block[at : at + length]
            at += length
            pairs.append((name, value))
            room -= len(name) + length + 32
    except IndexError:
        return None
    return pairs if at == size and room >= 0 else None


class BlockReader:
    """One direction's decoder, and what it said of blocks that leave it as it is."""

    __slots__ = ("_decoder", "_known", "_list_bytes_max")

    def __init__(self, list_bytes_max: int) -> None:
        self._list_bytes_max = list_bytes_max
        self._decoder = hpack.Decoder(list_bytes_max)
        self._known: dict[bytes, Pairs] = {}

    def read(self, block: bytes) -> Pairs:
        """The list must not be changed: it may be given out again. Raises Http2Error, after which nothing can be read
        any more."""
        known = self._known.get(block)
        if known is not None:
            return known
        plain = read_plain(block, self._list_bytes_max)
        if plain is not None:
            return plain
        table = self._decoder.header_table
        size, count = table.maxsize, len(table.dynamic_entries)
        newest = table.dynamic_entries[0] if count else None
        try:
            pairs = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.OversizedHeaderListError:
            raise Http2Error(ENHANCE_YOUR_CALM, "header list too large") from None
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise Http2Error(COMPRESSION_ERROR, f"header block: {error}") from None
        entries = table.dynamic_entries
        # Entries come at the front and go at the back, and `newest` cannot be another one while it is held here.
        if table.maxsize != size or len(entries) != count or (count and entries[0] is not newest):
            self._known.clear()
        elif len(block) <= REMEMBERED_BYTES_MAX and len(self._known) < BLOCKS_REMEMBERED_MAX:
            self._known[block] = pairs
        return pairs
