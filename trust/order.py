"""What a coordinator asks the signers of the root to sign, and what each of them makes of it.

An order is the applicant's own request, which proves itself (`admission`, `issuance`, `revoking`, `founding`), and what
an issuer adds: the moment of issue, entropy, and a lifetime. From that and the mesh's root everybody derives the same
bytes; they are never sent. So a coordinator, which can be any member, has no say in *what* is signed: a false one gets
what the applicant is entitled to, a lifetime within the policy and a moment near the signer's own clock, or nothing.
It cannot choose a serial either, which is a hash of the whole order: nobody makes a certificate that falls with the
revocation of another one.

The moment may differ from a signer's clock by ORDER_SKEW_S_MAX. That is how long beyond its end a token or credential
could be of use to a coordinator that lies.

Invariant: `derive` is a function of the order, the root and what is public, with no policy left out: whoever signs what
it returns signs nothing that this mesh's rules forbid.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, assert_never

from trust.admission import JoinRequest, Spend, TokenLedger, decode_request, draft_credential
from trust.authority import ROOT_TTL_S, CertificateDraft, draft_root
from trust.codec import Reader, pack
from trust.credential import (
    CLOCK_SKEW_S_MAX,
    CREDENTIAL_TTL_S,
    SERIAL_BYTES,
    Credential,
    check_carried,
    decode_credential,
)
from trust.epoch import EpochRecord
from trust.errors import AuthorityError, OrderError, UnheardRootError, span
from trust.founding import decode_founding, draft_founding
from trust.groupkey import GroupKey
from trust.identity import spiffe_node, verify
from trust.invitation import decode_invitation
from trust.issuance import decode_svid_request, draft_svid
from trust.revocation import RevocationSet
from trust.revoking import check_signers_left, decode_revocation_request, draft_revocation
from trust.rolling import decode_rollover_request, judge_request, terms_of
from trust.roots import Root, Roots
from trust.svid import SVID_TTL_S_MAX

ORDER_BYTES_MAX: Final = 8192  # as much as a signing session carries (`sessionwire`)
ORDER_REQUEST_BYTES_MAX: Final = 8000
ENTROPY_BYTES: Final = 16
ORDER_SKEW_S_MAX: Final = CLOCK_SKEW_S_MAX

_SERIAL: Final = b"gossamer/order-serial/1\0"


class Kind(Enum):
    """What is to be signed."""

    CREDENTIAL = "credential"  # for a request to join or renew
    SVID = "svid"
    REVOCATION = "revocation"
    FOUNDER = "founder"  # the credential of one who makes the mesh: while it is made
    ROOT = "root"  # the root's own certificate: while the mesh is made
    SUCCESSION = "succession"  # the terms of a rollover, by the old root
    ACCEPTANCE = "acceptance"  # the same, by the new one
    SUCCESSOR = "successor"  # the new root's own certificate


_ROLLING: Final = frozenset({Kind.SUCCESSION, Kind.ACCEPTANCE, Kind.SUCCESSOR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request and the issuer's part of it. It contains no secret."""

    kind: Kind
    request: bytes  # as its applicant encoded it; empty for ROOT
    issued_at: int  # Unix s
    entropy: bytes
    ttl_s: int = 0  # 0 for what knows its lifetime itself: revocations and the root

    @property
    def serial(self) -> bytes:
        """16 bytes that the coordinator cannot choose."""
        return hashlib.sha256(_SERIAL + self.encode()).digest()[:SERIAL_BYTES]

    def encode(self) -> bytes:
        """The wire form."""
        return pack([self.kind.value, self.request, self.issued_at, self.entropy, self.ttl_s])


def decode_order(data: bytes) -> Order:
    """Inverse of `Order.encode`. Raises OrderError. Nothing is verified."""
    reader = Reader(data, count=5, bytes_max=ORDER_BYTES_MAX, what="an order to sign", error=OrderError)
    name = reader.text(16)
    try:
        kind = Kind(name)
    except ValueError:
        raise OrderError(f"this signer signs no {name!r}") from None
    return Order(
        kind=kind,
        request=reader.blob(ORDER_REQUEST_BYTES_MAX),
        issued_at=reader.integer(),
        entropy=reader.raw(ENTROPY_BYTES),
        ttl_s=reader.integer(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """A rollover under way: the epoch whose signers hold the old root, and the one with which the new root begins."""

    before: EpochRecord
    after: EpochRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a node holds orders against. The sets are the node's own and change under it. `root_public` is the root that
    is to sign; `roots` are those whose word counts, where there may be more than that one."""

    root_public: bytes
    root_certificate: bytes  # DER; empty while the mesh, or this root, is being made
    trust_domain: str
    revoked: RevocationSet
    ledger: TokenLedger
    founders: frozenset[bytes] = frozenset()  # node ids of those who make the mesh now; afterwards nobody
    credential_ttl_s_max: int = CREDENTIAL_TTL_S
    svid_ttl_s_max: int = SVID_TTL_S_MAX
    group: Callable[[], GroupKey | None] = lambda: None  # who signs now, as far as that is known
    roots: Roots | None = None
    rolling: Callable[[], Rolling | None] = lambda: (
        None
    )  # the root that is to follow, made and not announced yet
    carries: Callable[[Credential], bool] = lambda _credential: True  # see `check_carried`

    @property
    def accepted(self) -> Root:
        """Whose signature an applicant may show."""
        return self.root_public if self.roots is None else self.roots

    def under(self, root_public: bytes) -> "Rules":
        """The same, with another root to sign. Raises UnheardRootError for one that is none of the mesh's."""
        if root_public == self.root_public:
            return self
        if self.roots is not None and root_public in self.roots:
            return replace(
                self, root_public=root_public, root_certificate=self.roots.certificate(root_public)
            )
        rolling = self.rolling()
        if rolling is None or rolling.after.group.public != root_public:
            raise UnheardRootError("this signer has not heard of that root yet")
        return replace(self, root_public=root_public, root_certificate=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What an order comes to. `message` is what the root signs; `spend` what has to be on a signer's disk first."""

    message: bytes
    root_public: bytes
    finish: Callable[[bytes], bytes]
    spend: Spend | None = None
    successor: bytes = (
        b""  # the root that the old one names by this: a signer names one, and has it on its disk first
    )
    vouched_at: int = 0  # of a use: when the one who made the token got the credential in it (Unix s)
    applicant: bytes = b""  # node id of whoever signed the request; b"" where nobody did

    def assemble(self, signature: bytes) -> bytes:
        """What was asked for, in its wire form. Raises AuthorityError if that is not the root's signature."""
        if not verify(self.root_public, self.message, signature):
            raise AuthorityError(
                "the signature does not verify under the mesh root: what it signs is discarded"
            )
        return self.finish(signature)


def derive(order: Order, rules: Rules) -> Draft:
    """What is to be signed, or a TrustError with the reason why nothing is. Changes nothing."""
    announced = rules.roots is None or rules.root_public in rules.roots
    if not announced and order.kind not in _ROLLING:
        raise UnheardRootError("the new root signs nothing before the old one has named it")
    match order.kind:
        case Kind.CREDENTIAL:
            return _derive_credential(order, rules)
        case Kind.SVID:
            return _derive_svid(order, rules)
        case Kind.REVOCATION:
            return _derive_revocation(order, rules)
        case Kind.FOUNDER:
            return _derive_founder(order, rules)
        case Kind.ROOT:
            return _derive_root(order, rules)
        case Kind.SUCCESSION | Kind.ACCEPTANCE | Kind.SUCCESSOR:
            return _derive_rollover(order, rules)
        case _:
            assert_never(order.kind)


def judge(order: Order, rules: Rules, *, now: float, coordinator: bytes, signer: bytes) -> Draft:
    """What `signer` derives from an order of `coordinator` (node ids; its stream proved that it is a member) at `now`
    (Unix s). Raises TrustError with the reason for a refusal."""
    rules.revoked.check_signer(rules.trust_domain, signer)
    rules.revoked.check(spiffe_node(rules.trust_domain, coordinator))
    apart_s = abs(now - order.issued_at)
    if apart_s > ORDER_SKEW_S_MAX:
        raise OrderError(
            f"the issuer's clock is {span(apart_s)} away from this signer's: set the clocks right"
        )
    return derive(order, rules)


def _derive_credential(order: Order, rules: Rules) -> Draft:
    _check_ttl(order, "a credential", rules.credential_ttl_s_max)
    request = decode_request(order.request)
    issued = draft_credential(
        request,
        rules.accepted,
        trust_domain=rules.trust_domain,
        now=order.issued_at,
        serial=order.serial,
        ledger=rules.ledger,
        revoked=rules.revoked,
        ttl_s=order.ttl_s,
        carries=rules.carries,
    )
    if issued.spend is None or not isinstance(request, JoinRequest):
        return _credential_draft(issued.credential, rules)
    vouched_at = decode_invitation(request.invitation).issuer.issued_at
    draft = _credential_draft(issued.credential, rules)
    return replace(draft, spend=issued.spend, vouched_at=vouched_at)


def _derive_founder(order: Order, rules: Rules) -> Draft:
    _check_ttl(order, "a credential", rules.credential_ttl_s_max)
    credential = draft_founding(
        decode_founding(order.request),
        founders=rules.founders,
        trust_domain=rules.trust_domain,
        now=order.issued_at,
        serial=order.serial,
        ttl_s=order.ttl_s,
    )
    return _credential_draft(credential, rules)


def _credential_draft(credential: Credential, rules: Rules) -> Draft:
    return Draft(
        message=credential.signing_bytes(),
        root_public=rules.root_public,
        finish=lambda signature: credential.signed(signature).encode(),
        applicant=credential.node,
    )


def _derive_svid(order: Order, rules: Rules) -> Draft:
    _check_ttl(order, "a certificate", rules.svid_ttl_s_max)
    request = decode_svid_request(order.request)
    check_carried(credential := decode_credential(request.credential), rules.accepted, rules.carries)
    svid = draft_svid(
        request,
        rules.root_certificate,
        trust_domain=rules.trust_domain,
        now=order.issued_at,
        serial=order.serial,
        revoked=rules.revoked,
        ttl_s=order.ttl_s,
        accepted=rules.accepted,
    )
    return replace(_certificate_draft(svid, rules), applicant=credential.node)


def _derive_root(order: Order, rules: Rules) -> Draft:
    if not rules.founders:
        raise OrderError("the mesh has its root certificate, and there is only one")
    if order.request or order.ttl_s:
        raise OrderError("the root certificate follows from the root alone")
    root = draft_root(rules.root_public, rules.trust_domain, order.issued_at, ROOT_TTL_S)
    return _certificate_draft(root, rules)


def _certificate_draft(certificate: CertificateDraft, rules: Rules) -> Draft:
    root_public = rules.root_public
    return Draft(
        message=certificate.tbs,
        root_public=root_public,
        finish=lambda signature: certificate.assemble(signature, root_public),
    )


def _derive_revocation(order: Order, rules: Rules) -> Draft:
    if order.ttl_s:
        raise OrderError("a revocation has the lifetime of what it revokes")
    request = decode_revocation_request(order.request)
    check_carried(credential := decode_credential(request.credential), rules.accepted, rules.carries)
    revocation = draft_revocation(
        request,
        rules.root_public,
        trust_domain=rules.trust_domain,
        now=order.issued_at,
        revoked=rules.revoked,
        accepted=rules.accepted,
    )
    if (group := rules.group()) is not None:
        check_signers_left(revocation.subject, group, trust_domain=rules.trust_domain, revoked=rules.revoked)
    return Draft(
        message=revocation.signing_bytes(),
        root_public=rules.root_public,
        finish=lambda signature: revocation.signed(signature).encode(),
        applicant=credential.node,
    )


def _derive_rollover(order: Order, rules: Rules) -> Draft:
    """What the request of a node that governs comes to, by the ceremony that this signer saw the end of."""
    rolling = rules.rolling()
    if rolling is None:
        raise OrderError("this signer knows of no new root")
    if order.ttl_s:
        raise OrderError("a rollover has the lifetime that was asked for")
    request = decode_rollover_request(order.request)
    judge_request(
        request,
        rolling.before,
        rules.accepted,
        trust_domain=rules.trust_domain,
        now=order.issued_at,
        revoked=rules.revoked,
        carries=rules.carries,
    )
    terms = terms_of(request, rolling.before, rolling.after, rules.trust_domain)
    signer = terms.old if order.kind is Kind.SUCCESSION else terms.new
    if rules.root_public != signer:
        raise OrderError(
            "the old root names the new one, and the new root accepts it: neither does the other's part"
        )
    if order.kind is Kind.SUCCESSOR:
        return _certificate_draft(
            draft_root(terms.new, terms.trust_domain, terms.issued_at, ROOT_TTL_S), rules
        )
    message = terms.old_bytes() if order.kind is Kind.SUCCESSION else terms.new_bytes()
    successor = terms.new if order.kind is Kind.SUCCESSION else b""
    return Draft(
        message=message,
        root_public=rules.root_public,
        finish=lambda signature: signature,
        successor=successor,
    )


def _check_ttl(order: Order, what: str, ttl_s_max: int) -> None:
    if not 0 < order.ttl_s <= ttl_s_max:
        raise OrderError(f"{what} lives for at most {span(ttl_s_max)} here, {order.ttl_s} s were asked for")
