"""Who may have the root revoke whom: the whole policy, refusal by refusal."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.credential import CLOCK_SKEW_S_MAX
from trust.errors import CredentialError, RevocationError, RevokedError
from trust.identity import spiffe_node
from trust.revocation import (
    REVOCATION_S,
    Revocation,
    RevocationSet,
    revoke_self,
    serial_subject,
    signer_subject,
    subject_kind,
    verify_revocation,
)
from trust.revoking import (
    RevocationRequest,
    decode_revocation_request,
    draft_revocation,
    request_revocation,
)

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"
CART = "spiffe://cluster.local/ns/shop/sa/cart"


def signed(mesh, request: RevocationRequest) -> Revocation:
    """What the root makes of a request."""
    draft = draft_revocation(
        request, mesh.root_public, trust_domain=TRUST_DOMAIN, now=NOW, revoked=mesh.revoked
    )
    return draft.signed(mesh.authority.sign(draft.signing_bytes()))


def ask(mesh, member=None, subject: str = CART, now: int = NOW, reason: str = "stolen") -> RevocationRequest:
    member = member or mesh.founder
    return request_revocation(member.identity, member.credential, subject, reason, now)


def judge(mesh, request: RevocationRequest, now: int = NOW):
    return draft_revocation(
        request, mesh.root_public, trust_domain=TRUST_DOMAIN, now=now, revoked=mesh.revoked
    )


def test_a_governor_has_the_root_revoke_each_kind_of_subject(mesh) -> None:
    other = mesh.join("beta")
    subjects = {
        other.spiffe: "node",
        CART: "workload",
        serial_subject(b"\7" * 16): "certificate",
        signer_subject(other.identity.id): "signer",
    }
    for subject, kind in subjects.items():
        request = decode_revocation_request(ask(mesh, subject=subject).encode())
        entry = signed(mesh, request)
        verify_revocation(entry, mesh.root_public, TRUST_DOMAIN)
        assert (entry.subject, entry.reason, entry.issuer) == (subject, "stolen", mesh.root_public)
        assert entry.expires_at - entry.revoked_at == REVOCATION_S
        assert subject_kind(subject) == kind


def test_each_signer_derives_the_same_bytes_from_one_request(mesh) -> None:
    request = ask(mesh)
    assert judge(mesh, request).signing_bytes() == judge(mesh, request, NOW + 30).signing_bytes()


def test_who_does_not_govern_is_refused_and_told_what_it_may_do(mesh) -> None:
    with pytest.raises(
        RevocationError, match=r"beta may not revoke .*: only nodes that govern .*leave --revoke"
    ):
        judge(mesh, ask(mesh, mesh.join("beta")))
    judge(mesh, ask(mesh, mesh.join("gamma", govern=True)))


def test_a_governor_that_is_revoked_itself_is_refused(mesh) -> None:
    gamma = mesh.join("gamma", govern=True)
    mesh.revoked.add(revoke_self(gamma.identity, TRUST_DOMAIN, reason="lost", now=NOW))
    with pytest.raises(RevokedError, match="lost"):
        judge(mesh, ask(mesh, gamma))


def test_a_governor_does_not_revoke_itself_by_mistake(mesh) -> None:
    with pytest.raises(RevocationError, match="leave --revoke"):
        judge(mesh, ask(mesh, subject=mesh.founder.spiffe))


def test_a_request_that_is_altered_old_or_of_another_mesh_is_refused(mesh, make_mesh) -> None:
    request = ask(mesh)
    for altered in (
        replace(request, subject=CART + "2"),
        replace(request, reason="other"),
        replace(request, requested_at=NOW + 1),
        replace(request, signature=bytes(64)),
    ):
        with pytest.raises(RevocationError, match="not signed by the key of node alpha"):
            judge(mesh, altered)
    with pytest.raises(RevocationError, match="set the clocks right"):
        judge(mesh, request, NOW + CLOCK_SKEW_S_MAX + 1)
    with pytest.raises(CredentialError):
        judge(mesh, ask(make_mesh(seed=9)))
    other = ask(mesh, subject="spiffe://other/ns/a/sa/b")
    with pytest.raises(RevocationError, match="not in trust domain"):
        signed(mesh, other)


@pytest.mark.parametrize(
    "subject", ["", "cart", "serial:xyz", "signer:xyz", "signer:", "spiffe://cluster.local", "node:x"]
)
def test_what_cannot_be_revoked_is_not_even_asked_for(mesh, subject: str) -> None:
    with pytest.raises(RevocationError):
        ask(mesh, subject=subject)


def test_a_reason_is_bounded(mesh) -> None:
    ask(mesh, reason="x" * 256)
    with pytest.raises(RevocationError, match="at most 256 characters"):
        ask(mesh, reason="x" * 257)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(RevocationError):
        decode_revocation_request(data)


def test_a_revoked_signer_may_not_sign_and_neither_may_a_revoked_node(mesh) -> None:
    beta, gamma, delta = (mesh.join(name) for name in ("beta", "gamma", "delta"))
    for subject in (signer_subject(beta.identity.id), gamma.spiffe):
        mesh.revoked.add(signed(mesh, ask(mesh, subject=subject)))
    for member in (beta, gamma):
        with pytest.raises(RevokedError):
            mesh.revoked.check_signer(TRUST_DOMAIN, member.identity.id)
    mesh.revoked.check_signer(TRUST_DOMAIN, delta.identity.id)
    mesh.revoked.check_credential(beta.credential)  # it is a member all the same


def test_a_node_gives_up_its_own_part_in_signing_and_nobody_elses(mesh) -> None:
    beta, gamma = mesh.join("beta"), mesh.join("gamma")

    def by_beta(subject: str):
        own = replace(revoke_self(beta.identity, TRUST_DOMAIN, reason="", now=NOW), subject=subject)
        return replace(own, signature=beta.identity.sign(own.signing_bytes()))

    verify_revocation(by_beta(signer_subject(beta.identity.id)), mesh.root_public, TRUST_DOMAIN)
    with pytest.raises(RevocationError, match="nothing but itself"):
        verify_revocation(by_beta(signer_subject(gamma.identity.id)), mesh.root_public, TRUST_DOMAIN)


def test_an_ended_revocation_is_forgotten_and_no_sooner(mesh) -> None:
    revoked = RevocationSet(mesh.root_public)
    entry = signed(mesh, ask(mesh))
    revoked.add(entry)
    assert revoked.prune(NOW + REVOCATION_S - 1) == 0
    with pytest.raises(RevokedError):
        revoked.check(CART)
    assert revoked.prune(NOW + REVOCATION_S) == 1
    revoked.check(CART)
    assert spiffe_node(TRUST_DOMAIN, bytes(16)) not in revoked.subjects()
