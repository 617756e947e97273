"""Every MUST of the SPIFFE standards on X.509-SVIDs that a verifier can break, each with what breaks it.

Sections are those of X509-SVID (github.com/spiffe/spiffe, standards/X509-SVID.md) and, marked ID, of SPIFFE-ID.md.
Where this mesh issues nothing looser it is stricter than the standard: that is said at the rule. How a chain is built
and judged (RFC 5280, as section 5.1 demands) is OpenSSL's part: `tests/trust/tls` and `tests/trust/software`.
"""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from trust.authority import draft, instant, key_usage, read_root, root_fingerprint, root_name
from trust.bundle import TrustBundle
from trust.errors import SvidError
from trust.svid import KeyedSvid, verify_seed, verify_svid

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"
CART = "spiffe://cluster.local/ns/shop/sa/cart"


def uris(*names: str) -> dict[str, Any]:
    return {"names": [x509.UniformResourceIdentifier(name) for name in names]}


def usage(**changes: bool) -> x509.KeyUsage:
    fields = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    )
    off = dict.fromkeys((*fields, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**(off | changes))


def der_of(svid: KeyedSvid) -> bytes:
    return x509.load_pem_x509_certificate(svid.chain_pem).public_bytes(Encoding.DER)


LEAF_RULES = [
    ("2: exactly one URI name", uris(CART, CART + "2"), "it has 2 names"),
    ("2: exactly one, even of the same", uris(CART, CART), "it has 2 names"),
    ("2: a SPIFFE ID is set as a URI", {"names": [x509.DNSName("cart")]}, "exactly one URI name"),
    ("2: a certificate without names is none", {"names": []}, "must state a SPIFFE ID"),
    (
        "2: stricter: no name of another sort beside it",
        {"names": [x509.UniformResourceIdentifier(CART), x509.DNSName("cart")]},
        "it has 2 names",
    ),
    ("ID 2: the scheme is spiffe", uris("https://cluster.local/ns/shop/sa/cart"), "not a SPIFFE ID"),
    ("ID 2: no user, no port", uris("spiffe://a@cluster.local:1/ns/a/sa/b"), "not a SPIFFE ID"),
    ("ID 2: no query, no fragment", uris(CART + "?x=1"), "expected"),
    ("ID 2.1: a trust domain in lower case", uris("spiffe://Cluster.local/ns/a/sa/b"), "not a SPIFFE ID"),
    ("ID 2.1: a trust domain is not empty", uris("spiffe:///ns/a/sa/b"), "not a SPIFFE ID"),
    ("ID 2.2: no empty segment", uris("spiffe://cluster.local/ns//sa/b"), "are expected"),
    ("ID 2.2: no relative segment", uris("spiffe://cluster.local/ns/../sa/b"), "are expected"),
    ("ID 2.2: no slash at the end", uris(CART + "/"), "names neither"),
    ("ID 2.2: no percent-encoding", uris("spiffe://cluster.local/ns/a/sa/%62"), "are expected"),
    ("ID 2.3: at most 2048 bytes", uris("spiffe://cluster.local/ns/a/sa/" + "b" * 2048), "at most"),
    ("3.1: a leaf's ID has a path", uris("spiffe://cluster.local"), "names neither"),
    ("ID 3.1: a leaf is of its root's trust domain", uris("spiffe://other/ns/a/sa/b"), "not in trust domain"),
    ("3.2, 4.1: CA is false in a leaf, what signs does not authenticate", {"ca": True}, "it is a CA"),
    (
        "3.1: stricter: a subject, so that the name need not be critical",
        {"subject": x509.Name([])},
        "is no SVID",
    ),
    ("4.3: key usage is set", {"usage": "none"}, "must state a SPIFFE ID and its key usage"),
    ("4.3: key usage is critical", {"usage_critical": False}, "must be critical"),
    ("4.3: digitalSignature is set", {"usage": usage(key_agreement=True)}, "for digital signatures"),
    (
        "4.3: keyCertSign is not set",
        {"usage": usage(digital_signature=True, key_cert_sign=True)},
        "nothing a CA does",
    ),
    ("4.3: cRLSign is not set", {"usage": usage(digital_signature=True, crl_sign=True)}, "nothing a CA does"),
    (
        "4.4: with extended usage, both serverAuth and clientAuth",
        {"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]},
        "both client and server",
    ),
    (
        "4.4: neither alone",
        {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]},
        "both client and server",
    ),
    (
        "4.2, RFC 5280 4.2: a critical extension that is not known refuses",
        {"extra": x509.NameConstraints([x509.UniformResourceIdentifier("cluster.local")], None)},
        "unknown critical extension",
    ),
    ("5.1, RFC 5280 6.1.3: the issuer is the root", {"issuer": root_name("other")}, "names another issuer"),
    ("5.1: not expired", {"not_before": NOW - 7200, "not_after": NOW - 1}, "expired"),
    ("5.1: begun", {"not_before": NOW + 10, "not_after": NOW + 3600}, "only valid in"),
    ("stricter: no longer life than is issued", {"not_after": NOW + 86_400 + 1}, "no life this mesh issues"),
]


@pytest.mark.parametrize(
    ("oddity", "words"), [rule[1:] for rule in LEAF_RULES], ids=[r[0] for r in LEAF_RULES]
)
def test_a_leaf_that_breaks_a_rule_is_refused_for_it(mesh, oddity: dict[str, Any], words: str) -> None:
    with pytest.raises(SvidError, match=words):
        verify_svid(
            der_of(mesh.odd_leaf(**oddity)), root_public=mesh.root_public, trust_domain=TRUST_DOMAIN, now=NOW
        )


@pytest.mark.parametrize(
    "allowed",
    [
        {"purposes": []},  # 4.4: extended key usage may be left out
        {"constraints": False},  # 4.1: a leaf need not say that it is no CA
        {"usage": usage(digital_signature=True, key_encipherment=True, key_agreement=True)},  # 4.3: MAY
        {"not_after": NOW + 86_400},
    ],
)
def test_what_the_standard_allows_is_accepted(mesh, allowed: dict[str, Any]) -> None:
    svid = verify_svid(
        der_of(mesh.odd_leaf(**allowed)), root_public=mesh.root_public, trust_domain=TRUST_DOMAIN, now=NOW
    )
    assert svid.spiffe == "spiffe://cluster.local/ns/default/sa/odd"


# ------------------------------------------------------------------ signing certificates


def odd_root(
    mesh, *, ca: bool = True, path_length: int | None = 0, critical: bool = True, name: str = "spiffe://cluster.local",
    second: str = "", used: x509.KeyUsage | None = None, extra: x509.ExtensionType | None = None,
    not_after: int = NOW + 86_400,
) -> bytes:  # fmt: skip
    """A root certificate as the mesh's own key signs it, but for what is odd in it."""
    root = x509.load_der_x509_certificate(mesh.root_der)
    names = [x509.UniformResourceIdentifier(each) for each in (name, second) if each]
    builder = (
        x509.CertificateBuilder()
        .subject_name(root.subject)
        .issuer_name(root.subject)
        .public_key(root.public_key())
        .serial_number(1)
        .not_valid_before(instant(NOW - 86_400))
        .not_valid_after(instant(not_after))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=critical)
        .add_extension(used or key_usage(ca=True), critical=critical)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    shape = draft(builder)
    return shape.assemble(mesh.authority.sign(shape.tbs), mesh.root_public)


ROOT_RULES = [
    ("4.1: CA is true", {"ca": False, "path_length": None}, "may not sign certificates"),
    ("4.3: keyCertSign is set", {"used": usage(digital_signature=True)}, "may not sign certificates"),
    ("4.3, RFC 5280 4.2.1.9: both are critical", {"critical": False}, "must be critical"),
    ("stricter: no authorities below it", {"path_length": None}, "leafs and no authorities"),
    ("stricter: none at any depth", {"path_length": 1}, "leafs and no authorities"),
    ("3.2: its SPIFFE ID has no path", {"name": "spiffe://cluster.local/root"}, "it names another"),
    ("3.2: it names its trust domain", {"name": "spiffe://other"}, "it names another"),
    ("2: it has one URI name", {"second": "spiffe://other"}, "it names another"),
    ("3.2, ID 3.1: it has one", {"name": ""}, "does not state what a CA states"),
    (
        "RFC 5280 4.2: a critical extension that is not known refuses",
        {"extra": x509.InhibitAnyPolicy(0)},
        "unknown critical extension",
    ),
]


@pytest.mark.parametrize(
    ("oddity", "words"), [rule[1:] for rule in ROOT_RULES], ids=[r[0] for r in ROOT_RULES]
)
def test_a_signing_certificate_that_breaks_a_rule_is_refused_for_it(
    mesh, oddity: dict[str, Any], words: str
) -> None:
    with pytest.raises(SvidError, match=words):
        read_root(odd_root(mesh, **oddity), TRUST_DOMAIN)
    with pytest.raises(SvidError, match=words):
        TrustBundle(TRUST_DOMAIN, [odd_root(mesh, **oddity)])


def test_the_odd_root_of_these_tests_is_otherwise_sound(mesh) -> None:
    assert read_root(odd_root(mesh), TRUST_DOMAIN) == mesh.root_public


def test_an_expired_root_admits_nobody(mesh) -> None:
    """Section 5.1, where no handshake judges the root: at the seed a joining node asks."""
    node = der_of(mesh.node_svid())
    domain, fingerprint = TRUST_DOMAIN, root_fingerprint(mesh.root_public)
    arguments = {"fingerprint": fingerprint, "trust_domain": domain, "now": NOW}
    assert verify_seed(node, odd_root(mesh), **arguments).node == mesh.founder.identity.id
    with pytest.raises(SvidError, match="the root certificate expired"):
        verify_seed(node, odd_root(mesh, not_after=NOW - 1), **arguments)
    with pytest.raises(SvidError, match="the root certificate is only valid in"):
        verify_seed(node, odd_root(mesh), **(arguments | {"now": NOW - 90_000}))


def test_a_leaf_is_judged_by_its_own_trust_domains_roots_only(mesh, make_mesh) -> None:
    """ID 3.1: one domain's bundle says nothing of another's leafs, though both are known and sound."""
    other: Callable[..., Any] = make_mesh(seed=6, trust_domain="other")
    ours, theirs = TrustBundle(TRUST_DOMAIN, [mesh.root_der]), TrustBundle("other", [other.root_der])
    leaf, foreign = der_of(mesh.node_svid()), der_of(other.node_svid())
    assert ours.read_peer(leaf).spiffe.startswith("spiffe://cluster.local/")
    assert theirs.read_peer(foreign).spiffe.startswith("spiffe://other/")
    for bundle, der in ((ours, foreign), (theirs, leaf)):
        with pytest.raises(SvidError, match="not signed by the mesh root"):
            bundle.read_peer(der)
    with pytest.raises(SvidError, match="not the root certificate of trust domain"):
        TrustBundle(TRUST_DOMAIN, [mesh.root_der, other.root_der])


def test_two_names_of_two_trust_domains_under_one_root_are_refused(mesh) -> None:
    for names in ((CART, "spiffe://other/ns/a/sa/b"), ("spiffe://other/ns/a/sa/b", CART)):
        with pytest.raises(SvidError, match="it has 2 names"):
            TrustBundle(TRUST_DOMAIN, [mesh.root_der]).read_peer(der_of(mesh.odd_leaf(**uris(*names))))
