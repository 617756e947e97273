"""The whole path on real processes: members, services, mTLS, routes and policies, a crash and a return."""

import asyncio
import os
import signal
import stat
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from peer.demo.mesh import LocalMesh, LocalPeer, MeshError

NETWORK = "127.10.1"
pytestmark = pytest.mark.process

CART = """
service: {{name: cart, address: {host}, port: 8080, labels: {{version: {version}}}}}
---
service: {{name: cart-{version}, address: {host}, port: 8080, account: cart}}
"""
WEB = """
service: {{name: web, address: {host}, port: 8080, upstreams: [{{service: cart, local_port: 9190}}]}}
"""
DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin}
spec:
  targetRefs: [{kind: Service, name: cart}]
  action: DENY
  rules: [{to: [{operation: {paths: [/admin*]}}]}]
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart}
spec:
  parentRefs: [{kind: Service, group: "", name: cart}]
  rules:
    - matches: [{headers: [{name: x-canary, value: "yes"}]}]
      backendRefs: [{name: cart-v3, port: 8080}]
    - backendRefs: [{name: cart-v2, port: 8080}]
"""


async def states(peer: LocalPeer) -> dict[str, str]:
    return {member["name"]: member["state"] for member in await peer.json("members")}


async def carts(mesh: LocalMesh) -> None:
    """web at the first peer, cart v2 and v3 at the others."""
    first, second, third = mesh.peers
    await asyncio.gather(
        mesh.application("cart", "v2", second.host, 8080), mesh.application("cart", "v3", third.host, 8080)
    )
    await asyncio.gather(
        first.command("service", "register", "-f", "-", stdin=WEB.format(host=first.host)),
        second.command("service", "register", "-f", "-", stdin=CART.format(host=second.host, version="v2")),
        third.command("service", "register", "-f", "-", stdin=CART.format(host=third.host, version="v3")),
    )


async def get(
    http: aiohttp.ClientSession, peer: LocalPeer, path: str = "/", port: int = 15001, **headers: str
) -> tuple[int, dict[str, str]]:
    sent = {"host": "cart"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.get(f"http://{peer.host}:{port}{path}", headers=sent) as answer:
        if answer.content_type != "application/json":
            await answer.read()
            return answer.status, {}
        return answer.status, await answer.json()


async def test_a_mesh_routes_authorises_survives_a_crash_and_takes_a_peer_back(
    mesh: LocalMesh, http: aiohttp.ClientSession, until
) -> None:
    first, second, third = mesh.peers

    async def all_alive() -> bool:
        views = await asyncio.gather(*(states(peer) for peer in mesh.peers))
        return all(list(view.values()) == ["alive"] * 3 for view in views)

    await until(all_alive, "every peer sees three members alive")
    await carts(mesh)

    async def both() -> bool:
        answers = [await get(http, first) for _ in range(8)]
        return {body.get("version") for code, body in answers if code == 200} == {"v2", "v3"}

    await until(both, "web reaches both carts")
    _, body = await get(http, first, port=9190)
    assert body["caller"] == "spiffe://cluster.local/ns/default/sa/web"
    assert body["traceparent"].startswith("00-")

    # a route written at the third peer decides at the first
    results = await third.json("apply", "-f", "-", "--wait", "100%", "--timeout", "10s", stdin=ROUTE)
    assert [(r["kind"], r["name"], r["action"]) for r in results] == [("HTTPRoute", "cart", "created")]
    answers = Counter([(await get(http, first))[1]["version"] for _ in range(20)])
    assert answers == {"v2": 20}
    _, body = await get(http, first, x_canary="yes")
    assert body["version"] == "v3"

    # a policy written at the first peer is enforced at the others
    await first.json("apply", "-f", "-", "--wait", "100%", stdin=DENY)
    assert (await get(http, first, "/admin/x"))[0] == 403
    assert (await get(http, first, "//admin/x"))[0] == 403
    assert (await get(http, first, "/shop"))[0] == 200

    # what was written is seen everywhere, with its author
    shown = await second.json("get", "authorizationpolicy", "no-admin")
    assert shown[0]["status"]["authorName"] == "node-1"
    assert shown[0]["status"]["accepted"] is True

    # kill -9 and return
    before = {m["name"]: m for m in await first.json("members")}["node-3"]
    await third.kill()

    async def third_is(state: str) -> bool:
        return (await states(first))["node-3"] == state

    await until(lambda: third_is("dead"), "the crash is seen")
    assert (await get(http, first))[0] == 200
    await third.start("--seed", f"{first.host}:7946")
    await until(lambda: third_is("alive"), "the return is seen")
    after = {m["name"]: m for m in await first.json("members")}["node-3"]
    assert after["id"] == before["id"]
    assert after["boot"] > before["boot"]
    assert {r["metadata"]["name"] for r in await third.json("get", "all")} == {"cart", "no-admin"}

    async def canary_again() -> bool:
        code, body = await get(http, first, x_canary="yes")
        return code == 200 and body["version"] == "v3"

    await until(canary_again, "the returned peer's service, registered before, serves again")

    # what was counted
    rows = await first.json("stat")
    row = next(
        r for r in rows if r["source"] == "default/web" and r["destination"].startswith("default/cart")
    )
    assert row["requests"] > 0
    assert row["p99_ms"] > 0
    checks = {row["check"]: row["status"] for row in await first.json("check")}
    assert checks["peer ready"] == "ok"
    async with http.get(f"http://{first.host}:15020/metrics") as answer:
        text = await answer.text()
    assert 'istio_requests_total{reporter="source",source_workload="web"' in text


async def test_sigterm_leaves_and_the_others_know_at_once(mesh: LocalMesh, until) -> None:
    first, _, third = mesh.peers
    await third.kill(signal.SIGTERM)
    assert third.process is not None
    assert third.process.returncode == 0

    async def left() -> bool:
        return (await states(first))["node-3"] == "left"

    await until(left, "the first peer knows that the third left")


async def test_a_second_running_peer_on_a_data_directory_is_refused(mesh: LocalMesh) -> None:
    first = mesh.peers[0]
    assert first.process is not None
    twin = LocalPeer("twin", "127.10.1.99", first.directory)
    with pytest.raises(MeshError, match=f"error: .*{first.process.pid}"):
        await twin.start("--bootstrap")
    assert await states(first)


async def test_wrong_spent_and_foreign_tokens_are_refused_with_the_reason(mesh: LocalMesh) -> None:
    first = mesh.peers[0]
    token = (await first.command("token", "create")).strip()
    seed = ("--seed", f"{first.host}:7946")

    async def attempt(name: str, text: str) -> str:
        newcomer = LocalPeer(name, "127.10.1.50", mesh.directory / name)
        with pytest.raises(MeshError) as refusal:
            await newcomer.start(*seed, "--token", text)
        assert "Traceback" not in newcomer.log
        return str(refusal.value)

    middle = len(token) // 2
    altered = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    assert "error: " in await attempt("altered", altered)
    assert "error: " in await attempt("garbage", "gsm1.nonsense")

    joined = LocalPeer("joined", "127.10.1.50", mesh.directory / "joined")
    mesh.peers.append(joined)
    await joined.start(*seed, "--token", token)
    await joined.kill(signal.SIGTERM)
    assert "used by another host" in await attempt("second-use", token)


async def test_an_unreachable_seed_is_named(mesh: LocalMesh) -> None:
    token = (await mesh.peers[0].command("token", "create")).strip()
    await mesh.peers[0].kill()
    newcomer = LocalPeer("lost", "127.10.1.51", mesh.directory / "lost")
    with pytest.raises(MeshError, match=r"127\.10\.1\.77:7946"):
        await newcomer.start("--seed", "127.10.1.77:7946", "--token", token)


async def test_bad_input_is_named_and_changes_nothing(mesh: LocalMesh) -> None:
    first = mesh.peers[0]
    bad = ROUTE + "\n---\n" + DENY.replace("action: DENY", "action: PERHAPS")
    code, out, err = await first.try_command("apply", "-f", "-", stdin=bad)
    assert code == 2
    assert "spec.action" in err
    assert "Traceback" not in out + err
    assert await first.json("get", "all") == []

    taken = WEB.format(host=first.host).replace("9190", "15001")
    code, _, err = await first.try_command("service", "register", "-f", "-", stdin=taken)
    assert code != 0
    assert "15001" in err
    assert await first.json("service", "list") == []

    code, _, err = await first.try_command("get", "teapot")
    assert code == 2
    assert "teapot" in err


async def test_secrets_stay_in_private_files(mesh: LocalMesh) -> None:
    for peer in mesh.peers:
        assert stat.S_IMODE(peer.directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((peer.directory / "admin.sock").stat().st_mode) == 0o600
        files = [path for path in peer.directory.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        seed = (peer.directory / "keys" / "node.key").read_bytes()
        assert seed.hex() not in peer.log
        assert "PRIVATE KEY" not in peer.log
        assert "gsm1." not in peer.log


async def test_random_datagrams_and_broken_streams_do_no_harm(mesh: LocalMesh) -> None:
    first = mesh.peers[0]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(first.host, 7946)
    )
    for size in (0, 1, 24, 25, 60, 1400):
        transport.sendto(os.urandom(size))
    transport.close()
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(300)):
        reader, writer = await asyncio.open_connection(first.host, 7946)
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
    assert list((await states(first)).values()) == ["alive"] * 3
    assert "Traceback" not in first.log


async def test_service_files_come_and_go(mesh: LocalMesh, until) -> None:
    first, second, _ = mesh.peers
    directory = first.directory / "services.d"
    directory.mkdir(exist_ok=True)
    file = directory / "shop.yaml"

    async def known(names: set[str]) -> bool:
        return {service["name"] for service in await second.json("service", "list")} == names

    def write(text: str) -> None:
        temporary = Path(f"{file}.new")
        temporary.write_text(text)
        temporary.rename(file)

    write(f"service: {{name: shop, address: {first.host}, port: 8081}}")
    await until(lambda: known({"shop"}), "the file's service is known at the second peer")
    write("service: {name: shop, prot: 8081}")

    async def reported() -> bool:
        return "shop.yaml" in first.log and "prot" in first.log

    await until(reported, "the fault is reported")
    assert await known({"shop"})
    file.unlink()
    await until(lambda: known(set()), "the service is gone with its file")


async def test_a_token_of_another_mesh_is_refused_where_a_membership_is(mesh: LocalMesh) -> None:
    first, second, _ = mesh.peers
    other = LocalPeer("other", "127.10.1.60", mesh.directory / "other")
    mesh.peers.append(other)
    await other.start("--bootstrap")
    token = (await other.command("token", "create")).strip()
    await second.kill()
    with pytest.raises(MeshError, match="code 2: error: the token is for another mesh"):
        await second.start("--token", token)
    await second.start("--token", (await first.command("token", "create")).strip())


async def test_a_port_in_use_leaves_no_mesh_behind(mesh: LocalMesh) -> None:
    taken = LocalPeer("taken", mesh.peers[0].host, mesh.directory / "taken")
    with pytest.raises(MeshError, match=r"gossip port .* cannot be opened"):
        await taken.start("--bootstrap")
    assert not (taken.directory / "keys").exists()


async def test_a_used_token_stays_used_when_the_signers_store_is_damaged(mesh: LocalMesh) -> None:
    first = mesh.peers[0]
    seed = ("--seed", f"{first.host}:7946")
    token = (await first.command("token", "create")).strip()
    one = LocalPeer("one", "127.10.1.61", mesh.directory / "one")
    mesh.peers.append(one)
    await one.start(*seed, "--token", token)
    await one.kill()
    await first.kill()
    with (first.directory / "store.db").open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(30_000))
    await first.start("--seed", f"{mesh.peers[1].host}:7946")
    assert "store_set_aside" in first.log
    two = LocalPeer("two", "127.10.1.62", mesh.directory / "two")
    with pytest.raises(MeshError, match="used by another host"):
        await two.start(*seed, "--token", token)
