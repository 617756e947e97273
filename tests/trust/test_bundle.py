"""Trust bundles: anchors, and a bounded memory of peers."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trust import bundle as bundles
from trust.bundle import ANY_MEMBER, ANY_NODE, TrustBundle
from trust.errors import SvidError

TRUST_DOMAIN = "cluster.local"


def der_of(svid) -> bytes:
    return x509.load_pem_x509_certificate(svid.chain_pem).public_bytes(Encoding.DER)


def test_reads_peers_under_any_of_its_roots(mesh, make_mesh) -> None:
    other = make_mesh(seed=2)
    both = TrustBundle.from_pem(TRUST_DOMAIN, mesh.root_pem + other.root_pem)
    for issuer in (mesh, other):
        assert both.read_peer(der_of(issuer.node_svid())).node == issuer.founder.identity.id
    with pytest.raises(SvidError, match="not signed by the mesh root"):
        both.read_peer(der_of(make_mesh(seed=3).node_svid()))


def test_refuses_anchors_that_are_none(mesh) -> None:
    for anchors, reason in (
        ([], "1 to 8 root certificates, not 0"),
        ([mesh.root_der] * 9, "not 9"),
        ([b"nonsense"], "do not decode"),
        ([der_of(mesh.node_svid())], "not a root certificate"),
    ):
        with pytest.raises(SvidError, match=reason):
            TrustBundle(TRUST_DOMAIN, anchors)
    with pytest.raises(SvidError, match="not the root certificate of trust domain"):
        TrustBundle("other", [mesh.root_der])
    with pytest.raises(SvidError, match="not a sequence of PEM"):
        TrustBundle.from_pem(TRUST_DOMAIN, b"nonsense")


def test_reads_a_peer_once_and_forgets_the_longest_unseen(mesh, monkeypatch) -> None:
    monkeypatch.setattr(bundles, "PEERS_CACHED_MAX", 2)
    bundle = TrustBundle(TRUST_DOMAIN, [mesh.root_der])
    one, two, three = (der_of(mesh.workload_svid(name)) for name in ("one", "two", "three"))
    first, second = bundle.read_peer(one), bundle.read_peer(two)
    assert bundle.read_peer(one) is first
    bundle.read_peer(three)
    assert bundle.read_peer(one) is first
    assert bundle.read_peer(two) is not second
    assert repr(bundle) == "TrustBundle(cluster.local, 1 roots, 2 peers cached)"


def test_remembers_nobody_it_refused(mesh, make_mesh) -> None:
    bundle = TrustBundle(TRUST_DOMAIN, [mesh.root_der])
    stranger = der_of(make_mesh(seed=2).node_svid())
    for _ in range(2):
        with pytest.raises(SvidError):
            bundle.read_peer(stranger)
    assert "0 peers cached" in repr(bundle)


def test_expectations_tell_nodes_from_workloads(mesh) -> None:
    bundle = TrustBundle(TRUST_DOMAIN, [mesh.root_der])
    node, workload = (
        bundle.read_peer(der_of(mesh.node_svid())),
        bundle.read_peer(der_of(mesh.workload_svid("cart"))),
    )
    assert (ANY_NODE.matches(node), ANY_NODE.matches(workload)) == (True, False)
    assert (ANY_MEMBER.matches(node), ANY_MEMBER.matches(workload)) == (True, True)
