"""HTTP/1.1 heads: read strictly, written canonically (RFC 9112, RFC 9110).

The connection finds the blank line itself and gives one whole head at a time to llhttp (through httptools), so it
always knows where a body begins; bodies never go through the parser. llhttp in strict mode already refuses
obsolete folding, bare LF or CR, control characters, blanks before a colon, `Content-Length` beside
`Transfer-Encoding`, and either of them twice. This module refuses what is left: versions other than 1.0 and 1.1,
transfer codings other than `chunked`, `Host` missing, repeated or malformed, user info and fragments in a target.

Only WebSocket is a protocol to change to. Any other, `h2c` above all, would carry requests past routes and policies, so
a request for it is answered in HTTP/1.1, as RFC 9110 (7.8) allows.

Invariant: a head that comes out of here has exactly one meaning, and no byte of it can end a line when written.
"""

import re
from typing import Final

import httptools

from proxy.embedded.chunked import Pairs
from proxy.embedded.field_lines import BLANKS, RequestLines, ResponseLines, steering_fields

HOP_BY_HOP: Final = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
        b"te", b"transfer-encoding", b"upgrade", b"http2-settings",
    )
)  # fmt: skip
IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
WEBSOCKET: Final = b"websocket"
UNTIL_CLOSE: Final = -1
CHUNKED: Final = -2
LENGTH_DIGITS_MAX: Final = 18  # of a request's body; in either version of HTTP
HEAD_BYTES_REMEMBERED: Final = 1024  # of each connection's last head

_STANDARD_TOKENS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b""))
# What `Connection` nearly always says, with the comma that joins repeated fields in front.
_PLAIN_CONNECTION: Final = {
    b",keep-alive": frozenset((b"keep-alive",)),
    b",close": frozenset((b"close",)),
    b",upgrade": frozenset((b"upgrade",)),
}
_NO_TOKENS: Final[frozenset[bytes]] = frozenset()
_HTTP_1_0: Final = b"HTTP/1.0"
_VERSIONS: Final = frozenset((b"HTTP/1.1", _HTTP_1_0))
_BODILESS: Final = frozenset((204, 304))
_NOBODY: Final = (
    object()
)  # to whom llhttp tells what it finds: it judges heads, and what they say is read here
_REQUEST_LINES: Final = RequestLines()
_RESPONSE_LINES: Final = ResponseLines()

# Host, body, whether the connection closes, what to upgrade to, whether `100` is expected, and the fields that
# `Connection` lists.
_Meaning = tuple[bytes, int, bool, bytes, bool, frozenset[bytes]]
# Body, its length as it was told, whether the connection stays, what it upgrades to, and the fields that are listed.
_ResponseMeaning = tuple[int, bytes, bool, bytes, frozenset[bytes]]
HOST_BYTES: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:[]%!$&'()*+;="
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#@]+)([/?].*)?", re.DOTALL)
_EARLY: Final = re.compile(rb"[A-Z][A-Z-]{0,31}(?: |$)")


class HeadError(ValueError):
    """A head that is refused; `status` says how. The connection is closed after the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Request:
    """A request's head. `headers` are the end-to-end ones without `host` and framing, names in lower case."""

    __slots__ = (
        "body", "connection_close", "expects", "headers", "host", "method", "minor", "target", "upgrade",
    )  # fmt: skip

    method: str
    target: bytes  # origin form, "*", or authority for CONNECT
    host: bytes
    headers: Pairs
    minor: int  # HTTP/1.<minor>
    body: int  # length in bytes, or CHUNKED
    connection_close: bool
    upgrade: bytes  # WEBSOCKET, or b"" when that was not asked for
    expects: bool

    def __repr__(self) -> str:
        return f"Request({self.method} {self.host.decode('latin-1')} {self.target[:80].decode('latin-1')})"


class Response:
    """A response's head. `body` is a length, CHUNKED or UNTIL_CLOSE; what the request was is already counted in."""

    __slots__ = ("body", "headers", "keep_alive", "length_told", "reason", "status", "upgrade")

    status: int
    reason: bytes
    headers: list[bytes]  # end-to-end lines, names in lower case
    body: int
    keep_alive: bool
    length_told: bytes  # Content-Length as the server wrote it, b"" without; a HEAD's answer may carry one
    upgrade: bytes

    def __repr__(self) -> str:
        return f"Response({self.status}, body={self.body})"


def looks_like_a_head(begin: bytes) -> bool:
    """Whether unfinished bytes can still become a request head; lets binary noise be refused at once."""
    return _EARLY.match(begin) is not None and begin.count(b"\n") == begin.count(b"\r\n")


class RequestReader:
    """Turns whole request heads into `Request`s; one per connection. The same head as before is the same `Request`:
    those are never changed."""

    __slots__ = ("_head", "_headers_max", "_meaning", "_parser", "_request", "_steering")

    def __init__(self) -> None:
        self._head = b""  # the last one, if it was short and left the parser where a message begins
        self._headers_max = 0
        self._request: Request
        self._parser = httptools.HttpRequestParser(_NOBODY)
        self._steering: list[bytes] = []  # the version and the lines that steered the connection last
        self._meaning: _Meaning = (b"", 0, False, b"", False, _NO_TOKENS)  # and what they came to

    def read(self, head: bytes, headers_max: int) -> Request:
        """`head` is everything up to and including the blank line. Raises HeadError."""
        if head == self._head and headers_max == self._headers_max:
            return self._request
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpRequestParser(_NOBODY)
        except httptools.HttpParserError as error:
            raise HeadError(400, str(error).strip() or "malformed request") from None
        lines = head.split(b"\r\n")
        if (
            len(lines) - 3 > headers_max
        ):  # beside the request line, the blank line, and what follows the last CRLF
            raise HeadError(431, f"more than {headers_max} header fields")
        parts = lines[0].split(b" ")
        if len(parts) != 3 or parts[2] not in _VERSIONS:
            raise HeadError(400, "not an HTTP/1.0 or HTTP/1.1 request line")
        method, target, version = parts
        headers: Pairs = []
        steering = [version]
        for line in lines[1:-2]:
            field = _REQUEST_LINES[line]
            if field is None:
                steering.append(line)
            else:
                headers.append(field)
        if steering != self._steering:  # on one connection it hardly ever changes
            self._meaning = _request_meaning(steering_fields(steering[1:]), version)
            self._steering = steering
        request = Request()
        request.method = method.decode()
        request.target = target
        request.minor = 0 if version == _HTTP_1_0 else 1
        request.host, body, request.connection_close, request.upgrade, request.expects, listed = self._meaning
        request.body = body
        request.headers = [pair for pair in headers if pair[0] not in listed] if listed else headers
        if body:
            self._parser = httptools.HttpRequestParser(
                _NOBODY
            )  # this one is waiting for a body it will not see
        if target[:1] != b"/":
            _take_target(request)
        elif b"#" in target:
            raise HeadError(400, "a fragment in the request target")
        if len(head) <= HEAD_BYTES_REMEMBERED and not (body or request.connection_close or request.upgrade):
            self._head, self._headers_max, self._request = head, headers_max, request
        return request


def _request_meaning(framing: Pairs, version: bytes) -> _Meaning:
    """What the fields that steer this connection say. Raises HeadError."""
    body = 0
    expects = False
    host: bytes | None = None
    upgrade = connection = b""
    for name, value in framing:
        if name == b"host":
            if host is not None:
                raise HeadError(400, "more than one Host")
            host = value
        elif name == b"content-length":
            if len(value) > LENGTH_DIGITS_MAX:
                raise HeadError(400, "a content-length beyond all measure")
            body = int(value)  # llhttp: digits only, and once
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or version == _HTTP_1_0:
                raise HeadError(400, "only the chunked transfer coding of HTTP/1.1 is supported")
            body = CHUNKED
        elif name == b"connection":
            connection += b"," + value
        elif name == b"upgrade":
            upgrade += b"," + value if upgrade else value
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise HeadError(417, "unknown expectation")
            expects = True
    tokens = _tokens(connection) if connection else _NO_TOKENS
    close = b"close" in tokens or (version == _HTTP_1_0 and b"keep-alive" not in tokens)
    to_websocket = b"upgrade" in tokens and version != _HTTP_1_0 and upgrade.lower() == WEBSOCKET
    if to_websocket and body:
        raise HeadError(400, "a body on a request to upgrade")
    if host is None:
        if version != _HTTP_1_0:
            raise HeadError(400, "no Host")
        host = b""
    elif host.translate(None, HOST_BYTES):
        raise HeadError(400, "malformed Host")
    return host, body, close, WEBSOCKET if to_websocket else b"", expects, tokens - _STANDARD_TOKENS


def _tokens(connection: bytes) -> frozenset[bytes]:
    lowered = connection.lower()
    if lowered in _PLAIN_CONNECTION:
        return _PLAIN_CONNECTION[lowered]
    return frozenset(token.strip(BLANKS) for token in lowered.split(b","))


def _take_target(request: Request) -> None:
    """Absolute form becomes origin form, its authority replacing Host (RFC 9112, 3.2.2)."""
    target = request.target
    if request.method == "CONNECT":
        if request.body:
            raise HeadError(400, "a body on CONNECT")
        if not target or target.translate(None, HOST_BYTES):
            raise HeadError(400, "malformed CONNECT target")
        return
    if target == b"*" and request.method == "OPTIONS":
        return
    match = _ABSOLUTE.fullmatch(target)
    if match is None or match[1].translate(None, HOST_BYTES) or b"#" in target:
        raise HeadError(400, "malformed request target")
    rest = match[2] or b"/"
    request.host = match[1]
    request.target = rest if rest[:1] == b"/" else b"/" + rest


class ResponseReader:
    """Turns whole response heads into `Response`s; one per upstream connection. As in `RequestReader`, the same head is
    the same `Response`."""

    __slots__ = ("_head", "_headers_max", "_meaning", "_parser", "_response", "_steering")

    def __init__(self) -> None:
        self._head = b""
        self._headers_max = 0
        self._response: Response
        self._parser = httptools.HttpResponseParser(_NOBODY)
        self._steering: list[bytes] = []  # the version and the lines that steered the connection last
        self._meaning: _ResponseMeaning = (UNTIL_CLOSE, b"", False, b"", _NO_TOKENS)  # and what they came to

    def read(self, head: bytes, headers_max: int, *, to_head: bool) -> Response:
        """`to_head`: the request was HEAD, so no body follows whatever the head says. Raises HeadError (502)."""
        if head == self._head and headers_max == self._headers_max and not to_head:
            return self._response
        parser = self._parser
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpResponseParser(_NOBODY)
        except httptools.HttpParserError as error:
            raise HeadError(502, f"malformed response: {error}") from None
        lines = head.split(b"\r\n")
        if len(lines) - 3 > headers_max:
            raise HeadError(502, f"more than {headers_max} header fields in the response")
        status_line = lines[0]
        version = status_line[:8]
        if version not in _VERSIONS:
            raise HeadError(502, "not an HTTP/1.0 or HTTP/1.1 response")
        status = parser.get_status_code()
        if status < 100:
            raise HeadError(502, f"status {status} in the response")
        headers: list[bytes] = []
        steering = [version]
        for line in lines[1:-2]:
            field = _RESPONSE_LINES[line]
            if field is None:
                steering.append(line)
            else:
                headers.append(field)
        if steering != self._steering:
            self._meaning = _response_meaning(steering_fields(steering[1:]), version)
            self._steering = steering
        response = Response()
        response.status = status
        response.reason = status_line[13:]
        body, response.length_told, response.keep_alive, response.upgrade, listed = self._meaning
        response.headers = (
            [line for line in headers if line.partition(b":")[0] not in listed] if listed else headers
        )
        if to_head or status in _BODILESS or status < 200:
            body = 0
        response.body = body
        if body or to_head or status < 200:
            self._parser = httptools.HttpResponseParser(_NOBODY)  # this one may be waiting for a body
        if len(head) <= HEAD_BYTES_REMEMBERED and status >= 200 and response.keep_alive and not to_head:
            self._head, self._headers_max, self._response = head, headers_max, response
        return response


def _response_meaning(framing: Pairs, version: bytes) -> _ResponseMeaning:
    """As `_request_meaning`."""
    body = UNTIL_CLOSE
    length_told = upgrade = connection = b""
    for name, value in framing:
        if name == b"content-length":
            length_told = value
            body = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise HeadError(502, "unsupported transfer coding in the response")
            body = CHUNKED
        elif name == b"connection":
            connection += b"," + value
        elif name == b"upgrade":
            upgrade = value
    tokens = _tokens(connection) if connection else _NO_TOKENS
    keep_alive = b"close" not in tokens and (version != _HTTP_1_0 or b"keep-alive" in tokens)
    return body, length_told, keep_alive, upgrade, tokens - _STANDARD_TOKENS
