"""Request identity: W3C Trace Context (`traceparent`, level 1) and `x-request-id`.

A hop keeps the trace id and flags of a valid `traceparent` and puts its own span id in. An invalid one starts a new
trace, and its `tracestate` is dropped with it (Trace Context, 4.3). A version above 00 is read as far as 00
goes and written as 00.

Invariant: what `continue_trace` returns is a valid version-00 `traceparent`; `x-forwarded-client-cert` is never forwarded,
for only the mesh itself may say whose certificate it saw.
"""

import random
import re
from typing import Final

from proxy.embedded.chunked import Pairs

REQUEST_ID_BYTES_MAX: Final = 256
_PARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-[\x21-\x7e]*)?"
)
_SAMPLED: Final = b"01"


def continue_trace(parent: bytes, bits: int) -> tuple[bytes, bytes] | None:
    """`(trace id, traceparent)` with the span id taken from `bits`; None when `parent` is invalid."""
    match = _PARENT.fullmatch(parent)
    if match is None or (match[3] is not None and parent[:2] == b"00"):
        return None
    trace_id = match[1]
    # Only the two flags of level 2 are passed on; others are not ours to vouch for.
    flags = match[2] if parent[:2] == b"00" else b"%02x" % (int(match[2], 16) & 0x03)
    return trace_id, b"00-%b-%016x-%b" % (trace_id, (bits & 0xFFFF_FFFF_FFFF_FFFF) or 1, flags)


def new_trace(bits: int) -> tuple[bytes, bytes]:
    """A fresh trace out of at least 192 random bits."""
    trace_id = b"%032x" % (((bits >> 64) & ((1 << 128) - 1)) or 1)
    return trace_id, b"00-%b-%016x-%b" % (trace_id, (bits & 0xFFFF_FFFF_FFFF_FFFF) or 1, _SAMPLED)


def new_request_id(rng: random.Random) -> bytes:
    """A random UUID (version 4). Not a secret, so the worker's generator will do."""
    text = f"{(rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62)) | (0x4 << 76) | (0x2 << 62):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}".encode()


def take_identity(headers: Pairs, rng: random.Random) -> tuple[bytes, bytes, bytes, Pairs]:
    """`(trace id, traceparent, request id, headers to forward)`: those without what this hop sets anew."""
    parents: list[bytes] = []
    request_id = b""
    seen = False
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
            seen = True
        elif name == b"x-request-id":
            seen = True
            if not request_id and len(value) <= REQUEST_ID_BYTES_MAX:
                request_id = value
        elif name == b"x-forwarded-client-cert":
            seen = True
    continued = continue_trace(parents[0], rng.getrandbits(64)) if len(parents) == 1 else None
    if continued is not None:
        trace_id, parent = continued
        dropped = _OWN
    else:
        trace_id, parent = new_trace(rng.getrandbits(192))
        dropped = _OWN_AND_STATE
    if seen or continued is None:
        headers = [pair for pair in headers if pair[0] not in dropped]
    return trace_id, parent, request_id or new_request_id(rng), headers


_OWN: Final = frozenset((b"traceparent", b"x-request-id", b"x-forwarded-client-cert"))
_OWN_AND_STATE: Final = _OWN | {b"tracestate"}
