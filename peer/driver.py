"""The driver: gives the pure node a clock, a socket, streams and a disk.

One queue of inputs and one timer. `feed` may be called from anywhere on the loop; inputs that arise while the node is
being stepped wait their turn, so the node never sees itself from inside.

Invariant: every output of a step is carried out, in order. Where that is impossible (a fault of the program) nothing
more is fed to the node, and `on_broken` is told: its state and the world's no longer agree.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, assert_never

from crdt.record import encode_record
from gossip.events import Address
from gossip.member import Member, State
from peer.clock import Clock
from peer.disk import Disk
from peer.io.store import Batch
from peer.lateness import Lateness
from peer.messages import (
    CloseStream,
    Departed,
    Evicted,
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


class Streams(Protocol):
    """What the driver needs of the streams (`peer/io/stream.py`)."""

    def open(self, stream: int, address: Address, node: bytes | None) -> None: ...
    def send(self, stream: int, data: bytes) -> None: ...
    def close(self, stream: int) -> None: ...


class Datagrams(Protocol):
    """What the driver needs of the gossip socket (`peer/io/udp.py`)."""

    def send(self, address: Address, data: bytes) -> None: ...


class DriverClosedError(Exception):
    """The peer is stopping: the question was not answered. What it asked for may have happened."""


class Driver:
    """Runs one node on the running event loop."""

    def __init__(self, node: Node, clock: Clock, disk: Disk) -> None:
        self.node = node
        self.clock = clock
        self.disk = disk
        self.streams: Streams | None = None
        self.datagrams: Datagrams | None = None
        self.on_state: Callable[[], None] = lambda: None
        self.on_member: Callable[[Member, State | None], None] = lambda _member, _previous: None
        self.on_evicted: Callable[[bytes], None] = lambda _node: None
        self.on_broken: Callable[[], None] = lambda: None
        self.lateness = Lateness()
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
        whole = False
        try:
            while self._inputs:
                for output in self.node.step(self.clock.now(), self._inputs.popleft()):
                    self._obey(output)
            whole = True
        finally:
            self._stepping = False
            if not whole:
                self.close()
                self.on_broken()
        self._schedule()

    async def ask(self, make: Callable[[int], Input]) -> Written | Joined:
        """Feed an input that carries a request number and wait for its answer. Raises DriverClosedError."""
        if self._closed:
            raise DriverClosedError("the peer is stopping")
        request = self._next_request
        self._next_request += 1
        future: asyncio.Future[Written | Joined] = self._loop.create_future()
        self._answers[request] = future
        try:
            self.feed(make(request))
            return await future
        finally:
            self._answers.pop(request, None)
            if future.done() and not future.cancelled():
                future.exception()  # if feeding failed, nobody asks for it any more

    def close(self) -> None:
        """Feed the node nothing more. What is on its way to the disk still gets there."""
        self._closed = True
        self._inputs.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in self._answers.values():
            if not future.done():
                future.set_exception(DriverClosedError("the peer is stopping"))

    # ------------------------------------------------------------------ time

    def _schedule(self) -> None:
        deadline = self.node.deadline if not self._closed else None
        if self._timer is not None:
            if deadline is not None and abs(deadline - self._timer_at) < 0.0005:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer_at = deadline
            self._timer = self._loop.call_later(max(0.0, deadline - self.clock.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.clock.now()
        lag_s = now - self._timer_at
        if lag_s > LAG_REPORTED_S:
            self.lateness.note(now, lag_s)
            self.feed(Lagged(lag_s=lag_s))
        self.feed(Tick())

    # ------------------------------------------------------------------ out

    def _obey(self, output: Output) -> None:
        match output:
            case SendDatagram():
                if self.datagrams is not None:
                    self.datagrams.send(output.address, output.data)
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
            case Evicted():
                self.on_evicted(output.node)
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
            forks={
                fork.writer: (encode_record(fork.first), encode_record(fork.second)) for fork in output.forks
            },
        )
        if not output.ticket:
            self.disk.owe(batch)
            return
        ticket = output.ticket

        def committed(done: asyncio.Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            self.feed(
                Persisted(ticket=ticket) if error is None else PersistFailed(ticket=ticket, reason=str(error))
            )

        self.disk.commit(batch).add_done_callback(committed)
