"""The driver: gives the pure node a clock, a socket, streams and a disk.

One queue of inputs, one timer, one thread for the disk. `feed` may be called from anywhere on the loop;
inputs that arise while the node is being stepped wait their turn, so the node never sees itself from inside.

Commits are grouped: while one transaction is being synced, everything the node wants stored next is collected
into the following one. The disk thread is the only one that touches the database.

Invariant: the clock given to the node never falls, whatever happens to the wall clock.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, assert_never

from crdt.record import encode_record
from gossip.events import Address
from gossip.member import Member, State
from peer.io.store import Batch, Store, StoreError
from peer.messages import (
    CloseStream,
    Departed,
    Input,
    Joined,
    Lagged,
    Level,
    MemberMoved,
    Note,
    OpenStream,
    Output,
    Persist,
    Persisted,
    PersistFailed,
    SendDatagram,
    SendFrame,
    StateChanged,
    Synced,
    Tick,
    Written,
)
from peer.node import Node

log = logging.getLogger("gossamer.node")
_LEVELS: Final = {Level.DEBUG: logging.DEBUG, Level.INFO: logging.INFO, Level.WARNING: logging.WARNING}
LAG_REPORTED_S: Final = 0.1


class Clock:
    """Unix time that never falls: the wall clock at start plus the monotonic clock since."""

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()

    def now(self) -> float:
        return self._base + time.monotonic()


class Streams(Protocol):
    """What the driver needs of the streams (`peer/io/stream.py`)."""

    def open(self, stream: int, address: Address, node: bytes | None) -> None: ...
    def send(self, stream: int, data: bytes) -> None: ...
    def close(self, stream: int) -> None: ...


class Disk:
    """The database, used from one thread, with commits grouped."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._waiting: list[tuple[Batch, asyncio.Future[None]]] = []
        self._worker: asyncio.Task[None] | None = None

    def commit(self, batch: Batch) -> asyncio.Future[None]:
        """Done when `batch` is on disk. Raises StoreError from the future when it is not."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return future

    async def run(self, action: Callable[[Store], object]) -> object:
        """Another use of the database on its own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, action, self._store)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            batch = _joined([b for b, _ in group])
            try:
                await loop.run_in_executor(self._thread, self._store.commit, batch)
            except StoreError as error:
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
            else:
                for _, future in group:
                    if not future.done():
                        future.set_result(None)
        self._worker = None

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()


def _joined(batches: list[Batch]) -> Batch:
    """One batch that does what these do in order: a key's last word counts, be it put or deleted."""
    last: dict[tuple[bytes, str, str], tuple[bytes, str, str, int, bytes] | None] = {}
    heads: dict[bytes, int] = {}
    introductions: dict[bytes, bytes] = {}
    for batch in batches:
        last.update(dict.fromkeys(batch.delete))
        last.update({row[:3]: row for row in batch.put})
        heads.update(batch.heads)
        introductions.update(batch.introductions)
    return Batch(
        put=[row for row in last.values() if row is not None],
        delete=[key for key, row in last.items() if row is None],
        heads=heads,
        introductions=introductions,
        spent=[row for batch in batches for row in batch.spent],
        forget_spent=[token for batch in batches for token in batch.forget_spent],
    )


class Driver:
    """Runs one node on the running event loop."""

    def __init__(self, node: Node, clock: Clock, disk: Disk) -> None:
        self.node = node
        self.clock = clock
        self.disk = disk
        self.streams: Streams | None = None
        self.datagrams: asyncio.DatagramTransport | None = None
        self.on_state: Callable[[], None] = lambda: None
        self.on_member: Callable[[Member, State | None], None] = lambda _member, _previous: None
        self.synced = asyncio.Event()
        self.departed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._inputs: deque[Input] = deque()
        self._stepping = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._answers: dict[int, asyncio.Future[Written | Joined]] = {}
        self._next_request = 1
        self._closed = False

    # ------------------------------------------------------------------ in

    def feed(self, event: Input) -> None:
        """Give the node an input; its outputs are carried out before this returns."""
        if self._closed:
            return
        self._inputs.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._inputs:
                for output in self.node.step(self.clock.now(), self._inputs.popleft()):
                    self._obey(output)
        finally:
            self._stepping = False
        self._schedule()

    async def ask(self, make: Callable[[int], Input]) -> Written | Joined:
        """Feed an input that carries a request number and wait for its answer."""
        request = self._next_request
        self._next_request += 1
        future: asyncio.Future[Written | Joined] = self._loop.create_future()
        self._answers[request] = future
        self.feed(make(request))
        return await future

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for future in self._answers.values():
            future.cancel()

    # ------------------------------------------------------------------ time

    def _schedule(self) -> None:
        deadline = self.node.deadline
        if self._timer is not None:
            if deadline is not None and abs(deadline - self._timer_at) < 0.0005:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None and not self._closed:
            self._timer_at = deadline
            self._timer = self._loop.call_later(max(0.0, deadline - self.clock.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        lag_s = self.clock.now() - self._timer_at
        if lag_s > LAG_REPORTED_S:
            self.feed(Lagged(lag_s=lag_s))
        self.feed(Tick())

    # ------------------------------------------------------------------ out

    def _obey(self, output: Output) -> None:
        match output:
            case SendDatagram():
                if self.datagrams is not None:
                    self.datagrams.sendto(output.data, output.address)
            case OpenStream():
                assert self.streams is not None
                self.streams.open(output.stream, output.address, output.node)
            case SendFrame():
                assert self.streams is not None
                self.streams.send(output.stream, output.data)
            case CloseStream():
                assert self.streams is not None
                self.streams.close(output.stream)
            case Persist():
                self._persist(output)
            case Written() | Joined():
                future = self._answers.pop(output.request, None)
                if future is not None and not future.done():
                    future.set_result(output)
            case Departed():
                self.departed.set()
            case StateChanged():
                self.on_state()
            case Synced():
                self.synced.set()
            case MemberMoved():
                self.on_member(output.member, output.previous)
            case Note():
                if log.isEnabledFor(_LEVELS[output.level]):
                    log.log(_LEVELS[output.level], output.event, extra={"fields": dict(output.fields)})
            case _:
                assert_never(output)

    def _persist(self, output: Persist) -> None:
        batch = Batch(
            put=tuple((r.writer, r.kind, r.key, r.seq, encode_record(r)) for r in output.put),
            delete=tuple((r.writer, r.kind, r.key) for r in output.delete),
            heads=output.heads,
            introductions=output.introductions,
        )
        future = self.disk.commit(batch)
        ticket = output.ticket

        def committed(done: asyncio.Future[None]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is not None:
                log.error("not stored", extra={"fields": {"reason": str(error)}})
            if ticket:
                self.feed(
                    Persisted(ticket=ticket)
                    if error is None
                    else PersistFailed(ticket=ticket, reason=str(error))
                )

        future.add_done_callback(committed)
