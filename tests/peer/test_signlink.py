"""The stream to one signer: opened when needed, closed when idle, and what cannot be delivered is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from peer import signlink
from peer.io.stream import StreamError
from peer.signlink import WAITING_MAX, SignLink
from trust.errors import SessionError

NODE = b"signer-000000000"


class Wire:
    """A stream that the test plays the other end of."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.frames: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.aborted = False

    def write(self, frame: bytes) -> None:
        self.written.append(frame)

    async def read(self, timeout_s: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                frame = await self.frames.get()
        except TimeoutError:
            raise StreamError(f"no frame within {timeout_s:g} s") from None
        if isinstance(frame, Exception):
            raise frame
        return frame

    def abort(self) -> None:
        self.aborted = True


class Bench:
    """A link, the streams it has opened, and what it told."""

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.heard: list[bytes] = []
        self.lost = 0
        self.refuses = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.link = SignLink(NODE, self._dial, self._heard, self._lost)

    async def _dial(self, node: bytes) -> Any:
        assert node == NODE
        await self.gate.wait()
        if self.refuses:
            raise StreamError(self.refuses)
        self.wires.append(Wire())
        return self.wires[-1]

    def _heard(self, node: bytes, frame: bytes) -> None:
        if frame == b"garbage":
            raise SessionError("this is not a signer's reply")
        self.heard.append(frame)

    def _lost(self, node: bytes) -> None:
        self.lost += 1

    async def turn(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    task = made.link.end()
    if task is not None:
        await asyncio.gather(task, return_exceptions=True)


async def test_frames_go_out_in_order_over_one_stream(bench: Bench) -> None:
    bench.link.send(b"1")
    bench.link.send(b"2")
    await bench.turn()
    bench.link.send(b"3")
    (wire,) = bench.wires
    assert wire.written == [b"1", b"2", b"3"]
    wire.frames.put_nowait(b"answer")
    await bench.turn()
    assert (bench.heard, bench.lost, bench.link.away) == ([b"answer"], 0, "")


async def test_who_cannot_be_reached_is_left_in_peace_for_a_moment(bench: Bench, monkeypatch: Any) -> None:
    bench.refuses = "cannot connect"
    bench.link.send(b"1")
    assert bench.lost == 0
    await bench.turn()
    assert (bench.lost, bench.link.away) == (1, "cannot connect")
    bench.refuses = ""
    bench.link.send(b"2")
    assert bench.lost == 1  # not from within `send`
    await bench.turn()
    assert (bench.lost, bench.wires) == (2, [])
    bench.link._retry_at = 0.0
    assert bench.link.away == ""
    bench.link.send(b"3")
    await bench.turn()
    assert bench.wires[0].written == [b"3"]


async def test_no_more_than_so_many_frames_wait_for_a_stream(bench: Bench) -> None:
    bench.gate.clear()
    for number in range(WAITING_MAX + 3):
        bench.link.send(bytes([number % 256]))
    await bench.turn()
    assert bench.lost == 3
    bench.gate.set()
    await bench.turn()
    assert len(bench.wires[0].written) == WAITING_MAX


@pytest.mark.parametrize("end", [b"", b"garbage", StreamError("connection lost")])
async def test_a_stream_that_ends_while_answers_are_owed_is_a_loss(
    bench: Bench, end: bytes | Exception
) -> None:
    bench.link.send(b"1")
    await bench.turn()
    bench.wires[0].frames.put_nowait(end)
    await bench.turn()
    assert (bench.lost, bench.wires[0].aborted) == (1, True)
    assert bench.link.away


async def test_a_stream_that_ends_when_nothing_is_owed_is_none(bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setattr(signlink, "IDLE_S", 0.01)
    bench.link.send(b"1")
    await bench.turn()
    bench.wires[0].frames.put_nowait(b"answer")
    while not bench.wires[0].aborted:
        await asyncio.sleep(0.001)
    await bench.turn()
    assert (bench.lost, bench.link.away) == (0, "")
    bench.link.send(b"2")
    await bench.turn()
    assert bench.wires[1].written == [b"2"]


async def test_its_end_is_no_loss(bench: Bench) -> None:
    bench.link.send(b"1")
    await bench.turn()
    task = bench.link.end()
    assert task is not None
    await asyncio.gather(task, return_exceptions=True)
    assert (bench.lost, bench.wires[0].aborted) == (0, True)
