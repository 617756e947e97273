"""What a running peer does when something has changed: a member, its certificates, its services or their health.

Invariant: what fails here is told to whoever asked for the change, or logged; it leaves the peer as it was.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gossip.member import Member, State
from peer.api import ApiError
from peer.catalog import Health
from peer.certificates import save_certificates
from peer.handover import SETTLED, Settled
from peer.io.keys import KeyFile, KeyFileError
from peer.io.statefile import StateFile, StateFileError
from peer.io.store import Batch, StoreError
from peer.local import Key, Registered
from peer.messages import CredentialRenewed, MetaChanged
from peer.rootfile import store_roots
from peer.sockets import BindError
from trust.admission import Spend
from trust.credential import Credential
from trust.identity import format_id

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.peer")

REGISTRATIONS: Final = "registrations.json"


class Reactions:
    """What the parts of a peer call when something has changed. `files_read`: the service files have been, once."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self.files_read = False
        self.registrations = StateFile(daemon.config.data_dir / REGISTRATIONS)
        self._spending = asyncio.Lock()
        self._revocations_seen = 0

    def member_moved(self, member: Member, previous: State | None) -> None:
        fields = {
            "name": member.name,
            "node": format_id(member.id),
            "address": f"{member.address[0]}:{member.address[1]}",
            "state": member.state.value,
            "previous": previous.value if previous else "unknown",
        }
        log.info("member", extra={"fields": fields})
        self._daemon.upkeep.members_moved = True

    def on_this_loop(self, reaction: Callable[[], None]) -> Callable[[], None]:
        """`reaction` for whoever changes something on a thread of its own."""
        loop = asyncio.get_running_loop()

        def later() -> None:
            if not self._daemon.stopping:
                loop.call_soon_threadsafe(reaction)

        return later

    def signers_changed(self) -> None:
        """Tell the mesh whether this node signs, where that has changed."""
        daemon = self._daemon
        me = daemon.node.engine.member(daemon.identity.id)
        if not daemon.stopping and me is not None and bool(me.meta.get("signer")) != daemon.outlook.signs:
            daemon.driver.feed(MetaChanged(meta=daemon.outlook.meta(draining=False)))

    def state_changed(self) -> None:
        if self._daemon.revocations.added != self._revocations_seen:
            self._revocations_seen = self._daemon.revocations.added
            self._daemon.channels.cut_revoked()
            self._daemon.succession.cut_revoked(self._daemon.channels.is_revoked)
        self._daemon.rootline.take_in()
        self._daemon.succession.state_changed()
        self._daemon.dataplane.changed()

    def certificates_changed(self) -> None:
        node = self._daemon.certifier.held.get(self._daemon.outlook.node_spiffe)
        if node is not None:
            self._daemon.channels.present(node)
        save_certificates(self._daemon.keys, self._daemon.certifier.held.values())
        self._daemon.issuances.hold(self._daemon.certifier.held.values())
        self._daemon.dataplane.changed()
        self._daemon.tell_changed()

    def credential_renewed(self, credential: Credential) -> None:
        try:
            store_roots(
                self._daemon.keys, self._daemon.membership.roots
            )  # else a restart would not believe it
            self._daemon.keys.write(KeyFile.CREDENTIAL, credential.encode())
        except KeyFileError as error:
            # Until the next renewal a restart begins with the old one, which can be renewed as well.
            log.error("credential_unsaved", extra={"fields": {"reason": str(error)}})
        self._daemon.driver.feed(CredentialRenewed(credential=credential))

    def services_changed(self) -> None:
        wanted = self._daemon.outlook.wanted_identities()
        if not self.files_read:
            wanted |= set(self._daemon.certifier.held)  # of services whose files have not been read yet
        self._daemon.certifier.want(wanted)
        self._daemon.checks.replace(self._daemon.local.checks())
        self._daemon.dataplane.settle()
        self._daemon.tell_changed()

    def health_changed(self, namespace: str, name: str, health: Health, detail: str) -> None:
        fields = {"service": f"{namespace}/{name}", "health": health, "detail": detail}
        log.info("health", extra={"fields": fields})
        self._daemon.local.set_health((namespace, name), health)
        self._daemon.upkeep.untold.set()

    def prepare(self, services: Mapping[Key, Registered]) -> None:
        try:
            self._daemon.dataplane.reserve(self._daemon.outlook.view(services))
        except BindError as error:
            raise ApiError(str(error)) from error

    async def remember(self, text: str) -> None:
        try:
            await asyncio.to_thread(self.registrations.write, text)
        except StateFileError as error:
            raise ApiError(str(error)) from error

    async def settle(self, settled: Settled) -> None:
        """Remember up to which epoch all uses of tokens are known here. Raises StoreError."""
        await self._daemon.disk.run(lambda store: store.meta_set(SETTLED, settled.encode()))

    async def spent(self, spends: Sequence[Spend]) -> None:
        """Make the uses of tokens durable. Raises StoreError."""
        rows = [(spend.token_id, spend.node, spend.expires_at) for spend in spends]
        await self._daemon.disk.commit(Batch(spent=rows))
        try:
            async with self._spending:
                await asyncio.to_thread(self._daemon.spent_tokens.add, spends, self._daemon.clock.now())
        except StateFileError as error:
            raise StoreError(str(error)) from error
