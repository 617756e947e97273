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

_FRAMING: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"keep-alive",
     b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"http2-settings")
)  # fmt: skip
_STANDARD_TOKENS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b""))
# What `Connection` nearly always says, with the comma that joins repeated fields in front.
_PLAIN_CONNECTION: Final = {
    b",keep-alive": frozenset((b"keep-alive",)),
    b",close": frozenset((b"close",)),
    b",upgrade": frozenset((b"upgrade",)),
}
_RESPONSE_FRAMING: Final = _FRAMING - {b"host", b"expect"}
_BLANKS: Final = b" \t"  # llhttp leaves them at the end of a value
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
    """Turns whole request heads into `Request`s; one per connection."""

    __slots__ = ("_framing", "_headers", "_parser", "_target")

    def __init__(self) -> None:
        self._framing: Pairs = []  # what steers this connection
        self._headers: Pairs = []  # what travels on
        self._target = b""
        self._parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _FRAMING:
            self._framing.append((name, value))
        else:
            self._headers.append((name, value))

    def read(self, head: bytes, headers_max: int) -> Request:
        """`head` is everything up to and including the blank line. Raises HeadError."""
        framing: Pairs = []
        headers: Pairs = []
        self._framing = framing
        self._headers = headers
        parser = self._parser
        request = Request()
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            raise HeadError(400, str(error).strip() or "malformed request") from None
        if len(headers) + len(framing) > headers_max:
            raise HeadError(431, f"more than {headers_max} header fields")
        request.method = method = parser.get_method().decode()
        request.target = target = self._target
        # One space each is enforced by position: the minor version is the 10th byte after method and target.
        version_at = len(method) + len(target) + 9
        if head[version_at - 7 : version_at] != b"HTTP/1.":
            raise HeadError(400, "not an HTTP/1.0 or HTTP/1.1 request line")
        request.minor = head[version_at] - 48
        request.connection_close = request.minor == 0
        request.headers = headers
        _take_framing(request, framing)
        if request.body != 0:
            self._parser = httptools.HttpRequestParser(self)  # this one is waiting for a body it will not see
        if target[:1] != b"/":
            _take_target(request)
        elif b"#" in target:
            raise HeadError(400, "a fragment in the request target")
        return request


def _take_framing(request: Request, framing: Pairs) -> None:
    """What the fields that steer this connection say."""
    request.body = 0
    request.upgrade = b""
    request.expects = False
    host: bytes | None = None
    upgrade = connection = b""
    for name, value in framing:
        if name == b"host":
            if host is not None:
                raise HeadError(400, "more than one Host")
            host = value.rstrip(_BLANKS)
        elif name == b"content-length":
            request.body = int(value)  # llhttp: digits only, once, below 2^64
        elif name == b"transfer-encoding":
            if value.rstrip(_BLANKS).lower() != b"chunked" or request.minor == 0:
                raise HeadError(400, "only the chunked transfer coding of HTTP/1.1 is supported")
            request.body = CHUNKED
        elif name == b"connection":
            connection += b"," + value
        elif name == b"upgrade":
            upgrade += b"," + value if upgrade else value
        elif name == b"expect":
            if value.rstrip(_BLANKS).lower() != b"100-continue":
                raise HeadError(417, "unknown expectation")
            request.expects = True
    if connection:
        _take_connection(request, connection, upgrade)
    if host is None:
        if request.minor:
            raise HeadError(400, "no Host")
        host = b""
    elif host.translate(None, HOST_BYTES):
        raise HeadError(400, "malformed Host")
    request.host = host


def _tokens(connection: bytes) -> frozenset[bytes]:
    lowered = connection.lower()
    if lowered in _PLAIN_CONNECTION:
        return _PLAIN_CONNECTION[lowered]
    return frozenset(token.strip(b" \t") for token in lowered.split(b","))


def _take_connection(request: Request, connection: bytes, upgrade: bytes) -> None:
    tokens = _tokens(connection)
    if b"close" in tokens:
        request.connection_close = True
    elif b"keep-alive" in tokens:
        request.connection_close = False
    if b"upgrade" in tokens and request.minor and upgrade.rstrip(_BLANKS).lower() == WEBSOCKET:
        if request.body:
            raise HeadError(400, "a body on a request to upgrade")
        request.upgrade = WEBSOCKET
    listed = tokens - _STANDARD_TOKENS
    if listed:
        request.headers = [pair for pair in request.headers if pair[0] not in listed]


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
    """Turns whole response heads into `Response`s; one per upstream connection."""

    __slots__ = ("_framing", "_headers", "_parser", "_reason")

    def __init__(self) -> None:
        self._framing: Pairs = []
        self._headers: list[bytes] = []
        self._reason = b""
        self._parser = httptools.HttpResponseParser(self)

    def on_status(self, reason: bytes) -> None:
        self._reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _RESPONSE_FRAMING:
            self._framing.append((name, value))
        else:
            self._headers.append(name + b": " + value)

    def read(self, head: bytes, headers_max: int, *, to_head: bool) -> Response:
        """`to_head`: the request was HEAD, so no body follows whatever the head says. Raises HeadError (502)."""
        framing: Pairs = []
        headers: list[bytes] = []
        self._framing = framing
        self._headers = headers
        self._reason = b""
        parser = self._parser
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpResponseParser(self)
        except httptools.HttpParserError as error:
            raise HeadError(502, f"malformed response: {error}") from None
        if len(headers) + len(framing) > headers_max:
            raise HeadError(502, f"more than {headers_max} header fields in the response")
        if head[:7] != b"HTTP/1." or head[7] not in b"01":
            raise HeadError(502, "not an HTTP/1.0 or HTTP/1.1 response")
        response = Response()
        response.status = status = parser.get_status_code()
        if status < 100:
            raise HeadError(502, f"status {status} in the response")
        response.reason = self._reason
        response.keep_alive = head[7] == 49
        response.headers = headers
        _take_response_framing(response, framing)
        if to_head or status in {204, 304} or status < 200:
            response.body = 0
        if response.body != 0 or to_head or status < 200:
            self._parser = httptools.HttpResponseParser(self)  # this one may be waiting for a body
        return response


def _take_response_framing(response: Response, framing: Pairs) -> None:
    response.body = UNTIL_CLOSE
    response.length_told = response.upgrade = connection = b""
    for name, value in framing:
        if name == b"content-length":
            response.length_told = value.rstrip(_BLANKS)
            response.body = int(value)
        elif name == b"transfer-encoding":
            if value.rstrip(_BLANKS).lower() != b"chunked":
                raise HeadError(502, "unsupported transfer coding in the response")
            response.body = CHUNKED
        elif name == b"connection":
            connection += b"," + value
        elif name == b"upgrade":
            response.upgrade = value.rstrip(_BLANKS)
    if connection:
        tokens = _tokens(connection)
        if b"close" in tokens:
            response.keep_alive = False
        elif b"keep-alive" in tokens:
            response.keep_alive = True
        listed = tokens - _STANDARD_TOKENS
        if listed:
            response.headers = [line for line in response.headers if line.partition(b":")[0] not in listed]
