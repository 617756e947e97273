"""The cryptography an engine stands on, as a seam: signatures, credentials, and the ciphers of datagrams.

`REAL` is what every peer uses. A simulation of thousands of nodes in one process brings a stand-in of its own, which
takes no time but is charged for it on the virtual clock; nothing else of the engine differs there.

Invariant: an engine checks signatures and seals datagrams through its `Crypto` and in no other way.
"""

from typing import Final, Protocol

from gossip.wire import KeyRing, Keys
from trust.credential import Credential, verify_credential
from trust.identity import NodeIdentity, verify
from trust.roots import Root


class Crypto(Protocol):
    """What an engine needs."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` over `message` was made with the key of `public_key`."""
        ...

    def verify_credential(
        self, credential: Credential, root_public: Root, trust_domain: str, now: int | None
    ) -> None:
        """Raises TrustError unless the mesh root signed it for this trust domain and it is valid at `now`."""
        ...

    def keyring(self, identity: NodeIdentity, *, keys_max: int) -> Keys:
        """The datagram ciphers of one node."""
        ...


class RealCrypto:
    """Ed25519 (RFC 8032), X25519 (RFC 7748) and AES-256-GCM."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        return verify(public_key, message, signature)

    def verify_credential(
        self, credential: Credential, root_public: Root, trust_domain: str, now: int | None
    ) -> None:
        verify_credential(credential, root_public, trust_domain, now)

    def keyring(self, identity: NodeIdentity, *, keys_max: int) -> Keys:
        return KeyRing(identity, keys_max=keys_max)


REAL: Final = RealCrypto()
