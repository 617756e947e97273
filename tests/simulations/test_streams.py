"""Streams between hosts, spoken by hand: hosts whose nodes only listen."""

from collections import defaultdict
from math import inf
from typing import Any

import pytest

from peer.io.exchange import IDLE_S_MAX
from peer.io.stream import CONNECT_TIMEOUT_S
from peer.messages import CloseStream, OpenStream, Output, SendFrame, StreamClosed, StreamFrame, StreamOpened
from peer.node import Node
from simulations.network import Latency, apart, one_way
from simulations.streams import HANDSHAKE_CALLER_BYTES, PURPOSE_BYTES, RTO_S, wire_bytes
from simulations.world import START, World

WAY_S = 0.01


class Ear(Node):
    """Stands in for a node: remembers what it is told and answers nothing."""

    def __init__(self) -> None:
        self.deadline = inf
        self.heard: list[tuple[float, Any]] = []

    def step(self, now: float, event: Any) -> list[Output]:
        self.heard.append((now, event))
        return []

    @property
    def events(self) -> list[Any]:
        return [event for _, event in self.heard]


class Line:
    """Two hosts and a stream from the first to the second."""

    def __init__(self) -> None:
        self.world = World(seed=1, crypto="real", within=Latency(base_s=WAY_S))
        self.ears: dict[int, Ear] = defaultdict(Ear)
        for index in range(2):
            host = self.world.add(seeds=[0] if index else [])
            host.node = self.ears[index]
        self.caller, self.callee = self.world.hosts

    def open(self, node: bytes | None = None) -> None:
        self.world.leaves = self.world.now
        self.world.streams.open(self.caller, OpenStream(stream=1, address=self.callee.address, node=node))

    def say(self, *frames: bytes) -> None:
        self.world.leaves = self.world.now
        for frame in frames:
            self.world.streams.send(self.caller, SendFrame(stream=1, data=frame))

    def frames(self) -> list[bytes]:
        return [event.data for event in self.ears[1].events if isinstance(event, StreamFrame)]

    def closed(self, index: int) -> list[tuple[float, str]]:
        return [
            (at - START, event.reason)
            for at, event in self.ears[index].heard
            if isinstance(event, StreamClosed)
        ]


@pytest.fixture
def line() -> Line:
    return Line()


def test_opening_takes_the_round_trips_of_tcp_tls_and_greeting(line: Line) -> None:
    line.open(line.callee.id)
    line.world.run(1)
    ((at, opened),) = line.ears[0].heard
    assert opened == StreamOpened(stream=1, node=line.callee.id, inbound=False)
    assert at - START == pytest.approx(6 * WAY_S)
    ((at, opened),) = line.ears[1].heard
    assert opened == StreamOpened(stream=2, node=line.caller.id, inbound=True)
    assert at - START == pytest.approx(7 * WAY_S)
    assert line.caller.traffic.stream_bytes_sent == HANDSHAKE_CALLER_BYTES + PURPOSE_BYTES


def test_frames_arrive_in_order_and_are_counted_as_tls_records(line: Line) -> None:
    line.open()
    line.world.run(1)
    before = line.caller.traffic.stream_bytes_sent
    line.say(b"a" * 100, b"b" * 20_000, b"c")
    line.world.run(1)
    assert line.frames() == [b"a" * 100, b"b" * 20_000, b"c"]
    assert line.caller.traffic.stream_bytes_sent - before == (100 + 26) + (20_000 + 48) + (1 + 26)
    assert wire_bytes(100) == 126


def test_the_other_end_hears_the_close_after_what_was_said_before_it(line: Line) -> None:
    line.open()
    line.world.run(1)
    line.say(b"last words")
    line.world.streams.close(line.caller, CloseStream(stream=1))
    line.world.run(1)
    assert isinstance(line.ears[1].events[-2], StreamFrame)
    assert line.ears[1].events[-1] == StreamClosed(stream=2)
    assert line.closed(0) == []
    assert not line.caller.streams
    assert not line.callee.streams


def test_a_lost_frame_comes_late_and_holds_up_those_behind_it(line: Line) -> None:
    line.open()
    line.world.run(1)
    line.world.network.cut("w", apart([[0], [1]]))
    line.say(b"a")
    line.world.run(RTO_S / 2)
    line.world.network.heal()
    line.say(b"b")
    line.world.run(RTO_S / 4)
    assert line.frames() == []
    line.world.run(RTO_S)
    assert line.frames() == [b"a", b"b"]
    assert line.world.streams.retransmitted == 1


def test_frames_need_their_acknowledgement_so_a_cut_of_either_direction_stops_them(line: Line) -> None:
    line.open()
    line.world.run(1)
    line.world.network.cut("w", one_way([1], [0]))
    line.say(b"a")
    line.world.run(5)
    assert line.frames() == []


def test_a_stream_that_stays_cut_ends_on_both_sides(line: Line) -> None:
    line.open()
    line.world.run(1)
    line.world.network.cut("w", apart([[0], [1]]))
    line.say(b"a")
    line.world.run(IDLE_S_MAX + 11)
    for index in (0, 1):
        ((at, reason),) = line.closed(index)
        assert at >= 1 + IDLE_S_MAX
        assert "no frame within" in reason


@pytest.mark.parametrize("source", [0, 1])
def test_connecting_needs_both_directions(line: Line, source: int) -> None:
    line.world.network.cut("w", one_way([source], [1 - source]))
    line.open()
    line.world.run(20)
    ((at, reason),) = line.closed(0)
    assert at == pytest.approx(CONNECT_TIMEOUT_S)
    assert "no connection" in reason
    assert line.ears[1].heard == []


def test_a_first_packet_that_was_lost_is_sent_again(line: Line) -> None:
    line.world.network.cut("w", apart([[0], [1]]))
    line.open()
    line.world.run(0.5)
    line.world.network.heal()
    line.world.run(3)
    assert isinstance(line.ears[0].events[0], StreamOpened)


def test_a_dead_process_refuses_and_a_dark_machine_says_nothing(line: Line) -> None:
    line.callee.node = None
    line.open()
    line.world.run(1)
    assert line.closed(0) == [(pytest.approx(2 * WAY_S), "connection refused")]
    line.callee.powered = False
    line.open()
    line.world.run(20)
    assert "no connection" in line.closed(0)[1][1]


def test_whoever_is_not_the_node_asked_for_is_hung_up_on(line: Line) -> None:
    line.open(bytes(16))
    line.world.run(1)
    ((_, reason),) = line.closed(0)
    assert "another node" in reason
    assert line.ears[1].heard == []


def test_a_process_that_dies_resets_its_streams(line: Line) -> None:
    line.open()
    line.world.run(1)
    line.callee.life += 1
    line.world.streams.crashed(line.callee)
    line.world.run(1)
    ((at, reason),) = line.closed(0)
    assert at == pytest.approx(1 + WAY_S)
    assert reason == "connection reset"


def test_a_stopped_process_lets_callers_wait_and_takes_part_once_it_runs_again(line: Line) -> None:
    line.world.stop(line.callee)
    line.open()
    line.world.run(2)
    assert line.ears[0].heard == []
    line.world.resume(line.callee)
    line.world.run(1)
    assert isinstance(line.ears[0].events[0], StreamOpened)
