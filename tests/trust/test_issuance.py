"""Who gets a leaf: the issuance policy, reason by reason."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from trust.errors import CredentialError, RevokedError, SvidError, TrustError
from trust.identity import spiffe_node, spiffe_workload
from trust.issuance import decode_svid_request, draft_svid
from trust.revocation import revoke, serial_subject
from trust.svid import new_leaf_key, read_svid

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"
CART = spiffe_workload(TRUST_DOMAIN, "shop", "cart")


def read(mesh, der: bytes):
    return read_svid(der, root_public=mesh.root_public, trust_domain=TRUST_DOMAIN)


def spki(public: object) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_issues_what_the_credential_allows(mesh) -> None:
    member = mesh.join("beta", services=["shop/*"])
    svid = read(mesh, mesh.issue(mesh.request(member, CART)))
    assert svid.spiffe == CART
    assert svid.node == member.identity.id


def test_refuses_what_the_credential_does_not_allow(mesh) -> None:
    member = mesh.join("beta", services=["shop/*"])
    with pytest.raises(SvidError, match=r"beta may not act as bank/vault: its credential allows shop/\*"):
        mesh.issue(mesh.request(member, spiffe_workload(TRUST_DOMAIN, "bank", "vault")))


def test_refuses_the_identity_of_another_node(mesh) -> None:
    member = mesh.join("beta")
    with pytest.raises(SvidError, match="beta may not be issued the identity of another node"):
        mesh.issue(mesh.request(member, mesh.founder.spiffe))
    assert read(mesh, mesh.issue(mesh.request(member, member.spiffe))).node == member.identity.id


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("spiffe://other/ns/shop/sa/cart", "not in trust domain"),
        ("https://cluster.local/ns/shop/sa/cart", "not a SPIFFE ID"),
        ("spiffe://cluster.local/ns/shop/sa/Cart", "not a name"),
        ("spiffe://cluster.local", "neither a node"),
        ("spiffe://cluster.local/ns/*/sa/*", "not a name"),
    ],
)
def test_refuses_an_identity_it_could_not_vouch_for(mesh, uri: str, reason: str) -> None:
    with pytest.raises(SvidError, match=reason):
        mesh.issue(mesh.request(mesh.founder, uri))


def test_refuses_a_request_that_someone_else_signed_or_altered(mesh) -> None:
    member, thief = mesh.join("beta", services=["shop/*"]), mesh.join("gamma", services=["x/y"])
    request = mesh.request(member, CART)
    for forged in (
        replace(request, signature=thief.identity.sign(request.signing_bytes())),
        replace(request, public_key_der=new_leaf_key(mesh.entropy).public_der),
        replace(request, requested_at=request.requested_at + 1),
    ):
        with pytest.raises(SvidError, match="not signed by the key of node beta"):
            mesh.issue(forged)


def test_refuses_an_expired_forged_or_foreign_credential(mesh, make_mesh) -> None:
    request = mesh.request(mesh.founder, CART)
    with pytest.raises(CredentialError, match="expired"):
        mesh.issue(request, now=NOW + 8 * 86_400)
    stranger = make_mesh(seed=3)
    with pytest.raises(CredentialError, match="not signed by the root"):
        mesh.issue(stranger.request(stranger.founder, CART))


def test_refuses_a_stale_request_naming_the_clocks(mesh) -> None:
    with pytest.raises(SvidError, match="10 minutes away from the issuer's clock"):
        mesh.issue(mesh.request(mesh.founder, CART), now=NOW + 600)


@pytest.mark.parametrize(
    "public",
    [
        Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
        ec.derive_private_key(7, ec.SECP384R1()).public_key(),
        ec.derive_private_key(7, ec.SECP256K1()).public_key(),
        None,
    ],
)
def test_certifies_p256_keys_only(mesh, public: object) -> None:
    der = spki(public) if public is not None else b"\x30\x00"
    key = replace(new_leaf_key(mesh.entropy), public_der=der)
    with pytest.raises(SvidError, match=r"not ECDSA P-256|does not decode"):
        mesh.issue(mesh.request(mesh.founder, CART, key))


def test_bounds_the_lifetime(mesh) -> None:
    request = mesh.request(mesh.founder, CART)
    assert read(mesh, mesh.issue(request, ttl_s=600)).not_after == NOW + 600
    for ttl_s in (0, -1, 86_401):
        with pytest.raises(SvidError, match="at most 1 day"):
            mesh.issue(request, ttl_s=ttl_s)


def test_a_leaf_does_not_outlive_the_credential_it_rests_on(mesh) -> None:
    late = mesh.founder.credential.expires_at - 100
    mesh.now = late
    assert (
        read(mesh, mesh.issue(mesh.request(mesh.founder, CART))).not_after
        == mesh.founder.credential.expires_at
    )


@pytest.mark.parametrize("what", ["node", "credential", "identity"])
def test_refuses_what_is_revoked(mesh, what: str) -> None:
    member = mesh.join("beta", services=["shop/*"])
    subject = {
        "node": member.spiffe,
        "credential": serial_subject(member.credential.serial),
        "identity": CART,
    }[what]
    request = mesh.request(member, CART)
    mesh.issue(request)
    mesh.revoked.add(revoke(mesh.authority, subject, reason="stolen", now=NOW, expires_at=NOW + 90 * 86_400))
    with pytest.raises(RevokedError, match="has been revoked: stolen"):
        mesh.issue(request)


def test_each_signer_drafts_the_same_bytes(mesh) -> None:
    request = mesh.request(mesh.founder, CART)
    drafts = [
        draft_svid(
            request, mesh.root_der, trust_domain=TRUST_DOMAIN, now=NOW, serial=b"s" * 16, revoked=mesh.revoked
        )
        for _ in range(2)
    ]
    assert drafts[0] == drafts[1]


def test_requests_read_back_as_they_were_encoded(mesh) -> None:
    request = mesh.request(mesh.founder, CART)
    assert decode_svid_request(request.encode()) == request


def test_a_node_asks_for_its_own_leaf_by_its_own_id(mesh) -> None:
    uri = spiffe_node(TRUST_DOMAIN, mesh.founder.identity.id)
    assert read(mesh, mesh.issue(mesh.request(mesh.founder, uri))).spiffe == uri


@given(st.binary(max_size=500))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SvidError):
        decode_svid_request(data)


@pytest.fixture(scope="module")
def a_request(shared_mesh) -> bytes:
    return shared_mesh.request(shared_mesh.founder, CART).encode()


@given(position=st.integers(0, 5000), flip=st.integers(1, 255))
def test_no_altered_byte_gets_a_leaf(shared_mesh, a_request: bytes, position: int, flip: int) -> None:
    data = bytearray(a_request)
    data[position % len(data)] ^= flip
    with pytest.raises(TrustError):
        shared_mesh.issue(decode_svid_request(bytes(data)))


@given(st.binary(max_size=128), st.integers(0, 90), st.integers(1, 255))
def test_hostile_keys_are_refused_with_words(shared_mesh, noise: bytes, position: int, flip: int) -> None:
    altered = bytearray(new_leaf_key(lambda size: b"k" * size).public_der)
    altered[position] ^= flip
    for der in (noise, bytes(altered)):
        key = replace(new_leaf_key(lambda size: b"k" * size), public_der=der)
        try:
            issued = shared_mesh.issue(shared_mesh.request(shared_mesh.founder, CART, key))
        except SvidError:
            continue
        # What was let through is a P-256 key, of whoever: the handshake asks for its private half.
        assert read(shared_mesh, issued).public_der == der


@pytest.mark.parametrize(("ttl_s", "backdate_s"), [(3600, 300), (1200, 300), (1000, 250), (10, 2)])
def test_a_short_life_begins_not_far_in_the_past(mesh, ttl_s: int, backdate_s: int) -> None:
    """Renewal is at half of the whole life: with 300 s before issue, one of 100 s would be due when it is issued."""
    request = mesh.request(mesh.founder, mesh.founder.spiffe)
    svid = read(mesh, mesh.issue(request, ttl_s=ttl_s))
    assert (NOW - svid.not_before, svid.not_after - NOW) == (backdate_s, ttl_s)
    assert (svid.not_before + svid.not_after) / 2 > NOW + ttl_s * 0.3
