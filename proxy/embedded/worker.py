"""The worker process: `python -m proxy.embedded.worker <stream fd> <socket-passing fd>`, started by process.py; where
there are several, `<board fd> <number> <workers>` follow.

It applies snapshots all or nothing: everything that can fail is done before anything is changed, and then one
reference is replaced. It ends when the control process does, which it notices at the end of the channel; signals
that reach the whole process group are left to the control process, which drains before it ends.

Invariant: an exception while a snapshot is prepared leaves every listener and every connection as it was.
"""

import asyncio
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import uvloop

from proxy.breaker import Breaker, SharedBreaker
from proxy.embedded.accepting import Acceptor, Seat
from proxy.embedded.access_log import FLUSH_INTERVAL_S, AccessLog
from proxy.embedded.board import NO_GROUP, Board
from proxy.embedded.engine import Engine
from proxy.embedded.ipc import (
    Apply,
    Drain,
    FrameReader,
    Message,
    Outcome,
    ProtocolError,
    Report,
    Started,
    encode_message,
    receive_sockets,
)
from proxy.embedded.listeners import accept
from proxy.embedded.memory import keep_freed_memory
from proxy.embedded.runtime import Runtime, UnservableError
from proxy.snapshot import Cluster, Snapshot, SnapshotError, decode_snapshot

REPORT_INTERVAL_S: Final = 1.0
BACKLOG: Final = 4096  # the kernel caps it at net.core.somaxconn
LOG_CLOSE_TIMEOUT_S: Final = 1.0

Decode = Callable[[bytes], Snapshot]
Server = asyncio.Server | Acceptor

log = logging.getLogger("gossamer.proxy.worker")


class Worker(asyncio.Protocol):
    """The worker's end of the channel, and its listeners."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        passing: socket.socket,
        access_log: AccessLog,
        decode: Decode = decode_snapshot,
        place: tuple[Board, int] | None = None,
    ) -> None:
        self._loop = loop
        self._decode = decode
        self._passing = passing
        self._access_log = access_log
        self._engine = engine = Engine(loop, random.Random(), access_log)
        self._seat: Seat | None = None
        self._place = place
        self._groups: dict[str, int] = {}  # of the clusters of the snapshot being applied
        if place is not None:
            engine.make_breaker = self._make_breaker
            board, number = place
            columns = [board.column(each) for each in range(board.workers)]
            own = columns.pop(number)
            self._seat = Seat(own, tuple(columns), lambda: len(engine.connections))
        access_log.on_dropped = lambda lines: engine.recorder.increment("access_log_dropped", lines)
        self._frames = FrameReader(self._deliver)
        self._transport: asyncio.Transport
        self._runtime: Runtime | None = None
        self._sockets: dict[int, socket.socket] = {}
        self._servers: dict[str, tuple[int, Server]] = {}
        self._orders: asyncio.Queue[Apply] = asyncio.Queue()
        self._draining: int | None = None
        self._drain_timer: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = loop.create_future()

    # ------------------------------------------------------------------ the channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's UnixTransport is one, by duck typing
        self._send(Started(os.getpid()))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
        except ProtocolError as error:
            log.error("the control process speaks another protocol: %s", error)
            self._transport.abort()

    def _deliver(self, message: Message) -> None:
        match message:
            case Apply():
                self._orders.put_nowait(message)
            case Drain():
                self._drain(message)
            case Started() | Outcome() | Report():
                raise ProtocolError("the control process sent an answer")

    def _send(self, message: Message) -> None:
        if not self._transport.is_closing():
            self._transport.write(encode_message(message))

    # ------------------------------------------------------------------ snapshots

    async def serve_orders(self) -> None:
        """Snapshots one after the other, for creating a listener may wait for the loop."""
        while True:
            order = await self._orders.get()
            policies: tuple[str, ...] = ()
            try:
                await self._apply(order)
                reason = ""
            except UnservableError as error:
                if error.__cause__ is not None and not isinstance(error.__cause__, ValueError):
                    log.error("a policy broke this worker's expectations", exc_info=error.__cause__)
                reason, policies = str(error) or "unservable", error.policies
            except (SnapshotError, ProtocolError, OSError) as error:
                reason = str(error)
            except (
                ArithmeticError,
                AssertionError,
                AttributeError,
                LookupError,
                RuntimeError,
                TypeError,
            ) as error:
                log.exception("a snapshot broke the worker's expectations; the one before goes on")
                reason = f"{type(error).__name__}: {error}"
            self._send(Outcome(order.request, reason, policies))

    async def _apply(self, order: Apply) -> None:
        self._sockets.update(receive_sockets(self._passing))
        snapshot = self._decode(order.snapshot)
        tokens = dict(order.tokens)
        for listener in snapshot.listeners:
            if tokens.get(listener.name) not in self._sockets:
                raise UnservableError(f"no socket for listener {listener.name!r}")
        names = (cluster.name for cluster in snapshot.clusters)
        self._groups = dict(zip(names, order.groups, strict=False))
        runtime = Runtime.build(self._engine, snapshot, self._runtime, time.monotonic())
        servers = await self._prepare_servers(tokens)
        # From here on nothing can fail.
        runtime.commit()
        self._runtime = runtime
        await self._switch_servers(tokens, servers)

    def _make_breaker(self, cluster: Cluster) -> Breaker:
        """For a worker among several: its part of limits that are all workers'."""
        group = self._groups.get(cluster.name, NO_GROUP)
        if self._place is None or group == NO_GROUP:
            return Breaker(cluster.breaker)
        board, number = self._place
        others = [board.group(each, group) for each in range(board.workers) if each != number]
        return SharedBreaker(cluster.breaker, board.group(number, group), others)

    async def _prepare_servers(self, tokens: dict[str, int]) -> dict[str, tuple[int, Server]]:
        """Servers for sockets not served yet, not accepting yet."""
        made: dict[str, tuple[int, Server]] = {}
        try:
            for name, token in tokens.items():
                if name in self._servers and self._servers[name][0] == token:
                    continue
                made[name] = (token, await self._server(name, self._sockets[token].dup()))
        except OSError:
            for _, server in made.values():
                server.close()
            raise
        return made

    async def _server(self, name: str, listening: socket.socket) -> Server:
        take = partial(accept, self._engine, name)
        if self._seat is not None:
            listening.setblocking(False)
            return Acceptor(self._loop, self._seat, take, listening)
        return await self._loop.create_server(take, sock=listening, backlog=BACKLOG, start_serving=False)

    async def _switch_servers(self, tokens: dict[str, int], made: dict[str, tuple[int, Server]]) -> None:
        for name in list(self._servers):
            if name in made or name not in tokens:
                self._servers.pop(name)[1].close()
        self._servers.update(made)
        for token in set(self._sockets) - set(tokens.values()):
            self._sockets.pop(token).close()
        if self._draining is None:
            for _, server in made.values():
                if isinstance(server, Acceptor):
                    server.start()
                else:
                    await server.start_serving()

    # ------------------------------------------------------------------ drain, telemetry

    def _drain(self, order: Drain) -> None:
        self._draining = order.request
        for _, server in self._servers.values():
            server.close()
        self._servers.clear()
        if self._seat is not None:
            self._seat.leave()
        self._drain_timer = self._loop.call_later(order.timeout_s, self._drained)
        self._engine.drain(self._drained)

    def _drained(self) -> None:
        if self._draining is None:
            return
        request, self._draining = self._draining, None
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        self._access_log.flush()
        self._report()
        self._send(Outcome(request, ""))

    def _report(self) -> None:
        if self._seat is not None and self._servers:
            self._seat.tell()
        engine = self._engine
        met = tuple(engine.met.take())
        if engine.met.untold:
            engine.recorder.increment("certificates_untold", engine.met.untold)
            engine.met.untold = 0
        series, counters = engine.recorder.take()
        report = Report(series, counters, engine.ejections(), len(engine.connections), met)
        self._send(report)

    async def tick(self) -> None:
        """Telemetry once a second; the access log more often."""
        flushes = round(REPORT_INTERVAL_S / FLUSH_INTERVAL_S)
        while True:
            for _ in range(flushes):
                await asyncio.sleep(FLUSH_INTERVAL_S)
                self._access_log.flush()
            self._engine.sweep()
            self._report()


async def serve(stream_fd: int, passing_fd: int, place: tuple[Board, int] | None, decode: Decode) -> None:
    """Run until the control process is gone. `place`: among the workers, where there are several."""
    loop = asyncio.get_running_loop()
    stream = socket.socket(fileno=stream_fd)
    stream.setblocking(False)
    passing = socket.socket(fileno=passing_fd)
    passing.setblocking(False)
    access_log = AccessLog(sys.stdout.fileno())
    worker = Worker(loop, passing, access_log, decode, place)
    await loop.create_connection(lambda: worker, sock=stream)
    gc.freeze()  # what exists now lives as long as the process: no need to look at it again
    gc.collect()  # and it does not count when the collector asks itself whether it is time for everything
    background = [loop.create_task(worker.serve_orders()), loop.create_task(worker.tick())]
    # A background task ends only by an error: then this process ends with it, and is restarted.
    done, _ = await asyncio.wait((worker.ended, *background), return_when=asyncio.FIRST_COMPLETED)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    access_log.close(LOG_CLOSE_TIMEOUT_S)
    for future in done:
        future.result()


def main(arguments: list[str], decode: Decode = decode_snapshot) -> int:
    """Entry point of the process. `decode` reads a snapshot; it raises SnapshotError."""
    if len(arguments) not in (2, 5) or not all(argument.isdecimal() for argument in arguments):
        sys.stderr.write("proxy.embedded.worker is started by the data plane, not by hand\n")
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Sent to the whole group on Ctrl-C and by service managers: the control process drains, then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stream, passing, *shared = map(int, arguments)
    place = (Board(shared[0], shared[2]), shared[1]) if shared else None
    keep_freed_memory()
    uvloop.run(serve(stream, passing, place, decode))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
