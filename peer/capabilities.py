"""Who may publish what: rights as a function of the signed records.

Everybody who is not told otherwise by its token may publish (`Credential.publish`). What narrows that are
`Capability` documents (`proxy/resources/capability.py`), and whom to believe about them begins at the credentials: the
root signed into some that their node *governs*. The founder's does, and that of whom a governor's token admitted as one
(`trust/admission.py`); nobody becomes a governor by anything that is replicated.

Closing.     The first Capability of a governor that names a namespace closes it: from then on only governors and those
             whom Capabilities name write there. "*" closes all there are and will be. A governor's peer writes that
             down beside the Capability, in a record of kind `closure` with the namespace as its key, and closures
             are never taken back: deleting or narrowing the last Capability leaves the namespace to the governors, and
             so does revoking the one who wrote it. It is opened again by saying so: a Capability for `{node: "*"}`.
Granting.    Rights are about pairs of a namespace and a kind of resource. A subject holds a pair if a Capability names
             both, and its author may delegate the pair: because it governs, or because a Capability in force grants it
             that with `delegate: true`. Rights are the least fixed point of this: what follows from
             the governors, step by step, so two who only grant to one another hold nothing. A delegate that writes
             "*" grants what it may delegate, not more. Taking a right from a delegate takes along what was granted
             through it and by nobody else.
Editing.     A Capability is changed and deleted by its author or by a governor. A governor's version of a name stands
             alone, whatever delegates write under the same name. Concurrent versions of governors grant what *all* of
             them grant. One delegate's version says nothing about another's of the same name: both are listed, each
             grants out of its own author's rights. So who loses a right by an edit is never who made that edit count,
             and the fixed point exists.
Authors.     A subject is a node, or the key of a person who signs documents that any member may publish for her or him
             (`peer/authored.py`). Such a record is its author's here and the member that published it is nobody.
Judging.     Rights are judged when records are read, by what is known then. A policy that was legal when it was written
             is obeyed no longer once its author has lost the right, and what it replaced is in force again. What a
             revoked node wrote counts for nothing, but what it closed stays closed. A node that has not heard of a
             Capability yet decides without it; nobody can leave out part of one writer's journal (`crdt/record.py`),
             so all that a courier can do is to be late.
Ceilings.    The token's word comes first: a Capability does not let a node publish whose token withheld that. Names and
             kinds are compared as they are written, and what is written in other letters is no namespace and no kind.

Cost: a pair is answered by a walk over the grants that include it (linear, and remembered), started at the governors,
so what people without rights write is never walked.

Invariant: equal records, credentials and revocations give equal rights, in whichever order they came.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Final

from crdt.clock import VersionVector
from crdt.journal import Journal
from crdt.ormap import live_versions
from crdt.record import Record
from crdt.register import versions
from peer.authored import ANNOTATION, as_written, is_authored
from peer.messages import Draft
from peer.recordindex import RecordIndex
from peer.records import CLOSURE, POLICY, PayloadError, Registry, decode_policy
from proxy.resources.capability import CAPABILITY, EVERY, CapabilitySpec, Subject
from proxy.resources.resource import Resource, parse_resource
from proxy.resources.wording import ResourceError
from trust.credential import Credential
from trust.identity import format_id, node_id, parse_id

CAPABILITIES_PER_DELEGATE_MAX: Final = (
    256  # the first ones by name count; governors have no bound but the journal's
)
ANSWERS_MAX: Final = 65_536  # pairs remembered
AUTHORED_MAX: Final = 16_384  # records with an author's signature, remembered
PAIRS_TRIED_MAX: Final = 2_048  # to see whether a delegate's Capability has any effect
EVERYBODY: Final = b"*"  # among subjects: every member

_PREFIX: Final = f"{CAPABILITY}/"
_CLOSED: Final = b"\x01"


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


@dataclass(frozen=True, slots=True)
class Grant:
    """What one Capability says, or what several concurrent ones agree in. Subjects are ids of nodes' and
    authors' keys, or EVERYBODY."""

    subjects: frozenset[bytes]
    namespaces: frozenset[str]
    kinds: frozenset[str]
    delegate: bool

    def includes(self, namespace: str, kind: str) -> bool:
        """Whether it is about this pair. "*" is included in "*" alone."""
        return _has(self.namespaces, namespace) and _has(self.kinds, kind)


NOTHING: Final = Grant(frozenset(), frozenset(), frozenset(), False)


def _has(names: frozenset[str], name: str) -> bool:
    return name in names or EVERY in names


def _common(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    if EVERY in one:
        return other
    return one if EVERY in other else one & other


def agreed(grants: Iterable[Grant]) -> Grant:
    """What every one of these grants: the reading of concurrent versions. Nothing, if there are none."""
    result: Grant | None = None
    for grant in grants:
        if result is None:
            result = grant
            continue
        if EVERYBODY in result.subjects:
            subjects = grant.subjects
        elif EVERYBODY in grant.subjects:
            subjects = result.subjects
        else:
            subjects = result.subjects & grant.subjects
        result = Grant(
            subjects,
            _common(result.namespaces, grant.namespaces),
            _common(result.kinds, grant.kinds),
            result.delegate and grant.delegate,
        )
    return result or NOTHING


def read_grant(record: Record) -> Grant | None:
    """What a Capability record says; None if it cannot be read here, and then it grants nothing."""
    try:
        resource = parse_resource(decode_policy(record.payload))
    except (PayloadError, ResourceError, ValueError):
        return None
    spec = resource.spec
    if resource.key != record.key or not isinstance(spec, CapabilitySpec):
        return None
    return _grant(spec)


def _grant(spec: CapabilitySpec) -> Grant:
    return Grant(
        frozenset(map(_subject, spec.subjects)),
        frozenset(spec.namespaces),
        frozenset(spec.kinds),
        spec.delegate,
    )


def _subject(subject: Subject) -> bytes:
    if subject.author is not None:
        return node_id(bytes.fromhex(subject.author))
    assert subject.node is not None
    return EVERYBODY if subject.node == EVERY else parse_id(subject.node)


class Authors:
    """Who is behind a record: each signature is verified once while it is asked for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[bytes, int, bytes], Record | PayloadError] = {}

    def of(self, record: Record) -> Record:
        """The record as its author's: `as_written`. Raises PayloadError."""
        if not is_authored(record):
            return record
        place = (record.writer, record.seq, record.signature)
        found = self._known.get(place)
        if found is None:
            try:
                found = as_written(record, self._registry.root, self._registry.crypto.verify)
            except PayloadError as error:
                found = error
            if len(self._known) >= AUTHORED_MAX:
                self._known.clear()
            self._known[place] = found
        if isinstance(found, PayloadError):
            raise found
        claimed = (found.writer, found.seq) != (record.writer, record.seq)
        if claimed and found.writer in self._registry.credentials:
            raise PayloadError("the key of a node is no author's")
        return found

    def read(self, record: Record) -> Record:
        """The same, but for a claim that does not hold: then the record itself."""
        try:
            return self.of(record)
        except PayloadError:
            return record

    def claimant(self, record: Record) -> bytes:
        """Whose standing matters besides the writer's: who signed the document, author or not. The writer itself, if
        nobody did."""
        if not is_authored(record):
            return record.writer
        self.read(record)
        found = self._known[record.writer, record.seq, record.signature]
        return record.writer if isinstance(found, PayloadError) else found.writer


def distinct(records: Iterable[Record]) -> list[Record]:
    """The newest of each author under each key; where two of them contradict each other under one number, neither. One
    that several members published has seen what any of them had seen."""
    newest: dict[tuple[bytes, str], Record] = {}
    torn: set[tuple[bytes, str, int]] = set()
    for record in records:
        place = (record.writer, record.key)
        known = newest.get(place)
        if known is None or known.seq < record.seq:
            newest[place] = record
        elif known.seq == record.seq and known.payload != record.payload:
            torn.add((*place, record.seq))
        elif known.seq == record.seq:
            context = VersionVector([*known.context, *record.context]).entries
            newest[place] = replace(known, context=context)
    return [record for place, record in newest.items() if (*place, record.seq) not in torn]


class Rights:
    """What follows from the Capabilities of one moment. Immutable, but for what it remembers of its own answers and for
    credentials and revocations, which it asks `registry` for."""

    def __init__(
        self,
        registry: Registry,
        authors: "Authors",
        *,
        governing: Mapping[str, Sequence[Record]],
        governed: Sequence[Grant],
        granted: Mapping[bytes, Mapping[str, tuple[int, Grant]]],
        closed: Iterable[str],
    ) -> None:
        """`governing` are the records of governors by key, `governed` what those grant; `granted` what delegates do,
        with the seq of the record, by delegate and key."""
        self._registry = registry
        self.authors = authors
        self._governing = governing
        self._granted = granted
        self._closed = frozenset(closed)
        self._index: dict[bytes, dict[str, list[Grant]]] = {}
        self._named: set[str] = set()
        self._named_kinds: set[str] = set()
        sources = {EVERYBODY: list(governed)}  # stands for the governors
        sources |= {writer: [grant for _, grant in own.values()] for writer, own in granted.items()}
        for granter, grants in sources.items():
            index = self._index.setdefault(granter, {})
            for grant in grants:
                self._named |= grant.namespaces
                self._named_kinds |= grant.kinds
                for namespace in grant.namespaces:
                    index.setdefault(namespace, []).append(grant)
        self._answers: dict[tuple[str, str], tuple[frozenset[bytes], frozenset[bytes]]] = {}

    # ------------------------------------------------------------------ questions

    def governs(self, node: bytes) -> bool:
        """Whether all rights are this node's."""
        return governs(self._registry, node)

    def closed(self, namespace: str) -> bool:
        """Whether only who is named may write there."""
        return _has(self._closed, namespace)

    def may_write(self, node: bytes, namespace: str, kind: str) -> bool:
        """Whether a member may publish resources of that kind there (its credential's own limits aside)."""
        if not self.closed(namespace) or self.governs(node):
            return True
        holders, _ = self._holders(namespace, kind)
        return node in holders or EVERYBODY in holders

    def may_delegate(self, node: bytes, namespace: str, kind: str) -> bool:
        """Whether a member may grant that to others; "*" asks for all of them."""
        return self.governs(node) or node in self._holders(namespace, kind)[1]

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
        if self._has_effect(record):
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
        capability = record.key.startswith(_PREFIX)
        if capability and not record.deleted:
            grant = read_grant(record)
            if grant is None:
                return "this Capability cannot be read"
            for namespace, kind in _pairs(grant):
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
            if record.key.startswith(_PREFIX):
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

    def _holders(self, namespace: str, kind: str) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """(who may write that, who may delegate it), governors aside."""
        # What nobody has named is all the same: "*" is about it, and nothing else.
        pair = (
            namespace if namespace in self._named else EVERY,
            kind if kind in self._named_kinds else EVERY,
        )
        known = self._answers.get(pair)
        if known is not None:
            return known
        if len(self._answers) >= ANSWERS_MAX:
            self._answers.clear()
        holders: set[bytes] = set()
        delegates: set[bytes] = set()
        ahead = [EVERYBODY]  # stands for the governors
        while ahead:
            index = self._index.get(ahead.pop(), {})
            for name in {pair[0], EVERY}:
                for grant in index.get(name, ()):
                    if not _has(grant.kinds, pair[1]):
                        continue
                    holders |= grant.subjects
                    if grant.delegate:
                        fresh = grant.subjects - delegates - {EVERYBODY}
                        delegates |= fresh
                        ahead += fresh
        self._answers[pair] = answer = (frozenset(holders), frozenset(delegates))
        return answer

    def _has_effect(self, record: Record) -> bool:
        """Whether a delegate's Capability grants anything. One with more pairs than are tried is taken to: that it is
        listed does not widen what it grants."""
        grant = self._grant_of(record)
        namespaces = self._named | {EVERY} if EVERY in grant.namespaces else grant.namespaces
        kinds = self._named_kinds | {EVERY} if EVERY in grant.kinds else grant.kinds
        pairs = _pairs(replace(grant, namespaces=frozenset(namespaces), kinds=frozenset(kinds)))
        tried = list(islice(pairs, PAIRS_TRIED_MAX))
        return len(tried) == PAIRS_TRIED_MAX or any(self.may_delegate(record.writer, *each) for each in tried)

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


Standing = tuple[Credential | None, bool]


def standing(registry: Registry, who: bytes) -> Standing:
    """All that a registry knows of a writer and judging may ask for: (credential, whether it is revoked)."""
    credential = registry.credentials.get(who)
    return credential, credential is not None and registry.revocations.ever_covered(credential.spiffe)


class Capabilities:
    """The rights that follow from a journal, kept until what they follow from changes. `index` is what it reads."""

    def __init__(self, journal: Journal, registry: Registry) -> None:
        self.index = RecordIndex(journal, (POLICY, CLOSURE))
        self.authors = Authors(registry)
        self._registry = registry
        self._changed = self.index.follow()
        self._keys: dict[str, None] = {}  # of Capabilities
        self._standings: dict[
            bytes, Standing
        ] = {}  # of all behind Capabilities and closures, at the last look
        self._basis: frozenset[tuple[object, ...]] = frozenset()
        self._rights = Rights(registry, self.authors, governing={}, governed=(), granted={}, closed=())
        self._read: dict[tuple[bytes, str, int], Grant] = {}

    def rights(self) -> Rights:
        """The rights of this moment: the same object for as long as they are the same. To find that out costs a look at
        each writer, and at each of those whose Capabilities changed; never at all policies."""
        self.index.catch_up()
        moved = self._take_changes()
        if not moved and all(standing(self._registry, who) == was for who, was in self._standings.items()):
            return self._rights
        records = [record for key in self._keys for record in self.index.of(POLICY, key)]
        closures = self._closures()
        people = {each.writer for each in (*records, *closures)} | set(map(self.authors.claimant, records))
        self._standings = {who: standing(self._registry, who) for who in people}
        basis = frozenset(self._standing(each) for each in (*records, *closures))
        if basis != self._basis:
            self._rights = self._derive(records, closures)
            self._basis = basis
        return self._rights

    def refusal(self, record: Record) -> str:
        """Why this node must not write the record; "" if it may."""
        if record.kind != POLICY:
            return self._registry.objection(record)
        rights = self.rights()
        return rights.refusal(record, self.index.of(POLICY, record.key))

    def seen(self, key: str) -> list[Record]:
        """The records of a policy's key, those of authors both as published and as written: what an edit has seen."""
        self.index.catch_up()
        records = self.index.of(POLICY, key)
        authored = ((record, self.authors.read(record)) for record in records)
        return [*records, *(read for record, read in authored if read is not record)]

    def closing(self, writer: bytes, resources: Iterable[Resource]) -> list[Draft]:
        """What a governor writes beside its Capabilities, so that the namespaces they name stay closed."""
        if not governs(self._registry, writer):
            return []
        self.index.catch_up()
        known = {record.key for record in self._closures() if self._closes(record)}
        named = {
            namespace
            for resource in resources
            if isinstance(resource.spec, CapabilitySpec) and ANNOTATION not in resource.annotations
            for namespace in resource.spec.namespaces
        }
        return [Draft(kind=CLOSURE, key=each, payload=_CLOSED) for each in sorted(named - known)]

    def _take_changes(self) -> bool:
        """Whether a Capability or a closure is among what changed since this was last asked."""
        moved = False
        for kind, key in sorted(self._changed):
            if kind == CLOSURE:
                moved = True
            elif key.startswith(_PREFIX):
                moved = True
                if self.index.of(POLICY, key):
                    self._keys[key] = None
                else:
                    self._keys.pop(key, None)
        self._changed.clear()
        return moved

    def _closures(self) -> list[Record]:
        return [record for key in self.index.keys(CLOSURE) for record in self.index.of(CLOSURE, key)]

    def _standing(self, record: Record) -> tuple[object, ...]:
        """A record and all that its meaning depends on."""
        credential = self._registry.credentials.get(record.writer)
        if credential is None:
            return (record.dot,)
        revoked = self._registry.revocations.ever_covered(credential.spiffe)
        return (record.dot, credential.govern, credential.publish, revoked, self._author(record))

    def _author(self, record: Record) -> bytes:
        try:
            return self.authors.of(record).writer
        except PayloadError:
            return b""

    def _derive(self, records: Iterable[Record], closures: Iterable[Record]) -> Rights:
        closed = {record.key for record in closures if self._closes(record)}
        governing: dict[str, list[Record]] = {}
        others: dict[bytes, list[Record]] = {}
        read: dict[tuple[bytes, str, int], Grant] = {}

        def grant_of(record: Record) -> Grant:
            place = (record.writer, record.key, record.seq)
            if place not in read:
                read[place] = self._read.get(place) or read_grant(record) or NOTHING
            return read[place]

        read_as: list[Record] = []
        for record in records:
            try:
                authored = self.authors.of(record)
            except PayloadError:
                continue
            if not authored.deleted and self._closes(authored):
                closed |= grant_of(authored).namespaces
            if not self._registry.objection(record):
                read_as.append(authored)
        for record in distinct(read_as):
            if governs(self._registry, record.writer):
                governing.setdefault(record.key, []).append(record)
            else:
                others.setdefault(record.writer, []).append(record)
        governed = [agreed(map(grant_of, versions(several))) for _, several in sorted(governing.items())]
        granted: dict[bytes, dict[str, tuple[int, Grant]]] = {}
        ahead = [governed]
        while ahead:  # what is written by those who cannot be delegates is not even read
            for grant in ahead.pop():
                for subject in grant.subjects if grant.delegate else ():
                    if subject in granted or subject == EVERYBODY:
                        continue
                    own = [each for each in others.get(subject, ()) if not each.deleted]
                    own = [each for each in own if overruled(each, governing) is None]
                    first = sorted(own, key=_key)[:CAPABILITIES_PER_DELEGATE_MAX]
                    granted[subject] = {each.key: (each.seq, grant_of(each)) for each in first}
                    ahead.append([grant for _, grant in granted[subject].values()])
        self._read = read
        return Rights(
            self._registry,
            self.authors,
            governing=governing,
            governed=governed,
            granted=granted,
            closed=closed,
        )

    def _closes(self, record: Record) -> bool:
        """Whether it is the word of one who governs, or did before it was revoked."""
        credential = self._registry.credentials.get(record.writer)
        return credential is not None and credential.govern


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


def _pairs(grant: Grant) -> Iterator[tuple[str, str]]:
    return ((namespace, kind) for namespace in sorted(grant.namespaces) for kind in sorted(grant.kinds))


def _every(name: str, what: str) -> str:
    if name == EVERY:
        return f"every {what}"
    return name if what == "kind" else f"{what} {name}"
