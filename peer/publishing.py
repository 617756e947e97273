"""Policies as people handle them: publish, look at, take back.

A document is checked here before anything is written, the documents of one call are one transaction on disk,
and each edit carries the causal context of what this node had seen, so that a concurrent edit elsewhere stays
visible as a conflict until the next edit settles it.

Invariant: what `apply` returned has been on disk before it returned.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from crdt.clock import hlc_ms
from peer.api import ApiError, Json
from peer.authored import author_key
from peer.catalog import PolicyEntry, PolicyVersion
from peer.fold import Folder
from peer.history import PastVersion
from peer.messages import Draft, Written
from peer.policies import Status
from peer.records import POLICY, PayloadError, encode_policy, policy_key
from proxy.resources import Resource, ResourceError, canonical_kind, parse_documents
from trust.identity import format_id, parse_id

ALL: Final = "all"
READ_HERE_MAX: Final = 20  # documents of one call that are read where the rest runs
Place = tuple[bytes, int]  # of a record in the journals: (writer, seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """The policies of the mesh as this node sees them. `write` raises ApiError; `names` gives a node's name by id;
    `statuses` is what compiling said of each policy; `past` the records of a policy that the disk remembers."""

    node: bytes
    folder: Folder
    write: Callable[[Sequence[Draft]], Awaitable[Written]]
    names: Callable[[str], str]
    statuses: Callable[[], Mapping[str, Status]]
    past: Callable[[str], Awaitable[Sequence[bytes]]]

    async def apply(
        self, documents: Sequence[Mapping[str, Any]], source: str
    ) -> tuple[list[Json], set[Place]]:
        """What was done to each, and the records that hold all of it. Raises ApiError."""
        try:
            if len(documents) <= READ_HERE_MAX:
                resources = parse_documents(documents, source)
            else:  # a thousand take 70 ms, for which gossip must not wait
                resources = await asyncio.to_thread(parse_documents, documents, source)
        except ResourceError as error:
            raise ApiError(str(error), code=2) from error
        known = self.folder.policies_of(resource.key for resource in resources)
        actions = {resource.key: self._action(resource, known.get(resource.key)) for resource in resources}
        changed = [resource for resource in resources if actions[resource.key] != "unchanged"]
        versions: dict[str, str] = {}
        places: set[Place] = set()
        for resource in resources:
            if actions[resource.key] == "unchanged":
                places |= self.folder.policy_reach(resource.key).items()
        payloads = {each.key: _payload(each) for each in changed}
        payloads |= self._to_carry(known[key] for key, action in actions.items() if action == "unchanged")
        if payloads:
            drafts = self._drafts(payloads)
            written = await self.write([*drafts, *self.folder.capabilities.closing(self.node, changed)])
            places |= {(record.writer, record.seq) for record in written.records}
            as_written = map(self.folder.capabilities.authors.read, written.records)
            versions = {each.key: f"{format_id(each.writer)}:{each.seq}" for each in as_written}
        results = [
            {
                "kind": resource.kind,
                "namespace": resource.namespace,
                "name": resource.name,
                "action": actions[resource.key],
                "version": versions.get(resource.key) or _version(known[resource.key].versions[0]),
            }
            for resource in resources
        ]
        return results, places

    async def delete(self, resources: Sequence[tuple[str, str, str]]) -> tuple[list[Json], set[Place]]:
        """What was done to each, and the records that say so. All that are there go in one write; one that is not has
        the action `absent`. Raises ApiError, also when none of them is there."""
        wanted = list(dict.fromkeys((_kind(kind), namespace, name) for kind, namespace, name in resources))
        there = self.folder.policies_of(policy_key(*each) for each in wanted)
        if not there:
            words = "; ".join(f"there is no {kind} {namespace}/{name}" for kind, namespace, name in wanted)
            raise ApiError(words or "nothing to delete is named")
        written = await self.write(self._drafts(dict.fromkeys(there, b"")))
        seqs = {record.key: record.seq for record in written.records}
        results: list[Json] = []
        for kind, namespace, name in wanted:
            seq = seqs.get(policy_key(kind, namespace, name))
            row: Json = {"kind": kind, "namespace": namespace, "name": name}
            outcome = (
                {"action": "absent"}
                if seq is None
                else {"action": "deleted", "version": f"{format_id(self.node)}:{seq}"}
            )
            results.append(row | outcome)
        return results, {(record.writer, record.seq) for record in written.records}

    def get(self, kind: str, namespace: str | None, name: str | None) -> list[Json]:
        """Resources as written, with their status. Raises ApiError for an unknown kind, or a name that is not there."""
        wanted = None if kind.lower() == ALL else _kind(kind)
        found = self._found(wanted, namespace, name)
        if name is not None and not found:
            if wanted is not None and namespace is not None:
                raise self._absent(wanted, namespace, name)
            where = f"in namespace {namespace}" if namespace else "in any namespace"
            raise ApiError(f"there is no {wanted or 'resource'} {name} {where}")
        return [self._shown(entry) for entry in found]

    def find(self, resources: Sequence[tuple[str, str, str]]) -> list[Json | None]:
        """Each as `get` shows it; None for one that is not there. Raises ApiError for an unknown kind."""
        keys = [policy_key(_kind(kind), namespace, name) for kind, namespace, name in resources]
        there = self.folder.policies_of(keys)
        return [self._shown(there[key]) if key in there else None for key in keys]

    def describe(self, kind: str, namespace: str, name: str) -> Json:
        """One resource with all its live versions. Raises ApiError."""
        entry = self._entry(_kind(kind), namespace, name)
        versions = [
            {**self._authorship(version), "document": dict(version.resource)} for version in entry.versions
        ]
        return {**self._shown(entry), "versions": versions}

    def reach(self, kind: str, namespace: str, name: str) -> dict[bytes, int]:
        """How far journals go with all live versions of a resource (writer -> seq). Raises ApiError."""
        entry = self._entry(_kind(kind), namespace, name)
        return self.folder.policy_reach(policy_key(entry.kind, entry.namespace, entry.name))

    async def history(self, kind: str, namespace: str, name: str) -> list[Json]:
        """All versions this node knows, latest first. Raises ApiError when it knows none."""
        key = policy_key(_kind(kind), namespace, name)
        found = self.folder.policy_history(key, await self.past(key))
        if not found:
            raise ApiError(f"this peer knows no version of {_kind(kind)} {namespace}/{name}")
        conflict = sum(each.current and not each.record.deleted for each in found) > 1
        return [self._past(each, conflict) for each in found]

    def _past(self, version: PastVersion, conflict: bool) -> Json:
        record = version.record
        state = "replaced"
        if version.objection:
            state = "ignored"
        elif version.current:
            state = "conflicting" if conflict and not record.deleted else "current"
        row: Json = {
            **self._authored(format_id(record.writer), record.seq, record.hlc, version.document),
            "action": "deleted" if record.deleted else "written",
            "state": state,
            "replaced": [f"{format_id(dot.writer)}:{dot.seq}" for dot in version.replaced],
            "document": version.document,
        }
        return row | ({"reason": version.objection} if version.objection else {})

    def _found(self, kind: str | None, namespace: str | None, name: str | None) -> list[PolicyEntry]:
        """The policies of a kind, namespace and name, each None for any."""
        if kind is not None and namespace is not None and name is not None:
            return list(self.folder.policies_of([policy_key(kind, namespace, name)]).values())
        return [
            entry
            for entry in self.folder.policies()
            if (kind is None or entry.kind == kind)
            and (namespace is None or entry.namespace == namespace)
            and (name is None or entry.name == name)
        ]

    def _entry(self, kind: str, namespace: str, name: str) -> PolicyEntry:
        key = policy_key(kind, namespace, name)
        for entry in self.folder.policies_of([key]).values():
            return entry
        raise self._absent(kind, namespace, name)

    def _absent(self, kind: str, namespace: str, name: str) -> ApiError:
        ignored = self.folder.refused_keys.get(policy_key(kind, namespace, name))
        more = f"; one is ignored: {ignored}" if ignored else ""
        return ApiError(f"there is no {kind} {namespace}/{name}{more}")

    def _action(self, resource: Resource, entry: PolicyEntry | None) -> str:
        if entry is None:
            return "created"
        if len(entry.versions) > 1:
            return "configured"
        document = dict(resource.document)
        known = dict(entry.versions[0].resource)
        try:
            alike = document == known or self.folder.capabilities.authors.signed_alike(document, known)
        except PayloadError as error:
            raise ApiError(
                f"{resource.kind} {resource.namespace}/{resource.name}: {error}", code=2
            ) from error
        return "unchanged" if alike else "configured"

    def _to_carry(self, entries: Iterable[PolicyEntry]) -> dict[str, bytes]:
        """What persons signed that this node does not hold for them yet, as they signed it: who carries a document may
        take it back, so that each peer at which it is published keeps it (`peer/authored.py`)."""
        me = format_id(self.node)
        return {
            policy_key(entry.kind, entry.namespace, entry.name): encode_policy(version.resource)
            for entry in entries
            for version in entry.versions
            if author_key(version.resource, parse_id(version.writer))
            and me not in {node for node, _ in version.carried}
        }

    def _drafts(self, payloads: Mapping[str, bytes]) -> list[Draft]:
        contexts = self.folder.policy_contexts(payloads, self.node)
        return [
            Draft(kind=POLICY, key=key, payload=payload, context=contexts[key])
            for key, payload in payloads.items()
        ]

    def _shown(self, entry: PolicyEntry) -> Json:
        effective = entry.versions[0]
        status = self.statuses().get(policy_key(entry.kind, entry.namespace, entry.name))
        conflict = len(entry.versions) > 1
        shown: Json = {
            **self._authorship(effective),
            "conflict": conflict,
            "accepted": status.accepted if status is not None else None,
            **(status.document() if status is not None else {"conditions": []}),
        }
        if conflict:
            shown["conflicts"] = [self._authorship(version) for version in entry.versions]
        return {**effective.resource, "status": shown}

    def _authorship(self, version: PolicyVersion) -> Json:
        return self._authored(version.writer, version.seq, version.hlc, version.resource)

    def _authored(self, writer: str, seq: int, hlc: int, document: Mapping[str, Any] | None) -> Json:
        written_at = hlc_ms(hlc) / 1000
        key = author_key(document, parse_id(writer))
        return {
            "author": writer,
            "authorName": self.names(writer),
            **({"authorKey": key} if key else {}),
            "version": f"{writer}:{seq}",
            "writtenAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(written_at)),
        }


def _version(version: PolicyVersion) -> str:
    return f"{version.writer}:{version.seq}"


def _payload(resource: Resource) -> bytes:
    try:
        return encode_policy(resource.document)
    except PayloadError as error:
        raise ApiError(f"{resource.key}: {error}", code=2) from error


def _kind(text: str) -> str:
    try:
        return canonical_kind(text)
    except ResourceError as error:
        raise ApiError(str(error), code=2) from error
