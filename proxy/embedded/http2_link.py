"""An HTTP/2 session on a transport: what both of its roles have in common towards the event loop.

Invariant: a peer that does not read is cut off before more than `UNTAKEN_BYTES_MAX` wait for it.
"""

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from proxy.embedded.http2_session import Session

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine

# To the fields of a caller's head, or an application's, on its way to the other host: pseudo-header fields, the mesh's
# own, and what the filters of a route write.
FIELDS_ADDED_MAX: Final = 48
UNTAKEN_BYTES_MAX: Final = 1024 * 1024  # waiting for a peer that does not read; then the connection is cut


class Link(asyncio.Protocol, Session):
    """Base of `Http2Downstream` and `Http2Upstream`."""

    __slots__ = ("engine", "fields_max", "transport")

    def __init__(self, engine: "Engine") -> None:
        Session.__init__(self, engine.limits.header_bytes_max, engine.loop.time)
        self.engine = engine
        self.fields_max = engine.limits.headers_max  # of a head
        self.transport: asyncio.Transport

    def widen(self) -> None:
        super().widen()
        self.fields_max += FIELDS_ADDED_MAX

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.full = True
        for stream in list(self.streams.values()):
            stream.on_blocked()

    def resume_writing(self) -> None:
        self.full = False
        for stream in list(self.streams.values()):
            if stream not in self.blocked:
                stream.on_unblocked()
        self.pump()

    def flush_soon(self) -> None:
        self.engine.loop.call_soon(self.flush)

    def transmit(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if self.full and self.transport.get_write_buffer_size() > UNTAKEN_BYTES_MAX:
            self.on_untaken()
            self.transport.abort()

    @abstractmethod
    def on_untaken(self) -> None:
        """The peer does not read: its connection is about to be cut."""
