"""Cryptography that costs what the real one costs in virtual time and next to nothing in real time.

A world of thousands spends most of its time on Ed25519 and AES-GCM, which say nothing about membership. Here a
signature is 64 bytes of BLAKE2b keyed by the *public* key: anybody could make one, but no simulated node tries to, and
a signature over other bytes or of another node still fails to verify. A sealed body is the body and the receiver's id
in the place of the tag. Sizes on the wire are those of the real thing, so bytes per second and packing are too.

`Costs` is what each operation takes on the modelled processor. It is charged to the host that does it: the host is busy
for so long, what it sends leaves that much later, and what arrives meanwhile waits (simulations/loop.py).

Invariant: the same bytes are accepted and refused as with the real thing, as long as nobody forges.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag

from gossip.wire import TAG_BYTES
from trust.credential import CREDENTIAL_TTL_S_MAX, Credential
from trust.errors import CredentialError
from trust.identity import KEY_BYTES, SIGNATURE_BYTES, node_id
from trust.roots import Root, newest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of processor time on the modelled host: measured on a 2-core server (PyNaCl, cryptography 44). Keys for
    datagrams are taken to be at hand."""

    input_s: float = 30e-6  # one step of the node
    sign_s: float = 23e-6
    verify_s: float = 52e-6
    seal_s: float = 2e-6
    open_s: float = 2e-6
    handshake_s: float = 1.2e-3  # one side of a mutual TLS handshake


FREE: Final = Costs(input_s=0.0, sign_s=0.0, verify_s=0.0, seal_s=0.0, open_s=0.0, handshake_s=0.0)


class Meter:
    """Adds up what the step under way costs. One for the whole world, since one node steps at a time."""

    __slots__ = ("s",)

    def __init__(self) -> None:
        self.s = 0.0


def _sign(public_key: bytes, message: bytes) -> bytes:
    return blake2b(message, key=public_key, digest_size=SIGNATURE_BYTES).digest()


class Named(Protocol):
    """What a key ring asks of an identity."""

    @property
    def id(self) -> bytes: ...


class ModelIdentity:
    """Stands in for `trust.identity.NodeIdentity`."""

    __slots__ = ("_costs", "_meter", "agreement_key", "id", "public_key")

    def __init__(self, seed: bytes, costs: Costs, meter: Meter) -> None:
        self.public_key = blake2b(seed, digest_size=KEY_BYTES, person=b"model/signing").digest()
        self.agreement_key = blake2b(seed, digest_size=KEY_BYTES, person=b"model/agreement").digest()
        self.id = node_id(self.public_key)
        self._costs, self._meter = costs, meter

    def sign(self, message: bytes) -> bytes:
        self._meter.s += self._costs.sign_s
        return _sign(self.public_key, message)

    def agree(self, peer_agreement_key: bytes) -> bytes:
        """The same secret on both sides, as with X25519."""
        low, high = sorted((self.agreement_key, peer_agreement_key))
        return blake2b(low + high, digest_size=KEY_BYTES).digest()


class ModelCipher:
    """Seals by adding the receiver's id as the tag: what strays to another node does not open there."""

    __slots__ = ("_costs", "_meter", "tag")

    def __init__(self, receiver: bytes, costs: Costs, meter: Meter) -> None:
        assert len(receiver) == TAG_BYTES, "a node id is as long as a tag"
        self.tag, self._costs, self._meter = receiver, costs, meter

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        self._meter.s += self._costs.seal_s
        return data + self.tag

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Raises InvalidTag."""
        self._meter.s += self._costs.open_s
        if not data.endswith(self.tag):
            raise InvalidTag
        return data[:-TAG_BYTES]


class ModelKeyRing:
    """Stands in for `gossip.wire.KeyRing`. What `sending` gives seals for that receiver until it is asked for another:
    one for each of thousands would take time to make, and more to look up."""

    __slots__ = ("_opens", "_seals")

    def __init__(self, own: bytes, costs: Costs, meter: Meter) -> None:
        self._opens = ModelCipher(own, costs, meter)
        self._seals = ModelCipher(own, costs, meter)

    def sending(self, receiver: bytes, agreement_key: bytes, boot: int) -> ModelCipher:
        seals = self._seals
        seals.tag = receiver
        return seals

    def receiving(self, sender: bytes, agreement_key: bytes, boot: int, *, keep: bool) -> ModelCipher:
        return self._opens

    def __len__(self) -> int:
        return 0


class ModelCrypto:
    """Stands in for `gossip.crypto.REAL`."""

    __slots__ = ("costs", "meter")

    def __init__(self, costs: Costs, meter: Meter) -> None:
        self.costs, self.meter = costs, meter

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        self.meter.s += self.costs.verify_s
        return len(public_key) == KEY_BYTES and _sign(public_key, message) == signature

    def verify_credential(
        self, credential: Credential, root_public: Root, trust_domain: str, now: float | None
    ) -> None:
        """Raises CredentialError."""
        self.meter.s += self.costs.verify_s
        if credential.trust_domain != trust_domain:
            raise CredentialError(f"the credential of {credential.name} is for another trust domain")
        if _sign(newest_of(root_public), credential.signing_bytes()) != credential.signature:
            raise CredentialError(f"the credential of {credential.name} is not signed by the root")
        if credential.expires_at - credential.issued_at > CREDENTIAL_TTL_S_MAX:
            raise CredentialError(f"the credential of {credential.name} is valid for too long")
        if now is not None and now >= credential.expires_at:
            raise CredentialError(f"the credential of {credential.name} has expired")

    def keyring(self, identity: Named, *, keys_max: int) -> ModelKeyRing:
        return ModelKeyRing(identity.id, self.costs, self.meter)
