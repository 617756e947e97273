"""Streams between peers that have no mesh in common yet: who is at the other end, by `trust/bootstrap.py`.

    caller   -> "found" (or "kin")    purpose
    caller   -> greeting              its card and a nonce
    answerer -> greeting, then proof
    caller   -> proof                 or b"e" <reason>, and the end
    answerer -> b"k"                  or b"e" <reason>, and the end

The caller saw the answerer's certificate in the handshake, and both sign it. What is said after that is between the two
nodes that the cards name.

Invariant: `call` and `answer` return only when both ends have proved themselves.
"""

import datetime
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from gossip.events import Address
from peer.io.stream import ALPN, FOUND, FrameStream, StreamError, connect, greet
from trust.bootstrap import (
    NONCE_BYTES,
    PROOF_BYTES,
    BootstrapSecret,
    Card,
    Greeting,
    check_proof,
    decode_greeting,
    prove,
    transcript,
)
from trust.errors import BootstrapError
from trust.identity import NodeIdentity
from trust.svid import KeyedSvid, new_leaf_key
from trust.tls import PeerObject, client_context_unverified

KNOWN, REFUSED = b"k", b"e"
CERTIFICATE_S: Final = 86_400 * 365
_REASON_BYTES_MAX: Final = 400


class UnacquaintedError(Exception):
    """The other end does not belong to those who found this mesh, or did not prove it; the message says why."""


@dataclass(frozen=True, slots=True)
class Introducer:
    """This side: who it is, and what it knows. `card()` is of this moment."""

    identity: NodeIdentity
    card: Callable[[], Card]
    secret: BootstrapSecret | None

    async def call(self, address: Address, purpose: bytes = FOUND) -> tuple[FrameStream, Card]:
        """A stream to whoever is at `address`, with its card. Raises StreamError, UnacquaintedError."""
        stream = await connect(address, client_context_unverified(alpn=(ALPN,)))
        try:
            await greet(stream, purpose)
            return stream, await self._introduce(stream)
        except BaseException:
            stream.abort()
            raise

    async def answer(self, stream: FrameStream, certificate: bytes) -> Card:
        """Who calls. `certificate` (DER) is the one shown to it. Raises StreamError, UnacquaintedError."""
        caller = _read_greeting(await stream.read())
        mine = self._greeting()
        agreed = transcript(certificate, caller, mine)
        stream.write(mine.encode())
        stream.write(prove(self.identity, self.secret, "answerer", agreed))
        proof = await stream.read()
        try:
            _check(proof, caller.card, self.secret, "caller", agreed)
        except (UnacquaintedError, StreamError) as error:
            # Looked at only now, for a proof may begin with any byte.
            if proof[:1] == REFUSED and len(proof) <= _REASON_BYTES_MAX + 1:
                words = f"{caller.card.name} does not go on: {_words(proof)}"
                raise UnacquaintedError(words) from None
            stream.write(REFUSED + str(error).encode()[:_REASON_BYTES_MAX])
            await stream.flush()
            raise
        stream.write(KNOWN)
        return caller.card

    async def _introduce(self, stream: FrameStream) -> Card:
        connection = stream.ssl_object
        assert isinstance(connection, PeerObject), "made by client_context_unverified"
        mine = self._greeting()
        stream.write(mine.encode())
        theirs = _read_greeting(await stream.read())
        agreed = transcript(connection.peer_der, mine, theirs)
        try:
            _check(await stream.read(), theirs.card, self.secret, "answerer", agreed)
        except UnacquaintedError as error:
            stream.write(REFUSED + str(error).encode()[:_REASON_BYTES_MAX])
            await stream.flush()
            raise
        stream.write(prove(self.identity, self.secret, "caller", agreed))
        answer = await stream.read()
        if answer != KNOWN:
            reason = _words(answer) if answer[:1] == REFUSED else "it ended the stream"
            raise UnacquaintedError(f"{theirs.card.name} refuses this peer: {reason}")
        return theirs.card

    def _greeting(self) -> Greeting:
        return Greeting(card=self.card(), nonce=secrets.token_bytes(NONCE_BYTES))


def _check(proof: bytes, card: Card, secret: BootstrapSecret | None, role: str, agreed: bytes) -> None:
    if len(proof) > PROOF_BYTES:
        raise StreamError("a proof is too long")
    try:
        check_proof(proof, card, secret, role, agreed)
    except BootstrapError as error:
        raise UnacquaintedError(str(error)) from None


def _read_greeting(data: bytes) -> Greeting:
    try:
        return decode_greeting(data)
    except BootstrapError as error:
        raise StreamError(str(error)) from None


def _words(refusal: bytes) -> str:
    text = refusal[1 : _REASON_BYTES_MAX + 1].decode(errors="replace")
    return "".join(each if each.isprintable() else " " for each in text)


def passing_certificate(now: float) -> KeyedSvid:
    """A certificate that says nothing, for TLS between peers that have no root. Its key lives in memory only."""
    key = new_leaf_key(secrets.token_bytes)
    private = load_pem_private_key(key.private_pem, None)
    assert isinstance(private, EllipticCurvePrivateKey), "leaf keys are P-256"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a peer that founds a mesh")])
    begin = datetime.datetime.fromtimestamp(int(now) - CERTIFICATE_S, datetime.UTC)
    end = datetime.datetime.fromtimestamp(int(now) + CERTIFICATE_S, datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .sign(private, SHA256())
    )
    return KeyedSvid(
        identity="a peer that founds a mesh",
        chain_pem=certificate.public_bytes(Encoding.PEM),
        key_pem=key.private_pem,
        not_before=int(begin.timestamp()),
        not_after=int(end.timestamp()),
    )


def der_of(certificate: KeyedSvid) -> bytes:
    """The leaf as it is shown."""
    return x509.load_pem_x509_certificate(certificate.chain_pem).public_bytes(Encoding.DER)
