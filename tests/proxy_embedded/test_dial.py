"""A connection under way: what comes of one that nobody answers, on the event loop that workers run on.

There the protocol of a connection exists before the connection does.
"""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest
import uvloop

from proxy.embedded.dial import Dial, Place
from proxy.embedded.engine import Engine
from trust.bundle import TrustBundle
from trust.tls import Caller

from .conftest import TRUST_DOMAIN, Issuer


@pytest.fixture
def hole() -> Iterator[int]:
    """A port that nobody answers at: its queue is full, so that the kernel drops what asks for a connection."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        yield int(listening.getsockname()[1])


@pytest.fixture
def place(issuer: Issuer, hole: int) -> Place:
    bundle = TrustBundle.from_pem(TRUST_DOMAIN, issuer.bundle_pem)
    context = Caller(certificate=None, bundle=bundle).expecting(f"spiffe://{TRUST_DOMAIN}/ns/default/sa/x")
    return Place(host="127.0.0.1", port=hole, context=context, server_name="x")


def run(story: Callable[[Engine], Awaitable[None]]) -> list[str]:
    """What the loop was told of that nobody caught."""
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context)))
        await story(Engine(loop, random.Random(1), None))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return told


def test_a_deadline_ends_it_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    failed: list[str] = []

    async def story(engine: Engine) -> None:
        Dial(engine, place, 0.05, asyncio.Protocol(), failed.append)
        await asyncio.sleep(0.15)

    assert run(story) == []
    assert failed == [f"no connection to {place} in time"]
    assert caplog.records == []


def test_whoever_does_not_want_it_any_more_is_told_nothing(place: Place) -> None:
    failed: list[str] = []

    async def story(engine: Engine) -> None:
        dial = Dial(engine, place, 5.0, asyncio.Protocol(), failed.append)
        await asyncio.sleep(0.05)
        dial.abandon()
        await asyncio.sleep(0.05)

    assert run(story) == []
    assert failed == []
