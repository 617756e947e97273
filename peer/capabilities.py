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

`grants.py` holds what Capabilities say and the walk that answers a pair, `authors.py` who is behind a record, and
`rights.py` the rights of one moment with the reasons it refuses with; here they are kept up to date with a journal.

Cost: a pair is answered by a walk over the grants that include it (linear, and remembered), started at the governors,
so what people without rights write is never walked.

Invariant: equal records, credentials and revocations give equal rights, in whichever order they came.
"""

from collections.abc import Iterable
from typing import Final

from crdt.record import Record
from peer.authored import ANNOTATION
from peer.authors import Authors, distinct
from peer.grants import NOTHING, Grant, read_grant
from peer.messages import Draft
from peer.recordindex import RecordIndex, Source
from peer.records import CLOSURE, POLICY, PayloadError, Registry
from peer.rights import PREFIX, Rights, closes, derive, governs
from peer.standing import Standings
from proxy.resources.capability import CapabilitySpec
from proxy.resources.resource import Resource

_CLOSED: Final = b"\x01"

Place = tuple[str, str]  # (kind, key)


class Capabilities:
    """The rights that follow from a journal, kept until what they follow from changes. `index` is what it reads."""

    def __init__(self, journal: Source, registry: Registry) -> None:
        self.index = RecordIndex(journal, (POLICY, CLOSURE))
        self.authors = Authors(registry)
        self._registry = registry
        self._changed = self.index.follow()
        self._standings: Standings[Place] = Standings(registry)
        self._governing: dict[str, tuple[Record, ...]] = {}  # Capabilities of governors, by key
        self._others: dict[bytes, dict[str, Record]] = {}  # those of all others, by author and key
        self._authors: dict[str, list[bytes]] = {}  # who has one there, by key
        self._closing: dict[Place, frozenset[str]] = {}  # the namespaces that this place closes
        self._read: dict[str, dict[tuple[bytes, int], Grant]] = {}  # by key
        self._rights = self._derived()

    def rights(self) -> Rights:
        """The rights of this moment: the same object for as long as they are the same. To find that out costs a look at
        each writer, and at the Capabilities that changed; what says anything new, a look at those that count."""
        self.index.catch_up()
        places = {(kind, key) for kind, key in self._changed if kind == CLOSURE or key.startswith(PREFIX)}
        self._changed.clear()
        places |= self._standings.moved()
        if places:
            for place in sorted(places):
                self._look_at(place)
            derived = self._derived()
            if not derived.same_as(self._rights):
                self._rights = derived
        return self._rights

    def refusal(self, record: Record) -> str:
        """Why this node must not write the record; "" if it may."""
        if record.kind != POLICY:
            return self._registry.objection(record)
        rights = self.rights()
        return rights.refusal(record, self.index.of(POLICY, record.key))

    def misclaimed(self, record: Record) -> bool:
        """Whether it holds a claim to be somebody's that does not hold: no peer would obey it."""
        try:
            self.authors.of(record)
        except PayloadError:
            return True
        return False

    def seen(self, key: str) -> list[Record]:
        """The records of a policy's key, those of authors both as published and as written: what an edit has seen. An
        author without the right is left out: keys cost nothing, and each would stay in all further contexts."""
        rights = self.rights()
        records = self.index.of(POLICY, key)
        obeyed = (record for record in records if rights.objection(record) is None)
        authored = ((record, self.authors.read(record)) for record in obeyed)
        return [*records, *(read for record, read in authored if read is not record)]

    def closing(self, writer: bytes, resources: Iterable[Resource]) -> list[Draft]:
        """What a governor writes beside its Capabilities, so that the namespaces they name stay closed."""
        if not governs(self._registry, writer):
            return []
        self.index.catch_up()
        known = {record.key for record in self._closures() if closes(self._registry, record)}
        named = {
            namespace
            for resource in resources
            if isinstance(resource.spec, CapabilitySpec) and ANNOTATION not in resource.annotations
            for namespace in resource.spec.namespaces
        }
        return [Draft(kind=CLOSURE, key=each, payload=_CLOSED) for each in sorted(named - known)]

    def _closures(self) -> list[Record]:
        return [record for key in self.index.keys(CLOSURE) for record in self.index.of(CLOSURE, key)]

    def _look_at(self, place: Place) -> None:
        """Read one Capability, all its versions, or one closure anew."""
        kind, key = place
        records = self.index.of(kind, key)
        self._standings.depend(
            place, {each.writer for each in records} | {self.authors.claimant(each) for each in records}
        )
        if kind == CLOSURE:
            self._close(place, {key for each in records if closes(self._registry, each)})
            return
        obeyed: list[Record] = []
        closed: set[str] = set()
        self._read.pop(key, None)
        for record in records:
            try:
                authored = self.authors.of(record)
            except PayloadError:
                continue
            if not authored.deleted and closes(self._registry, authored):
                closed |= self._grant_of(authored).namespaces
            if not self._registry.objection(record):
                obeyed.append(authored)
        self._close(place, closed)
        self._shelve(key, distinct(obeyed))

    def _close(self, place: Place, namespaces: set[str]) -> None:
        if namespaces:
            self._closing[place] = frozenset(namespaces)
        else:
            self._closing.pop(place, None)

    def _shelve(self, key: str, records: Iterable[Record]) -> None:
        """Put these in the place of what was read under this key before."""
        for author in self._authors.pop(key, ()):
            del self._others[author][key]
            if not self._others[author]:
                del self._others[author]
        self._governing.pop(key, None)
        governing: list[Record] = []
        authors: list[bytes] = []
        for record in sorted(records, key=lambda each: (each.hlc, each.writer), reverse=True):
            if governs(self._registry, record.writer):
                governing.append(record)
            else:
                self._others.setdefault(record.writer, {})[key] = record
                authors.append(record.writer)
        if governing:
            self._governing[key] = tuple(governing)
        if authors:
            self._authors[key] = authors

    def _grant_of(self, record: Record) -> Grant:
        """What it says. Nothing is read before it matters, nor twice."""
        read = self._read.setdefault(record.key, {})
        place = (record.writer, record.seq)
        if place not in read:
            read[place] = read_grant(record) or NOTHING
        return read[place]

    def _derived(self) -> Rights:
        return derive(
            self._registry,
            self.authors,
            governing=dict(self._governing),
            others=self._others,
            closed=frozenset().union(*self._closing.values()),
            grant_of=self._grant_of,
        )
