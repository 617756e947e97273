"""Who may publish what, on real processes and through the command line."""

import asyncio
import json

import aiohttp
import pytest

from peer.demo.mesh import LocalMesh, LocalPeer

NETWORK = "127.10.10"
pytestmark = pytest.mark.process

ALLOW_NOTHING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, namespace: shop}
spec: {}
"""


def capability(name: str, node: str, *, delegate: bool) -> str:
    return json.dumps(
        {
            "apiVersion": "gossamer.dev/v1",
            "kind": "Capability",
            "metadata": {"name": name},
            "spec": {
                "subjects": [{"node": node}],
                "namespaces": ["shop"],
                "kinds": ["AuthorizationPolicy"],
                "delegate": delegate,
            },
        }
    )


async def apply(peer: LocalPeer, text: str) -> tuple[int, str]:
    code, _, error = await peer.try_command("apply", "--wait", "100%", "-f", "-", stdin=text)
    return code, error


async def test_a_namespace_is_closed_delegated_and_taken_back(
    mesh: LocalMesh, http: aiohttp.ClientSession
) -> None:
    first, second, third = mesh.peers
    ids = {member["name"]: member["id"] for member in await first.json("members")}

    code, error = await apply(second, capability("mine", ids[second.name], delegate=True))
    assert (code, "may not delegate" in error) == (
        1,
        True,
    )  # nothing is closed yet, and nobody may who does not govern
    assert (await apply(first, capability("shop", ids[second.name], delegate=True)))[0] == 0
    code, error = await apply(third, ALLOW_NOTHING % "third")
    assert code == 1
    assert f"{third.name} may not write AuthorizationPolicy in namespace shop" in error
    assert (await apply(second, capability("to-third", ids[third.name], delegate=False)))[0] == 0
    assert (await apply(third, ALLOW_NOTHING % "third"))[0] == 0
    code, _, error = await second.try_command("delete", "capability", "shop")
    assert code == 1
    assert f"Capability shop is that of {first.name}" in error

    table = await third.command("get", "capabilities")
    assert "shop" in table
    assert "to-third" in table
    described = await third.json("describe", "capability", "to-third")
    assert described["status"]["authorName"] == second.name

    await first.command("delete", "capability", "shop")  # and what was granted through it is gone with it
    async with asyncio.timeout(20):
        while await second.json("get", "all") or await third.json("get", "all"):
            await asyncio.sleep(0.05)
    code, error = await apply(third, ALLOW_NOTHING % "again")
    assert (code, "which is closed" in error) == (1, True)
    key = str(mesh.directory / "ann.key")
    ann = (await first.command("author", "create", key)).strip()
    named = {"subjects": [{"author": ann}], "namespaces": ["shop"], "kinds": ["*"]}
    granted = json.loads(capability("ann", "", delegate=False)) | {"spec": named}
    assert (await apply(first, json.dumps(granted)))[0] == 0
    text = ALLOW_NOTHING % "by-ann"
    for delegate in (third, second):  # who carries it does not matter, and a later one takes the place
        await delegate.command("apply", "--wait", "100%", "--author-key", key, "-f", "-", stdin=text)
        shown = await first.json("get", "authorizationpolicies", "by-ann", "-n", "shop")
        assert [each["status"]["conflict"] for each in shown] == [False]
        assert ann in shown[0]["metadata"]["annotations"]["gossamer.dev/author"]

    async with http.get(f"http://{second.host}:15020/metrics") as answer:
        assert 'gossamer_policies_refused{reason="namespace_closed"} 1.0' in await answer.text()
