"""What changes while a listener listens and callers call, and what must not: connections."""

import asyncio
import ssl

import pytest

from trust import tls
from trust.bundle import TrustBundle
from trust.errors import SvidError
from trust.svid import KeyedSvid
from trust.tls import (
    Caller,
    PeerObject,
    server_context,
)

TRUST_DOMAIN = "cluster.local"
CART, WEB = "spiffe://cluster.local/ns/default/sa/cart", "spiffe://cluster.local/ns/default/sa/web"


def test_a_listener_rotates_its_certificates_under_live_connections(run, wire, live, bundle) -> None:
    async def story() -> None:
        first, second = live.workload_svid("cart"), live.workload_svid("cart")
        context = server_context(bundle=bundle, identities={"cart.default.mesh": first})
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        async with wire.listening(context) as stage:
            before = await stage.dial(caller.expecting(CART))
            await before.ask()
            context.update(identities={"cart.default.mesh": second}, default=None)
            after = await stage.dial(caller.expecting(CART))
            assert presented(before) == first.chain_pem
            assert presented(after) == second.chain_pem
            assert await before.ask("still here") == f"{live.founder.spiffe} cart.default.mesh still here"
            assert await after.ask()

    run(story())


def test_a_caller_rotates_its_certificate_in_contexts_handed_out_before(run, wire, live, bundle) -> None:
    async def story() -> None:
        context = server_context(bundle=bundle, default=live.workload_svid("cart"))
        caller = Caller(certificate=live.workload_svid("web"), bundle=bundle)
        handed_out = caller.expecting(CART)
        async with wire.listening(context) as stage:
            before = await stage.dial(handed_out)
            assert (await before.ask()).startswith(WEB)
            caller.update(certificate=live.node_svid())
            after = await stage.dial(handed_out)
            assert (await after.ask()).startswith(live.founder.spiffe)
            assert (await before.ask()).startswith(WEB)

    run(story())


def test_no_connection_fails_while_certificates_rotate(run, wire, live, bundle) -> None:
    async def story() -> None:
        leafs = [live.workload_svid("cart") for _ in range(4)]
        context = server_context(bundle=bundle, identities={"cart.default.mesh": leafs[0]})
        caller = Caller(certificate=live.node_svid(), bundle=bundle)
        seen: list[bytes] = []

        async def knock(stage) -> None:
            for _ in range(10):
                client = await stage.dial(caller.expecting(CART))
                assert await client.ask()
                seen.append(presented(client))
                if len(seen) % 10 == 0:  # while the other three are somewhere in their handshakes
                    leaf = leafs[len(seen) // 10 % len(leafs)]
                    context.update(identities={"cart.default.mesh": leaf}, default=None)

        async with wire.listening(context) as stage:
            await asyncio.gather(*(knock(stage) for _ in range(4)))
        assert len(seen) == 40
        assert set(seen) == {leaf.chain_pem for leaf in leafs}

    run(story())


def test_an_update_that_does_not_load_changes_nothing(run, wire, live, bundle) -> None:
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
        async with wire.listening(context) as stage:
            client = await stage.dial(caller.expecting(CART))
            assert (await client.ask()).startswith(live.founder.spiffe)
            assert presented(client) == cart.chain_pem

    run(story())


def presented(client) -> bytes:
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


def test_no_session_can_be_resumed(run, wire, live, bundle) -> None:
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
            async with wire.listening(context) as stage:
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
