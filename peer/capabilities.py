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

from crdt.journal import Journal
from crdt.record import Record
from peer.authored import ANNOTATION
from peer.authors import Authors
from peer.grants import NOTHING, Grant, read_grant
from peer.messages import Draft
from peer.recordindex import RecordIndex
from peer.records import CLOSURE, POLICY, PayloadError, Registry
from peer.rights import PREFIX, Rights, closes, derive, governs
from proxy.resources.capability import CapabilitySpec
from proxy.resources.resource import Resource
from trust.credential import Credential

_CLOSED: Final = b"\x01"

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
        known = {record.key for record in self._closures() if closes(self._registry, record)}
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
            elif key.startswith(PREFIX):
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
        read: dict[tuple[bytes, str, int], Grant] = {}

        def grant_of(record: Record) -> Grant:
            place = (record.writer, record.key, record.seq)
            if place not in read:
                read[place] = self._read.get(place) or read_grant(record) or NOTHING
            return read[place]

        rights = derive(self._registry, self.authors, records, closures, grant_of)
        self._read = read
        return rights
