"""A thief of the root signs a certificate in a node's name and uses it towards a service only, on real processes."""

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from peer.custody import Custody
from peer.demo.mesh import LocalMesh, LocalPeer
from peer.io.keys import KeyFile, Keys
from trust.authority import read_root
from trust.bundle import TrustBundle
from trust.credential import decode_credential
from trust.held import HeldAuthority
from trust.identity import NodeIdentity, spiffe_workload
from trust.issuance import issue_svid, request_svid
from trust.revocation import RevocationSet
from trust.svid import KeyedSvid, keyed, new_leaf_key
from trust.tls import Caller

NETWORK = "127.10.27"
pytestmark = pytest.mark.process

FOUND_OUT_S_MAX = (
    15.0  # a report a second, a look at it a second, a stream, a push; the rest is for a busy machine
)
CART = "service: {{name: cart, address: {host}, port: 8080}}"

Until = Callable[..., Awaitable[float]]


@pytest.fixture
async def mesh() -> AsyncIterator[LocalMesh]:
    """node-1 holds the root, node-2 is robbed of its name, cart is at node-3."""
    async with LocalMesh(3, network=NETWORK) as made:
        config = made.directory / "gossamer.yaml"
        config.write_text("ca: {signers: 1}\n")
        await made.start("--config", str(config))
        await made.application("cart", "v1", made.peers[2].host, 8080)
        await made.peers[2].command(
            "service", "register", "-f", "-", stdin=CART.format(host=made.peers[2].host)
        )
        yield made


def identity_of(peer: LocalPeer) -> NodeIdentity:
    seed = Keys(peer.directory / "keys").read(KeyFile.NODE_SEED)
    assert seed is not None
    return NodeIdentity.from_seed(seed)


def issued_behind_its_back(thief: LocalPeer, victim: LocalPeer) -> tuple[KeyedSvid, TrustBundle]:
    """A certificate for a workload of the victim. (Its key signs the request, since that is how a certificate of the
    right shape is made; who holds the root writes the same bytes without.)"""
    keys = Keys(thief.directory / "keys")
    root, encoded = (
        keys.read(KeyFile.ROOT_CERTIFICATE),
        Keys(victim.directory / "keys").read(KeyFile.CREDENTIAL),
    )
    assert root is not None
    assert encoded is not None
    credential = decode_credential(encoded)
    domain, now, key = credential.trust_domain, time.time(), new_leaf_key(os.urandom)
    public = read_root(root, domain)
    custody = Custody.load(keys, public, identity=identity_of(thief), trust_domain=domain)
    request = request_svid(
        identity_of(victim), credential, spiffe_workload(domain, "default", "web"), key, now
    )
    der = issue_svid(
        HeldAuthority(custody.shares, os.urandom), root, request, trust_domain=domain, now=int(now),
        entropy=os.urandom, revoked=RevocationSet(public),
    )  # fmt: skip
    return keyed(der, key, root_public=public, trust_domain=domain, now=now), TrustBundle(domain, [root])


async def misissuance(peer: LocalPeer) -> str:
    _, out, _ = await peer.try_command(
        "check", "-o", "json"
    )  # ends with a code of its own where something fails
    return next(
        f"{row['status']}: {row['detail']}" for row in json.loads(out) if row["check"] == "misissuance"
    )


async def test_a_certificate_used_towards_a_worker_only_is_denied_by_the_node_in_whose_name_it_is(
    mesh: LocalMesh, until: Until
) -> None:
    thief, victim, host = mesh.peers
    for peer in mesh.peers:
        assert (await misissuance(peer)).startswith("ok")
    svid, bundle = issued_behind_its_back(thief, victim)
    caller = Caller(certificate=svid, bundle=bundle)
    expected = caller.expecting(spiffe_workload(bundle.trust_domain, "default", "cart"))
    await shake_hands(host, expected)

    async def found_out() -> bool:
        words = [await misissuance(peer) for peer in mesh.peers]
        return all(f"node-2 did not ask for the certificate of {svid.identity}" in each for each in words)

    await until(found_out, "every peer to tell of the denial", FOUND_OUT_S_MAX)
    assert "certificate_misissued" in victim.log


async def shake_hands(host: LocalPeer, context: ssl.SSLContext) -> None:
    _, writer = await asyncio.open_connection(
        host.host, 15006, ssl=context, server_hostname="cart.default.mesh"
    )
    writer.close()
