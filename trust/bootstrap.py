"""How peers that have no mesh yet find out whom they deal with: the bootstrap secret, cards, and proofs.

Peers that found a mesh together have neither root nor certificates. Their streams are TLS to *whoever answers*, and the
two ends then prove themselves inside, in both directions:

- by the Ed25519 key that becomes the node's: a signature over the transcript. The transcript names the certificate that
  the caller saw (as tls-server-end-point does, RFC 5929), so that who sits between two peers has a proof for the
  wrong stream;
- where the operator gave all of them the same secret, by an HMAC over the same transcript, which a peer that does not
  know the secret cannot make. Without a secret a peer is believed on first use, and people compare the fingerprint of
  what was founded.

A bootstrap token is that secret as text, `gsb1.…`: 32 random bytes, so that nobody who listens can guess it, the moment
at which it ends, and four bytes of their hash, so that a copying mistake is told from a wrong secret. It can be made
anywhere. The moment is part of what is proved: the same bytes with another end are another secret. Tokens of before
have no end of their own (36 bytes); members of a mesh that runs stop honouring either some time after its founding
(`peer/readmission.py`).

Invariant: a proof holds for one role, one secret, two nonces and one certificate; no error contains the secret.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trust.codec import UNIX_S_MAX, Field, Reader, pack, signed_bytes
from trust.errors import BootstrapError, IdentityError, span
from trust.identity import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    TRUST_DOMAIN_CHARS_MAX,
    NodeIdentity,
    check_node_name,
    check_trust_domain,
    node_id,
    verify,
)

BOOTSTRAP_PREFIX: Final = "gsb1."
SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = SIGNATURE_BYTES + 32
CARD_BYTES_MAX: Final = 512
EXPECT_MAX: Final = 16  # as many as a group has signers

_CHECK_BYTES: Final = 4
_END_BYTES: Final = 5  # until the year 36,812
_CHECK: Final = b"gossamer/bootstrap-check/1\0"
_KEY: Final = b"gossamer/bootstrap-key/1"
_CARD: Final = b"gossamer/founder-card/1"
_PROOF: Final = b"gossamer/founder-proof/1"
_TRANSCRIPT: Final = b"gossamer/founder-transcript/1"
_HOST_CHARS_MAX: Final = 64
_NAME_CHARS_MAX: Final = 63


@dataclass(frozen=True, slots=True)
class BootstrapSecret:
    """What all founders were given. `repr` does not show it; `text` is the token."""

    secret: bytes = field(repr=False)
    expires_at: int = 0  # Unix s; 0 for none of its own

    @property
    def text(self) -> str:
        data = self.secret + self._end()
        return BOOTSTRAP_PREFIX + base64.urlsafe_b64encode(data + _check(data)).decode().rstrip("=")

    def check(self, now: float) -> None:
        """Raise BootstrapError if it has ended at `now` (Unix s)."""
        if self.expires_at and now >= self.expires_at:
            raise BootstrapError(
                f"the bootstrap token ended {span(now - self.expires_at)} ago: make another one for all founders "
                "(gossamer token create --bootstrap), or join the mesh with a token of a member if it runs already"
            )

    def _end(self) -> bytes:
        return self.expires_at.to_bytes(_END_BYTES, "big") if self.expires_at else b""

    def mac(self, role: str, transcript: bytes) -> bytes:
        """32 bytes that only who knows the secret can make."""
        key = HKDF(SHA256(), 32, salt=None, info=_KEY + self._end()).derive(self.secret)
        return hmac.digest(key, role.encode() + b"\0" + transcript, "sha256")


def new_bootstrap_secret(entropy: Callable[[int], bytes], expires_at: int) -> BootstrapSecret:
    """A fresh one, good until `expires_at` (Unix s)."""
    assert 0 < expires_at <= UNIX_S_MAX, "a moment"
    return BootstrapSecret(entropy(SECRET_BYTES), expires_at)


def parse_bootstrap(text: str) -> BootstrapSecret:
    """Inverse of `BootstrapSecret.text`. Raises BootstrapError."""
    body = text.strip()
    if not body.startswith(BOOTSTRAP_PREFIX):
        raise BootstrapError(
            f"this is not a bootstrap token: it should begin with {BOOTSTRAP_PREFIX} "
            "(see `gossamer token create --bootstrap`)"
        )
    body = body.removeprefix(BOOTSTRAP_PREFIX)
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    end = data[SECRET_BYTES:-_CHECK_BYTES]
    secret = BootstrapSecret(data[:SECRET_BYTES], int.from_bytes(end, "big"))
    if len(data) < SECRET_BYTES + _CHECK_BYTES or len(end) > _END_BYTES or secret.text != text.strip():
        raise BootstrapError("the bootstrap token is damaged: copy it again, whole")
    return secret


def _check(secret: bytes) -> bytes:
    return hashlib.sha256(_CHECK + secret).digest()[:_CHECK_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a peer says of itself before there is a mesh, signed. `expect` is how many found the mesh, 0 if this one is
    a member of a running mesh; `started_at` (Unix s) is of its first start."""

    public_key: bytes
    name: str
    host: str
    port: int
    trust_domain: str
    expect: int
    threshold: int
    started_at: int
    signature: bytes = field(default=b"\0" * SIGNATURE_BYTES, repr=False)

    @property
    def node(self) -> bytes:
        """The node's id."""
        return node_id(self.public_key)

    @property
    def address(self) -> tuple[str, int]:
        """Where it can be reached."""
        return self.host, self.port

    def signed(self, identity: NodeIdentity) -> "Card":
        """This card with its holder's signature."""
        return replace(self, signature=identity.sign(signed_bytes(_CARD, self._fields())))

    def encode(self) -> bytes:
        """The wire form."""
        return pack([*self._fields(), self.signature])

    def _fields(self) -> list[Field]:
        return [
            self.public_key, self.name, self.host, self.port, self.trust_domain, self.expect, self.threshold,
            self.started_at,
        ]  # fmt: skip


def decode_card(data: bytes) -> Card:
    """Inverse of `Card.encode`, with its signature checked. Raises BootstrapError."""
    reader = Reader(data, count=9, bytes_max=CARD_BYTES_MAX, what="a founder's card", error=BootstrapError)
    card = Card(
        public_key=reader.raw(KEY_BYTES),
        name=reader.text(_NAME_CHARS_MAX),
        host=reader.text(_HOST_CHARS_MAX),
        port=reader.integer(65_535),
        trust_domain=reader.text(TRUST_DOMAIN_CHARS_MAX),
        expect=reader.integer(EXPECT_MAX),
        threshold=reader.integer(EXPECT_MAX),
        started_at=reader.integer(),
        signature=reader.raw(SIGNATURE_BYTES),
    )
    try:
        check_node_name(card.name)
        check_trust_domain(card.trust_domain)
    except IdentityError as error:
        raise BootstrapError(f"this is not a founder's card: {error}") from None
    if not verify(card.public_key, signed_bytes(_CARD, card._fields()), card.signature):
        raise BootstrapError("a founder's card is not signed by its holder")
    return card


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The first word of each side: its card and a nonce."""

    card: Card
    nonce: bytes

    def encode(self) -> bytes:
        """The wire form."""
        return pack([self.card.encode(), self.nonce])


def decode_greeting(data: bytes) -> Greeting:
    """Inverse of `Greeting.encode`. Raises BootstrapError."""
    reader = Reader(
        data, count=2, bytes_max=CARD_BYTES_MAX + 64, what="a founder's greeting", error=BootstrapError
    )
    return Greeting(card=decode_card(reader.blob(CARD_BYTES_MAX)), nonce=reader.raw(NONCE_BYTES))


def transcript(certificate: bytes, caller: Greeting, answerer: Greeting) -> bytes:
    """What both prove: the stream (by the answerer's certificate, DER) and who is at its ends."""
    parts: list[Field] = [hashlib.sha256(certificate).digest(), caller.encode(), answerer.encode()]
    return hashlib.sha256(signed_bytes(_TRANSCRIPT, parts)).digest()


def prove(identity: NodeIdentity, secret: BootstrapSecret | None, role: str, agreed: bytes) -> bytes:
    """This side's proof. `role` is "caller" or "answerer"."""
    signature = identity.sign(signed_bytes(_PROOF, [role, agreed]))
    return signature + (b"" if secret is None else secret.mac(role, agreed))


def check_proof(proof: bytes, card: Card, secret: BootstrapSecret | None, role: str, agreed: bytes) -> None:
    """Raise BootstrapError unless `proof` is the one that the holder of `card` makes, knowing `secret`."""
    signature, mac = proof[:SIGNATURE_BYTES], proof[SIGNATURE_BYTES:]
    if not verify(card.public_key, signed_bytes(_PROOF, [role, agreed]), signature):
        raise BootstrapError(
            f"{card.name} did not prove that it is at the other end of this stream: somebody is in between"
        )
    if secret is None and mac:
        raise BootstrapError(f"{card.name} was given a bootstrap secret, and this peer was not")
    if secret is not None and not mac:
        raise BootstrapError(f"{card.name} was not given the bootstrap secret that this peer has")
    if secret is not None and not hmac.compare_digest(mac, secret.mac(role, agreed)):
        raise BootstrapError(f"{card.name} was given another bootstrap secret than this peer")
