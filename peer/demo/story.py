"""The demo's story: eight things a mesh must do, done on real peers and measured.

Invariant: no figure is printed that was not counted or timed in this run.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from rich.console import Console

from peer.demo.mesh import LocalMesh, LocalPeer

PEERS: Final = 3
APP_PORT: Final = 8080
INTRUDER_PORT: Final = 8081
INTRUDER_UPSTREAM: Final = 9191
WITHIN_S: Final = 15.0

WEB = """
service: {name: web, address: 127.0.0.1, port: 8080, upstreams: [{service: cart, local_port: 9190}]}
"""
CART_1 = """
service:
  {name: cart, address: 127.0.0.2, port: 8080, labels: {version: v1}, check: {http: /healthz, interval: 1s}}
---
service: {name: cart-v1, address: 127.0.0.2, port: 8080, account: cart, labels: {version: v1}}
"""
CART_2 = """
service:
  {name: cart, address: 127.0.0.3, port: 8080, labels: {version: v2}, check: {http: /healthz, interval: 1s}}
---
service: {name: cart-v2, address: 127.0.0.3, port: 8080, account: cart, labels: {version: v2}}
"""
INTRUDER = """
service: {name: intruder, address: 127.0.0.2, port: 8081, upstreams: [{service: cart, local_port: 9191}]}
"""
ONLY_WEB = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart-only-for-web}
spec:
  targetRefs: [{kind: Service, name: cart}]
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/web]}}]}]
"""
CANARY = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart-canary}
spec:
  parentRefs: [{kind: Service, group: "", name: cart}]
  rules:
    - backendRefs:
        - {name: cart-v1, port: 8080, weight: 90}
        - {name: cart-v2, port: 8080, weight: 10}
"""
REQUESTS: Final = 1000


class Failed(Exception):  # noqa: N818  a step of a story has failed; nothing went wrong in the program
    """A step of the story did not hold."""


@dataclass(slots=True)
class Traffic:
    """What came back from a run of requests: statuses, versions that answered, and the worst wait."""

    codes: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    @property
    def errors(self) -> int:
        return sum(count for code, count in self.codes.items() if code != 200)


@dataclass(slots=True)
class Stage:
    """Who is on: the mesh, the client and the console."""

    mesh: LocalMesh
    http: aiohttp.ClientSession
    console: Console
    step: int = 0

    def title(self, text: str) -> None:
        self.step += 1
        self.console.print(f"\n[bold]{self.step}. {text}[/]")

    def shows(self, text: str) -> None:
        self.console.print(f"   [green]✓[/] {text}", soft_wrap=True)

    def typed(self, peer: LocalPeer, words: str) -> None:
        self.console.print(f"   [dim]{peer.name} $[/] [cyan]{words}[/]", soft_wrap=True)

    async def request(self, host: str, port: int, service: str) -> tuple[int, dict[str, str]]:
        """One GET through a peer's port; status and body (empty if it is no JSON)."""
        try:
            async with self.http.get(f"http://{host}:{port}/", headers={"host": service}) as answer:
                if answer.content_type != "application/json":
                    await answer.read()
                    return answer.status, {}
                return answer.status, await answer.json()
        except aiohttp.ClientError as error:
            return 0, {"error": str(error)}

    async def requests(self, count: int, *, workers: int = 8) -> Traffic:
        """`count` GETs from web to cart, through the first peer's outbound port."""
        traffic = Traffic()
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                begun = time.monotonic()
                code, body = await self.request("127.0.0.1", 15001, "cart")
                traffic.slowest_s = max(traffic.slowest_s, time.monotonic() - begun)
                traffic.codes[code] += 1
                if code == 200:
                    traffic.versions[body["version"]] += 1

        await asyncio.gather(*(work() for _ in range(workers)))
        return traffic


async def tell(console: Console, *, keep: bool) -> int:
    """The whole story; exit code 0 when every step held. Raises Failed or MeshError at the first that did not."""
    begun = time.monotonic()
    _ports_are_free()
    mesh = LocalMesh(PEERS)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            stage = Stage(mesh, http, console)
            for act in ACTS:
                await act(stage)
        console.print(f"\n[bold green]All {stage.step} steps held[/], in {time.monotonic() - begun:.0f} s.")
        if keep:
            await _keep(console, mesh)
    finally:
        await mesh.close()
    return 0


def _ports_are_free() -> None:
    for number in range(1, PEERS + 1):
        host = f"127.0.0.{number}"
        for port in (7946, 15001, 15006, 15020, APP_PORT, INTRUDER_PORT, 9190, INTRUDER_UPSTREAM):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError:
                    raise Failed(
                        f"{host}:{port} is in use; the demo needs the mesh's ports and {APP_PORT} on 127.0.0.1–{PEERS}"
                    ) from None


async def until(holds: Callable[[], Awaitable[bool]], what: str, within_s: float = WITHIN_S) -> float:
    """Seconds until `holds` is true. Raises Failed."""
    begun = time.monotonic()
    while not await holds():
        if time.monotonic() - begun > within_s:
            raise Failed(f"{what}: not within {within_s:g} s")
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


# ---------------------------------------------------------------------- the acts


async def members(stage: Stage) -> None:
    """Three peers find each other."""
    stage.title("Three peers, one seed, no control plane")
    begun = time.monotonic()
    await stage.mesh.start()

    async def all_alive() -> bool:
        views = await asyncio.gather(*(peer.json("members") for peer in stage.mesh.peers))
        return all(sum(m["state"] == "alive" for m in view) == PEERS for view in views)

    await until(all_alive, "each peer sees three members alive")
    stage.typed(stage.mesh.peers[2], "gossamer members")
    for member in sorted(await stage.mesh.peers[2].json("members"), key=lambda m: str(m["name"])):
        stage.shows(f"{member['name']}  {member['id']}  {member['address']}  {member['state']}")
    stage.shows(
        f"{PEERS} peers ready and {PEERS} members alive at each, {time.monotonic() - begun:.1f} s after the start"
    )


async def identity(stage: Stage) -> None:
    """A request over mTLS, and what the callee knows of the caller."""
    stage.title("A request from service to service, over mutual TLS")
    first, second, third = stage.mesh.peers
    await stage.mesh.application("cart", "v1", second.host, APP_PORT)
    await stage.mesh.application("cart", "v2", third.host, APP_PORT)
    await asyncio.gather(
        first.command("service", "register", "-f", "-", stdin=WEB),
        second.command("service", "register", "-f", "-", stdin=CART_1),
        third.command("service", "register", "-f", "-", stdin=CART_2),
    )

    async def answers() -> bool:
        return (await stage.request(first.host, 15001, "cart"))[0] == 200

    await until(answers, "web reaches cart")
    stage.typed(first, "curl -H 'host: cart' http://127.0.0.1:15001/")
    _, body = await stage.request(first.host, 15001, "cart")
    expected = "spiffe://cluster.local/ns/default/sa/web"
    if body.get("caller") != expected:
        raise Failed(f"cart saw the caller as {body.get('caller')}, not {expected}")
    stage.shows(f"cart {body['version']} answered; it saw its caller as [bold]{body['caller']}[/]")
    stage.shows(f"trace {body['traceparent']}")


async def authorization(stage: Stage) -> None:
    """A caller that is not allowed is refused by the callee's peer."""
    stage.title("Who may call: a policy published at one peer, enforced at the others")
    first, second, _ = stage.mesh.peers
    await second.command("service", "register", "-f", "-", stdin=INTRUDER)

    async def intruder(code: int) -> bool:
        return (await stage.request(second.host, INTRUDER_UPSTREAM, "cart"))[0] == code

    await until(lambda: intruder(200), "without a policy the intruder gets through")
    stage.shows("without a policy, service intruder reaches cart: 200")
    stage.typed(first, "gossamer apply -f cart-only-for-web.yaml")
    await first.command("apply", "-f", "-", stdin=ONLY_WEB)
    applied = time.monotonic()

    async def refused() -> bool:
        codes = [(await stage.request(second.host, INTRUDER_UPSTREAM, "cart"))[0] for _ in range(4)]
        return codes == [403] * 4

    await until(refused, "the intruder is refused at every cart")
    stage.shows(
        f"intruder → cart: [bold]403[/] at both carts, seen {time.monotonic() - applied:.2f} s after apply returned"
    )
    code, _ = await stage.request(first.host, 15001, "cart")
    if code != 200:
        raise Failed(f"web, which the policy allows, got {code}")
    stage.shows("web → cart: 200")


async def canary(stage: Stage) -> None:
    """A weighted route from the third peer decides at the first."""
    stage.title("A canary: a route published at the third peer, split at the first")
    first, _, third = stage.mesh.peers
    stage.typed(third, "gossamer apply -f cart-canary.yaml   # 90 % v1, 10 % v2")
    await third.command("apply", "-f", "-", stdin=CANARY)

    async def known() -> bool:
        routes = await first.json("get", "httproute")
        return any(route["metadata"]["name"] == "cart-canary" for route in routes)

    seconds = await until(known, "the route is at the first peer")
    await until(lambda: _mostly_v1(stage), "the route decides at the first peer")
    traffic = await stage.requests(REQUESTS)
    share = 100 * traffic.versions["v2"] / REQUESTS
    if traffic.errors or not 6 <= share <= 14:
        raise Failed(f"of {REQUESTS} requests {share:.1f} % went to v2 and {traffic.errors} failed")
    stage.shows(f"the route was at the first peer {seconds:.2f} s after apply returned")
    split = f"v1 {traffic.versions['v1']}, [bold]v2 {traffic.versions['v2']} ({share:.1f} %)[/]"
    stage.shows(f"{REQUESTS} requests: {split}, errors {traffic.errors}")


async def _mostly_v1(stage: Stage) -> bool:
    """40 requests, fewer than 14 at v2: no even split does that (p < 0.02), the canary almost always."""
    return (await stage.requests(40)).versions["v2"] < 14


async def ejection(stage: Stage) -> None:
    """A backend that starts to fail is taken out."""
    stage.title("A backend starts to answer 500: ejected by what its callers see")
    third = stage.mesh.peers[2]
    await third.command("delete", "httproute", "cart-canary")

    async def both() -> bool:
        return len((await stage.requests(20)).versions) == 2

    await until(both, "without the route both carts are used")
    await _switch(stage, third, "on")
    wrong = sent = 0
    gives_up_at = time.monotonic() + WITHIN_S
    while not (ejected := await _ejected(stage)):  # told within two seconds of the fact
        if time.monotonic() > gives_up_at:
            raise Failed(f"v2 was not ejected after {wrong} errors in {sent} requests")
        some = await stage.requests(50)
        wrong, sent = wrong + some.errors, sent + 50
    after = await stage.requests(500)
    if after.errors or after.versions["v2"]:
        raise Failed(f"after the ejection {after.errors} of 500 requests failed")
    stage.shows(
        f"v2 answers 500 from now on: [bold]{wrong}[/] of {sent} requests saw it, then it was ejected"
    )
    stage.shows(f"ejected for {ejected:.0f} s more; the next 500 requests: 0 errors, all from v1")
    await _switch(stage, third, "off")


async def _ejected(stage: Stage) -> float:
    """How long an endpoint of cart stays ejected at the first peer, as its metrics say; 0 while none is."""
    async with stage.http.get(f"http://{stage.mesh.peers[0].host}:15020/metrics") as answer:
        lines = (await answer.text()).splitlines()
    found = [line for line in lines if line.startswith('gossamer_outlier_ejected_seconds{cluster="cart.')]
    return max((float(line.rpartition(" ")[2]) for line in found), default=0.0)


async def _switch(stage: Stage, peer: LocalPeer, state: str) -> None:
    async with stage.http.post(f"http://{peer.host}:{APP_PORT}/failing", data=state) as answer:
        await answer.read()


async def crash(stage: Stage) -> None:
    """A peer dies; requests go on."""
    stage.title("A peer dies (kill -9)")
    first, _, third = stage.mesh.peers
    before = {m["name"]: m for m in await first.json("members")}[third.name]
    killed = time.monotonic()
    await third.kill()
    running = asyncio.create_task(_steadily(stage, 3.0))

    async def seen_dead() -> bool:
        return await _state(first, third) == "dead"

    await until(seen_dead, "the first peer sees the third dead")
    seconds = time.monotonic() - killed
    traffic = await running
    total = sum(traffic.codes.values())
    if traffic.errors > total * 0.01:
        raise Failed(
            f"{traffic.errors} of {total} requests failed while the peer died: {dict(traffic.codes)}"
        )
    stage.shows(f"{third.name} ({before['id']}) declared dead after {seconds:.1f} s")
    stage.shows(
        f"{total} requests meanwhile: {traffic.errors} failed, the slowest took {traffic.slowest_s * 1000:.0f} ms"
    )


async def _state(observer: LocalPeer, subject: LocalPeer) -> str:
    """What `observer` says of `subject`."""
    states = {member["name"]: member["state"] for member in await observer.json("members")}
    return str(states[subject.name])


async def _steadily(stage: Stage, seconds: float) -> Traffic:
    """Requests one after another for a while."""
    whole = Traffic()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        some = await stage.requests(20, workers=2)
        whole.codes += some.codes
        whole.versions += some.versions
        whole.slowest_s = max(whole.slowest_s, some.slowest_s)
    return whole


async def comeback(stage: Stage) -> None:
    """The peer starts again on its data directory and is the same member."""
    stage.title("The peer comes back")
    first, _, third = stage.mesh.peers
    before = {m["name"]: m for m in await first.json("members")}[third.name]
    begun = time.monotonic()
    await third.start("--seed", f"{first.host}:7946")

    async def alive() -> bool:
        return await _state(first, third) == "alive"

    await until(alive, "the first peer sees the third alive")
    after = {m["name"]: m for m in await first.json("members")}[third.name]
    if after["id"] != before["id"] or after["boot"] <= before["boot"]:
        raise Failed(f"{third.name} came back as {after['id']} boot {after['boot']}")
    stage.shows(f"alive again {time.monotonic() - begun:.1f} s after its start, same id, higher boot number")

    async def serves() -> bool:
        return (await stage.requests(20)).versions["v2"] > 0

    await until(serves, "the returned peer's cart gets requests", within_s=40)
    stage.shows(f"its cart serves requests again {time.monotonic() - begun:.1f} s after its start")
    for policy in await third.json("get", "authorizationpolicy"):
        stage.shows(f"it still holds and enforces {policy['kind']} {policy['metadata']['name']}")
    if not await third.json("get", "authorizationpolicy"):
        raise Failed("the returned peer has lost the policy")


ACTS: Final[tuple[Callable[[Stage], Awaitable[None]], ...]] = (
    members,
    identity,
    authorization,
    canary,
    ejection,
    crash,
    comeback,
)


async def _keep(console: Console, mesh: LocalMesh) -> None:
    console.print("\nThe mesh stays up until you press Ctrl-C. Try, in another terminal:")
    for words in (
        f"export GOSSAMER_DATA_DIR={mesh.peers[0].directory}",
        "gossamer members",
        "gossamer stat",
        "gossamer get all",
        "curl -H 'host: cart' http://127.0.0.1:15001/",
        "curl http://127.0.0.1:15020/metrics",
    ):
        console.print(f"   [cyan]{words}[/]", soft_wrap=True)
    await asyncio.Event().wait()
