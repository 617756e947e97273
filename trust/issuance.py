"""Issuing X.509-SVIDs: the request a node makes and the policy that answers it.

A request is signed by the node's Ed25519 key over everything in it and carries the node's credential, so whoever
judges it needs nothing but the mesh root. Possession of the leaf key is not proven here: TLS 1.3 proves it in
each handshake, with the certificate inside the signed transcript.

Invariant: `draft_svid` is a pure function of its arguments and holds the whole issuance policy; each signer of a
threshold authority runs it for itself before it signs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trust.authority import (
    BACKDATE_S,
    Authority,
    CertificateDraft,
    draft,
    instant,
    key_usage,
    load_certificate,
    read_root,
    root_name,
    serial_number,
)
from trust.codec import Field, Reader
from trust.credential import (
    CREDENTIAL_BYTES_MAX,
    Credential,
    decode_credential,
    verify_credential,
)
from trust.errors import IdentityError, SvidError, span
from trust.identity import (
    SIGNATURE_BYTES,
    SPIFFE_CHARS_MAX,
    NodeIdentity,
    NodeSpiffe,
    SpiffeId,
    WorkloadSpiffe,
    format_id,
    parse_spiffe,
    verify,
)
from trust.revocation import RevocationSet
from trust.roots import Root
from trust.selfproving import SelfProving, check_moment
from trust.svid import SVID_TTL_S_MAX, LeafKey

SVID_TTL_S: Final = 3600
SVID_REQUEST_BYTES_MAX: Final = 4096
PUBLIC_KEY_BYTES_MAX: Final = 128  # a P-256 SubjectPublicKeyInfo has 91


# ------------------------------------------------------------------ requests


@dataclass(frozen=True, slots=True, kw_only=True)
class SvidRequest(SelfProving):
    """A node asks for a leaf for itself or for an account it may act as."""

    LABEL: ClassVar[bytes] = b"gossamer/svid-request/1"

    spiffe_id: str
    public_key_der: bytes
    credential: bytes  # encoded
    requested_at: int

    def _fields(self) -> list[Field]:
        return [self.spiffe_id, self.public_key_der, self.credential, self.requested_at]


def request_svid(
    identity: NodeIdentity, credential: Credential, spiffe_id: str, key: LeafKey, now: float
) -> SvidRequest:
    """A signed request."""
    return SvidRequest(
        spiffe_id=spiffe_id,
        public_key_der=key.public_der,
        credential=credential.encode(),
        requested_at=int(now),
    ).signed(identity)


def decode_svid_request(data: bytes) -> SvidRequest:
    """Inverse of `SvidRequest.encode`. Raises SvidError. Nothing is verified."""
    reader = Reader(
        data, count=5, bytes_max=SVID_REQUEST_BYTES_MAX, what="a certificate request", error=SvidError
    )
    return SvidRequest(
        spiffe_id=reader.text(SPIFFE_CHARS_MAX),
        public_key_der=reader.blob(PUBLIC_KEY_BYTES_MAX),
        credential=reader.blob(CREDENTIAL_BYTES_MAX),
        requested_at=reader.integer(),
        signature=reader.raw(SIGNATURE_BYTES),
    )


# ------------------------------------------------------------------ issuing


def draft_svid(
    request: SvidRequest, root_der: bytes, *, trust_domain: str, now: int, serial: bytes, revoked: RevocationSet,
    ttl_s: int = SVID_TTL_S, accepted: Root | None = None,
) -> CertificateDraft:  # fmt: skip
    """Apply the issuance policy; what is left to do is that the root of `root_der` signs `.tbs`. `accepted` are the
    roots whose credentials count, if they are others. Raises SvidError, CredentialError or RevokedError with the
    reason."""
    root_public = read_root(root_der, trust_domain)
    credential = decode_credential(request.credential)
    verify_credential(credential, accepted or root_public, trust_domain, now)
    if not verify(credential.public_key, request.signing_bytes(), request.signature):
        raise SvidError(f"the request is not signed by the key of node {credential.name}")
    check_moment(request.requested_at, now, f" of {credential.name}", SvidError)
    wanted = _entitled(request.spiffe_id, credential)
    revoked.check_credential(credential)
    revoked.check(wanted.uri)
    public = _p256(request.public_key_der)
    if not 0 < ttl_s <= SVID_TTL_S_MAX:
        raise SvidError(f"a certificate lives for at most {span(SVID_TTL_S_MAX)}, {ttl_s} s were asked for")
    # What a credential vouches for does not outlive it.
    life_s = min(ttl_s, credential.expires_at - now)
    return draft_leaf(
        root_der,
        trust_domain=trust_domain,
        node=credential.node,
        uri=wanted.uri,
        public=public,
        serial=serial_number(serial),
        # Half of a short life must not lie in the past, or it would be due for renewal as soon as it is issued.
        not_before=now - min(BACKDATE_S, life_s // 4),
        not_after=now + life_s,
    )


def draft_leaf(
    root_der: bytes, *, trust_domain: str, node: bytes, uri: str, public: ec.EllipticCurvePublicKey, serial: int,
    not_before: int, not_after: int,
) -> CertificateDraft:  # fmt: skip
    """The one shape that leafs of this mesh have: nothing else is in them. No policy is applied."""
    return draft(
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, format_id(node))]))
        .issuer_name(root_name(trust_domain))
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(instant(not_before))
        .not_valid_after(instant(not_after))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_authority_key_identifier(root_der), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
    )


def issue_svid(
    authority: Authority, root_der: bytes, request: SvidRequest, *, trust_domain: str, now: int,
    entropy: Callable[[int], bytes], revoked: RevocationSet, ttl_s: int = SVID_TTL_S,
) -> bytes:  # fmt: skip
    """A leaf (DER) for `request`, or the reason why not: SvidError, CredentialError, RevokedError, AuthorityError."""
    svid = draft_svid(
        request,
        root_der,
        trust_domain=trust_domain,
        now=now,
        serial=entropy(16),
        revoked=revoked,
        ttl_s=ttl_s,
    )
    return svid.assemble(authority.sign(svid.tbs), authority.root_public)


def _entitled(uri: str, credential: Credential) -> SpiffeId:
    try:
        wanted = parse_spiffe(uri)
    except IdentityError as error:
        raise SvidError(str(error)) from None
    if wanted.trust_domain != credential.trust_domain:
        raise SvidError(f"{uri!r} is not in trust domain {credential.trust_domain!r}")
    match wanted:
        case NodeSpiffe(node=node) if node != credential.node:
            raise SvidError(f"node {credential.name} may not be issued the identity of another node: {uri!r}")
        case WorkloadSpiffe(namespace=namespace, account=account) if not credential.allows(
            namespace, account
        ):
            raise SvidError(
                f"node {credential.name} may not act as {namespace}/{account}: its credential allows "
                f"{', '.join(credential.services) or 'no service'}"
            )
    return wanted


def _p256(public_der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        public = load_der_public_key(public_der)
    except (ValueError, UnsupportedAlgorithm):
        raise SvidError("the key to be certified does not decode") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise SvidError("the key to be certified is not ECDSA P-256")
    return public


def _authority_key_identifier(root_der: bytes) -> x509.AuthorityKeyIdentifier:
    root = load_certificate(root_der, "a root certificate")
    subject = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject)
