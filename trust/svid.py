"""X.509-SVIDs: what a leaf may be, the key that belongs to it, and what a verifier insists on.

The rules are the SPIFFE X.509-SVID standard's (sections 2 to 5; `tests/trust/test_spiffe_rules.py` goes through them
one by one), tightened where this mesh issues nothing looser: exactly one subject alternative name and that a URI,
ECDSA P-256 keys (the curve every TLS stack and every proxy accepts), an Ed25519 issuer, digitalSignature, CA false, a
life of a day at most (an hour by default, backdated five minutes). The subject's common name is the printed id of
the node that asked, so a revoked node's workload certificates are known by sight. `cryptography.x509.verification`
refuses Ed25519 issuers, so the signature is checked here and paths are validated by OpenSSL in the handshake.

Invariant: `read_svid` accepts nothing whose signature by the root it has not checked itself.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from trust.authority import (
    BACKDATE_S,
    UNREADABLE,
    check_root_validity,
    load_certificate,
    root_name,
)
from trust.errors import IdentityError, RolloverError, SvidError, span
from trust.identity import (
    NodeSpiffe,
    SpiffeId,
    format_id,
    parse_id,
    parse_spiffe,
)
from trust.roots import Root, check_pinned, refusal, roots_from

SVID_TTL_S_MAX: Final = 86_400
RENEWAL_JITTER: Final = 0.1  # of the lifetime, to each side of its half

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_CRITICAL_KNOWN: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


# ------------------------------------------------------------------ keys and what belongs to them


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafKey:
    """A P-256 key pair for one leaf. `repr` never shows the private half."""

    private_pem: bytes  # PKCS #8
    public_der: bytes  # SubjectPublicKeyInfo

    def __repr__(self) -> str:
        return f"LeafKey(public=sha256:{hashlib.sha256(self.public_der).hexdigest()[:16]})"


def new_leaf_key(entropy: Callable[[int], bytes]) -> LeafKey:
    """A fresh key. 48 bytes are drawn and reduced: FIPS 186-5, A.2.1 (bias below 2^-128)."""
    scalar = int.from_bytes(entropy(48), "big") % (_P256_ORDER - 1) + 1
    private = ec.derive_private_key(scalar, ec.SECP256R1())
    return LeafKey(
        private_pem=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        public_der=private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Svid:
    """What a verified leaf says. Times are Unix seconds."""

    id: SpiffeId
    spiffe: str  # `id` as text
    node: bytes  # the node that asked for it and holds its key
    serial: bytes  # as in "serial:<hex>"
    not_before: int
    not_after: int
    public_der: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedSvid:
    """A leaf with its key, ready for TLS. `repr` never shows the key."""

    identity: str
    chain_pem: bytes
    key_pem: bytes
    not_before: int
    not_after: int

    def __repr__(self) -> str:
        return f"KeyedSvid({self.identity!r}, not_after={self.not_after})"


def keyed(der: bytes, key: LeafKey, *, root_public: Root, trust_domain: str, now: float) -> KeyedSvid:
    """The issued leaf together with the key it was asked for. Raises SvidError if the leaf is not valid or is for
    another key: an answer from the network is checked before it is used."""
    svid = verify_svid(der, root_public=root_public, trust_domain=trust_domain, now=now)
    if svid.public_der != key.public_der:
        raise SvidError(f"the certificate for {svid.spiffe} is for another key than the one asked for")
    return KeyedSvid(
        identity=svid.spiffe,
        chain_pem=certificate_pem(der),
        key_pem=key.private_pem,
        not_before=svid.not_before,
        not_after=svid.not_after,
    )


def certificate_pem(der: bytes) -> bytes:
    """DER of a certificate as PEM. Raises SvidError."""
    return load_certificate(der, "a certificate").public_bytes(Encoding.PEM)


def renew_at(not_before: float, not_after: float, rng: random.Random) -> float:
    """When to ask for the next one (Unix s): half-life, give or take, so that a mesh started at once does not renew
    at once for ever."""
    return not_before + (not_after - not_before) * (0.5 + rng.uniform(-RENEWAL_JITTER, RENEWAL_JITTER))


# ------------------------------------------------------------------ verifying


def read_svid(der: bytes, *, root_public: Root, trust_domain: str, now: float | None = None) -> Svid:
    """The leaf `der`, once all is checked that time cannot change: the root's signature and the rules in the
    head of this file; with `now` (Unix s) also that the root counts then. Raises SvidError."""
    certificate = load_certificate(der, "a certificate")
    if reason := refusal(root_public, certificate.tbs_certificate_bytes, certificate.signature, now):
        raise SvidError(f"the certificate {reason}")
    try:
        extensions = certificate.extensions
        issuer = certificate.issuer
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        holder = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        serial = certificate.serial_number
        validity = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        public = certificate.public_key()
    except x509.ExtensionNotFound:
        raise SvidError("the certificate is no SVID: it must state a SPIFFE ID and its key usage") from None
    except UNREADABLE:
        raise SvidError("the certificate is no SVID: parts of it do not decode") from None
    if issuer != root_name(trust_domain):
        raise SvidError(
            f"the certificate names another issuer than the root of trust domain {trust_domain!r}"
        )
    _check_extensions(extensions, usage)
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise SvidError(
            f"the certificate is no SVID: exactly one URI name is expected, it has {len(names)} names"
        )
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise SvidError("the certificate's key is not ECDSA P-256")
    if not 0 < serial < 1 << 127:
        raise SvidError("the certificate's serial number is not one this mesh issues")
    life_s = (validity[1] - validity[0]).total_seconds()
    if not 0 < life_s <= SVID_TTL_S_MAX + BACKDATE_S:
        raise SvidError(f"the certificate is for {life_s:.0f} s, which is no life this mesh issues")
    try:
        identity = parse_spiffe(names[0].value)
        node = parse_id(str(holder[0].value) if len(holder) == 1 else "")
    except IdentityError as error:
        raise SvidError(f"the certificate is no SVID: {error}") from None
    if identity.trust_domain != trust_domain:
        raise SvidError(
            f"the certificate is for {identity.uri}, which is not in trust domain {trust_domain!r}"
        )
    if isinstance(identity, NodeSpiffe) and identity.node != node:
        raise SvidError(f"the certificate for {identity.uri} was made out to another node, {format_id(node)}")
    return Svid(
        id=identity,
        spiffe=identity.uri,
        node=node,
        serial=serial.to_bytes(16, "big"),
        not_before=int(validity[0].timestamp()),
        not_after=int(validity[1].timestamp()),
        public_der=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


def verify_svid(der: bytes, *, root_public: Root, trust_domain: str, now: float) -> Svid:
    """`read_svid`, and valid at `now` (Unix s). Raises SvidError."""
    svid = read_svid(der, root_public=root_public, trust_domain=trust_domain, now=now)
    if now > svid.not_after:
        raise SvidError(f"the certificate for {svid.spiffe} expired {span(now - svid.not_after)} ago")
    if now < svid.not_before:
        raise SvidError(
            f"the certificate for {svid.spiffe} is only valid in {span(svid.not_before - now)}: a clock is wrong"
        )
    return svid


def verify_seed(
    leaf_der: bytes, root_der: bytes, *, fingerprint: bytes, trust_domain: str, now: float,
    rollovers: Sequence[bytes] = (), member: bool = False,
) -> Svid:  # fmt: skip
    """For a node that joins and has no anchor but the fingerprint in its token: the peer showed `leaf_der` in the
    TLS handshake and sent `root_der`, with the `rollovers` that followed on it, as its first frame. Returns the node
    that answered once the token's root is of that line and counts, and the leaf is a node's, signed by one that does.
    Nothing secret may be sent before. A `member` that was away knows an older root than it should. Raises SvidError."""
    try:
        roots = roots_from(root_der, rollovers, trust_domain)
    except RolloverError as error:
        raise SvidError(f"the peer tells no line of roots: {error}") from None
    check_pinned(roots, fingerprint, now, member=member)
    check_root_validity(roots.certificate(roots.newest), now)
    svid = verify_svid(leaf_der, root_public=roots, trust_domain=trust_domain, now=now)
    if not isinstance(svid.id, NodeSpiffe):
        raise SvidError(f"the peer answered as {svid.spiffe}: a node's certificate is expected")
    return svid


def _check_extensions(extensions: x509.Extensions, usage: x509.Extension[x509.KeyUsage]) -> None:
    for extension in extensions:
        value = extension.value
        if extension.critical and extension.oid not in _CRITICAL_KNOWN:
            raise SvidError(
                f"the certificate has an unknown critical extension {extension.oid.dotted_string}"
            )
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise SvidError("the certificate is no SVID: it is a CA")
        if isinstance(value, x509.ExtendedKeyUsage) and not (
            ExtendedKeyUsageOID.SERVER_AUTH in value and ExtendedKeyUsageOID.CLIENT_AUTH in value
        ):
            raise SvidError("the certificate is not for both client and server use")
    if not usage.critical:
        raise SvidError("the certificate is no SVID: its key usage must be critical")
    allowed = usage.value
    if not allowed.digital_signature or allowed.key_cert_sign or allowed.crl_sign:
        raise SvidError(
            "the certificate is no SVID: its key must be for digital signatures and for nothing a CA does"
        )
