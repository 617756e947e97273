"""The mesh root as something that signs, and the certificate that names it.

`Authority` is all that issuance may know of the root key: its public key and `sign`, which turns
bytes into a plain Ed25519 signature. Who holds the key, and in how many pieces (RFC 9591), stays behind it.
Issuance therefore comes in two halves everywhere: a *draft* (pure policy: what exactly is to be signed, derived
from the request alone, so that each of t signers can derive it for itself and compare) and the *assembly* of the
signature into it. `SoleAuthority` is the 1-of-1 case: the whole key on one node.

An X.509 certificate is drafted with a throw-away key and the last 64 bytes of its DER replaced: `Certificate ::=
SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue BIT STRING }` (RFC 5280, 4.1) ends in the signature, an
Ed25519 signature always has 64 bytes (RFC 8410), and the TBS bytes do not depend on who signs them.

Invariant: nothing outside an Authority sees a root secret, and nothing leaves `assemble` that does not verify.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NoReturn, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID
from nacl.signing import SigningKey

from trust.codec import UNIX_S_MAX
from trust.errors import AuthorityError, IdentityError, SvidError, span
from trust.identity import SEED_BYTES, SIGNATURE_BYTES, check_trust_domain, format_id, verify

CERTIFICATE_BYTES_MAX: Final = 4096
ROOT_TTL_S: Final = 10 * 365 * 86_400
BACKDATE_S: Final = 300  # hosts whose clock is a little slow accept what was issued just now

# What `cryptography` raises, mostly on access rather than on load, for a certificate that is hostile inside.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    CryptographyDeprecationWarning,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_ROOT_CRITICAL_KNOWN: Final = frozenset(
    {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.SUBJECT_ALTERNATIVE_NAME}
)
# BIT STRING of 65 octets, no unused bits: parsers also take others, and one certificate has one encoding.
_SIGNATURE_HEADER: Final = b"\x03\x41\x00"
# Shapes the DER; its signatures are always thrown away, so it is no secret.
_THROWAWAY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))


class Authority(Protocol):
    """The mesh root. 1-of-1 and t-of-n look alike."""

    @property
    def root_public(self) -> bytes:
        """The Ed25519 public key (32 bytes), whoever holds its shares."""

    @property
    def epoch(self) -> int:
        """Rises with each change of the signer set."""

    @property
    def threshold(self) -> int:
        """How many signers a signature takes."""

    @property
    def signers(self) -> tuple[bytes, ...]:
        """Node ids of all signers."""

    @property
    def can_sign(self) -> bool:
        """Whether `sign` is worth calling here and now."""

    def sign(self, message: bytes) -> bytes:
        """A plain Ed25519 signature (64 bytes) over `message` by the root. Raises AuthorityError."""


class SoleAuthority:
    """A root key held whole by one node: threshold 1 of 1. Neither `repr` nor pickling gives the key away."""

    __slots__ = ("_signing", "epoch", "root_public", "signers", "threshold")

    def __init__(self, signing: SigningKey, holder: bytes, epoch: int) -> None:
        self._signing = signing
        self.root_public: bytes = bytes(signing.verify_key)
        self.epoch: int = epoch
        self.threshold: int = 1
        self.signers: tuple[bytes, ...] = (holder,)

    @classmethod
    def from_seed(cls, seed: bytes, *, holder: bytes, epoch: int = 0) -> "SoleAuthority":
        """The authority that grows from 32 secret bytes; `holder` is the id of the node that keeps them."""
        if len(seed) != SEED_BYTES:
            raise AuthorityError(f"a root seed has {SEED_BYTES} bytes, not {len(seed)}")
        return cls(SigningKey(seed), holder, epoch)

    @property
    def can_sign(self) -> bool:
        return True

    def sign(self, message: bytes) -> bytes:
        """A plain Ed25519 signature (64 bytes)."""
        return self._signing.sign(message).signature

    def __repr__(self) -> str:
        return f"SoleAuthority(root={self.root_public.hex()}, holder={format_id(self.signers[0])}, epoch={self.epoch})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SoleAuthority is never pickled: it holds the root key")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateDraft:
    """A certificate that lacks only its signature. `tbs` is what the root signs."""

    tbs: bytes
    _shell: bytes  # the DER with the throw-away signature at its end

    def assemble(self, signature: bytes, root_public: bytes) -> bytes:
        """The DER with `signature`. Raises AuthorityError if that is not the root's signature of `tbs`."""
        if not verify(root_public, self.tbs, signature):
            raise AuthorityError(
                "the signature does not verify under the mesh root: the certificate is discarded"
            )
        return self._shell[:-SIGNATURE_BYTES] + signature


def draft(builder: x509.CertificateBuilder) -> CertificateDraft:
    """What the root has to sign to make `builder` a certificate."""
    shell = builder.sign(_THROWAWAY, None)
    return CertificateDraft(tbs=shell.tbs_certificate_bytes, _shell=shell.public_bytes(Encoding.DER))


def instant(unix_s: float) -> datetime:
    """Unix seconds as X.509 wants them; what lies beyond its calendar becomes the calendar's end."""
    return datetime.fromtimestamp(min(int(unix_s), UNIX_S_MAX), UTC)


def root_fingerprint(root_public: bytes) -> bytes:
    """SHA-256 of the root's public key: what a join token pins."""
    return hashlib.sha256(root_public).digest()


def draft_root(root_public: bytes, trust_domain: str, now: int, ttl_s: int = ROOT_TTL_S) -> CertificateDraft:
    """The root's own certificate: a CA that may issue leafs and nothing below them (path length 0), naming its
    trust domain as SPIFFE X.509-SVID, section 3.2 asks. Deterministic, so each signer can derive it."""
    check_trust_domain(trust_domain)
    public = Ed25519PublicKey.from_public_bytes(root_public)
    subject = root_name(trust_domain)
    serial = hashlib.sha256(b"gossamer/root-serial/1\0" + root_public + now.to_bytes(8, "big")).digest()[:16]
    return draft(
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(serial_number(serial))
        .not_valid_before(instant(now - BACKDATE_S))
        .not_valid_after(instant(now + ttl_s))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
            critical=False,
        )
    )


def root_certificate(authority: Authority, trust_domain: str, now: int, *, ttl_s: int = ROOT_TTL_S) -> bytes:
    """The self-signed root certificate (DER). Made once per mesh and kept. Raises AuthorityError."""
    root = draft_root(authority.root_public, trust_domain, now, ttl_s)
    return root.assemble(authority.sign(root.tbs), authority.root_public)


@lru_cache(maxsize=16)  # every order is judged by it, and there is one in a mesh
def read_root(der: bytes, trust_domain: str) -> bytes:
    """The public key of the root certificate `der` of `trust_domain`, once its shape and its own signature have
    been checked. Whether that key is to be trusted is for the caller to know. Raises SvidError."""
    certificate = load_certificate(der, "a root certificate")
    try:
        public = certificate.public_key()
        subject, issuer = certificate.subject, certificate.issuer
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except UNREADABLE:
        raise SvidError("this is not a root certificate: it does not state what a CA states") from None
    if not isinstance(public, Ed25519PublicKey):
        raise SvidError("this is not a root certificate of a mesh: its key is not Ed25519")
    if not constraints.value.ca or not usage.value.key_cert_sign:
        raise SvidError("this is not a root certificate: it may not sign certificates")
    if not constraints.critical or not usage.critical:
        raise SvidError("this is not a root certificate: what it may sign must be critical")
    if constraints.value.path_length != 0:
        raise SvidError("this is not a root certificate of a mesh: it must issue leafs and no authorities")
    for extension in extensions:
        if extension.critical and extension.oid not in _ROOT_CRITICAL_KNOWN:
            raise SvidError(
                f"the root certificate has an unknown critical extension {extension.oid.dotted_string}"
            )
    # SPIFFE X509-SVID, sections 2 and 3.2: one URI name, which is the trust domain's, without a path.
    if names != [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]:
        raise SvidError(
            f"this is not the root certificate of trust domain {trust_domain!r}: it names another"
        )
    if subject != root_name(trust_domain) or issuer != subject:
        raise SvidError(f"this is not the root certificate of trust domain {trust_domain!r}")
    root_public = public.public_bytes_raw()
    if not verify(root_public, certificate.tbs_certificate_bytes, certificate.signature):
        raise SvidError("the root certificate's own signature does not verify")
    return root_public


def check_root_validity(der: bytes, now: float) -> None:
    """Raise SvidError unless the root certificate is valid at `now` (Unix s). OpenSSL sees to that in handshakes."""
    certificate = load_certificate(der, "a root certificate")
    not_before = certificate.not_valid_before_utc.timestamp()
    not_after = certificate.not_valid_after_utc.timestamp()
    if now > not_after:
        raise SvidError(f"the root certificate expired {span(now - not_after)} ago")
    if now < not_before:
        raise SvidError(f"the root certificate is only valid in {span(not_before - now)}: a clock is wrong")


def root_since(der: bytes) -> float:
    """When (Unix s) the root's certificate was made, which is when its mesh was founded. Raises SvidError."""
    return load_certificate(der, "a root certificate").not_valid_before_utc.timestamp() + BACKDATE_S


def load_certificate(der: bytes, what: str) -> x509.Certificate:
    """Parse hostile DER: bounded, signed with Ed25519, with times there are, nothing behind it. Raises SvidError naming
    `what`."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise SvidError(f"{what} has {len(der)} bytes, at most {CERTIFICATE_BYTES_MAX} are allowed")
    try:
        with warnings.catch_warnings():
            # What the parser only warns about (a serial that is not positive) is no certificate of ours.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
        algorithm = certificate.signature_algorithm_oid
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc  # there is a year 0 in DER
    except UNREADABLE:
        raise SvidError(f"this is not {what}: the bytes do not decode") from None
    if algorithm != SignatureAlgorithmOID.ED25519 or der[-67:-64] != _SIGNATURE_HEADER:
        raise SvidError(f"{what} is not signed with Ed25519")
    return certificate


def root_name(trust_domain: str) -> x509.Name:
    """Subject of the root, issuer of every leaf."""
    try:
        check_trust_domain(trust_domain)
    except IdentityError as error:
        raise SvidError(str(error)) from None
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain),
            x509.NameAttribute(NameOID.COMMON_NAME, "Gossamer mesh root"),
        ]
    )


def serial_number(serial: bytes) -> int:
    """A positive certificate serial of at most 16 octets (RFC 5280, 4.1.2.2: never zero, top bit clear)."""
    return (int.from_bytes(serial, "big") & ((1 << 127) - 1)) or 1


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """A CA signs certificates and revocation lists; a leaf signs handshakes. Nothing else (SPIFFE, section 4.3)."""
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
