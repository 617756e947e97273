"""One HTTP/2 connection, whichever side of it this is: frames in, frames out, streams between (RFC 9113).

`receive` takes whatever arrived and calls the hooks; streams that got something are told once for everything that
arrived together (`deliver`), so that a head and a short body travel on as one message. What is sent is written by
http2_sender.py; how often a peer may ask for nothing is for http2_patience.py to say.

Invariant: after an `Http2Error` nothing more is read, and every stream has been told.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Final

from proxy.embedded import http2_frames as wire
from proxy.embedded.http2_blocks import BlockReader, Fields
from proxy.embedded.http2_flow import MESH_STREAM_WINDOW, Flow
from proxy.embedded.http2_frames import FRAME_HEAD_BYTES, Http2Error, frame_head
from proxy.embedded.http2_patience import RESETS_MAX, RESETS_PER_S, Bucket
from proxy.embedded.http2_sender import CONNECTION_WINDOW, Sender

CONTINUATIONS_MAX: Final = 16  # of one block
# What a head that the other host took may grow to on its way: the overhead of each field (RFC 9113, 6.5.2), and those
# that are added. One that is too large must end its request, and never the connection that it shares with others.
MESH_HEADER_BYTES: Final = 16 * 1024
MESH_RESETS: Final = 3  # a host speaks for many callers, and some of them will go away


class Session(Sender):
    """Base of both roles: what is received."""

    __slots__ = (
        "_block", "_block_bytes", "_block_end", "_block_stream", "_buffer", "_continuations", "_greeted",
        "_now", "_reader", "_receivable", "_resets", "header_bytes_max", "peer_list_bytes_max",
    )  # fmt: skip

    def __init__(self, header_bytes_max: int, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._now = now
        self._receivable = CONNECTION_WINDOW
        self.header_bytes_max = header_bytes_max
        self.peer_list_bytes_max: int | None = None  # what the peer says that it takes of a head
        self._reader = BlockReader(header_bytes_max)
        self._greeted = False
        self._buffer = b""
        self._block: list[bytes] = []
        self._block_bytes = self._block_stream = self._continuations = 0
        self._block_end = False
        self._resets = Bucket(RESETS_MAX, RESETS_PER_S, now)

    def widen(self) -> None:
        """This is a connection between hosts, which requests of many callers share. To be called before `greet`."""
        self.stream_window = MESH_STREAM_WINDOW
        self.frame_bytes_max = wire.MESH_FRAME_BYTES_MAX
        self.header_bytes_max += MESH_HEADER_BYTES
        self._reader = BlockReader(self.header_bytes_max)
        self._resets = Bucket(MESH_RESETS * RESETS_MAX, MESH_RESETS * RESETS_PER_S, self._now)

    # ------------------------------------------------------------------ what a role does

    @abstractmethod
    def on_block(self, stream_id: int, fields: Fields, *, end: bool) -> None:
        """A whole header block. Raises Http2Error."""

    @abstractmethod
    def on_data(self, stream: Flow, body: bytes, *, end: bool) -> None: ...

    @abstractmethod
    def on_malformed(self, stream: Flow) -> None:
        """The body is not as long as was said."""

    @abstractmethod
    def deliver(self, stream: Flow) -> None:
        """Hand on what has come for this stream."""

    @abstractmethod
    def on_goaway(self, last: int) -> None: ...

    def on_ping_answered(self) -> None: ...

    def on_settings(self) -> None: ...

    def end(self, code: int) -> None:
        super().end(code)
        self._buffer = b""
        self._block.clear()

    # ------------------------------------------------------------------ receiving

    def receive(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at, size = 0, len(data)
        self._received = True
        try:
            while size - at >= FRAME_HEAD_BYTES:
                length, kind, flags, stream_id = frame_head(data, at)
                if length > self.frame_bytes_max:
                    raise Http2Error(wire.FRAME_SIZE_ERROR, "frame too large")
                end = at + FRAME_HEAD_BYTES + length
                if end > size:
                    break
                self._take(kind, flags, stream_id, data[at + FRAME_HEAD_BYTES : end])
                at = end
                if self.closed:
                    return
            self._buffer = data[at:]
            while self._touched:
                stream = next(iter(self._touched))
                del self._touched[stream]
                self.deliver(stream)
        except Http2Error as error:
            self.fail(error.code, error.reason)
        finally:
            self._received = False
        self.flush()

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block_stream and (kind != wire.CONTINUATION or stream_id != self._block_stream):
            raise Http2Error(wire.PROTOCOL_ERROR, "a header block was interrupted")
        if not self._greeted:
            if kind != wire.SETTINGS or flags & wire.ACK:
                raise Http2Error(wire.PROTOCOL_ERROR, "SETTINGS must come first")
            self._greeted = True
            self._nuisances.give(1.0)
        take = _TAKE.get(kind)
        if take is None:
            self.nuisance()  # unknown: ignored (4.1)
        else:
            take(self, flags, stream_id, payload)

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise Http2Error(wire.PROTOCOL_ERROR, "DATA without a stream")
        size = len(payload)
        self._receivable -= size
        if self._receivable < 0:
            raise Http2Error(wire.FLOW_CONTROL_ERROR, "more than the connection's window")
        if self._receivable <= CONNECTION_WINDOW // 2:
            # What a stream may hold is bounded by its own window: this one only keeps streams from each other.
            self.write(wire.window_update(0, CONNECTION_WINDOW - self._receivable))
            self._receivable = CONNECTION_WINDOW
        body = wire.without_padding(flags, payload)
        end = bool(flags & wire.END_STREAM)
        stream = self.streams.get(stream_id)
        if stream is None:
            self._for_nobody(stream_id)
            return
        if stream.remote_done:
            self._break(stream, wire.STREAM_CLOSED)
            return
        if not body and not end:
            self.nuisance()
        code = stream.take(size, len(body), end=end)
        if code == wire.FLOW_CONTROL_ERROR:
            self._break(stream, code)
        elif code:
            self.count_reset()
            self.on_malformed(stream)
        else:
            stream.remote_done = end
            self.on_data(stream, body, end=end)
            self._touched[stream] = None

    def _for_nobody(self, stream_id: int) -> None:
        """A frame for a stream that is over, or never was."""
        if stream_id not in self._we_reset:
            self._not_idle(stream_id)
            raise Http2Error(wire.STREAM_CLOSED, "a frame after the end of its stream")
        self.nuisance()

    def _not_idle(self, stream_id: int) -> None:
        if stream_id > self.top:
            raise Http2Error(wire.PROTOCOL_ERROR, "a frame for a stream that was never begun")

    def count_reset(self) -> None:
        """The peer ends a stream, or makes it end. Raises Http2Error when there have been too many."""
        if not self._resets.take():
            raise Http2Error(wire.ENHANCE_YOUR_CALM, "too many streams taken back")

    def expect_reset(self) -> None:
        """One may follow that takes nothing back."""
        self._resets.give(1.0)

    def _break(self, stream: Flow, code: int) -> None:
        self.count_reset()
        self.reset(stream, code)
        stream.on_reset(code)

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise Http2Error(wire.PROTOCOL_ERROR, "HEADERS without a stream")
        block = wire.without_padding(flags, payload)
        if flags & wire.PRIORITISED:
            if len(block) < 5:
                raise Http2Error(wire.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            if int.from_bytes(block[:4], "big") & wire.STREAM_MAX == stream_id:
                raise Http2Error(wire.PROTOCOL_ERROR, "a stream that depends on itself")
            block = block[5:]
        end = bool(flags & wire.END_STREAM)
        if flags & wire.END_HEADERS:
            self.on_block(stream_id, self._reader.read(block), end=end)
            return
        self._block = [block]
        self._block_bytes = len(block)
        self._block_end = end
        self._block_stream = stream_id
        self._continuations = 0

    def _take_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._block_stream:
            raise Http2Error(wire.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._continuations += 1
        self._block_bytes += len(payload)
        if self._continuations > CONTINUATIONS_MAX or self._block_bytes > self.header_bytes_max:
            raise Http2Error(wire.ENHANCE_YOUR_CALM, "header block too long")
        self._block.append(payload)
        if flags & wire.END_HEADERS:
            block = b"".join(self._block)
            self._block.clear()
            self._block_stream = 0
            self.on_block(stream_id, self._reader.read(block), end=self._block_end)

    @property
    def block_open(self) -> bool:
        """A header block has begun and is not complete."""
        return bool(self._block_stream)

    def _take_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise Http2Error(wire.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise Http2Error(wire.FRAME_SIZE_ERROR, "malformed PRIORITY")
        if int.from_bytes(payload[:4], "big") & wire.STREAM_MAX == stream_id:
            raise Http2Error(wire.PROTOCOL_ERROR, "a stream that depends on itself")
        self.nuisance()

    def _take_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(wire.FRAME_SIZE_ERROR, "malformed RST_STREAM")
        if not stream_id:
            raise Http2Error(wire.PROTOCOL_ERROR, "RST_STREAM without a stream")
        self._not_idle(stream_id)
        self.count_reset()
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.forget(stream)
            stream.on_reset(int.from_bytes(payload, "big"))

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(wire.PROTOCOL_ERROR, "SETTINGS for a stream")
        if len(payload) % 6 or (flags & wire.ACK and payload):
            raise Http2Error(wire.FRAME_SIZE_ERROR, "malformed SETTINGS")
        self.nuisance()
        if flags & wire.ACK:
            return
        for at in range(0, len(payload), 6):
            key = int.from_bytes(payload[at : at + 2], "big")
            self._set(key, int.from_bytes(payload[at + 2 : at + 6], "big"))
        self.write(wire.frame(wire.SETTINGS, wire.ACK, 0, b""))
        self.on_settings()
        self.pump()

    def _set(self, key: int, value: int) -> None:
        if key == wire.INITIAL_WINDOW_SIZE:
            if value > wire.WINDOW_MAX:
                raise Http2Error(wire.FLOW_CONTROL_ERROR, "initial window too large")
            more, self.initial_window = value - self.initial_window, value
            for stream in self.streams.values():
                stream.send_window += more
                if stream.send_window > wire.WINDOW_MAX:
                    raise Http2Error(wire.FLOW_CONTROL_ERROR, "window too large")
        elif key == wire.MAX_FRAME_SIZE:
            if not wire.FRAME_BYTES_MAX <= value < 2**24:
                raise Http2Error(wire.PROTOCOL_ERROR, "malformed MAX_FRAME_SIZE")
            self.peer_frame_bytes_max = min(value, wire.MESH_FRAME_BYTES_MAX)
        elif key == wire.ENABLE_PUSH:
            if value > 1:
                raise Http2Error(wire.PROTOCOL_ERROR, "malformed ENABLE_PUSH")
        elif key == wire.MAX_CONCURRENT_STREAMS:
            self.peer_streams_max = value
        elif key == wire.MAX_HEADER_LIST_SIZE:
            self.peer_list_bytes_max = value

    def _take_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise Http2Error(wire.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody asked for")

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(wire.PROTOCOL_ERROR, "PING for a stream")
        if len(payload) != 8:
            raise Http2Error(wire.FRAME_SIZE_ERROR, "malformed PING")
        self.nuisance()
        if flags & wire.ACK:
            self.on_ping_answered()
        else:
            self.write(wire.frame(wire.PING, wire.ACK, 0, payload))

    def _take_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(wire.PROTOCOL_ERROR, "GOAWAY for a stream")
        if len(payload) < 8:
            raise Http2Error(wire.FRAME_SIZE_ERROR, "malformed GOAWAY")
        self.nuisance()
        self.on_goaway(int.from_bytes(payload[:4], "big") & wire.STREAM_MAX)

    def _take_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(wire.FRAME_SIZE_ERROR, "malformed WINDOW_UPDATE")
        self.nuisance()
        more = int.from_bytes(payload, "big") & wire.STREAM_MAX
        if not stream_id:
            self.send_window += more
            if not more or self.send_window > wire.WINDOW_MAX:
                code = wire.FLOW_CONTROL_ERROR if more else wire.PROTOCOL_ERROR
                raise Http2Error(code, "malformed WINDOW_UPDATE")
            self.pump()
            return
        self._not_idle(stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        stream.send_window += more
        if not more or stream.send_window > wire.WINDOW_MAX:
            self._break(stream, wire.FLOW_CONTROL_ERROR if more else wire.PROTOCOL_ERROR)
        elif stream in self.blocked:
            self._pump_one(stream)

    # ------------------------------------------------------------------ streams that got something

    def touch(self, stream: Flow) -> None:
        self._touched[stream] = None


_TAKE: Final[dict[int, Callable[[Session, int, int, bytes], None]]] = {
    wire.DATA: Session._take_data,
    wire.HEADERS: Session._take_headers,
    wire.PRIORITY: Session._take_priority,
    wire.RST_STREAM: Session._take_reset,
    wire.SETTINGS: Session._take_settings,
    wire.PUSH_PROMISE: Session._take_push,
    wire.PING: Session._take_ping,
    wire.GOAWAY: Session._take_goaway,
    wire.WINDOW_UPDATE: Session._take_window_update,
    wire.CONTINUATION: Session._take_continuation,
}
