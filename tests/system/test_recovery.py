"""After the worst: damaged databases, full disks, absent signers. What was acknowledged comes back by itself."""

import asyncio
import json
import re
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from peer.demo.mesh import LocalMesh, LocalPeer, MeshError

NETWORK = "127.10.3"
pytestmark = pytest.mark.process

ROUTE = """
apiVersion: gossamer.dev/v1
kind: TrafficPolicy
metadata: {{name: {name}}}
spec: {{targetRefs: [{{kind: Service, name: cart}}], timeouts: {{request: {seconds}s}}}}
"""
SERVICE = "service: {{name: {name}, address: {host}, port: 8080}}"


async def apply(peer: LocalPeer, name: str, seconds: int = 5) -> int:
    """Apply a policy; the number its record got."""
    text = ROUTE.format(name=name, seconds=seconds)
    (result,) = await peer.json("apply", "-f", "-", stdin=text)
    return int(result["version"].rpartition(":")[2])


async def policies(peer: LocalPeer) -> set[str]:
    return {resource["metadata"]["name"] for resource in await peer.json("get", "trafficpolicy")}


async def ids(peer: LocalPeer) -> dict[str, str]:
    return {member["name"]: member["id"] for member in await peer.json("members")}


def damage(peer: LocalPeer) -> None:
    """Overwrite bytes of a stopped peer's database, where a record is: what lies in unused space harms nothing."""
    path = peer.directory / "store.db"
    connection = sqlite3.connect(path)  # what a crash left in the log belongs to the file
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with path.open("r+b") as stream:
        stream.seek(path.read_bytes().index(b"TrafficPolicy/"))
        stream.write(b"\xde\xad\xbe\xef" * 512)


def set_aside(peer: LocalPeer) -> list[Path]:
    return sorted(peer.directory.glob("store.db.corrupt-*"))


async def test_a_damaged_database_is_set_aside_and_everything_comes_back_from_the_others(
    mesh: LocalMesh, until: Any
) -> None:
    """Once for a peer that joined, once for the founder, which never had a seed. Neither is given one now."""
    first, second, third = mesh.peers
    for number in range(6):
        await apply(mesh.peers[number % 3], f"policy-{number}")
    last = {peer.name: await apply(peer, f"last-of-{peer.name}") for peer in mesh.peers}
    await second.command(
        "service", "register", "-f", "-", stdin=SERVICE.format(name="shop", host=second.host)
    )
    known = await ids(third)
    expected = await policies(third)
    assert len(expected) == 9
    await until(lambda: contacts_kept(mesh), "every peer remembers where the others are")

    for victim in (second, first):
        await victim.kill()
        damage(victim)
        await victim.start()
        (aside,) = set_aside(victim)
        assert "store_set_aside" in victim.log
        assert str(aside) in victim.log
        assert await ids(victim) == known
        assert await policies(victim) == expected

        number = await apply(victim, f"after-{victim.name}")
        assert number > last[victim.name]
        expected |= {f"after-{victim.name}"}

        async def everywhere(expected: set[str] = expected) -> bool:
            return all([await policies(peer) == expected for peer in mesh.peers])

        await until(everywhere, "the new policy is at every peer")

    services = await third.json("service", "list")
    assert [(service["name"], service["node"]) for service in services] == [("shop", "node-2")]
    await second.command("service", "deregister", "shop")
    for peer in mesh.peers:
        assert "Traceback" not in peer.log
        assert "equivocation" not in peer.log


async def contacts_kept(mesh: LocalMesh) -> bool:
    files = [peer.directory / "contacts.json" for peer in mesh.peers]
    return all(file.exists() and len(json.loads(file.read_text())) == 2 for file in files)


async def test_a_peer_that_lost_its_state_neither_serves_nor_writes_before_it_has_heard_of_it(
    mesh: LocalMesh, http: Any, until: Any
) -> None:
    first, second, third = mesh.peers
    await apply(second, "before")
    await until(lambda: contacts_kept(mesh), "every peer remembers where the others are")
    for peer in mesh.peers:
        await peer.kill()
    damage(second)
    await second.start(wait=False)

    async def readiness() -> tuple[int, str]:
        try:
            async with http.get(f"http://{second.host}:15020/readyz") as answer:
                return answer.status, (await answer.json())["detail"]
        except OSError:
            return 0, ""

    async def waits() -> bool:
        return await readiness() == (503, "no other peer has told this one the state of the mesh yet")

    await until(waits, "it says what it waits for")
    code, _, err = await second.try_command("apply", "-f", "-", stdin=ROUTE.format(name="early", seconds=1))
    assert code == 1
    assert "this peer's database may hold less than it once wrote" in err
    assert set_aside(second)

    await third.start()  # it knows everything, and who it was

    async def ready() -> bool:
        return (await readiness())[0] == 200

    await until(ready, "it is ready once another peer is back")
    assert await policies(second) == {"before"}
    assert await apply(second, "after") > 1
    assert first.process is not None
    for peer in (second, third):
        assert "equivocation" not in peer.log
        assert "Traceback" not in peer.log


def copy_database(peer: LocalPeer, to: Path) -> None:
    """Back up a running peer's database, as an operator would."""
    source, target = sqlite3.connect(peer.directory / "store.db"), sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()


async def test_a_peer_whose_database_was_put_back_from_a_backup_uses_no_number_twice(
    mesh: LocalMesh, tmp_path: Path, until: Any
) -> None:
    first, second, third = mesh.peers
    await apply(second, "before")
    copy_database(second, tmp_path / "backup.db")
    last = await apply(second, "after")
    await until(lambda: contacts_kept(mesh), "every peer remembers where the others are")
    for peer in mesh.peers:
        await peer.kill()
    for name in ("store.db", "store.db-wal", "store.db-shm"):
        (second.directory / name).unlink(missing_ok=True)
    (tmp_path / "backup.db").replace(second.directory / "store.db")

    await second.start()  # alone: it serves what it has, and writes nothing
    assert "store_doubted" in second.log
    assert await policies(second) == {"before"}
    code, _, err = await second.try_command("apply", "-f", "-", stdin=ROUTE.format(name="early", seconds=1))
    assert code == 1
    assert "this peer's database may hold less than it once wrote" in err

    for peer in (first, third):
        await peer.start()

    async def told() -> bool:
        return await policies(second) == {"before", "after"}

    await until(told, "the others have told it what it once wrote")
    assert await apply(second, "later") > last
    await second.kill()
    await second.start()
    assert second.log.count("store_doubted") == 1
    for peer in mesh.peers:
        assert "equivocation" not in peer.log


async def test_where_every_database_was_lost_an_operator_says_so_and_the_mesh_goes_on(
    mesh: LocalMesh, until: Any
) -> None:
    await apply(mesh.peers[0], "lost")
    await until(lambda: contacts_kept(mesh), "every peer remembers where the others are")
    for peer in mesh.peers:
        await peer.kill()
        (peer.directory / "store.db").unlink()
    first, second, third = mesh.peers
    await second.start(wait=False)
    await third.start(wait=False)

    async def meet() -> bool:
        code, out, _ = await second.try_command("members", "-o", "json")
        return code == 0 and len(json.loads(out)) >= 2

    await until(meet, "the two that are up see each other")
    code, _, err = await second.try_command("apply", "-f", "-", stdin=ROUTE.format(name="early", seconds=1))
    assert code == 1
    assert "--accept-state-loss" in err  # neither is taken in by the other's empty journal
    await first.start("--accept-state-loss")
    await apply(first, "new")

    async def everywhere() -> bool:
        return all([await policies(peer) == {"new"} for peer in mesh.peers])

    await until(everywhere, "the new policy is at every peer")
    await apply(third, "newer")
    await first.kill()
    await first.start()  # the word was for once
    assert await policies(first) == {"new", "newer"}


async def test_a_peer_restarts_while_no_signer_answers_with_its_certificates_from_disk(
    mesh: LocalMesh, until: Any
) -> None:
    first, second, third = mesh.peers
    directory = second.directory / "services.d"
    directory.mkdir(exist_ok=True)
    (directory / "shop.yaml").write_text(SERVICE.format(name="shop", host=second.host))
    await second.command(
        "service", "register", "-f", "-", stdin=SERVICE.format(name="cart", host=second.host)
    )

    async def certified() -> bool:
        _, out, _ = await second.try_command(
            "check", "-o", "json"
        )  # what is not held yet may count as a failure
        rows = {row["check"]: row["status"] for row in json.loads(out)}
        wanted = [f"certificate cluster.local/ns/default/sa/{name}" for name in ("shop", "cart")]
        return all(rows.get(name) == "ok" for name in wanted)

    await until(certified, "both services are certified")
    await until(lambda: contacts_kept(mesh), "every peer remembers where the others are")
    await first.kill()  # the one signer
    await second.kill()
    await second.start()
    assert await certified()
    assert "renewal_failed" not in second.log

    async def seen() -> bool:
        states = {m["name"]: m["state"] for m in await third.json("members")}
        return states["node-2"] == "alive"

    await until(seen, "the third peer sees it again")
    code, out, err = await second.try_command("token", "create")
    assert (code, bool(re.match(r"gsm1\.", out))) == (0, True), err  # a token needs no signer; using it does


async def test_stopping_a_peer_that_is_still_waiting_for_the_mesh_ends_it_at_once(mesh: LocalMesh) -> None:
    first = mesh.peers[0]
    token = (await first.command("token", "create")).strip()
    await first.kill()
    newcomer = LocalPeer("newcomer", f"{NETWORK}.9", mesh.directory / "newcomer")
    mesh.peers.append(newcomer)
    await newcomer.start("--seed", f"{first.host}:7946", "--token", token, wait=False)
    async with asyncio.timeout(15):
        while "signers_unreachable" not in newcomer.log:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(5):
        await newcomer.kill(signal.SIGTERM)
    assert newcomer.process is not None
    assert newcomer.process.returncode == 0
    assert "Traceback" not in newcomer.log
    with pytest.raises(
        MeshError, match="ended with code 2"
    ):  # and no lock is left: it tries again, and says why
        await newcomer.start("--seed", f"{first.host}:7946", "--token", "gsm1.nonsense")
