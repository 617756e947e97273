"""Upgrades in place and drains of real peers, under steady traffic: nothing of it may be seen by a caller."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from peer.demo.mesh import LocalMesh, LocalPeer
from peer.io.datadir import holder

from .conftest import Until
from .steady import Steady

NETWORK = "127.10.76"
pytestmark = pytest.mark.process

SERVICE = "service: {{name: {name}, address: {host}, port: 8080}}"


async def serve(mesh: LocalMesh, peer: LocalPeer, name: str, version: str) -> None:
    await mesh.application(name, version, peer.host, 8080)
    await peer.command("service", "register", "-f", "-", stdin=SERVICE.format(name=name, host=peer.host))


async def reachable(peer: LocalPeer, until: Until) -> None:
    async def answered() -> bool:
        probe = Steady(peer.host, 15001, "cart", callers=1)
        await probe.more(4)
        await probe.stop()
        return not probe.wrong

    await until(answered, "cart is reached")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_peers_are_upgraded_in_place_and_no_request_fails(mesh: LocalMesh, until: Until) -> None:
    web, cart, _ = mesh.peers
    await asyncio.gather(serve(mesh, web, "web", "v1"), serve(mesh, cart, "cart", "v1"))
    await reachable(web, until)
    load = Steady(web.host, 15001, "cart")
    await load.more(50)
    before = {member["name"]: member for member in await web.json("members")}
    for peer in (web, cart):
        assert peer.process is not None
        first = holder(peer.directory)
        assert first == peer.process.pid
        result = await peer.json("upgrade")
        assert holder(peer.directory) == result["pid"] != first
        await load.more(50)
    seen = len(cart.log)
    assert cart.process is not None
    os.kill(cart.process.pid, signal.SIGUSR2)  # what a service manager knows is the first process

    async def taken_over() -> bool:
        return "ready " in cart.log[seen:]

    await until(taken_over, "a third takes over from the second")
    await until(lambda: drained(web, 1), "the old worker to end", 30)
    await until(lambda: drained(cart, 2), "the old workers to end", 30)
    await load.more(50)
    await load.stop()
    assert not load.wrong, f"{load.wrong} of {load.answers.total()}, slowest {load.slowest_s:.2f} s"
    after = {member["name"]: member for member in await web.json("members")}
    assert [after[name]["id"] for name in sorted(after)] == [before[name]["id"] for name in sorted(before)]
    assert after["node-2"]["boot"] > before["node-2"]["boot"]
    assert {member["state"] for member in after.values()} == {"alive"}
    # the first process has stayed, and ends as the last one does
    assert runs(cart.process.pid)
    last = holder(cart.directory)
    assert last is not None
    await cart.kill(signal.SIGTERM)
    assert cart.process.returncode == 0
    assert not runs(last)


async def drained(peer: LocalPeer, times: int) -> bool:
    return peer.log.count("the workers of the process before have ended") == times


async def test_a_new_process_that_does_not_start_changes_nothing(mesh: LocalMesh, until: Until) -> None:
    web, _, third = mesh.peers
    await third.kill()
    broken = third.directory.parent / "third.yaml"
    broken.write_text("zone: rack-1\n")
    await third.start("--config", str(broken), "--seed", f"{web.host}:7946")
    before = holder(third.directory)
    broken.write_text("zone: [\n")
    code, _, words = await third.try_command("upgrade")
    assert code == 1
    assert "not upgraded: the new process ended with status 2" in words
    assert holder(third.directory) == before
    assert (await third.json("check"))[0]["status"] == "ok"
    broken.write_text("zone: rack-2\n")
    await third.command("upgrade")
    zones = {member["name"]: member["zone"] for member in await third.json("members")}
    assert zones["node-3"] == "rack-2", "the configuration is as it is now"


async def test_a_peer_that_leaves_drains_and_no_request_fails(mesh: LocalMesh, until: Until) -> None:
    web, first, second = mesh.peers
    await asyncio.gather(
        serve(mesh, web, "web", "v1"), serve(mesh, first, "cart", "v1"), serve(mesh, second, "cart", "v2")
    )
    await reachable(web, until)

    async def both_known() -> bool:
        return len([s for s in await web.json("service", "list") if s["name"] == "cart"]) == 2

    await until(both_known, "both carts are known")
    load = Steady(web.host, 15001, "cart")
    await load.more(100)
    await first.command("leave")
    await load.more(100)
    await first.start()
    await until(both_known, "both carts are known")
    await load.more(100)
    await second.kill(signal.SIGTERM)
    await load.more(100)
    await load.stop()
    assert not load.wrong, f"{load.wrong} of {load.answers.total()}, slowest {load.slowest_s:.2f} s"
