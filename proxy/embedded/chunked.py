"""The chunked transfer coding (RFC 9112, section 7.1), strictly.

The connection needs to know where a message ends inside what it has read, because the next request may follow, so
the decoder hands back what it did not use. Sizes are plain hexadecimal, lines end in CRLF, and an extension or a
trailer section is bounded: leniency in any of these is how requests are smuggled.

Invariant: fed the same bytes in any pieces, the payload, the trailers and the rest are the same.
"""

import re
from enum import Enum, auto
from typing import Final

from proxy.embedded.forwarded import FORWARDED_CERT_SPELLINGS

CHUNK_LINE_BYTES_MAX: Final = 1024  # size and extensions
TRAILER_BYTES_MAX: Final = 8 * 1024
TRAILERS_MAX: Final = 100  # as of a head, and in HTTP/2
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_EXTENSION: Final = rb"[ \t]*+;[ \t]*+%b(?:[ \t]*+=[ \t]*+(?:%b|%b))?+" % (_TOKEN, _TOKEN, _QUOTED)
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15}+)(?:%b)*+" % _EXTENSION)
_TRAILER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
# What a trailer must not carry: framing, routing, authentication, and what the mesh itself vouches for.
TRAILERS_REFUSED: Final = frozenset(
    (
        b"transfer-encoding", b"content-length", b"host", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade",
        b"authorization", b"proxy-authorization", b"proxy-connection", b"cookie", b"set-cookie", b"content-encoding",
        b"content-type", b"content-range", b"expect", b"cache-control", *FORWARDED_CERT_SPELLINGS,
    )
)  # fmt: skip

Pairs = list[tuple[bytes, bytes]]


class ChunkedError(ValueError):
    """The body breaks the coding. The connection cannot be used any further."""


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedDecoder:
    """`feed` bytes, get payload pieces. When `done`, `rest` is what belongs to the next message."""

    __slots__ = ("_held", "_left", "_state", "_trailer_bytes", "_trailers_seen", "rest", "trailers")

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._held = b""  # an incomplete line
        self._left = 0  # of the current chunk
        self._trailer_bytes = self._trailers_seen = 0
        self.trailers: Pairs = []
        self.rest = b""

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    def feed(self, data: bytes) -> list[bytes]:
        """Payload in order, without framing. Raises ChunkedError; nothing may be fed after that or after `done`."""
        pieces: list[bytes] = []
        if self._held:
            data = self._held + data
            self._held = b""
        at, size = 0, len(data)
        while at < size:
            if self._state is _State.DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = _State.DATA_END
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._hold(data[at:])
                return pieces
            self._line(data[at:end])
            at = end + 2
            if self._state is _State.DONE:
                self.rest = data[at:]
                return pieces
        return pieces

    def _hold(self, line: bytes) -> None:
        limit = {_State.DATA_END: 1, _State.SIZE: CHUNK_LINE_BYTES_MAX}.get(self._state, TRAILER_BYTES_MAX)
        if len(line) > limit or b"\n" in line or (self._state is _State.DATA_END and line != b"\r"):
            raise ChunkedError("chunk framing is broken or too long")
        self._held = line

    def _line(self, line: bytes) -> None:
        if self._state is _State.SIZE:
            match = _SIZE.fullmatch(line) if len(line) <= CHUNK_LINE_BYTES_MAX else None
            if match is None:
                raise ChunkedError("chunk size is no hexadecimal number")
            self._left = int(match[1], 16)
            self._state = _State.DATA if self._left else _State.TRAILERS
        elif self._state is _State.DATA_END:
            if line:
                raise ChunkedError("chunk is longer than its size")
            self._state = _State.SIZE
        elif not line:
            self._state = _State.DONE
        else:
            self._trailer(line)

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        match = _TRAILER.fullmatch(line)
        self._trailers_seen += 1
        if match is None or self._trailer_bytes > TRAILER_BYTES_MAX or self._trailers_seen > TRAILERS_MAX:
            raise ChunkedError("trailer section is malformed or too long")
        name = match[1].lower()
        if name not in TRAILERS_REFUSED:
            self.trailers.append((name, match[2].rstrip(b" \t")))


def encode_body(payload: bytes, complete: bool, trailers: Pairs) -> bytes:
    """The next of a body, and its end when `complete`. Nothing for nothing."""
    chunk = b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
    return chunk + encode_last_chunk(trailers) if complete else chunk


def encode_last_chunk(trailers: Pairs) -> bytes:
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n%b\r\n\r\n" % b"\r\n".join(b"%b: %b" % pair for pair in trailers)
