"""Everything that is wrong with a token, each with the words its holder is told: a table, judged as a signer judges."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trust.admission import JoinRequest, issue_credential, request_join
from trust.errors import TokenError, TrustError
from trust.identity import NodeIdentity
from trust.invitation import Token, parse_token
from trust.revocation import NODE_REVOCATION_S, revoke

NOW, TRUST_DOMAIN = 1_800_000_000, "cluster.local"


def host(number: int) -> NodeIdentity:
    return NodeIdentity.from_seed(bytes([number]) * 32)


def ask(token: Token, number: int = 1, now: int = NOW) -> JoinRequest:
    return request_join(host(number), token, f"host-{number}", now)


def admit(mesh: Any, request: JoinRequest, now: int = NOW) -> Any:
    return issue_credential(
        mesh.authority, request, trust_domain=TRUST_DOMAIN, now=now, entropy=mesh.entropy, ledger=mesh.ledger,
        revoked=mesh.revoked,
    ).credential  # fmt: skip


def expired(mesh: Any) -> None:
    admit(mesh, ask(mesh.token(ttl_s=60), now=NOW + 61), NOW + 61)


def of_another_mesh(mesh: Any) -> None:
    admit(mesh, ask(type(mesh)(seed=5).token()))


def with_the_root_of_another_mesh(mesh: Any) -> None:
    """Who may invite here, inviting to a root that is not this mesh's."""
    other = type(mesh)(seed=5)
    admit(mesh, ask(mesh.token(root_public=other.root_public)))


def used_by_another_host(mesh: Any) -> None:
    token = mesh.token(uses=1)
    admit(mesh, ask(token, 1))
    admit(mesh, ask(token, 2))


def exhausted(mesh: Any) -> None:
    token = mesh.token(uses=3)
    for number in (1, 2, 3, 4):
        admit(mesh, ask(token, number))


def replayed_for_another_key(mesh: Any) -> None:
    overheard = replace(ask(mesh.token()), public_key=host(2).public_key)
    admit(mesh, replace(overheard, signature=host(2).sign(overheard.signing_bytes())))


def replayed_later(mesh: Any) -> None:
    request = ask(mesh.token(ttl_s=86_400))
    admit(mesh, request)
    admit(mesh, request, NOW + 3600)


def overheard_without_its_secret(mesh: Any) -> None:
    token = mesh.token()
    admit(mesh, ask(replace(token, secret=bytes(len(token.secret)))))


def altered_to_grant_more(mesh: Any) -> None:
    token = mesh.token(services=["default/cart"])
    admit(mesh, ask(replace(token, invitation=replace(token.invitation, services=("*/*",)))))


def with_more_uses(mesh: Any) -> None:
    token = mesh.token(uses=1)
    admit(mesh, ask(replace(token, invitation=replace(token.invitation, uses=9))))


def mistyped(mesh: Any) -> None:
    text = mesh.token().text
    parse_token(text[:40] + ("A" if text[40] != "A" else "B") + text[41:])


def no_token_at_all(mesh: Any) -> None:
    parse_token("hunter2")


def of_an_issuer_that_is_revoked(mesh: Any) -> None:
    deputy = mesh.join("deputy", invite=True)
    token = mesh.token(deputy)
    entry = revoke(
        mesh.authority, deputy.spiffe, reason="stolen", now=NOW, expires_at=NOW + NODE_REVOCATION_S
    )
    mesh.revoked.add(entry)
    admit(mesh, ask(token))


def of_a_member_that_may_not_invite(mesh: Any) -> None:
    mesh.token(mesh.join("guest", invite=False))


def granting_a_service_its_issuer_has_not(mesh: Any) -> None:
    mesh.token(mesh.join("shopkeeper", invite=True, services=["shop/*"]), services=["bank/*"])


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (expired, r"expired .* ago"),
        (of_another_mesh, "for another mesh"),
        (with_the_root_of_another_mesh, "its issuer is not a member"),
        (used_by_another_host, "used by another host: ask for a new one"),
        (exhausted, "used 3 times, as often as it may"),
        (replayed_for_another_key, "does not hold the token"),
        (replayed_later, "away from the issuer's clock"),
        (overheard_without_its_secret, "does not hold the token"),
        (altered_to_grant_more, "has been altered"),
        (with_more_uses, "has been altered"),
        (mistyped, "has been altered"),
        (no_token_at_all, "not a join token: it should begin with"),
        (of_an_issuer_that_is_revoked, "has been revoked: stolen"),
        (of_a_member_that_may_not_invite, "may not invite"),
        (granting_a_service_its_issuer_has_not, "bank/\\*"),
    ],
)
def test_a_token_that_does_not_hold_is_refused_with_its_reason(
    mesh: Any, attempt: Callable[[Any], None], words: str
) -> None:
    with pytest.raises(TrustError, match=words):
        attempt(mesh)


def test_a_token_lets_its_host_be_the_services_it_names_and_no_other(mesh: Any) -> None:
    credential = admit(mesh, ask(mesh.token(services=["default/cart", "shop/*"])))
    assert credential.allows("default", "cart")
    assert credential.allows("shop", "anything")
    for namespace, name in (("default", "carts"), ("default", "bank"), ("shops", "anything")):
        assert not credential.allows(namespace, name)


def test_the_host_that_used_a_token_may_ask_again_when_the_answer_was_lost(mesh: Any) -> None:
    token = mesh.token(uses=1)
    assert admit(mesh, ask(token)).node == admit(mesh, ask(token)).node
    with pytest.raises(TokenError):
        admit(mesh, ask(token, 2))
