"""The daemon: every part of a running peer, put together, started in order and taken down in the reverse.

Start: sockets first (a port in use must be told before anything is changed), then the node on the gossip port, the data
plane, the certificates, the local services, and last the admin API. The way from there to ready is `peer/entering.py`,
what is done again and again after it `peer/upkeep.py`, what when something changed `peer/reactions.py`.

Invariant: whatever `start` opened, `stop` closes, also when `start` failed half-way.
"""

import asyncio
import logging
import random
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from gossip.config import GossipConfig, lan, local, wan
from gossip.events import Address
from peer.admin.metrics import Metrics
from peer.admin.traffic import Traffic
from peer.api import ApiError
from peer.asked import AskedKeys
from peer.certificates import load_certificates
from peer.certify import Certifier
from peer.channels import Channels, node_of
from peer.clock import Clock
from peer.config import Config
from peer.contacts import Contacts
from peer.cosigner import Cosigner
from peer.dataplane import DataPlane
from peer.disk import Disk
from peer.driver import Driver, DriverClosedError
from peer.enforcement import Dots, Enforcement
from peer.entering import ENTERED, enter, told
from peer.establish import Established
from peer.filewatch import FileWatch
from peer.fold import Folder
from peer.gauges import gauges
from peer.handover import SETTLED, Handover, decode_settled
from peer.io.health import HealthChecks
from peer.io.held import GOSSIP_DATAGRAMS, GOSSIP_STREAMS, HeldSockets
from peer.io.keys import Keys
from peer.io.statefile import StateFileError
from peer.io.store import Batch, Store
from peer.io.stream import CEREMONY, FOUND, KIN, SEEN, SIGN, SPENT, FrameStream
from peer.io.udp import GossipDatagrams, open_datagrams
from peer.issuer import Issuer
from peer.local import LocalServices
from peer.lossword import LossWord
from peer.memory import recall
from peer.messages import (
    DatagramReceived,
    Depart,
    Draft,
    Joined,
    JoinSeeds,
    MetaChanged,
    Write,
    Written,
)
from peer.node import Node
from peer.outlook import Outlook
from peer.quarantine import DEADLY, PROVEN_AFTER_S, Probation
from peer.reactions import Reactions
from peer.restore import Restored, restore
from peer.sightings import Sightings
from peer.signing import Signing
from peer.sockets import BindError, ListeningSockets, Places
from peer.succession import Succession
from peer.tasks import Tasks
from peer.tokens import SpentTokens
from peer.upgrade import Upgrade
from peer.upkeep import Upkeep
from proxy.plane import OldWorker, Plane
from proxy.resources import ResourceError
from trust.bundle import TrustBundle
from trust.identity import format_id
from trust.order import Rules

log = logging.getLogger("gossamer.peer")

DRAIN_NOTICE_S: Final = 0.5  # between saying that this host drains and taking no more connections
LEAVE_S_MAX: Final = 2.0
PROFILES: Final[Mapping[str, Callable[[], GossipConfig]]] = {"lan": lan, "wan": wan, "local": local}


class DaemonError(Exception):
    """The peer cannot start; the message names what stands in the way."""


class Daemon:
    """One running peer. Construct with what `establish` found, `start`, and `stop`."""

    def __init__(
        self,
        *,
        config: Config,
        established: Established,
        keys: Keys,
        store: Store,
        boot: int,
        plane: Plane,
        clock: Clock,
        proven_after_s: float = PROVEN_AFTER_S,
        held: HeldSockets | None = None,
        old_workers: Sequence[OldWorker] = (),
    ) -> None:
        """`held` and `old_workers` are what a peer process left that this one takes over from."""
        self.config = config
        self.keys = keys
        self.clock = clock
        self.identity = established.identity
        self.membership = established.membership
        self.custody = established.custody
        self.boot = boot
        self.rng = random.Random(secrets.randbits(64))
        self.seeds = tuple(seed for seed in config.seeds if seed != config.gossip_address)
        self.contact_file = Contacts.of(config.data_dir)
        self.contacts = self.contact_file.load()
        self.held = held or HeldSockets()
        self._old_workers = old_workers
        self.upgrade: Upgrade | None = None  # of the process this peer is
        self.stopping = False
        self.stop_asked = asyncio.Event()
        self.ready = asyncio.Event()
        self.failed = ""
        self._tasks = Tasks(self._fail)
        self.spawn = self._tasks.spawn
        self._changed = asyncio.Event()
        self._serving = False
        self._first_start = established.first_start
        self.loss_word = LossWord.of(config.data_dir)
        self.loss_accepted = self.loss_word.heeded(
            given=config.accept_state_loss, anything_to_lose=not established.first_start, now=clock.now()
        )
        self.memory = recall(
            met=not established.founds
            and (self.contact_file.met or self.custody.signers != (self.identity.public_key,)),
            entered=store.meta_get(ENTERED) is not None,
            damaged=bool(store.set_aside or store.doubt),
            reachable=bool(self.seeds or self.contacts),
            accepted=self.loss_accepted,
        )
        self.spent_tokens = SpentTokens.of(config.data_dir)
        self._settled = decode_settled(store.meta_get(SETTLED))
        loaded = store.load()
        restored = restore(
            loaded,
            self.membership,
            clock_drift_max_s=config.clock_drift_max_s,
            spent=self.spent_tokens.load(clock.now()),
        )
        self.registry = restored.registry
        self.journal = restored.journal
        self.revocations = self.registry.revocations
        self.folder = Folder(self.journal, self.registry)
        self.disk = Disk(store)
        expired = {token for token, _, expires_at in loaded.spent if expires_at <= clock.now()}
        if expired:
            self.disk.owe(Batch(forget_spent=sorted(expired)))
        self.outlook = Outlook(self)
        self.reactions = Reactions(self)
        self._make_node()
        self._make_trust(restored)
        self._make_services(plane, proven_after_s)
        self.upkeep = Upkeep(self)
        self.dataplane.on_set_aside = self.upkeep.quarantine_moved.set
        self.traffic = Traffic()
        self.metrics = Metrics(self.traffic, gauges(self))

    def _make_node(self) -> None:
        config = self.config
        self.node = Node(
            identity=self.identity,
            credential=self.membership.credential,
            registry=self.registry,
            journal=self.journal,
            config=PROFILES[config.profile](),
            address=config.gossip_address,
            boot=self.boot,
            zone=config.zone,
            meta=self.outlook.meta(draining=False),
            rng=self.rng,
            now=self.clock.now(),
            hold_writes_s=self.memory.hold_writes_s,
        )
        self.driver = Driver(self.node, self.clock, self.disk)
        self.driver.on_member = self.reactions.member_moved
        self.driver.on_broken = lambda: self._fail("the node broke")
        self.datagrams: GossipDatagrams | None = None

    def _make_trust(self, restored: Restored) -> None:
        self._make_signing(restored)
        self.asked = AskedKeys.of(self.config.data_dir, self.clock.now(), first_start=self._first_start)
        self.sightings = Sightings(self, self.asked)
        self.certifier = Certifier(
            member=self.membership,
            identity=self.identity,
            issuer=self.issuer,
            signers=self.outlook.signers,
            now=self.clock.now,
            changed=self.reactions.certificates_changed,
            renewed=self.reactions.credential_renewed,
            rng=self.rng,
            asked=self.asked.add,
        )
        self._bundle = TrustBundle(self.membership.trust_domain, [self.membership.root_certificate])
        self.channels = Channels(
            bundle=self._bundle,
            revoked=self.revocations,
            hello=self.outlook.hello,
            feed=self.driver.feed,
            issuer=self.issuer,
            enforcement=Enforcement(
                heads=lambda: self.journal.heads,
                enforces=self._obeys,
                node_of=node_of,
            ),
            met=self.sightings.met,
        )
        self.channels.handle(SEEN, self.sightings.serve)
        self.channels.handle(SIGN, self.cosigner.serve)
        self.channels.handle(SPENT, self.handover.serve)
        self.succession = Succession(self)
        self.channels.handle(CEREMONY, self.succession.letters.serve)
        self.channels.handle(FOUND, self.succession.readmission.serve)
        self.channels.handle(KIN, self.succession.serve_kin)
        self.driver.streams = self.channels.exchanges
        self.driver.on_evicted = self.channels.cut
        self.channels.on_broken(lambda: self._fail("no stream is accepted any more"))

    def _make_signing(self, restored: Restored) -> None:
        rules = Rules(
            root_public=self.membership.root_public,
            root_certificate=self.membership.root_certificate,
            trust_domain=self.membership.trust_domain,
            revoked=self.revocations,
            ledger=restored.ledger,
            group=lambda: self.custody.group,
        )
        self.handover = Handover(
            custody=self.custody,
            node=self.identity.id,
            ledger=restored.ledger,
            store=self.reactions.spent,
            settled=self._settled,
            settle=self.reactions.settle,
            dial=lambda node: self.outlook.dial(node, SPENT),
            member_of=node_of,
            now=self.clock.now,
        )
        self.cosigner = Cosigner(
            custody=self.custody,
            rules=rules,
            node=self.identity.id,
            spending=self.handover.spending,
            now=self.clock.now,
            entropy=secrets.token_bytes,
            member_of=self._member_of,
        )
        self.signing = Signing(
            custody=self.custody,
            cosigner=self.cosigner,
            node=self.identity.id,
            dial=self._dial_signer,
            may_sign=self.outlook.may_sign,
            rng=self.rng,
            entropy=secrets.token_bytes,
        )
        self.issuer = Issuer(
            signing=self.signing,
            rules=rules,
            now=self.clock.now,
            svid_ttl_s=int(self.config.svid.ttl_s),
        )

    async def _dial_signer(self, node: bytes) -> FrameStream:
        return await self.succession.dial_signer(node)

    def _member_of(self, stream: FrameStream) -> bytes | None:
        return node_of(stream) or self.succession.kin.member_of(stream)

    def _obeys(self, dots: Dots) -> bool:
        return self.dataplane.obeys(dots)

    def _make_services(self, plane: Plane, proven_after_s: float) -> None:
        config = self.config
        places = Places(
            bind=config.bind,
            loopback=config.loopback,
            inbound_port=config.ports.inbound,
            outbound_port=config.ports.outbound,
        )
        self.dataplane = DataPlane(
            plane=plane,
            sockets=ListeningSockets(places, self.held),
            situation=self.outlook.situation,
            limits=config.limits,
            probation=Probation(proven_after_s),
        )
        self.driver.on_state = self.reactions.state_changed
        for key, (notice, _) in self.folder.notices_of(self.identity.id).items():
            if notice.reason == DEADLY:
                version = tuple((format_id(writer), seq) for writer, seq in notice.version)
                self.dataplane.quarantine.restore(key, version, notice.message)
        self.local = LocalServices(
            credential=lambda: self.certifier.member.credential,
            write=self.write,
            remember=self.reactions.remember,
            prepare=self.reactions.prepare,
            changed=self.reactions.services_changed,
        )
        self.files = FileWatch(config.services_dir, self.local)
        self.checks = HealthChecks(self.reactions.health_changed)

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Open everything. Raises DaemonError naming what could not be opened; then nothing is left open."""
        try:
            await self._open_gossip()
            self._restore_services()
            try:
                self.dataplane.open_listeners(self.outlook.view())
            except BindError as error:
                raise DaemonError(str(error)) from error
            try:
                await self.dataplane.plane.start()
                await self.dataplane.plane.adopt(self._old_workers, self.config.drain_timeout_s)
            except (OSError, TimeoutError) as error:
                raise DaemonError(f"the data plane did not start: {error}") from error
            self.certifier.restore(load_certificates(self.keys, self._bundle, self.clock.now()))
            self.reactions.certificates_changed()
        except BaseException:
            await self.stop(drain_s=0.0)
            raise
        self.custody.changed(self.reactions.on_this_loop(self.reactions.signers_changed))
        self.spawn(self.certifier.run(), "certificates")
        self.spawn(self.handover.run(), "handing over of tokens")
        self.spawn(self.succession.run(), "ceremonies")
        self.spawn(self.succession.publish(), "telling of epochs")
        self.spawn(self.sightings.run(), "sightings")
        self.spawn(self.upkeep.run(), "upkeep")
        if not self.memory.blank and not self.takes_over:
            self.serve()
        self.spawn(enter(self), "entering the mesh")
        self.reactions.services_changed()

    @property
    def takes_over(self) -> bool:
        """Workers of the process before serve on. They know the mesh as it was a moment ago, so the own ones wait until
        this process knows it as well."""
        return bool(self._old_workers)

    def serve(self) -> None:
        """Let the data plane serve what is known; not before there is something to know."""
        if not self._serving:
            self._serving = True
            self.spawn(self.dataplane.run(), "data plane")

    def entered(self) -> None:
        """The mesh's state is known and the service files have been read: from now on follow what changes."""
        self.reactions.files_read = True
        self.reactions.services_changed()
        self.spawn(self.files.run(), "service files")
        self.spawn(self.upkeep.publish(), "telling of services")
        self.spawn(self.upkeep.tell_quarantine(), "telling of quarantine")

    async def stop(self, *, drain_s: float | None = None) -> None:
        """Close everything. Without `drain_s`: say good-bye, and finish what is in flight before. Idempotent."""
        if self.stopping:
            return
        self.stopping = self._tasks.stopping = True
        self.ready.clear()
        async with AsyncExitStack() as closing:  # in reverse; what fails keeps nothing else from being closed
            closing.push_async_callback(self.disk.close)
            closing.callback(self._close_sockets)
            closing.push_async_callback(self.channels.close)
            closing.push_async_callback(self.signing.close)
            closing.push_async_callback(self.succession.close)
            closing.push_async_callback(self.dataplane.plane.stop)
            closing.push_async_callback(self.checks.close)
            closing.push_async_callback(self._tasks.end)
            if drain_s is None:
                await self._leave(self.config.drain_timeout_s)

    async def bequeath(self) -> tuple[dict[str, socket.socket], tuple[OldWorker, ...]]:
        """Close everything but the sockets, which are returned, and the workers, which go on. The mesh is told nothing:
        another process is this node from now on."""
        workers = await self.dataplane.plane.bequeath()
        self.stopping = self._tasks.stopping = True
        self.ready.clear()
        assert self.datagrams is not None
        sockets = self.dataplane.sockets.copies()
        sockets[GOSSIP_DATAGRAMS] = self.datagrams.copy_socket()
        sockets[GOSSIP_STREAMS] = self.channels.copy_socket()
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self.disk.close)
            closing.callback(self._close_sockets)
            closing.push_async_callback(self.channels.close)
            closing.push_async_callback(self.signing.close)
            closing.push_async_callback(self.succession.close)
            closing.push_async_callback(self.checks.close)
            closing.push_async_callback(self._tasks.end)
        return sockets, workers

    async def _leave(self, drain_s: float) -> None:
        self.driver.feed(MetaChanged(meta=self.outlook.meta(draining=True)))
        if self.local.services and len(self.node.engine.members()) > 1:
            await asyncio.sleep(min(DRAIN_NOTICE_S, drain_s))
        await self.dataplane.plane.drain(drain_s)
        self.driver.feed(Depart())
        try:
            async with asyncio.timeout(LEAVE_S_MAX):
                await self.driver.departed.wait()
        except TimeoutError:
            log.warning("leave_untold", extra={"fields": {"waited_s": LEAVE_S_MAX}})

    def _close_sockets(self) -> None:
        self.dataplane.sockets.close()
        self.driver.close()
        if self.datagrams is not None:
            self.datagrams.close()

    async def _open_gossip(self) -> None:
        host, port = self.config.bind, self.config.ports.gossip
        try:
            held = self.held.take(GOSSIP_DATAGRAMS, host, port)
            self.datagrams = await open_datagrams(host, port, self._datagram, held)
            self.driver.datagrams = self.datagrams
            await self.channels.listen(host, port, self.held.take(GOSSIP_STREAMS, host, port))
        except OSError as error:
            words = error.strerror or str(error)
            raise DaemonError(f"gossip port {host}:{port} cannot be opened: {words}") from error

    def _restore_services(self) -> None:
        """Take up the command line's registrations. What the mesh was told before is in this node's own records."""
        try:
            self.local.restore(self.reactions.registrations.read() or "", told(self))
        except StateFileError as error:
            raise DaemonError(str(error)) from error
        except ResourceError as error:
            path = self.reactions.registrations.path
            raise DaemonError(
                f"{path}: registered services cannot be restored: {error}; mend the file, or remove it and "
                "register them again"
            ) from error

    # ------------------------------------------------------------------ what others ask of it

    async def write(self, drafts: Sequence[Draft]) -> Written:
        """Publish records in this node's name; durable when it returns. Raises ApiError."""
        try:
            answer = await self.driver.ask(lambda request: Write(request=request, drafts=tuple(drafts)))
        except DriverClosedError as error:
            raise ApiError(str(error)) from error
        assert isinstance(answer, Written)
        if answer.error:
            raise ApiError(answer.error)
        return answer

    async def join(self, seeds: tuple[Address, ...]) -> Joined:
        """Contact these addresses. Raises DriverClosedError."""
        answer = await self.driver.ask(lambda request: JoinSeeds(request=request, seeds=seeds))
        assert isinstance(answer, Joined)
        return answer

    # ------------------------------------------------------------------ when something changed

    def _fail(self, reason: str) -> None:
        self.failed = reason
        self.stop_asked.set()

    def tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_changed(self) -> None:
        """Return when certificates or local services have changed."""
        await self._changed.wait()

    def _datagram(self, source: Address, data: bytes) -> None:
        self.driver.feed(DatagramReceived(source=source, data=data))

    def observe(self) -> None:
        """Take in what the data plane has counted."""
        self.traffic.observe(self.dataplane.plane.observations(), time.monotonic())
