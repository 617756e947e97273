"""The life of a policy from the command line, at three real peers."""

import asyncio
import json
import signal
import sqlite3
from typing import Any

import yaml

from peer.demo.mesh import LocalMesh, LocalPeer

NETWORK = "127.10.9"

DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin}
spec:
  targetRefs: [{kind: Service, name: cart}]
  action: DENY
  rules: [{to: [{operation: {paths: ["/admin*"]}}]}]
"""
LIMITS = """
apiVersion: gossamer.dev/v1
kind: TrafficPolicy
metadata: {name: limits}
spec:
  targetRefs: [{kind: Service, name: cart}]
  circuitBreaker: {maxConnections: 10}
"""
BOTH = f"{DENY}---{LIMITS}"


async def names(peer: LocalPeer) -> set[str]:
    return {row["metadata"]["name"] for row in await peer.json("get", "all")}


async def history(peer: LocalPeer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await peer.json("history", "authz", "no-admin")
    return rows


async def test_the_life_of_a_policy(mesh: LocalMesh, until) -> None:
    first, second, third = mesh.peers

    async def all_alive() -> bool:
        views = await asyncio.gather(*(peer.json("members") for peer in mesh.peers))
        return all([row["state"] for row in view] == ["alive"] * 3 for view in views)

    await until(all_alive, "every peer sees three members alive")

    # one bad document of two: named with its field, and nothing is published, by any of the commands
    bad = BOTH.replace("maxConnections: 10", "maxConnections: many")
    for command in ("validate", "diff", "apply", "delete"):
        code, out, err = await first.try_command(command, "-f", "-", stdin=bad)
        assert (code, out) == (2, "")
        assert err.startswith(
            "error: standard input: document 2: TrafficPolicy default/limits: spec.circuitBreaker"
        )
        assert "Traceback" not in err
    assert await names(first) == set()

    # diff says what apply then does
    code, out, err = await first.try_command("diff", "-f", "-", stdin=BOTH)
    assert code == 1
    assert "+++ file/AuthorizationPolicy/default/no-admin" in out
    assert err == "2 created, 0 changed, 0 unchanged\n"
    code, out, err = await first.try_command(
        "apply", "-f", "-", "--wait", "100%", "--timeout", "10s", stdin=BOTH
    )
    assert (code, len(out.splitlines())) == (0, 2)
    assert err.startswith("enforced by 3 of 3 members after ")
    assert len(err.splitlines()) == 1
    code, out, _ = await third.try_command("diff", "-f", "-", stdin=BOTH)
    assert (code, out) == (0, "")

    # describe at another peer: author, status, who enforces it
    shown = await second.json("describe", "authz", "no-admin")
    assert (shown["status"]["authorName"], shown["status"]["accepted"]) == ("node-1", True)
    assert {each["node"]: each["state"] for each in shown["members"]["nodes"]} == {
        f"node-{number}": "enforced" for number in (1, 2, 3)
    }

    # an edit at the second peer, a deletion at the third; history knows them, also after a crash
    edited = DENY.replace("/admin*", "/secret*")
    await second.command("apply", "-f", "-", "--wait", "100%", stdin=edited)
    await third.command("delete", "authz", "no-admin", "--wait", "100%")
    assert await names(first) == {"limits"}
    rows = await history(first)
    assert [(row["authorName"], row["action"], row["state"]) for row in rows] == [
        ("node-3", "deleted", "current"),
        ("node-2", "written", "replaced"),
        ("node-1", "written", "replaced"),
    ]
    assert [row["replaced"] for row in rows] == [[rows[1]["version"]], [rows[2]["version"]], []]
    text = await first.command("history", "authz", "no-admin", "--diff")
    assert "-        - /admin*" in text
    assert "+        - /secret*" in text

    # a member that hangs: published, not enforced everywhere, named, exit code 3
    assert third.process is not None
    third.process.send_signal(signal.SIGSTOP)
    try:
        code, out, err = await first.try_command(
            "apply", "-f", "-", "--wait", "100%", "--timeout", "2s", "-o", "json", stdin=DENY
        )
        assert code == 3
        assert "enforced by only 2 of 3 members after 2 s; missing: node-3" in err
        (row,) = json.loads(out)
        assert (row["action"], row["enforcement"]["missing"]) == ("created", ["node-3"])
        code, _, _ = await first.try_command(
            "apply", "-f", "-", "--wait", "60%", "--timeout", "5s", stdin=DENY
        )
        assert code == 0
    finally:
        third.process.send_signal(signal.SIGCONT)

    # several resources of one file are deleted at once, what is gone is named
    code, out, err = await second.try_command("delete", "-f", "-", "-o", "json", stdin=BOTH)
    assert code == 0
    seqs = sorted(int(each["version"].rpartition(":")[2]) for each in json.loads(out))
    assert seqs[1] == seqs[0] + 1
    code, _, err = await second.try_command("delete", "-f", "-", stdin=BOTH)
    assert (code, "there is no TrafficPolicy default/limits" in err) == (1, True)


async def test_history_survives_a_crash_and_the_loss_of_its_table(mesh: LocalMesh) -> None:
    first, *_ = mesh.peers
    for path in ("/a", "/b", "/c"):
        await first.command("apply", "-f", "-", stdin=DENY.replace("/admin*", path))
    before = await history(first)
    assert [yaml.safe_load(yaml.safe_dump(row["document"]))["spec"]["rules"][0]["to"] for row in before] == [
        [{"operation": {"paths": [path]}}] for path in ("/c", "/b", "/a")
    ]
    await first.kill()
    await first.start("--seed", f"{mesh.peers[1].host}:7946")
    assert await history(first) == before
    await first.kill()
    with sqlite3.connect(first.directory / "store.db") as database:
        database.execute("DROP TABLE history")
    database.close()
    await first.start("--seed", f"{mesh.peers[1].host}:7946")
    assert await history(first) == before[:1]  # what the journal itself holds
    await first.command("apply", "-f", "-", stdin=DENY)
    assert len(await history(first)) == 2
