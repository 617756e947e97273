"""The accepting side of streams: who is let in, for how long, and to whom.

Anybody can open a connection to the gossip port, so what a caller may cost is counted before the TLS handshake: a
connection belongs to a *stranger* until a certificate has been shown. Strangers have fewer places than members, and
each address has few of those, so that a flood from outside exhausts nothing. When all their places are taken, the
oldest stranger of the address that has most makes room, so that a flood from few addresses does not keep members out,
who are strangers too until they have shown who they are. A member has few places as well. A stranger's stay has an
end, whatever it is doing.

Invariant: no more than CONNECTIONS_MAX connections are open, of them at most STRANGERS_MAX of strangers,
STRANGERS_PER_HOST_MAX of strangers at one address, and PER_MEMBER_MAX of one member; all others are closed and
counted.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from peer.io.stream import CONNECT_TIMEOUT_S, FRAME_BYTES_MAX, FrameStream, Hello, StreamError, encode_hello

log = logging.getLogger("gossamer.stream")

CONNECTIONS_MAX: Final = 512
STRANGERS_MAX: Final = 128
STRANGERS_PER_HOST_MAX: Final = 32
PER_MEMBER_MAX: Final = 16
STRANGER_S_MAX: Final = 60.0
BACKLOG: Final = 512
ACCEPT_PAUSE_S: Final = 0.1

Handler = Callable[[FrameStream, bytes], Awaitable[None]]


class StreamServer:
    """Accepts streams: greets, reads the purpose, and hands the stream to the handler of that purpose.

    `member_of(stream)` says as which member the caller has proved itself, None for a stranger. `refused` counts
    connections that found or kept no place.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        hello: Callable[[], Hello],
        member_of: Callable[[FrameStream], bytes | None],
    ) -> None:
        self._context = context
        self._hello = hello
        self._member_of = member_of
        self._handlers: dict[bytes, Handler] = {}
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._fresh: dict[asyncio.Task[None], socket.socket] = {}  # not begun yet
        self._secure: dict[asyncio.Task[None], FrameStream] = {}  # those whose handshake is done
        self._strangers: dict[str, dict[asyncio.Task[None], None]] = {}  # by address, oldest first
        self._members: dict[bytes, set[asyncio.Task[None]]] = {}
        self.refused = 0
        self.on_broken: Callable[[], None] = lambda: None  # no stream is accepted any more

    def handle(self, purpose: bytes, handler: Handler) -> None:
        self._handlers[purpose] = handler

    async def start(self, host: str, port: int, held: socket.socket | None = None) -> None:
        """Bind and listen, unless `held` does there already. Raises OSError."""
        self._listening = listening = held or self._bind(host, port)
        self._accepting = asyncio.create_task(self._accept(listening), name="streams")
        self._accepting.add_done_callback(self._broken)

    def copy_socket(self) -> socket.socket:
        """The listening socket once more, for a process that takes over. Only while it listens."""
        assert self._listening is not None
        return self._listening.dup()

    def _bind(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setblocking(False)
            listening.bind((host, port))
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening

    @property
    def connections(self) -> int:
        return len(self._tasks)

    @property
    def port(self) -> int:
        """Where it listens: the one asked for, or the one the system chose for 0."""
        assert self._listening is not None
        return int(self._listening.getsockname()[1])

    async def close(self) -> None:
        """Take no more callers, and end the streams of those that are here."""
        tasks = list(self._tasks)
        if self._accepting is not None:
            tasks.append(self._accepting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            await _readable(listening)
            try:  # nothing is awaited between taking a connection and keeping it: none is lost when this ends
                for _ in range(BACKLOG):
                    connection, address = listening.accept()
                    connection.setblocking(False)
                    self._arrived(connection, str(address[0]))
            except BlockingIOError:
                continue
            except OSError as error:  # no descriptors left, or the caller has gone already
                log.warning("not_accepted", extra={"fields": {"reason": error.strerror or str(error)}})
                await asyncio.sleep(ACCEPT_PAUSE_S)

    def _arrived(self, connection: socket.socket, host: str) -> None:
        """A connection nobody has read from yet."""
        place = _network_of(host)
        here = len(self._strangers.get(place, ()))
        full = sum(map(len, self._strangers.values())) >= STRANGERS_MAX
        if (
            len(self._tasks) >= CONNECTIONS_MAX
            or here >= STRANGERS_PER_HOST_MAX
            or (full and not self._make_room(here))
        ):
            self.refused += 1
            connection.close()
            return
        task = asyncio.create_task(self._serve(connection, place))
        self._fresh[task] = connection
        self._strangers.setdefault(place, {})[task] = None
        self._tasks.add(task)
        task.add_done_callback(self._gone)

    def _make_room(self, here: int) -> bool:
        """End the oldest stranger of the address that has most, if that has more than the newcomer's would."""
        busiest = max(self._strangers.values(), key=len)
        if len(busiest) <= here + 1:
            return False
        oldest = next(iter(busiest))
        del busiest[oldest]
        oldest.cancel()
        self.refused += 1
        return True

    def cut(self, member: bytes) -> None:
        """End all streams of a member."""
        for task in self._members.get(member, ()):
            task.cancel()

    def _broken(self, accepting: asyncio.Task[None]) -> None:
        error = None if accepting.cancelled() else accepting.exception()
        if error is not None:
            log.critical("not_accepting", exc_info=error)
            self.on_broken()

    def cut_if(self, unwanted: Callable[[FrameStream], bool]) -> None:
        """End all streams of which that holds."""
        for stream in self._secure.values():
            if unwanted(stream):
                stream.abort()

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if (unserved := self._fresh.pop(task, None)) is not None:
            unserved.close()  # ended before it began
        self._secure.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("stream_handler_failed", exc_info=error)

    async def _serve(self, connection: socket.socket, place: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        del self._fresh[task]
        try:
            stream, member = await self._known_or_attended(connection, task)
        finally:
            strangers = self._strangers.get(place)
            if strangers is not None:
                strangers.pop(task, None)
                if not strangers:
                    del self._strangers[place]
        if stream is None or member is None:
            return
        others = self._members.setdefault(member, set())
        if len(others) >= PER_MEMBER_MAX:
            self.refused += 1
            await stream.closed()
            return
        others.add(task)
        try:
            await self._attend(stream)
        finally:
            others.discard(task)
            if not others:
                self._members.pop(member, None)

    async def _known_or_attended(
        self, connection: socket.socket, task: asyncio.Task[None]
    ) -> tuple[FrameStream | None, bytes | None]:
        """The stream of a member; a stranger's is attended to here, and not for ever."""
        try:
            async with asyncio.timeout(STRANGER_S_MAX):
                stream = self._secure[task] = await self._secured(connection)
                member = self._member_of(stream)
                if member is not None:
                    return stream, member
                await self._attend(stream)
        except (OSError, ssl.SSLError) as error:
            log.debug("stranger_ended", extra={"fields": {"reason": str(error)}})
        return None, None

    async def _secured(self, connection: socket.socket) -> FrameStream:
        """The stream behind the TLS handshake. Raises OSError, ssl.SSLError."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=FRAME_BYTES_MAX + 4)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=CONNECT_TIMEOUT_S,
            )
        except BaseException:
            connection.close()
            raise
        return FrameStream(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def _attend(self, stream: FrameStream) -> None:
        try:
            stream.write(encode_hello(self._hello()))
            purpose = await stream.read()
            handler = self._handlers.get(purpose)
            if handler is not None:
                await handler(stream, purpose)
        except StreamError as error:
            log.debug("stream_ended", extra={"fields": {"reason": str(error)}})
        finally:
            await stream.closed()


async def _readable(listening: socket.socket) -> None:
    """Wait until somebody calls."""
    loop = asyncio.get_running_loop()
    called: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not called.done():
            called.set_result(None)

    loop.add_reader(listening, wake)
    try:
        await called
    finally:
        loop.remove_reader(listening)


def _network_of(host: str) -> str:
    """Whose places an address uses up: an IPv6 host has a whole /64 to call from."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)
