"""What a running peer does again and again: take in what was counted, remember whom it met, forget what has expired,
say whose policies are ignored, and tell the mesh how its services fare.

Invariant: what fails here is reported and tried again; it never ends the peer.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from peer.api import ApiError
from peer.io.keys import KeyFileError
from peer.io.statefile import StateFileError
from peer.io.store import StoreError
from peer.lives import raise_boot
from peer.messages import Draft
from peer.notice import QUARANTINES_PER_NODE_MAX, Notice, changes, encode_notice
from peer.records import DENIAL, QUARANTINE, REVOCATION, revocation_end
from peer.rights import Reason
from trust.identity import format_id, parse_id

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.peer")

TELEMETRY_S: Final = 1.0
CONTACTS_SAVED_S: Final = 5.0
PRUNED_S: Final = 600.0
UNTOLD_RETRY_S: Final = 5.0
QUARANTINE_TOLD_S: Final = 5.0  # at most so often
TELLERS_S_EACH: Final = 0.02
OVER_AT_ONCE_MAX: Final = 256
REFUSALS_TOLD_MAX: Final = 5  # in one round
REFUSALS_KEPT_MAX: Final = 4096


class Upkeep:
    """The peer's housekeeping. `untold` is set when the mesh should hear of the local services' health."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self.untold = asyncio.Event()
        self.quarantine_moved = asyncio.Event()
        self.quarantine_moved.set()  # what an earlier life told may be true no more
        self.members_moved = False
        self._saved_at = float("-inf")
        self._pruned_at = float("-inf")
        self._collected_at = float("-inf")
        self._told: dict[tuple[bytes, Reason], None] = {}

    async def run(self) -> None:
        """Everything that hangs on the clock, for ever."""
        while True:
            await asyncio.sleep(TELEMETRY_S)
            self._daemon.observe()
            await self.save_contacts()
            await self.keep_boot()
            self.prune()
            await self.collect()
            self.tell_of_refusals()
            self._daemon.rootline.tick()

    async def save_contacts(self) -> None:
        """Keep the addresses of some members, where members have changed."""
        daemon = self._daemon
        now = daemon.clock.now()
        if not self.members_moved or now - self._saved_at < CONTACTS_SAVED_S:
            return
        self._saved_at = now
        self.members_moved = False
        others = [m for m in daemon.node.engine.members() if m.live and m.id != daemon.identity.id]
        try:
            await asyncio.to_thread(daemon.contact_file.keep_some, others, daemon.rng)
        except StateFileError as error:
            self.members_moved = True
            log.warning("contacts_unsaved", extra={"fields": {"reason": str(error)}})

    async def keep_boot(self) -> None:
        """Remember the boot number in use: the engine raises it past an earlier life that turns up with a higher one,
        and the next start has to begin above that too."""
        daemon = self._daemon
        boot = daemon.node.engine.boot
        if boot <= daemon.boot:
            return
        try:
            await daemon.disk.run(lambda store: raise_boot(daemon.keys, store, boot))
        except (KeyFileError, StoreError) as error:
            log.warning("boot_unsaved", extra={"fields": {"reason": str(error)}})
        else:
            daemon.boot = boot

    def prune(self) -> None:
        """Forget tokens and revocations that have expired."""
        now = self._daemon.clock.now()
        if now - self._pruned_at < PRUNED_S:
            return
        self._pruned_at = now
        self._daemon.issuer.rules.ledger.prune(now)
        if self._daemon.revocations.prune(now):
            self._daemon.dataplane.changed()

    async def collect(self) -> None:
        """Take back the revocations that this node carries and that have ended (`peer/records.py`), and its denials of
        certificates that ended long ago."""
        daemon = self._daemon
        now = daemon.clock.now()
        if now - self._collected_at < PRUNED_S:
            return
        self._collected_at = now
        mine = (r for r in daemon.journal.records(REVOCATION) if r.writer == daemon.identity.id and r.payload)
        over = [record.key for record in mine if revocation_end(record.key) < now][:OVER_AT_ONCE_MAX]
        drafts = [Draft(kind=REVOCATION, key=key, payload=b"") for key in over]
        drafts += [Draft(kind=DENIAL, key=key, payload=b"") for key in daemon.sightings.over(now)]
        if drafts:
            try:
                await daemon.write(drafts)
            except ApiError as error:
                log.warning("revocations_uncollected", extra={"fields": {"reason": str(error)}})

    async def tell_quarantine(self) -> None:
        """Tell the mesh which policies are not in force here, and take back what is no longer true; for ever."""
        daemon = self._daemon
        while True:
            await self.quarantine_moved.wait()
            # A policy that is bad everywhere is told by everybody: not all at once.
            crowd_s = TELLERS_S_EACH * len(daemon.node.engine.members())
            await asyncio.sleep(daemon.rng.uniform(0.0, min(QUARANTINE_TOLD_S, crowd_s)))
            self.quarantine_moved.clear()
            try:
                if daemon.dataplane.served is None:
                    self.quarantine_moved.set()  # nothing is known yet
                else:
                    await self._tell_quarantine()
            except ApiError as error:
                log.error("quarantine_untold", extra={"fields": {"reason": str(error)}})
                self.quarantine_moved.set()
            await asyncio.sleep(QUARANTINE_TOLD_S)

    async def _tell_quarantine(self) -> None:
        daemon = self._daemon
        wanted: dict[str, bytes] = {}
        for key, (version, status) in sorted(daemon.dataplane.set_aside.items())[:QUARANTINES_PER_NODE_MAX]:
            dots = tuple((parse_id(writer), seq) for writer, seq in version)
            message = "".join(each if each.isprintable() else " " for each in status.message)
            wanted[key] = encode_notice(Notice(version=dots, reason=status.reason, message=message))
        told = {key: payload for key, (_, payload) in daemon.folder.notices_of(daemon.identity.id).items()}
        new = changes(wanted, told)
        if new:
            await daemon.write(
                [Draft(kind=QUARANTINE, key=key, payload=payload) for key, payload in sorted(new.items())]
            )

    def tell_of_refusals(self) -> None:
        """Name whose policies are not obeyed here, once for each writer and reason, a few at a time."""
        news = [each for each in self._daemon.folder.refused if each not in self._told]
        for writer, reason in news[:REFUSALS_TOLD_MAX]:
            count, words = self._daemon.folder.refused[writer, reason]
            fields = {"node": format_id(writer), "why": reason.value, "reason": words, "policies": count}
            log.warning("policy_ignored", extra={"fields": fields})
            self._told[writer, reason] = None
        while len(self._told) > REFUSALS_KEPT_MAX:
            del self._told[next(iter(self._told))]

    async def publish(self) -> None:
        """Tell the mesh of the local services whenever that is asked for, until it has been told; for ever."""
        while True:
            await self.untold.wait()
            self.untold.clear()
            try:
                await self._daemon.local.publish()
            except ApiError as error:
                log.error("services_untold", extra={"fields": {"reason": str(error)}})
                await asyncio.sleep(UNTOLD_RETRY_S)
                self.untold.set()
