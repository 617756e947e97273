"""What control process and worker say to each other, and how listening sockets travel.

Two socketpairs: a stream for frames (4-byte big-endian length, then msgpack `[kind, fields...]`), and one that
keeps message boundaries (SOCK_SEQPACKET) for sockets in SCM_RIGHTS. A socket is sent before the `Apply` that names
it, and both ends are on one machine, so it is already there when the worker reads that frame.

Invariant: a frame that is not one of these messages, or is longer than `FRAME_BYTES_MAX`, raises ProtocolError and
nothing else: the reader drops the channel, because two processes of one release that disagree are broken. Only
`drain` and its `outcome` are for ever: after an upgrade the control process says them to workers of the old release.
"""

import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from proxy.plane import Ejection, Series, SeriesDelta
from proxy.snapshot import SNAPSHOT_BYTES_MAX

FRAME_BYTES_MAX: Final = SNAPSHOT_BYTES_MAX + 64 * 1024
SOCKETS_PER_MESSAGE: Final = 64
_LENGTH: Final = struct.Struct(">I")


class ProtocolError(ValueError):
    """The other end of the channel speaks something else."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Serve this snapshot. `tokens` maps each listener's name to the socket it listens on; `groups` are those of its
    clusters, in their order, on the board that several workers share."""

    request: int
    snapshot: bytes
    tokens: tuple[tuple[str, int], ...]
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Drain:
    request: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The worker's loop runs and waits for a snapshot."""

    pid: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of the `Apply` or `Drain` numbered `request`: "" is success, else why nothing changed, and the keys of the
    policies that are at fault, where that is known."""

    request: int
    reason: str
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Telemetry since the last report; ejections and connections as they are. `met`: certificates (DER)."""

    series: list[tuple[Series, SeriesDelta]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    ejections: tuple[Ejection, ...] = ()
    connections: int = 0
    met: tuple[bytes, ...] = ()


Message = Apply | Drain | Started | Outcome | Report


def order_frame_bytes(
    snapshot_bytes: int, tokens: tuple[tuple[str, int], ...], groups: tuple[int, ...] = ()
) -> int:
    """At most how long the frame of an `Apply` gets, its length not counted."""
    return snapshot_bytes + len(encode_message(Apply(0xFFFF_FFFF, b"", tokens, groups)))


def encode_message(message: Message) -> bytes:
    """The frame, length included. Raises ProtocolError for one that the other end would have to refuse."""
    match message:
        case Apply():
            body: list[Any] = ["apply", message.request, message.snapshot, message.tokens, message.groups]
        case Drain():
            body = ["drain", message.request, message.timeout_s]
        case Started():
            body = ["started", message.pid]
        case Outcome():
            body = ["outcome", message.request, message.reason, message.policies]
        case Report():
            body = ["report", *_pack_report(message)]
    packed: bytes = msgpack.packb(body, use_bin_type=True)
    if len(packed) > FRAME_BYTES_MAX:
        raise ProtocolError(f"frame of {len(packed)} bytes, at most {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(packed)) + packed


def decode_message(data: bytes) -> Message:
    """Inverse of `encode_message`, without the length. Raises ProtocolError."""
    try:
        kind, *fields = msgpack.unpackb(data, raw=False, strict_map_key=False)
        match kind:
            case "apply":
                request, snapshot, tokens, groups = fields
                return Apply(
                    int(request),
                    bytes(snapshot),
                    tuple((str(name), int(token)) for name, token in tokens),
                    tuple(map(int, groups)),
                )
            case "drain":
                request, timeout_s = fields
                return Drain(int(request), float(timeout_s))
            case "started":
                return Started(int(*fields))
            case "outcome":
                request, reason, policies = fields
                return Outcome(int(request), str(reason), tuple(str(key) for key in policies))
            case "report":
                return _unpack_report(*fields)
            case _:
                raise ProtocolError(f"unknown message {kind!r}")
    except (ValueError, TypeError, AttributeError, OverflowError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not a message: {error}") from error


def _pack_report(report: Report) -> list[Any]:
    series = [
        [
            s.reporter, s.source_service, s.source_namespace, s.source_principal, s.destination_service,
            s.destination_namespace, s.destination_principal, s.protocol, s.code, s.flags, s.security, s.grpc_status,
            d.requests, d.duration_sum_ms, d.buckets, d.request_bytes, d.response_bytes,
        ]
        for s, d in report.series
    ]  # fmt: skip
    ejections = [[e.cluster, e.endpoint, e.node, e.reason, e.remaining_s, e.count] for e in report.ejections]
    return [series, report.counters, ejections, report.connections, report.met]


def _unpack_report(series: Any, counters: Any, ejections: Any, connections: Any, met: Any = ()) -> Report:
    return Report(
        [(Series(*row[:12]), SeriesDelta(*row[12:])) for row in series],
        {str(name): int(count) for name, count in counters.items()},
        tuple(
            Ejection(cluster=c, endpoint=e, node=n, reason=r, remaining_s=s, count=k)
            for c, e, n, r, s, k in ejections
        ),
        int(connections),
        tuple(bytes(der) for der in met),
    )


class FrameReader:
    """Cuts a stream into messages and hands each to `deliver`; with `skip`, frames that are none are passed over."""

    __slots__ = ("_buffer", "_deliver", "_skip")

    def __init__(self, deliver: Callable[[Message], None], *, skip: bool = False) -> None:
        self._buffer = bytearray()
        self._deliver = deliver
        self._skip = skip

    @property
    def unread(self) -> bytes:
        """What has come of a frame that is not complete."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> None:
        """Raises ProtocolError; messages before the broken one were delivered."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(f"frame of {length} bytes, at most {FRAME_BYTES_MAX}")
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            body = bytes(memoryview(buffer)[_LENGTH.size : end])
            del buffer[:end]
            try:
                message = decode_message(body)
            except ProtocolError:
                if self._skip:
                    continue
                raise
            self._deliver(message)


def send_sockets(channel: socket.socket, sockets: Iterable[tuple[int, socket.socket]]) -> None:
    """Pass sockets with their tokens. Blocks for as long as the channel's queue is full (`channel` has a timeout)."""
    batch = list(sockets)
    for start in range(0, len(batch), SOCKETS_PER_MESSAGE):
        part = batch[start : start + SOCKETS_PER_MESSAGE]
        payload = msgpack.packb([token for token, _ in part])
        socket.send_fds(channel, [payload], [sock.fileno() for _, sock in part])


def receive_sockets(channel: socket.socket) -> dict[int, socket.socket]:
    """Everything that has arrived, without waiting (`channel` is non-blocking). Raises ProtocolError."""
    received: dict[int, socket.socket] = {}
    while True:
        try:
            payload, fds, flags, _ = socket.recv_fds(channel, 8192, SOCKETS_PER_MESSAGE)
        except BlockingIOError:
            return received
        if not payload:
            return received
        sockets = [socket.socket(fileno=fd) for fd in fds]
        try:
            tokens = [int(token) for token in msgpack.unpackb(payload)]
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            tokens = []
            reason = f"no list of tokens: {error!r}"
        else:
            reason = "" if len(tokens) == len(sockets) else f"{len(sockets)} sockets for {len(tokens)} tokens"
        if reason or flags & socket.MSG_CTRUNC:
            for sock in (*sockets, *received.values()):
                sock.close()
            raise ProtocolError(f"sockets did not arrive whole: {reason or 'too many open files?'}")
        received.update(zip(tokens, sockets, strict=True))
