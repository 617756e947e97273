"""TLS over a plain transport, with as little in between as possible.

The event loop's own TLS layer finds the end of what it can decrypt by reading until the library raises "want read",
once for every segment, and that exception alone costs more than decrypting a small message. Here the length of what
waits in the memory BIO says whether another record can be there, so a request that arrives in one record costs one
read; and each write of a connection becomes one record and one write to the socket.

A stream is a transport to the protocol above it and a protocol to the transport below. The handshake is driven by
the data; whoever makes the stream bounds its time.

Invariant: the protocol above sees `connection_made` only after the handshake, with the peer's identity verified
(the `SSLContext` sees to that, trust/tls.py), and a stream cut off without `close_notify` ends with an error, never
as an end of data.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

RECORD_BYTES_MAX: Final = 16 * 1024
# What a memory BIO is given at a time. It keeps the largest buffer it ever needed, and this much stays in the cache.
SLICE_BYTES_MAX: Final = 128 * 1024


class TruncatedError(ConnectionError):
    """The peer's connection ended without TLS saying so."""


class TlsStream(asyncio.Transport, asyncio.Protocol):
    """`establish(stream)` is called once after the handshake and returns the protocol above."""

    __slots__ = (
        "_ended", "_establish", "_failed", "_incoming", "_outgoing", "_partial", "_paused", "_raw", "above",
        "ssl_object",
    )  # fmt: skip

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_name: str | None,
        establish: Callable[["TlsStream"], asyncio.Protocol],
        failed: Callable[["TlsStream", Exception], None],
    ) -> None:
        asyncio.Transport.__init__(self)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        # Whom to tell how the handshake ended. Let go of then: they refer to this stream, and it is large.
        self._establish: Callable[[TlsStream], asyncio.Protocol] | None = establish
        self._failed: Callable[[TlsStream, Exception], None] | None = failed
        self._raw: asyncio.Transport
        self.above: asyncio.Protocol | None = None
        self._paused = False
        self._partial = False  # the library holds the beginning of a record
        self._ended = False  # the peer said close_notify, or this side closed

    def __repr__(self) -> str:
        return f"<TlsStream {'established' if self.above else 'handshaking'}>"

    # ------------------------------------------------------------------ towards the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)  # uvloop's TCPTransport is one, by duck typing
        if not self.ssl_object.server_side:
            self._shake_hands()

    def data_received(self, data: bytes) -> None:
        if len(data) > SLICE_BYTES_MAX and self.above is not None:
            self._receive_much(memoryview(data))
            return
        self._incoming.write(data)
        if self.above is None:
            self._shake_hands()
        elif not self._paused:
            self._read()

    def _receive_much(self, data: memoryview) -> None:
        for begin in range(0, len(data), SLICE_BYTES_MAX):
            if self._paused:  # whoever resumes finds the rest
                self._incoming.write(data[begin:])
                return
            self._incoming.write(data[begin : begin + SLICE_BYTES_MAX])
            self._read()
            if self._ended or self.above is None or self._raw.is_closing():
                return

    def eof_received(self) -> bool:
        return False  # the transport closes, and `connection_lost` tells whether that was in order

    def connection_lost(self, exc: Exception | None) -> None:
        if self.above is not None:
            if exc is None and not self._ended:
                exc = TruncatedError("connection ended without close_notify")
            above, self.above = self.above, None  # the two refer to each other, and the session is large
            above.connection_lost(exc)
        else:
            self._fail(exc or TruncatedError("connection closed during the TLS handshake"))

    def pause_writing(self) -> None:
        if self.above is not None:
            self.above.pause_writing()

    def resume_writing(self) -> None:
        if self.above is not None:
            self.above.resume_writing()

    def _shake_hands(self) -> None:
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, ValueError) as error:  # ValueError: an identity that is none
            self._flush()  # the alert that says why
            self._raw.close()
            self._fail(error)
            return
        self._flush()
        self._failed = None
        establish, self._establish = self._establish, None
        assert establish is not None, "the handshake ends once"
        self.above = establish(self)
        self.above.connection_made(self)
        if self._incoming.pending and not self._paused:
            self._read()

    def _fail(self, error: Exception) -> None:
        failed, self._failed = self._failed, None
        self._establish = None
        if failed is not None:
            failed(self, error)

    def _read(self) -> None:
        """Hand on, in one piece, what the records that wait hold."""
        above = self.above
        if above is None:
            return
        data = b""
        more: list[bytes] = []
        error: ssl.SSLError | None = None
        pending = self._incoming.pending
        while pending and not self._ended:
            try:
                # No record holds more than what waits of it, unless the library has taken in a part of it before.
                record = self.ssl_object.read(
                    RECORD_BYTES_MAX if self._partial else min(pending, RECORD_BYTES_MAX)
                )
            except ssl.SSLWantReadError:
                self._partial = True
                break
            except (
                ssl.SSLZeroReturnError
            ):  # instead of an empty read, where this side has said close_notify before
                self._ended = True
                break
            except ssl.SSLError as broken:
                error = broken.with_traceback(None)  # which holds this frame, and that the error
                break
            self._partial = False
            if not record:
                self._ended = True
            elif data:
                more.append(record)
            else:
                data = record
            pending = self._incoming.pending
        if data:
            above.data_received(b"".join((data, *more)) if more else data)
            if self.above is None or self._raw.is_closing():
                return
            above = self.above  # it may have been replaced by a tunnel
        if self._outgoing.pending:
            self._flush()  # an answer to a key update, or an alert
        if error is not None:
            above.connection_lost(error)
            self.above = None
            self._raw.abort()
        elif self._ended and not above.eof_received():
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    # ------------------------------------------------------------------ the transport of the protocol above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._raw.is_closing() or not data:
            return
        if len(data) > SLICE_BYTES_MAX:
            view = memoryview(data)
            for begin in range(0, len(view), SLICE_BYTES_MAX):
                self.write(view[begin : begin + SLICE_BYTES_MAX])
            return
        try:
            self.ssl_object.write(data)
        except ssl.SSLError:
            self._raw.abort()  # written after write_eof, or a broken session: `connection_lost` follows
            return
        self._raw.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """TLS 1.3 half-close: says close_notify and goes on reading."""
        try:
            self.ssl_object.unwrap()
        except ssl.SSLError:
            pass  # "want read": the peer has not closed its side, nor need it
        self._flush()

    def pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            if not self._raw.is_closing():
                self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if not self._raw.is_closing():
                self._raw.resume_reading()
                if self._incoming.pending:
                    # Not from inside whatever resumed: it may be in the middle of what came before.
                    asyncio.get_running_loop().call_soon(self._read_what_waited)

    def _read_what_waited(self) -> None:
        if not self._paused and not self._raw.is_closing():
            self._read()

    def is_reading(self) -> bool:
        return not self._paused

    def close(self) -> None:
        if not self._raw.is_closing():
            self.write_eof()
            self._ended = True  # nothing more is read, and nothing is missed
            self._raw.close()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self.ssl_object
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.above is not None
        return self.above

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)
