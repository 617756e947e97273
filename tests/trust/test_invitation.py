"""Join tokens: what they grant, how they fail, and that they keep their secret."""

import base64
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.authority import root_fingerprint
from trust.credential import CREDENTIAL_TTL_S
from trust.errors import TokenError
from trust.invitation import PREFIX, Token, decode_invitation, parse_token, verify_token

NOW = 1_800_000_000


def resigned(token: Token, issuer, /, **changes: object) -> Token:
    """What an issuer could make who does not go through `create_token`."""
    invitation = replace(token.invitation, **changes)
    return replace(
        token, invitation=replace(invitation, signature=issuer.identity.sign(invitation.signing_bytes()))
    )


def test_reads_back_as_it_was_written(mesh) -> None:
    seeds = [("127.0.0.1", 7946), ("::1", 7946), ("seed.example.org", 1)]
    token = mesh.token(seeds=seeds, services=["shop/*"], uses=3, publish=False)
    again = parse_token(f"  {token.text}\n")
    assert again == token
    assert again.seeds == tuple(seeds)
    assert again.trust_domain == "cluster.local"
    assert again.root_fingerprint == root_fingerprint(mesh.root_public)
    verify_token(again, mesh.root_public, NOW)


def test_is_one_line_that_can_be_pasted(mesh) -> None:
    text = mesh.token().text
    assert text.startswith(PREFIX)
    assert len(text) < 700
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_keeps_its_secret(mesh) -> None:
    token = mesh.token()
    shown = [repr(token), str(token), repr(token.invitation), f"{[token]}"]
    for secret in (
        repr(token.secret),
        token.secret.hex(),
        base64.urlsafe_b64encode(token.secret).decode()[:20],
    ):
        assert all(secret not in text for text in shown)
    assert token.secret not in token.invitation.encode()
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(token)


def test_expires_and_says_when(mesh) -> None:
    token = mesh.token(ttl_s=3600)
    verify_token(token, mesh.root_public, NOW + 3599)
    with pytest.raises(TokenError, match="the join token expired 2 hours ago: ask for a new one"):
        verify_token(token, mesh.root_public, NOW + 3 * 3600)


@pytest.mark.parametrize("text", ["", "hello", "gsm2.abc", "GSM1.abc", "gsm1"])
def test_what_is_no_token_is_called_so(text: str) -> None:
    with pytest.raises(TokenError, match=r"not a join token: it should begin with gsm1\."):
        parse_token(text)


def test_a_damaged_token_is_called_so(mesh) -> None:
    text = mesh.token().text
    for damaged in (
        text[:-1],
        text[:-40],
        text + "A",
        text + "=",
        PREFIX,
        PREFIX + "!!",
        text.replace(text[60], "*", 1),
    ):
        with pytest.raises(TokenError, match="damaged: copy it again"):
            parse_token(damaged)
    with pytest.raises(TokenError, match="longer than"):
        parse_token(PREFIX + "A" * 10_000)


def test_any_altered_character_is_noticed_before_anything_is_contacted(mesh) -> None:
    text = mesh.token().text
    for position in range(len(text)):
        altered = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        with pytest.raises(TokenError):
            parse_token(altered)


def test_a_token_with_another_secret_is_altered(mesh) -> None:
    forged = replace(mesh.token(), secret=bytes(16))
    with pytest.raises(TokenError, match="altered: its signature does not match"):
        parse_token(forged.text)


def test_a_forged_token_is_refused(mesh) -> None:
    token, outsider = mesh.token(), mesh.join("beta")
    forged = resigned(token, outsider, expires_at=token.invitation.expires_at + 1)
    with pytest.raises(TokenError, match="altered"):
        parse_token(forged.text)
    with pytest.raises(TokenError, match="altered"):
        verify_token(forged, mesh.root_public, NOW)


def test_a_token_of_another_mesh_is_refused(mesh, make_mesh) -> None:
    other = make_mesh(seed=6)
    with pytest.raises(TokenError, match="for another mesh"):
        verify_token(other.token(), mesh.root_public, NOW)
    pretending = resigned(other.token(), other.founder, root_fingerprint=root_fingerprint(mesh.root_public))
    with pytest.raises(TokenError, match=r"its issuer is not a member: .* not signed by the root"):
        verify_token(pretending, mesh.root_public, NOW)


def test_only_who_may_invite_can_issue_one(mesh) -> None:
    guest = mesh.join("beta", invite=False)
    with pytest.raises(TokenError, match="node beta may not invite others"):
        mesh.token(guest)
    bare = resigned(mesh.token(), guest, issuer=guest.credential)
    with pytest.raises(TokenError, match="node beta may not invite others"):
        verify_token(bare, mesh.root_public, NOW)
    mesh.token(mesh.join("gamma", invite=True))


def test_a_token_only_ever_narrows(mesh) -> None:
    deputy = mesh.join("beta", services=["shop/*", "web/front"], publish=False, invite=True)
    narrow = mesh.token(deputy, services=["shop/cart", "web/front"], publish=False)
    verify_token(narrow, mesh.root_public, NOW)
    for services in (["*/*"], ["bank/vault"], ["shop/cart", "web/*"], ["sho*/cart"]):
        with pytest.raises(TokenError, match="which its issuer beta does not have"):
            mesh.token(deputy, services=services, publish=False)
        wide = resigned(narrow, deputy, services=tuple(services))
        with pytest.raises(TokenError, match="which its issuer beta does not have"):
            verify_token(wide, mesh.root_public, NOW)
    with pytest.raises(TokenError, match="grants publishing, which its issuer beta does not have"):
        mesh.token(deputy, services=["shop/cart"], publish=True)


def test_only_who_governs_lets_others_govern(mesh) -> None:
    deputy = mesh.join("beta", invite=True)
    second = mesh.join("gamma", invite=True, govern=True)
    assert (deputy.credential.govern, second.credential.govern) == (False, True)
    verify_token(mesh.token(second, govern=True), mesh.root_public, NOW)
    with pytest.raises(TokenError, match="lets govern, which its issuer beta does not do"):
        mesh.token(deputy, govern=True)
    wide = resigned(mesh.token(deputy), deputy, govern=True)
    with pytest.raises(TokenError, match="lets govern, which its issuer beta does not do"):
        verify_token(wide, mesh.root_public, NOW)
    with pytest.raises(TokenError, match="whoever governs publishes"):
        mesh.token(govern=True, publish=False)


def test_an_invitation_that_lets_nobody_govern_reads_as_ever(mesh) -> None:
    for govern, head in ((False, b"\x9a"), (True, b"\x9b")):
        invitation = mesh.token(govern=govern).invitation
        encoded = invitation.encode()
        assert encoded[:1] == head
        assert decode_invitation(encoded) == invitation
    at = encoded.rindex(b"\xc3\xc4\x40")  # the flag stands before the signature of 64 bytes
    with pytest.raises(TokenError, match="canonical"):
        decode_invitation(encoded[:at] + b"\xc2" + encoded[at + 1 :])


def test_a_token_cannot_outlive_its_issuer(mesh) -> None:
    with pytest.raises(
        TokenError, match=r"cannot outlive the credential of its issuer alpha, .* another 7 days"
    ):
        mesh.token(ttl_s=CREDENTIAL_TTL_S + 1)
    backdated = resigned(mesh.token(), mesh.founder, expires_at=NOW + 365 * 86_400)
    with pytest.raises(TokenError, match=r"its issuer is not a member: .* expired"):
        verify_token(backdated, mesh.root_public, NOW + 8 * 86_400)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [("host", 0)]}, "a seed has no port"),
        ({"seeds": [("host", 70_000)]}, "a seed has no port"),
        ({"seeds": [("", 7946)]}, "a seed has no host"),
        ({"seeds": [("two words", 7946)]}, "a seed has no host"),
        ({"services": ["shop"]}, "not a service pattern"),
        ({"uses": 0}, "admits 1 to 10000 hosts, not 0"),
        ({"uses": 10_001}, "admits 1 to 10000 hosts"),
        ({"ttl_s": 0}, "at least a second"),
    ],
)
def test_refuses_to_make_one_that_could_not_work(mesh, options: dict[str, object], reason: str) -> None:
    with pytest.raises(TokenError, match=reason):
        mesh.token(**options)


def test_a_node_issues_tokens_under_its_own_credential_only(mesh) -> None:
    other = mesh.join("beta", invite=True)
    other.credential = mesh.founder.credential
    with pytest.raises(TokenError, match="not this node's own"):
        mesh.token(other)


@given(st.binary(max_size=800))
def test_arbitrary_bytes_are_no_invitation(data: bytes) -> None:
    with pytest.raises(TokenError):
        decode_invitation(data)


@given(
    st.text(max_size=100) | st.binary(max_size=300).map(lambda data: base64.urlsafe_b64encode(data).decode())
)
def test_arbitrary_text_is_no_token(text: str) -> None:
    for candidate in (text, PREFIX + text):
        with pytest.raises(TokenError):
            parse_token(candidate)


@pytest.fixture(scope="module")
def a_token(shared_mesh) -> Token:
    return shared_mesh.token()


@given(position=st.integers(0, 5000), flip=st.integers(1, 255))
def test_an_altered_invitation_is_refused_or_unbelieved(
    shared_mesh, a_token: Token, position: int, flip: int
) -> None:
    data = bytearray(a_token.invitation.encode())
    data[position % len(data)] ^= flip
    with pytest.raises(TokenError):
        verify_token(
            replace(a_token, invitation=decode_invitation(bytes(data))), shared_mesh.root_public, NOW
        )
