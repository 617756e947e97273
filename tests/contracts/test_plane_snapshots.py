"""Snapshots, certificates and revocations come under load: none may cost a request, and a bad one changes nothing."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from proxy.embedded.ipc import FRAME_BYTES_MAX
from proxy.plane import Applied, Rejected
from proxy.snapshot import (
    SNAPSHOT_BYTES_MAX,
    Authorization,
    AuthzPolicy,
    AuthzRule,
    Backend,
    Condition,
    HeaderEdit,
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

from .application import App
from .certificates import TRUST_DOMAIN, MeshRoot, spiffe
from .client import connect
from .patience import until
from .twohosts import Mesh, Service, listening_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
    edit = HeaderEdit(set=(("x-request-id", "1"),))
    filtered = RouteRule(name="r", matches=(RouteMatch(),), backends=(), request_headers=edit)
    meddling = replace(destination, rules=(filtered,))
    regex = RouteMatch(path=StringMatch(kind="regex", value="("))
    bad_regex = replace(destination, rules=(RouteRule(name="r", matches=(regex,), backends=()),))
    endpoint = replace(cluster.endpoints[0], local="nobody.default.mesh")
    certificate = replace(
        snapshot.certificates[0], key_pem=b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    )
    return {
        "a backend without a cluster": replace(snapshot, destinations=(dangling,)),
        "a regular expression that is none": replace(snapshot, destinations=(bad_regex,)),
        "a filter that writes what the proxy does": replace(snapshot, destinations=(meddling,)),
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
