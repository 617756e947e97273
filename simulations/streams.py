"""Streams between hosts: TCP and TLS 1.3 as far as a node can tell them from `peer/io/stream.py` and `exchange.py`.

Opening takes the round trips of TCP, of the mutual handshake and of the greeting; it needs both directions, a process
that takes part, and CONNECT_TIMEOUT_S at most. Frames arrive in order. A frame that is lost, or meets a cut in either
direction (no acknowledgement comes back), is sent again after RTO_S, doubling, and what follows waits behind it; a
direction that stands still for IDLE_S_MAX ends the stream on both sides. A process that dies resets its streams; a
machine that loses its power says nothing.

Invariant: each node hears `StreamOpened` at most once a stream, then frames in order, then `StreamClosed` exactly once,
unless it closed the stream itself.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from peer.io.exchange import IDLE_S_MAX
from peer.io.stream import CONNECT_TIMEOUT_S, FRAME_BYTES_MAX
from peer.messages import CloseStream, OpenStream, SendFrame, StreamClosed, StreamFrame, StreamOpened
from simulations.host import Host

if TYPE_CHECKING:
    from simulations.loop import Loop

RTO_S: Final = 0.2  # Linux's least retransmission timeout
RTO_S_MAX: Final = 10.0
SYN_RTO_S: Final = 1.0  # of the first packet (RFC 6298, section 2.1)
SEGMENT_BYTES: Final = 1400
# Measured: the bytes of a mutual TLS 1.3 handshake between two members, each showing its P-256 certificate.
HANDSHAKE_CALLER_BYTES: Final = 1423
HANDSHAKE_CALLEE_BYTES: Final = 1412
GREETING_BYTES: Final = 472  # the callee's Hello with the root's certificate
PURPOSE_BYTES: Final = 30  # the caller's "sync"
RECORD_BYTES: Final = 22  # header, type and tag of one TLS record
RECORD_BYTES_MAX: Final = 16 * 1024
PREFIX_BYTES: Final = 4  # a frame's length


def wire_bytes(frame: int) -> int:
    """What a frame of that size is on the wire."""
    size = frame + PREFIX_BYTES
    return size + RECORD_BYTES * -(-size // RECORD_BYTES_MAX)


class End:
    """One end of a stream. `number` is what its node calls it; `out` holds what the other end has not got yet (None:
    the good-bye)."""

    __slots__ = ("host", "life", "number", "other", "out", "said_at", "stalled_since", "stream", "tries")

    def __init__(self, stream: "Stream", host: Host, number: int) -> None:
        self.stream = stream
        self.host = host
        self.life = host.life
        self.number = number
        self.other: End | None = None
        self.out: deque[bytes | None] = deque()
        self.said_at = 0.0  # when the last frame of this end arrives: the next one does not before
        self.stalled_since: float | None = None
        self.tries = 0

    @property
    def there(self) -> bool:
        """Whether its node still has this stream."""
        return self.host.life == self.life and self.host.streams.get(self.number) is self


class Stream:
    """One connection, wanted, open or over."""

    __slots__ = ("caller", "node", "opened", "target")

    def __init__(self, host: Host, request: OpenStream, target: Host | None) -> None:
        self.caller = End(self, host, request.stream)
        self.node = request.node
        self.target = target
        self.opened = False


class Greeting:
    """A handshake that has reached the called host and waits for its process."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class Streams:
    """All streams of one world. The world hands it what nodes ask for."""

    def __init__(self, world: "Loop") -> None:
        self._world = world
        self.opened = 0
        self.failed = 0
        self.timed_out = 0
        self.retransmitted = 0
        self.given_up = 0  # closed by a node, for a reason

    # ------------------------------------------------------------------ opening

    def open(self, host: Host, request: OpenStream) -> None:
        world = self._world
        stream = Stream(host, request, world.host_at(request.address))
        host.streams[request.stream] = stream.caller
        world.push(world.leaves, self._syn, stream, 0)
        world.push(world.leaves + CONNECT_TIMEOUT_S, self._give_up, stream, None)

    def _syn(self, stream: Stream, tries: int) -> None:
        """The caller's first packet, until somebody answers it."""
        world, caller, target = self._world, stream.caller, stream.target
        if not caller.there or stream.opened:
            return
        if target is None or not target.powered or self._fails(caller.host, target):
            world.push(world.now + SYN_RTO_S * 2**tries, self._syn, stream, tries + 1)
            return
        there_s = world.network.delay_s(caller.host.index, target.index)
        if target.node is None:
            back_s = world.network.delay_s(target.index, caller.host.index)
            world.push(world.now + there_s + back_s, self._fail, stream, "connection refused")
            return
        # TCP's three packets, the last with the TLS hello behind it
        world.push(world.now + 3 * there_s, world.arrive, target, Greeting(stream))

    def greet(self, host: Host, greeting: Greeting) -> None:
        """The called process takes part in the handshake."""
        world, stream = self._world, greeting.stream
        caller = stream.caller
        world.charge(host, world.costs.handshake_s)
        if not caller.there or stream.opened:
            return
        if self._fails(host, caller.host) or self._fails(caller.host, host):
            world.push(world.leaves + RTO_S, world.arrive, host, greeting)  # sent again; `_give_up` ends it
            return
        way_s = world.network.delay_s(host.index, caller.host.index)
        caller.host.traffic.stream_bytes_sent += HANDSHAKE_CALLER_BYTES + PURPOSE_BYTES
        host.traffic.stream_bytes_sent += HANDSHAKE_CALLEE_BYTES + GREETING_BYTES
        caller.host.traffic.stream_bytes_received += HANDSHAKE_CALLEE_BYTES + GREETING_BYTES
        host.traffic.stream_bytes_received += HANDSHAKE_CALLER_BYTES + PURPOSE_BYTES
        if stream.node is not None and stream.node != host.id:
            world.push(world.leaves + way_s, self._fail, stream, "another node answers there")
            return
        callee = End(stream, host, host.inbound)
        host.inbound += 2
        stream.opened = True
        stream.caller.other, callee.other = callee, stream.caller
        host.streams[callee.number] = callee
        host.traffic.streams_opened += 1
        caller.host.traffic.streams_opened += 1
        self.opened += 1
        caller.said_at = world.leaves + 4 * way_s
        callee.said_at = world.leaves + 3 * way_s
        opened = StreamOpened(stream=caller.number, node=host.id, inbound=False)
        world.push(callee.said_at, self._hear, caller, opened)
        opened = StreamOpened(stream=callee.number, node=caller.host.id, inbound=True)
        world.push(caller.said_at, self._hear, callee, opened)

    def _give_up(self, stream: Stream, _: None) -> None:
        if not stream.opened and stream.caller.there:
            self._fail(stream, f"no connection within {CONNECT_TIMEOUT_S:g} s")

    def _fail(self, stream: Stream, reason: str) -> None:
        caller = stream.caller
        if caller.there and not stream.opened:
            self.failed += 1
            del caller.host.streams[caller.number]
            self._world.arrive(caller.host, StreamClosed(stream=caller.number, reason=reason))

    # ------------------------------------------------------------------ frames

    def send(self, host: Host, request: SendFrame) -> None:
        assert len(request.data) <= FRAME_BYTES_MAX, f"a frame of {len(request.data)} bytes"
        end = host.streams.get(request.stream)
        if end is not None and end.other is not None:
            self._say(end, request.data)

    def close(self, host: Host, request: CloseStream) -> None:
        """The node is done with a stream; what it has said still arrives, then the good-bye."""
        self.given_up += bool(request.reason)
        end = host.streams.pop(request.stream, None)
        if end is not None and end.other is not None:
            self._say(end, None)

    def _say(self, end: End, frame: bytes | None) -> None:
        end.out.append(frame)
        if end.stalled_since is None:
            self._flush(end)

    def _flush(self, end: End) -> None:
        """Send what waits, up to the first frame that does not arrive."""
        world, other = self._world, end.other
        assert other is not None, "an open stream has two ends"
        while end.out:
            if not other.there or end.host.life != end.life:
                end.out.clear()
                return
            frame = end.out[0]
            size = PREFIX_BYTES if frame is None else len(frame)
            if self._fails(end.host, other.host, size):
                self._stall(end)
                return
            end.out.popleft()
            end.stalled_since, end.tries = None, 0
            way_s = world.network.delay_s(end.host.index, other.host.index)
            end.said_at = max(end.said_at, max(world.leaves, world.now) + way_s)
            if frame is None:
                closed = StreamClosed(stream=other.number)
                world.push(end.said_at, self._hear, other, closed)
                return
            end.host.traffic.stream_bytes_sent += wire_bytes(size)
            world.push(end.said_at, self._hear, other, StreamFrame(stream=other.number, data=frame))

    def _stall(self, end: End) -> None:
        world = self._world
        if end.stalled_since is None:
            end.stalled_since = world.now
        elif world.now - end.stalled_since >= IDLE_S_MAX:
            self.timed_out += 1
            for side in (end, end.other):
                if side is not None:
                    self._end(side, f"no frame within {IDLE_S_MAX:g} s")
            return
        self.retransmitted += 1
        wait_s = min(RTO_S_MAX, RTO_S * 2**end.tries)
        end.tries += 1
        world.push(world.now + wait_s, self._again, end, None)

    def _again(self, end: End, _: None) -> None:
        if end.host.life == end.life and end.out:
            self._world.leaves = self._world.now
            self._flush(end)

    def _hear(self, end: End, event: StreamOpened | StreamFrame | StreamClosed) -> None:
        """Something arrives at one end, if its process still has the stream."""
        if not end.there:
            return
        if isinstance(event, StreamClosed):
            del end.host.streams[end.number]
        elif isinstance(event, StreamFrame):
            end.host.traffic.stream_bytes_received += wire_bytes(len(event.data))
        elif not event.inbound:
            self._world.charge(end.host, self._world.costs.handshake_s)
        self._world.arrive(end.host, event)

    # ------------------------------------------------------------------ ends

    def crashed(self, host: Host) -> None:
        """The process of `host` is gone, with its streams. Its kernel resets them, if it runs and is heard."""
        world = self._world
        for end in list(host.streams.values()):
            other = end.other
            if other is not None and host.powered and not world.network.is_cut(host.index, other.host.index):
                way_s = world.network.delay_s(host.index, other.host.index)
                world.push(world.now + way_s, self._end, other, "connection reset")
            elif other is not None:
                world.push(world.now + IDLE_S_MAX, self._end, other, f"no frame within {IDLE_S_MAX:g} s")
        host.streams.clear()

    def _end(self, end: End, reason: str) -> None:
        if end.there:
            del end.host.streams[end.number]
            self._world.arrive(end.host, StreamClosed(stream=end.number, reason=reason))

    def _fails(self, source: Host, target: Host, size: int = 0) -> bool:
        """Whether something of `size` bytes does not arrive, or is not acknowledged."""
        network = self._world.network
        if not target.powered:
            return True
        if network.plain:
            return False
        one, other = source.index, target.index
        if network.is_cut(one, other) or network.is_cut(other, one):
            return True
        share = network.loss_of(one, other)
        if not share:
            return False
        segments = 1 + size // SEGMENT_BYTES
        return network.rng.random() >= (1 - share) ** segments
