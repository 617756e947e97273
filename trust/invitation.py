"""Join tokens: what an operator carries from a member to a new host, as one line of text.

A token is an *invitation* and a *secret*. The invitation is signed by a member whose credential allows inviting: it
pins the root's fingerprint, lists seeds, and states what the newcomer may be granted, which is never more than the
issuer has. The secret is the seed of a one-time Ed25519 key whose public half stands in the invitation. The newcomer
sends the invitation and a signature by that key over its own new public key, never the secret: who relays or judges
the request learns nothing with which a second host could join.

    gsm1.<base64url( msgpack [ invitation, secret ] )>

Invariant: whatever is wrong with a token is said in a sentence, and no sentence contains the secret.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.signing import SigningKey

from trust.authority import root_fingerprint
from trust.codec import Field, Reader, pack, signed_bytes
from trust.credential import (
    CREDENTIAL_BYTES_MAX,
    PATTERN_CHARS_MAX,
    SERVICES_MAX,
    Credential,
    check_pattern,
    covers,
    decode_credential,
    verify_credential,
)
from trust.errors import CredentialError, IdentityError, TokenError, span
from trust.identity import KEY_BYTES, SIGNATURE_BYTES, NodeIdentity, verify
from trust.roots import Root, Roots, signer_of

PREFIX: Final = "gsm1."
SECRET_BYTES: Final = 16
TOKEN_ID_BYTES: Final = 16
INVITATION_BYTES_MAX: Final = 4096
TOKEN_CHARS_MAX: Final = 6000
USES_MAX: Final = 10_000
SEEDS_MAX: Final = 16
TOKEN_TTL_S: Final = 86_400

_FIELDS: Final = 10
_GOVERNING_HEAD: Final = bytes([0x90 | (_FIELDS + 1)])
_LABEL: Final = b"gossamer/invitation/1"
_KEY_LABEL: Final = b"gossamer/token-key/1"
_FINGERPRINT_BYTES: Final = 32
_SEED_CHARS_MAX: Final = 264


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """The public part of a token. Times are Unix seconds."""

    root_fingerprint: bytes
    seeds: tuple[tuple[str, int], ...]
    token_key: bytes  # public half of the one-time key
    services: tuple[str, ...]
    publish: bool
    invite: bool
    uses: int  # how many different nodes may join with it
    expires_at: int
    issuer: Credential
    govern: bool = False
    signature: bytes = b"\0" * SIGNATURE_BYTES

    @property
    def id(self) -> bytes:
        """Names the token without giving anything away."""
        return hashlib.sha256(self.token_key).digest()[:TOKEN_ID_BYTES]

    @property
    def trust_domain(self) -> str:
        return self.issuer.trust_domain

    def signing_bytes(self) -> bytes:
        """What the issuer signs."""
        return signed_bytes(_LABEL, self._fields())

    def encode(self) -> bytes:
        """The wire form."""
        return pack([*self._fields(), self.signature])

    def _fields(self) -> list[Field]:
        return [
            self.root_fingerprint,
            [_format_seed(seed) for seed in self.seeds],
            self.token_key,
            self.services,
            self.publish,
            self.invite,
            self.uses,
            self.expires_at,
            self.issuer.encode(),
            *([True] if self.govern else []),  # left out where it is not given, as before anybody governed
        ]

    def __repr__(self) -> str:
        return (
            f"Invitation({self.id.hex()[:8]} by {self.issuer.name}, services={','.join(self.services) or '-'}, "
            f"uses={self.uses}, expires_at={self.expires_at})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token in hand. `repr` never shows the secret; `text` is the secret."""

    invitation: Invitation
    secret: bytes = field(repr=False)

    @property
    def text(self) -> str:
        packed = pack([self.invitation.encode(), self.secret])
        return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @property
    def trust_domain(self) -> str:
        return self.invitation.trust_domain

    @property
    def seeds(self) -> tuple[tuple[str, int], ...]:
        return self.invitation.seeds

    @property
    def root_fingerprint(self) -> bytes:
        return self.invitation.root_fingerprint

    def prove(self, message: bytes) -> bytes:
        """A signature by the token's one-time key."""
        return _token_key(self.secret).sign(message).signature

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Token is never pickled: it holds a secret")


def create_token(
    identity: NodeIdentity, credential: Credential, *, root_public: Root, seeds: Sequence[tuple[str, int]],
    services: Sequence[str], now: float, entropy: Callable[[int], bytes],
    ttl_s: float = TOKEN_TTL_S, uses: int = 1, publish: bool = True, invite: bool = False, govern: bool = False,
) -> Token:  # fmt: skip
    """A new token of `identity`, who may invite. Raises TokenError when it would grant more than its issuer has,
    or outlive the issuer's own credential."""
    if credential.public_key != identity.public_key:
        raise TokenError(f"the credential of {credential.name} is not this node's own")
    if not seeds:
        raise TokenError("a token needs at least one seed address where the newcomer can join")
    if ttl_s < 1:
        raise TokenError(f"a token must be valid for at least a second, not {ttl_s}")
    if not 1 <= uses <= USES_MAX:
        raise TokenError(f"a token admits 1 to {USES_MAX} hosts, not {uses}")
    try:
        for pattern in services:
            check_pattern(pattern)
    except IdentityError as error:
        raise TokenError(str(error)) from None
    pinned = _vouching(credential, root_public, now + ttl_s)
    secret = entropy(SECRET_BYTES)
    invitation = Invitation(
        root_fingerprint=root_fingerprint(pinned),
        seeds=tuple(seeds),
        token_key=bytes(_token_key(secret).verify_key),
        services=tuple(services),
        publish=publish,
        invite=invite,
        uses=uses,
        expires_at=int(now + ttl_s),
        issuer=credential,
        govern=govern,
    )
    signed = replace(invitation, signature=identity.sign(invitation.signing_bytes()))
    decode_invitation(signed.encode())  # what others will not read is not handed out
    verify_invitation(signed, root_public, now)
    return Token(invitation=signed, secret=secret)


def parse_token(text: str) -> Token:
    """The token written as `text`, once it is known to be whole and unaltered. Raises TokenError. Whether the mesh
    will honour it, only a member can tell (`verify_invitation`)."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise TokenError(
            f"this is not a join token: it should begin with {PREFIX} (see `gossamer token create`)"
        )
    if len(text) > TOKEN_CHARS_MAX:
        raise TokenError(f"this is not a join token: it is longer than {TOKEN_CHARS_MAX} characters")
    body = text.removeprefix(PREFIX)
    try:
        packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenError("the join token is damaged: copy it again, whole") from None
    try:
        reader = Reader(packed, count=2, bytes_max=TOKEN_CHARS_MAX, what="a join token", error=TokenError)
        token = Token(
            invitation=decode_invitation(reader.blob(INVITATION_BYTES_MAX)), secret=reader.raw(SECRET_BYTES)
        )
    except TokenError:
        raise TokenError("the join token is damaged: copy it again, whole") from None
    if token.text != text:
        raise TokenError("the join token is damaged: copy it again, whole")
    invitation = token.invitation
    if bytes(_token_key(token.secret).verify_key) != invitation.token_key or not verify(
        invitation.issuer.public_key, invitation.signing_bytes(), invitation.signature
    ):
        raise TokenError("the join token has been altered: its signature does not match what it says")
    return token


def decode_invitation(data: bytes) -> Invitation:
    """Inverse of `Invitation.encode`. Raises TokenError. Nothing is verified."""
    governing = data[:1] == _GOVERNING_HEAD  # the length of the array tells which; Reader checks all of it
    reader = Reader(
        data,
        count=_FIELDS + governing,
        bytes_max=INVITATION_BYTES_MAX,
        what="an invitation",
        error=TokenError,
    )
    fingerprint = reader.raw(_FINGERPRINT_BYTES)
    seeds = tuple(_parse_seed(text) for text in reader.texts(SEEDS_MAX, _SEED_CHARS_MAX))
    token_key = reader.raw(KEY_BYTES)
    services = reader.texts(SERVICES_MAX, PATTERN_CHARS_MAX)
    try:
        for pattern in services:
            check_pattern(pattern)
        publish, invite = reader.flag(), reader.flag()
        uses, expires_at = reader.integer(USES_MAX), reader.integer()
        issuer = decode_credential(reader.blob(CREDENTIAL_BYTES_MAX))
        govern = reader.flag() if governing else False
    except (IdentityError, CredentialError) as error:
        raise TokenError(f"this is not an invitation: {error}") from None
    if uses < 1:
        raise TokenError("this is not an invitation: it could never be used")
    if govern != governing:
        raise TokenError("an invitation is not in its canonical encoding")
    return Invitation(
        root_fingerprint=fingerprint,
        seeds=seeds,
        token_key=token_key,
        services=services,
        publish=publish,
        invite=invite,
        uses=uses,
        expires_at=expires_at,
        issuer=issuer,
        govern=govern,
        signature=reader.raw(SIGNATURE_BYTES),
    )


def verify_invitation(invitation: Invitation, root_public: Root, now: float) -> None:
    """Raise TokenError unless a member entitled to do so issued it, for this mesh, and it is valid at `now`. That
    neither the issuer is revoked nor the uses are used up is judged when it is redeemed."""
    issuer = invitation.issuer
    _check_fingerprint(invitation.root_fingerprint, root_public, now)
    if now >= invitation.expires_at:
        raise TokenError(f"the join token expired {span(now - invitation.expires_at)} ago: ask for a new one")
    try:
        verify_credential(issuer, root_public, issuer.trust_domain, now)
    except CredentialError as error:
        raise TokenError(f"the join token is void, its issuer is not a member: {error}") from None
    if not verify(issuer.public_key, invitation.signing_bytes(), invitation.signature):
        raise TokenError("the join token has been altered: its signature does not match what it says")
    if not issuer.invite:
        raise TokenError(f"node {issuer.name} may not invite others")
    if invitation.expires_at > issuer.expires_at:
        raise TokenError(
            f"a token cannot outlive the credential of its issuer {issuer.name}, "
            f"which is valid for another {span(issuer.expires_at - now)}: ask for less"
        )
    for pattern in invitation.services:
        if not covers(issuer.services, pattern):
            raise TokenError(
                f"the join token grants {pattern}, which its issuer {issuer.name} does not have "
                f"({', '.join(issuer.services) or 'no service'})"
            )
    if invitation.publish and not issuer.publish:
        raise TokenError(f"the join token grants publishing, which its issuer {issuer.name} does not have")
    if invitation.govern and not issuer.govern:
        raise TokenError(f"the join token lets govern, which its issuer {issuer.name} does not do")
    if invitation.govern and not invitation.publish:
        raise TokenError("the join token lets govern and not publish: whoever governs publishes")


def verify_token(token: Token, root_public: Root, now: float) -> None:
    """`verify_invitation` for a token in hand. Raises TokenError."""
    verify_invitation(token.invitation, root_public, now)


def _vouching(credential: Credential, root: Root, until: float) -> bytes:
    """The root that a token names: the one that signed its issuer's credential. Raises TokenError if that root does not
    count for as long as the token is to."""
    if isinstance(root, bytes):
        return root
    public = signer_of(root, credential.signing_bytes(), credential.signature)
    ends_at = root.ends_at(public)
    if ends_at is not None and ends_at < until:
        raise TokenError(
            f"the token would be valid for {span(until - ends_at)} longer than the root that signed the credential of "
            f"{credential.name}: ask for less, or again when that has been renewed"
        )
    return public


def _check_fingerprint(fingerprint: bytes, root: Root, now: float) -> None:
    pinned = root.by_fingerprint(fingerprint) if isinstance(root, Roots) else root
    if pinned is None or root_fingerprint(pinned) != fingerprint:
        raise TokenError("the join token is for another mesh: its root fingerprint is not this mesh's")
    if isinstance(root, Roots) and (reason := root.why_not(pinned, now)):
        raise TokenError(f"the join token {reason}: ask for a new one")


def _token_key(secret: bytes) -> SigningKey:
    return SigningKey(HKDF(SHA256(), 32, salt=None, info=_KEY_LABEL).derive(secret))


def _format_seed(seed: tuple[str, int]) -> str:
    return f"{seed[0]}:{seed[1]}"


def _parse_seed(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not host.isascii() or not host.isprintable() or " " in host:
        raise TokenError("this is not an invitation: a seed has no host")
    if not (
        port.isascii()
        and port.isdigit()
        and len(port) <= 5
        and str(int(port)) == port
        and 0 < int(port) < 65_536
    ):
        raise TokenError("this is not an invitation: a seed has no port")
    return host, int(port)
