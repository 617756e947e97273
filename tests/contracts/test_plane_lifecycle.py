"""Snapshots, certificates, crashes, drains: nothing of them may cost a request."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from proxy.embedded.ipc import FRAME_BYTES_MAX
from proxy.plane import Applied, Plane, Rejected
from proxy.snapshot import (
    SNAPSHOT_BYTES_MAX,
    Authorization,
    AuthzPolicy,
    AuthzRule,
    Backend,
    Condition,
    Listener,
    RetryPolicy,
    RouteMatch,
    RouteRule,
    StringMatch,
    encode_snapshot,
)
from trust.bundle import TrustBundle
from trust.identity import NodeIdentity, spiffe_node
from trust.tls import Caller

from .conftest import (
    PLANES,
    TRUST_DOMAIN,
    App,
    Mesh,
    MeshRoot,
    Service,
    answer,
    connect,
    listening_socket,
    spiffe,
    until,
)
from .greeter import Greeter, Stub

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(params=PLANES)
def make_plane(request: pytest.FixtureRequest) -> Any:
    return PLANES[request.param]


@asynccontextmanager
async def mesh_of_its_own(root: MeshRoot, make_plane: Any) -> AsyncIterator[Mesh]:
    """For tests that end workers."""
    planes: dict[str, Plane] = {host: make_plane() for host in ("a", "b")}
    mesh = Mesh(root, planes, {})
    try:
        for plane in planes.values():
            await plane.start()
        yield mesh
    finally:
        for plane in planes.values():
            await plane.stop()
        mesh.close()


class Load:
    """Callers that go on until stopped, and what they got."""

    def __init__(self, mesh: Mesh, callers: int = 4) -> None:
        self.statuses: list[int] = []
        self.errors: list[str] = []
        self._mesh = mesh
        self._stop = False
        self._tasks = [asyncio.ensure_future(self._run(n)) for n in range(callers)]

    async def _run(self, number: int) -> None:
        while not self._stop:
            try:
                async with connect(self._mesh.port()) as connection:
                    for _ in range(20):
                        self.statuses.append((await connection.request()).status)
                        if self._stop:
                            return
            except (OSError, asyncio.IncompleteReadError) as error:
                self.errors.append(repr(error))

    async def stop(self) -> None:
        self._stop = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 10)

    async def more(self, count: int) -> None:
        target = len(self.statuses) + count
        await until(lambda: len(self.statuses) >= target, f"{count} more answers")


# ---------------------------------------------------------------- snapshots


async def test_snapshots_are_swapped_under_load_without_a_failed_request(
    mesh: Mesh, app: App, other: App
) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    load = Load(mesh)
    await load.more(50)
    for turn in range(20):
        await mesh.serve(
            Service("echo", {"b": (app, other)[turn % 2].port}), Service(f"more-{turn}", {"a": other.port})
        )
        await load.more(10)
    await load.stop()
    assert set(load.statuses) == {200}
    assert load.errors == []
    assert app.received
    assert other.received


async def test_certificates_rotate_without_a_failed_request(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    load = Load(mesh)
    await load.more(50)
    for _ in range(6):
        mesh.certificates.clear()
        await mesh.serve(Service("echo", {"b": app.port}))
        await load.more(20)
    await load.stop()
    assert set(load.statuses) == {200}
    assert load.errors == []


async def test_a_rotated_certificate_is_the_one_presented(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))

    async def presented() -> bytes:
        async with mesh.inbound("echo") as connection:
            assert (await connection.request()).status == 200
            der: bytes = connection.writer.get_extra_info("ssl_object").peer_der
            return der

    first = await presented()
    assert await presented() == first
    mesh.certificates.pop("echo")
    await mesh.serve(Service("echo", {"b": app.port}))
    assert await presented() != first


def unservable(snapshot: Any) -> dict[str, Any]:
    cluster, destination = snapshot.clusters[0], snapshot.destinations[0]
    dangling = replace(
        destination,
        rules=(RouteRule(name="r", matches=(RouteMatch(),), backends=(Backend(cluster="gone"),)),),
    )
    regex = RouteMatch(path=StringMatch(kind="regex", value="("))
    bad_regex = replace(destination, rules=(RouteRule(name="r", matches=(regex,), backends=()),))
    endpoint = replace(cluster.endpoints[0], local="nobody.default.mesh")
    certificate = replace(
        snapshot.certificates[0], key_pem=b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    )
    return {
        "a backend without a cluster": replace(snapshot, destinations=(dangling,)),
        "a regular expression that is none": replace(snapshot, destinations=(bad_regex,)),
        "a local endpoint that is not": replace(
            snapshot, clusters=(replace(cluster, endpoints=(endpoint,)),)
        ),
        "a key that does not load": replace(snapshot, certificates=(certificate,)),
        "a bundle that is none": replace(snapshot, trust_bundle_pem=b"nonsense"),
        "no bundle": replace(snapshot, trust_bundle_pem=b""),
        "an unknown retry condition": replace(
            snapshot, clusters=(replace(cluster, retry=RetryPolicy(on=("always",))),)
        ),
        "two listeners of one name": replace(
            snapshot, listeners=(*snapshot.listeners, snapshot.listeners[0])
        ),
        "an upstream to nowhere": replace(
            snapshot,
            listeners=(*snapshot.listeners[:1], Listener(name="out", kind="upstream", destination="gone")),
        ),
        "a condition nobody knows": replace(
            snapshot,
            inbound=tuple(
                replace(
                    each,
                    authorization=Authorization(
                        allow=(
                            AuthzPolicy(name="p", variants=((AuthzRule(conditions=(Condition(key="x"),)),),)),
                        )
                    ),
                )
                for each in snapshot.inbound
            ),
        ),
    }


async def test_what_cannot_be_served_is_rejected_whole_and_changes_nothing(
    mesh: Mesh, app: App, other: App
) -> None:
    await mesh.serve(Service("echo", {"a": app.port}))
    good = mesh.snapshots["a"]
    load = Load(mesh, callers=2)
    for what, bad in unservable(good).items():
        outcome = await mesh.apply("a", replace(bad, version=99))
        assert isinstance(outcome, Rejected), what
        assert outcome.version == 99
        assert outcome.reason
        assert "\n" not in outcome.reason, what
        await load.more(5)
    await load.stop()
    assert set(load.statuses) == {200}
    assert await mesh.apply("a", good) == Applied(version=good.version)


async def test_a_reject_names_the_policies_at_fault(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"a": app.port}))
    good = mesh.snapshots["a"]
    regex = RouteMatch(path=StringMatch(kind="regex", value="("))
    rules = tuple(
        RouteRule(name=f"HTTPRoute/default/r{n}/0", matches=(regex if n % 2 else RouteMatch(),), backends=())
        for n in range(4)
    )
    routed = replace(good, destinations=(replace(good.destinations[0], rules=rules),))
    outcome = await mesh.apply("a", replace(routed, version=99))
    assert isinstance(outcome, Rejected)
    assert outcome.policies == ("HTTPRoute/default/r1", "HTTPRoute/default/r3")
    bad = AuthzPolicy(name="default/bad", variants=((AuthzRule(conditions=(Condition(key="x"),)),),))
    held = Authorization(deny=(AuthzPolicy(name="default/fine", variants=((AuthzRule(),),)), bad))
    inbound = tuple(replace(each, authorization=held) for each in good.inbound)
    outcome = await mesh.apply("a", replace(good, inbound=inbound, version=99))
    assert isinstance(outcome, Rejected)
    assert (outcome.fault, outcome.policies) == ("snapshot", ("AuthorizationPolicy/default/bad",))


async def test_a_listener_without_a_socket_is_rejected(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    snapshot = mesh.snapshots["a"]
    outcome = await mesh.planes["a"].apply(snapshot, {})
    assert outcome == Rejected(
        version=snapshot.version, reason="no socket for listener in, out", fault="plane"
    )


async def test_listeners_come_and_go_with_snapshots(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), upstreams=("echo",))
    async with connect(mesh.port("a/echo")) as connection:
        assert (await connection.request(host="x")).status == 200
        await mesh.serve(Service("echo", {"b": app.port}))
        assert (await connection.request(host="x")).status == 200, "an open connection stays"
    await mesh.serve(Service("echo", {"b": app.port}), upstreams=("echo",))
    async with connect(mesh.port("a/echo")) as connection:
        assert (await connection.request(host="x")).status == 200


async def test_a_listener_may_move_to_another_socket(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    old = mesh.sockets["a/out"]
    mesh.sockets["a/out"] = listening_socket()
    await mesh.serve(Service("echo", {"b": app.port}))
    old.close()
    assert (await mesh.call()).status == 200


async def test_a_revoked_caller_is_cut_off_at_once_and_refused_after(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with mesh.inbound("echo", account="batch") as batch, mesh.inbound("echo") as web:
        assert (await batch.request()).status == 200
        await mesh.apply("b", replace(mesh.snapshots["b"], revoked=(spiffe("batch"),)))
        assert await batch.at_end()
        assert (await web.request()).status == 200
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        async with mesh.inbound("echo", account="batch") as batch:
            await batch.request()


async def test_what_a_revoked_node_holds_is_cut_off_and_refused(mesh: Mesh, app: App) -> None:
    """A workload's certificate does not name the node that asked for it, which may be the one that was stolen."""
    await mesh.serve(Service("echo", {"b": app.port}))
    thief = Thief(mesh.root)
    async with thief.inbound(mesh, "batch") as stolen, mesh.inbound("echo", account="batch") as batch:
        assert (await stolen.request()).status == 200
        assert (await batch.request()).status == 200
        await mesh.apply("b", replace(mesh.snapshots["b"], revoked=(thief.subject,)))
        assert await stolen.at_end()
        assert (await batch.request()).status == 200
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        async with thief.inbound(mesh, "batch") as stolen:
            await stolen.request()


class Thief(MeshRoot):
    """Another node of the same mesh."""

    def __init__(self, root: MeshRoot) -> None:
        self.now, self.authority, self.root_der, self.bundle_pem = (
            root.now, root.authority, root.root_der, root.bundle_pem,
        )  # fmt: skip
        self.identity = NodeIdentity.from_seed(os.urandom(32))
        credential = replace(
            root.credential, public_key=self.identity.public_key, agreement_key=self.identity.agreement_key
        )
        self.credential = credential.signed(self.authority.sign(credential.signing_bytes()))

    @property
    def subject(self) -> str:
        return spiffe_node(TRUST_DOMAIN, self.identity.id)

    @asynccontextmanager
    async def inbound(self, mesh: Mesh, account: str) -> AsyncIterator[Any]:
        bundle = TrustBundle.from_pem(TRUST_DOMAIN, self.bundle_pem)
        context = Caller(certificate=self.certificate(account), bundle=bundle).expecting(spiffe("echo"))
        async with connect(mesh.port("b/in"), ssl=context, server_hostname="echo.default.mesh") as connection:
            yield connection


async def test_a_snapshot_too_large_to_send_is_rejected_and_the_old_one_serves(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"a": app.port}))
    good = mesh.snapshots["a"]
    outcome = await mesh.apply("a", replace(good, version=99, trust_bundle_pem=bytes(SNAPSHOT_BYTES_MAX)))
    assert isinstance(outcome, Rejected)
    assert outcome.version == 99
    assert str(SNAPSHOT_BYTES_MAX) in outcome.reason
    # Just small enough a snapshot, but not together with what names its listeners' sockets.
    out = replace(good.listeners[-1], name="x" * 100_000)
    mesh.sockets[f"a/{out.name}"] = mesh.sockets["a/out"]
    wide = replace(good, listeners=(*good.listeners[:-1], out), trust_bundle_pem=b"")
    room = SNAPSHOT_BYTES_MAX - len(encode_snapshot(wide)) - 16
    outcome = await mesh.apply("a", replace(wide, trust_bundle_pem=bytes(room)))
    del mesh.sockets[f"a/{out.name}"]
    assert isinstance(outcome, Rejected)
    assert str(FRAME_BYTES_MAX) in outcome.reason
    assert (await mesh.call()).body == b"app"
    assert await mesh.apply("a", good) == Applied(version=good.version)


# ---------------------------------------------------------------- processes


async def test_a_killed_worker_comes_back_and_no_connection_is_refused(
    root: MeshRoot, make_plane: Any
) -> None:
    app = await App("app").start()
    async with mesh_of_its_own(root, make_plane) as mesh:
        await mesh.serve(Service("echo", {"b": app.port}))
        assert (await mesh.call()).status == 200
        for host in ("a", "b"):
            (pid,) = mesh.planes[host].processes()
            os.kill(pid, signal.SIGKILL)
            # The connection waits in the kernel until the next worker takes it.
            async with connect(mesh.port()) as connection:
                statuses = [(await connection.request()).status for _ in range(3)]
            assert statuses[0] == 200 or host == "b"  # while "b" has no worker, handshakes with it wait
            (new,) = await until(mesh.planes[host].processes, "a new worker")
            assert new != pid
            assert (await mesh.call()).status == 200
        counters: dict[str, int] = {}
        for plane in mesh.planes.values():
            counters[str(plane)] = plane.observations().counters.get("worker_restarts", 0)
        assert set(counters.values()) == {1}
    await app.stop()


async def test_a_worker_ends_with_its_control_process(root: MeshRoot, make_plane: Any) -> None:
    import sys

    script = (
        "import asyncio, sys\n"
        "from proxy.embedded.plane import EmbeddedPlane\n"
        "async def main():\n"
        "    plane = EmbeddedPlane()\n"
        "    await plane.start()\n"
        "    print(*plane.processes(), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    worker = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    await process.stdout.read()  # to its end: the worker held the other end of the pipe
    await until(lambda: not alive(worker), "the worker to end")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_several_workers_serve_one_snapshot_or_none(root: MeshRoot, make_plane: Any) -> None:
    app = await App("app").start()
    plane = make_plane(workers=2)
    mesh = Mesh(root, {"a": plane}, {})
    await plane.start()
    try:
        assert len(plane.processes()) == 2
        mesh.version = 1
        good = mesh.snapshot("a", (Service("echo", {"a": app.port}),))
        assert await mesh.apply("a", good) == Applied(version=1)
        bad = replace(good, version=2, trust_bundle_pem=b"")
        assert isinstance(await mesh.apply("a", bad), Rejected)
        assert [(await mesh.call()).status for _ in range(10)] == [200] * 10
    finally:
        await plane.stop()
        mesh.close()
        await app.stop()
    assert plane.processes() == ()


async def test_a_drain_finishes_what_is_under_way_and_takes_nothing_new(
    root: MeshRoot, make_plane: Any
) -> None:
    release = asyncio.Event()

    async def wait(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(answer(body=b"done"))

    app = await App("app").start()
    async with mesh_of_its_own(root, make_plane) as mesh:
        await mesh.serve(Service("echo", {"b": app.port}))
        async with connect(mesh.port()) as idle, connect(mesh.port()) as busy:
            assert (await idle.request()).status == 200
            app.script = wait
            await busy.send(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
            await until(lambda: len(app.received) == 2, "the request to be under way")
            draining = asyncio.ensure_future(mesh.planes["a"].drain(10))
            assert await idle.at_end()
            assert not draining.done()
            release.set()
            reply = await busy.reply()
            assert (reply.body, reply.header("connection")) == (b"done", "close")
            await asyncio.wait_for(draining, 5)
    await app.stop()


async def test_a_drain_lets_grpc_calls_end_and_takes_no_new_ones(root: MeshRoot, make_plane: Any) -> None:
    greeter = await Greeter().start()
    async with mesh_of_its_own(root, make_plane) as mesh:
        await mesh.serve(Service("echo", {"b": greeter.port}, protocol="grpc"))
        async with Stub(mesh.port()) as idle, Stub(mesh.port()) as busy:
            assert await idle.unary("Unary", b"hi") == b"hi"
            call = asyncio.ensure_future(busy.unary("Wait"))
            await until(lambda: greeter.calls == 2, "the call to be under way")
            draining = asyncio.ensure_future(mesh.planes["a"].drain(10))
            await until(
                lambda: idle.channel.get_state() == grpc.ChannelConnectivity.IDLE,
                "the idle channel to hear of it",
            )
            assert not draining.done()
            greeter.gate.set()
            assert await call == b"late"
            await asyncio.wait_for(draining, 5)
    await greeter.server.stop(None)


async def test_a_drain_ends_with_its_timeout(root: MeshRoot, make_plane: Any) -> None:
    async def never(app: App, request: Any, reader: asyncio.StreamReader, writer: Any) -> None:
        await reader.read()

    app = await App("app").start()
    app.script = never
    async with mesh_of_its_own(root, make_plane) as mesh:
        await mesh.serve(Service("echo", {"b": app.port}))
        async with connect(mesh.port()) as connection:
            await connection.send(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
            await until(lambda: app.received, "the request to be under way")
            started = asyncio.get_running_loop().time()
            await mesh.planes["a"].drain(0.3)
            assert 0.2 < asyncio.get_running_loop().time() - started < 3
    await app.stop()


# ---------------------------------------------------------------- telemetry


@pytest.mark.parametrize("where", ["a", "b"])
async def test_both_sides_count_a_request_once(mesh: Mesh, app: App, where: str) -> None:
    name = f"counted-{where}"  # a name of its own: reports of earlier tests may still be under way
    await mesh.serve(Service(name, {where: app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(3):
            await connection.request("POST", body=b"12345", host=name)
    counts = {"source": 0, "destination": 0}
    async with asyncio.timeout(10):
        while counts != {"source": 3, "destination": 3}:
            for plane in mesh.planes.values():
                for series, delta in plane.observations().series.items():
                    if series.destination_service != name:
                        continue
                    counts[series.reporter] += delta.requests
                    assert (series.source_service, series.source_namespace) == ("web", "default")
                    assert series.source_principal == spiffe("web")
                    assert series.destination_namespace == "default"
                    assert series.destination_principal == spiffe(name)
                    assert (series.code, series.flags, series.protocol) == (200, "-", "http")
                    assert series.security == ("none" if where == "a" else "mutual_tls")
                    assert delta.request_bytes == 5 * delta.requests
                    assert delta.response_bytes == 3 * delta.requests
                    assert sum(delta.buckets) == delta.requests
                    assert delta.duration_sum_ms > 0
            assert max(counts.values()) <= 3
            await asyncio.sleep(0.02)


async def test_a_log_line_says_all_there_is_to_say_and_cannot_be_forged(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    await mesh.call(method="POST", path='/log?q="},{"', headers={"x-request-id": 'a"b\\\x80'}, body=b"12")
    line = await mesh.log_line("a", path='/log?q="},{"')
    assert line["time"].endswith("Z")
    assert line["duration_ms"] > 0
    assert (line["reporter"], line["method"], line["protocol"], line["code"], line["flags"]) == (
        "source", "POST", "HTTP/1.1", 200, "-",
    )  # fmt: skip
    assert (line["bytes_in"], line["bytes_out"]) == (2, 3)
    assert (line["source"], line["destination"]) == (spiffe("web"), "echo.default.mesh:80")
    assert line["upstream"] == f"127.0.0.1:{mesh.port('b/in')}"
    assert line["request_id"] == 'a"b\\\x80'
    inside = await mesh.log_line("b", request_id='a"b\\\x80')
    assert (inside["reporter"], inside["trace_id"]) == ("destination", line["trace_id"])
    assert inside["upstream"] == f"127.0.0.1:{app.port}"


async def test_the_access_log_can_be_switched_off(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), access_log=False)
    await mesh.call(path="/quiet")
    await mesh.serve(Service("echo", {"b": app.port}))
    await mesh.call(path="/loud")
    await mesh.log_line("a", path="/loud")
    assert "/quiet" not in mesh.logs["a"].read_text()
