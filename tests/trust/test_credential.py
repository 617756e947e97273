"""Node credentials: form, truth, rights."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.admission import issue_credential, request_renewal
from trust.credential import (
    CREDENTIAL_BYTES_MAX,
    CREDENTIAL_TTL_S,
    Credential,
    check_pattern,
    covers,
    decode_credential,
    verify_credential,
)
from trust.errors import CredentialError, IdentityError, TrustError

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"


def check(mesh, credential: Credential, now: float | None = NOW, trust_domain: str = TRUST_DOMAIN) -> None:
    verify_credential(credential, mesh.root_public, trust_domain, now)


def test_reads_back_as_it_was_encoded_and_verifies(mesh) -> None:
    credential = mesh.founder.credential
    again = decode_credential(credential.encode())
    assert again == credential
    assert again.node == mesh.founder.identity.id
    assert again.spiffe == credential.spiffe
    check(mesh, again)


def test_fits_a_datagram_with_typical_fields(mesh) -> None:
    member = mesh.join(
        "web-server-12.rack-7".replace(".", "-"), services=["shop/cart", "shop/payments", "default/*"]
    )
    assert len(member.credential.encode()) <= 260 < CREDENTIAL_BYTES_MAX


def test_one_that_would_not_fit_is_refused_when_it_is_made(mesh) -> None:
    many = tuple(f"namespace-{number}/a-rather-long-service-name" for number in range(12))
    with pytest.raises(CredentialError, match="name fewer, or use a pattern"):
        replace(mesh.founder.credential, services=many)


def test_expires_and_says_when(mesh) -> None:
    credential = mesh.founder.credential
    check(mesh, credential, NOW + CREDENTIAL_TTL_S - 1)
    with pytest.raises(CredentialError, match="alpha expired 3 hours ago"):
        check(mesh, credential, NOW + CREDENTIAL_TTL_S + 3 * 3600)


def test_records_signed_long_ago_stay_true(mesh) -> None:
    check(mesh, mesh.founder.credential, None)


def test_a_clock_that_is_far_behind_is_named(mesh) -> None:
    check(mesh, mesh.founder.credential, NOW - 299)
    with pytest.raises(CredentialError, match="issued 10 minutes in the future: the clocks"):
        check(mesh, mesh.founder.credential, NOW - 600)


def test_another_root_or_another_domain_is_refused(mesh, make_mesh) -> None:
    with pytest.raises(CredentialError, match="not signed by the root"):
        check(mesh, make_mesh(seed=9).founder.credential)
    with pytest.raises(CredentialError, match=r"for trust domain 'cluster\.local', not 'other'"):
        check(mesh, mesh.founder.credential, trust_domain="other")


@pytest.mark.parametrize(
    "change",
    [
        {"services": ("*/*", "x/y")},
        {"publish": False},
        {"invite": False},
        {"govern": False},
        {"name": "beta"},
        {"expires_at": NOW + CREDENTIAL_TTL_S + 1},
        {"serial": bytes(16)},
        {"public_key": bytes(32)},
        {"agreement_key": bytes(32)},
    ],
)
def test_every_field_is_under_the_signature(mesh, change: dict[str, object]) -> None:
    with pytest.raises(CredentialError, match="not signed by the root"):
        check(mesh, replace(mesh.founder.credential, **change))


def test_a_lifetime_beyond_what_the_mesh_allows_is_refused_even_if_signed(mesh) -> None:
    eternal = replace(mesh.founder.credential, expires_at=NOW + 3650 * 86_400)
    with pytest.raises(CredentialError, match="longer than the mesh allows"):
        check(mesh, eternal.signed(mesh.authority.sign(eternal.signing_bytes())))


@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CredentialError):
        decode_credential(data)


@given(position=st.integers(0, 1000), flip=st.integers(1, 255))
def test_no_altered_byte_survives_decoding_and_verifying(shared_mesh, position: int, flip: int) -> None:
    data = bytearray(shared_mesh.founder.credential.encode())
    data[position % len(data)] ^= flip
    with pytest.raises(TrustError):
        check(shared_mesh, decode_credential(bytes(data)))


def test_a_later_format_is_named(mesh) -> None:
    data = bytearray(mesh.founder.credential.encode())
    assert data[1] == 2
    for later in (1, 3):
        data[1] = later
        with pytest.raises(
            CredentialError, match=f"of format {later}; this version of Gossamer knows 1 and 2"
        ):
            decode_credential(bytes(data))


def test_only_the_founder_governs_and_what_was_issued_before_anybody_did_reads_as_ever(mesh) -> None:
    founder, member = mesh.founder.credential, mesh.join("beta").credential
    assert (founder.govern, member.govern) == (True, False)
    assert member.encode()[:2] == b"\x9c\x01"  # twelve fields of format 1: any version reads it
    assert founder.encode()[:2] == b"\x9d\x02"
    for credential in (founder, member):
        assert decode_credential(credential.encode()) == credential


def test_a_right_to_govern_that_is_not_there_has_no_encoding(mesh) -> None:
    data = bytearray(mesh.founder.credential.encode())
    assert data.count(b"\xc3\xc3\xc3") == 1
    at = data.index(b"\xc3\xc3\xc3")  # publish, invite, govern
    data[at + 2] = 0xC2
    with pytest.raises(CredentialError, match="not in its canonical encoding"):
        decode_credential(bytes(data))


def test_a_renewed_governor_governs_and_a_renewed_member_does_not(mesh) -> None:
    for member in (mesh.founder, mesh.join("beta")):
        issued = issue_credential(
            mesh.authority,
            request_renewal(member.identity, member.credential, NOW),
            trust_domain=TRUST_DOMAIN,
            now=NOW,
            entropy=mesh.entropy,
            ledger=mesh.ledger,
            revoked=mesh.revoked,
        )
        assert issued.credential.govern == member.credential.govern


def test_allows_what_its_patterns_say(mesh) -> None:
    credential = replace(mesh.founder.credential, services=("shop/cart", "web/*", "ops/log-*"))
    assert credential.allows("shop", "cart")
    assert credential.allows("web", "anything")
    assert credential.allows("ops", "log-7")
    assert not credential.allows("shop", "cart2")
    assert not credential.allows("shop", "payments")
    assert not credential.allows("ops", "metrics")
    assert not replace(credential, services=()).allows("shop", "cart")


@pytest.mark.parametrize(
    ("granted", "pattern", "inside"),
    [
        (["*/*"], "*/*", True),
        (["*/*"], "shop/cart", True),
        (["shop/*"], "shop/*", True),
        (["shop/*"], "*/*", False),
        (["shop/*"], "sho*/x", False),
        (["shop/cart"], "shop/*", False),
        (["shop/c*"], "shop/ca*", True),
        (["shop/ca*"], "shop/c*", False),
        (["shop/c*"], "shop/*", False),
        (["a/*", "b/*"], "b/x", True),
        (["a/*", "b/*"], "*/x", False),
        ([], "a/b", False),
    ],
)
def test_a_grant_lies_inside_another_or_not(granted: list[str], pattern: str, inside: bool) -> None:
    assert covers(granted, pattern) is inside


parts = st.sampled_from(["*", "a", "ab", "a*", "ab*", "b", "b*"])
patterns = st.builds("{}/{}".format, parts, parts)


@given(
    patterns,
    patterns,
    st.sampled_from(["a", "ab", "abc", "b", "c"]),
    st.sampled_from(["a", "ab", "abc", "b", "c"]),
)
def test_what_is_covered_allows_nothing_more(outer: str, inner: str, namespace: str, name: str) -> None:
    if covers([outer], inner) and covers([inner], f"{namespace}/{name}"):
        assert covers([outer], f"{namespace}/{name}")


@pytest.mark.parametrize(
    "bad", ["", "shop", "/", "shop/", "/cart", "shop/cart/x", "SHOP/*", "a*b/c", "**/x", "shop/ *", "-*/x"]
)
def test_refuses_what_is_no_pattern(bad: str) -> None:
    with pytest.raises(IdentityError):
        check_pattern(bad)


def test_repr_is_one_line_of_what_one_wants_to_know(mesh) -> None:
    assert repr(mesh.founder.credential).startswith("Credential(alpha, ")
    assert "\n" not in repr(mesh.founder.credential)
