"""No acknowledged policy is lost, whatever is killed when.

`GOSSAMER_CRASH_ROUNDS` says how many rounds; the default is what the project promises. With `GOSSAMER_CRASH_S` it goes
on for so many seconds at least, and `pytest -s` shows what came of it (`make crashes`).
"""

import asyncio
import math
import os
import random
import time
from dataclasses import dataclass

import pytest

from peer.demo.mesh import LocalMesh, LocalPeer

NETWORK = "127.10.2"
pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]
ROUNDS = int(os.environ.get("GOSSAMER_CRASH_ROUNDS", "100"))
SECONDS = float(os.environ.get("GOSSAMER_CRASH_S", "0"))


@dataclass(slots=True)
class Attempt:
    """One write: when it was sent, when it was answered (never: infinity), and whether it was acknowledged."""

    sent: float
    answered: float = math.inf
    acknowledged: bool = False


class Author:
    """Applies one policy after another at one peer and remembers what became of each."""

    def __init__(self, peer: LocalPeer, numbers: "Numbers") -> None:
        self.peer = peer
        self.numbers = numbers
        self.attempts: dict[int, Attempt] = {}

    async def write(self, stop: asyncio.Event) -> None:
        from peer.admin.client import AdminClient, ClientError

        client = AdminClient(self.peer.directory)
        while not stop.is_set():
            number = self.numbers.next()
            document = {
                "apiVersion": "gossamer.dev/v1",
                "kind": "TrafficPolicy",
                "metadata": {"name": name_of(number)},
                "spec": {
                    "targetRefs": [{"kind": "Service", "name": "cart"}],
                    "timeouts": {"request": f"{number}s"},
                },
            }
            attempt = self.attempts[number] = Attempt(time.monotonic())
            try:
                await asyncio.to_thread(client.apply, [document], "test")
            except ClientError:
                await asyncio.sleep(0.02)  # the peer is down: that is the point
            else:
                attempt.answered, attempt.acknowledged = time.monotonic(), True


def name_of(number: int) -> str:
    return f"policy-{number % 400}"


class Numbers:
    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        self._last += 1
        return self._last


async def test_random_kill_and_restart_rounds_lose_no_acknowledged_policy(mesh: LocalMesh, until) -> None:
    rng = random.Random(20)
    stop = asyncio.Event()
    numbers = Numbers()
    authors = [Author(peer, numbers) for peer in mesh.peers]
    writing = [asyncio.create_task(author.write(stop)) for author in authors]
    seed = ("--seed", f"{mesh.peers[0].host}:7946", "--seed", f"{mesh.peers[1].host}:7946")
    kills, begun = 0, time.monotonic()
    while kills < ROUNDS or time.monotonic() - begun < SECONDS:
        kills += 1
        victim = rng.choice(mesh.peers)
        await asyncio.sleep(rng.uniform(0.0, 0.3))  # the moment of the crash, not a wait for anything
        await victim.kill()
        await victim.start(*seed)
    stop.set()
    await asyncio.gather(*writing)
    attempts = {number: attempt for author in authors for number, attempt in author.attempts.items()}
    written = {number: attempt for number, attempt in attempts.items() if attempt.acknowledged}
    acknowledged = {name_of(number) for number in written}
    assert len(acknowledged) > ROUNDS / 2

    async def everywhere() -> bool:
        views = await asyncio.gather(*(peer.json("get", "trafficpolicy") for peer in mesh.peers))
        names = [{resource["metadata"]["name"] for resource in view} for view in views]
        contents = [[{k: v for k, v in r.items() if k != "status"} for r in view] for view in views]
        return all(acknowledged <= name for name in names) and contents[0] == contents[1] == contents[2]

    await until(everywhere, "every acknowledged policy is at every peer")
    lost = 0
    for resource in await mesh.peers[0].json("get", "trafficpolicy"):
        number = int(resource["spec"]["timeouts"]["request"].removesuffix("s"))
        later = [n for n in written if name_of(n) == name_of(number) and n != number]
        lost += sum(attempts[n].sent > attempts[number].answered for n in later)
    took_s = time.monotonic() - begun
    print(f"{kills} kills in {took_s:.0f} s; {len(written)} writes acknowledged, {lost} lost")
    assert lost == 0  # no policy is at a version older than one acknowledged after it
    for peer in mesh.peers:
        assert "Traceback" not in peer.log
        assert "equivocation" not in peer.log
