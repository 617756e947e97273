"""Bad updates: a policy that ends the workers of one host costs that host the policy, and nobody anything else."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from peer.demo.mesh import LocalMesh, LocalPeer

NETWORK = "127.10.31"
pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


def route(name: str, path: str) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"kind": "Service", "name": "cart"}],
            "rules": [
                {
                    "matches": [{"path": {"value": path}}],
                    "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "moved"}}],
                }
            ],
        },
    }


async def apply(peer: LocalPeer, document: dict[str, Any]) -> None:

    await peer.command("apply", "-f", "-", stdin=json.dumps(document))


async def reasons(peer: LocalPeer) -> dict[str, str]:
    found = {}
    for each in await peer.json("get", "httproute"):
        conditions = [c for c in each["status"]["conditions"] if c["type"] == "Accepted"]
        found[each["metadata"]["name"]] = conditions[0]["reason"] if conditions else ""
    return found


async def test_a_policy_that_ends_workers_is_quarantined_where_it_does_and_everybody_knows(
    mesh: LocalMesh, http: Any, until: Any
) -> None:
    healthy, sick = mesh.peers[0], mesh.peers[2]
    await sick.kill()
    sick.program = (str(Path(__file__).with_name("sick_peer.py")),)
    await sick.start("--seed", f"{healthy.host}:7946")
    service = {"service": {"name": "cart", "address": sick.host, "port": 8080}}
    await sick.command("service", "register", "-f", "-", stdin=json.dumps(service))

    async def redirected(path: str) -> bool:
        """Whether the sick host's own workers serve, and obey the route of this path."""
        url = f"http://{sick.host}:15001{path}"
        async with http.get(url, headers={"host": "cart"}, allow_redirects=False) as answer:
            return int(answer.status) == 302

    await apply(healthy, route("good", "/good"))
    await until(lambda: redirected("/good"), "the good route is obeyed")

    for name in ("poison-now", "poison-later"):
        await proven()
        await apply(healthy, route(name, f"/{name}"))

        async def quarantined(name: str = name) -> bool:
            return (await reasons(sick)).get(name) == "EndedDataPlaneWorkers"

        await until(quarantined, f"{name} is in quarantine", within_s=60)
        await until(lambda: redirected("/good"), "the good route is obeyed all the same")
        assert not await redirected(f"/{name}")
        assert (await reasons(healthy))[name] == "Accepted"

        async def told(name: str = name) -> bool:
            described = await healthy.json("describe", "httproute", name)
            return [each["node"] for each in described["status"]["notInForceAt"]] == [sick.name]

        await until(told, f"the author's peer knows where {name} is not in force", within_s=30)
        states = {
            each["node"]: each["state"]
            for each in (await healthy.json("describe", "httproute", name))["members"]["nodes"]
        }
        assert states[sick.name] == "held"
        code, _, err = await healthy.try_command(
            *("apply", "-f", "-", "--wait", "100%", "--timeout", "1s"),
            stdin=json.dumps(route(name, f"/{name}")),
        )
        assert code == 3, err  # unchanged, and still not in force everywhere
        assert f"missing: {sick.name}" in err
    warnings = {row["check"]: row["detail"] for row in await healthy.json("check")}
    assert f"HTTPRoute/default/poison-now at {sick.name}" in warnings["policies elsewhere"]
    await apply(healthy, route("later", "/later"))
    await until(lambda: redirected("/later"), "what comes later is obeyed")


async def proven() -> None:
    """Until what is served has proven itself: PROVEN_AFTER_S of the sick peer, and a little."""

    await asyncio.sleep(3.5)
