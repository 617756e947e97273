"""Who a node is: an Ed25519 key, the id derived from it, and the SPIFFE IDs built on both.

A node is its key. The id is the first 16 bytes of SHA-256 of the Ed25519 public key (RFC 8032), printed in
lower-case base32 without padding (RFC 4648): 26 characters, usable as a DNS label. The X25519 key used for
datagrams (RFC 7748) comes from the same 32-byte seed through HKDF (RFC 5869) under its own label, so that no key
does two jobs and there is one secret to keep. SPIFFE IDs follow the SPIFFE-ID standard, sections 2.1 and 2.2,
with the two path shapes this mesh issues: `/node/<id>` and `/ns/<namespace>/sa/<account>`.

Invariant: texts have one form. `parse_id` and `parse_spiffe` accept exactly what `format_id` and `.uri` print.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from trust.errors import IdentityError

ID_BYTES: Final = 16
KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
# SPIFFE allows 255; X.520 names, in which the trust domain also appears, end at 64.
TRUST_DOMAIN_CHARS_MAX: Final = 63
SPIFFE_CHARS_MAX: Final = 2048

_ID_CHARS: Final = 26
_AGREEMENT_LABEL: Final = b"gossamer/agreement/1"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,63}")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123 label
_NODE_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_SUBDOMAIN_CHARS_MAX: Final = 63


def node_id(public_key: bytes) -> bytes:
    """The id of the node that holds `public_key` (Ed25519, 32 bytes)."""
    return hashlib.sha256(public_key).digest()[:ID_BYTES]


def format_id(node: bytes) -> str:
    """The printed form of a node id."""
    assert len(node) == ID_BYTES, "a node id is 16 bytes"
    return base64.b32encode(node).decode().rstrip("=").lower()


def parse_id(text: str) -> bytes:
    """Inverse of `format_id`. Raises IdentityError."""
    try:
        node = base64.b32decode(text.upper() + "======") if len(text) == _ID_CHARS else b""
    except (binascii.Error, ValueError):
        node = b""
    if len(node) != ID_BYTES or format_id(node) != text:  # one text per id: no capitals, no stray low bits
        raise IdentityError(f"{text[:64]!r} is not a node id: 26 characters a-z and 2-7 are expected")
    return node


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `message` is by `public_key` (Ed25519). Malformed input is False."""
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public_key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


class NodeIdentity:
    """A node's two key pairs. Neither `repr` nor pickling gives the secret away."""

    __slots__ = ("_agreement", "_signing", "agreement_key", "id", "public_key")

    def __init__(self, signing: SigningKey, agreement: X25519PrivateKey) -> None:
        self._signing = signing
        self._agreement = agreement
        self.public_key: bytes = bytes(signing.verify_key)
        self.agreement_key: bytes = agreement.public_key().public_bytes_raw()
        self.id: bytes = node_id(self.public_key)

    @classmethod
    def from_seed(cls, seed: bytes) -> "NodeIdentity":
        """The identity that grows from 32 secret bytes. Raises IdentityError."""
        if len(seed) != SEED_BYTES:
            raise IdentityError(f"a node seed has {SEED_BYTES} bytes, not {len(seed)}")
        agreement = HKDF(SHA256(), KEY_BYTES, salt=None, info=_AGREEMENT_LABEL).derive(seed)
        return cls(SigningKey(seed), X25519PrivateKey.from_private_bytes(agreement))

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature (64 bytes). The caller puts a label of its own in front (see codec)."""
        return self._signing.sign(message).signature

    def agree(self, peer_agreement_key: bytes) -> bytes:
        """The X25519 shared secret (32 bytes), to be fed to a KDF and never used as a key itself. Raises
        IdentityError on a key of small order (RFC 7748, 6.1: the all-zero secret)."""
        if len(peer_agreement_key) != KEY_BYTES:
            raise IdentityError(f"an agreement key has {KEY_BYTES} bytes, not {len(peer_agreement_key)}")
        try:
            return self._agreement.exchange(X25519PublicKey.from_public_bytes(peer_agreement_key))
        except ValueError:
            raise IdentityError("the peer's agreement key is of small order") from None

    def __repr__(self) -> str:
        return f"NodeIdentity({format_id(self.id)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a NodeIdentity is never pickled: it holds secrets")


@dataclass(frozen=True, slots=True)
class NodeSpiffe:
    """`spiffe://<trust domain>/node/<printed id>`"""

    trust_domain: str
    node: bytes

    @property
    def uri(self) -> str:
        return spiffe_node(self.trust_domain, self.node)


@dataclass(frozen=True, slots=True)
class WorkloadSpiffe:
    """`spiffe://<trust domain>/ns/<namespace>/sa/<account>`"""

    trust_domain: str
    namespace: str
    account: str

    @property
    def uri(self) -> str:
        return spiffe_workload(self.trust_domain, self.namespace, self.account)


SpiffeId: TypeAlias = NodeSpiffe | WorkloadSpiffe


def spiffe_node(trust_domain: str, node: bytes) -> str:
    """The SPIFFE ID of a node."""
    return f"spiffe://{trust_domain}/node/{format_id(node)}"


def spiffe_workload(trust_domain: str, namespace: str, account: str) -> str:
    """The SPIFFE ID of a workload. Names are the caller's to check (`check_label`, `check_account`)."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}"


def parse_spiffe(uri: str) -> SpiffeId:
    """The node or workload that `uri` names. Raises IdentityError for anything else, also for SPIFFE IDs that
    are well-formed but of no shape this mesh issues."""
    if len(uri) > SPIFFE_CHARS_MAX:
        raise IdentityError(f"a SPIFFE ID has at most {SPIFFE_CHARS_MAX} characters, not {len(uri)}")
    scheme, _, rest = uri.partition("://")
    trust_domain, *path = rest.split("/")
    if scheme != "spiffe" or not _TRUST_DOMAIN.fullmatch(trust_domain):
        raise IdentityError(f"{uri[:128]!r} is not a SPIFFE ID: spiffe://<trust domain>/<path> is expected")
    match path:
        case ["node", node]:
            return NodeSpiffe(trust_domain, parse_id(node))
        case ["ns", namespace, "sa", account]:
            return WorkloadSpiffe(trust_domain, check_label(namespace), check_account(account))
        case _:
            raise IdentityError(
                f"{uri[:128]!r} names neither a node (/node/<id>) nor a workload (/ns/<namespace>/sa/<account>)"
            )


def check_trust_domain(text: str) -> str:
    """`text` itself if it can be a trust domain. Raises IdentityError."""
    if not _TRUST_DOMAIN.fullmatch(text):
        raise IdentityError(
            f"{text[:64]!r} cannot be a trust domain: 1 to {TRUST_DOMAIN_CHARS_MAX} of a-z 0-9 . _ - are expected"
        )
    return text


def check_node_name(text: str) -> str:
    """`text` itself if it can be a node's name: what hosts are called, so dots, capitals and underscores too. A name
    is a label for people and proves nothing. Raises IdentityError."""
    if not _NODE_NAME.fullmatch(text):
        raise IdentityError(
            f"{text[:64]!r} is not a node's name: 1 to 63 letters, digits, '.', '_' or '-' are expected, and a "
            "letter or digit at both ends"
        )
    return text


def check_label(text: str) -> str:
    """`text` itself if it is an RFC 1123 label, as namespaces and services are. Raises IdentityError."""
    if not _LABEL.fullmatch(text):
        raise IdentityError(
            f"{text[:64]!r} is not a name: 1 to 63 of a-z 0-9 - are expected, no - at the ends"
        )
    return text


def check_account(text: str) -> str:
    """`text` itself if it can be an account: RFC 1123 labels joined by dots, as in Kubernetes, at most 63
    characters. Raises IdentityError."""
    if len(text) > _SUBDOMAIN_CHARS_MAX:
        raise IdentityError(f"an account has at most {_SUBDOMAIN_CHARS_MAX} characters, not {len(text)}")
    for label in text.split("."):
        check_label(label)
    return text
