"""From the view to the data plane: compile what is known, hand it over, and see that it is served.

Changes come in bursts, so a refresh is asked for (`changed`) and done once, SETTLE_S later; while one
snapshot is being applied the next request waits. A snapshot the plane rejects leaves the last good one in
force. If policies are to blame, those the plane names or, where it cannot tell, those that a search among what is
new finds (peer/culprits.py) go into quarantine, and the rest is served; else the reason is in `rejected`. What ends
workers is hardly searched for, for each try would cost two: all that is new goes into quarantine, at first but for
what restricts access. An edit that cannot be read goes there too, and the version before it stays in force.

What fails for no reason that is known (a fault of ours) is a snapshot that cannot be served, and tried again.

Invariant: what is enforced is always one whole snapshot; `enforced` is the state it was compiled from.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from peer.catalog import PolicyEntry, View
from peer.compile import Compiled, close, compile_snapshot, listeners_for
from peer.culprits import search
from peer.policies import MESSAGE_CHARS_MAX, Reader, Status
from peer.quarantine import (
    DEADLY,
    ENDS_MAX,
    REJECTED,
    Probation,
    Quarantine,
    Version,
    by_weight,
    key_of,
    spared,
    version_of,
)
from peer.sockets import BindError, ListeningSockets
from proxy.plane import Applied, Plane, Rejected
from proxy.snapshot import Certificate, Limits, Listener, Snapshot
from trust.identity import format_id
from trust.svid import KeyedSvid

# What does not depend on which services there are. It is told to the mesh.
TOLD_REASONS: Final = frozenset({REJECTED, DEADLY, "Invalid", "UnsupportedKind"})

log = logging.getLogger("gossamer.dataplane")

SETTLE_S: Final = 0.01
SETTLE_S_MAX: Final = 2.0
RETRY_S: Final = 5.0  # what kept a snapshot from being served may pass by itself
REST_S: Final = 60.0  # after one on which workers end though no policy is to blame
TRIES_MAX: Final = 64  # snapshots tried to find the policies that are to blame for a reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that a snapshot is made from. `heads` says how much of the journal is in the view."""

    view: View
    heads: Mapping[bytes, int]
    certificates: Mapping[str, KeyedSvid]
    trust_bundle_pem: bytes


@dataclass(slots=True)
class DataPlane:
    """Keeps one plane serving the newest situation. `situation` is asked for it when it is needed."""

    plane: Plane
    sockets: ListeningSockets
    situation: Callable[[], Situation]
    limits: Limits
    probation: Probation[Mapping[str, PolicyEntry]] = field(default_factory=Probation)
    enforced: Mapping[bytes, int] = field(default_factory=dict)
    statuses: Mapping[str, Status] = field(default_factory=dict)
    # What the mesh should hear of: by key, which version is not in force and why.
    set_aside: Mapping[str, tuple[Version, Status]] = field(default_factory=dict)
    on_set_aside: Callable[[], None] = lambda: None
    _set_aside_dots: frozenset[tuple[str, int]] = frozenset()
    rejected: str = ""
    served: Snapshot | None = None
    _reader: Reader = field(default_factory=Reader)
    quarantine: Quarantine = field(default_factory=Quarantine)
    _compiled: Compiled | None = None  # what is served
    _policies: Mapping[str, PolicyEntry] = field(default_factory=dict)  # and its policies
    _closed: bool = False  # and whether it lets nobody in
    _go_back: bool = False
    _rest_until_s: float = 0.0
    _told: Mapping[str, tuple[str, Version]] = field(default_factory=dict)
    _version: int = 0
    _reserved: tuple[Listener, ...] = ()  # of a change that is being made; not in any snapshot yet
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _done: asyncio.Condition = field(default_factory=asyncio.Condition)

    def changed(self) -> None:
        """The situation is no longer what it was."""
        self._asked.set()

    def open_listeners(self, view: View) -> Mapping[str, socket.socket]:
        """Bind what `view` needs and is not bound yet. Raises BindError and binds nothing."""
        return self.sockets.open(listeners_for(view))

    def reserve(self, view: View) -> None:
        """Bind what a change needs that would make this the view, and keep it bound until `settle`. Raises
        BindError and binds nothing."""
        self.open_listeners(view)
        self._reserved = listeners_for(view)

    def settle(self) -> None:
        """The change was made, or was not: the view says which."""
        self._reserved = ()
        self.changed()

    async def run(self) -> None:
        """Refresh whenever something changed, for ever."""
        loop = asyncio.get_running_loop()
        took_s = 0.0
        self.plane.watch(self._ended)
        while True:
            await self._asked.wait()
            await asyncio.sleep(self._rest_until_s - loop.time())
            # The larger the mesh, the longer bursts are gathered: compiling never takes more than half of the loop.
            await asyncio.sleep(min(SETTLE_S_MAX, max(SETTLE_S, took_s)))
            self._asked.clear()
            begun = loop.time()
            await self._refresh()
            took_s = loop.time() - begun
            if self.rejected:
                asyncio.get_running_loop().call_later(RETRY_S, self.changed)
            async with self._done:
                self._done.notify_all()

    async def wait_enforced(self, heads: Mapping[bytes, int]) -> None:
        """Return when the plane serves a snapshot in which the journal went at least up to `heads`."""
        async with self._done:
            await self._done.wait_for(lambda: self.enforces(heads))

    def enforces(self, heads: Mapping[bytes, int]) -> bool:
        return all(self.enforced.get(writer, 0) >= seq for writer, seq in heads.items())

    async def wait_obeyed(self, dots: Collection[tuple[bytes, int]]) -> None:
        """Return when the plane obeys these records (writer, seq)."""
        async with self._done:
            await self._done.wait_for(lambda: self.obeys(dots))

    def obeys(self, dots: Collection[tuple[bytes, int]]) -> bool:
        """Whether what is served was made with these records, and none of them is a policy's version set aside."""
        aside = self._set_aside_dots
        if aside and any((format_id(writer), seq) in aside for writer, seq in dots):
            return False
        return all(self.enforced.get(writer, 0) >= seq for writer, seq in dots)

    async def _refresh(self) -> None:
        situation = self.situation()
        try:
            sockets = self.open_listeners(situation.view)
        except BindError as error:
            # Only a port that was free when its service was registered and has been taken since can fail here.
            self._reject(str(error))
            return
        listeners = listeners_for(situation.view)
        job = _Job(situation=situation, listeners=listeners, sockets=sockets)
        admitted = self.quarantine.admit(situation.view.policies)
        if self._go_back:
            self._go_back = False
            admitted = self._hold_what_came_since(admitted, situation)
        rejected = await self._serve(job, admitted)
        if rejected is not None and rejected.fault != "plane":
            self._reader.pinned = situation.view.policies  # parts of them are about to be compiled
            rejected = await self._serve_without_culprits(job, admitted, rejected)
            self._reader.pinned = ()
        self._tell(situation.view)
        if rejected is not None:
            self._reject(rejected.reason)
            if rejected.fault == "deadly":
                self._rest_until_s = self._now_s() + REST_S
            return
        self.rejected = ""
        self.enforced = situation.heads
        obeyed = sum(status.accepted for status in self.statuses.values())
        log.debug("enforced", extra={"fields": {"snapshot": self._version, "policies": obeyed}})
        self.sockets.keep_only([*listeners, *self._reserved])

    async def _serve(
        self, job: "_Job", entries: Sequence[PolicyEntry], *, closed: bool = False
    ) -> Rejected | None:
        """Serve the situation with these policies; `closed`: and let nobody in. Or why that is not served."""
        try:
            compiled = await self._compile(job, entries)
            edited = self._hold_unread(job, entries, compiled)
            if edited is not entries:
                entries = edited
                compiled = await self._compile(job, entries)
        except Exception as error:
            # No policy is to blame, or `compile_snapshot` had found it: a mistake of ours in all the rest. What is
            # served goes on, and is tried again: were this peer to end, so would every other on the same records.
            if self.rejected != (reason := f"does not compile: {error!r}"[:MESSAGE_CHARS_MAX]):
                log.exception("view_broke_the_compiler")
            return Rejected(version=self._version + 1, reason=reason, fault="plane")
        snapshot = close(compiled.snapshot) if closed else compiled.snapshot
        if self.served is None or replace(snapshot, version=self.served.version) != self.served:
            self._version += 1
            answer = await self._applied(snapshot, job)
            if isinstance(answer, Rejected):
                self._compiled = self._compiled or compiled  # there is nothing better to tell yet
                return answer
            self.served = snapshot
        self._compiled = compiled
        self._closed = closed
        self._policies = {key_of(entry): entry for entry in entries}
        if not closed:
            self.probation.serve(self._now_s(), self._policies)
        return None

    async def _applied(self, snapshot: Snapshot, job: "_Job") -> Applied | Rejected:
        try:
            return await self.plane.apply(snapshot, job.sockets)
        except Exception as error:
            # A mistake of ours on what is in this snapshot, such as a number it cannot hold: other ones may do.
            log.exception("snapshot_broke_the_plane")
            return Rejected(version=snapshot.version, reason=f"{error!r}"[:MESSAGE_CHARS_MAX])

    async def _compile(self, job: "_Job", entries: Sequence[PolicyEntry]) -> Compiled:
        # In a thread: thousands of new policies take seconds to read, and gossip must not wait for them.
        return await asyncio.to_thread(
            compile_snapshot,
            replace(job.situation.view, policies=tuple(entries)),
            version=self._version + 1,
            listeners=job.listeners,
            certificates=_certificates(job.situation.certificates),
            trust_bundle_pem=job.situation.trust_bundle_pem,
            limits=self.limits,
            reader=self._reader,
            quarantined=self.quarantine.absent,
        )

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # ------------------------------------------------------------------ bad policies

    def _hold_unread(
        self, job: "_Job", entries: Sequence[PolicyEntry], compiled: Compiled
    ) -> Sequence[PolicyEntry]:
        """Put edits that cannot be obeyed in quarantine where a version before them is; what to serve then."""
        served = self._compiled.unread if self._compiled is not None else frozenset()
        before = {
            key: entry
            for key in compiled.unread
            if key not in served and (entry := self._policies.get(key)) is not None
        }
        chosen = list(entries)
        changed = False
        for place, entry in enumerate(entries):
            good = before.get(key_of(entry))
            if good is None or _same(entry, good):
                continue
            status = compiled.statuses[key_of(entry)]
            job.hold(self.quarantine, entry, status.reason, status.message, before)
            if (fault := compiled.faults.get(key_of(entry))) is not None:
                log.debug("policy_broke_the_compiler: %s", fault)
            chosen[place], changed = good, True
        return chosen if changed else entries

    async def _serve_without_culprits(
        self, job: "_Job", admitted: Sequence[PolicyEntry], rejected: Rejected
    ) -> Rejected | None:
        """The plane will not serve this: find out which policies that is due to, and serve the rest."""
        tries = 0
        while rejected.fault == "snapshot" and tries < TRIES_MAX:
            named = set(rejected.policies)
            culprits = [entry for entry in admitted if key_of(entry) in named]
            if not culprits:
                break
            for entry in culprits:
                job.hold(self.quarantine, entry, REJECTED, rejected.reason, self._policies)
            tries += 1
            admitted = self.quarantine.admit(job.situation.view.policies)
            answer = await self._serve(job, admitted)
            if answer is None or answer.fault == "plane":
                return answer
            rejected = answer
        return await self._search(job, admitted, rejected, tries)

    async def _search(
        self, job: "_Job", admitted: Sequence[PolicyEntry], rejected: Rejected, tries: int
    ) -> Rejected | None:
        """Nobody was named: go back to the policies that are served, then add what is new, part by part."""
        new = {key_of(e): e for e in admitted if not _same(e, self._policies.get(key_of(e)))}
        if not new:
            return rejected
        before = dict(self._policies)

        def beside(keys: Sequence[str]) -> list[PolicyEntry]:
            chosen = set(keys)
            entries = (e if (k := key_of(e)) not in new or k in chosen else before.get(k) for e in admitted)
            return [entry for entry in entries if entry is not None]

        # Nothing is served yet: until it is known which policies can be, nobody may slip in between them.
        closed = self.served is None or self._closed
        answer = await self._serve(job, beside(()), closed=closed)
        if answer is not None:
            return rejected  # it is not due to what is new
        if rejected.fault == "deadly" and not closed:
            culprits = dict.fromkeys(new, rejected.reason)
            for kept in spared(new):  # each try costs two workers
                answer = await self._serve(job, beside(tuple(kept))) if kept else None
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
                    answer = await self._serve(job, beside(chosen), closed=closed)
                    if answer is not None and answer.fault == "plane":
                        return answer
                    chosen = trials.send("" if answer is None else answer.reason or "rejected")
            except StopIteration as end:
                culprits = end.value
        reason = DEADLY if rejected.fault == "deadly" else REJECTED
        for key, message in culprits.items():
            job.hold(self.quarantine, new[key], reason, message, before)
        return await self._serve(job, self.quarantine.admit(job.situation.view.policies))

    def _ended(self, version: int) -> None:
        """A worker ended by itself while it served."""
        if self.served is None or version != self.served.version:
            return
        if self.probation.end(self._now_s()):
            self._go_back = True
            self.changed()

    def _hold_what_came_since(
        self, admitted: tuple[PolicyEntry, ...], situation: Situation
    ) -> tuple[PolicyEntry, ...]:
        """Workers end on what is served: put in quarantine every policy that is not as it was in the last good one."""
        good = self.probation.proven or {}
        written = {key_of(entry): entry for entry in situation.view.policies}
        new = {key_of(e): e for e in admitted if not _same(e, good.get(key_of(e)))}
        kept = next(spared(new), frozenset())
        within_s = self.probation.proven_after_s
        message = f"a data plane worker ended {ENDS_MAX} times within {within_s:.0f} s of serving it"
        for key in sorted(new.keys() - kept):
            self.quarantine.hold(written[key], DEADLY, message, instead=good.get(key))
        if not new:
            log.error(
                "workers_end", extra={"fields": {"reason": "no policy has changed since they ran well"}}
            )
        return self.quarantine.admit(situation.view.policies)

    def _tell(self, view: View) -> None:
        """Take the statuses, and log each policy that is newly set aside here."""
        if self._compiled is None:
            return
        self.statuses = self.quarantine.overlay(self._compiled.statuses)
        told = {key: (held.reason, held.version) for key, held in self.quarantine.held.items()}
        told |= dict.fromkeys(self._compiled.faults, ("does not compile", ()))
        for key in told:
            if self._told.get(key) != told[key]:
                fields = {"policy": key, "reason": self.statuses[key].message}
                log.error("policy_quarantined", extra={"fields": fields})
                if key in self._compiled.faults:
                    log.debug("policy_broke_the_compiler: %s", self._compiled.faults[key])
        for key in self._told.keys() - told.keys():
            log.info("policy_released", extra={"fields": {"policy": key}})
        self._told = told
        aside = {
            key: entry
            for entry in view.policies
            if (key := key_of(entry)) in self.statuses and self.statuses[key].reason in TOLD_REASONS
        }
        self._set_aside_dots = frozenset(
            dot for entry in aside.values() for version in entry.versions for dot in version.records
        )
        out = {key: (version_of(entry), self.statuses[key]) for key, entry in aside.items()}
        if out != self.set_aside:
            self.set_aside = out
            self.on_set_aside()

    def _reject(self, reason: str) -> None:
        if reason != self.rejected:
            log.error("snapshot_rejected", extra={"fields": {"reason": reason}})
        self.rejected = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What one refresh serves, whichever policies it can."""

    situation: Situation
    listeners: tuple[Listener, ...]
    sockets: Mapping[str, socket.socket]

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
        written = next((e for e in self.situation.view.policies if key_of(e) == key), culprit)
        instead = before.get(key)
        quarantine.hold(written, reason, message, instead=None if _same(culprit, instead) else instead)


def _same(entry: PolicyEntry, other: PolicyEntry | None) -> bool:
    return other is not None and version_of(entry) == version_of(other)


def _certificates(held: Mapping[str, KeyedSvid]) -> tuple[Certificate, ...]:
    return tuple(
        Certificate(
            identity=svid.identity, chain_pem=svid.chain_pem, key_pem=svid.key_pem, not_after=svid.not_after
        )
        for _, svid in sorted(held.items())
    )
