"""What one stream sends and may receive (RFC 9113, sections 5.1 and 5.2), the same for callers and applications.

A body that the windows do not let out waits in the stream, and whoever feeds it is told to stop; the window for what
is received is opened again only as somebody takes it. So a slow reader on either side holds back its own stream, end
to end, and none of the others.

Invariant: never more than the peer's windows allow is sent, and of what the peer may send no more than the session's
`stream_window` bytes a stream are unaccounted for.
"""

from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Final

from proxy.embedded import http2_frames as wire
from proxy.embedded.wheel import Timed

if TYPE_CHECKING:
    from proxy.embedded.http2_session import Session

STREAM_WINDOW: Final = 65_535  # what a peer may send unasked; the initial value of the protocol
MESH_STREAM_WINDOW: Final = 256 * 1024  # the same between hosts, where a round trip takes its time
UNKNOWN_LENGTH: Final = -1


class Flow(Timed):
    """One stream. `local_done`, `remote_done`: that side has sent its END_STREAM."""

    __slots__ = (
        "_end", "_expected", "_held", "_queue", "_receivable", "_trailers", "id", "local_done", "remote_done",
        "send_window", "session",
    )  # fmt: skip

    def __init__(self, session: "Session") -> None:
        super().__init__()
        self.session = session

    def open(self, stream_id: int, send_window: int) -> None:
        """Begin with stream `stream_id`; the object may have been another stream before."""
        self.id = stream_id
        self.send_window = send_window
        self.local_done = self.remote_done = False
        self._receivable = self.session.stream_window
        self._expected = UNKNOWN_LENGTH
        self._held = 0
        self._queue: deque[bytes | memoryview] = deque()
        self._end = False
        self._trailers = b""  # a header block

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} window={self.send_window} queued={len(self._queue)}>"

    # ------------------------------------------------------------------ what follows to know

    @abstractmethod
    def on_blocked(self) -> None:
        """The stream takes no more for now."""

    @abstractmethod
    def on_unblocked(self) -> None: ...

    @abstractmethod
    def on_sent(self) -> None:
        """Everything has been sent, END_STREAM included."""

    @abstractmethod
    def on_reset(self, code: int) -> None:
        """The stream is over before its time; the session has forgotten it."""

    # ------------------------------------------------------------------ sending

    @property
    def blocked(self) -> bool:
        return bool(self._queue) or self.session.full

    def send_headers(self, block: bytes, *, end: bool) -> None:
        self.session.write_headers(self.id, block, end=end)
        if end:
            self.local_done = True
            self.on_sent()

    def send_body(self, body: bytes, *, end: bool, trailers: bytes = b"") -> None:
        """Body, and when `end` the stream's end, with a block of `trailers` or none."""
        if self.local_done:
            return
        if body:
            self._queue.append(body)
        if end:
            self._end = True
            self._trailers = trailers
        self.pump()
        if self._queue:
            self.session.blocked[self] = None
            self.on_blocked()

    def pump(self) -> None:
        """Send what the windows let out."""
        queue, session = self._queue, self.session
        while queue and not session.full:
            body = queue[0]
            room = min(self.send_window, session.send_window, session.peer_frame_bytes_max)
            if room <= 0:
                return
            cut = len(body) > room
            if cut:
                body = memoryview(body)  # what is left is cut again, and not copied for it
                queue[0] = body[room:]
                body = body[:room]
            else:
                queue.popleft()
            self.send_window -= len(body)
            session.send_window -= len(body)
            last = self._end and not queue and not self._trailers
            session.write_data(wire.frame(wire.DATA, wire.END_STREAM if last else 0, self.id, body), cut=cut)
            if last:
                self._finish()
                return
        if self._end and not queue and not self.local_done:
            if self._trailers:
                session.write_headers(self.id, self._trailers, end=True)
            else:
                session.write(wire.frame(wire.DATA, wire.END_STREAM, self.id, b""))
            self._finish()

    def _finish(self) -> None:
        self.local_done = True
        self.on_sent()

    # ------------------------------------------------------------------ receiving

    def expect(self, length: int) -> None:
        """How long the peer said its body is: every byte is to come, and none more (8.1.1)."""
        self._expected = length

    def take(self, frame_bytes: int, body_bytes: int, *, end: bool) -> int:
        """Account for a DATA frame. Returns NO_ERROR, or the code the stream is to be reset with."""
        self._receivable -= frame_bytes
        if self._receivable < 0:
            return wire.FLOW_CONTROL_ERROR
        if self._expected >= 0:
            self._expected -= body_bytes
            if self._expected < 0 or (end and self._expected):
                return wire.PROTOCOL_ERROR
        return wire.NO_ERROR

    @property
    def short(self) -> bool:
        """Bytes of the announced length are missing."""
        return self._expected > 0

    def hold(self, why: int) -> None:
        """Let the peer send no more than it may already."""
        self._held |= why

    def release(self, why: int) -> None:
        if self._held & why:
            self._held &= ~why
            self.credit()

    def credit(self) -> None:
        """Let the peer send on, unless held."""
        window = self.session.stream_window
        if not self._held and not self.remote_done and self._receivable <= window // 2:
            self.session.write(wire.window_update(self.id, window - self._receivable))
            self._receivable = window
