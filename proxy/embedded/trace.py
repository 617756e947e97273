"""Request identity: W3C Trace Context (`traceparent`, level 1) and `x-request-id`.

A hop keeps the trace id and flags of a valid `traceparent` and puts its own span id in. An invalid one starts a new
trace, and its `tracestate` is dropped with it (Trace Context, 4.3). A version above 00 is read as far as 00
goes and written as 00.

Invariant: what `continue_trace` returns is a valid version-00 `traceparent`; `x-forwarded-client-cert` in
any spelling is never forwarded, for only the mesh itself may say whose certificate it saw.
"""

import random
import re
from binascii import hexlify
from collections.abc import Callable
from itertools import count
from typing import Final

from proxy.embedded.chunked import Pairs
from proxy.embedded.forwarded import FORWARDED_CERT_SPELLINGS

REQUEST_ID_BYTES_MAX: Final = 256
_PARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-[\x21-\x7e]*)?"
)


def continue_trace(parent: bytes, span: bytes) -> bytes | None:
    """The `traceparent` to send on, with the span id `span`; None when `parent` is invalid."""
    match = _PARENT.fullmatch(parent)
    if match is None:
        return None
    if parent[:2] == b"00":
        if match[3] is not None:
            return None
        flags = match[2]
    else:
        # Only the two flags known at level 2 are passed on; others are not ours to vouch for.
        flags = b"%02x" % (int(match[2], 16) & 0x03)
    return b"00-%b-%b-%b" % (match[1], span, flags)


def trace_id(traceparent: bytes) -> str:
    """Of a valid `traceparent`, for the log."""
    return traceparent[3:35].decode("latin-1")


class RequestIds:
    """Random version-4 UUIDs in look and uniqueness: a random prefix per worker, then a counter from a random start.

    A request id is no secret, and this takes a tenth of the time.
    """

    __slots__ = ("next",)

    def __init__(self, rng: random.Random) -> None:
        high = f"{rng.getrandbits(64) & ~0xF000 | 0x4000:016x}"
        clock = rng.getrandbits(14) | 0x8000
        made = f"{high[:8]}-{high[8:12]}-{high[12:]}-{clock:04x}-%012x".encode()
        # Of 48 bits the highest is free at first: there is no end to count to.
        self.next: Callable[[], bytes] = map(made.__mod__, count(rng.getrandbits(47))).__next__


def take_identity(headers: Pairs, rng: random.Random, ids: RequestIds) -> tuple[bytes, bytes, Pairs]:
    """`(traceparent, request id, headers to forward)`: those without what this hop sets anew."""
    fresh = hexlify((rng.getrandbits(192) | _NEVER_ZERO).to_bytes(24, "big"), b"-", -16)  # trace and span
    found = [pair for pair in headers if pair[0] in _OWN_AND_STATE]
    if not found:
        return b"00-%b-01" % fresh, ids.next(), headers
    parents: list[bytes] = []
    request_id = b""
    for name, value in found:
        if name == b"traceparent":
            parents.append(value.rstrip(b" \t"))
        elif name == b"x-request-id" and not request_id and len(value) <= REQUEST_ID_BYTES_MAX:
            request_id = value.rstrip(b" \t")
    parent = continue_trace(parents[0], fresh[33:]) if len(parents) == 1 else None
    if parent is not None:
        headers = [pair for pair in headers if pair[0] not in _OWN]
    else:
        parent = b"00-%b-01" % fresh
        headers = [pair for pair in headers if pair[0] not in _OWN_AND_STATE]
    return parent, request_id or ids.next(), headers


_NEVER_ZERO: Final = 1 << 191 | 1  # an id of zeros is invalid
_OWN: Final = frozenset((b"traceparent", b"x-request-id", *FORWARDED_CERT_SPELLINGS))
_OWN_AND_STATE: Final = _OWN | {b"tracestate"}
