"""What a verifier insists on, and that OpenSSL agrees."""

import random
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from trust.authority import key_usage, root_fingerprint
from trust.errors import SvidError
from trust.identity import NodeSpiffe, WorkloadSpiffe, spiffe_node, spiffe_workload
from trust.svid import (
    KeyedSvid,
    certificate_pem,
    keyed,
    new_leaf_key,
    read_svid,
    renew_at,
    verify_seed,
    verify_svid,
)

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"
CART = "spiffe://cluster.local/ns/shop/sa/cart"


def der_of(svid: KeyedSvid) -> bytes:
    return x509.load_pem_x509_certificate(svid.chain_pem).public_bytes(Encoding.DER)


def check(mesh, svid: KeyedSvid, now: float = NOW):
    return verify_svid(der_of(svid), root_public=mesh.root_public, trust_domain=TRUST_DOMAIN, now=now)


def test_a_workload_leaf_says_who_it_is_and_who_holds_its_key(mesh) -> None:
    svid = check(mesh, mesh.workload_svid("cart", "shop"))
    assert svid.id == WorkloadSpiffe(TRUST_DOMAIN, "shop", "cart")
    assert svid.spiffe == CART
    assert svid.node == mesh.founder.identity.id
    assert (svid.not_before, svid.not_after) == (NOW - 300, NOW + 3600)


def test_a_node_leaf_is_its_node(mesh) -> None:
    assert check(mesh, mesh.node_svid()).id == NodeSpiffe(TRUST_DOMAIN, mesh.founder.identity.id)


def openssl_verify(mesh, leaf: KeyedSvid, purpose: str, directory: Path) -> str:
    """What OpenSSL's own verifier objects to at its strictest; "" for nothing."""
    (directory / "root.pem").write_bytes(mesh.root_pem)
    (directory / "leaf.pem").write_bytes(leaf.chain_pem)
    verified = subprocess.run(
        f"openssl verify -x509_strict -purpose {purpose} -attime {NOW} -CAfile root.pem leaf.pem".split(),
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode == 0) is (verified.stdout == "leaf.pem: OK\n")
    return "" if verified.returncode == 0 else verified.stderr


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_the_chain_and_the_usage_strictly(mesh, purpose: str, tmp_path: Path) -> None:
    for leaf in (mesh.workload_svid("cart", "shop"), mesh.node_svid()):
        assert openssl_verify(mesh, leaf, purpose, tmp_path) == ""


@pytest.mark.parametrize("purpose", ["crlsign", "smimesign", "codesign", "timestampsign"])
def test_openssl_lets_a_leaf_be_used_for_nothing_else(mesh, purpose: str, tmp_path: Path) -> None:
    words = openssl_verify(mesh, mesh.node_svid(), purpose, tmp_path)
    assert "purpose" in words


def test_openssl_accepts_the_root_as_a_root_of_servers(mesh, tmp_path: Path) -> None:
    root = KeyedSvid(identity="", chain_pem=mesh.root_pem, key_pem=b"", not_before=0, not_after=0)
    assert openssl_verify(mesh, root, "any", tmp_path) == ""


def test_openssl_refuses_what_is_expired_and_what_another_root_made(mesh, make_mesh, tmp_path: Path) -> None:
    stale = mesh.odd_leaf(not_before=NOW - 7200, not_after=NOW - 60)
    assert "has expired" in openssl_verify(mesh, stale, "sslserver", tmp_path)
    twin = make_mesh(seed=4).node_svid()
    assert "error" in openssl_verify(mesh, twin, "sslserver", tmp_path)


def test_expires_and_begins_and_says_so(mesh) -> None:
    svid = mesh.workload_svid("cart", "shop")
    check(mesh, svid, NOW + 3600)
    with pytest.raises(SvidError, match=f"{CART} expired 2 minutes ago"):
        check(mesh, svid, NOW + 3600 + 121)
    with pytest.raises(SvidError, match="only valid in 5 minutes: a clock is wrong"):
        check(mesh, svid, NOW - 601)


def test_another_root_or_domain_is_refused(mesh, make_mesh) -> None:
    with pytest.raises(SvidError, match="not signed by the mesh root"):
        check(mesh, make_mesh(seed=4).node_svid())
    with pytest.raises(SvidError, match="names another issuer than the root of trust domain 'other'"):
        read_svid(der_of(mesh.node_svid()), root_public=mesh.root_public, trust_domain="other")


URI = x509.UniformResourceIdentifier(CART)
P384 = ec.derive_private_key(12345, ec.SECP384R1()).public_key()


@pytest.mark.parametrize(
    ("oddity", "reason"),
    [
        (
            {"names": [URI, x509.UniformResourceIdentifier(CART + "2")]},
            "exactly one URI name is expected, it has 2",
        ),
        ({"names": [URI, URI]}, "it has 2 names"),
        ({"names": [URI, x509.DNSName("cart.shop.mesh")]}, "it has 2 names"),
        ({"names": [x509.DNSName("cart.shop.mesh")]}, "exactly one URI name"),
        ({"names": []}, "must state a SPIFFE ID"),
        ({"names": [x509.UniformResourceIdentifier("https://example.com/")]}, "not a SPIFFE ID"),
        ({"names": [x509.UniformResourceIdentifier("spiffe://cluster.local")]}, "names neither a node"),
        ({"names": [x509.UniformResourceIdentifier("spiffe://other/ns/a/sa/b")]}, "not in trust domain"),
        ({"ca": True}, "it is a CA"),
        ({"usage": key_usage(ca=True)}, "nothing a CA does"),
        ({"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}, "both client and server"),
        ({"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]}, "both client and server"),
        ({"public_key": P384}, "not ECDSA P-256"),
        ({"extra": x509.NameConstraints([x509.DNSName("x")], None)}, "unknown critical extension"),
        ({"serial": 1 << 140}, "serial number"),
    ],
)
def test_refuses_each_way_a_leaf_can_be_wrong(mesh, oddity: dict[str, object], reason: str) -> None:
    with pytest.raises(SvidError, match=reason):
        check(mesh, mesh.odd_leaf(**oddity))


def test_the_odd_leaf_of_these_tests_is_otherwise_sound(mesh) -> None:
    assert check(mesh, mesh.odd_leaf()).spiffe == spiffe_workload(TRUST_DOMAIN, "default", "odd")


def test_a_node_leaf_made_out_to_another_node_is_refused(mesh) -> None:
    uri = x509.UniformResourceIdentifier(spiffe_node(TRUST_DOMAIN, bytes(16)))
    with pytest.raises(SvidError, match="made out to another node"):
        check(mesh, mesh.odd_leaf(names=[uri]))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SvidError):
        read_svid(data, root_public=bytes(32), trust_domain=TRUST_DOMAIN)


def test_no_altered_bit_survives(mesh) -> None:
    der = der_of(mesh.workload_svid("cart", "shop"))
    for bit in range(len(der) * 8):
        data = bytearray(der)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SvidError):
            read_svid(bytes(data), root_public=mesh.root_public, trust_domain=TRUST_DOMAIN)


def test_a_leaf_has_one_encoding(mesh) -> None:
    """Parsers take a signature of 511 bits for one of 512 when its last bit is 0: same certificate, another hash."""
    der = next(der for _ in range(99) if (der := der_of(mesh.workload_svid("cart")))[-1] & 1 == 0)
    other = der[:-65] + b"\x01" + der[-64:]
    assert x509.load_der_x509_certificate(other).signature == der[-64:]
    with pytest.raises(SvidError, match="not signed with Ed25519"):
        read_svid(other, root_public=mesh.root_public, trust_domain=TRUST_DOMAIN)


@pytest.fixture(scope="module")
def a_leaf(shared_mesh) -> bytes:
    return der_of(shared_mesh.workload_svid("cart", "shop"))


@given(position=st.integers(0, 2000), flip=st.integers(1, 255))
def test_nonsense_under_a_good_signature_is_read_or_refused_in_words(
    shared_mesh, a_leaf: bytes, position: int, flip: int
) -> None:
    der, whole = a_leaf, x509.load_der_x509_certificate(a_leaf).tbs_certificate_bytes
    at, tbs = der.index(whole), bytearray(whole)
    tbs[position % len(tbs)] ^= flip
    signed = der[:at] + tbs + der[at + len(tbs) : -64] + shared_mesh.authority.sign(bytes(tbs))
    try:
        read_svid(signed, root_public=shared_mesh.root_public, trust_domain=TRUST_DOMAIN)
    except SvidError:
        pass


def test_an_issued_leaf_is_checked_against_the_key_it_was_asked_for(mesh) -> None:
    key, other = new_leaf_key(mesh.entropy), new_leaf_key(mesh.entropy)
    der = mesh.issue(mesh.request(mesh.founder, CART, key))
    arguments = {"root_public": mesh.root_public, "trust_domain": TRUST_DOMAIN, "now": NOW}
    assert keyed(der, key, **arguments).identity == CART
    with pytest.raises(SvidError, match="for another key"):
        keyed(der, other, **arguments)


def test_leaf_keys_are_p256_fresh_and_never_shown(mesh) -> None:
    first, second = new_leaf_key(mesh.entropy), new_leaf_key(mesh.entropy)
    assert first.private_pem != second.private_pem
    private = load_pem_private_key(first.private_pem, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp256r1"
    assert "PRIVATE" not in repr(first)
    assert first.private_pem.decode().splitlines()[1] not in repr(first)
    svid = mesh.node_svid()
    assert "PRIVATE" not in repr(svid)
    assert svid.key_pem.decode().splitlines()[1] not in repr(svid)


def test_leaf_keys_come_out_of_the_entropy_given_even_at_its_edges() -> None:
    assert new_leaf_key(bytes) == new_leaf_key(bytes)
    assert new_leaf_key(lambda size: b"\xff" * size).public_der != new_leaf_key(bytes).public_der


def test_renews_around_half_life_and_not_all_at_once() -> None:
    times = [renew_at(0, 3600, random.Random(seed)) for seed in range(200)]
    assert min(times) >= 3600 * 0.4
    assert max(times) <= 3600 * 0.6
    assert max(times) - min(times) > 600


class TestSeed:
    """A joining node knows a fingerprint and nothing else."""

    def verify(self, mesh, leaf: bytes, root: bytes, fingerprint: bytes | None = None, now: float = NOW):
        return verify_seed(
            leaf,
            root,
            fingerprint=fingerprint or root_fingerprint(mesh.root_public),
            trust_domain=TRUST_DOMAIN,
            now=now,
        )

    def test_accepts_a_node_of_the_mesh_the_token_names(self, mesh) -> None:
        svid = self.verify(mesh, der_of(mesh.node_svid()), mesh.root_der)
        assert svid.node == mesh.founder.identity.id

    def test_refuses_a_root_the_token_does_not_name(self, mesh, make_mesh) -> None:
        impostor = make_mesh(seed=8)
        with pytest.raises(SvidError, match="belongs to another mesh"):
            self.verify(mesh, der_of(impostor.node_svid()), impostor.root_der)

    def test_refuses_the_right_root_shown_by_an_outsider(self, mesh, make_mesh) -> None:
        with pytest.raises(SvidError, match="not signed by the mesh root"):
            self.verify(mesh, der_of(make_mesh(seed=8).node_svid()), mesh.root_der)

    def test_refuses_a_workload_and_an_expired_node(self, mesh) -> None:
        with pytest.raises(SvidError, match="a node's certificate is expected"):
            self.verify(mesh, der_of(mesh.workload_svid("cart")), mesh.root_der)
        with pytest.raises(SvidError, match="expired"):
            self.verify(mesh, der_of(mesh.node_svid()), mesh.root_der, now=NOW + 7200)

    @given(leaf=st.binary(max_size=100), root=st.binary(max_size=100))
    def test_refuses_arbitrary_bytes(self, shared_mesh, leaf: bytes, root: bytes) -> None:
        with pytest.raises(SvidError):
            self.verify(shared_mesh, leaf, root)
        with pytest.raises(SvidError):
            self.verify(shared_mesh, leaf, shared_mesh.root_der)


def test_pem_of_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(SvidError, match="do not decode"):
        certificate_pem(b"nonsense")
