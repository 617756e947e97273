"""The fold of the `policy` kind, kept up to date: a change costs what changed, not all policies.

Whenever it is asked, it first catches up: of each writer whose head has moved it reads the records above the head it
knew, and lets go of what that writer's floor has voided since. Whether a record is obeyed (`Registry.objection`) is
judged when it comes, and again when its writer's standing changes (another credential, a revocation) or a record
comes that moves other writers' rights (`moves_rights`). What else entitlement may come to depend on has to be told
(`rights_changed`).

Invariant: equal to `crdt.ormap.live_versions` of the policy records of the journal that are obeyed now.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from sortedcontainers import SortedDict

from crdt.delta import Merged
from crdt.journal import Journal
from crdt.ormap import ObservedMap
from crdt.record import Context, Record
from peer.catalog import PolicyEntry, PolicyVersion
from peer.records import POLICY, REVOCATION, PayloadError, Registry, decode_policy
from trust.credential import Credential
from trust.identity import format_id

CAPABILITY: Final = "Capability"


class PolicyFold:
    """All policies, by key `<Kind>/<namespace>/<name>`. `ignored` counts the records not obeyed, by reason."""

    def __init__(self, journal: Journal, registry: Registry) -> None:
        self.ignored: Counter[str] = Counter()
        self._journal = journal
        self._registry = registry
        self._heads: dict[bytes, int] = {}
        self._held: dict[bytes, dict[str, Record]] = {}  # writer -> key -> record, in rising seq
        self._standing: dict[bytes, tuple[Credential | None, bool]] = {}  # at the last judgement
        self._objections: dict[tuple[bytes, str], str] = {}
        self._entries: SortedDict[str, PolicyEntry] = SortedDict()
        self._all: tuple[PolicyEntry, ...] | None = None
        self._heads.update(journal.heads)
        for record in sorted(journal.records(POLICY), key=lambda each: each.seq):
            self._take(record)
        self._map = ObservedMap(POLICY, journal, self._counts)
        self._renew(self._map)

    def all(self) -> tuple[PolicyEntry, ...]:
        """In order of key; the same tuple until something changes."""
        self._catch_up()
        if self._all is None:
            self._all = tuple(self._entries.values())
        return self._all

    def get(self, keys: Iterable[str]) -> dict[str, PolicyEntry]:
        """Those of these policies that there are, by key."""
        self._catch_up()
        return {key: self._entries[key] for key in keys if key in self._entries}

    def conflicts(self) -> tuple[str, ...]:
        """The keys with concurrent versions, sorted."""
        self._catch_up()
        return tuple(sorted(self._map.conflicts()))

    def records(self, key: str) -> tuple[tuple[Record, str], ...]:
        """Each writer's newest record of `key`, tombstones included, with why it is not obeyed ("": it is)."""
        self._catch_up()
        return tuple((each, self._objections.get((each.writer, key), "")) for each in self._map.records(key))

    def contexts(self, keys: Iterable[str], editor: bytes) -> dict[str, Context]:
        """The causal context that an edit or deletion of each key by `editor` carries now."""
        self._catch_up()
        return {key: self._map.context_for(key, editor) for key in keys}

    def rights_changed(self) -> None:
        """Judge every record again."""
        for writer in self._held:
            self._judge_again(writer)

    # ------------------------------------------------------------------ inside

    def _catch_up(self) -> None:
        if self._heads != self._journal.heads:
            self._read_new()
        for writer in self._held:
            credential, revoked = self._standing[writer]
            if (now := self._standing_of(writer))[0] is not credential or now[1] is not revoked:
                self._judge_again(writer)

    def _read_new(self) -> None:
        fresh: list[Record] = []
        gone: list[Record] = []
        rights = False
        for writer, head in self._journal.heads.items():
            known = self._heads.get(writer, 0)
            if known == head:
                continue
            self._heads[writer] = head
            records, voided = self._since(writer, known)
            gone += voided
            rights = rights or any(map(moves_rights, (*records, *voided)))
            fresh += [record for record in records if record.kind == POLICY]
        for record in gone:
            self._forget(record)
        for record in fresh:
            self._take(record)
        self._renew(self._map.observe(Merged(accepted=tuple(fresh), superseded=tuple(gone))))
        if rights:
            self.rights_changed()

    def _since(self, writer: bytes, known: int) -> tuple[Iterable[Record], list[Record]]:
        """The writer's live records above seq `known`, of any kind, and those held here that are live no more though
        no other took their place."""
        held = self._held.get(writer, {})
        if writer in self._journal.forks:  # a delta of it would be the proof
            live = [record for record in self._journal.records(POLICY) if record.writer == writer]
            keys = {record.key for record in live}
            return sorted(live, key=lambda r: r.seq), [r for r in held.values() if r.key not in keys]
        records = self._journal.delta(writer, known, sys.maxsize).records
        return records, list(_upto(held.values(), records[-1].floor))

    def _take(self, record: Record) -> None:
        held = self._held.setdefault(record.writer, {})
        held.pop(record.key, None)  # the newer one goes to the end: rising seq
        held[record.key] = record
        self._standing.setdefault(record.writer, self._standing_of(record.writer))
        self._judge(record)

    def _forget(self, record: Record) -> None:
        del self._held[record.writer][record.key]
        self._note(record, "")

    def _judge_again(self, writer: bytes) -> None:
        self._standing[writer] = self._standing_of(writer)
        held = self._held[writer]
        for record in held.values():
            self._judge(record)
        self._renew(self._map.refold(held))

    def _judge(self, record: Record) -> None:
        self._note(record, self._registry.objection(record))

    def _note(self, record: Record, objection: str) -> None:
        place = (record.writer, record.key)
        before = self._objections.pop(place, "")
        if before:
            self.ignored[before] -= 1
            if not self.ignored[before]:
                del self.ignored[before]
        if objection:
            self._objections[place] = objection
            self.ignored[objection] += 1

    def _counts(self, record: Record) -> bool:
        return (record.writer, record.key) not in self._objections

    def _standing_of(self, writer: bytes) -> tuple[Credential | None, bool]:
        credential = self._registry.credentials.get(writer)
        revocations = self._registry.revocations
        revoked = (
            credential is not None
            and len(revocations) > 0
            and revocations.covers(credential.spiffe) is not None
        )
        return credential, revoked

    def _renew(self, keys: Iterable[str]) -> None:
        """Make the entries of these keys anew."""
        for key in keys:
            self._all = None
            entry = _entry(key, self._map.versions(key))
            if entry is not None:
                self._entries[key] = entry
            else:
                self._entries.pop(key, None)


def moves_rights(record: Record) -> bool:
    """Whether what other writers are entitled to may hang on this record."""
    return record.kind == REVOCATION or (record.kind == POLICY and record.key.startswith(f"{CAPABILITY}/"))


def _upto(records: Iterable[Record], floor: int) -> Iterator[Record]:
    for record in records:
        if record.seq > floor:
            return
        yield record


def _entry(key: str, versions: Iterable[Record]) -> PolicyEntry | None:
    decoded = []
    for record in versions:
        try:
            document = decode_policy(record.payload)
        except PayloadError:
            continue  # `objection` has said why
        decoded.append(
            PolicyVersion(resource=document, writer=format_id(record.writer), seq=record.seq, hlc=record.hlc)
        )
    if not decoded:
        return None
    kind, namespace, name = key.split("/")
    return PolicyEntry(kind=kind, namespace=namespace, name=name, versions=tuple(decoded))
