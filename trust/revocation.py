"""Revocations: signed statements that something issued is no longer to be believed, and the set that holds them.

A revocation names its subject as text: a node or workload SPIFFE ID, `serial:<32 hex digits>` for one credential
or one certificate, or `signer:<node id>` for a node's part in the root key while the node itself stays a member.
It is believed when the mesh root signed it, or when a node revokes *itself* or its own part (who holds the
key may declare it lost; the key is in the statement and hashes to the id, so nothing else is needed to check).
The set only grows (a grow-only set converges in any order); an entry leaves when its `expires_at` has passed,
which is why that must lie beyond the life of whatever it revokes: for a node also beyond the grace in which
an expired credential may still be renewed. That a node *was* revoked is remembered for longer (`ever_covered`): what
it signed does not expire with its credential, and must not be believed again.

Invariant: revoking a node covers its credential, its node SVID and every workload SVID made out to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from trust.authority import Authority
from trust.codec import Field, Reader, pack, signed_bytes
from trust.credential import CREDENTIAL_TTL_S_MAX, Credential
from trust.errors import IdentityError, RevocationError, RevokedError
from trust.identity import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    SPIFFE_CHARS_MAX,
    NodeIdentity,
    NodeSpiffe,
    format_id,
    node_id,
    parse_id,
    parse_spiffe,
    spiffe_node,
    verify,
)
from trust.roots import Root, is_root
from trust.svid import Svid

REVOCATION_BYTES_MAX: Final = 4096
REASON_CHARS_MAX: Final = 256
RENEWAL_GRACE_S: Final = 30 * 86_400  # a host that was off for a month comes back without a new token
NODE_REVOCATION_S: Final = CREDENTIAL_TTL_S_MAX + RENEWAL_GRACE_S
# All last that long, but those of nodes must: no name or serial can stand in anything that is valid for longer.
REVOCATION_S: Final = NODE_REVOCATION_S
REVOCATIONS_MAX: Final = (
    16_384  # of each kind of issuer: nodes that revoke themselves cannot crowd out the root
)
PAST_MAX: Final = 65_536  # nodes whose revocations have expired

SubjectKind: TypeAlias = Literal["node", "workload", "certificate", "signer"]

_LABEL: Final = b"gossamer/revocation/1"


def serial_subject(serial: bytes) -> str:
    """How a credential's or certificate's serial (16 bytes) is named as a subject."""
    return f"serial:{serial.hex()}"


def signer_subject(node: bytes) -> str:
    """How a node's part in the root key is named as a subject."""
    return f"signer:{format_id(node)}"


def subject_kind(subject: str) -> SubjectKind:
    """What is revoked. Raises RevocationError."""
    check_subject(subject)
    match subject.partition(":")[0]:
        case "serial":
            return "certificate"
        case "signer":
            return "signer"
    return "node" if _is_node(subject) else "workload"


def check_subject(subject: str) -> str:
    """`subject` itself if it can be revoked. Raises RevocationError."""
    kind, _, rest = subject.partition(":")
    if kind == "serial":
        if len(rest) == 32 and all(digit in "0123456789abcdef" for digit in rest):
            return subject
        raise RevocationError(f"{subject[:64]!r} is not a serial: serial: and 32 hex digits are expected")
    if kind == "signer":
        try:
            parse_id(rest)
        except IdentityError as error:
            raise RevocationError(f"{subject[:64]!r} is no signer: {error}") from None
        return subject
    try:
        parse_spiffe(subject)
    except IdentityError as error:
        raise RevocationError(f"cannot be revoked: {error}") from None
    return subject


def check_domain(subject: str, trust_domain: str) -> None:
    """Raise RevocationError for what cannot be revoked, and for the name of something in another trust domain."""
    if subject_kind(subject) in ("node", "workload") and parse_spiffe(subject).trust_domain != trust_domain:
        raise RevocationError(f"{subject} is not in trust domain {trust_domain!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """`subject` is revoked until `expires_at` (Unix s), after which nothing it named is valid anyway."""

    subject: str
    reason: str
    revoked_at: int
    expires_at: int
    issuer: bytes  # Ed25519 public key of the root, or of the node that revokes itself
    signature: bytes = b"\0" * SIGNATURE_BYTES

    def signing_bytes(self) -> bytes:
        """What the issuer signs."""
        return signed_bytes(_LABEL, self._fields())

    def signed(self, signature: bytes) -> "Revocation":
        """The same with `signature` in place."""
        return replace(self, signature=signature)

    def encode(self) -> bytes:
        """The wire form."""
        return pack([*self._fields(), self.signature])

    def _fields(self) -> list[Field]:
        return [self.subject, self.reason, self.revoked_at, self.expires_at, self.issuer]


def revoke(authority: Authority, subject: str, *, reason: str, now: float, expires_at: float) -> Revocation:
    """A revocation by the mesh root. For a node, `expires_at` is at least `now + NODE_REVOCATION_S`. Raises
    RevocationError or AuthorityError."""
    draft = _draft(subject, reason, now, expires_at, authority.root_public)
    signed = replace(draft, signature=authority.sign(draft.signing_bytes()))
    verify_revocation(signed, authority.root_public, _trust_domain(subject))
    return signed


def revoke_self(identity: NodeIdentity, trust_domain: str, *, reason: str, now: float) -> Revocation:
    """A node declares its own key void. Raises RevocationError."""
    subject = spiffe_node(trust_domain, identity.id)
    draft = _draft(subject, reason, now, now + NODE_REVOCATION_S, identity.public_key)
    return replace(draft, signature=identity.sign(draft.signing_bytes()))


def unsigned_revocation(subject: str, reason: str, now: float, root_public: bytes) -> Revocation:
    """What the mesh root signs to revoke `subject`. Raises RevocationError."""
    return _draft(subject, reason, now, now + REVOCATION_S, root_public)


def decode_revocation(data: bytes) -> Revocation:
    """Inverse of `Revocation.encode`. Raises RevocationError. Nothing is verified."""
    reader = Reader(data, count=6, bytes_max=REVOCATION_BYTES_MAX, what="a revocation", error=RevocationError)
    return Revocation(
        subject=check_subject(reader.text(SPIFFE_CHARS_MAX)),
        reason=reader.text(REASON_CHARS_MAX),
        revoked_at=reader.integer(),
        expires_at=reader.integer(),
        issuer=reader.raw(KEY_BYTES),
        signature=reader.raw(SIGNATURE_BYTES),
    )


def verify_revocation(revocation: Revocation, root_public: Root, trust_domain: str) -> None:
    """Raise RevocationError unless its issuer was entitled to it and signed it. Keys cost nothing to make, so the
    caller takes self-revocations from members only: from the journal of the very node that revokes itself."""
    check_domain(revocation.subject, trust_domain)
    lasting = revocation.expires_at - revocation.revoked_at >= NODE_REVOCATION_S
    if _is_node(revocation.subject) and not lasting:
        raise RevocationError(f"the revocation of {revocation.subject} ends before what it revokes does")
    if not is_root(root_public, revocation.issuer):
        issuer = node_id(revocation.issuer)
        own = spiffe_node(trust_domain, issuer)
        if revocation.subject not in (own, signer_subject(issuer)):
            raise RevocationError(f"{own} may revoke nothing but itself, not {revocation.subject}")
    if not verify(revocation.issuer, revocation.signing_bytes(), revocation.signature):
        raise RevocationError(f"the revocation of {revocation.subject} is not signed by its issuer")


class RevocationSet:
    """The revocations a node knows, by subject. The caller verifies before it adds."""

    __slots__ = ("_entries", "_past", "_root_public", "_self_count", "added")

    def __init__(self, root_public: Root) -> None:
        self._root_public = root_public
        self._entries: dict[str, Revocation] = {}
        self._past: set[str] = set()  # nodes whose revocations have expired
        self._self_count = 0
        self.added = 0  # how often there was news

    def add(self, revocation: Revocation) -> bool:
        """Whether it was news. Of two for one subject the root's stays, then the one that lasts longer, then the
        greater encoding, so that replicas agree whatever the order. Raises RevocationError when the set is full."""
        known = self._entries.get(revocation.subject)
        if known is not None:
            if self._rank(known) >= self._rank(revocation):
                return False
            self._self_count -= self._by_self(known)
        by_self = self._by_self(revocation)
        held = self._self_count if by_self else len(self._entries) - self._self_count
        if known is None and held >= REVOCATIONS_MAX:
            raise RevocationError(
                f"{revocation.subject} is not recorded: {REVOCATIONS_MAX} revocations are the most"
            )
        self._entries[revocation.subject] = revocation
        self._self_count += by_self
        self.added += 1
        return True

    def prune(self, now: float) -> int:
        """Forget what has expired; how many that were. Of nodes it stays known that there was something; when they are
        too many for that, their entries stay."""
        expired = [subject for subject, entry in self._entries.items() if entry.expires_at <= now]
        nodes = [subject for subject in expired if _is_node(subject)]
        kept = set(nodes[max(0, PAST_MAX - len(self._past)) :])
        self._past.update(each for each in nodes if each not in kept)
        expired = [subject for subject in expired if subject not in kept]
        for subject in expired:
            self._self_count -= self._by_self(self._entries.pop(subject))
        return len(expired)

    def covers(self, subject: str) -> Revocation | None:
        """The revocation of exactly this SPIFFE ID or `serial:<hex>`, if there is one."""
        return self._entries.get(subject)

    def ever_covered(self, subject: str) -> bool:
        """Whether this SPIFFE ID is revoked, or it is a node's and was."""
        return subject in self._entries or subject in self._past

    def check(self, *subjects: str) -> None:
        """Raise RevokedError if any of the subjects is revoked."""
        for subject in subjects:
            if (entry := self._entries.get(subject)) is not None:
                raise RevokedError(f"{subject} has been revoked: {entry.reason or 'no reason given'}")

    def check_credential(self, credential: Credential) -> None:
        """Raise RevokedError if the credential or its node is revoked."""
        if self._entries:
            self.check(credential.spiffe, serial_subject(credential.serial))

    def check_svid(self, svid: Svid) -> None:
        """Raise RevokedError if the leaf, its identity, or the node that holds its key is revoked. This is the
        `check` that `trust.tls` takes."""
        if self._entries:
            self.check(svid.spiffe, serial_subject(svid.serial), spiffe_node(svid.id.trust_domain, svid.node))

    def check_signer(self, trust_domain: str, node: bytes) -> None:
        """Raise RevokedError if this node may not take part in signing any more."""
        if self._entries:
            self.check(signer_subject(node), spiffe_node(trust_domain, node))

    def subjects(self) -> tuple[str, ...]:
        """All revoked subjects, sorted."""
        return tuple(sorted(self._entries))

    def __iter__(self) -> Iterator[Revocation]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"RevocationSet({len(self._entries)} revoked, {self._self_count} by themselves)"

    def _by_self(self, entry: Revocation) -> bool:
        return not is_root(self._root_public, entry.issuer)

    def _rank(self, entry: Revocation) -> tuple[bool, int, bytes]:
        return (not self._by_self(entry), entry.expires_at, entry.encode())


def _is_node(subject: str) -> bool:
    return subject.startswith("spiffe:") and isinstance(parse_spiffe(subject), NodeSpiffe)


def _draft(subject: str, reason: str, now: float, expires_at: float, issuer: bytes) -> Revocation:
    if len(reason) > REASON_CHARS_MAX:
        raise RevocationError(f"a reason has at most {REASON_CHARS_MAX} characters, not {len(reason)}")
    if expires_at <= now:
        raise RevocationError(f"the revocation of {subject} would be over before it began")
    return Revocation(
        subject=check_subject(subject),
        reason=reason,
        revoked_at=int(now),
        expires_at=int(expires_at),
        issuer=issuer,
    )


def _trust_domain(subject: str) -> str:
    return parse_spiffe(subject).trust_domain if subject.startswith("spiffe:") else ""
