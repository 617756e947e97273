"""Who is let through a handshake, and who is not."""

import asyncio
import ssl

import pytest
from cryptography import x509

from trust import tls
from trust.bundle import ANY_NODE, Expectation, TrustBundle
from trust.revocation import NODE_REVOCATION_S, revoke, serial_subject
from trust.svid import KeyedSvid
from trust.tls import (
    Caller,
    server_context,
)

TRUST_DOMAIN = "cluster.local"
CART, WEB = "spiffe://cluster.local/ns/default/sa/cart", "spiffe://cluster.local/ns/default/sa/web"


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


def test_both_sides_prove_who_they_are_in_tls_1_3(run, wire, live, bundle) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        web = Caller(certificate=live.workload_svid("web"), bundle=bundle)
        async with wire.listening(context) as stage:
            client = await stage.dial(web.expecting(CART))
            assert await client.ask("hi") == f"{WEB} cart.default.mesh hi"
            assert client.tls.peer.spiffe == CART
            assert client.tls.version() == "TLSv1.3"
            server_side = stage.served[0].tls.peer
            assert server_side is not None
            assert server_side.node == live.founder.identity.id

    run(story())


def test_the_name_asked_for_selects_the_identity(run, wire, live, bundle) -> None:
    async def story() -> None:
        identities = {
            "cart.default.mesh": live.workload_svid("cart"),
            "web.default.mesh": live.workload_svid("web"),
        }
        context = server_context(bundle=bundle, identities=identities, default=live.node_svid())
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        async with wire.listening(context) as stage:
            for sni, identity in (
                ("cart.default.mesh", CART),
                ("web.default.mesh", WEB),
                ("WEB.default.mesh", WEB),
                ("other.default.mesh", live.founder.spiffe),
                ("127.0.0.1", live.founder.spiffe),  # an address is no name: none is sent
            ):
                client = await stage.dial(caller.expecting(identity), sni)
                assert (await client.ask()).split()[0] == live.founder.spiffe
                assert client.tls.peer.spiffe == identity
            assert [echo.tls.sni for echo in stage.served[2:]] == [
                "web.default.mesh",
                "other.default.mesh",
                "",
            ]

    run(story())


def test_a_name_nobody_serves_is_refused_where_there_is_no_default(run, wire, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(
            bundle=bundle,
            identities={"web.default.mesh": live.workload_svid("web")},
            on_refused=refusals.put_nowait,
        )
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        async with wire.listening(context) as stage:
            await wire.refused_by_server(
                stage, caller.expecting(CART), refusals, "nothing here is called 'cart.default.mesh'"
            )
            client = await stage.dial(caller.expecting(WEB), "web.default.mesh")
            assert await client.ask()

    run(story())


def test_a_client_may_stay_anonymous_where_that_is_optional_only(run, wire, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        anonymous = Caller(certificate=None, bundle=bundle).expecting(CART)
        svid = live.workload_svid("cart")
        optional = server_context(bundle=bundle, default=svid, client_certificate="optional")
        async with wire.listening(optional) as stage:
            assert await (await stage.dial(anonymous)).ask("hi") == "anonymous cart.default.mesh hi"
            assert stage.served[0].tls.peer is None
            known = Caller(certificate=live.workload_svid("web"), bundle=bundle).expecting(CART)
            assert (await (await stage.dial(known)).ask()).startswith(WEB)
        required = server_context(bundle=bundle, default=svid, on_refused=refusals.put_nowait)
        async with wire.listening(required) as stage:
            await wire.refused_by_server(stage, anonymous, refusals, "peer did not return a certificate")

    run(story())


def test_start_tls_is_guarded_alike(run, wire, live, bundle) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        async with wire.listening(context) as stage:
            client = await stage.upgrade(caller.expecting(CART))
            assert (await client.ask()).startswith(live.founder.spiffe)
            with pytest.raises(ssl.SSLCertVerificationError, match=f"expected {WEB}"):
                await stage.upgrade(caller.expecting(WEB))

    run(story())


def test_the_application_protocol_is_negotiated_for_every_identity(run, wire, live, bundle) -> None:
    async def story() -> None:
        identities = {"cart.default.mesh": live.workload_svid("cart")}
        context = server_context(
            bundle=bundle, identities=identities, default=live.node_svid(), alpn=["mesh/1"]
        )
        caller = Caller(certificate=live.node_svid(), bundle=bundle, alpn=["other", "mesh/1"])
        async with wire.listening(context) as stage:
            for sni, identity in (("cart.default.mesh", CART), ("x", live.founder.spiffe)):
                client = await stage.dial(caller.expecting(identity), sni)
                assert client.tls.selected_alpn_protocol() == "mesh/1"

    run(story())


def test_a_client_refuses_another_identity_than_it_expects_and_names_both(run, wire, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        caller = Caller(certificate=live.node_svid(), bundle=bundle, on_refused=refusals.put_nowait)
        async with wire.listening(context) as stage:
            await wire.refused_by_client(stage, caller.expecting(WEB), f"the peer is {CART}, expected {WEB}")
            assert CART in refusals.get_nowait()
            await wire.refused_by_client(
                stage, caller.expecting(ANY_NODE), CART, "expected any node of the mesh"
            )
            prefix = Expectation("a bank account", lambda svid: "/ns/bank/" in svid.spiffe)
            await wire.refused_by_client(stage, caller.expecting(prefix), "expected a bank account")

    run(story())


def test_a_server_refuses_another_identity_than_it_expects_and_names_both(run, wire, live, bundle) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(
            bundle=bundle, default=live.node_svid(), expected=ANY_NODE, on_refused=refusals.put_nowait
        )
        expected = live.founder.spiffe
        async with wire.listening(context) as stage:
            workload = Caller(certificate=live.workload_svid("web"), bundle=bundle)
            reason = f"the peer is {WEB}, expected any node of the mesh"
            await wire.refused_by_server(stage, workload.expecting(expected), refusals, reason)
            node = Caller(certificate=live.node_svid(), bundle=bundle)
            assert await (await stage.dial(node.expecting(expected))).ask()

    run(story())


@ODD_LEAFS
def test_a_client_refuses_a_leaf_that_is_not_sound(run, wire, live, bundle, make, words: str) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=make(live))
        async with wire.listening(context) as stage:
            caller = Caller(certificate=live.node_svid(), bundle=bundle)
            await wire.refused_by_client(stage, caller.expecting(CART), words)

    run(story())


@ODD_LEAFS
@pytest.mark.parametrize("client_certificate", ["required", "optional"])
def test_a_server_refuses_a_leaf_that_is_not_sound(
    run, wire, live, bundle, make, words: str, client_certificate: tls.ClientCertificate
) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        context = server_context(
            bundle=bundle,
            default=live.workload_svid("cart"),
            client_certificate=client_certificate,
            on_refused=refusals.put_nowait,
        )
        async with wire.listening(context) as stage:
            caller = Caller(certificate=make(live), bundle=bundle)
            await wire.refused_by_server(stage, caller.expecting(CART), refusals, words)

    run(story())


def test_a_foreign_root_is_refused_on_either_side(run, wire, live, bundle, make_mesh) -> None:
    async def story() -> None:
        refusals = asyncio.Queue[str]()
        foreign = make_mesh(seed=99, now=live.now)
        foreign_bundle = TrustBundle(TRUST_DOMAIN, [foreign.root_der])
        context = server_context(
            bundle=bundle, default=live.workload_svid("cart"), on_refused=refusals.put_nowait
        )
        async with wire.listening(context) as stage:
            stranger = Caller(certificate=foreign.node_svid(), bundle=bundle)
            await wire.refused_by_server(
                stage, stranger.expecting(CART), refusals, "certificate verify failed"
            )
            native = Caller(certificate=live.node_svid(), bundle=foreign_bundle)
            await wire.refused_by_client(stage, native.expecting(CART), "certificate verify failed")

    run(story())


def test_what_is_revoked_is_refused_in_the_handshake_also_when_it_was_seen_before(
    run, wire, live, bundle
) -> None:
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
        async with wire.listening(context) as stage:
            for caller in (good, stolen):
                assert await (await stage.dial(caller.expecting(CART))).ask()
            ban(live, beta.spiffe)
            stage.served.clear()
            await wire.refused_by_server(
                stage, stolen.expecting(CART), refusals, beta.spiffe, "has been revoked: stolen"
            )
            assert await (await stage.dial(good.expecting(CART))).ask()

    run(story())


def test_a_client_refuses_a_revoked_server_by_serial(run, wire, live, bundle) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        caller = Caller(certificate=live.node_svid(), bundle=bundle, check=live.revoked.check_svid)
        async with wire.listening(context) as stage:
            client = await stage.dial(caller.expecting(CART))
            assert client.tls.peer is not None
            subject = serial_subject(client.tls.peer.serial)
            await client.ask()
            ban(live, subject)
            stage.served.clear()
            await wire.refused_by_client(stage, caller.expecting(CART), subject, "revoked")

    run(story())


def ban(live, subject: str) -> None:
    expires_at = live.now + NODE_REVOCATION_S
    live.revoked.add(revoke(live.authority, subject, reason="stolen", now=live.now, expires_at=expires_at))


def test_nothing_older_than_tls_1_3_is_spoken(run, wire, live, bundle) -> None:
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
        async with wire.listening(context) as stage:
            await wire.refused_by_server(stage, old, refusals, "protocol")

    run(story())
