"""The life of certificates on real processes: rotation under load, a signer that is gone, revocation, secrets."""

import asyncio
import base64
import stat
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from peer.admin.client import AdminClient
from peer.demo.mesh import LocalMesh, LocalPeer, MeshError
from tests.system.leaks import Secrets, forms_of
from trust.svid import new_leaf_key

NETWORK = "127.10.13"
pytestmark = pytest.mark.process

TTL_S = 10
REQUESTS_PER_S = 200
ROTATIONS_MIN = 3
GOSSIP_DELAY_S_MAX = 2.0  # profile `local` takes some tens of milliseconds; the rest is for a busy machine

CART = "service: {{name: cart, address: {host}, port: 8080}}"
WEB = "service: {{name: web, address: {host}, port: 8080, upstreams: [{{service: cart, local_port: 9190}}]}}"


@pytest.fixture
async def shortlived(request: pytest.FixtureRequest) -> AsyncIterator[LocalMesh]:
    """node-1 signs and governs, web is at node-2, cart at node-3; certificates live for TTL_S."""
    async with LocalMesh(3, network=NETWORK) as made:
        config = made.directory / "gossamer.yaml"
        config.write_text(f"svid: {{ttl_s: {TTL_S}}}\nca: {{signers: 1}}\n")
        try:
            await made.start("--config", str(config), "--log-level", "debug")
            _, second, third = made.peers
            await made.application("cart", "v1", third.host, 8080)
            await second.command("service", "register", "-f", "-", stdin=WEB.format(host=second.host))
            await third.command("service", "register", "-f", "-", stdin=CART.format(host=third.host))
            yield made
        finally:
            for peer in made.peers:
                print(f"---- {peer.name}\n{peer.log[-4000:]}")


@dataclass
class Load:
    """Requests at a steady rate, each started in its time whatever became of those before."""

    http: aiohttp.ClientSession
    url: str
    outcomes: list[tuple[float, int | str]] = field(default_factory=list)  # when it ended, and how

    def __post_init__(self) -> None:
        self._requests: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        begun, number = time.monotonic(), 0
        while True:
            number += 1
            await asyncio.sleep(max(0.0, begun + number / REQUESTS_PER_S - time.monotonic()))
            request = asyncio.create_task(self._one())
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _one(self) -> None:
        try:
            async with self.http.get(self.url) as answer:
                await answer.read()
                outcome: int | str = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = repr(error)
        self.outcomes.append((time.monotonic(), outcome))

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, *self._requests, return_exceptions=True)

    @property
    def failed(self) -> list[int | str]:
        return [outcome for _, outcome in self.outcomes if outcome != 200]


@pytest.fixture
async def loading(http: aiohttp.ClientSession) -> AsyncIterator[Callable[[str], Load]]:
    """Begin a load on a URL; it ends with the test."""
    begun: list[Load] = []

    def begin(url: str) -> Load:
        begun.append(Load(http, url))
        return begun[-1]

    yield begin
    for each in begun:
        await each.stop()


async def nothing_leaked(mesh: LocalMesh, http: aiohttp.ClientSession, secrets: Secrets) -> None:
    """No key is anywhere but in its own file: after all that the test has put the mesh through."""
    secrets.gather(peer.directory for peer in mesh.peers)
    assert len(secrets.known) >= 5 * 4 + 5  # three nodes, the root and a token; and leaf keys
    assert (await mesh.peers[0].try_command("token", "create"))[0] == 0
    for peer in mesh.peers:
        places = {"log": peer.log.encode()}
        assert " DEBUG " in peer.log
        for path in (path for path in peer.directory.rglob("*") if path.is_file()):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
            if path not in secrets.homes:
                places[str(path)] = path.read_bytes()
        assert any("store.db" in place for place in places)
        if peer.process is not None and peer.process.returncode is None:
            for call in ("health", "members", "services", "check", "stat", "ca_status", "ca_issued"):
                places[call] = repr(await ask(peer, call)).encode()
            places["get"] = repr(await ask(peer, "get", "all")).encode()
            async with http.get(f"http://{peer.host}:15020/metrics") as answer:
                places["metrics"] = await answer.read()
            wrong = await peer.try_command("ca", "revoke", "certificate", "zz")
            places["a refusal"] = repr(wrong).encode()
        for place, data in places.items():
            assert secrets.found_in(data) == set(), f"{place} of {peer.name}"


async def ask(peer: LocalPeer, method: str, *words: str) -> Any:
    return await asyncio.to_thread(getattr(AdminClient(peer.directory), method), *words)


async def standing(peer: LocalPeer, what: str) -> tuple[str, str]:
    rows = await ask(peer, "check")
    return next((row["status"], row["detail"]) for row in rows if what in row["check"])


async def metric(http: aiohttp.ClientSession, peer: LocalPeer, name: str) -> float:
    async with http.get(f"http://{peer.host}:15020/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def serving(mesh: LocalMesh, http: aiohttp.ClientSession, until: Any) -> str:
    """The URL by which web calls cart, once that works."""
    url = f"http://{mesh.peers[1].host}:9190/"

    async def works() -> bool:
        try:
            async with http.get(url) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await until(works, "web reaches cart")
    return url


async def test_rotation_fails_no_request_and_a_renewal_that_fails_is_told_long_before_the_end(
    shortlived: LocalMesh, http: aiohttp.ClientSession, loading: Callable[[str], Load], until: Any
) -> None:
    first, second, third = shortlived.peers
    secrets = Secrets()
    secrets.gather(peer.directory for peer in shortlived.peers)
    secrets.add_token((await first.command("token", "create")).strip())
    load = loading(await serving(shortlived, http, until))
    granted = 'gossamer_certificate_attempts_total{result="granted"}'
    begun = [await metric(http, peer, granted) for peer in (second, third)]

    async def rotated() -> bool:
        now = [await metric(http, peer, granted) for peer in (second, third)]
        # each of the two holds a certificate of its node and one of its workload
        return all(new - old >= 2 * ROTATIONS_MIN for old, new in zip(begun, now, strict=True))

    took_s = await until(rotated, f"{ROTATIONS_MIN} rotations at both ends", within_s=4.0 * TTL_S)
    requests = len(load.outcomes)
    assert load.failed == []
    assert requests > REQUESTS_PER_S * took_s * 0.5
    print(f"rotation: {requests} requests in {took_s:.1f} s, {len(load.failed)} failed")

    # the only signer goes: what is held goes on serving, and what is coming is told in time
    await first.kill()
    seen: dict[str, tuple[float, str]] = {}

    async def failing() -> bool:
        level, words = await standing(second, "sa/web")
        seen.setdefault(level, (time.monotonic(), words))
        return level == "fail"

    await until(failing, "check fails")
    assert "renewal has failed" in seen["warn"][1]
    left_s = float(seen["fail"][1].split("expires in ")[1].split()[0])
    print(f"renewal: fail was told with {left_s:g} of {TTL_S} s left: {seen['fail'][1]}")
    assert left_s >= 0.1 * TTL_S
    code, out, _ = await second.try_command("check")
    assert code == 1
    assert "renewal has failed" in " ".join(out.split())
    assert await metric(http, second, 'gossamer_certificate_status{status="fail"}') > 0
    failing_s = "gossamer_certificate_renewal_failing_seconds"
    assert (
        await metric(http, second, f'{failing_s}{{identity="spiffe://cluster.local/ns/default/sa/web"}}') > 0
    )

    async def loud() -> bool:
        """With the next attempt: they are seconds apart."""
        return any("ERROR" in line for line in second.log.splitlines() if "renewal_failed" in line)

    await until(loud, "the log is loud", within_s=0.3 * TTL_S)
    await first.start(
        "--seed", f"{second.host}:7946", "--config", str(shortlived.directory / "gossamer.yaml")
    )

    async def well() -> bool:
        return (await standing(second, "sa/web"))[0] == "ok"

    await until(well, "check is well again")
    await nothing_leaked(shortlived, http, secrets)


async def test_the_revoked_are_served_no_more_within_the_gossip_delay_and_renew_no_more(
    shortlived: LocalMesh, http: aiohttp.ClientSession, loading: Callable[[str], Load], until: Any
) -> None:
    first, second, third = shortlived.peers
    secrets = Secrets()
    secrets.gather(peer.directory for peer in shortlived.peers)
    secrets.add_token((await first.command("token", "create")).strip())
    with pytest.raises(MeshError, match=r"node-2 may not revoke .*: only nodes that govern may"):
        await second.command("ca", "revoke", "workload", "default/cart")
    load = loading(await serving(shortlived, http, until))
    await asyncio.sleep(1.0)
    assert load.failed == []
    asked = time.monotonic()
    row = await ask(first, "revoke", "workload", "default/web", "stolen")
    assert (row["subject"], row["action"]) == ("spiffe://cluster.local/ns/default/sa/web", "revoked")

    async def refused() -> bool:
        return len(load.failed) > 100

    await until(refused, "web is refused")
    await load.stop()
    last_s = max(when for when, outcome in load.outcomes if outcome == 200) - asked
    print(
        f"revocation: the last request of the revoked was answered {last_s * 1000:.0f} ms after it was asked for"
    )
    assert last_s < GOSSIP_DELAY_S_MAX
    first_failed = next(i for i, (_, outcome) in enumerate(load.outcomes) if outcome != 200)
    assert all(outcome != 200 for _, outcome in load.outcomes[first_failed + REQUESTS_PER_S // 4 :])

    async def not_renewed() -> bool:
        level, words = await standing(second, "sa/web")
        return level == "fail" and "has been revoked: stolen" in words

    await until(not_renewed, "its renewal is refused with the reason")
    assert (await standing(third, "sa/cart"))[0] == "ok"
    assert await ask(first, "revoke", "workload", "default/web", "again") == row | {"action": "unchanged"}

    # a node that gives itself up, and one that is revoked
    code, _, err = await first.try_command("leave", "--revoke")
    assert code == 1
    assert "0 signers would be left" in err
    assert (await second.try_command("ca", "revoke", "node", "nobody"))[0] == 2
    out = await second.command("leave", "--revoke", "--reason", "sold")
    assert out == ""

    async def known(peer: LocalPeer, count: float) -> bool:
        return await metric(http, peer, "gossamer_revocations ") == 1 + count  # with that of web

    await until(lambda: known(first, 1), "the first knows that the second gave itself up")
    await until(lambda: known(third, 1), "the third knows it too")

    asked = time.monotonic()
    await first.command("ca", "revoke", "node", "node-3", "--reason", "stolen")

    async def out_of_it() -> bool:
        return all(row["name"] != "node-3" or row["state"] != "alive" for row in await ask(first, "members"))

    await until(out_of_it, "the revoked node is no member")
    print(f"revocation: node out {time.monotonic() - asked:.2f} s after the command began")

    async def told() -> bool:
        level, words = await standing(third, "sa/cart")
        return level != "ok" and "revoked" in words

    await until(told, "the revoked node's check says why")
    await nothing_leaked(shortlived, http, secrets)


def test_a_leak_would_be_found_in_every_form() -> None:
    secret = bytes(range(100, 132))
    secrets = Secrets()
    secrets.known[secret] = "it"
    assert secrets.found_in(b"nothing here") == set()
    for form in forms_of(secret):
        assert secrets.found_in(b"x=" + form + b";") == {"it"}
    for before in range(12):
        text = bytes(before) + secret + b"behind"
        for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode):
            assert secrets.found_in(encode(text)) == {"it"}
        assert secrets.found_in(base64.b32encode(text).lower()) == {"it"}
        assert secrets.found_in(base64.encodebytes(text)) == {"it"}
    assert secrets.found_in(f"{secret!r} {list(secret)}".encode()) == {"it"}
    key = new_leaf_key(lambda size: bytes(size - 32) + secret)
    assert "a key in PEM" in secrets.found_in(key.private_pem)
    other = Secrets()
    other.add_leaf(key.private_pem, "leaf")
    assert "leaf" in other.found_in(key.private_pem)
    assert "leaf" in other.found_in(repr(key.private_pem).encode())
