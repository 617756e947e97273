"""HTTP/1.1 heads as they are written, and the header filters of routes.

Heads are built with joins of what the reader produced: names in lower case, values without line breaks (llhttp
refused them), framing of our own. `HeaderView` shows the same fields to the decision modules without building a
dictionary for the many requests no rule looks into.

Invariant: nothing is written that the reader, `compile_edit` or this module has not made sure is free of CR, LF and
NUL.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from proxy.embedded.chunked import Pairs
from proxy.embedded.forwarded import FORWARDED_CERT_SPELLINGS
from proxy.embedded.http1 import CHUNKED, HOP_BY_HOP, Request
from proxy.snapshot import HeaderEdit

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Fields a filter must not touch: framing and the identity the mesh vouches for.
_UNTOUCHABLE: Final = HOP_BY_HOP | {b"content-length", b"host"} | FORWARDED_CERT_SPELLINGS
_LENGTH_EXPECTED: Final = frozenset(("POST", "PUT", "PATCH"))

_REASONS: Final = {
    200: b"OK", 204: b"No Content", 301: b"Moved Permanently", 302: b"Found", 303: b"See Other",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 417: b"Expectation Failed",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 502: b"Bad Gateway",
    503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip


_line: Final = b": ".join  # of a pair


class HeaderView(Mapping[str, str]):
    """Headers as the decision modules read them: names in lower case, repeated ones joined with commas.

    Of what steers the connection, and so is not in `pairs`, they see an upgrade, an expectation, and a length above 0.
    """

    __slots__ = ("_host", "_joined", "_pairs", "_request")

    def __init__(self, pairs: Pairs, host: bytes, request: Request) -> None:
        self._pairs = pairs
        self._host = host
        self._request = request
        self._joined: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        joined = self._joined
        if joined is None:
            joined = self._joined = {"host": self._host.decode("latin-1")}
            for raw_name, raw_value in self._pairs:
                name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").rstrip(" \t")
                joined[name] = f"{joined[name]},{value}" if name in joined else value
            request = self._request
            if request.upgrade:
                joined["upgrade"] = request.upgrade.decode("latin-1")
            if request.expects:
                joined["expect"] = "100-continue"
            if request.body > 0:
                joined["content-length"] = str(request.body)
        return joined

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class CompiledEdit:
    """A `HeaderEdit` on bytes."""

    __slots__ = ("_add", "_dropped", "_removed", "_set")

    def __init__(self, edit: HeaderEdit) -> None:
        self._set = [_checked(name, value) for name, value in edit.set]
        self._add = [_checked(name, value) for name, value in edit.add]
        self._removed = frozenset(_checked(name, "")[0] for name in edit.remove)
        self._dropped = frozenset(name for name, _ in self._set) | self._removed

    def apply_to_lines(self, lines: list[bytes]) -> list[bytes]:
        """As `apply`, for a response's headers."""
        pairs = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        return [name + b": " + value for name, value in self.apply(pairs)]

    def apply(self, headers: Pairs) -> Pairs:
        """Set, then add, then remove."""
        kept = [pair for pair in headers if pair[0] not in self._dropped]
        return kept + [pair for pair in (*self._set, *self._add) if pair[0] not in self._removed]


@lru_cache(maxsize=4096)
def compile_edit(edit: HeaderEdit) -> CompiledEdit:
    """Raises ValueError for a name or value that is none, or a field filters must not touch."""
    return CompiledEdit(edit)


def _checked(name: str, value: str) -> tuple[bytes, bytes]:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"header filter for {name!r} holds characters a header cannot")
    raw = name.lower().encode()
    if raw in _UNTOUCHABLE:
        raise ValueError(f"header filters must not change {name!r}")
    return raw, value.encode("latin-1")


def request_head(request: Request, target: bytes, host: bytes, headers: Pairs, extra: bytes) -> bytes:
    """`request` with another target, host and headers; `extra` is whole lines (with CRLF) that follow these."""
    method = request.method
    lines = b"\r\n".join([*map(_line, headers), b""])
    framing = (
        b""
        if method == "GET" and not (request.body or request.upgrade or request.expects)
        else _framing(request)
    )
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b%b\r\n" % (
        method.encode(), target, host, lines, extra, framing
    )  # fmt: skip


def _framing(request: Request) -> bytes:
    """The lines that say what follows the head."""
    expect = b"expect: 100-continue\r\n" if request.expects else b""
    if request.body > 0:
        return expect + b"content-length: %d\r\n" % request.body
    if request.body == CHUNKED:
        return expect + b"transfer-encoding: chunked\r\n"
    if request.upgrade:
        return expect + b"connection: upgrade\r\nupgrade: %b\r\n" % request.upgrade
    if request.method in _LENGTH_EXPECTED:
        return expect + b"content-length: 0\r\n"
    return expect


def response_head(
    status: int, reason: bytes, headers: list[bytes], framing: bytes, body: bytes = b""
) -> bytes:
    """`framing` is whole lines (with CRLF): length or coding, and what becomes of the connection. `body` is what of it
    goes along."""
    return b"\r\n".join((b"HTTP/1.1 %d %b" % (status, reason), *headers, framing, body))


def reason_of(status: int) -> bytes:
    """The phrase that stands for a status which came without one."""
    return _REASONS.get(status, b"")


def own_body(message: str) -> bytes:
    """What an answer of the mesh itself says: one line of plain text, or nothing."""
    return message.encode("utf-8", "replace") + b"\n" if message else b""


def own_lines(body: bytes, headers: Pairs) -> list[bytes]:
    """The header lines of an answer of the mesh itself."""
    lines = [b"server: gossamer", *(name + b": " + value for name, value in headers)]
    if body:
        lines.append(b"content-type: text/plain; charset=utf-8")
    return lines


def own_response(status: int, message: str, *, keep: bytes, headers: Pairs, to_head: bool) -> bytes:
    """A whole answer of the mesh itself, head and one line of plain text, in one piece. `keep` is the framing's
    connection line (with CRLF) or nothing."""
    body = own_body(message)
    lines = own_lines(body, headers)
    framing = b"content-length: %d\r\n%b" % (len(body), keep)
    head = response_head(status, reason_of(status), lines, framing)
    return head if to_head else head + body
