"""Requests and responses as lists of HTTP/2 fields, read strictly (RFC 9113, sections 8.2, 8.3 and 8.1.1).

A request comes out as the same `Request` an HTTP/1.1 head gives, so that everything behind it decides alike, and with
nothing in it that an HTTP/1.1 head on the next hop could not carry: no field that steers a connection, no character
that ends a line, one authority, one path. What breaks a rule is refused for its stream alone.

Invariant: a `Request` or `Response` that comes out of here has exactly one meaning in either version of HTTP.
"""

import re
from typing import Final

from proxy.embedded.chunked import TRAILERS_REFUSED, Pairs
from proxy.embedded.heads import reason_of
from proxy.embedded.http1 import CHUNKED, HOP_BY_HOP, HOST_BYTES, LENGTH_DIGITS_MAX, Request, Response
from proxy.embedded.http2_blocks import Fields

_NAME_BYTES: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_VALUE_BYTES: Final = bytes(
    byte for byte in range(256) if byte == 9 or (byte >= 32 and byte != 127)
)  # no blanks around
_METHOD: Final = re.compile(rb"[A-Z][A-Z-]{0,31}")
_PATH: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")  # visible ASCII without "#"
_LENGTH: Final = re.compile(rb"[0-9]{1,%d}" % LENGTH_DIGITS_MAX)
_STATUS: Final = re.compile(rb"[1-9][0-9]{2}")  # above 599 as applications do, and HTTP/1.1 passes on
# Fields of a connection: an HTTP/2 message that has one is malformed (8.2.2).
_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_SET_APART: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"cookie"}


class Http2Response(Response):
    """A response that came in HTTP/2. `block` is the header block of it as it is, once that has been written."""

    __slots__ = ("block",)

    def __init__(self) -> None:
        self.block = b""


class MalformedError(ValueError):
    """A message that breaks the rules. Its stream is reset; `status` is how a request can be answered instead, or 0."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def request_of(fields: Fields, headers_max: int, *, end: bool) -> Request:
    """As `read_request`. What is remembered of a block includes the request it is, which must not be changed."""
    made = fields.request
    if made is not None and made[0] == headers_max and made[1] == end:
        return made[2]
    request = read_request(fields.pairs, headers_max, end=end)
    fields.request = headers_max, end, request
    return request


def response_of(fields: Fields, headers_max: int, *, to_head: bool, end: bool) -> Response:
    """As `read_response`, and with it as with a request."""
    made = fields.response
    if made is not None and made[0] == headers_max and made[1] == to_head and made[2] == end:
        return made[3]
    response = read_response(fields.pairs, headers_max, to_head=to_head, end=end)
    fields.response = headers_max, to_head, end, response
    return response


def trailers_of(fields: Fields, headers_max: int) -> Pairs:
    """As `read_trailers`, and with them as with a request."""
    made = fields.trailers
    if made is not None and made[0] == headers_max:
        return made[1]
    trailers = read_trailers(fields.pairs, headers_max)
    fields.trailers = headers_max, trailers
    return trailers


def read_request(fields: Pairs, headers_max: int, *, end: bool) -> Request:
    """`end`: no body follows. Raises MalformedError."""
    pseudo, regular = _split(fields, headers_max, _REQUEST_PSEUDO)
    request = Request()
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise MalformedError("no or malformed :method")
    request.method = method.decode()
    request.minor = 1
    request.connection_close = False
    request.upgrade = b""
    request.expects = False
    request.body = 0 if end else CHUNKED
    host: bytes | None = None
    length: bytes | None = None
    cookies: list[bytes] = []
    headers: Pairs = []
    for pair in regular:
        name, value = pair
        if name not in _SET_APART:
            headers.append(pair)
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"host":
            if host is not None:
                raise MalformedError("more than one host")
            host = value
        elif name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise MalformedError("malformed content-length")
            length = value
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise MalformedError("unknown expectation", 417)
            request.expects = True
        elif name == b"te" and value.lower() != b"trailers":
            raise MalformedError("te says more than trailers")
    if cookies:
        # 8.2.3. Without empty ones: a value that ended with the blank would be another one in HTTP/1.1.
        headers.append((b"cookie", b"; ".join(filter(None, cookies))))
    request.headers = headers
    if length is not None:
        if end and int(length):
            raise MalformedError("a content-length, and no body")
        if not end:
            request.body = int(length)
    authority = pseudo.get(b":authority")
    if authority is None:
        authority = host
    elif host is not None and host.lower() != authority.lower():
        raise MalformedError("host is not :authority")
    if not authority or authority.translate(None, HOST_BYTES):
        raise MalformedError("no or malformed :authority")
    request.host = authority
    if request.method == "CONNECT":
        raise MalformedError("CONNECT is not taken in HTTP/2", 405)
    if pseudo.get(b":scheme", b"").lower() not in {b"http", b"https"}:
        raise MalformedError("no or unknown :scheme")
    path = pseudo.get(b":path", b"")
    if not _PATH.fullmatch(path) and not (path == b"*" and request.method == "OPTIONS"):
        raise MalformedError("no or malformed :path")
    request.target = path
    return request


def read_response(fields: Pairs, headers_max: int, *, to_head: bool, end: bool) -> Response:
    """`to_head`: the request was HEAD; `end`: no body follows. Raises MalformedError."""
    pseudo, regular = _split(fields, headers_max, _RESPONSE_PSEUDO)
    status = pseudo.get(b":status", b"")
    if not _STATUS.fullmatch(status):
        raise MalformedError("no or malformed :status")
    response = Http2Response()
    response.status = code = int(status)
    if code == 101 or (end and code < 200):
        raise MalformedError(f"status {code} in HTTP/2, or at the end of a response")
    response.reason = reason_of(code)
    response.keep_alive = True
    response.upgrade = b""
    length: bytes | None = None
    lines: list[bytes] = []
    for name, value in regular:
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise MalformedError("malformed content-length")
            length = value
        elif name not in HOP_BY_HOP:
            lines.append(name + b": " + value)
    response.headers = lines
    response.length_told = length or b""
    if to_head or code in {204, 304} or code < 200 or end:
        response.body = 0
        if end and length and int(length) and not to_head and code not in {204, 304}:
            raise MalformedError("a content-length, and no body")
    else:
        response.body = CHUNKED if length is None else int(length)
    return response


def read_trailers(fields: Pairs, headers_max: int) -> Pairs:
    """What of them may travel on. Raises MalformedError."""
    _, regular = _split(fields, headers_max, frozenset())
    return [pair for pair in regular if pair[0] not in TRAILERS_REFUSED]


def _split(
    fields: Pairs, headers_max: int, pseudo_known: frozenset[bytes]
) -> tuple[dict[bytes, bytes], Pairs]:
    """Pseudo-header fields, and the others."""
    if len(fields) > headers_max:
        raise MalformedError(f"more than {headers_max} header fields", 431)
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] != b":":
            break
        if name in pseudo or name not in pseudo_known:
            raise MalformedError("pseudo-header field unknown, repeated or too late")
        pseudo[name] = value
    regular = fields[len(pseudo) :] if pseudo else fields
    # Each rule is asked of all fields at once: in most heads none is broken.
    values = [value for _, value in fields]
    if b"".join(values).translate(None, _VALUE_BYTES) or values != [value.strip(b" \t") for value in values]:
        culprit = next(
            name
            for name, value in fields
            if value.translate(None, _VALUE_BYTES) or value.strip(b" \t") != value
        )
        raise MalformedError(f"malformed value of {culprit[:40].decode('latin-1')!r}")
    names = [name for name, _ in regular]
    if b"".join(names).translate(None, _NAME_BYTES) or b"" in names:
        raise MalformedError("malformed field name, or a pseudo-header field too late")
    if not _CONNECTION_SPECIFIC.isdisjoint(names):
        culprit = next(name for name in names if name in _CONNECTION_SPECIFIC)
        raise MalformedError(f"{culprit.decode()} in HTTP/2")
    return pseudo, regular


_REQUEST_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path"))
_RESPONSE_PSEUDO: Final = frozenset((b":status",))
