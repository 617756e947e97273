"""Field lines of HTTP/1.1 heads, taken apart once.

What a client or a server says of itself hardly changes from one message to the next: `Host`, `Accept`, `Server`, for
a second even `Date`. So what a line comes to is remembered by the line itself, and most of a head costs one look-up for
each line. Lines that are long, that are another each time, or that may hold a secret are taken apart each time.

Invariant: a table holds at most LINES_MAX lines of at most LINE_BYTES_MAX bytes, and only lines of heads that llhttp
has accepted are looked up in it, so none holds a line break.
"""

from typing import Final

from proxy.embedded.chunked import Pairs

LINES_MAX: Final = 4096  # with LINE_BYTES_MAX some 2 MiB a table at most
LINE_BYTES_MAX: Final = 128
BLANKS: Final = b" \t"

# What steers a connection and goes no further.
STEERING: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"keep-alive",
     b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"http2-settings")
)  # fmt: skip
RESPONSE_STEERING: Final = STEERING - {b"host", b"expect"}
_FORGOTTEN: Final = frozenset(
    (b"traceparent", b"tracestate", b"x-request-id", b"authorization", b"proxy-authorization", b"cookie",
     b"set-cookie", b"x-api-key", b"x-auth-token", b"etag", b"location")
)  # fmt: skip


def take_apart(line: bytes) -> tuple[bytes, bytes]:
    """`(name in lower case, value)`, as llhttp reads them, and without the blanks that it leaves at a value's end."""
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(BLANKS)


class RequestLines(dict[bytes, tuple[bytes, bytes] | None]):
    """Name and value of what travels on; None for what steers this connection."""

    __slots__ = ()

    def __missing__(self, line: bytes) -> tuple[bytes, bytes] | None:
        pair = take_apart(line)
        field = None if pair[0] in STEERING else pair
        if _to_remember(pair[0], line):
            if len(self) >= LINES_MAX:
                self.clear()
            self[line] = field
        return field


class ResponseLines(dict[bytes, bytes | None]):
    """The line that travels on, its name in lower case; None for what steers this connection."""

    __slots__ = ()

    def __missing__(self, line: bytes) -> bytes | None:
        name, value = take_apart(line)
        field = None if name in RESPONSE_STEERING else name + b": " + value
        if _to_remember(name, line):
            if len(self) >= LINES_MAX:
                self.clear()
            self[line] = field
        return field


def _to_remember(name: bytes, line: bytes) -> bool:
    return len(line) <= LINE_BYTES_MAX and name not in _FORGOTTEN


def steering_fields(lines: list[bytes]) -> Pairs:
    """What those lines say for which a table has None."""
    return [take_apart(line) for line in lines]
