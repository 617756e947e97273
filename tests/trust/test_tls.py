"""TLS over real sockets, on both event loops: who is let through, who is not, and what changes under way."""

import asyncio
import random
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509

from trust import tls
from trust.authority import root_fingerprint
from trust.bundle import ANY_NODE, Expectation, TrustBundle
from trust.errors import SvidError
from trust.identity import NodeSpiffe
from trust.revocation import NODE_REVOCATION_S, revoke, serial_subject
from trust.svid import KeyedSvid
from trust.tls import (
    Caller,
    PeerObject,
    ServerContext,
    client_context_unverified,
    peer_spiffe,
    server_context,
    verify_introduction,
)

TRUST_DOMAIN = "cluster.local"
CART, WEB = "spiffe://cluster.local/ns/default/sa/cart", "spiffe://cluster.local/ns/default/sa/web"
PATIENCE_S = 10.0

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_on_loop(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(story, 5 * PATIENCE_S))

    return run_on_loop


@pytest.fixture
def live(make_mesh):
    """A mesh whose certificates are valid now: OpenSSL reads the real clock."""
    return make_mesh(seed=random.randrange(2**32), now=int(time.time()))


@pytest.fixture
def bundle(live) -> TrustBundle:
    return TrustBundle(TRUST_DOMAIN, [live.root_der])


class Echo(asyncio.Protocol):
    """Answers with what came, behind the caller's SPIFFE ID and the name it asked for."""

    def __init__(self, served: "list[Echo]") -> None:
        self._served = served

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.tls: PeerObject = transport.get_extra_info("ssl_object")
        self._served.append(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(
            f"{peer_spiffe(self.tls) or 'anonymous'} {self.tls.sni} ".encode() + data + b"\n"
        )


class Client(asyncio.Protocol):
    """One connection of a caller."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.tls: PeerObject = transport.get_extra_info("ssl_object")
        self.received = asyncio.Queue[bytes]()
        self.lost = asyncio.get_running_loop().create_future()
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while b"\n" in self._pending:
            line, _, self._pending = self._pending.partition(b"\n")
            self.received.put_nowait(line)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)

    async def ask(self, text: str = "hello") -> str:
        """What the server answers. Raises ConnectionError if it hangs up instead."""
        self.transport.write(text.encode())
        answer = asyncio.ensure_future(self.received.get())
        await asyncio.wait({answer, self.lost}, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        if not answer.done():
            answer.cancel()
            raise ConnectionError("the server hung up")
        return answer.result().decode()


class Stage:
    """A listener, and clients that are cleaned up behind the story."""

    def __init__(self, port: int, served: list[Echo]) -> None:
        self.port = port
        self.served = served
        self.clients: list[Client] = []

    async def dial(self, context: ssl.SSLContext, sni: str = "cart.default.mesh") -> Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            Client, "127.0.0.1", self.port, ssl=context, server_hostname=sni
        )
        self.clients.append(client)
        return client


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[Stage]:
    served: list[Echo] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(served), "127.0.0.1", 0, ssl=context)
    stage = Stage(server.sockets[0].getsockname()[1], served)
    try:
        yield stage
    finally:
        for client in stage.clients:
            client.transport.abort()
        for echo in served:
            echo.transport.abort()
        for client in stage.clients:
            await client.lost
        server.close()
        await server.wait_closed()


async def refused_by_client(
    stage: Stage, context: ssl.SSLContext, *words: str, sni: str = "cart.default.mesh"
) -> None:
    """The handshake fails at the client, with these words, and the server gets no connection out of it."""
    with pytest.raises(ssl.SSLCertVerificationError) as refusal:
        await stage.dial(context, sni)
    for word in words:
        assert word in str(refusal.value)
    assert stage.served == []


async def refused_by_server(
    stage: Stage, context: ssl.SSLContext, refusals: "asyncio.Queue[str]", *words: str
) -> None:
    """The handshake fails at the server, for this reason, and no byte of the client reaches the application."""
    try:
        client = await stage.dial(context)
        with pytest.raises(ConnectionError):
            await client.ask()
    except (ssl.SSLError, ConnectionError):
        pass  # in TLS 1.3 a client may or may not have finished before it is refused
    reason = await asyncio.wait_for(refusals.get(), PATIENCE_S)
    for word in words:
        assert word in reason
    assert stage.served == []


def expired(live) -> KeyedSvid:
    return live.odd_leaf(not_before=live.now - 7200, not_after=live.now - 3600)


def two_names(live) -> KeyedSvid:
    return live.odd_leaf(names=[x509.UniformResourceIdentifier(CART), x509.UniformResourceIdentifier(WEB)])


def not_yet_valid(live) -> KeyedSvid:
    return live.odd_leaf(not_before=live.now + 3600, not_after=live.now + 7200)


def unlinked(live) -> KeyedSvid:
    return live.odd_leaf(names_issuer_key=False)


ODD_LEAFS = pytest.mark.parametrize(
    ("make", "words"),
    [
        (expired, "expired"),
        (two_names, "exactly one URI name"),
        (not_yet_valid, "not yet valid"),
        (unlinked, "Key Identifier"),
    ],
)


# ------------------------------------------------------------------ who is let through


def test_both_sides_prove_who_they_are_in_tls_1_3(run, live, bundle) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        web = Caller(certificate=live.workload_svid("web"), bundle=bundle)
        async with listening(context) as stage:
            client = await stage.dial(web.expecting(CART))
            assert await client.ask("hi") == f"{WEB} cart.default.mesh hi"
            assert peer_spiffe(client.tls) == CART
            assert client.tls.version() == "TLSv1.3"
            server_side = stage.served[0].tls.peer
            assert server_side is not None
            assert server_side.node == live.founder.identity.id

    run(story())


def test_the_name_asked_for_selects_the_identity(run, live, bundle) -> None:
    async def story() -> None:
        identities = {
            "cart.default.mesh": live.workload_svid("cart"),
            "web.default.mesh": live.workload_svid("web"),
        }
        context = server_context(bundle=bundle, identities=identities, default=live.node_svid())
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        async with listening(context) as stage:
            for sni, identity in (
                ("cart.default.mesh", CART),
                ("web.default.mesh", WEB),
                ("WEB.default.mesh", WEB),
                ("other.default.mesh", live.founder.spiffe),
                ("127.0.0.1", live.founder.spiffe),  # an address is no name: none is sent
            ):
                client = await stage.dial(caller.expecting(identity), sni)
                assert (await client.ask()).split()[0] == live.founder.spiffe
                assert peer_spiffe(client.tls) == identity
            assert [echo.tls.sni for echo in stage.served[2:]] == [
                "web.default.mesh",
                "other.default.mesh",
                "",
            ]

    run(story())


def test_a_name_nobody_serves_is_refused_where_there_is_no_default(run, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(
            bundle=bundle,
            identities={"web.default.mesh": live.workload_svid("web")},
            on_refused=refusals.put_nowait,
        )
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        async with listening(context) as stage:
            await refused_by_server(
                stage, caller.expecting(CART), refusals, "nothing here is called 'cart.default.mesh'"
            )
            client = await stage.dial(caller.expecting(WEB), "web.default.mesh")
            assert await client.ask()

    run(story())


def test_a_client_may_stay_anonymous_where_that_is_optional_only(run, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        anonymous = Caller(certificate=None, bundle=bundle).expecting(CART)
        svid = live.workload_svid("cart")
        optional = server_context(bundle=bundle, default=svid, client_certificate="optional")
        async with listening(optional) as stage:
            assert await (await stage.dial(anonymous)).ask("hi") == "anonymous cart.default.mesh hi"
            assert stage.served[0].tls.peer is None
            known = Caller(certificate=live.workload_svid("web"), bundle=bundle).expecting(CART)
            assert (await (await stage.dial(known)).ask()).startswith(WEB)
        required = server_context(bundle=bundle, default=svid, on_refused=refusals.put_nowait)
        async with listening(required) as stage:
            await refused_by_server(stage, anonymous, refusals, "peer did not return a certificate")

    run(story())


def test_start_tls_is_guarded_alike(run, live, bundle) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        async with listening(context) as stage:
            client = Client()
            plain, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", stage.port)
            client.connection_made(
                await loop.start_tls(plain, client, caller.expecting(CART), server_hostname="x")
            )
            stage.clients.append(client)
            assert (await client.ask()).startswith(live.founder.spiffe)
            plain, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", stage.port)
            with pytest.raises(ssl.SSLCertVerificationError, match=f"expected {WEB}"):
                await loop.start_tls(plain, Client(), caller.expecting(WEB), server_hostname="x")

    run(story())


def test_the_application_protocol_is_negotiated_for_every_identity(run, live, bundle) -> None:
    async def story() -> None:
        identities = {"cart.default.mesh": live.workload_svid("cart")}
        context = server_context(
            bundle=bundle, identities=identities, default=live.node_svid(), alpn=["mesh/1"]
        )
        caller = Caller(certificate=live.node_svid(), bundle=bundle, alpn=["other", "mesh/1"])
        async with listening(context) as stage:
            for sni, identity in (("cart.default.mesh", CART), ("x", live.founder.spiffe)):
                client = await stage.dial(caller.expecting(identity), sni)
                assert client.tls.selected_alpn_protocol() == "mesh/1"

    run(story())


# ------------------------------------------------------------------ who is not


def test_a_client_refuses_another_identity_than_it_expects_and_names_both(run, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        caller = Caller(certificate=live.node_svid(), bundle=bundle, on_refused=refusals.put_nowait)
        async with listening(context) as stage:
            await refused_by_client(stage, caller.expecting(WEB), f"the peer is {CART}, expected {WEB}")
            assert CART in refusals.get_nowait()
            await refused_by_client(stage, caller.expecting(ANY_NODE), CART, "expected any node of the mesh")
            prefix = Expectation("a bank account", lambda svid: "/ns/bank/" in svid.spiffe)
            await refused_by_client(stage, caller.expecting(prefix), "expected a bank account")

    run(story())


def test_a_server_refuses_another_identity_than_it_expects_and_names_both(run, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(
            bundle=bundle, default=live.node_svid(), expected=ANY_NODE, on_refused=refusals.put_nowait
        )
        expected = live.founder.spiffe
        async with listening(context) as stage:
            workload = Caller(certificate=live.workload_svid("web"), bundle=bundle)
            reason = f"the peer is {WEB}, expected any node of the mesh"
            await refused_by_server(stage, workload.expecting(expected), refusals, reason)
            node = Caller(certificate=live.node_svid(), bundle=bundle)
            assert await (await stage.dial(node.expecting(expected))).ask()

    run(story())


@ODD_LEAFS
def test_a_client_refuses_a_leaf_that_is_not_sound(run, live, bundle, make, words: str) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=make(live))
        async with listening(context) as stage:
            caller = Caller(certificate=live.node_svid(), bundle=bundle)
            await refused_by_client(stage, caller.expecting(CART), words)

    run(story())


@ODD_LEAFS
@pytest.mark.parametrize("client_certificate", ["required", "optional"])
def test_a_server_refuses_a_leaf_that_is_not_sound(
    run, live, bundle, make, words: str, client_certificate: tls.ClientCertificate
) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(
            bundle=bundle,
            default=live.workload_svid("cart"),
            client_certificate=client_certificate,
            on_refused=refusals.put_nowait,
        )
        async with listening(context) as stage:
            caller = Caller(certificate=make(live), bundle=bundle)
            await refused_by_server(stage, caller.expecting(CART), refusals, words)

    run(story())


def test_a_foreign_root_is_refused_on_either_side(run, live, bundle, make_mesh) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        foreign = make_mesh(seed=99, now=live.now)
        foreign_bundle = TrustBundle(TRUST_DOMAIN, [foreign.root_der])
        context = server_context(
            bundle=bundle, default=live.workload_svid("cart"), on_refused=refusals.put_nowait
        )
        async with listening(context) as stage:
            stranger = Caller(certificate=foreign.node_svid(), bundle=bundle)
            await refused_by_server(stage, stranger.expecting(CART), refusals, "certificate verify failed")
            native = Caller(certificate=live.node_svid(), bundle=foreign_bundle)
            await refused_by_client(stage, native.expecting(CART), "certificate verify failed")

    run(story())


def test_what_is_revoked_is_refused_in_the_handshake_also_when_it_was_seen_before(run, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        beta = live.join("beta")
        context = server_context(
            bundle=bundle,
            default=live.workload_svid("cart"),
            check=live.revoked.check_svid,
            on_refused=refusals.put_nowait,
        )
        good = Caller(certificate=live.workload_svid("web"), bundle=bundle)
        stolen = Caller(certificate=live.workload_svid("web", member=beta), bundle=bundle)
        async with listening(context) as stage:
            for caller in (good, stolen):
                assert await (await stage.dial(caller.expecting(CART))).ask()
            ban(live, beta.spiffe)
            stage.served.clear()
            await refused_by_server(
                stage, stolen.expecting(CART), refusals, beta.spiffe, "has been revoked: stolen"
            )
            assert await (await stage.dial(good.expecting(CART))).ask()

    run(story())


def test_a_client_refuses_a_revoked_server_by_serial(run, live, bundle) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        caller = Caller(certificate=live.node_svid(), bundle=bundle, check=live.revoked.check_svid)
        async with listening(context) as stage:
            client = await stage.dial(caller.expecting(CART))
            assert client.tls.peer is not None
            subject = serial_subject(client.tls.peer.serial)
            await client.ask()
            ban(live, subject)
            stage.served.clear()
            await refused_by_client(stage, caller.expecting(CART), subject, "revoked")

    run(story())


def ban(live, subject: str) -> None:
    expires_at = live.now + NODE_REVOCATION_S
    live.revoked.add(revoke(live.authority, subject, reason="stolen", now=live.now, expires_at=expires_at))


def test_nothing_older_than_tls_1_3_is_spoken(run, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(
            bundle=bundle,
            default=live.workload_svid("cart"),
            client_certificate="optional",
            on_refused=refusals.put_nowait,
        )
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with listening(context) as stage:
            await refused_by_server(stage, old, refusals, "protocol")

    run(story())


# ------------------------------------------------------------------ what changes under way


def test_a_listener_rotates_its_certificates_under_live_connections(run, live, bundle) -> None:
    async def story() -> None:
        first, second = live.workload_svid("cart"), live.workload_svid("cart")
        context = server_context(bundle=bundle, identities={"cart.default.mesh": first})
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        async with listening(context) as stage:
            before = await stage.dial(caller.expecting(CART))
            await before.ask()
            context.update(identities={"cart.default.mesh": second}, default=None)
            after = await stage.dial(caller.expecting(CART))
            assert presented(before) == first.chain_pem
            assert presented(after) == second.chain_pem
            assert await before.ask("still here") == f"{live.founder.spiffe} cart.default.mesh still here"
            assert await after.ask()

    run(story())


def test_a_caller_rotates_its_certificate_in_contexts_handed_out_before(run, live, bundle) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        caller = Caller(certificate=live.workload_svid("web"), bundle=bundle)
        handed_out = caller.expecting(CART)
        async with listening(context) as stage:
            before = await stage.dial(handed_out)
            assert (await before.ask()).startswith(WEB)
            caller.update(certificate=live.node_svid())
            after = await stage.dial(handed_out)
            assert (await after.ask()).startswith(live.founder.spiffe)
            assert (await before.ask()).startswith(WEB)

    run(story())


def test_no_connection_fails_while_certificates_rotate(run, live, bundle) -> None:
    async def story() -> None:
        leafs = [live.workload_svid("cart") for _ in range(4)]
        context = server_context(bundle=bundle, identities={"cart.default.mesh": leafs[0]})
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        seen: list[bytes] = []

        async def knock(stage: Stage) -> None:
            for _ in range(10):
                client = await stage.dial(caller.expecting(CART))
                assert await client.ask()
                seen.append(presented(client))
                if len(seen) % 10 == 0:  # while the other three are somewhere in their handshakes
                    leaf = leafs[len(seen) // 10 % len(leafs)]
                    context.update(identities={"cart.default.mesh": leaf}, default=None)

        async with listening(context) as stage:
            await asyncio.gather(*(knock(stage) for _ in range(4)))
        assert len(seen) == 40
        assert set(seen) == {leaf.chain_pem for leaf in leafs}

    run(story())


def test_an_update_that_does_not_load_changes_nothing(run, live, bundle) -> None:
    async def story() -> None:
        cart, web = live.workload_svid("cart"), live.workload_svid("web")
        context = server_context(bundle=bundle, identities={"cart.default.mesh": cart})
        mismatched = KeyedSvid(
            identity=WEB, chain_pem=web.chain_pem, key_pem=cart.key_pem, not_before=0, not_after=web.not_after
        )
        identities = {"cart.default.mesh": live.workload_svid("cart"), "web.default.mesh": mismatched}
        with pytest.raises(
            SvidError, match=f"the certificate for {WEB} and its key do not load or do not match"
        ):
            context.update(identities=identities, default=None)
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        with pytest.raises(SvidError, match="do not match"):
            caller.update(certificate=mismatched)
        async with listening(context) as stage:
            client = await stage.dial(caller.expecting(CART))
            assert (await client.ask()).startswith(live.founder.spiffe)
            assert presented(client) == cart.chain_pem

    run(story())


def presented(client: Client) -> bytes:
    return ssl.DER_cert_to_PEM_cert(client.tls.peer_der).encode()


def test_an_update_builds_only_what_changed(live, bundle) -> None:
    cart, web = live.workload_svid("cart"), live.workload_svid("web")
    context = server_context(bundle=bundle, identities={"a": cart, "b": cart, "c": web})
    before = dict(context._current()[1].by_sni)
    context.update(identities={"a": cart, "b": live.workload_svid("cart"), "c": web}, default=None)
    after = context._current()[1].by_sni
    assert before["a"] is before["b"] is after["a"]
    assert after["b"] is not after["a"]
    assert after["c"] is before["c"]
    context.update(identities={"a": cart}, default=None, bundle=TrustBundle(TRUST_DOMAIN, [live.root_der]))
    assert context._current()[1].by_sni["a"] is not before["a"]


def test_no_session_can_be_resumed(run, live, bundle) -> None:
    async def story() -> None:
        ours = server_context(bundle=bundle, default=live.workload_svid("cart"))
        usual = ssl.SSLContext(
            ssl.PROTOCOL_TLS_SERVER
        )  # the measure: what a server does that nobody told otherwise
        tls._load(usual, live.workload_svid("cart"))
        usual.sslobject_class = PatientObject
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        tickets = []
        for context in (ours, usual):
            async with listening(context) as stage:
                client = await stage.dial(caller.expecting(CART))
                await client.ask()
                session = client.tls.session
                assert session is not None
                tickets.append(session.has_ticket)
                assert client.tls.session_reused is False
        assert tickets == [False, True]

    run(story())


class PatientObject(PeerObject):
    """A PeerObject that judges nobody, for a context without a guard."""

    def do_handshake(self) -> None:
        ssl.SSLObject.do_handshake(self)


# ------------------------------------------------------------------ joining


class TestIntroduction:
    """A node that joins encrypts towards whoever answers, then finds out who that is."""

    async def meet(self, stage: Stage, root_der: bytes, fingerprint: bytes):
        client = await stage.dial(client_context_unverified())
        assert client.tls.peer is None
        return verify_introduction(client.tls, root_der, fingerprint=fingerprint, trust_domain=TRUST_DOMAIN)

    def test_a_node_of_the_right_mesh_is_recognised(self, run, live, bundle) -> None:
        async def story() -> None:
            context = server_context(bundle=bundle, default=live.node_svid(), client_certificate="optional")
            async with listening(context) as stage:
                seed = await self.meet(stage, live.root_der, root_fingerprint(live.root_public))
                assert seed.id == NodeSpiffe(TRUST_DOMAIN, live.founder.identity.id)

        run(story())

    def test_an_impostor_is_recognised_whichever_root_it_shows(self, run, live, make_mesh) -> None:
        async def story() -> None:
            impostor = make_mesh(seed=77, now=live.now)
            context = server_context(
                bundle=TrustBundle(TRUST_DOMAIN, [impostor.root_der]),
                default=impostor.node_svid(),
                client_certificate="optional",
            )
            fingerprint = root_fingerprint(live.root_public)
            async with listening(context) as stage:
                with pytest.raises(SvidError, match="belongs to another mesh"):
                    await self.meet(stage, impostor.root_der, fingerprint)
                with pytest.raises(SvidError, match="not signed by the mesh root"):
                    await self.meet(stage, live.root_der, fingerprint)
                with pytest.raises(SvidError, match="do not decode"):
                    await self.meet(stage, b"nonsense", fingerprint)

        run(story())

    def test_a_workload_and_an_expired_node_are_no_seeds(self, run, live, bundle) -> None:
        async def story() -> None:
            for svid, reason in (
                (live.workload_svid("cart"), "a node's certificate"),
                (expired(live), "expired"),
            ):
                context = server_context(bundle=bundle, default=svid, client_certificate="optional")
                async with listening(context) as stage:
                    with pytest.raises(SvidError, match=reason):
                        await self.meet(stage, live.root_der, root_fingerprint(live.root_public))

        run(story())


# ------------------------------------------------------------------ what contexts do not do


def test_a_private_key_reaches_no_file(live, tmp_path: Path) -> None:
    """Every open for writing that Python does is audited; the one memory file is not a file of any file system."""
    svid = live.node_svid()
    script = """
import os, ssl, sys
from dataclasses import dataclass
from trust.bundle import TrustBundle
from trust.tls import Caller, server_context

@dataclass
class Svid:
    identity: str
    chain_pem: bytes
    key_pem: bytes

svid = Svid("x", bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2]))
bundle = TrustBundle("cluster.local", [bytes.fromhex(sys.argv[3])])
loaded = []
real = ssl.SSLContext.load_cert_chain
def load_cert_chain(self, path, *args, **kwargs):
    loaded.append(os.readlink(path))
    return real(self, path, *args, **kwargs)
ssl.SSLContext.load_cert_chain = load_cert_chain
def audit(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):
        mode, flags = arguments[1] or "", arguments[2] or 0
        if set("wax+") & set(mode) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            print("written:", arguments[0])
sys.addaudithook(audit)
before = set(os.listdir("/proc/self/fd"))
server_context(bundle=bundle, identities={"a": svid}, default=svid)
Caller(certificate=svid, bundle=bundle).expecting("spiffe://cluster.local/ns/a/sa/b")
assert set(os.listdir("/proc/self/fd")) == before, "a descriptor leaked"
print(loaded)
"""
    arguments = [svid.chain_pem.hex(), svid.key_pem.hex(), live.root_der.hex()]
    finished = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(tls.__file__).parent.parent,
        env={"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == str(["/memfd:gossamer-svid (deleted)"] * 3)
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(live, bundle) -> None:
    svid = live.node_svid()
    encrypted = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret"],
        input=svid.key_pem,
        capture_output=True,
        check=True,
    ).stdout
    locked = KeyedSvid(identity="x", chain_pem=svid.chain_pem, key_pem=encrypted, not_before=0, not_after=1)
    with pytest.raises(SvidError, match="do not load"):
        Caller(certificate=locked, bundle=bundle)


def test_contexts_serve_event_loops_and_nothing_that_would_bypass_the_checks(live, bundle) -> None:
    server = server_context(bundle=bundle, default=live.node_svid())
    client = Caller(certificate=live.node_svid(), bundle=bundle).expecting(CART)
    for context in (server, client, client_context_unverified()):
        assert isinstance(context, ssl.SSLContext)
        with pytest.raises(NotImplementedError, match="not blocking sockets"):
            context.wrap_socket(None)
        # What C code would see of the shell: no anchors, and a certificate is demanded.
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.get_ca_certs() == []


def test_contexts_per_expected_peer_are_kept_and_bounded(live, bundle, monkeypatch) -> None:
    monkeypatch.setattr(tls, "CONTEXTS_CACHED_MAX", 2)
    caller = Caller(certificate=live.node_svid(), bundle=bundle)
    cart, web = caller.expecting(CART), caller.expecting(WEB)
    assert caller.expecting(CART) is cart
    caller.expecting(live.founder.spiffe)
    assert caller.expecting(CART) is cart
    assert caller.expecting(WEB) is not web
    assert caller.expecting(ANY_NODE) is not caller.expecting(ANY_NODE)


def test_reprs_say_who_calls_whom_and_no_secret(live, bundle) -> None:
    svid = live.node_svid()
    caller = Caller(certificate=svid, bundle=bundle)
    server = server_context(bundle=bundle, identities={"a": svid}, default=svid)
    assert isinstance(server, ServerContext)
    shown = [repr(caller), repr(caller.expecting(CART)), repr(caller.expecting(ANY_NODE)), repr(server)]
    assert shown[0] == f"Caller({svid.identity})"
    assert shown[1] == f"ClientContext({svid.identity} -> {CART})"
    assert shown[2].endswith("any node of the mesh)")
    assert shown[3] == "ServerContext(cluster.local, 1 names, client required)"
