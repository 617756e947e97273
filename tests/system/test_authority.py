"""A root that nobody holds, on real processes: made by three, grown to three of five, and the loss of signers."""

import asyncio
import json
import signal
import stat
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from peer.admin.client import AdminClient
from peer.demo.mesh import LocalMesh, LocalPeer
from tests.system.leaks import Secrets

NETWORK = "127.10.24"
pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

TTL_S = 20
CART = "service: {{name: cart, address: {host}, port: 8080}}"
WEB = "service: {{name: web, address: {host}, port: 8080, upstreams: [{{service: cart, local_port: 9190}}]}}"


def flags_of(mesh: LocalMesh) -> tuple[str, ...]:
    return ("--config", str(mesh.directory / "gossamer.yaml"), "--log-level", "debug")


async def ask(peer: LocalPeer, method: str, *words: Any) -> Any:
    return await asyncio.to_thread(getattr(AdminClient(peer.directory), method), *words)


async def together(mesh: LocalMesh, count: int) -> tuple[str, ...]:
    """The flags with which `count` peers make a mesh."""
    code, token, _ = await mesh.peers[0].try_command("token", "create", "--bootstrap")
    assert code == 0
    seeds = [word for peer in mesh.peers[:count] for word in ("--seed", f"{peer.host}:7946")]
    return ("--bootstrap-expect", str(count), "--token", token.strip(), *seeds)


async def started(peers: list[LocalPeer], *flags: str) -> None:
    """All of them, at the same time."""
    seen = [len(peer.log.encode()) for peer in peers]
    for peer in peers:
        await peer.start(*flags, wait=False)
    for peer, length in zip(peers, seen, strict=True):
        await peer.wait_ready(length)


async def founded(mesh: LocalMesh, count: int, *flags: str) -> None:
    """The first `count` peers make the mesh together."""
    words = await together(mesh, count)
    await started(mesh.peers[:count], *words, *flags)


@pytest.fixture
async def mesh() -> AsyncIterator[LocalMesh]:
    """Three founders and two that joined; the signers grow without being told to."""
    async with LocalMesh(6, network=NETWORK) as made:
        config = made.directory / "gossamer.yaml"
        config.write_text(f"svid: {{ttl_s: {TTL_S}}}\nca: {{settle_s: 0.5, gone_s: 3600}}\n")
        flags = flags_of(made)
        try:
            await founded(made, 3, *flags)
            for peer in made.peers[3:5]:
                await made.join(peer, *flags)
            yield made
        finally:
            for peer in made.peers:
                print(f"---- {peer.name}\n{peer.log[-3000:]}")


async def serving(mesh: LocalMesh, http: aiohttp.ClientSession, until: Any) -> str:
    """The URL by which web, at the first peer, calls cart, at the fourth; once that works."""
    first, fourth = mesh.peers[0], mesh.peers[3]
    await mesh.application("cart", "v1", fourth.host, 8080)
    await fourth.command("service", "register", "-f", "-", stdin=CART.format(host=fourth.host))
    await first.command("service", "register", "-f", "-", stdin=WEB.format(host=first.host))

    async def works() -> bool:
        try:
            async with http.get(f"http://{first.host}:9190/") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await until(works, "web reaches cart")
    return f"http://{first.host}:9190/"


async def standing(peer: LocalPeer, what: str) -> tuple[str, str]:
    rows = await ask(peer, "check")
    return next((row["status"], row["detail"]) for row in rows if row["check"] == what)


async def metric(http: aiohttp.ClientSession, peer: LocalPeer, name: str) -> float:
    async with http.get(f"http://{peer.host}:15020/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def nothing_leaked(
    mesh: LocalMesh, http: aiohttp.ClientSession, secrets: Secrets, shares_min: int = 5 + 3
) -> None:
    """No share, and no key, is anywhere but in its own file: whatever it was put through."""
    secrets.gather(peer.directory for peer in mesh.peers)
    assert sum(what.startswith("a share") for what in secrets.known.values()) >= shares_min
    for peer in mesh.peers:
        places = {"log": peer.log.encode()}
        for path in (path for path in peer.directory.rglob("*") if path.is_file()):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
            if path not in secrets.homes:
                places[str(path)] = path.read_bytes()
        assert any("store.db" in place for place in places)
        if peer.process is not None and peer.process.returncode is None:
            for call in ("health", "members", "check", "stat", "ca_status", "ca_issued"):
                places[call] = repr(await ask(peer, call)).encode()
            async with http.get(f"http://{peer.host}:15020/metrics") as answer:
                places["metrics"] = await answer.read()
            places["a refusal"] = repr(await peer.try_command("ca", "reshare", "nobody")).encode()
        for place, data in places.items():
            assert secrets.found_in(data) == set(), f"{place} of {peer.name}"


def told(peer: LocalPeer) -> set[str]:
    return {line for line in peer.log.splitlines() if line.startswith("founded ")}


async def test_three_found_two_join_three_of_five_sign_and_the_mesh_outlives_its_signers(
    mesh: LocalMesh, http: aiohttp.ClientSession, until: Any
) -> None:
    secrets = Secrets()
    secrets.gather(peer.directory for peer in mesh.peers[:5])
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
    secrets.gather(peer.directory for peer in mesh.peers[:5])
    url = await serving(mesh, http, until)

    # two of five are gone: others join, certificates are renewed
    first, second, third, fourth, fifth, sixth = mesh.peers
    for peer in (second, third):
        await peer.kill(signal.SIGKILL)
    await mesh.join(sixth, *flags_of(mesh))
    granted = 'gossamer_certificate_attempts_total{result="granted"}'
    before = [await metric(http, peer, granted) for peer in (first, fourth, sixth)]

    async def renewed() -> bool:
        now = [await metric(http, peer, granted) for peer in (first, fourth, sixth)]
        return all(new > old for old, new in zip(before, now, strict=True))

    await until(renewed, "renewal with three of five", 2.0 * TTL_S)
    level, words = await standing(first, "issuance")
    assert (level, words[:22]) == ("warn", "3 of 5 signers answer:")

    # a third one goes: nothing is issued any more, which is said at once; traffic goes on
    await fifth.kill(signal.SIGKILL)
    code, out, _ = await fourth.try_command("check")
    said = " ".join(out.split())
    assert code == 1
    assert "nothing can be issued or renewed: 2 of 5 signers answer, 3 are needed" in said
    async with http.get(url) as answer:
        assert answer.status == 200
    status = await ask(first, "ca_status")
    assert (status["can_issue"], status["margin"]) == (False, -1)
    code, _, err = await first.try_command("ca", "reshare", "--timeout", "1s")
    assert (code, "it goes on" in err) == (3, True), err

    # one returns: what it takes to issue is there again
    begun = time.monotonic()
    await fifth.start(*flags_of(mesh), "--seed", f"{first.host}:7946", wait=False)

    async def issuing() -> bool:
        return (await ask(first, "ca_status"))["can_issue"] is True

    await until(issuing, "issuance", 30)
    print(f"issuance {time.monotonic() - begun:.1f} s after the third signer was started again")
    before = [await metric(http, peer, granted) for peer in (first, fourth, sixth)]
    await until(renewed, "renewal when one has returned", 3.0 * TTL_S)
    async with http.get(url) as answer:
        assert answer.status == 200
    await nothing_leaked(mesh, http, secrets)


@pytest.fixture
async def small(request: pytest.FixtureRequest) -> AsyncIterator[LocalMesh]:
    """Five peers that have not been started."""
    async with LocalMesh(5, network=NETWORK) as made:
        try:
            yield made
        finally:
            for peer in made.peers:
                print(f"---- {peer.name}\n{peer.log[-3000:]}")


async def test_one_more_than_expected_is_let_in_by_the_secret_and_another_secret_is_refused(
    small: LocalMesh, until: Any
) -> None:
    words = await together(small, 3)
    *three, fourth, fifth = small.peers
    await started(three, *words)
    await fourth.start(*words)
    members = await ask(fourth, "members")
    assert {row["name"] for row in members} == {peer.name for peer in small.peers[:4]}
    status = await ask(fourth, "ca_status")
    assert {row["name"] for row in status["signers"]} == {peer.name for peer in three}

    _, other, _ = await fifth.try_command("token", "create", "--bootstrap")
    wrong = [other.strip() if word.startswith("gsb1.") else word for word in words]
    await fifth.start(*wrong, wait=False)
    assert fifth.process is not None
    async with asyncio.timeout(60):
        assert await fifth.process.wait() == 1
    assert "another bootstrap secret" in fifth.log.splitlines()[-1]
    assert words[3] not in "".join(peer.log for peer in small.peers)


async def test_founders_that_are_killed_at_any_moment_make_one_mesh_in_the_end(small: LocalMesh) -> None:
    words = await together(small, 3)
    three = small.peers[:3]
    for peer in three:
        await peer.start(*words, wait=False)
    for number, peer in enumerate(three):
        await asyncio.sleep(0.4 * number)  # whatever it is doing then
        await peer.kill(signal.SIGKILL)
        await peer.start(*words, wait=False)
    for peer in three:
        await peer.wait_ready()
    roots = [(await ask(peer, "ca_status"))["root"] for peer in three]
    assert len(set(roots)) == 1


async def test_a_mesh_in_which_nobody_has_a_certificate_comes_back_by_itself(small: LocalMesh) -> None:
    """As after an outage that was longer than certificates live."""
    await founded(small, 3)
    three = small.peers[:3]
    for peer in three:
        await peer.kill(signal.SIGKILL)
        (peer.directory / "keys" / "certificates").unlink()
    seeds = [word for peer in three for word in ("--seed", f"{peer.host}:7946")]
    await started(three, *seeds)
    status = await ask(three[0], "ca_status")
    assert (status["can_issue"], status["answering"]) == (True, 3)


async def test_a_signer_that_is_gone_is_replaced_a_revoked_one_leaves_and_a_lost_share_comes_back(
    small: LocalMesh, until: Any
) -> None:
    config = small.directory / "gossamer.yaml"
    config.write_text("ca: {settle_s: 0.5, gone_s: 2}\n")
    first, _, third, fourth, _ = small.peers
    seeds = [word for peer in small.peers[:3] for word in ("--seed", f"{peer.host}:7946")]
    await founded(small, 3, "--config", str(config))
    await small.join(fourth, "--config", str(config))

    async def signers() -> set[str]:
        return {row["name"] for row in (await ask(first, "ca_status"))["signers"]}

    async def replaced() -> bool:
        return await signers() == {"node-1", "node-2", "node-4"}

    await third.kill(signal.SIGKILL)
    await until(replaced, "the signer that is gone is replaced", 40)

    async def three_without_second() -> bool:
        return await signers() == {"node-1", "node-3", "node-4"}

    await third.start(*seeds, "--config", str(config))
    await first.command("ca", "revoke", "signer", "node-2")
    await until(three_without_second, "the revoked signer is none any more", 40)

    shares = list((fourth.directory / "keys").glob("share-*"))
    await fourth.kill(signal.SIGKILL)
    for path in shares:
        path.unlink()
    await fourth.start(*seeds, "--config", str(config))

    async def restored() -> bool:
        status = await ask(first, "ca_status")
        return status["answering"] == len(status["signers"]) == 3

    await until(restored, "the lost share is restored", 40)
    before = (await ask(first, "ca_status"))["epoch"]
    assert "2 of 3" in await first.command("ca", "reshare")
    assert (await ask(fourth, "ca_status"))["epoch"] >= before

    # one operator alone takes nobody's seat; as many as have the root together may
    code, _, err = await first.try_command("ca", "reshare", "node-1", "node-3")
    assert code == 3
    said = " ".join(err.split())
    assert "would be left out, and it is a signer that is here" in said
    assert "takes the orders of 2 signers, and 1 of them gave it" in said

    async def told() -> bool:
        return "node-1 orders other signers" in (await standing(third, "signer"))[1]

    await until(told, "the other signers hear of the order", 20)
    assert "2 of 2:" in await third.command("ca", "reshare", "node-1", "node-3")
