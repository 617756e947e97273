"""The sending half of an HTTP/2 connection: frames are collected and written once a turn of the loop.

What the windows or the transport do not let out waits in its stream (http2_flow.py), and those that wait are served in
turn, the longest first.

Invariant: after `end` there is no stream, and every one there was has been told.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Final

from proxy.embedded import http2_frames as wire
from proxy.embedded.http2_flow import STREAM_WINDOW, Flow
from proxy.embedded.http2_frames import Http2Error
from proxy.embedded.http2_patience import DRIBBLE_BYTES, NUISANCES_MAX, NUISANCES_PER_S, Bucket
from proxy.embedded.wheel import Timed

CONNECTION_WINDOW: Final = 1024 * 1024
RESET_REMEMBERED_MAX: Final = 256  # streams reset here, for which frames may still be on their way
WRITE_BYTES: Final = 64 * 1024  # collected, before they are written within a turn


class Sender(Timed):
    """The half of a `Session` that writes. `full`: the transport takes no more for now."""

    __slots__ = (
        "_nuisances", "_out", "_out_bytes", "_received", "_scheduled", "_table_told", "_touched", "_we_reset",
        "blocked", "closed", "frame_bytes_max", "full", "initial_window", "peer_frame_bytes_max", "peer_streams_max",
        "send_window", "stream_window", "streams", "top",
    )  # fmt: skip

    streams: dict[int, Flow]

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.streams = {}
        self.blocked: dict[Flow, None] = {}  # wait for a window, the longest first
        self.closed = False
        self.full = False
        self.top = 0  # the highest stream there has been
        self.initial_window = 65_535
        self.send_window = 65_535
        self.stream_window = STREAM_WINDOW  # what the peer may send unasked in one stream
        self.frame_bytes_max = self.peer_frame_bytes_max = wire.FRAME_BYTES_MAX
        self.peer_streams_max = 100  # until the peer says otherwise
        self._touched: dict[Flow, None] = {}  # got something, and have not been told
        self._we_reset: dict[int, None] = {}
        self._nuisances = Bucket(NUISANCES_MAX, NUISANCES_PER_S, now)
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._scheduled = self._received = self._table_told = False

    # ------------------------------------------------------------------ what a role does

    @abstractmethod
    def on_idle(self) -> None:
        """The last stream is gone."""

    @abstractmethod
    def flush_soon(self) -> None:
        """Call `flush` before the loop waits again."""

    @abstractmethod
    def transmit(self, data: bytes) -> None: ...

    @abstractmethod
    def on_failed(self, reason: str) -> None:
        """The connection is over; GOAWAY has been written where that makes sense."""

    # ------------------------------------------------------------------ sending

    def greet(self, preface: bytes, settings: list[tuple[int, int]]) -> None:
        if self.stream_window != STREAM_WINDOW:
            settings = [
                *settings,
                (wire.INITIAL_WINDOW_SIZE, self.stream_window),
                (wire.MAX_FRAME_SIZE, self.frame_bytes_max),
            ]
        self.write(
            preface + wire.settings(settings) + wire.window_update(0, CONNECTION_WINDOW - STREAM_WINDOW)
        )

    def write(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > WRITE_BYTES:
            self.flush()
        elif not (self._scheduled or self._received):
            self._scheduled = True
            self.flush_soon()

    def write_headers(self, stream_id: int, block: bytes, *, end: bool) -> None:
        if not self._table_told:
            self._table_told = True
            block = wire.TABLE_SIZE_ZERO + block
        self.write(wire.headers(stream_id, block, end=end))

    def write_data(self, data: bytes, *, cut: bool) -> None:
        """A DATA frame; `cut`: the window did not let out all there was."""
        if not cut or len(data) > DRIBBLE_BYTES:
            self._nuisances.give(2.0)  # the peer answers with an update for each window, if it likes
        self.write(data)

    def flush(self) -> None:
        self._scheduled = False
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self.transmit(data)

    def pump(self) -> None:
        """Windows have opened or the transport takes more: serve who waits longest first."""
        for stream in list(self.blocked):
            if self.full or self.send_window <= 0:
                return
            self._pump_one(stream)

    def _pump_one(self, stream: Flow) -> None:
        self.blocked.pop(stream, None)
        stream.pump()
        if not stream.blocked:
            stream.on_unblocked()
        elif stream.id in self.streams:
            self.blocked[stream] = None  # the others come first next time

    def reset(self, stream: Flow, code: int) -> None:
        """Say RST_STREAM and forget the stream. `on_reset` is not called."""
        self.write(wire.rst_stream(stream.id, code))
        self._remember_reset(stream.id)
        self.forget(stream)

    def refuse(self, stream_id: int, code: int) -> None:
        """Reset a stream that was never taken up."""
        self.write(wire.rst_stream(stream_id, code))
        self._remember_reset(stream_id)

    def _remember_reset(self, stream_id: int) -> None:
        self._we_reset[stream_id] = None
        if len(self._we_reset) > RESET_REMEMBERED_MAX:
            del self._we_reset[next(iter(self._we_reset))]

    def forget(self, stream: Flow) -> None:
        if self.streams.pop(stream.id, None) is not None:
            self.blocked.pop(stream, None)
            self._touched.pop(stream, None)
            if not self.streams and not self.closed:
                self.on_idle()

    def fail(self, code: int, reason: str) -> None:
        """GOAWAY, and every stream is over."""
        if self.closed:
            return
        self.write(wire.goaway(self.top, code, reason))
        self.flush()
        self.end(code)
        self.on_failed(reason)

    def end(self, code: int) -> None:
        """The connection is gone."""
        self.closed = True
        streams, self.streams = self.streams, {}
        self.blocked.clear()
        self._touched.clear()
        for stream in streams.values():
            stream.on_reset(code)

    def nuisance(self) -> None:
        """Raises Http2Error when there have been too many."""
        if not self._nuisances.take():
            raise Http2Error(wire.ENHANCE_YOUR_CALM, "too many frames that carry nothing")
