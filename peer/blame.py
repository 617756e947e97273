"""Which policies a snapshot that cannot be served is due to: they go into quarantine, and the rest is served.

The plane may name them. Where it cannot tell, the peer goes back to the policies that it serves and adds what is new
part by part (peer/culprits.py). On snapshots that end workers each try costs two of them, so all that is new goes, at
first but for what restricts access (peer/quarantine.py, `spared`).

Invariant: at most TRIES_MAX snapshots are tried; a plane that is merely busy has nobody put in quarantine.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from peer.catalog import PolicyEntry, View
from peer.compile import Compiled
from peer.culprits import search
from peer.quarantine import (
    DEADLY,
    REJECTED,
    SUSPECTED,
    Probation,
    Quarantine,
    by_weight,
    key_of,
    spared,
    version_of,
)
from proxy.plane import Rejected
from proxy.snapshot import Listener
from trust.svid import KeyedSvid

log = logging.getLogger("gossamer.dataplane")

TRIES_MAX: Final = 64

Proving = Probation[Mapping[str, PolicyEntry]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that a snapshot is made from. `heads` says how much of the journal is in the view."""

    view: View
    heads: Mapping[bytes, int]
    certificates: Mapping[str, KeyedSvid]
    trust_bundle_pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is served: the policies by key, those of them that cannot be obeyed, and whether nobody is let in."""

    policies: Mapping[str, PolicyEntry]
    unread: frozenset[str]
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one refresh serves, whichever policies it can."""

    situation: Situation
    listeners: tuple[Listener, ...]
    sockets: Mapping[str, socket.socket]
    written: Mapping[str, PolicyEntry]  # the policies as they were published, by key

    def hold(
        self,
        quarantine: Quarantine,
        culprit: PolicyEntry,
        reason: str,
        message: str,
        before: Mapping[str, PolicyEntry],
    ) -> None:
        """Put a policy in quarantine. What was served of it `before` stays, unless that is the culprit itself."""
        key = key_of(culprit)
        instead = before.get(key)
        quarantine.hold(
            self.written.get(key, culprit),
            reason,
            message,
            instead=None if same(culprit, instead) else instead,
        )


# Serves a job with these policies, letting nobody in if asked to; why it is not served, if so.
Serve = Callable[[Job, Sequence[PolicyEntry], bool], Awaitable[Rejected | None]]


class Blame:
    """Finds the culprits and holds them in `quarantine`."""

    def __init__(self, quarantine: Quarantine, serve: Serve) -> None:
        self._quarantine = quarantine
        self._serve = serve

    def hold_unread(
        self, job: Job, entries: Sequence[PolicyEntry], compiled: Compiled, served: Served
    ) -> Sequence[PolicyEntry]:
        """Put edits that cannot be obeyed in quarantine where a version before them is; what to serve then."""
        before = {
            key: entry
            for key in compiled.unread
            if key not in served.unread and (entry := served.policies.get(key)) is not None
        }
        chosen = list(entries)
        changed = False
        for place, entry in enumerate(entries):
            good = before.get(key_of(entry))
            if good is None or same(entry, good):
                continue
            status = compiled.statuses[key_of(entry)]
            job.hold(self._quarantine, entry, status.reason, status.message, before)
            if (fault := compiled.faults.get(key_of(entry))) is not None:
                log.debug("policy_broke_the_compiler: %s", fault)
            chosen[place], changed = good, True
        return chosen if changed else entries

    async def serve_the_rest(
        self, job: Job, admitted: Sequence[PolicyEntry], rejected: Rejected, served: Served
    ) -> Rejected | None:
        """The plane will not serve this: find out which policies that is due to, and serve the rest."""
        tries = 0
        while rejected.fault == "snapshot" and tries < TRIES_MAX:
            named = set(rejected.policies)
            culprits = [entry for entry in admitted if key_of(entry) in named]
            if not culprits:
                break
            for entry in culprits:
                job.hold(self._quarantine, entry, REJECTED, rejected.reason, served.policies)
            tries += 1
            admitted = self._quarantine.admit(job.situation.view.policies)
            answer = await self._serve(job, admitted, False)
            if answer is None or answer.fault == "plane":
                return answer
            rejected = answer
        return await self._search(job, admitted, rejected, served, tries)

    async def _search(
        self, job: Job, admitted: Sequence[PolicyEntry], rejected: Rejected, served: Served, tries: int
    ) -> Rejected | None:
        """Nobody was named: go back to the policies that are served, then add what is new, part by part."""
        new = {key_of(e): e for e in admitted if not same(e, served.policies.get(key_of(e)))}
        if not new:
            return rejected
        before = served.policies

        def beside(keys: Sequence[str]) -> list[PolicyEntry]:
            chosen = set(keys)
            entries = (e if (k := key_of(e)) not in new or k in chosen else before.get(k) for e in admitted)
            return [entry for entry in entries if entry is not None]

        # Nothing is served yet: until it is known which policies can be, nobody may slip in between them.
        closed = served.closed
        answer = await self._serve(job, beside(()), closed)
        if answer is not None:
            return rejected  # it is not due to what is new
        if rejected.fault == "deadly" and not closed:
            culprits = dict.fromkeys(new, rejected.reason)
            for kept in spared(new):  # each try costs two workers
                answer = await self._serve(job, beside(tuple(kept)), False) if kept else None
                if answer is not None and answer.fault == "plane":
                    return answer
                if answer is None:
                    culprits = dict.fromkeys(new.keys() - kept, rejected.reason)
                    break
        else:
            suspects = sorted(new, key=lambda key: by_weight(new[key]))
            trials = search(suspects, rejected.reason or "rejected", tries_max=max(1, TRIES_MAX - tries))
            try:
                chosen = next(trials)
                while True:
                    answer = await self._serve(job, beside(chosen), closed)
                    if answer is not None and answer.fault == "plane":
                        return answer
                    chosen = trials.send("" if answer is None else answer.reason or "rejected")
            except StopIteration as end:
                culprits = end.value
        reason = DEADLY if rejected.fault == "deadly" else REJECTED
        for key, message in culprits.items():
            job.hold(self._quarantine, new[key], reason, message, before)
        return await self._serve(job, self._quarantine.admit(job.situation.view.policies), False)

    def hold_what_came_since(
        self, admitted: tuple[PolicyEntry, ...], written: Sequence[PolicyEntry], probation: Proving
    ) -> tuple[PolicyEntry, ...]:
        """Workers end on what is served: put in quarantine every policy that is not as it was in the last good one."""
        good = probation.proven or {}
        entries = {key_of(entry): entry for entry in written}
        new = {key_of(e): e for e in admitted if not same(e, good.get(key_of(e)))}
        kept = next(spared(new), frozenset())
        within_s = probation.proven_after_s
        message = (
            f"a data plane worker ended {probation.ends_max} times within {within_s:.0f} s of serving it"
        )
        reason = SUSPECTED if probation.proven is None else DEADLY
        for key in sorted(new.keys() - kept):
            self._quarantine.hold(entries[key], reason, message, instead=good.get(key))
        if not new:
            log.error(
                "workers_end", extra={"fields": {"reason": "no policy has changed since they ran well"}}
            )
        return self._quarantine.admit(written)


def same(entry: PolicyEntry, other: PolicyEntry | None) -> bool:
    return other is not None and version_of(entry) == version_of(other)
