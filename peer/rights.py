"""What the rights of one moment say of records: which are obeyed, and why not the others.

The theory is that of `peer/capabilities.py`; this is its answer for one set of Capabilities, in the words that their
authors, the metrics and the log are given.

Invariant: whatever grants anything is obeyed, so that it is listed too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from crdt.ormap import live_versions
from crdt.record import Record
from crdt.register import versions
from peer.authors import Authors, distinct
from peer.grants import EVERYBODY, NOTHING, Grant, Grants, agreed, includes, pairs_of, read_grant
from peer.records import PayloadError, Registry
from proxy.resources.capability import CAPABILITY, EVERY
from trust.identity import format_id

CAPABILITIES_PER_DELEGATE_MAX: Final = (
    256  # the first ones by name count; governors have no bound but the journal's
)
PREFIX: Final = f"{CAPABILITY}/"  # of the keys of Capabilities


class Reason(StrEnum):
    """Why a policy is not obeyed, in a word: a label of metrics."""

    UNKNOWN_WRITER = "unknown_writer"
    REVOKED = "revoked"
    WITHHELD = "withheld"  # by its token
    MALFORMED = "malformed"
    NAMESPACE_CLOSED = "namespace_closed"
    NOT_A_DELEGATE = "not_a_delegate"
    OVERRULED = "overruled"
    TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record is not obeyed."""

    reason: Reason
    words: str


class Rights:
    """What follows from the Capabilities of one moment. Immutable, but for what it remembers of its own answers and for
    credentials and revocations, which it asks `registry` for."""

    def __init__(
        self,
        registry: Registry,
        authors: Authors,
        *,
        governing: Mapping[str, Sequence[Record]],
        governed: Sequence[Grant],
        granted: Mapping[bytes, Mapping[str, tuple[int, Grant]]],
        closed: frozenset[str],
    ) -> None:
        """`governing` are the records of governors by key, `governed` what those grant; `granted` what delegates do,
        with the seq of the record, by delegate and key."""
        self._registry = registry
        self.authors = authors
        self._governing = governing
        self._granted = granted
        self._closed = closed
        self._basis = (governing, governed, granted, closed)
        self._grants = Grants(
            governed, {who: [grant for _, grant in own.values()] for who, own in granted.items()}
        )

    def same_as(self, other: "Rights") -> bool:
        """Whether both answer alike, whatever they are asked."""
        return self._basis == other._basis

    # ------------------------------------------------------------------ questions

    def governs(self, node: bytes) -> bool:
        """Whether all rights are this node's."""
        return governs(self._registry, node)

    def closed(self, namespace: str) -> bool:
        """Whether only who is named may write there."""
        return includes(self._closed, namespace)

    def may_write(self, node: bytes, namespace: str, kind: str) -> bool:
        """Whether a member may publish resources of that kind there (its credential's own limits aside)."""
        writers = self.writers(namespace, kind)
        return writers is None or node in writers or self.governs(node)

    def writers(self, namespace: str, kind: str) -> frozenset[bytes] | None:
        """Who may, governors aside; None: everybody."""
        if not self.closed(namespace):
            return None
        holders, _ = self._grants.holders(namespace, kind)
        return None if EVERYBODY in holders else holders

    def may_delegate(self, node: bytes, namespace: str, kind: str) -> bool:
        """Whether a member may grant that to others; "*" asks for all of them."""
        return self.governs(node) or node in self._grants.holders(namespace, kind)[1]

    def objection(self, record: Record) -> Refusal | None:
        """Why a policy record is not obeyed; None if it is."""
        registry = self._registry
        words = registry.objection(record)
        if words:
            return Refusal(_reason(registry, record), words)
        try:
            record = self.authors.of(record)
        except PayloadError as error:
            return Refusal(Reason.MALFORMED, str(error))
        who = self._name(record.writer)
        kind, namespace, _ = record.key.split("/")
        if kind != CAPABILITY:
            if self.may_write(record.writer, namespace, kind):
                return None
            return Refusal(
                Reason.NAMESPACE_CLOSED,
                f"{who} may not write {kind} in namespace {namespace}, which is closed to all but those "
                "whom Capabilities name",
            )
        if self.governs(record.writer):
            return None
        own = self._granted.get(record.writer)
        if own is None:
            return Refusal(Reason.NOT_A_DELEGATE, f"{who} may not grant rights to anybody")
        governor = overruled(record, self._governing)
        if governor is not None:
            return Refusal(Reason.OVERRULED, self._owned(record, governor))
        if record.deleted:
            return None
        if record.key not in own and len(own) >= CAPABILITIES_PER_DELEGATE_MAX:
            words = f"{who} has {len(own)} Capabilities, as many as count"
            return Refusal(Reason.TOO_MANY, words)
        if self._grants.has_effect(record.writer, self._grant_of(record)):
            return None
        return Refusal(Reason.NOT_A_DELEGATE, f"{who} may not delegate what its Capability would grant")

    def refusal(self, record: Record, others: Iterable[Record]) -> str:
        """Why the node must not write this record: stricter than how it would be read, since its author can still be
        told. `others` are the records of the same key. "" if it may."""
        found = self.objection(record)
        if found is not None and found.reason is not Reason.NOT_A_DELEGATE:
            return found.words
        record = self.authors.of(record)
        obeyed = [self.authors.of(each) for each in others if self.objection(each) is None]
        if any(each.writer == record.writer and each.seq > record.seq for each in obeyed):
            return "a document that its author signed later is published already"
        capability = record.key.startswith(PREFIX)
        if capability and not record.deleted:
            grant = read_grant(record)
            if grant is None:
                return "this Capability cannot be read"
            for namespace, kind in pairs_of(grant):
                if not self.may_delegate(record.writer, namespace, kind):
                    return (
                        f"{self._name(record.writer)} may not delegate {_every(kind, 'kind')} in "
                        f"{_every(namespace, 'namespace')}"
                    )
        if found is not None:
            return found.words
        if capability and not self.governs(record.writer):
            for other in self.live(obeyed).get(record.key, ()):
                if other.writer != record.writer:
                    return self._owned(record, other)
        return ""

    def live(self, records: Iterable[Record]) -> dict[str, tuple[Record, ...]]:
        """The current versions by key (`crdt.ormap.live_versions`) of policy records that are obeyed,
        each as its author's (`peer/authored.py`)."""
        policies: list[Record] = []
        capabilities: dict[str, list[Record]] = {}
        for record in distinct(map(self.authors.of, records)):
            if record.key.startswith(PREFIX):
                capabilities.setdefault(record.key, []).append(record)
            else:
                policies.append(record)
        found = live_versions(policies)
        for key, several in capabilities.items():
            current = versions(each for each in several if self.governs(each.writer))
            if not current:
                own = [each for each in several if not each.deleted and not self.governs(each.writer)]
                current = tuple(sorted(own, key=lambda each: (each.hlc, each.writer), reverse=True))
            if current:
                found[key] = current
        return dict(sorted(found.items()))

    # ------------------------------------------------------------------ inside

    def _grant_of(self, record: Record) -> Grant:
        """What a delegate's Capability says; a draft is not among those that were read."""
        known = self._granted[record.writer].get(record.key)
        if known is not None and known[0] == record.seq:
            return known[1]
        return read_grant(record) or NOTHING

    def _owned(self, record: Record, owner: Record) -> str:
        name = record.key.rpartition("/")[2]
        return (
            f"Capability {name} is that of {self._name(owner.writer)}: only its author and who governs the mesh may "
            "change it"
        )

    def _name(self, writer: bytes) -> str:
        credential = self._registry.credentials.get(writer)
        return credential.name if credential is not None else f"author {format_id(writer)}"


def derive(
    registry: Registry,
    authors: Authors,
    *,
    governing: Mapping[str, Sequence[Record]],
    others: Mapping[bytes, Mapping[str, Record]],
    closed: frozenset[str],
    grant_of: Callable[[Record], Grant],
) -> Rights:
    """The rights that follow from Capabilities: those of governors by key, and those of all others by author and key.
    Of these only those of delegates are looked at. `grant_of` reads one."""
    governed = [agreed(map(grant_of, versions(several))) for _, several in sorted(governing.items())]
    granted: dict[bytes, dict[str, tuple[int, Grant]]] = {}
    ahead = [governed]
    while ahead:  # what is written by those who cannot be delegates is not even read
        for grant in ahead.pop():
            for subject in grant.subjects if grant.delegate else ():
                if subject in granted or subject == EVERYBODY:
                    continue
                own = [each for each in others.get(subject, {}).values() if not each.deleted]
                own = [each for each in own if overruled(each, governing) is None]
                first = sorted(own, key=_key)[:CAPABILITIES_PER_DELEGATE_MAX]
                granted[subject] = {each.key: (each.seq, grant_of(each)) for each in first}
                ahead.append([grant for _, grant in granted[subject].values()])
    return Rights(
        registry,
        authors,
        governing=governing,
        governed=governed,
        granted=granted,
        closed=closed,
    )


def governs(registry: Registry, node: bytes) -> bool:
    """Whether the root says that this node governs, and has not revoked it."""
    credential = registry.credentials.get(node)
    return (
        credential is not None
        and credential.govern
        and credential.publish
        and not registry.revocations.ever_covered(credential.spiffe)
    )


def overruled(record: Record, governing: Mapping[str, Sequence[Record]]) -> Record | None:
    """The governor's record because of which a delegate's does not count. `governing` are governors' records by key."""
    several = governing.get(record.key, ())
    current = versions(several)
    if current:
        return current[0]
    for each in several:
        if each.hlc > record.hlc and dict(each.context).get(record.writer, 0) >= record.seq:
            return each
    return None


def _reason(registry: Registry, record: Record) -> Reason:
    credential = registry.credentials.get(record.writer)
    if credential is None:
        return Reason.UNKNOWN_WRITER
    if registry.revocations.ever_covered(credential.spiffe):
        return Reason.REVOKED
    return Reason.MALFORMED if credential.publish else Reason.WITHHELD


def _key(record: Record) -> str:
    return record.key


def closes(registry: Registry, record: Record) -> bool:
    """Whether it is the word of one who governs, or did before it was revoked."""
    credential = registry.credentials.get(record.writer)
    return credential is not None and credential.govern


def _every(name: str, what: str) -> str:
    if name == EVERY:
        return f"every {what}"
    return name if what == "kind" else f"{what} {name}"
