"""gRPC over HTTP: how the mesh says to a gRPC caller that it failed, and what a status means to the mesh.

A gRPC caller reads `grpc-status`, not the status of HTTP, so an answer of the mesh itself is a response of status 200
with trailers alone (gRPC over HTTP/2, "Trailers-Only"), mapped as grpc's document "HTTP to gRPC Status Code Mapping"
says. For passive health a status counts as the HTTP status it stands for, as Envoy counts it.

Invariant: `grpc-message` is percent-encoded, so no text can end a line or leave ASCII.
"""

from typing import Final

from proxy.embedded.chunked import Pairs

UNKNOWN: Final = 2
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
CONTENT_TYPE: Final = b"application/grpc"
_FROM_HTTP: Final = {
    400: INTERNAL, 401: 16, 403: 7, 404: 12, 429: UNAVAILABLE, 502: UNAVAILABLE, 503: UNAVAILABLE, 504: UNAVAILABLE,
}  # fmt: skip
# UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
_FAILURES: Final = frozenset((b"2", b"4", b"12", b"13", b"14", b"15"))
_LABELS: Final = {b"%d" % status: str(status) for status in range(17)}
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def is_grpc(headers: Pairs) -> bool:
    """Whether a request's content-type is gRPC's, in whatever encoding of messages."""
    for name, value in headers:
        if name == b"content-type":
            kind = value.lower()
            return kind.startswith(CONTENT_TYPE) and kind[16:17] in {b"", b"+", b";", b" ", b"\t"}
    return False


def status_of(http_status: int) -> int:
    return _FROM_HTTP.get(http_status, UNKNOWN)


def failure_headers(http_status: int, message: str) -> Pairs:
    """The fields that tell of a failure, in a head or as trailers."""
    told = b"".join(
        bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in message.encode("utf-8", "replace")
    )
    return [(b"grpc-status", b"%d" % status_of(http_status)), (b"grpc-message", told)]


def status_in_lines(lines: list[bytes]) -> bytes:
    """The `grpc-status` of a response's head; b"" without."""
    for line in lines:
        if line.startswith(b"grpc-status:"):
            return line[12:].strip(b" \t")
    return b""


def status_in_trailers(trailers: Pairs) -> bytes:
    for name, value in trailers:
        if name == b"grpc-status":
            return value
    return b""


def label_of(status: bytes) -> str:
    """For metrics, which an application must not be able to fill with names: 0 to 16, "" for anything else."""
    return _LABELS.get(status, "")


def is_failure(status: bytes) -> bool:
    """Whether it counts against the endpoint: those that stand for an HTTP status of 500 and more."""
    return status in _FAILURES
