"""Disks that fail under real peers, and what an operator finds: the process's part of docs/DISKS.md, whose table names
the test of each case. Most cases are tested on the store alone (tests/peer/io)."""

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from peer.demo.mesh import LocalMesh, LocalPeer, MeshError

NETWORK = "127.10.12"
pytestmark = pytest.mark.process

ROUTE = """
apiVersion: gossamer.dev/v1
kind: TrafficPolicy
metadata: {{name: {name}}}
spec: {{targetRefs: [{{kind: Service, name: {service}}}], timeouts: {{request: {seconds}s}}}}
"""
SERVICE = "service: {{name: shop, address: {host}, port: 8080}}"
UNSURE = "this peer's database may hold less than it once wrote"


async def apply(peer: LocalPeer, name: str, seconds: int = 5) -> int:
    """Apply a policy; the number its record got."""
    text = ROUTE.format(name=name, service="shop", seconds=seconds)
    return number_of(await peer.json("apply", "-f", "-", stdin=text))


def number_of(results: Any) -> int:
    (result,) = results
    return int(result["version"].rpartition(":")[2])


async def refused(peer: LocalPeer, name: str) -> str:
    """The words with which much is refused: so much that no forgotten corner of a full disk has room for it."""
    text = "\n---\n".join(ROUTE.format(name=f"{name}-{n}", service="x" * 60, seconds=1) for n in range(200))
    code, _, err = await peer.try_command("apply", "-f", "-", stdin=text)
    assert code == 1, err
    return err


async def policies(peer: LocalPeer) -> set[str]:
    return {resource["metadata"]["name"] for resource in await peer.json("get", "trafficpolicy")}


async def check(peer: LocalPeer, name: str) -> str:
    _, out, _ = await peer.try_command("check", "-o", "json")
    return next(f"{row['status']}: {row['detail']}" for row in json.loads(out) if row["check"] == name)


async def started_in_vain(peer: LocalPeer, *flags: str) -> str:
    """The words with which a start is refused."""
    with pytest.raises(MeshError, match=r"ended with code [12]") as caught:
        await peer.start(*flags)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
async def pair() -> AsyncIterator[LocalMesh]:
    """The founder and a second peer, not started yet."""
    async with LocalMesh(2, network=NETWORK) as made:
        yield made


async def serving(pair: LocalMesh, until: Any) -> Any:
    """Start both, with a service at the first; a function that calls it through the second."""
    first, second = pair.peers
    await pair.start()
    await pair.application("shop", "v1", first.host, 8080)
    await first.command("service", "register", "-f", "-", stdin=SERVICE.format(host=first.host))

    async def answers() -> bool:
        url = f"http://{second.host}:15001/"
        async with aiohttp.ClientSession() as http, http.get(url, headers={"host": "shop"}) as answer:
            return answer.status == 200

    await until(answers, "the service is reached through the second peer")
    return answers


async def met(peer: LocalPeer, until: Any) -> None:
    async def kept() -> bool:
        return (peer.directory / "contacts.json").exists()

    await until(kept, "it remembers where the others are")


async def test_on_a_full_disk_a_peer_serves_and_refuses_and_loses_nothing(
    pair: LocalMesh, volume: Any, until: Any
) -> None:
    first, second = pair.peers
    second.directory = volume.path / "data"
    answers = await serving(pair, until)
    await apply(second, "kept")
    volume.fill()
    err = await refused(second, "refused")
    assert f"cannot write to {second.directory}/store.db: the disk is full" in err
    assert await answers()
    assert (await check(second, "disk")).startswith(f"fail: cannot write to {second.directory}/store.db")
    await apply(first, "from-the-first")

    async def heard() -> bool:
        return "from-the-first" in await policies(second)

    await until(heard, "what others publish is obeyed all the same")
    volume.free()

    async def works() -> bool:
        return await check(second, "disk") == "ok: writes are durable"

    await until(works, "it works again by itself")
    assert await policies(second) == {"kept", "from-the-first"}
    await apply(second, "later")

    volume.fill()
    await refused(second, "refused")
    await second.kill()
    volume.free()
    await second.start()
    assert await policies(second) == {"kept", "from-the-first", "later"}
    await apply(second, "last")
    await second.kill(signal.SIGTERM)
    volume.fill()
    words = await started_in_vain(second)
    assert str(second.directory) in words
    assert "No space left" in words or "the disk is full" in words
    assert "store_doubted" not in second.log
    assert "Traceback" not in second.log


async def test_on_a_disk_that_turns_read_only_a_peer_serves_and_refuses_and_loses_nothing(
    pair: LocalMesh, journalled: Any, until: Any
) -> None:
    second = pair.peers[1]
    second.directory = journalled.path / "data"
    answers = await serving(pair, until)
    last = await apply(second, "kept")
    journalled.break_()
    err = await refused(second, "refused")
    assert f"cannot write to {second.directory}/store.db" in err
    assert await answers()
    assert (await check(second, "disk")).startswith("fail: ")
    await second.kill()
    assert f"data directory {second.directory}" in await started_in_vain(second)
    journalled.unmount()
    journalled.mount()
    await second.start()
    assert await policies(second) == {"kept"}
    assert await apply(second, "later") > last
    assert "Traceback" not in second.log


async def test_files_removed_under_a_running_peer_are_told_at_the_next_write(
    pair: LocalMesh, until: Any
) -> None:
    second = pair.peers[1]
    answers = await serving(pair, until)
    last = await apply(second, "kept")
    await met(second, until)
    for name in ("store.db", "store.db-wal", "store.db-shm", "admin.sock"):
        (second.directory / name).unlink()
    code, _, err = await second.try_command("members")
    assert code == 1
    assert str(second.directory) in err
    assert await answers()
    await second.kill()
    await second.start()
    assert "the one before was lost" in second.log
    assert await policies(second) == {"kept"}  # from the first peer
    (second.directory / "store.db-wal").unlink()
    err = await refused(second, "refused")
    assert f"cannot write to {second.directory}/store.db-wal: it was removed or replaced" in err
    assert await answers()
    await second.kill()
    await second.start()
    assert await apply(second, "later") > last
    assert "equivocation" not in pair.peers[0].log


async def goes_on_after_a_word(pair: LocalMesh, victim: LocalPeer, last: int, until: Any) -> None:
    """The victim is up alone and in doubt. A write asked for now waits for the word of the other, and gets a new
    number (or is refused, where that takes long)."""
    (other,) = (peer for peer in pair.peers if peer is not victim)
    assert "store_doubted" in victim.log
    early = asyncio.create_task(
        victim.try_command(
            "apply", "-f", "-", "-o", "json", stdin=ROUTE.format(name="early", service="shop", seconds=1)
        )
    )
    await other.start()
    code, out, err = await early
    assert UNSURE in err if code else number_of(json.loads(out)) > last

    async def told() -> bool:
        return "after" in await policies(victim)

    await until(told, "it is told what it once wrote")
    assert await apply(victim, "later") > last
    for peer in pair.peers:
        assert "equivocation" not in peer.log
        assert "Traceback" not in peer.log


async def test_a_whole_directory_written_over_with_an_old_backup_uses_no_number_twice(
    pair: LocalMesh, tmp_path: Path, until: Any
) -> None:
    """`cp -r backup/. data/`: every file stays the one it was."""
    second = pair.peers[1]
    await pair.start()
    await met(second, until)
    await apply(second, "before")
    await second.kill(signal.SIGTERM)
    shutil.copytree(second.directory, tmp_path / "backup")
    await second.start()
    last = await apply(second, "after")
    for peer in pair.peers:
        await peer.kill(signal.SIGTERM)
    for path in (tmp_path / "backup").rglob("*"):
        if path.is_file():
            (second.directory / path.relative_to(tmp_path / "backup")).write_bytes(path.read_bytes())
    await second.start()
    await goes_on_after_a_word(pair, second, last, until)


async def test_a_founder_put_back_to_before_it_met_anybody_uses_no_number_twice(
    pair: LocalMesh, tmp_path: Path, until: Any
) -> None:
    first, second = pair.peers
    await first.start("--bootstrap")
    await apply(first, "before")
    await first.kill(signal.SIGTERM)
    shutil.copytree(first.directory, tmp_path / "backup")
    await first.start("--bootstrap")
    await pair.join(second)
    last = await apply(first, "after")

    async def heard() -> bool:
        return "after" in await policies(second)

    await until(heard, "the second peer has it")
    await met(second, until)
    for peer in pair.peers:
        await peer.kill()
    shutil.rmtree(first.directory)
    shutil.copytree(tmp_path / "backup", first.directory)
    await first.start("--bootstrap")
    await goes_on_after_a_word(pair, first, last, until)


async def test_a_log_removed_after_a_crash_is_missed(pair: LocalMesh, until: Any) -> None:
    first, second = pair.peers
    await pair.start()
    await met(second, until)
    last = await apply(second, "after")

    async def heard() -> bool:
        return "after" in await policies(first)

    await until(heard, "the first peer has it")
    for peer in pair.peers:
        await peer.kill()
    (second.directory / "store.db-wal").unlink()
    await second.start(wait=False)  # it does not know that it ever was in the mesh: it serves nothing yet

    async def up() -> bool:
        return (await second.try_command("members"))[0] == 0

    await until(up, "it can be asked")
    await goes_on_after_a_word(pair, second, last, until)


async def test_lost_and_open_keys_are_named_and_nothing_is_made_in_their_place(
    pair: LocalMesh, until: Any
) -> None:
    first, second = pair.peers
    await pair.start()
    await apply(first, "kept")
    await met(first, until)
    for peer in pair.peers:
        await peer.kill()
    keys = first.directory / "keys"

    keys.rename(first.directory / "away")
    words = await started_in_vain(first, "--bootstrap")
    assert f"{keys}/node.key: is missing, although this data directory is a member's" in words
    shutil.rmtree(keys)
    (first.directory / "away").rename(keys)

    (keys / "node.key").chmod(0o640)
    words = await started_in_vain(first)
    assert f"chmod 600 {keys}/node.key" in words
    (keys / "node.key").chmod(0o600)

    (keys / "root.der").unlink()
    words = await started_in_vain(first)
    assert f"{keys}/root.der: is missing; put it back from a backup or from any other member" in words
    shutil.copy(second.directory / "keys" / "root.der", keys / "root.der")

    (share,) = keys.glob("share-*.key")
    content = share.read_bytes()
    share.unlink()
    await asyncio.gather(first.start(), second.start())
    assert "root_key_lost" in first.log
    assert f"{keys}/share-" in first.log
    await first.kill()
    share.write_bytes(content)
    share.chmod(0o600)
    seen = first.log.count("root_key_lost")
    await first.start()
    assert first.log.count("root_key_lost") == seen
    assert await policies(first) == {"kept"}
