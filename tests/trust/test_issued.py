"""The entry of a certificate in the log: small, and proof of itself."""

import ssl
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.errors import SvidError
from trust.identity import spiffe_node, spiffe_workload
from trust.issued import Issued, certificate_of, issued_at, issued_of, leaf_of, leaf_of_key
from trust.svid import new_leaf_key, read_svid


def issue(mesh, uri: str, ttl_s: int = 3600, member=None):
    """(certificate, what it says)"""
    request = mesh.request(member or mesh.founder, uri)
    der = mesh.issue(request, ttl_s=ttl_s)
    return der, read_svid(der, root_public=mesh.root_public, trust_domain=mesh.trust_domain)


def entry_of(mesh, der: bytes, svid, by: bytes = b"") -> Issued:
    return issued_of(svid, der, mesh.root_der, mesh.trust_domain, by)


@pytest.mark.parametrize("ttl_s", [3, 60, 3600, 86_400])
@pytest.mark.parametrize("workload", ["", "shop/cart.eu"])
def test_a_certificate_follows_from_its_entry(mesh, workload: str, ttl_s: int) -> None:
    uri = spiffe_node(mesh.trust_domain, mesh.founder.identity.id)
    if workload:
        uri = spiffe_workload(mesh.trust_domain, *workload.split("/"))
    der, svid = issue(mesh, uri, ttl_s)
    entry = Issued.of_fields(msgpack.unpackb(msgpack.packb(entry_of(mesh, der, svid).fields())))
    assert certificate_of(entry, mesh.root_der, mesh.trust_domain) == der
    assert (entry.workload, entry.issued_at) == (workload, mesh.now)


def test_an_entry_takes_a_third_of_a_certificate(mesh) -> None:
    der, svid = issue(mesh, spiffe_workload(mesh.trust_domain, "default", "recommendations"))
    assert len(der) > 490
    assert len(msgpack.packb(entry_of(mesh, der, svid).fields())) <= 175


def test_the_leaf_is_known_before_the_certificate_is(mesh) -> None:
    key = new_leaf_key(mesh.entropy)
    uri = spiffe_workload(mesh.trust_domain, "shop", "cart")
    leafs = set()
    for _ in range(2):  # two certificates of one key are one leaf
        der = mesh.issue(mesh.request(mesh.founder, uri, key))
        svid = read_svid(der, root_public=mesh.root_public, trust_domain=mesh.trust_domain)
        leafs |= {entry_of(mesh, der, svid).leaf, leaf_of(svid)}
    assert leafs == {leaf_of_key(mesh.founder.identity.id, uri, key.public_der)}
    other = spiffe_workload(mesh.trust_domain, "shop", "web")
    assert leaf_of_key(mesh.founder.identity.id, other, key.public_der) not in leafs


def test_who_had_it_signed_is_told_unless_it_is_the_one_it_is_for(mesh) -> None:
    der, svid = issue(mesh, spiffe_node(mesh.trust_domain, mesh.founder.identity.id))
    assert entry_of(mesh, der, svid, by=svid.node).by == b""
    assert entry_of(mesh, der, svid, by=b"x" * 16).by == b"x" * 16


@pytest.mark.parametrize(
    "change",
    [
        {"workload": "shop/web"}, {"workload": ""}, {"workload": "shop"}, {"workload": "a/b/c"}, {"workload": "É/x"},
        {"node": b"n" * 16}, {"key": b"\x02" + b"\xff" * 32}, {"key": b"k" * 33}, {"serial": b"s" * 16},
        {"serial": b"\0" * 16}, {"serial": b"\xff" * 16}, {"not_before": 1}, {"not_before": 2**39},
        {"signature": b"s" * 64}, {"not_after": 1_800_090_000},
    ],
    ids=str,
)  # fmt: skip
def test_nobody_makes_an_entry_up(mesh, change) -> None:
    der, svid = issue(mesh, spiffe_workload(mesh.trust_domain, "shop", "cart"))
    entry = replace(entry_of(mesh, der, svid), **change)
    with pytest.raises(SvidError, match="recorded as issued, and not"):
        certificate_of(entry, mesh.root_der, mesh.trust_domain)


def test_another_root_signs_nothing_here(mesh, make_mesh) -> None:
    other = make_mesh(seed=7)
    der, svid = issue(mesh, spiffe_workload(mesh.trust_domain, "shop", "cart"))
    with pytest.raises(SvidError, match="not signed by the root"):
        certificate_of(entry_of(mesh, der, svid), other.root_der, mesh.trust_domain)


def test_a_certificate_of_another_shape_has_no_entry(mesh) -> None:
    odd = mesh.odd_leaf(names_issuer_key=False)
    der = ssl.PEM_cert_to_DER_cert(odd.chain_pem.decode())
    svid = read_svid(der, root_public=mesh.root_public, trust_domain=mesh.trust_domain)
    with pytest.raises(SvidError, match="has not the shape that this mesh issues"):
        entry_of(mesh, der, svid)


@given(life_s=st.integers(1, 86_400))
def test_the_moment_of_issue_follows_from_the_dates(life_s: int) -> None:
    now = 1_800_000_000
    assert issued_at(now - min(300, life_s // 4), now + life_s) == now


@given(
    fields=st.recursive(st.none() | st.integers() | st.binary(max_size=70) | st.text(max_size=5), st.lists)
)
def test_arbitrary_fields_are_refused(fields: object) -> None:
    with pytest.raises(SvidError):
        Issued.of_fields(fields)


def test_each_field_of_another_size_is_refused(mesh) -> None:
    der, svid = issue(mesh, spiffe_workload(mesh.trust_domain, "shop", "cart"))
    good = entry_of(mesh, der, svid).fields()
    bad: list[object] = [b"", "w" * 128, b"k", b"s", -1, 0, b"s" * 63, b"by"]
    for number, value in enumerate(bad):
        with pytest.raises(SvidError):
            Issued.of_fields([*good[:number], value, *good[number + 1 :]])
    with pytest.raises(SvidError):
        Issued.of_fields(good[:-1])
