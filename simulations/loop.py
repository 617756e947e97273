"""The loop: events in order, and what becomes of each input a host's process gets and each output its node gives.

An event is a tuple `(time, sequence, handler, first, second)` (simulations/schedule.py): no object and no closure is
made for it. A host has one timer entry that counts; an entry that is not at `host.scheduled` any more was overtaken and
is dropped when its time comes. With the overhead of some 4 us an event, the speed of a world is that of its nodes.

Time is Unix seconds; it stands still while a node is stepped. What the node's work costs (`Costs`) makes the host busy
afterwards, and what it sends leaves at the end of that.

Invariant: events happen in the order of (time, sequence); a node is never stepped from within its own step.
"""

from collections.abc import Callable
from math import inf
from typing import Any, Final

from gossip.config import DATAGRAM_BYTES_MAX
from gossip.events import Address
from peer.driver import LAG_REPORTED_S
from peer.messages import (
    CloseStream,
    DatagramReceived,
    Evicted,
    Input,
    Joined,
    Lagged,
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
from simulations.crypto import Costs, Meter
from simulations.host import Host, Item
from simulations.network import Network
from simulations.schedule import Schedule
from simulations.streams import Greeting, Streams
from simulations.trace import Trace

TICKS_AT_ONCE_MAX: Final = 1000
ROUNDING_S: Final = 1e-6  # what Unix seconds in a float may be off by
_TICK: Final = Tick()


class SimulationError(Exception):
    """The world cannot go on: a node broke a promise it makes to its driver."""


class Loop:
    """See the module's theory. The `on_` lists are for observers; what they are told of has just happened."""

    def __init__(
        self, *, start: float, network: Network, costs: Costs, meter: Meter, disk_delay_s: float
    ) -> None:
        self.start_at = self.now = start
        self.leaves = start  # when what is being sent leaves its host
        self.events = 0
        self.network = network
        self.streams = Streams(self)
        self.costs = costs
        self.disk_delay_s = disk_delay_s
        self.trace: Trace | None = None
        self.on_output: Callable[[Host, Output], None] | None = None
        self.on_moved: list[Callable[[Host, MemberMoved], None]] = []
        self.on_written: list[Callable[[Host, Written], None]] = []
        self.on_note: list[Callable[[Host, Note], None]] = []
        self._meter = meter
        self._schedule = Schedule()
        self.push = self._schedule.put
        self._on_timer, self._on_datagram = self._timer, self._datagram  # bound once, not for each event
        self._by_address: dict[Address, Host] = {}
        self._obeying: dict[type, Callable[[Host, Any], None]] = {
            SendDatagram: self._send,
            OpenStream: self.streams.open,
            SendFrame: self.streams.send,
            CloseStream: self.streams.close,
            Persist: self._persist,
            MemberMoved: self._moved,
            Written: self._written,
            Note: self._noted,
            Synced: self._synced,
            StateChanged: _ignore,
            Joined: _ignore,
            Evicted: _ignore,
        }

    def run_to(self, end: float) -> None:
        """Let everything happen that is due by `end`."""
        count = 0
        for at, _, handler, first, second in self._schedule.upto(end):
            self.now = at
            count += 1
            handler(first, second)
        self.now = end
        self.events += count

    def now_of(self, host: Host) -> float:
        """What the host's clock shows."""
        return self.now if host.clock is None else host.clock.read(self.now)

    def host_at(self, address: Address) -> Host | None:
        return self._by_address.get(address)

    # ------------------------------------------------------------------ what arrives

    def arrive(self, host: Host, item: Item) -> None:
        """Something for the host's process: now, or when it gets to it."""
        if host.node is None:
            return
        if host.stopped or host.inbox or host.busy_until > self.now:
            self._wait(host, item)
        else:
            self._handle(host, item)

    def _datagram(self, host: Host, event: DatagramReceived) -> None:
        if host.node is None:
            host.traffic.datagrams_unheard += 1
            return
        host.traffic.datagrams_received += 1
        host.traffic.bytes_received += len(event.data)
        if host.stopped or host.inbox or host.busy_until > self.now:
            self._wait(host, event)
        else:
            self._step(host, event)

    def _wait(self, host: Host, item: Item) -> None:
        if type(item) is DatagramReceived:
            if host.datagrams_waiting >= host.inbox_datagrams_max:
                host.traffic.datagrams_overflowed += 1
                return
            host.datagrams_waiting += 1
        host.inbox.append(item)
        self._wake_later(host)

    def _wake_later(self, host: Host) -> None:
        if not host.stopped and not host.waking:
            host.waking = True
            self.push(max(host.busy_until, self.now), self._wake, host, host.life)

    def _wake(self, host: Host, life: int) -> None:
        if life == host.life:
            host.waking = False
            self._drain(host)

    def _drain(self, host: Host) -> None:
        """Handle what waits, until the host is busy again."""
        while host.inbox and not host.stopped and host.node is not None:
            if host.busy_until > self.now:
                self._wake_later(host)
                return
            item = host.inbox.popleft()
            if type(item) is DatagramReceived:
                host.datagrams_waiting -= 1
            self._handle(host, item)

    def _handle(self, host: Host, item: Item) -> None:
        if item is _TICK:
            host.tick_waits = False
            self._tick(host)
        elif isinstance(item, Greeting):
            self.streams.greet(host, item)
        else:
            self._step(host, item)

    # ------------------------------------------------------------------ timers

    def _arm(self, host: Host) -> None:
        """Set the timer to the node's deadline."""
        node = host.node
        if node is None or host.tick_waits:
            return
        if (
            host.clock is not None or node.deadline < host.scheduled
        ):  # mostly the entry that counts comes first
            self._arm_at(host, node.deadline)

    def _arm_at(self, host: Host, deadline: float) -> None:
        """An earlier entry that counts stays: when it fires it is found to be early, and the next one is set."""
        at = deadline if host.clock is None else host.clock.when(deadline, self.now)
        if at < host.scheduled:
            host.timer_at = at
            host.scheduled = at = max(at, self.now)
            self.push(at, self._on_timer, host, at)

    def _timer(self, host: Host, at: float) -> None:
        if at != host.scheduled:
            return  # overtaken
        host.scheduled = inf
        if host.stopped:
            host.tick_waits = True
            host.inbox.appendleft(_TICK)
        elif host.inbox or host.busy_until > self.now:
            host.tick_waits = True
            self._wait(host, _TICK)
        else:
            self._tick(host)

    def _tick(self, host: Host) -> None:
        assert host.node is not None, "timers end with the process"
        deadline = host.node.deadline
        short_s = deadline - self.now_of(host)
        if short_s > ROUNDING_S:
            self._arm_at(host, deadline)  # it has moved on since
            return
        if host.clock is not None and short_s > 0:
            host.clock.reached(deadline)
        self._count_ticks(host)
        lag_s = self.now - host.timer_at
        if lag_s > LAG_REPORTED_S:
            host.lags += 1
            self._step(host, Lagged(lag_s=lag_s))
        self._step(host, _TICK)

    def _count_ticks(self, host: Host) -> None:
        host.ticks_now = host.ticks_now + 1 if host.ticked_at == self.now else 0
        host.ticked_at = self.now
        if host.ticks_now > TICKS_AT_ONCE_MAX:
            raise SimulationError(f"{host.name} ticks without end at {self.now - self.start_at:.6f} s")

    # ------------------------------------------------------------------ steps

    def charge(self, host: Host, seconds: float) -> None:
        """The host's processor is busy for so long; what is sent next leaves then."""
        host.busy_until = self.leaves = max(host.busy_until, self.now) + seconds

    def _step(self, host: Host, event: Input) -> None:
        """Give the node an input and carry out what it answers."""
        assert host.node is not None, "inputs are for processes"
        now = self.now
        seen = now if host.clock is None else host.clock.read(now)
        meter = self._meter
        meter.s = self.costs.input_s + host.service_s
        if self.trace is not None:
            self.trace.event(now, host, event)
        outputs = host.node.step(seen, event) if host.liar is None else host.liar.step(seen, event)
        begins = max(now, host.busy_until)
        host.busy_until = self.leaves = begins + meter.s
        obeying = self._obeying
        if self.trace is None and self.on_output is None:
            for output in outputs:
                obeying[type(output)](host, output)
        else:
            for output in outputs:
                self._show(host, output)
                obeying[type(output)](host, output)
        self._arm(host)

    def _show(self, host: Host, output: Output) -> None:
        if self.trace is not None:
            self.trace.event(self.now, host, output)
        if self.on_output is not None:
            self.on_output(host, output)

    def _send(self, host: Host, output: SendDatagram) -> None:
        data = output.data
        size = len(data)
        if size > DATAGRAM_BYTES_MAX:
            raise SimulationError(f"{host.name} sends a datagram of {size} bytes")
        traffic = host.traffic
        traffic.datagrams_sent += 1
        traffic.bytes_sent += size
        target = self._by_address.get(output.address)
        if target is None:
            return
        network = self.network
        if network.plain:
            within = network.within
            at = self.leaves + within.base_s + within.jitter_s * network.rng.random()
            self.push(at, self._on_datagram, target, DatagramReceived(source=host.address, data=data))
            return
        for delay_s in network.delays_s(host.index, target.index):
            arrives = network.damaged(data) if network.corruption else data
            if not arrives:
                continue
            event = DatagramReceived(source=host.address, data=arrives)
            self.push(self.leaves + delay_s, self._on_datagram, target, event)

    def _persist(self, host: Host, batch: Persist) -> None:
        if host.disk.want(batch):
            self.push(self.leaves + self.disk_delay_s, self._on_disk, host, host.life)

    def _on_disk(self, host: Host, life: int) -> None:
        if life != host.life or host.node is None:
            return
        if host.disk.full:
            for ticket in host.disk.refused():
                self.arrive(host, PersistFailed(ticket=ticket, reason="no space left on device"))
        else:
            for ticket in host.disk.synced():
                self.arrive(host, Persisted(ticket=ticket))
        if host.disk.busy:
            self.push(self.now + self.disk_delay_s, self._on_disk, host, life)

    def _moved(self, host: Host, output: MemberMoved) -> None:
        for observer in self.on_moved:
            observer(host, output)

    def _written(self, host: Host, output: Written) -> None:
        for observer in self.on_written:
            observer(host, output)

    def _noted(self, host: Host, output: Note) -> None:
        for observer in self.on_note:
            observer(host, output)

    def _synced(self, host: Host, _output: Synced) -> None:
        host.disk.entered, host.disk.doubt = True, False


def _ignore(_host: Host, _output: Output) -> None:
    """What only a data plane or a person would act on."""
