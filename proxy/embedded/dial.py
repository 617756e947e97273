"""Making one outgoing connection: TCP, then TLS where the place asks for it, within one deadline.

Invariant: exactly one of `protocol.connection_made` and `failed` happens, and `failed` never synchronously.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.embedded.tls_stream import TlsStream
from proxy.embedded.wheel import Timed

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to connect. Without a context the connection is plain (an application on this host)."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    server_name: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Dial(Timed):
    """One attempt. The task it starts belongs to the connection, never to a request."""

    __slots__ = ("_engine", "_failed", "_negotiated", "_place", "_protocol", "_stream", "_task")

    def __init__(
        self, engine: "Engine", place: Place, timeout_s: float, protocol: asyncio.Protocol,
        failed: Callable[[str], None], negotiated: Callable[[str], asyncio.Protocol] | None = None,
    ) -> None:  # fmt: skip
        """`negotiated`, told what ALPN came to ("" for nothing), may choose another protocol."""
        super().__init__()
        self._engine = engine
        self._place = place
        self._protocol = protocol
        self._failed: Callable[[str], None] | None = failed
        self._negotiated = negotiated
        self._stream: TlsStream | None = None
        self._task: asyncio.Task[None] | None = engine.loop.create_task(self._connect())
        engine.wheel.arm(self, timeout_s)

    async def _connect(self) -> None:
        place = self._place
        try:
            await self._engine.loop.create_connection(self._protocol_for_socket, place.host, place.port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name IDNA does not take
            self._fail(f"cannot connect to {place}: {getattr(error, 'strerror', None) or error}")
        finally:
            self._task = None

    def _protocol_for_socket(self) -> asyncio.Protocol:
        place = self._place
        if place.context is None:
            return self._protocol
        self._stream = TlsStream(
            place.context,
            server_side=False,
            server_name=place.server_name,
            establish=self._established,
            failed=self._refused,
        )
        return self._stream

    def _established(self, stream: TlsStream) -> asyncio.Protocol:
        self._engine.streams.add(stream)
        self._engine.met.note(stream.ssl_object)
        if self._negotiated is not None:
            return self._negotiated(stream.ssl_object.selected_alpn_protocol() or "")
        return self._protocol

    def _refused(self, stream: TlsStream, error: Exception) -> None:
        self._engine.recorder.increment("tls_handshake_failed")
        self._fail(f"TLS with {self._place} failed: {error}")

    def on_deadline(self) -> None:
        self._fail(f"no connection to {self._place} in time")
        self.abandon()

    def abandon(self) -> None:
        """Give up without calling `failed`."""
        stream = self._stream
        self.settle()
        if self._task is not None:
            self._task.cancel()  # which closes what it has opened; a stream may have no transport yet
        elif stream is not None and stream.above is None:
            stream.abort()

    def settle(self) -> None:
        """To be called by the protocol in `connection_made`: the attempt is over."""
        self._engine.wheel.forget(self)
        self._failed = None
        self._stream = None  # it refers to this as well

    def _fail(self, reason: str) -> None:
        failed, self._failed = self._failed, None
        self._engine.wheel.forget(self)
        if failed is not None:
            failed(reason)
