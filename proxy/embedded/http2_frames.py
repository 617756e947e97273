"""HTTP/2 frames, and header blocks to be sent, as bytes (RFC 9113, sections 4 and 6; RFC 7541).

Header blocks are written without a dynamic table: every field that no static entry holds is a literal, neither
indexed nor Huffman coded. On one host the bytes saved would cost more time than they are worth, and an encoder
without memory cannot be made to disagree with its decoder. Blocks that come are read by http2_blocks.py.

Invariant: a block written here reads the same whatever was written before.
"""

from functools import lru_cache
from struct import Struct
from typing import Final

from proxy.embedded.chunked import Pairs

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES: Final = 9
FRAME_BYTES_MAX: Final = 16_384  # of a payload, unless the one who is to read it says more
MESH_FRAME_BYTES_MAX: Final = (
    64 * 1024
)  # what is asked for between hosts: a fourth of the work for a large body
WINDOW_MAX: Final = 2**31 - 1
STREAM_MAX: Final = 2**31 - 1  # the bit above is not part of it (4.1)

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

_HEAD: Final = Struct(">BHBBL")  # a size of three bytes, the kind, flags, the stream
_pack_head, _unpack_head = _HEAD.pack, _HEAD.unpack_from

_STATUS_INDEX: Final = {200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}


class Http2Error(Exception):
    """The connection breaks the protocol or a bound; it ends with GOAWAY `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


# ---------------------------------------------------------------------------------------------- frames


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    size = len(payload)
    return _pack_head(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def frame_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """The frame's size, kind, flags and stream; `FRAME_HEAD_BYTES` of it must be there."""
    high, low, kind, flags, stream = _unpack_head(data, at)
    return high << 16 | low, kind, flags, stream & STREAM_MAX


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
