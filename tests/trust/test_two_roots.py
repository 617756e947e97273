"""What two roots signed, held against the line of them: while both count, after the older one was retired, and after it
was given up as compromised."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from trust.admission import TokenLedger, draft_credential, request_join, request_renewal
from trust.authority import root_certificate
from trust.credential import verify_credential
from trust.errors import CredentialError, SvidError, TokenError
from trust.identity import NodeIdentity
from trust.invitation import create_token, verify_invitation
from trust.issuance import draft_svid
from trust.order import Kind, Order, Rules, derive
from trust.revocation import NODE_REVOCATION_S, RENEWAL_GRACE_S, RevocationSet, revoke, verify_revocation
from trust.revoking import request_revocation
from trust.rollover import Rollover, Terms, complete
from trust.roots import Roots
from trust.svid import new_leaf_key, read_svid, verify_seed, verify_svid

DAY_S = 86_400
OVERLAP_S = 3 * DAY_S


@dataclass
class Two:
    """A mesh whose root is followed by another one's."""

    old: Any
    new: Any
    roots: Roots
    ends_at: int


def two(make_mesh: Any, *, compromised: bool = False) -> Two:
    old, new = make_mesh(seed=0), make_mesh(seed=2)
    terms = Terms(
        trust_domain=old.trust_domain, old=old.root_public, new=new.root_public, before=bytes(32), record=bytes(32),
        issued_at=old.now, overlap_s=600 if compromised else OVERLAP_S, compromised=compromised,
    )  # fmt: skip
    step = complete(
        Rollover(terms=terms),
        by_old=old.authority.sign(terms.old_bytes()),
        by_new=new.authority.sign(terms.new_bytes()),
        certificate=root_certificate(new.authority, terms.trust_domain, terms.issued_at),
    )
    return Two(old, new, Roots(old.root_der, old.trust_domain, [step]), terms.ends_at)


def test_credentials_of_both_count_and_then_of_the_newer_only(make_mesh: Any) -> None:
    both = two(make_mesh)
    for now, fine in ((both.ends_at - 1, True), (both.ends_at, False)):
        verify_credential(both.new.founder.credential, both.roots, "cluster.local", now)
        if fine:
            verify_credential(both.old.founder.credential, both.roots, "cluster.local", now)
            continue
        with pytest.raises(CredentialError, match="which was retired 0 seconds ago"):
            verify_credential(both.old.founder.credential, both.roots, "cluster.local", now)
        verify_credential(both.old.founder.credential, both.roots, "cluster.local", None)


def test_certificates_of_both_count_and_then_of_the_newer_only(make_mesh: Any) -> None:
    both = two(make_mesh)
    key = new_leaf_key(both.old.entropy)
    der = both.old.issue(both.old.request(both.old.founder, both.old.founder.spiffe, key))
    arguments = {"root_public": both.roots, "trust_domain": "cluster.local"}
    assert verify_svid(der, now=both.old.now, **arguments).node == both.old.founder.identity.id
    assert read_svid(der, **arguments).node == both.old.founder.identity.id
    with pytest.raises(SvidError, match="was retired"):
        verify_svid(der, now=both.ends_at, **arguments)


def test_the_new_root_certifies_on_a_credential_of_the_old_one(make_mesh: Any) -> None:
    both = two(make_mesh)
    request = both.old.request(both.old.founder, both.old.founder.spiffe)
    arguments = {
        "trust_domain": "cluster.local",
        "now": both.old.now,
        "serial": bytes(16),
        "revoked": both.old.revoked,
    }
    with pytest.raises(CredentialError, match="not signed by the root"):
        draft_svid(request, both.new.root_der, **arguments)
    draft = draft_svid(request, both.new.root_der, accepted=both.roots, **arguments)
    der = draft.assemble(both.new.authority.sign(draft.tbs), both.new.root_public)
    read_svid(der, root_public=both.new.root_public, trust_domain="cluster.local")


def test_revocations_of_both_hold_for_ever(make_mesh: Any) -> None:
    both = two(make_mesh)
    for each in (both.old, both.new):
        entry = revoke(
            each.authority,
            each.founder.spiffe,
            reason="lost",
            now=each.now,
            expires_at=each.now + NODE_REVOCATION_S,
        )
        verify_revocation(entry, both.roots, "cluster.local")
        known = RevocationSet(both.roots)
        known.add(entry)
        assert "0 by themselves" in repr(known)


def test_a_token_names_the_root_behind_its_maker_and_does_not_outlive_it(make_mesh: Any) -> None:
    both = two(make_mesh)
    founder = both.old.founder
    arguments = {
        "root_public": both.roots, "seeds": [("127.0.0.1", 1)], "services": ["*/*"], "now": both.old.now,
        "entropy": both.old.entropy,
    }  # fmt: skip
    token = create_token(founder.identity, founder.credential, ttl_s=DAY_S, **arguments)
    verify_invitation(token.invitation, both.roots, both.old.now)
    with pytest.raises(TokenError, match="longer than the root that signed the credential"):
        create_token(founder.identity, founder.credential, ttl_s=OVERLAP_S + 60, **arguments)
    with pytest.raises(TokenError, match="ask for a new one"):
        verify_invitation(token.invitation, both.roots, both.ends_at)
    foreign = make_mesh(seed=5).token()
    with pytest.raises(TokenError, match="another mesh"):
        verify_invitation(foreign.invitation, both.roots, both.old.now)


def renewed(both: Two, now: int, **options: Any) -> Any:
    member = both.old.join("beta")
    request = request_renewal(member.identity, member.credential, now)
    return draft_credential(
        request, both.roots, trust_domain="cluster.local", now=now, serial=bytes(16), ledger=TokenLedger(),
        revoked=both.old.revoked, **options,
    ).credential  # fmt: skip


def test_who_was_away_is_renewed_for_a_month_after_its_root_was_retired(make_mesh: Any) -> None:
    both = two(make_mesh)
    for now in (both.old.now, both.ends_at + 5, both.ends_at + RENEWAL_GRACE_S - 1):
        assert renewed(both, now).name == "beta"
    with pytest.raises(CredentialError, match="was retired"):
        renewed(both, both.ends_at + RENEWAL_GRACE_S)


def test_of_a_compromised_root_only_known_members_are_carried_over_and_no_tokens(make_mesh: Any) -> None:
    both = two(make_mesh, compromised=True)
    now = both.old.now + 10
    assert renewed(both, now).name == "beta"
    with pytest.raises(CredentialError, match="not known as a member then"):
        renewed(both, now, carries=lambda _credential: False)
    with pytest.raises(CredentialError, match="given up as compromised"):
        renewed(both, both.ends_at)
    newcomer = NodeIdentity.from_seed(b"n" * 32)
    request = request_join(newcomer, both.old.token(ttl_s=300), "new", now)
    arguments = {
        "trust_domain": "cluster.local", "now": now, "serial": bytes(16), "ledger": TokenLedger(),
        "revoked": both.old.revoked,
    }  # fmt: skip
    with pytest.raises(TokenError, match="given up as compromised"):
        draft_credential(request, both.roots, **arguments)
    request = request_join(newcomer, both.new.token(ttl_s=300), "new", now)
    assert draft_credential(request, both.roots, **arguments).credential.name == "new"


def test_of_a_compromised_root_nothing_is_signed_for_whom_the_mesh_does_not_carry_over(
    make_mesh: Any,
) -> None:
    both = two(make_mesh, compromised=True)
    now, founder = both.old.now + 10, both.old.founder
    subject = both.old.join("beta").spiffe
    wanted = {
        Kind.SVID: (both.old.request(founder, founder.spiffe), 600),
        Kind.REVOCATION: (request_revocation(founder.identity, founder.credential, subject, "", now), 0),
    }
    rules = Rules(
        root_public=both.new.root_public, root_certificate=both.roots.certificate(both.new.root_public),
        trust_domain="cluster.local", revoked=both.old.revoked, ledger=TokenLedger(), roots=both.roots,
    )  # fmt: skip
    for kind, (request, ttl_s) in wanted.items():
        order = Order(kind=kind, request=request.encode(), issued_at=now, entropy=bytes(16), ttl_s=ttl_s)
        assert derive(order, rules).root_public == both.new.root_public
        with pytest.raises(CredentialError, match="not known as a member then"):
            derive(order, replace(rules, carries=lambda _credential: False))


def test_a_newcomer_follows_from_the_root_in_its_token_to_the_one_it_meets(make_mesh: Any) -> None:
    both = two(make_mesh)
    told = [each.encode() for each in both.roots.rollovers]
    key = new_leaf_key(both.new.entropy)
    leaf = both.new.issue(both.new.request(both.new.founder, both.new.founder.spiffe, key))
    for each in (both.old, both.new):
        fingerprint = each.token().root_fingerprint
        met = verify_seed(
            leaf, both.old.root_der, fingerprint=fingerprint, trust_domain="cluster.local", now=both.old.now,
            rollovers=told,
        )  # fmt: skip
        assert met.node == both.new.founder.identity.id
    with pytest.raises(SvidError, match="not signed by the mesh root"):
        verify_seed(
            leaf, both.old.root_der, fingerprint=both.old.token().root_fingerprint, trust_domain="cluster.local",
            now=both.old.now,
        )  # fmt: skip
    with pytest.raises(SvidError, match="tells no line of roots"):
        verify_seed(
            leaf, both.old.root_der, fingerprint=both.old.token().root_fingerprint, trust_domain="cluster.local",
            now=both.old.now, rollovers=[*told, *told],
        )  # fmt: skip
