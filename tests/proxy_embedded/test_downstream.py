"""A caller's connection: how much of what is pipelined is looked at, and when."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from proxy.embedded.downstream import REQUESTS_PER_TURN
from proxy.embedded.engine import Engine
from proxy.embedded.listeners import OutboundConnection
from proxy.embedded.runtime import Runtime
from proxy.snapshot import Destination, Limits, Listener, Snapshot

from .conftest import TRUST_DOMAIN


class Caller(asyncio.Transport):
    """The transport, with what the caller gets."""

    def __init__(self) -> None:
        super().__init__()
        self.got = b""
        self.reading = True
        self.aborted = self.closed = False

    @property
    def answers(self) -> list[str]:
        return [part.partition(b'"')[0].decode() for part in self.got.split(b'no service "')[1:]]

    def write(self, data: Any) -> None:
        self.got += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def write_eof(self) -> None: ...


@pytest.fixture
async def connection(engine: Engine) -> OutboundConnection:
    snapshot = Snapshot(
        version=1, node="n", node_name="n", trust_domain=TRUST_DOMAIN, limits=Limits(header_bytes_max=8192),
        listeners=(Listener(name="out", kind="outbound", caller="", caller_service="web"),),
    )  # fmt: skip
    runtime = Runtime.build(engine, snapshot, None, 0.0)
    runtime.commit()
    made = OutboundConnection(engine, runtime.listening["out"])
    made.connection_made(Caller())
    return made


def asking(*numbers: int) -> bytes:
    return b"".join(b"GET / HTTP/1.1\r\nhost: n%d\r\n\r\n" % number for number in numbers)


async def test_pipelined_requests_take_turns_with_other_connections(connection: OutboundConnection) -> None:
    caller: Any = connection.transport
    connection.data_received(asking(*range(1000)))
    turns = [len(caller.answers)]
    assert not caller.reading
    while len(caller.answers) < 1000:
        await asyncio.sleep(0)
        turns.append(len(caller.answers))
        assert len(turns) < 1000
    assert max(b - a for a, b in zip([0, *turns], turns, strict=False)) == REQUESTS_PER_TURN
    assert caller.answers == [f"n{number}" for number in range(1000)]
    assert caller.reading


async def test_a_kept_alive_connection_goes_where_the_present_snapshot_says(
    connection: OutboundConnection, engine: Engine
) -> None:
    def statuses() -> list[str]:
        caller: Any = connection.transport
        answers, caller.got = caller.got, b""
        return re.findall(r"HTTP/1.1 (\d+)", answers.decode())

    def serve(*services: str) -> None:
        destinations = tuple(
            Destination(service=name, namespace="default", port=80, protocol="tcp", cluster="")
            for name in services
        )
        Runtime.build(
            engine, replace(engine.runtime.snapshot, destinations=destinations), engine.runtime, 0.0
        ).commit()

    connection.data_received(asking(1, 1, 2))
    assert statuses() == ["404", "404", "404"]
    serve("n1")
    connection.data_received(asking(1, 1, 2, 1))
    assert statuses() == ["400", "400", "404", "400"]
    serve("n2")
    connection.data_received(asking(1, 2))
    assert statuses() == ["404", "400"]


async def test_no_request_is_begun_while_the_answers_before_are_not_taken(
    connection: OutboundConnection,
) -> None:
    caller: Any = connection.transport
    connection.data_received(asking(1))
    connection.pause_writing()
    assert caller.reading, "nothing more was asked yet"
    connection.data_received(asking(2, 3) + asking(4)[:10])
    assert (caller.answers, caller.reading) == (["n1"], False)
    connection.resume_writing()
    assert (caller.answers, caller.reading) == (["n1", "n2", "n3"], True)
    connection.data_received(asking(4)[10:])
    assert caller.answers == ["n1", "n2", "n3", "n4"]


async def test_a_caller_that_stops_taking_answers_in_the_middle_is_not_read_on(
    connection: OutboundConnection,
) -> None:
    caller: Any = connection.transport
    taken = caller.write

    def write(data: bytes) -> None:
        taken(data)
        if len(caller.answers) == 3:
            connection.pause_writing()

    caller.write = write
    connection.data_received(asking(*range(10)))
    assert (len(caller.answers), caller.reading) == (3, False)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(caller.answers) == 3
    connection.resume_writing()
    assert (len(caller.answers), caller.reading) == (10, True)


async def test_a_caller_that_never_takes_its_answers_is_cut_off(connection: OutboundConnection) -> None:
    caller: Any = connection.transport
    connection.data_received(asking(1))
    connection.pause_writing()
    connection.data_received(asking(2))
    connection.on_deadline()
    assert (caller.aborted, caller.answers) == (True, ["n1"])


async def test_an_end_to_waiting_begins_nothing_on_a_closing_connection(
    connection: OutboundConnection,
) -> None:
    caller: Any = connection.transport
    connection.pause_writing()
    connection.data_received(asking(1))
    caller.close()
    connection.resume_writing()
    assert caller.answers == []


@pytest.mark.parametrize("pieces", [[b"\r\n" * 5], [b"\r\n"] * 5, [b"\r", b"\n"] * 5, [b"\r\n" * 500_000]])
async def test_empty_lines_are_no_request_for_long(
    connection: OutboundConnection, pieces: list[bytes]
) -> None:
    caller: Any = connection.transport
    for piece in pieces:
        connection.data_received(piece)
    assert caller.got.startswith(b"HTTP/1.1 400 ")
    assert caller.got.count(b"HTTP/1.1 ") == 1
