"""Admission: who becomes a member, and stays one.

To join, a node shows an invitation, proves twice that the request is its own (a signature by the token's one-time
key over the new node's keys, and one by the new node key itself) and receives a credential with what the invitation
grants. To renew, it shows its old credential and proves that it holds its key; the rights stay what the root once
signed. A credential that ran out less than thirty days ago can still be renewed, so that a host that was switched
off comes back by itself; a revoked one cannot.

A token admits `uses` different nodes. The ledger counts node ids, not requests: when the answer is lost, the same
node asks again and is answered again, while a replayed request can only ever return a credential for the key of
the node that made it.

Invariant: `draft_credential` holds the whole policy and changes nothing; whoever signs what it returns counts the
`Spend` in its ledger and makes it durable first (`issue_credential` does the former, where one node signs alone).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, assert_never

from trust.authority import Authority
from trust.codec import Field, Reader, pack, signed_bytes
from trust.credential import (
    CREDENTIAL_BYTES_MAX,
    CREDENTIAL_TTL_S,
    CREDENTIAL_TTL_S_MAX,
    SERIAL_BYTES,
    Credential,
    check_carried,
    decode_credential,
    is_doubtful,
    verify_credential,
)
from trust.errors import AdmissionError, AuthorityError, CredentialError, TokenError, span
from trust.founding import checked_name, founder_credential
from trust.identity import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    NodeIdentity,
    verify,
)
from trust.invitation import (
    INVITATION_BYTES_MAX,
    Invitation,
    Token,
    create_token,
    decode_invitation,
    parse_token,
    verify_invitation,
    verify_token,
)
from trust.revocation import RENEWAL_GRACE_S, RevocationSet
from trust.roots import NOT_SIGNED, Root, refusal, signer_of
from trust.selfproving import check_moment

__all__ = [
    "Issued",
    "JoinRequest",
    "RenewRequest",
    "Spend",
    "Token",
    "TokenLedger",
    "create_token",
    "decode_request",
    "draft_credential",
    "found",
    "issue_credential",
    "parse_token",
    "request_join",
    "request_renewal",
    "verify_token",
]

REQUEST_BYTES_MAX: Final = 6000
SPENDS_MAX: Final = 65_536
# Of n signers each use is with t, a majority: all their ledgers together have less than twice as many, so that what
# honest signers counted can always be handed over (`peer/handover.py`).
ADMITTED_MAX: Final = SPENDS_MAX // 4

_JOIN_LABEL: Final = b"gossamer/join/1"
_RENEW_LABEL: Final = b"gossamer/renew/1"


# ------------------------------------------------------------------ requests


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """A new node asks to be admitted. It contains no secret."""

    invitation: bytes  # encoded
    public_key: bytes
    agreement_key: bytes
    name: str
    requested_at: int
    token_proof: bytes = b"\0" * SIGNATURE_BYTES  # by the token's one-time key
    signature: bytes = b"\0" * SIGNATURE_BYTES  # by the node's key

    def signing_bytes(self) -> bytes:
        """What both keys sign."""
        return signed_bytes(_JOIN_LABEL, self._fields())

    def encode(self) -> bytes:
        """The wire form."""
        return pack(["join", *self._fields(), self.token_proof, self.signature])

    def _fields(self) -> list[Field]:
        return [self.invitation, self.public_key, self.agreement_key, self.name, self.requested_at]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewRequest:
    """A member asks for its next credential. `credential` is the encoded old one."""

    credential: bytes
    requested_at: int
    signature: bytes = b"\0" * SIGNATURE_BYTES

    def signing_bytes(self) -> bytes:
        """What the node's key signs."""
        return signed_bytes(_RENEW_LABEL, self._fields())

    def encode(self) -> bytes:
        """The wire form."""
        return pack(["renew", *self._fields(), self.signature])

    def _fields(self) -> list[Field]:
        return [self.credential, self.requested_at]


Request: TypeAlias = JoinRequest | RenewRequest


def request_join(identity: NodeIdentity, token: Token, name: str, now: float) -> JoinRequest:
    """A signed request. Raises AdmissionError when `name` cannot be a node's name."""
    request = JoinRequest(
        invitation=token.invitation.encode(),
        public_key=identity.public_key,
        agreement_key=identity.agreement_key,
        name=checked_name(name),
        requested_at=int(now),
    )
    message = request.signing_bytes()
    return replace(request, token_proof=token.prove(message), signature=identity.sign(message))


def request_renewal(identity: NodeIdentity, credential: Credential, now: float) -> RenewRequest:
    """A signed request."""
    request = RenewRequest(credential=credential.encode(), requested_at=int(now))
    return replace(request, signature=identity.sign(request.signing_bytes()))


def decode_request(data: bytes) -> Request:
    """Inverse of `.encode` of either request. Raises AdmissionError. Nothing is verified."""
    what = "a request to join or renew"
    renewal = data[1:7] == b"\xa5renew"  # the first field tells which; Reader checks all of it
    reader = Reader(
        data, count=4 if renewal else 8, bytes_max=REQUEST_BYTES_MAX, what=what, error=AdmissionError
    )
    if reader.text(5) != ("renew" if renewal else "join"):
        raise AdmissionError(f"this is not {what}")
    if renewal:
        return RenewRequest(
            credential=reader.blob(CREDENTIAL_BYTES_MAX),
            requested_at=reader.integer(),
            signature=reader.raw(SIGNATURE_BYTES),
        )
    return JoinRequest(
        invitation=reader.blob(INVITATION_BYTES_MAX),
        public_key=reader.raw(KEY_BYTES),
        agreement_key=reader.raw(KEY_BYTES),
        name=reader.text(63),
        requested_at=reader.integer(),
        token_proof=reader.raw(SIGNATURE_BYTES),
        signature=reader.raw(SIGNATURE_BYTES),
    )


# ------------------------------------------------------------------ the ledger of tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """One node was admitted with one token. Kept until the token has expired (Unix s)."""

    token_id: bytes
    node: bytes
    expires_at: int


class TokenLedger:
    """Which nodes came in with which token. Bounded: at ADMITTED_MAX it admits nobody new until tokens expire."""

    __slots__ = ("_count", "_spent")

    def __init__(self, spends: Iterable[Spend] = ()) -> None:
        self._spent: dict[bytes, dict[bytes, int]] = {}  # token id -> node -> expires_at
        self._count = 0
        for spend in spends:
            self.record(spend)

    def check(self, invitation: Invitation, node: bytes) -> Spend | None:
        """What admitting `node` would spend: None if it was admitted with this token before. Raises TokenError if
        others have used it up. Changes nothing."""
        nodes = self._spent.get(invitation.id, {})
        if node in nodes:
            return None
        if len(nodes) >= invitation.uses:
            raise TokenError(
                "the join token has been used by another host: ask for a new one"
                if invitation.uses == 1
                else f"the join token has been used {invitation.uses} times, as often as it may: ask for a new one"
            )
        if self._count >= ADMITTED_MAX:
            raise TokenError(
                f"{self._count} hosts joined with tokens that are still valid, and no more than {ADMITTED_MAX} are "
                "kept count of: too many hosts joined lately; try again when older tokens have expired"
            )
        return Spend(token_id=invitation.id, node=node, expires_at=invitation.expires_at)

    def record(self, spend: Spend) -> None:
        """Count a spend; once is enough, twice is the same."""
        nodes = self._spent.setdefault(spend.token_id, {})
        self._count += spend.node not in nodes
        nodes[spend.node] = spend.expires_at

    def prune(self, now: float) -> int:
        """Forget tokens that have expired (they are refused for that); how many spends that were."""
        expired = [token for token, nodes in self._spent.items() if max(nodes.values()) <= now]
        forgotten = sum(len(self._spent.pop(token)) for token in expired)
        self._count -= forgotten
        return forgotten

    def __iter__(self) -> Iterator[Spend]:
        """All uses, as they are now."""
        rows = [(token, node, ends) for token, nodes in self._spent.items() for node, ends in nodes.items()]
        return (Spend(token_id=token, node=node, expires_at=ends) for token, node, ends in rows)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"TokenLedger({self._count} nodes admitted with {len(self._spent)} tokens)"


# ------------------------------------------------------------------ issuing


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A credential, and what must be on disk before it is handed out (None: nothing new)."""

    credential: Credential
    spend: Spend | None


def found(
    authority: Authority, identity: NodeIdentity, name: str, *, trust_domain: str, now: int,
    entropy: Callable[[int], bytes], ttl_s: int = CREDENTIAL_TTL_S,
) -> Credential:  # fmt: skip
    """The first member's credential, which may do everything: whoever holds the root needs no invitation. All
    rights to publish come from this member: it governs."""
    credential = founder_credential(
        identity.public_key,
        identity.agreement_key,
        checked_name(name),
        trust_domain=trust_domain,
        now=now,
        serial=entropy(SERIAL_BYTES),
        ttl_s=ttl_s,
    )
    return _sign(authority, credential)


def draft_credential(
    request: Request, root_public: Root, *, trust_domain: str, now: int, serial: bytes, ledger: TokenLedger,
    revoked: RevocationSet, ttl_s: int = CREDENTIAL_TTL_S, carries: Callable[[Credential], bool] = lambda _: True,
) -> Issued:  # fmt: skip
    """Judge a request; the credential still lacks its signature. Of those whom a compromised root vouches for, only the
    nodes are given a credential that the mesh `carries` over. Raises TokenError, AdmissionError,
    CredentialError or RevokedError. Changes nothing."""
    check_moment(request.requested_at, now, "", AdmissionError)
    if not 0 < ttl_s <= CREDENTIAL_TTL_S_MAX:
        raise AdmissionError(
            f"a credential lives for at most {span(CREDENTIAL_TTL_S_MAX)}, {ttl_s} s were asked for"
        )
    spend: Spend | None = None
    match request:
        case JoinRequest():
            granted, spend = _judge_join(request, root_public, trust_domain, now, ledger, revoked)
        case RenewRequest():
            granted = _judge_renewal(request, root_public, trust_domain, now, carries)
        case _:
            assert_never(request)
    revoked.check_credential(granted)
    return Issued(
        credential=replace(
            granted, serial=serial, issued_at=now, expires_at=now + ttl_s, signature=bytes(SIGNATURE_BYTES)
        ),
        spend=spend,
    )


def issue_credential(
    authority: Authority, request: Request, *, trust_domain: str, now: int, entropy: Callable[[int], bytes],
    ledger: TokenLedger, revoked: RevocationSet, ttl_s: int = CREDENTIAL_TTL_S,
) -> Issued:  # fmt: skip
    """Judge, sign, and count. Raises as `draft_credential` does, or AuthorityError; then nothing was counted."""
    draft = draft_credential(
        request,
        authority.root_public,
        trust_domain=trust_domain,
        now=now,
        serial=entropy(SERIAL_BYTES),
        ledger=ledger,
        revoked=revoked,
        ttl_s=ttl_s,
    )
    credential = _sign(authority, draft.credential)
    if draft.spend is not None:
        ledger.record(draft.spend)
    return Issued(credential=credential, spend=draft.spend)


def _judge_join(
    request: JoinRequest,
    root_public: Root,
    trust_domain: str,
    now: int,
    ledger: TokenLedger,
    revoked: RevocationSet,
) -> tuple[Credential, Spend | None]:
    invitation = decode_invitation(request.invitation)
    verify_invitation(invitation, root_public, now)
    if invitation.trust_domain != trust_domain:
        raise TokenError(
            f"the join token is for trust domain {invitation.trust_domain!r}, not {trust_domain!r}"
        )
    revoked.check_credential(invitation.issuer)
    if is_doubtful(invitation.issuer, root_public):
        raise TokenError("the join token is of a root that was given up as compromised: ask for a new one")
    message = request.signing_bytes()
    if not verify(invitation.token_key, message, request.token_proof):
        raise TokenError("whoever asks to join does not hold the token: the proof by its key does not match")
    if not verify(request.public_key, message, request.signature):
        raise AdmissionError("the request to join is not signed by the key it wants admitted")
    granted = Credential(
        trust_domain=trust_domain,
        public_key=request.public_key,
        agreement_key=request.agreement_key,
        name=checked_name(request.name),
        services=invitation.services,
        publish=invitation.publish,
        invite=invitation.invite,
        govern=invitation.govern,
        serial=bytes(SERIAL_BYTES),
        issued_at=now,
        expires_at=now + 1,
    )
    return granted, ledger.check(invitation, granted.node)


def _judge_renewal(
    request: RenewRequest,
    root_public: Root,
    trust_domain: str,
    now: int,
    carries: Callable[[Credential], bool],
) -> Credential:
    old = decode_credential(request.credential)
    # A credential that ran out within the grace is judged as of its last second.
    if now - old.expires_at > RENEWAL_GRACE_S:
        raise CredentialError(
            f"the credential of {old.name} expired {span(now - old.expires_at)} ago, "
            f"which is too long to renew it: join again with a new token"
        )
    signed, signature = old.signing_bytes(), old.signature
    reason = refusal(root_public, signed, signature, now, grace_s=RENEWAL_GRACE_S)
    if reason and reason != NOT_SIGNED:
        raise CredentialError(f"the credential of {old.name} {reason}")
    signer = signer_of(root_public, signed, signature)  # the root may have been retired within the grace
    verify_credential(old, signer, trust_domain, min(now, old.expires_at - 1))
    check_carried(old, root_public, carries)
    if not verify(old.public_key, request.signing_bytes(), request.signature):
        raise AdmissionError(f"the request to renew is not signed by the key of {old.name}")
    return old


def _sign(authority: Authority, credential: Credential) -> Credential:
    signed = credential.signed(authority.sign(credential.signing_bytes()))
    if not verify(authority.root_public, signed.signing_bytes(), signed.signature):
        raise AuthorityError("the signature does not verify under the mesh root: the credential is discarded")
    return signed
