"""The signer group of a running peer, put together: ceremonies, the letters that carry them, epochs in the journal, who
the candidates are, and the answer to founders that come late.

Invariant: nothing here decides; it connects the parts that do to this peer.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from crdt.record import Record
from gossip.events import Address
from peer.acquaintance import der_of, passing_certificate
from peer.candidates import Candidates
from peer.ceremonies import Ceremonies
from peer.channels import node_of
from peer.epochs import Epochs
from peer.io.letters import Letters
from peer.io.stream import CEREMONY, SIGN, FrameStream, StreamError, UnreachableError
from peer.kin import Kin
from peer.messages import Draft
from peer.post import ROLLOVER
from peer.readmission import Readmission
from peer.records import EPOCH, epoch_key
from peer.seniority import Seniority
from trust.authority import root_since
from trust.ceremony.events import CeremonyStatus
from trust.epoch import EpochRecord, decode_epoch
from trust.errors import EpochError

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.ceremony")


class Succession:
    """See the module's docstring."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._wake, self._changed = asyncio.Event(), asyncio.Event()
        self.seniority = Seniority.of(daemon.config.data_dir, lambda: daemon.registry.credentials)
        self.candidates = Candidates(
            seen=daemon.node.engine.members,
            credentials=daemon.registry.credentials,
            revocations=daemon.revocations,
            trust_domain=daemon.membership.trust_domain,
            rules=daemon.config.ca.rules,
            now=time.monotonic,
            me=daemon.identity.id,
            joined=self.seniority.since,
        )
        self.ceremonies = Ceremonies(
            custody=daemon.custody,
            keys=daemon.keys,
            identity=daemon.identity,
            rules=daemon.config.ca.rules,
            judgement=self.candidates,
            send=self._send,
            now=time.monotonic,
            retain_s=self._retain_s,
            unix=daemon.clock.now,
        )
        self.letters = Letters(lambda node: daemon.outlook.dial(node, CEREMONY), node_of, self._receive)
        self.epochs = Epochs(
            custody=daemon.custody,
            node=daemon.identity.id,
            records=self._records,
            publish=self._publish,
            now=time.monotonic,
        )
        self.readmission = Readmission(
            identity=daemon.identity,
            secret=daemon.config.bootstrap_secret,
            credential=lambda: daemon.certifier.member.credential,
            root_public=daemon.membership.roots,
            revoked=daemon.revocations,
            address=daemon.config.gossip_address,
            certificate=self._shown,
            founding=self._founding,
            founded_at=root_since(daemon.membership.root_certificate),
            now=daemon.clock.now,
        )
        self._passing = passing_certificate(daemon.clock.now())
        daemon.channels.present_nothing(self._passing)
        self.kin = Kin(
            identity=daemon.identity,
            credential=lambda: daemon.certifier.member.credential,
            root_public=daemon.membership.roots,
            revoked=daemon.revocations,
            address=daemon.config.gossip_address,
            certificate=self._shown,
            where=self._where,
            places=lambda: [*daemon.seeds, *daemon.contacts],
            now=daemon.clock.now,
        )
        daemon.custody.changed(self._custody_changed)
        self.epochs.take_in()

    async def run(self) -> None:
        """Take part in ceremonies, and note who becomes a member, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.ceremonies.run())
            tasks.create_task(self.seniority.run())

    async def publish(self) -> None:
        """See to it that every epoch is in somebody's journal, for ever."""
        await self._daemon.ready.wait()  # own writes have to wait for what the mesh knows of this node
        while True:
            self._wake.clear()
            again_at = await self.epochs.tell()
            wait_s = None if again_at is None else max(0.0, again_at - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    def state_changed(self) -> None:
        """The journal, the members or the revocations may be different."""
        if self.epochs.take_in():
            self._wake.set()

    def cut_revoked(self, revoked: Callable[[FrameStream], bool]) -> None:
        """End letters with whoever is revoked now."""
        self.letters.cut(revoked)
        self.ceremonies.changed()

    @property
    def status(self) -> CeremonyStatus | None:
        """Of the ceremony under way."""
        return self.ceremonies.status

    async def close(self) -> None:
        """End the letters."""
        await self.letters.close()

    async def until_changed(self) -> None:
        """Return when custody has changed."""
        await self._changed.wait()

    def _custody_changed(self) -> None:
        self._wake.set()
        self._changed.set()
        self._changed = asyncio.Event()
        self.ceremonies.changed()
        self._daemon.rollover.changed()

    def _send(self, node: bytes, letter: bytes) -> None:
        self.letters.send(node, letter)

    def _receive(self, node: bytes, letter: bytes) -> None:
        if letter[:1] in ROLLOVER:
            self._daemon.rollover.receive(node, letter)
        else:
            self.ceremonies.receive(node, letter)

    def _retain_s(self) -> float:
        """Until nobody can be left that has not gone over to the newest root."""
        steps = self._daemon.membership.roots.rollovers
        return steps[-1].terms.switch_at - self._daemon.clock.now() if steps else 0.0

    def _records(self) -> list[Record]:
        return [record for record in self._daemon.journal.records(EPOCH) if record.payload]

    async def _publish(self, epoch: EpochRecord) -> None:
        await self._daemon.write([Draft(kind=EPOCH, key=epoch_key(epoch), payload=epoch.encode())])

    def _shown(self) -> bytes:
        held = self._daemon.certifier.held.get(self._daemon.outlook.node_spiffe)
        return der_of(self._passing if held is None else held)

    def _where(self, node: bytes) -> Address | None:
        member = self._daemon.node.engine.member(node)
        return None if member is None else member.address

    async def dial_signer(self, node: bytes) -> FrameStream:
        """A stream of purpose `sign`, by certificates or, where one of the two has none that is good, by node keys.
        Raises StreamError."""
        daemon = self._daemon
        held = daemon.certifier.held.get(daemon.outlook.node_spiffe)
        if held is not None and held.not_after > daemon.clock.now() and self._where(node) is not None:
            try:
                return await daemon.outlook.dial(node, SIGN)
            except UnreachableError:
                raise
            except StreamError as error:
                log.debug("signer_by_key", extra={"fields": {"reason": str(error)}})
        return await self.kin.dial(node, SIGN)

    async def serve_kin(self, stream: FrameStream, _purpose: bytes) -> None:
        """Sign for a member without a certificate (a handler of `peer/io/listen.py`)."""
        try:
            if await self.kin.answer(stream) == SIGN:
                await self._daemon.cosigner.serve(stream, SIGN)
        finally:
            self.kin.forget(stream)

    def _founding(self) -> EpochRecord | None:
        known = self._daemon.custody.chain.at(0)
        if known is not None:
            return known
        for record in self._records():
            if record.key.startswith("0/"):
                with contextlib.suppress(EpochError):
                    return decode_epoch(record.payload)
        return None
