"""Another root, on real processes: while requests run, with a signer killed half-way, and for a peer that was away."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from peer.demo.mesh import LocalMesh, LocalPeer
from tests.system.leaks import Secrets
from tests.system.test_authority import (
    ask,
    flags_of,
    founded,
    metric,
    nothing_leaked,
    serving,
    standing,
    started,
)

NETWORK = "127.10.37"
pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

TTL_S = 60
OVERLAP_S = 30


@pytest.fixture
async def mesh() -> AsyncIterator[LocalMesh]:
    """Three founders, which sign, and a fourth that joined and does not."""
    async with LocalMesh(5, network=NETWORK) as made:
        config = made.directory / "gossamer.yaml"
        config.write_text(f"svid: {{ttl_s: {TTL_S}}}\nca: {{signers: 3, settle_s: 3600}}\n")
        try:
            await founded(made, 3, *flags_of(made))
            await made.join(made.peers[3], *flags_of(made))
            yield made
        finally:
            for peer in made.peers:
                print(f"---- {peer.name}\n{peer.log[-6000:]}")


class Calls:
    """Requests, one after the other, for as long as it is entered."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http, self._url = http, url
        self.done = 0
        self.failed: list[str] = []

    async def __aenter__(self) -> "Calls":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            try:
                async with self._http.get(self._url) as answer:
                    await answer.read()
                    if answer.status != 200:
                        self.failed.append(str(answer.status))
            except aiohttp.ClientError as error:
                self.failed.append(repr(error))
            self.done += 1
            await asyncio.sleep(0.02)


async def rolled(peer: LocalPeer, *words: str, overlap_s: int = OVERLAP_S) -> dict[str, Any]:
    code, out, err = await peer.try_command(
        "ca", "rollover", "--overlap", f"{overlap_s}s", "--timeout", "40s", "-o", "json", *words
    )
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


async def phase(peer: LocalPeer) -> str:
    found = (await ask(peer, "ca_status"))["rollover"]
    return "" if found is None else str(found["phase"])


async def root(peer: LocalPeer) -> str:
    return str((await ask(peer, "ca_status"))["root"])


async def test_the_mesh_goes_over_to_another_root_under_load(mesh: LocalMesh, http: Any, until: Any) -> None:
    first, second, third, _, fifth = mesh.peers[:5]
    secrets = Secrets()
    await mesh.join(fifth, *flags_of(mesh))
    url = await serving(mesh, http, until)
    old = await root(first)
    secrets.gather(peer.directory for peer in mesh.peers)
    await fifth.kill(signal.SIGKILL)
    async with Calls(http, url) as calls:
        made = await rolled(first)
        assert made["old"] != made["new"]

        async def over() -> bool:
            return all([await phase(peer) == "overlap" for peer in mesh.peers[:4]])

        await until(over, "all four have gone over", 30.0)
        new = await root(first)
        assert new != old
        secrets.gather(peer.directory for peer in mesh.peers)

        async def retired() -> bool:
            quiet = [not await phase(peer) for peer in mesh.peers[:4]]
            return all(quiet) and all("root_retired" in peer.log for peer in mesh.peers[:4])

        await until(retired, "the old root has ended", OVERLAP_S + 20.0)
    assert calls.done > 100
    assert not calls.failed
    for peer in mesh.peers[:4]:
        assert await root(peer) == new
        assert "root_retired" in peer.log
        assert await metric(http, peer, "gossamer_ca_roots") == 1.0
    for peer in (first, second, third):
        shares = sorted(path.name for path in (peer.directory / "keys").glob("share-*"))
        assert shares == ["share-0000000001.key"], "the old root's share is erased"
        assert not (peer.directory / "keys" / "rollover.key").exists()
    # One that was away for all of it follows, and so does the mesh when it is started anew.
    await fifth.start(*flags_of(mesh))

    async def follows() -> bool:
        return await root(fifth) == new and (await standing(fifth, "credential"))[0] == "ok"

    await until(follows, "the fifth has followed", 40.0)
    peers = mesh.peers
    for peer in peers:
        await peer.kill(signal.SIGTERM)
    await started(list(peers), *flags_of(mesh))
    async with http.get(url) as answer:
        assert answer.status == 200
    for peer in peers:
        assert (await standing(peer, "root"))[0] == "ok"
    await nothing_leaked(mesh, http, secrets, shares_min=6)


async def test_a_signer_killed_half_way_holds_nothing_up_and_comes_back(
    mesh: LocalMesh, http: Any, until: Any
) -> None:
    first, second, third = mesh.peers[:3]
    old = await root(first)
    asked = asyncio.create_task(rolled(first, overlap_s=120))

    async def asked_there() -> bool:
        return "rollover_asked" in third.log

    await until(asked_there, "the third signer was asked")
    await third.kill(signal.SIGKILL)
    made = await asked

    async def over() -> bool:
        return [await phase(peer) for peer in (first, second)] == ["overlap", "overlap"]

    await until(over, "those that are there have gone over", 40.0)
    new = await root(second)
    assert new != old
    await third.start(*flags_of(mesh))

    async def back() -> bool:
        return await root(third) == new and not (third.directory / "keys" / "rollover-request").exists()

    await until(back, "the third signer has gone over as well", 40.0)
    for peer in (first, second, third):
        found = await ask(peer, "ca_status")
        assert found["can_issue"] is True
        assert found["rollover"]["new"] == made["new"]

        async def at_rest(peer: LocalPeer = peer) -> bool:
            return (await standing(peer, "root"))[0] == "ok"

        await until(at_rest, "everybody has heard that the third signer has gone over")
