"""Revocations: who may say what, what it covers, and that the set converges within its bounds."""

import itertools
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from trust import revocation
from trust.errors import RevocationError, RevokedError, TrustError
from trust.identity import NodeIdentity, spiffe_node
from trust.revocation import (
    NODE_REVOCATION_S,
    Revocation,
    RevocationSet,
    check_subject,
    decode_revocation,
    revoke,
    revoke_self,
    serial_subject,
    verify_revocation,
)
from trust.svid import read_svid

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"
LATER = NOW + NODE_REVOCATION_S
CART = "spiffe://cluster.local/ns/shop/sa/cart"


def check(mesh, entry: Revocation) -> None:
    verify_revocation(entry, mesh.root_public, TRUST_DOMAIN)


def by_root(mesh, subject: str, expires_at: float = LATER, reason: str = "stolen") -> Revocation:
    return revoke(mesh.authority, subject, reason=reason, now=NOW, expires_at=expires_at)


def test_the_root_revokes_nodes_workloads_and_serials(mesh) -> None:
    for subject in (mesh.founder.spiffe, CART, serial_subject(bytes(16))):
        entry = by_root(mesh, subject)
        assert decode_revocation(entry.encode()) == entry
        check(mesh, entry)


def test_a_node_revokes_itself_and_nothing_else(mesh) -> None:
    member = mesh.join("beta")
    check(mesh, revoke_self(member.identity, TRUST_DOMAIN, reason="disk lost", now=NOW))
    for subject in (mesh.founder.spiffe, CART, serial_subject(bytes(16))):
        entry = replace(by_root(mesh, subject), issuer=member.identity.public_key)
        entry = replace(entry, signature=member.identity.sign(entry.signing_bytes()))
        with pytest.raises(RevocationError, match="may revoke nothing but itself"):
            check(mesh, entry)


def test_an_altered_or_foreign_revocation_is_refused(mesh, make_mesh) -> None:
    entry = by_root(mesh, CART)
    for altered in (
        replace(entry, reason="other"),
        replace(entry, expires_at=LATER + 1),
        replace(entry, subject=CART + "2"),
        replace(entry, signature=bytes(64)),
    ):
        with pytest.raises(RevocationError, match="not signed by its issuer"):
            check(mesh, altered)
    with pytest.raises(RevocationError, match="nothing but itself"):
        check(mesh, by_root(make_mesh(seed=2), CART))
    with pytest.raises(RevocationError, match="not in trust domain"):
        check(mesh, by_root(mesh, "spiffe://other/ns/a/sa/b"))


def test_a_node_cannot_be_revoked_for_less_than_its_credential_may_be_renewed(mesh) -> None:
    with pytest.raises(RevocationError, match="ends before what it revokes"):
        by_root(mesh, mesh.founder.spiffe, expires_at=NOW + 3600)
    by_root(mesh, CART, expires_at=NOW + 3600)
    with pytest.raises(RevocationError, match="over before it began"):
        by_root(mesh, CART, expires_at=NOW)


@pytest.mark.parametrize(
    "bad", ["", "serial:", "serial:XY", "serial:" + "A" * 32, "node:abc", "spiffe://td", "x" * 3000]
)
def test_refuses_what_cannot_be_revoked(bad: str) -> None:
    with pytest.raises(RevocationError):
        check_subject(bad)


def test_a_reason_is_bounded(mesh) -> None:
    with pytest.raises(RevocationError, match="at most 256 characters"):
        by_root(mesh, CART, reason="x" * 257)


def test_revoking_a_node_covers_its_credential_and_all_leafs_made_out_to_it(mesh) -> None:
    beta = mesh.join("beta")
    leafs = {}
    for name, member in (("alpha", mesh.founder), ("beta", beta)):
        for svid in (mesh.node_svid(member), mesh.workload_svid("cart", "shop", member)):
            der = x509.load_pem_x509_certificate(svid.chain_pem).public_bytes(Encoding.DER)
            read = read_svid(der, root_public=mesh.root_public, trust_domain=TRUST_DOMAIN)
            leafs.setdefault(name, []).append(read)
    revoked = RevocationSet(mesh.root_public)
    for leaf in itertools.chain(*leafs.values()):
        revoked.check_svid(leaf)
    assert revoked.add(by_root(mesh, beta.spiffe))
    with pytest.raises(RevokedError, match="stolen"):
        revoked.check_credential(beta.credential)
    for leaf in leafs["beta"]:
        with pytest.raises(RevokedError, match="stolen"):
            revoked.check_svid(leaf)
    for leaf in leafs["alpha"]:  # the same workload on another node goes on
        revoked.check_svid(leaf)
    revoked.add(by_root(mesh, serial_subject(leafs["alpha"][1].serial)))
    revoked.check_svid(leafs["alpha"][0])
    with pytest.raises(RevokedError, match="serial:"):
        revoked.check_svid(leafs["alpha"][1])
    revoked.add(by_root(mesh, leafs["alpha"][0].spiffe))
    with pytest.raises(RevokedError):
        revoked.check_svid(leafs["alpha"][0])


def test_replicas_agree_whatever_the_order(mesh) -> None:
    member = mesh.join("beta")
    entries = [
        by_root(mesh, CART),
        by_root(mesh, CART, expires_at=LATER + 9),
        by_root(mesh, CART, reason="another"),
        by_root(mesh, member.spiffe),
        revoke_self(member.identity, TRUST_DOMAIN, reason="mine", now=NOW + 99),
    ]
    outcomes = set()
    for order in itertools.permutations(entries):
        replica = RevocationSet(mesh.root_public)
        for entry in order:
            replica.add(entry)
        assert replica._self_count == 0
        outcomes.add(tuple(sorted(entry.encode() for entry in replica)))
    assert len(outcomes) == 1


def test_adding_again_is_no_news(mesh) -> None:
    revoked = RevocationSet(mesh.root_public)
    assert revoked.add(by_root(mesh, CART)) is True
    assert revoked.add(by_root(mesh, CART)) is False
    assert revoked.subjects() == (CART,)
    assert revoked.covers(CART) is not None
    assert revoked.covers(CART + "2") is None


def test_forgets_what_has_expired(mesh) -> None:
    revoked = RevocationSet(mesh.root_public)
    revoked.add(by_root(mesh, CART, expires_at=NOW + 10))
    assert revoked.prune(NOW + 9) == 0
    assert revoked.prune(NOW + 10) == 1
    assert len(revoked) == 0
    revoked.check(CART)


def test_that_a_node_was_revoked_stays_known_when_its_revocation_has_expired(mesh, monkeypatch) -> None:
    monkeypatch.setattr(revocation, "PAST_MAX", 1)
    revoked = RevocationSet(mesh.root_public)
    nodes = [spiffe_node(TRUST_DOMAIN, NodeIdentity.from_seed(bytes([n]) * 32).id) for n in range(2)]
    ends = NOW + NODE_REVOCATION_S
    for node in nodes:
        assert not revoked.ever_covered(node)
        revoked.add(by_root(mesh, node, expires_at=ends))
    revoked.add(by_root(mesh, CART, expires_at=ends))
    assert revoked.prune(ends) == 2  # of the nodes one, since so many are remembered; the other's entry stays
    assert [revoked.ever_covered(each) for each in (*nodes, CART)] == [True, True, False]
    assert [revoked.covers(each) is None for each in nodes] == [True, False]
    assert revoked.prune(ends) == 0


def test_nodes_that_revoke_themselves_cannot_crowd_out_the_root(mesh, monkeypatch) -> None:
    monkeypatch.setattr(revocation, "REVOCATIONS_MAX", 2)
    revoked = RevocationSet(mesh.root_public)
    nodes = [NodeIdentity.from_seed(bytes([number]) * 32) for number in range(3)]
    own = [revoke_self(node, TRUST_DOMAIN, reason="", now=NOW) for node in nodes]
    assert [revoked.add(entry) for entry in own[:2]] == [True, True]
    with pytest.raises(RevocationError, match="2 revocations are the most"):
        revoked.add(own[2])
    assert revoked.add(by_root(mesh, CART))
    assert revoked.add(by_root(mesh, spiffe_node(TRUST_DOMAIN, nodes[0].id)))  # takes the node's own place
    with pytest.raises(RevocationError, match="are the most"):
        revoked.add(by_root(mesh, CART + "2"))
    assert revoked.add(own[2])
    assert repr(revoked) == "RevocationSet(4 revoked, 2 by themselves)"


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RevocationError):
        decode_revocation(data)


@given(position=st.integers(0, 2000), flip=st.integers(1, 255))
def test_no_altered_byte_survives(shared_mesh, position: int, flip: int) -> None:
    data = bytearray(by_root(shared_mesh, shared_mesh.founder.spiffe).encode())
    data[position % len(data)] ^= flip
    with pytest.raises(TrustError):
        check(shared_mesh, decode_revocation(bytes(data)))
