"""Asking the mesh root to revoke: the request of a node that governs, and the policy that answers it.

Like a certificate request (`trust/issuance.py`) it is signed by the node's key over everything in it and carries the
node's credential, so a signer needs nothing but the mesh root to judge it. The moment of the request is the moment
of the revocation, so that each of t signers derives the same bytes from the same request.

Invariant: `draft_revocation` is a pure function of its arguments and holds the whole policy.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

from trust.codec import Field, Reader
from trust.credential import (
    CREDENTIAL_BYTES_MAX,
    Credential,
    decode_credential,
    verify_credential,
)
from trust.errors import RevocationError, RevokedError
from trust.groupkey import GroupKey, node_of
from trust.identity import SIGNATURE_BYTES, SPIFFE_CHARS_MAX, NodeIdentity, spiffe_node, verify
from trust.revocation import (
    REASON_CHARS_MAX,
    Revocation,
    RevocationSet,
    check_domain,
    check_subject,
    signer_subject,
    unsigned_revocation,
)
from trust.roots import Root
from trust.selfproving import SelfProving, check_moment

REVOCATION_REQUEST_BYTES_MAX: Final = 6000


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationRequest(SelfProving):
    """A node that governs wants `subject` revoked."""

    LABEL: ClassVar[bytes] = b"gossamer/revocation-request/1"

    subject: str
    reason: str
    credential: bytes  # encoded
    requested_at: int

    def _fields(self) -> list[Field]:
        return [self.subject, self.reason, self.credential, self.requested_at]


def request_revocation(
    identity: NodeIdentity, credential: Credential, subject: str, reason: str, now: float
) -> RevocationRequest:
    """A signed request. Raises RevocationError for a subject or a reason that can be none."""
    unsigned_revocation(subject, reason, now, identity.public_key)
    return RevocationRequest(
        subject=subject, reason=reason, credential=credential.encode(), requested_at=int(now)
    ).signed(identity)


def decode_revocation_request(data: bytes) -> RevocationRequest:
    """Inverse of `RevocationRequest.encode`. Raises RevocationError. Nothing is verified."""
    reader = Reader(
        data,
        count=5,
        bytes_max=REVOCATION_REQUEST_BYTES_MAX,
        what="a request to revoke",
        error=RevocationError,
    )
    return RevocationRequest(
        subject=check_subject(reader.text(SPIFFE_CHARS_MAX)),
        reason=reader.text(REASON_CHARS_MAX),
        credential=reader.blob(CREDENTIAL_BYTES_MAX),
        requested_at=reader.integer(),
        signature=reader.raw(SIGNATURE_BYTES),
    )


def draft_revocation(
    request: RevocationRequest, root_public: bytes, *, trust_domain: str, now: int, revoked: RevocationSet,
    accepted: Root | None = None,
) -> Revocation:  # fmt: skip
    """Judge a request; the revocation still lacks the signature of `root_public`. `accepted` are the roots whose
    credentials count, if they are others. Raises RevocationError, CredentialError or
    RevokedError with the reason."""
    credential = decode_credential(request.credential)
    verify_credential(credential, accepted or root_public, trust_domain, now)
    if not verify(credential.public_key, request.signing_bytes(), request.signature):
        raise RevocationError(f"the request to revoke is not signed by the key of node {credential.name}")
    check_moment(request.requested_at, now, f" of {credential.name}", RevocationError)
    revoked.check_credential(credential)
    if not credential.govern:
        raise RevocationError(
            f"{credential.name} may not revoke {request.subject}: only nodes that govern may (a node gives itself "
            "up with: gossamer leave --revoke)"
        )
    check_domain(request.subject, trust_domain)
    if request.subject == spiffe_node(trust_domain, credential.node):
        raise RevocationError(f"{credential.name} gives itself up with: gossamer leave --revoke")
    return unsigned_revocation(request.subject, request.reason, request.requested_at, root_public)


def check_signers_left(subject: str, group: GroupKey, *, trust_domain: str, revoked: RevocationSet) -> None:
    """Raise RevocationError if without `subject` fewer signers of `group` were left than it takes to sign. Such a mesh
    could neither admit anybody nor renew anything, nor undo that."""
    standing = [node for each in group.identifiers if _stands(node := node_of(each), trust_domain, revoked)]
    rest = [
        node for node in standing if subject not in (signer_subject(node), spiffe_node(trust_domain, node))
    ]
    if len(rest) < len(standing) and len(rest) < group.threshold:
        raise RevocationError(
            f"{subject} is not revoked: {len(rest)} signers would be left and {group.threshold} are needed, so "
            "that nobody could be issued a certificate any more; let another peer become a signer first"
        )


def _stands(node: bytes, trust_domain: str, revoked: RevocationSet) -> bool:
    try:
        revoked.check_signer(trust_domain, node)
    except RevokedError:
        return False
    return True
