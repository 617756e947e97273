"""From the view to the data plane: compile what is known, hand it over, and see that it is served.

Changes come in bursts, so a refresh is asked for (`changed`) and done once, SETTLE_S later; while one
snapshot is being applied the next request waits. A snapshot the plane rejects leaves the last good one in
force. If policies are to blame they go into quarantine and the rest is served (peer/blame.py); else the reason is in
`rejected`. An edit that cannot be read goes there too where a version before it is served, which stays in force.

What fails for no reason that is known (a fault of ours) is a snapshot that cannot be served, and tried again.

Invariant: what is enforced is always one whole snapshot; `enforced` is the state it was compiled from.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from peer.blame import Blame, Job, Served, Situation
from peer.catalog import PolicyEntry, View
from peer.compile import Compiled, close, compile_snapshot, listeners_for
from peer.policies import MESSAGE_CHARS_MAX, Reader, Status
from peer.quarantine import (
    DEADLY,
    REJECTED,
    SUSPECTED,
    Probation,
    Quarantine,
    Version,
    key_of,
    version_of,
)
from peer.sockets import BindError, ListeningSockets
from proxy.plane import Applied, Plane, Rejected
from proxy.snapshot import Certificate, Limits, Listener, Snapshot
from trust.identity import format_id
from trust.svid import KeyedSvid

# What does not depend on which services there are. It is told to the mesh.
TOLD_REASONS: Final = frozenset({REJECTED, DEADLY, SUSPECTED, "Invalid", "UnsupportedKind"})

log = logging.getLogger("gossamer.dataplane")

SETTLE_S: Final = 0.01
SETTLE_S_MAX: Final = 2.0
RETRY_S: Final = 5.0  # what kept a snapshot from being served may pass by itself
REST_S: Final = 60.0  # after one on which workers end though no policy is to blame


@dataclass(slots=True)
class DataPlane:
    """Keeps one plane serving the newest situation. `situation` is asked for it when it is needed; `read_ahead` before,
    again and again while the rest of the loop runs, until it says that nothing is left to prepare."""

    plane: Plane
    sockets: ListeningSockets
    situation: Callable[[], Situation]
    limits: Limits
    read_ahead: Callable[[], bool] = lambda: True
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
    _blame: Blame = field(init=False)
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

    def __post_init__(self) -> None:
        self._blame = Blame(self.quarantine, self._serve)

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
            while True:
                if self.read_ahead():
                    break
                await asyncio.sleep(0)  # the loop has other things to do
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
        written = {key_of(entry): entry for entry in situation.view.policies}
        job = Job(situation=situation, listeners=listeners, sockets=sockets, written=written)
        admitted = self.quarantine.admit(situation.view.policies)
        if self._go_back:
            self._go_back = False
            admitted = self._blame.hold_what_came_since(admitted, situation.view.policies, self.probation)
        rejected = await self._serve(job, admitted)
        if rejected is not None and rejected.fault != "plane":
            self._reader.pinned = situation.view.policies  # parts of them are about to be compiled
            rejected = await self._blame.serve_the_rest(job, admitted, rejected, self._what_is_served())
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

    async def _serve(self, job: Job, entries: Sequence[PolicyEntry], closed: bool = False) -> Rejected | None:
        """Serve the situation with these policies; `closed`: and let nobody in. Or why that is not served."""
        try:
            compiled = await self._compile(job, entries)
            edited = self._blame.hold_unread(job, entries, compiled, self._what_is_served())
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

    async def _applied(self, snapshot: Snapshot, job: Job) -> Applied | Rejected:
        try:
            return await self.plane.apply(snapshot, job.sockets)
        except Exception as error:
            # A mistake of ours on what is in this snapshot, such as a number it cannot hold: other ones may do.
            log.exception("snapshot_broke_the_plane")
            return Rejected(version=snapshot.version, reason=f"{error!r}"[:MESSAGE_CHARS_MAX])

    async def _compile(self, job: Job, entries: Sequence[PolicyEntry]) -> Compiled:
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

    def _what_is_served(self) -> Served:
        return Served(
            policies=self._policies,
            unread=self._compiled.unread if self._compiled is not None else frozenset(),
            closed=self.served is None or self._closed,
        )

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # ------------------------------------------------------------------ bad policies

    def _ended(self, version: int) -> None:
        """A worker ended by itself while it served."""
        if self.served is None or version != self.served.version:
            return
        if self.probation.end(self._now_s()):
            self._go_back = True
            self.changed()

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


def _certificates(held: Mapping[str, KeyedSvid]) -> tuple[Certificate, ...]:
    return tuple(
        Certificate(
            identity=svid.identity, chain_pem=svid.chain_pem, key_pem=svid.key_pem, not_after=svid.not_after
        )
        for _, svid in sorted(held.items())
    )
