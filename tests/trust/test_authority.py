"""The root: what it signs is plain Ed25519, and its certificate is what OpenSSL takes for a CA."""

import pickle
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from trust.authority import (
    ROOT_TTL_S,
    SoleAuthority,
    check_root_validity,
    draft,
    draft_root,
    instant,
    load_certificate,
    read_root,
    root_certificate,
    root_fingerprint,
    root_name,
    root_since,
    serial_number,
)
from trust.errors import AuthorityError, SvidError

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"


def test_signs_plain_ed25519(mesh) -> None:
    Ed25519PublicKey.from_public_bytes(mesh.root_public).verify(mesh.authority.sign(b"message"), b"message")


def test_one_of_one_says_so(mesh) -> None:
    authority = mesh.authority
    assert (authority.threshold, authority.epoch, authority.can_sign) == (1, 0, True)
    assert authority.signers == (mesh.founder.identity.id,)


def test_the_key_neither_prints_nor_pickles() -> None:
    seed = b"\x5a" * 32
    authority = SoleAuthority.from_seed(seed, holder=bytes(16))
    assert "5a5a" not in repr(authority)
    assert "ZZZZ" not in repr(authority)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(authority)
    with pytest.raises(AuthorityError, match="32 bytes, not 5"):
        SoleAuthority.from_seed(b"short", holder=bytes(16))


def test_root_certificate_is_a_ca_for_leafs_only_and_lasts_ten_years(mesh) -> None:
    certificate = x509.load_der_x509_certificate(mesh.root_der)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert certificate.not_valid_after_utc.timestamp() == NOW + ROOT_TTL_S
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://cluster.local"]


def test_openssl_accepts_the_root_strictly(mesh, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(mesh.root_pem)
    verified = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-attime", str(NOW), "-CAfile", "root.pem", "root.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_the_root_certificate_is_the_same_whoever_drafts_it(mesh) -> None:
    assert draft_root(mesh.root_public, TRUST_DOMAIN, NOW) == draft_root(mesh.root_public, TRUST_DOMAIN, NOW)
    assert root_certificate(mesh.authority, TRUST_DOMAIN, NOW) == mesh.root_der


def test_reads_the_key_of_its_own_root_and_no_other(mesh, make_mesh) -> None:
    assert read_root(mesh.root_der, TRUST_DOMAIN) == mesh.root_public
    with pytest.raises(SvidError, match="not the root certificate of trust domain 'other'"):
        read_root(mesh.root_der, "other")
    assert root_fingerprint(make_mesh(seed=5).root_public) != root_fingerprint(mesh.root_public)


def test_a_leaf_is_no_root(mesh) -> None:
    leaf = x509.load_pem_x509_certificate(mesh.node_svid().chain_pem)
    with pytest.raises(SvidError, match="not a root certificate"):
        read_root(leaf.public_bytes(Encoding.DER), TRUST_DOMAIN)


def test_a_certificate_of_the_root_key_that_names_another_issuer_is_no_root(mesh) -> None:
    root = x509.load_der_x509_certificate(mesh.root_der)
    builder = (
        x509.CertificateBuilder()
        .subject_name(root.subject)
        .issuer_name(root_name("other"))
        .public_key(root.public_key())
        .serial_number(1)
        .not_valid_before(root.not_valid_before_utc)
        .not_valid_after(root.not_valid_after_utc)
    )
    for extension in root.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    shape = draft(builder)
    with pytest.raises(SvidError, match="not the root certificate of trust domain"):
        read_root(shape.assemble(mesh.authority.sign(shape.tbs), mesh.root_public), TRUST_DOMAIN)


def test_a_signature_that_does_not_verify_is_never_assembled(mesh) -> None:
    drafted = draft_root(mesh.root_public, TRUST_DOMAIN, NOW)
    assert drafted.assemble(mesh.authority.sign(drafted.tbs), mesh.root_public) == mesh.root_der
    for wrong in (bytes(64), mesh.authority.sign(drafted.tbs + b"x"), b""):
        with pytest.raises(AuthorityError, match="discarded"):
            drafted.assemble(wrong, mesh.root_public)


def test_an_authority_that_signs_wrongly_issues_nothing(mesh) -> None:
    class Lying:
        root_public, epoch, threshold, signers, can_sign = mesh.root_public, 0, 1, (), True

        def sign(self, message: bytes) -> bytes:
            return mesh.authority.sign(b"something else")

    with pytest.raises(AuthorityError, match="does not verify"):
        root_certificate(Lying(), TRUST_DOMAIN, NOW)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_root(data: bytes) -> None:
    with pytest.raises(SvidError):
        read_root(data, TRUST_DOMAIN)


def test_no_altered_bit_leaves_a_root(shared_mesh) -> None:
    for bit in range(len(shared_mesh.root_der) * 8):
        data = bytearray(shared_mesh.root_der)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SvidError):
            read_root(bytes(data), TRUST_DOMAIN)


@given(position=st.integers(0, 2000), flip=st.integers(1, 255))
def test_a_root_that_signed_nonsense_about_itself_is_read_or_refused_in_words(
    shared_mesh, position: int, flip: int
) -> None:
    """Behind the signature too: a hostile root signs whatever it likes."""
    tbs = bytearray(draft_root(shared_mesh.root_public, TRUST_DOMAIN, NOW).tbs)
    tbs[position % len(tbs)] ^= flip
    try:
        assert (
            read_root(resigned(shared_mesh, shared_mesh.root_der, bytes(tbs)), TRUST_DOMAIN)
            == shared_mesh.root_public
        )
    except SvidError:
        pass


def resigned(mesh, der: bytes, tbs: bytes) -> bytes:
    at = der.index(x509.load_der_x509_certificate(der).tbs_certificate_bytes)
    return der[:at] + tbs + der[at + len(tbs) : -64] + mesh.authority.sign(tbs)


def test_certificates_are_bounded_before_they_are_parsed() -> None:
    with pytest.raises(SvidError, match="5000 bytes, at most 4096"):
        load_certificate(bytes(5000), "a certificate")


def test_serials_are_positive_and_short() -> None:
    assert serial_number(bytes(16)) == 1
    assert serial_number(b"\xff" * 16) == (1 << 127) - 1


def test_dates_beyond_the_calendar_end_with_it() -> None:
    assert instant(10**15).year == 9999


def test_a_trust_domain_that_is_none_is_refused_as_svid_error() -> None:
    with pytest.raises(SvidError, match="cannot be a trust domain"):
        root_name("Not A Domain")


def test_drafts_compare_by_content(mesh) -> None:
    drafted = draft_root(mesh.root_public, TRUST_DOMAIN, NOW)
    assert replace(drafted, tbs=b"") != drafted


def dated(der: bytes, authority: SoleAuthority, since: bytes, until: bytes) -> bytes:
    """A root certificate with other times (GeneralizedTime), signed again."""
    tbs = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    validity = tbs.index(bytes.fromhex("301e170d"))
    times = b"\x30\x22\x18\x0f" + since + b"\x18\x0f" + until
    content = tbs[4:validity] + times + tbs[validity + 32 :]
    assert tbs[:2] == b"\x30\x82"
    tbs = b"\x30\x82" + len(content).to_bytes(2, "big") + content
    whole = tbs + bytes.fromhex("300506032b6570034100") + authority.sign(tbs)
    return b"\x30\x82" + len(whole).to_bytes(2, "big") + whole


def test_times_that_no_calendar_has_are_refused() -> None:
    authority = SoleAuthority.from_seed(b"\x01" * 32, holder=bytes(16))
    der = root_certificate(authority, TRUST_DOMAIN, NOW)
    begin, end = b"20260101000000Z", b"20600101000000Z"
    good = dated(der, authority, begin, end)
    assert read_root(good, TRUST_DOMAIN) == authority.root_public
    check_root_validity(good, NOW)
    for since, until in ((b"00000101000000Z", end), (begin, b"00001231235959Z"), (begin, b"20600101000060Z")):
        odd = dated(der, authority, since, until)
        for read in (
            lambda der: read_root(der, TRUST_DOMAIN),
            root_since,
            lambda der: check_root_validity(der, NOW),
        ):
            with pytest.raises(SvidError, match="do not decode"):
                read(odd)
