"""A root that nobody holds, on real processes: made by three, grown to three of five, and the loss of signers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from peer.admin.client import AdminClient
from peer.demo.mesh import LocalMesh, LocalPeer

NETWORK = "127.10.24"
pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

TTL_S = 20


async def ask(peer: LocalPeer, method: str, *words: Any) -> Any:
    return await asyncio.to_thread(getattr(AdminClient(peer.directory), method), *words)


async def founded(mesh: LocalMesh, count: int, *flags: str) -> None:
    """The first `count` peers make the mesh together."""
    code, token, _ = await mesh.peers[0].try_command("token", "create", "--bootstrap")
    assert code == 0
    seeds = [word for peer in mesh.peers[:count] for word in ("--seed", f"{peer.host}:7946")]
    together = ("--bootstrap-expect", str(count), "--token", token.strip(), *seeds, *flags)
    await asyncio.gather(*(peer.start(*together) for peer in mesh.peers[:count]))


@pytest.fixture
async def mesh() -> AsyncIterator[LocalMesh]:
    """Three founders and two that joined; the signers grow without being told to."""
    async with LocalMesh(6, network=NETWORK) as made:
        config = made.directory / "gossamer.yaml"
        config.write_text(f"svid: {{ttl_s: {TTL_S}}}\nca: {{settle_s: 0.5, gone_s: 3600}}\n")
        flags = ("--config", str(config), "--log-level", "debug")
        try:
            await founded(made, 3, *flags)
            for peer in made.peers[3:5]:
                await made.join(peer, *flags)
            yield made
        finally:
            for peer in made.peers:
                print(f"---- {peer.name}\n{peer.log[-3000:]}")


def told(peer: LocalPeer) -> set[str]:
    return {line for line in peer.log.splitlines() if line.startswith("founded ")}


async def test_three_found_two_join_three_of_five_sign_and_the_mesh_outlives_its_signers(
    mesh: LocalMesh, until: Any
) -> None:
    founders = mesh.peers[:3]
    (fingerprint,) = told(founders[0])
    assert all(told(peer) == {fingerprint} for peer in founders)

    async def grown() -> bool:
        statuses = [await ask(peer, "ca_status") for peer in mesh.peers[:5]]
        return all(
            (each["threshold"], len(each["signers"]), each["answering"]) == (3, 5, 5) for each in statuses
        )

    took = await until(grown, "three of five", 30)
    print(f"three of five {took:.1f} s after the last joined")
    status = json.loads(await mesh.peers[4].command("ca", "status", "-o", "json"))
    assert {row["name"] for row in status["signers"]} == {peer.name for peer in mesh.peers[:5]}
    assert (status["mode"], status["can_issue"], status["margin"]) == ("threshold", True, 2)
