"""Policies as people handle them: publish, look at, take back.

A document is checked here before anything is written, the documents of one call are one transaction on disk,
and each edit carries the causal context of what this node had seen, so that a concurrent edit elsewhere stays
visible as a conflict until the next edit settles it.

Invariant: what `apply` returned has been on disk before it returned.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from crdt.clock import hlc_ms
from crdt.journal import Journal
from crdt.register import context_for
from peer.api import ApiError, Json
from peer.catalog import PolicyEntry, PolicyVersion
from peer.fold import Folder
from peer.messages import Draft, Written
from peer.policies import Status
from peer.records import POLICY, PayloadError, encode_policy, policy_key
from proxy.resources import Resource, ResourceError, canonical_kind, parse_documents
from trust.identity import format_id, parse_id

ALL: Final = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """The policies of the mesh as this node sees them. `write` raises ApiError; `names` gives a node's name by id;
    `statuses` is what compiling said of each policy."""

    node: bytes
    journal: Journal
    folder: Folder
    write: Callable[[Sequence[Draft]], Awaitable[Written]]
    names: Callable[[str], str]
    statuses: Callable[[], Mapping[str, Status]]

    async def apply(
        self, documents: Sequence[Mapping[str, Any]], source: str
    ) -> tuple[list[Json], dict[bytes, int]]:
        """What was done to each, and how far journals reach with all of it (writer -> seq). Raises ApiError."""
        try:
            resources = parse_documents(documents, source)
        except ResourceError as error:
            raise ApiError(str(error), code=2) from error
        known = {policy_key(e.kind, e.namespace, e.name): e for e in self.folder.policies()}
        actions = {resource.key: _action(resource, known.get(resource.key)) for resource in resources}
        changed = [resource for resource in resources if actions[resource.key] != "unchanged"]
        seqs: dict[str, int] = {}
        reach: dict[bytes, int] = {}
        for resource in resources:
            if actions[resource.key] == "unchanged":
                version = known[resource.key].versions[0]
                writer = parse_id(version.writer)
                if writer in self.journal.heads:  # an author is in nobody's
                    reach[writer] = max(version.seq, reach.get(writer, 0))
        if changed:
            drafts = [self._draft(each.key, _payload(each)) for each in changed]
            written = await self.write([*drafts, *self.folder.capabilities.closing(self.node, changed)])
            seqs = {record.key: record.seq for record in written.records}
            reach[self.node] = max(reach.get(self.node, 0), *seqs.values())
        results = [
            {
                "kind": resource.kind,
                "namespace": resource.namespace,
                "name": resource.name,
                "action": actions[resource.key],
                "version": self._version_after(resource.key, seqs, known),
            }
            for resource in resources
        ]
        return results, reach

    async def delete(self, kind: str, namespace: str, name: str) -> tuple[Json, dict[bytes, int]]:
        """Raises ApiError when there is no such policy."""
        kind = _kind(kind)
        self._entry(kind, namespace, name)
        written = await self.write([self._draft(policy_key(kind, namespace, name), b"")])
        seq = written.records[-1].seq
        result = {
            "kind": kind,
            "namespace": namespace,
            "name": name,
            "action": "deleted",
            "version": f"{format_id(self.node)}:{seq}",
        }
        return result, {self.node: seq}

    def get(self, kind: str, namespace: str | None, name: str | None) -> list[Json]:
        """Resources as written, with their status. Raises ApiError for an unknown kind, or a name that is not there."""
        wanted = None if kind.lower() == ALL else _kind(kind)
        found = [
            entry
            for entry in self.folder.policies()
            if (wanted is None or entry.kind == wanted)
            and (namespace is None or entry.namespace == namespace)
            and (name is None or entry.name == name)
        ]
        if name is not None and not found:
            raise ApiError(f"there is no {wanted or 'resource'} {namespace or 'default'}/{name}")
        return [self._shown(entry) for entry in found]

    def describe(self, kind: str, namespace: str, name: str) -> Json:
        """One resource with all its live versions. Raises ApiError."""
        entry = self._entry(_kind(kind), namespace, name)
        versions = [
            {**self._authorship(version), "document": dict(version.resource)} for version in entry.versions
        ]
        return {**self._shown(entry), "versions": versions}

    def _entry(self, kind: str, namespace: str, name: str) -> PolicyEntry:
        for entry in self.folder.policies():
            if (entry.kind, entry.namespace, entry.name) == (kind, namespace, name):
                return entry
        ignored = self.folder.refused_keys.get(policy_key(kind, namespace, name))
        raise ApiError(
            f"there is no {kind} {namespace}/{name}" + (f"; one is ignored: {ignored}" if ignored else "")
        )

    def _draft(self, key: str, payload: bytes) -> Draft:
        seen = self.folder.capabilities.seen(key)
        return Draft(kind=POLICY, key=key, payload=payload, context=context_for(seen, self.node))

    def _version_after(self, key: str, seqs: Mapping[str, int], known: Mapping[str, PolicyEntry]) -> str:
        if key in seqs:
            return f"{format_id(self.node)}:{seqs[key]}"
        return _version(known[key].versions[0])

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
        written_at = hlc_ms(version.hlc) / 1000
        return {
            "author": version.writer,
            "authorName": self.names(version.writer),
            "version": _version(version),
            "writtenAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(written_at)),
        }


def _version(version: PolicyVersion) -> str:
    return f"{version.writer}:{version.seq}"


def _payload(resource: Resource) -> bytes:
    try:
        return encode_policy(resource.document)
    except PayloadError as error:
        raise ApiError(f"{resource.key}: {error}", code=2) from error


def _action(resource: Resource, entry: PolicyEntry | None) -> str:
    if entry is None:
        return "created"
    same = len(entry.versions) == 1 and dict(entry.versions[0].resource) == dict(resource.document)
    return "unchanged" if same else "configured"


def _kind(text: str) -> str:
    try:
        return canonical_kind(text)
    except ResourceError as error:
        raise ApiError(str(error), code=2) from error
