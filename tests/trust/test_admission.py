"""Joining and renewing: who is admitted, with what, how often."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust import admission
from trust.admission import (
    JoinRequest,
    Spend,
    TokenLedger,
    decode_request,
    draft_credential,
    issue_credential,
    request_join,
    request_renewal,
)
from trust.credential import CREDENTIAL_TTL_S, verify_credential
from trust.errors import AdmissionError, AuthorityError, CredentialError, RevokedError, TokenError, TrustError
from trust.identity import NodeIdentity
from trust.revocation import NODE_REVOCATION_S, RENEWAL_GRACE_S, revoke, serial_subject

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"
DAY = 86_400


def newcomer(number: int = 1) -> NodeIdentity:
    return NodeIdentity.from_seed(bytes([number]) * 32)


def issue(mesh, request, now: int = NOW, **options):
    arguments = {"trust_domain": TRUST_DOMAIN, "entropy": mesh.entropy, "ledger": mesh.ledger, **options}
    return issue_credential(mesh.authority, request, now=now, revoked=mesh.revoked, **arguments)


def ban(mesh, subject: str) -> None:
    mesh.revoked.add(
        revoke(mesh.authority, subject, reason="stolen", now=NOW, expires_at=NOW + NODE_REVOCATION_S)
    )


def test_a_newcomer_gets_what_the_token_grants(mesh) -> None:
    token = mesh.token(services=["shop/*"], publish=False, invite=False)
    issued = issue(mesh, request_join(newcomer(), token, "beta", NOW))
    credential = issued.credential
    verify_credential(credential, mesh.root_public, TRUST_DOMAIN, NOW)
    assert credential.node == newcomer().id
    assert credential.agreement_key == newcomer().agreement_key
    assert (credential.name, credential.services) == ("beta", ("shop/*",))
    assert (credential.publish, credential.invite) == (False, False)
    assert credential.expires_at == NOW + CREDENTIAL_TTL_S
    assert issued.spend == Spend(
        token_id=token.invitation.id, node=newcomer().id, expires_at=token.invitation.expires_at
    )


def test_a_request_holds_no_secret(mesh) -> None:
    token = mesh.token()
    assert token.secret not in request_join(newcomer(), token, "beta", NOW).encode()


def test_the_same_node_may_ask_again_but_no_other(mesh) -> None:
    token = mesh.token(uses=1)
    first = issue(mesh, request_join(newcomer(1), token, "beta", NOW))
    retry = issue(mesh, request_join(newcomer(1), token, "beta", NOW + 60), now=NOW + 60)
    assert first.spend is not None
    assert retry.spend is None
    assert retry.credential.node == first.credential.node
    with pytest.raises(TokenError, match="has been used by another host"):
        issue(mesh, request_join(newcomer(2), token, "gamma", NOW))


def test_a_token_for_three_admits_three(mesh) -> None:
    token = mesh.token(uses=3)
    for number in (1, 2, 3, 2):
        issue(mesh, request_join(newcomer(number), token, f"n{number}", NOW))
    with pytest.raises(TokenError, match="used 3 times, as often as it may"):
        issue(mesh, request_join(newcomer(4), token, "n4", NOW))


def test_who_overhears_a_request_cannot_join_with_it(mesh) -> None:
    overheard = request_join(newcomer(1), mesh.token(), "beta", NOW)
    thief = newcomer(2)
    for stolen in (
        replace(overheard, public_key=thief.public_key),
        replace(overheard, agreement_key=thief.agreement_key),
        replace(overheard, name="thief"),
    ):
        signed = replace(stolen, signature=thief.sign(stolen.signing_bytes()))
        with pytest.raises(TokenError, match="does not hold the token"):
            issue(mesh, signed)
    assert len(mesh.ledger) == 0


def test_who_holds_a_token_cannot_join_as_someone_else(mesh) -> None:
    token, victim, thief = mesh.token(), newcomer(1), newcomer(2)
    request = replace(request_join(thief, token, "beta", NOW), public_key=victim.public_key)
    message = request.signing_bytes()
    request = replace(request, token_proof=token.prove(message), signature=thief.sign(message))
    with pytest.raises(AdmissionError, match="not signed by the key it wants admitted"):
        issue(mesh, request)


def test_a_replayed_request_yields_only_the_same_node_again(mesh) -> None:
    request = request_join(newcomer(1), mesh.token(), "beta", NOW)
    assert issue(mesh, request).credential.public_key == issue(mesh, request).credential.public_key
    with pytest.raises(AdmissionError, match="1 hour away from the issuer's clock"):
        issue(mesh, request, now=NOW + 3600)


def test_a_refused_join_uses_up_nothing(mesh) -> None:
    class Broken:
        root_public, epoch, threshold, signers, can_sign = mesh.root_public, 0, 1, (), True

        def sign(self, message: bytes) -> bytes:
            return bytes(64)

    request = request_join(newcomer(1), mesh.token(), "beta", NOW)
    with pytest.raises(AuthorityError, match="discarded"):
        issue_credential(
            Broken(),
            request,
            trust_domain=TRUST_DOMAIN,
            now=NOW,
            entropy=mesh.entropy,
            ledger=mesh.ledger,
            revoked=mesh.revoked,
        )
    assert len(mesh.ledger) == 0


def test_an_expired_altered_or_foreign_token_admits_nobody(mesh, make_mesh) -> None:
    late = NOW + 2 * DAY
    with pytest.raises(TokenError, match="expired 1 day ago"):
        issue(mesh, request_join(newcomer(), mesh.token(), "beta", late), now=late)
    request = request_join(newcomer(), make_mesh(seed=5).token(), "beta", NOW)
    with pytest.raises(TokenError, match="for another mesh"):
        issue(mesh, request)
    with pytest.raises(TokenError, match=r"is for trust domain 'cluster\.local', not 'other'"):
        issue(mesh, request_join(newcomer(), mesh.token(), "beta", NOW), trust_domain="other")


def test_a_token_of_a_revoked_issuer_admits_nobody(mesh) -> None:
    deputy = mesh.join("deputy", invite=True)
    request = request_join(newcomer(), mesh.token(deputy), "beta", NOW)
    ban(mesh, deputy.spiffe)
    with pytest.raises(RevokedError, match="stolen"):
        issue(mesh, request)


def test_a_revoked_node_does_not_come_back_with_a_new_token(mesh) -> None:
    member = mesh.join("beta")
    ban(mesh, member.spiffe)
    with pytest.raises(RevokedError, match="stolen"):
        issue(mesh, request_join(member.identity, mesh.token(), "beta", NOW))


@pytest.mark.parametrize("name", ["", "-beta", "a b", "x" * 64, "beta\n"])
def test_a_name_that_is_none_is_refused_on_both_sides(mesh, name: str) -> None:
    token = mesh.token()
    with pytest.raises(AdmissionError, match="cannot have this name"):
        request_join(newcomer(), token, name, NOW)
    request = replace(request_join(newcomer(), token, "beta", NOW), name=name)
    message = request.signing_bytes()
    request = replace(request, token_proof=token.prove(message), signature=newcomer().sign(message))
    with pytest.raises(AdmissionError, match="cannot have this name"):
        issue(mesh, request)


class TestRenewal:
    def test_keeps_the_rights_and_moves_the_end(self, mesh) -> None:
        member = mesh.join("beta", services=["shop/*"], publish=False)
        later = NOW + 4 * DAY
        issued = issue(mesh, request_renewal(member.identity, member.credential, later), now=later)
        renewed = issued.credential
        verify_credential(renewed, mesh.root_public, TRUST_DOMAIN, later)
        assert issued.spend is None
        assert renewed.expires_at == later + CREDENTIAL_TTL_S
        assert renewed.serial != member.credential.serial
        unchanged = {"serial": renewed.serial, "issued_at": later, "expires_at": renewed.expires_at}
        assert renewed == replace(member.credential, signature=renewed.signature, **unchanged)

    def test_works_for_a_month_after_expiry_and_then_no_more(self, mesh) -> None:
        member = mesh.join("beta")
        last = member.credential.expires_at + RENEWAL_GRACE_S
        issue(mesh, request_renewal(member.identity, member.credential, last), now=last)
        late = last + DAY
        with pytest.raises(CredentialError, match="expired 31 days ago, which is too long"):
            issue(mesh, request_renewal(member.identity, member.credential, late), now=late)

    def test_is_for_who_holds_the_key(self, mesh) -> None:
        member = mesh.join("beta")
        request = request_renewal(newcomer(7), member.credential, NOW)
        with pytest.raises(AdmissionError, match="not signed by the key of beta"):
            issue(mesh, request)

    def test_is_not_for_the_revoked_whichever_way(self, mesh) -> None:
        one, two = mesh.join("beta"), mesh.join("gamma")
        ban(mesh, one.spiffe)
        ban(mesh, serial_subject(two.credential.serial))
        for member in (one, two):
            with pytest.raises(RevokedError, match="stolen"):
                issue(mesh, request_renewal(member.identity, member.credential, NOW))

    def test_does_not_widen_what_the_root_signed(self, mesh) -> None:
        member = mesh.join("beta", services=["shop/*"])
        wider = replace(member.credential, services=("*/*",))
        with pytest.raises(CredentialError, match="not signed by the root"):
            issue(mesh, request_renewal(member.identity, wider, NOW))


def test_a_lifetime_beyond_the_limit_is_refused(mesh) -> None:
    request = request_join(newcomer(), mesh.token(), "beta", NOW)
    for ttl_s in (0, 31 * DAY):
        with pytest.raises(AdmissionError, match="at most 30 days"):
            issue(mesh, request, ttl_s=ttl_s)


def test_each_signer_drafts_the_same_and_changes_nothing(mesh) -> None:
    request = request_join(newcomer(), mesh.token(), "beta", NOW)
    drafts = [
        draft_credential(
            request,
            mesh.root_public,
            trust_domain=TRUST_DOMAIN,
            now=NOW,
            serial=b"s" * 16,
            ledger=mesh.ledger,
            revoked=mesh.revoked,
        )
        for _ in range(2)
    ]
    assert drafts[0] == drafts[1]
    assert len(mesh.ledger) == 0


class TestLedger:
    def test_remembers_across_a_restart(self, mesh) -> None:
        token = mesh.token()
        issued = issue(mesh, request_join(newcomer(1), token, "beta", NOW))
        assert issued.spend is not None
        reborn = TokenLedger([issued.spend])
        assert reborn.check(token.invitation, newcomer(1).id) is None
        with pytest.raises(TokenError, match="used by another host"):
            reborn.check(token.invitation, newcomer(2).id)

    def test_forgets_expired_tokens_only(self, mesh) -> None:
        short, long = mesh.token(ttl_s=60), mesh.token(ttl_s=600)
        for token in (short, long):
            issue(mesh, request_join(newcomer(1), token, "beta", NOW))
        assert mesh.ledger.prune(NOW + 59) == 0
        assert mesh.ledger.prune(NOW + 60) == 1
        assert len(mesh.ledger) == 1
        with pytest.raises(TokenError):
            mesh.ledger.check(long.invitation, newcomer(2).id)

    def test_admits_nobody_new_when_it_is_full(self, mesh, monkeypatch) -> None:
        monkeypatch.setattr(admission, "ADMITTED_MAX", 2)
        token = mesh.token(uses=9)
        for number in (1, 2, 1):
            issue(mesh, request_join(newcomer(number), token, "beta", NOW))
        with pytest.raises(TokenError, match="too many hosts joined lately"):
            issue(mesh, request_join(newcomer(3), token, "beta", NOW))

    def test_counts_a_spend_once(self) -> None:
        spend = Spend(token_id=bytes(16), node=bytes(16), expires_at=NOW)
        ledger = TokenLedger([spend, spend])
        assert repr(ledger) == "TokenLedger(1 nodes admitted with 1 tokens)"


def test_requests_read_back_as_they_were_encoded(mesh) -> None:
    for request in (
        request_join(newcomer(), mesh.token(), "beta", NOW),
        request_renewal(mesh.founder.identity, mesh.founder.credential, NOW),
    ):
        assert decode_request(request.encode()) == request


@given(st.binary(max_size=500) | st.binary(max_size=300).map(lambda tail: b"\x94\xa5renew" + tail))
def test_arbitrary_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(AdmissionError):
        decode_request(data)


@pytest.fixture(scope="module")
def requests(shared_mesh) -> list[bytes]:
    founder = shared_mesh.founder
    return [
        request_join(newcomer(), shared_mesh.token(), "beta", NOW).encode(),
        request_renewal(founder.identity, founder.credential, NOW).encode(),
    ]


@given(position=st.integers(0, 5000), flip=st.integers(1, 255), renewal=st.booleans())
def test_no_altered_byte_is_admitted(
    shared_mesh, requests: list[bytes], position: int, flip: int, renewal: bool
) -> None:
    data = bytearray(requests[renewal])
    data[position % len(data)] ^= flip
    with pytest.raises(TrustError):
        issue(shared_mesh, decode_request(bytes(data)))


def test_a_join_request_is_typed(mesh) -> None:
    assert isinstance(decode_request(request_join(newcomer(), mesh.token(), "b", NOW).encode()), JoinRequest)


@pytest.mark.parametrize("name", ["host.example", "Node_1", "a", "x" * 63])
def test_a_node_may_be_called_what_hosts_are_called(mesh, name: str) -> None:
    assert issue(mesh, request_join(newcomer(), mesh.token(), name, NOW)).credential.name == name
