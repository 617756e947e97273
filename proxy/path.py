"""The one form in which a request path is routed, authorised and forwarded.

Policies compare strings, so two spellings of one resource must not differ. As Istio's DECODE_AND_MERGE_SLASHES,
`%2F`, `%5C` and `\\` become `/`, runs of slashes become one, dot segments are removed (RFC 3986 section 5.2.4;
above the root they vanish), and escapes are put into one form (section 6.2.2). Further than Istio, the escapes of
all characters that mean nothing special in a path are decoded (`%21` is `!`), not only of unreserved ones, and what
must not stand in a path unescaped is escaped. A path that still could mean something else to a server is refused.

One difference between servers remains. To some a segment ends where its parameters begin (`/a;v=1` is `/a`: Tomcat,
Jetty and what builds on them), to others `;` is a character like any other (nginx, Envoy, Node.js, Go). Which of them
an application is cannot be known here, so the path travels on as it is, and policies have to allow it in both readings
(`without_parameters`, authorize.py). Envoy and Istio compare the one reading, in which a DENY of `/a` misses `/a;v=1`.

Invariant: the result starts with `/`, holds no `//`, no backslash and no segment `.` or `..`, and normalising it
again changes nothing. Planes must forward this form, not the raw one: what was authorised is what the application
gets.
"""

import re
from typing import Final

PATH_BYTES_MAX: Final = 64 * 1024

# Already normal, the common case: segments of plain characters that do not start with a dot.
_NORMAL: Final = re.compile(r"/(?:[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*(?:/|\Z))*").fullmatch
# What a path may hold: no controls, no space, no query or fragment delimiter.
_ALLOWED: Final = re.compile(r"[^\x00-\x20?#\x7f\u0100-\U0010ffff]*").fullmatch
# Escapes, and what must not stand in a path unescaped (RFC 3986 section 3.3).
_ESCAPE: Final = re.compile(r"%(?:..?)?|[^A-Za-z0-9_.~!$&'()*+,=:@;/\\%-]", re.DOTALL)
_SLASHES: Final = re.compile(r"/{2,}")
_PARAMETERS: Final = re.compile(r";[^/]*")
# Decoded: unreserved characters, and delimiters that delimit nothing in a path. Not `;`, which begins parameters.
_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}").fullmatch


class _RefusedError(Exception):
    """Inside this module only: an escape that no path may hold."""


def normalise_path(raw: str) -> str | None:
    """The canonical form of a request's path (without its query), or None: answer 400.

    `raw` is the path's bytes decoded as Latin-1. Refused: not starting with a slash, controls, `?`, `#`, broken
    escapes, `%00`, and dot segments with parameters (`..;x`), which some servers resolve.
    """
    if _NORMAL(raw) is not None:
        return raw
    if len(raw) > PATH_BYTES_MAX or not raw.startswith(("/", "\\", "%2f", "%2F", "%5c", "%5C")):
        return None
    if _ALLOWED(raw) is None:
        return None
    try:
        path = _ESCAPE.sub(_canonical_escape, raw)
    except _RefusedError:
        return None
    return _without_dot_segments(_SLASHES.sub("/", path.replace("\\", "/")))


def without_parameters(path: str) -> str:
    """A normal path as servers read it that take `;` for the beginning of a segment's parameters. Normal again."""
    return _SLASHES.sub("/", _PARAMETERS.sub("", path))


def _canonical_escape(match: re.Match[str]) -> str:
    text = match.group()
    if text[0] != "%":
        return f"%{ord(text):02X}"
    digits = text[1:]
    if _HEX(digits) is None:
        raise _RefusedError
    byte = int(digits, 16)
    if byte == 0:
        raise _RefusedError
    character = chr(byte)
    if character in _PLAIN:
        return character
    if character in "/\\":
        return "/"
    return f"%{byte:02X}"


def _without_dot_segments(path: str) -> str | None:
    segments: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            if segments:
                segments.pop()
        elif part != ".":
            if part.partition(";")[0] in {".", ".."}:
                return None
            segments.append(part)
    if parts[-1] in {".", ".."} and segments:
        segments.append("")
    return "/" + "/".join(segments)
