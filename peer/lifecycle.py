"""The life of a daemon: opened in order, and closed in the reverse.

Start: sockets first (a port in use must be told before anything is changed), then the node on the gossip port, the data
plane, the certificates, the local services, and last the admin API. The way from there to ready is `peer/entering.py`.

Invariant: whatever `start` opened, `stop` closes, also when `start` failed half-way.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from gossip.events import Address
from peer.certificates import load_certificates
from peer.entering import enter, told
from peer.io.held import GOSSIP_DATAGRAMS, GOSSIP_STREAMS
from peer.io.statefile import StateFileError
from peer.io.udp import open_datagrams
from peer.messages import DatagramReceived, Depart, MetaChanged
from peer.sockets import BindError
from proxy.plane import OldWorker
from proxy.resources import ResourceError

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.peer")

DRAIN_NOTICE_S: Final = 0.5  # between saying that this host drains and taking no more connections
LEAVE_S_MAX: Final = 2.0


class DaemonError(Exception):
    """The peer cannot start; the message names what stands in the way."""


class Lifecycle:
    """See the module's theory. `old_workers` are those of the process that this one takes over from."""

    def __init__(self, daemon: "Daemon", old_workers: Sequence[OldWorker]) -> None:
        self._daemon = daemon
        self._old_workers = old_workers
        self._serving = False

    async def start(self) -> None:
        """Open everything. Raises DaemonError naming what could not be opened; then nothing is left open."""
        daemon = self._daemon
        try:
            await self._open_gossip()
            self._restore_services()
            try:
                daemon.dataplane.open_listeners(daemon.outlook.view())
            except BindError as error:
                raise DaemonError(str(error)) from error
            try:
                await daemon.dataplane.plane.start()
                await daemon.dataplane.plane.adopt(self._old_workers, daemon.config.drain_timeout_s)
            except (OSError, TimeoutError) as error:
                raise DaemonError(f"the data plane did not start: {error}") from error
            daemon.certifier.restore(load_certificates(daemon.keys, daemon.bundle, daemon.clock.now()))
            daemon.reactions.certificates_changed()
        except BaseException:
            await self.stop(drain_s=0.0)
            raise
        daemon.custody.changed(daemon.reactions.on_this_loop(daemon.reactions.signers_changed))
        daemon.spawn(daemon.certifier.run(), "certificates")
        daemon.spawn(daemon.handover.run(), "handing over of tokens")
        daemon.spawn(daemon.succession.run(), "ceremonies")
        daemon.spawn(daemon.rollover.run(), "rollover")
        daemon.spawn(daemon.succession.publish(), "telling of epochs")
        daemon.spawn(daemon.sightings.run(), "sightings")
        daemon.spawn(daemon.issuances.run(), "log of certificates")
        daemon.spawn(daemon.upkeep.run(), "upkeep")
        if not daemon.memory.blank and not self.takes_over:
            self.serve()
        daemon.spawn(enter(daemon), "entering the mesh")
        daemon.reactions.services_changed()

    @property
    def takes_over(self) -> bool:
        """Workers of the process before serve on. They know the mesh as it was a moment ago, so the own ones wait until
        this process knows it as well."""
        return bool(self._old_workers)

    def serve(self) -> None:
        """Let the data plane serve what is known; not before there is something to know."""
        daemon = self._daemon
        if not self._serving:
            self._serving = True
            daemon.spawn(daemon.dataplane.run(), "data plane")

    def entered(self) -> None:
        """The mesh's state is known and the service files have been read: from now on follow what changes."""
        daemon = self._daemon
        daemon.reactions.files_read = True
        daemon.reactions.services_changed()
        daemon.spawn(daemon.files.run(), "service files")
        daemon.spawn(daemon.upkeep.publish(), "telling of services")
        daemon.spawn(daemon.upkeep.tell_quarantine(), "telling of quarantine")

    async def stop(self, *, drain_s: float | None = None) -> None:
        """Close everything. Without `drain_s`: say good-bye, and finish what is in flight before. Idempotent."""
        daemon = self._daemon
        if daemon.stopping:
            return
        daemon.stopping = daemon.tasks.stopping = True
        daemon.ready.clear()
        async with self._control() as closing:
            closing.push_async_callback(daemon.dataplane.plane.stop)
            closing.push_async_callback(daemon.checks.close)
            closing.push_async_callback(daemon.tasks.end)
            if drain_s is None:
                await self._leave(daemon.config.drain_timeout_s)

    async def bequeath(self) -> tuple[dict[str, socket.socket], tuple[OldWorker, ...]]:
        """Close everything but the sockets, which are returned, and the workers, which go on. The mesh is told nothing:
        another process is this node from now on."""
        daemon = self._daemon
        workers = await daemon.dataplane.plane.bequeath()
        daemon.stopping = daemon.tasks.stopping = True
        daemon.ready.clear()
        assert daemon.datagrams is not None
        sockets = daemon.dataplane.sockets.copies()
        sockets[GOSSIP_DATAGRAMS] = daemon.datagrams.copy_socket()
        sockets[GOSSIP_STREAMS] = daemon.channels.copy_socket()
        async with self._control() as closing:
            closing.push_async_callback(daemon.checks.close)
            closing.push_async_callback(daemon.tasks.end)
        return sockets, workers

    def _control(self) -> AsyncExitStack:
        """What closes all but workers and tasks: in reverse, and what is pushed on it first. What fails keeps nothing
        else from being closed."""
        daemon = self._daemon
        closing = AsyncExitStack()
        closing.push_async_callback(daemon.disk.close)
        closing.callback(self._close_sockets)
        closing.push_async_callback(daemon.channels.close)
        closing.push_async_callback(daemon.signing.close)
        closing.push_async_callback(daemon.next_signing.close)
        closing.push_async_callback(daemon.rollover.close)
        closing.push_async_callback(daemon.rootline.close)
        closing.push_async_callback(daemon.succession.close)
        return closing

    async def _leave(self, drain_s: float) -> None:
        daemon = self._daemon
        daemon.driver.feed(MetaChanged(meta=daemon.outlook.meta(draining=True)))
        if daemon.local.services and len(daemon.node.engine.members()) > 1:
            await asyncio.sleep(min(DRAIN_NOTICE_S, drain_s))
        await daemon.dataplane.plane.drain(drain_s)
        daemon.driver.feed(Depart())
        try:
            async with asyncio.timeout(LEAVE_S_MAX):
                await daemon.driver.departed.wait()
        except TimeoutError:
            log.warning("leave_untold", extra={"fields": {"waited_s": LEAVE_S_MAX}})

    def _close_sockets(self) -> None:
        daemon = self._daemon
        daemon.dataplane.sockets.close()
        daemon.driver.close()
        if daemon.datagrams is not None:
            daemon.datagrams.close()

    async def _open_gossip(self) -> None:
        daemon = self._daemon
        host, port = daemon.config.bind, daemon.config.ports.gossip
        try:
            held = daemon.held.take(GOSSIP_DATAGRAMS, host, port)
            daemon.datagrams = await open_datagrams(host, port, self._datagram, held)
            daemon.driver.datagrams = daemon.datagrams
            await daemon.channels.listen(host, port, daemon.held.take(GOSSIP_STREAMS, host, port))
        except OSError as error:
            words = error.strerror or str(error)
            raise DaemonError(f"gossip port {host}:{port} cannot be opened: {words}") from error

    def _restore_services(self) -> None:
        """Take up the command line's registrations. What the mesh was told before is in this node's own records."""
        daemon = self._daemon
        try:
            daemon.local.restore(daemon.reactions.registrations.read() or "", told(daemon))
        except StateFileError as error:
            raise DaemonError(str(error)) from error
        except ResourceError as error:
            path = daemon.reactions.registrations.path
            raise DaemonError(
                f"{path}: registered services cannot be restored: {error}; mend the file, or remove it and "
                "register them again"
            ) from error

    def _datagram(self, source: Address, data: bytes) -> None:
        self._daemon.driver.feed(DatagramReceived(source=source, data=data))
