"""Asking for another root: the request of a node that governs, and what each signer makes of it.

One request is all it takes. From it follow

    a ceremony    of its own, among the signers of today, which deal a new key to those of them that are there; its name
                  comes from the request, so nobody sits down to it without one, and with the same threshold as today
    the terms     (`trust/rollover.py`) that both roots sign, down to the last byte, so that whoever asks the signers
                  for their signatures has no say in them; the moment of the request is that of the terms

A request names the epoch in which the signers of today hold the old root. Once they change it is void, and so is a
ceremony that has not come to an end.

Invariant: what is here is a function of its arguments, and holds the whole policy.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from trust.ceremony.electorate import DIGEST_BYTES, Electorate
from trust.ceremony.growth import SignerRules
from trust.codec import Field, Reader
from trust.credential import (
    CLOCK_SKEW_S_MAX,
    CREDENTIAL_BYTES_MAX,
    Credential,
    check_carried,
    decode_credential,
    verify_credential,
)
from trust.epoch import EpochRecord, succession
from trust.errors import RolloverError, span
from trust.identity import KEY_BYTES, SIGNATURE_BYTES, NodeIdentity, verify
from trust.revocation import RevocationSet
from trust.rollover import OVERLAP_S_MAX, Terms, check_overlap
from trust.roots import ROLLOVERS_MAX, Root, Roots
from trust.selfproving import SelfProving

ROLLOVER_REQUEST_BYTES_MAX: Final = 2048
ROOTS_AT_ONCE_MAX: Final = 4  # each is an anchor of every TLS context, of which a bundle has eight at most

_PREVIOUS: Final = b"gossamer/rollover-ceremony/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloverRequest(SelfProving):
    """A node that governs wants the mesh to go over to a new root."""

    LABEL: ClassVar[bytes] = b"gossamer/rollover-request/1"

    old: bytes  # the root of today
    before: bytes  # digest of the epoch record of its signers
    overlap_s: int
    compromised: bool
    credential: bytes  # encoded
    requested_at: int
    signature: bytes = b"\0" * SIGNATURE_BYTES

    def _fields(self) -> list[Field]:
        return [self.old, self.before, self.overlap_s, self.compromised, self.credential, self.requested_at]

    @property
    def void_at(self) -> float:
        """From when on (Unix s) it is too late for a new root: the rest of the overlap would be too short."""
        return self.requested_at + self.overlap_s / 2


def request_rollover(
    identity: NodeIdentity, credential: Credential, record: EpochRecord, now: float, *, overlap_s: int,
    compromised: bool = False,
) -> RolloverRequest:  # fmt: skip
    """A signed request; `record` is of today's signers. Raises RolloverError for an overlap that can be none."""
    check_overlap(overlap_s, compromised=compromised)
    request = RolloverRequest(
        old=record.group.public,
        before=record.digest,
        overlap_s=overlap_s,
        compromised=compromised,
        credential=credential.encode(),
        requested_at=int(now),
    )
    return replace(request, signature=identity.sign(request.signing_bytes()))


def decode_rollover_request(data: bytes) -> RolloverRequest:
    """Inverse of `RolloverRequest.encode`. Raises RolloverError. Nothing is verified."""
    reader = Reader(
        data,
        count=7,
        bytes_max=ROLLOVER_REQUEST_BYTES_MAX,
        what="a request for a new root",
        error=RolloverError,
    )
    return RolloverRequest(
        old=reader.raw(KEY_BYTES),
        before=reader.raw(DIGEST_BYTES),
        overlap_s=reader.integer(OVERLAP_S_MAX),
        compromised=reader.flag(),
        credential=reader.blob(CREDENTIAL_BYTES_MAX),
        requested_at=reader.integer(),
        signature=reader.raw(SIGNATURE_BYTES),
    )


def judge_request(
    request: RolloverRequest, record: EpochRecord, root: Root, *, trust_domain: str, now: float,
    revoked: RevocationSet, carries: Callable[[Credential], bool] = lambda _credential: True,
) -> None:  # fmt: skip
    """Raise RolloverError, CredentialError or RevokedError unless a node that governs asked for it, of the signers in
    `record`, and not too long ago. For `carries` see `check_carried`."""
    credential = decode_credential(request.credential)
    if request.old != record.group.public or request.before != record.digest:
        raise RolloverError("the request for a new root is of other signers than today's: ask again")
    if isinstance(root, Roots) and (request.old != root.newest or len(root) > ROLLOVERS_MAX):
        raise RolloverError(
            "the request is of a root that is followed by another one, or the last there can be"
        )
    if isinstance(root, Roots) and len(root.accepted(now)) >= ROOTS_AT_ONCE_MAX:
        raise RolloverError(
            f"{ROOTS_AT_ONCE_MAX} roots count at this moment: ask again when the oldest has ended"
        )
    if request.requested_at > now + CLOCK_SKEW_S_MAX:
        raise RolloverError(
            f"the request for a new root is stamped {span(request.requested_at - now)} ahead: set the clocks right"
        )
    if now >= request.void_at:
        raise RolloverError(
            "half of the overlap that was asked for is over, and there is no new root: ask again"
        )
    check_overlap(request.overlap_s, compromised=request.compromised)
    verify_credential(credential, root, trust_domain, now)
    check_carried(credential, root, carries)
    if not verify(credential.public_key, request.signing_bytes(), request.signature):
        raise RolloverError(f"the request for a new root is not signed by the key of node {credential.name}")
    revoked.check_credential(credential)
    if not credential.govern:
        raise RolloverError(f"{credential.name} may not ask for a new root: only nodes that govern may")


def rolling_electorate(request: RolloverRequest, record: EpochRecord) -> Electorate:
    """Who decides on the new root: the signers of today, in a ceremony of this request and no other. `group` is none,
    as at a founding: what is dealt is new."""
    today = succession(record)
    named = hashlib.sha256(request.encode()).digest()
    return Electorate(
        epoch=today.epoch,
        previous=hashlib.sha256(_PREVIOUS + record.digest + named).digest(),
        keys=today.keys,
        quorum=today.quorum,
        faults=today.faults,
        strict=today.strict,
    )


def rolling_rules(record: EpochRecord) -> SignerRules:
    """The new root takes as many signers as the old one does."""
    return SignerRules(signers=len(record.value.keys), threshold=record.group.threshold)


def terms_of(request: RolloverRequest, before: EpochRecord, after: EpochRecord, trust_domain: str) -> Terms:
    """What both roots sign, when the ceremony of `request` came to `after`. Raises RolloverError: it did not."""
    electorate = rolling_electorate(request, before)
    if after.value.previous != electorate.previous or after.epoch != electorate.epoch:
        raise RolloverError("the new root is not of the ceremony that was asked for")
    if after.value.strict != electorate.strict or not after.value.proven:
        raise RolloverError("the signers of the new root have not proved that they can sign")
    if after.group.threshold < before.group.threshold:
        raise RolloverError("the new root would take fewer signers than the old one")
    return Terms(
        trust_domain=trust_domain,
        old=before.group.public,
        new=after.group.public,
        before=before.digest,
        record=after.digest,
        issued_at=request.requested_at,
        overlap_s=request.overlap_s,
        compromised=request.compromised,
    )
