"""From the view to the data plane: compile what is known, hand it over, and see that it is served.

Changes come in bursts, so a refresh is asked for (`changed`) and done once, SETTLE_S later; while one
snapshot is being applied the next request waits. A snapshot the plane rejects leaves the last good one in
force, and the reason in `rejected`.

Invariant: what is enforced is always one whole snapshot; `enforced` is the state it was compiled from.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from peer.catalog import View
from peer.compile import Compiled, compile_snapshot, listeners_for
from peer.policies import Reader, Status
from peer.sockets import BindError, ListeningSockets
from proxy.plane import Plane, Rejected
from proxy.snapshot import Certificate, Limits, Listener, Snapshot
from trust.svid import KeyedSvid

log = logging.getLogger("gossamer.dataplane")

SETTLE_S: Final = 0.01
SETTLE_S_MAX: Final = 2.0
RETRY_S: Final = 5.0  # what kept a snapshot from being served may pass by itself


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
    enforced: Mapping[bytes, int] = field(default_factory=dict)
    statuses: Mapping[str, Status] = field(default_factory=dict)
    rejected: str = ""
    served: Snapshot | None = None
    _reader: Reader = field(default_factory=Reader)
    _faults: Mapping[str, str] = field(default_factory=dict)
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
        while True:
            await self._asked.wait()
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

    async def _refresh(self) -> None:
        situation = self.situation()
        try:
            sockets = self.open_listeners(situation.view)
        except BindError as error:
            # Only a port that was free when its service was registered and has been taken since can fail here.
            self._reject(str(error))
            return
        listeners = listeners_for(situation.view)
        compiled = compile_snapshot(
            situation.view,
            version=self._version + 1,
            listeners=listeners,
            certificates=_certificates(situation.certificates),
            trust_bundle_pem=situation.trust_bundle_pem,
            limits=self.limits,
            reader=self._reader,
        )
        self._tell(compiled)
        snapshot = compiled.snapshot
        if self.served is None or replace(snapshot, version=self.served.version) != self.served:
            self._version += 1
            answer = await self.plane.apply(snapshot, sockets)
            if isinstance(answer, Rejected):
                self._reject(answer.reason)
                return
            self.served = snapshot
        self.rejected = ""
        self.enforced = situation.heads
        obeyed = sum(status.accepted for status in self.statuses.values())
        log.debug("enforced", extra={"fields": {"snapshot": self._version, "policies": obeyed}})
        self.sockets.keep_only([*listeners, *self._reserved])

    def _tell(self, compiled: Compiled) -> None:
        """Take the statuses, and log each policy that is newly set aside by a mistake of ours."""
        for key in compiled.faults.keys() - self._faults.keys():
            message = compiled.statuses[key].message
            log.error("policy_quarantined", extra={"fields": {"policy": key, "reason": message}})
            log.debug("policy_broke_the_compiler: %s", compiled.faults[key])
        self._faults = compiled.faults
        self.statuses = compiled.statuses

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
