"""The first members of a mesh, whom nobody can invite: those who make its root certify one another.

While a mesh is made there is no member yet, no token and no revocation. Who makes it was settled when its root was
(the signers of epoch 0, `trust/epoch.py`), and these, and nobody else, get a credential for the asking. It may do
everything: all rights to publish come from the founders, they govern.

Invariant: once the mesh is made there are no founders any more, and every request is refused.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Final

from trust.codec import Field, Reader
from trust.credential import Credential
from trust.errors import AdmissionError, IdentityError
from trust.identity import KEY_BYTES, SIGNATURE_BYTES, NodeIdentity, check_node_name, node_id, verify
from trust.selfproving import SelfProving, check_moment

FOUNDING_BYTES_MAX: Final = 512
NAME_CHARS_MAX: Final = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundingRequest(SelfProving):
    """One of those who make the mesh asks for its credential. It contains no secret."""

    LABEL: ClassVar[bytes] = b"gossamer/founder/1"

    public_key: bytes
    agreement_key: bytes
    name: str
    requested_at: int

    def _fields(self) -> list[Field]:
        return [self.public_key, self.agreement_key, self.name, self.requested_at]


def request_founding(identity: NodeIdentity, name: str, now: float) -> FoundingRequest:
    """A signed request. Raises AdmissionError when `name` cannot be a node's name."""
    return FoundingRequest(
        public_key=identity.public_key,
        agreement_key=identity.agreement_key,
        name=checked_name(name),
        requested_at=int(now),
    ).signed(identity)


def decode_founding(data: bytes) -> FoundingRequest:
    """Inverse of `FoundingRequest.encode`. Raises AdmissionError. Nothing is verified."""
    reader = Reader(
        data, count=5, bytes_max=FOUNDING_BYTES_MAX, what="a founder's request", error=AdmissionError
    )
    return FoundingRequest(
        public_key=reader.raw(KEY_BYTES),
        agreement_key=reader.raw(KEY_BYTES),
        name=reader.text(NAME_CHARS_MAX),
        requested_at=reader.integer(),
        signature=reader.raw(SIGNATURE_BYTES),
    )


def draft_founding(
    request: FoundingRequest, *, founders: Collection[bytes], trust_domain: str, now: int, serial: bytes, ttl_s: int
) -> Credential:  # fmt: skip
    """Judge a request; the credential still lacks its signature. Raises AdmissionError."""
    name = checked_name(request.name)
    if node_id(request.public_key) not in founders:
        raise AdmissionError(f"{name} is none of those who make this mesh now: join it with a token")
    if not verify(request.public_key, request.signing_bytes(), request.signature):
        raise AdmissionError(f"the founder's request is not signed by the key of {name}")
    check_moment(request.requested_at, now, f" of {name}", AdmissionError)
    return founder_credential(
        request.public_key,
        request.agreement_key,
        name,
        trust_domain=trust_domain,
        now=now,
        serial=serial,
        ttl_s=ttl_s,
    )


def founder_credential(
    public_key: bytes, agreement_key: bytes, name: str, *, trust_domain: str, now: int, serial: bytes, ttl_s: int
) -> Credential:  # fmt: skip
    """What a founder is given, without its signature."""
    return Credential(
        trust_domain=trust_domain,
        public_key=public_key,
        agreement_key=agreement_key,
        name=name,
        services=("*/*",),
        publish=True,
        invite=True,
        govern=True,
        serial=serial,
        issued_at=now,
        expires_at=now + ttl_s,
    )


def checked_name(name: str) -> str:
    """`name` itself if a node can have it. Raises AdmissionError."""
    try:
        return check_node_name(name)
    except IdentityError as error:
        raise AdmissionError(f"a node cannot have this name: {error}") from None
