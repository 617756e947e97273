"""A caller's HTTP/2 connection: each stream is a request with its exchange (RFC 9113).

It begins by prior knowledge (3.3) on plain connections of this host, and by ALPN (3.2) on those of other hosts.

A request is the same to everything behind it as one that came in HTTP/1.1. Streams are bounded in number; a drain is
announced, and what was on its way until the caller has heard of it is still taken (6.8).

Invariant: the connection's deadline is that of its greeting or of a header block under way, else that of idleness,
and none while there are streams: each of those has its own.
"""

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, cast

from proxy.embedded import http2_frames as wire
from proxy.embedded.caller import Caller
from proxy.embedded.exchange import Exchange
from proxy.embedded.heads import own_lines
from proxy.embedded.http1 import Request
from proxy.embedded.http2_blocks import Fields
from proxy.embedded.http2_flow import Flow
from proxy.embedded.http2_heads import MalformedError, request_of, trailers_of
from proxy.embedded.http2_link import Link
from proxy.embedded.http2_stream import CallerStream
from proxy.embedded.wheel import NEVER

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine

STREAMS_MAX: Final = 100  # of one connection at once
GOODBYE_S: Final = 1.0  # from a caller's GOAWAY to the end of its connection
PREFACE_END: Final = b"SM\r\n\r\n"  # what follows the part that looks like an HTTP/1.1 head


class Http2Downstream(Link):
    """What is not of one kind of listener."""

    __slots__ = ("_draining", "_free", "_preface_left", "_welcomed", "peer_ip")

    reporter: ClassVar[str]
    version: ClassVar[str] = "HTTP/2"

    def __init__(self, engine: "Engine", peer_ip: str) -> None:
        super().__init__(engine)
        self.peer_ip = peer_ip
        self._preface_left = PREFACE_END
        self._free: list[CallerStream] = []  # the timer wheel forgets a stream late: it is used again
        self._draining = self._welcomed = False

    def __repr__(self) -> str:
        return f"<Http2Downstream from {self.peer_ip} streams={len(self.streams)}>"

    @abstractmethod
    def exchange_for(self, caller: Caller, request: Request) -> Exchange:
        """Of one request, as this kind of listener wants it."""

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Agreed on in a handshake: all of the preface is to come, and this is another host."""
        self._preface_left = wire.PREFACE
        self.widen()
        if self.engine.on_connection(self):
            self.adopt(cast(asyncio.Transport, transport), b"")
        else:
            self.closed = True
            cast(asyncio.Transport, transport).abort()

    def adopt(self, transport: asyncio.Transport, early: bytes) -> None:
        """Take over a connection on which the first part of the preface has been read."""
        self.transport = transport
        engine = self.engine
        engine.wheel.arm(self, engine.limits.header_timeout_s)
        self.greet(
            b"",
            [
                (wire.MAX_CONCURRENT_STREAMS, STREAMS_MAX),
                (wire.MAX_HEADER_LIST_SIZE, self.header_bytes_max),
            ],
        )
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        if self._preface_left:
            size = min(len(data), len(self._preface_left))
            if data[:size] != self._preface_left[:size]:
                self.fail(wire.PROTOCOL_ERROR, "malformed preface")
                return
            self._preface_left = self._preface_left[size:]
            data = data[size:]
        was_open = self.block_open
        self.receive(data)
        if self.block_open and not was_open:
            self.engine.wheel.arm(self, self.engine.limits.header_timeout_s)
        elif was_open and not self.block_open:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.wheel.forget(self)
        self.engine.on_connection_end(self)
        if not self.closed:
            self.end(wire.CANCEL)

    def on_deadline(self) -> None:
        if not self.closed and (self.block_open or not self._greeted):
            self.fail(wire.PROTOCOL_ERROR, "a header block or the settings did not come in time")
        elif self.closed:
            self.transport.abort()
        elif not self.streams:
            self.fail(wire.NO_ERROR, "")

    def _rest(self) -> None:
        """The connection's own deadline while no header block is under way."""
        if self.streams:
            self.deadline_s = NEVER
        else:
            self.engine.wheel.arm(self, self.engine.limits.idle_timeout_s)

    # ------------------------------------------------------------------ Session

    def on_untaken(self) -> None:
        self.engine.recorder.increment("http2_cut")

    def on_failed(self, reason: str) -> None:
        self.deadline_s = NEVER
        if reason:
            self.engine.recorder.increment("http2_cut")
            self.engine.log_refusal(self, 0, reason)
        self.transport.close()
        self.engine.wheel.arm(self, 1.0)  # a close waits for the caller to take what is written

    def on_settings(self) -> None:
        if not self._welcomed:
            self._welcomed = True
            self._rest()

    def end(self, code: int) -> None:
        super().end(code)
        self._free.clear()  # they refer to this connection, which is large and should not wait for the collector

    def on_idle(self) -> None:
        if self._draining:
            self.fail(wire.NO_ERROR, "")
        elif not self.block_open:
            self._rest()

    def on_goaway(self, last: int) -> None:
        """The caller begins nothing more; what is under way goes on. The caller closes, or this side does soon: were it
        at once, frames that are on their way would make the kernel reset the connection."""
        if not self.streams:
            self.engine.wheel.arm(self, GOODBYE_S)

    def keep(self, stream: CallerStream) -> None:
        """The stream is over and may be another."""
        stream.id = 0
        if len(self._free) < STREAMS_MAX and not self.closed:
            self._free.append(stream)

    def on_block(self, stream_id: int, fields: Fields, *, end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._trailers(cast(CallerStream, stream), fields, end=end)
            return
        if not stream_id & 1:
            raise wire.Http2Error(wire.PROTOCOL_ERROR, "a stream of the caller has an odd number")
        if stream_id <= self.top:
            self._for_nobody(stream_id)
            return
        self.top = stream_id
        if len(self.streams) >= STREAMS_MAX or self._draining:
            self.nuisance()
            self.refuse(stream_id, wire.REFUSED_STREAM)
            return
        try:
            request = request_of(fields, self.fields_max, end=end)
        except MalformedError as error:
            self._refuse_request(stream_id, error, end=end)
            return
        if not self.streams:
            self.deadline_s = NEVER
        begun = self._free.pop() if self._free else CallerStream(self)
        begun.begin(stream_id, request, complete=end)
        self.streams[stream_id] = begun
        self.touch(begun)

    def _trailers(self, stream: CallerStream, fields: Fields, *, end: bool) -> None:
        if stream.remote_done:
            self._break(stream, wire.STREAM_CLOSED)
            return
        try:
            trailers = trailers_of(fields, self.fields_max)
        except MalformedError:
            end = False
        if not end or stream.short:
            self.count_reset()
            stream.remote_done = True
            stream.on_malformed()
            return
        stream.remote_done = True
        stream.add(b"", end=True, trailers=trailers)
        self.touch(stream)

    def _refuse_request(self, stream_id: int, error: MalformedError, *, end: bool) -> None:
        self.nuisance()
        self.engine.recorder.increment("head_rejected")
        self.engine.log_refusal(self, error.status, error.reason)
        if not error.status:
            self.refuse(stream_id, wire.PROTOCOL_ERROR)
            return
        block = wire.status_field(error.status) + wire.lines_block(own_lines(b"", []))
        self.write_headers(stream_id, block + wire.field(b"content-length", b"0"), end=True)
        if not end:
            self.refuse(stream_id, wire.NO_ERROR)

    def on_data(self, stream: Flow, body: bytes, *, end: bool) -> None:
        cast(CallerStream, stream).add(body, end=end)

    def on_malformed(self, stream: Flow) -> None:
        stream.remote_done = True
        cast(CallerStream, stream).on_malformed()

    def deliver(self, stream: Flow) -> None:
        cast(CallerStream, stream).deliver()

    # ------------------------------------------------------------------ for the engine

    def on_drain(self) -> None:
        """Say so, and take what was on its way until the caller has heard (6.8)."""
        if self.closed or self.transport.is_closing():
            return
        if not self.streams and not self.block_open:
            self._rest()
        self.write(wire.goaway(wire.WINDOW_MAX, wire.NO_ERROR) + wire.frame(wire.PING, 0, 0, b"gossamer"))

    def on_ping_answered(self) -> None:
        if not self.engine.draining or self._draining:
            return
        self._draining = True
        if self.streams:
            self.write(wire.goaway(self.top, wire.NO_ERROR))
        else:
            self.fail(wire.NO_ERROR, "")
