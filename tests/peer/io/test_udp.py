"""The gossip socket: what is received, what is dropped, and addresses that nothing can be sent to."""

import asyncio
from typing import Any

import pytest
import uvloop

from peer.io.udp import DATAGRAM_BYTES_MAX, open_datagrams

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: Any) -> Any:
    def on_loop(story: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(story, 20))

    return on_loop


async def until(holds: Any) -> None:
    while not holds():
        await asyncio.sleep(0.001)


class Two:
    """Two sockets and what they heard."""

    async def __aenter__(self) -> "Two":
        self.heard: list[tuple[Any, bytes]] = []
        self.near = await open_datagrams("127.0.0.1", 0, lambda *_: None)
        self.far = await open_datagrams(
            "127.0.0.1", 0, lambda source, data: self.heard.append((source, data))
        )
        self.address = self.far._transport.get_extra_info("sockname")[:2]
        return self

    async def __aexit__(self, *_: Any) -> None:
        for socket in (self.near, self.far):
            socket.close()
        for _ in range(3):
            await asyncio.sleep(0)


def test_a_datagram_arrives_with_its_source(run: Any) -> None:
    async def story() -> None:
        async with Two() as two:
            two.near.send(two.address, b"hello")
            await until(lambda: two.heard)
            assert two.heard == [(two.near._transport.get_extra_info("sockname")[:2], b"hello")]

    run(story())


def test_one_too_large_is_counted_and_not_looked_at(run: Any) -> None:
    async def story() -> None:
        async with Two() as two:
            for size in (DATAGRAM_BYTES_MAX + 1, 9000, DATAGRAM_BYTES_MAX):
                two.near.send(two.address, bytes(size))
            await until(lambda: two.heard and two.far.oversized == 2)
            assert [len(data) for _, data in two.heard] == [DATAGRAM_BYTES_MAX]

    run(story())


@pytest.mark.parametrize(
    "address",
    [("::1", 7946), ("127.0.0.1", 0), ("127.0.0.1", 65536), ("127.0.0.1", -1), ("not-an-address.invalid", 7946),
     ("999.0.0.1", 7946), ("255.255.255.255", 7946), ("", 7946)],
)  # fmt: skip
def test_an_address_another_member_made_up_costs_one_count_and_never_the_socket(
    run: Any, address: Any
) -> None:
    async def story() -> None:
        async with Two() as two:
            two.near.send(address, b"x")
            await until(lambda: two.near.errors == 1 or address[0] == "")
            two.near.send(two.address, b"still here")
            await until(lambda: two.heard)

    run(story())


def test_a_port_in_use_is_an_error(run: Any) -> None:
    async def story() -> None:
        async with Two() as two:
            with pytest.raises(OSError, match="in use"):
                await open_datagrams(*two.address, lambda *_: None)

    run(story())


def test_nothing_is_sent_after_the_end(run: Any) -> None:
    async def story() -> None:
        two = Two()
        async with two:
            pass
        two.near.send(two.address, b"late")
        assert two.heard == []
        assert two.near.errors == 1

    run(story())
