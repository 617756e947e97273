"""What a verifier starts from: the anchors of a trust domain, and what it expects of a peer.

Invariant: the cache of a bundle holds what certificates say, never whether they are valid now.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trust.authority import read_root
from trust.errors import SvidError
from trust.identity import NodeSpiffe
from trust.svid import Svid, read_svid

PEERS_CACHED_MAX: Final = 4096  # parsed peer certificates per bundle, about 2 KiB each
ANCHORS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Expectation:
    """Who a peer has to be, when that is not one SPIFFE ID. `description` completes "…, expected <description>"."""

    description: str
    matches: Callable[[Svid], bool]


ANY_NODE: Final = Expectation("any node of the mesh", lambda svid: isinstance(svid.id, NodeSpiffe))
ANY_MEMBER: Final = Expectation("any identity of the mesh", lambda svid: True)


class TrustBundle:
    """The root certificates of a trust domain, and the peers read under them.

    The cache keeps what a certificate *says*, by SHA-256 of its DER; whether it is still valid and not revoked is
    asked anew in every handshake. Raises SvidError when an anchor is no root certificate of the domain.
    """

    __slots__ = ("_peers", "_roots", "anchors", "trust_domain")

    def __init__(self, trust_domain: str, anchors: Iterable[bytes]) -> None:
        self.trust_domain = trust_domain
        self.anchors = tuple(anchors)
        if not 0 < len(self.anchors) <= ANCHORS_MAX:
            raise SvidError(
                f"a trust bundle has 1 to {ANCHORS_MAX} root certificates, not {len(self.anchors)}"
            )
        self._roots = tuple(read_root(anchor, trust_domain) for anchor in self.anchors)
        self._peers: OrderedDict[bytes, Svid] = OrderedDict()

    @classmethod
    def from_pem(cls, trust_domain: str, pem: bytes) -> "TrustBundle":
        """The bundle whose certificates follow one another in `pem`. Raises SvidError."""
        try:
            certificates = x509.load_pem_x509_certificates(pem)
        except ValueError:
            raise SvidError("the trust bundle is not a sequence of PEM certificates") from None
        return cls(trust_domain, (certificate.public_bytes(Encoding.DER) for certificate in certificates))

    def read_peer(self, der: bytes) -> Svid:
        """What the leaf `der` says, once it holds under one of the roots. Raises SvidError."""
        digest = hashlib.sha256(der).digest()
        known = self._peers.get(digest)
        if known is not None:
            self._peers.move_to_end(digest)
            return known
        svid = self._read(der)
        self._peers[digest] = svid
        if len(self._peers) > PEERS_CACHED_MAX:
            self._peers.popitem(last=False)
        return svid

    def _read(self, der: bytes) -> Svid:
        refusal = SvidError("the certificate is not signed by the mesh root")
        for root_public in self._roots:
            try:
                return read_svid(der, root_public=root_public, trust_domain=self.trust_domain)
            except SvidError as error:
                refusal = error
        raise refusal

    def __repr__(self) -> str:
        return f"TrustBundle({self.trust_domain}, {len(self.anchors)} roots, {len(self._peers)} peers cached)"
