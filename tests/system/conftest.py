"""Meshes of real peer processes for the tests of the whole. Each test module has a loopback network of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TextIO

import aiohttp
import pytest

from peer.demo.mesh import LocalMesh, LocalPeer

Until = Callable[[Callable[[], Awaitable[bool]], str], Awaitable[float]]


@pytest.fixture
async def mesh(request: pytest.FixtureRequest) -> AsyncIterator[LocalMesh]:
    """Three peers that see one another; the module's `NETWORK` says where they listen."""
    async with LocalMesh(3, network=request.module.NETWORK) as made:
        try:
            await made.start()
            yield made
        finally:
            if request.node.stash.get(FAILED, False):
                for peer in made.peers:
                    print(f"---- {peer.name}\n{peer.log[-8000:]}")


@pytest.fixture(autouse=True)
def no_traceback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process of a peer that is started as a `LocalPeer` says that it met what nobody had thought of."""
    logs: dict[str, TextIO] = {}
    start = LocalPeer.start

    async def started(peer: LocalPeer, *flags: str, **rest: Any) -> None:
        try:
            await start(peer, *flags, **rest)
        finally:
            if str(peer._log) not in logs:  # kept open: a mesh removes what it wrote when it ends
                logs[str(peer._log)] = peer._log.open(errors="replace")

    monkeypatch.setattr(LocalPeer, "start", started)
    yield
    told = {}
    for name, file in logs.items():
        with file:
            told[name] = file.read().partition("Traceback (most recent call last)")
    for name, (before, found, after) in told.items():
        assert not found, f"{name}: {before[-1000:]}{found}{after[:3000]}"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


@pytest.fixture
def until() -> Until:
    """Wait for a condition; the seconds it took."""

    async def wait(holds: Callable[[], Awaitable[bool]], what: str, within_s: float = 20.0) -> float:
        begun = time.monotonic()
        while not await holds():
            assert time.monotonic() - begun < within_s, f"{what}: not within {within_s:g} s"
            await asyncio.sleep(0.02)
        return time.monotonic() - begun

    return wait


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
