"""The daemon: every part of a running peer, put together, started in order and taken down in the reverse.

Start: sockets first (a port in use must be told before anything is changed), then the node on the gossip
port, the data plane, the certificates, the local services, and last the admin API. Ready is what can serve: a
certificate is held, state was exchanged with another node (or there is nobody to exchange it with), and the
data plane serves a snapshot made after that.

Invariant: whatever `start` opened, `stop` closes, also when `start` failed half-way.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Final

from gossip.config import GossipConfig, lan, local, wan
from gossip.events import Address
from gossip.member import Member, State
from peer.admin.metrics import Metrics
from peer.admin.traffic import Traffic
from peer.api import ApiError
from peer.catalog import Health, View
from peer.certificates import load_certificates, save_certificates
from peer.certify import Certifier
from peer.channels import Channels, node_of
from peer.config import Config
from peer.contacts import load_contacts, resolve, save_contacts
from peer.dataplane import DataPlane, Situation
from peer.driver import Clock, Disk, Driver
from peer.enforcement import Enforcement
from peer.establish import Established
from peer.filewatch import FileWatch
from peer.fold import Folder, host_of
from peer.gauges import gauges
from peer.io.health import HealthChecks
from peer.io.keys import KeyFile, Keys
from peer.io.store import Batch, Store, StoreError
from peer.io.stream import Hello
from peer.io.udp import GossipDatagrams, open_datagrams
from peer.issuer import Issuer
from peer.local import Key, LocalServices, Registered
from peer.messages import (
    CredentialRenewed,
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
from peer.records import SERVICE
from peer.restore import restore
from peer.sockets import BindError, ListeningSockets, Places
from proxy.plane import Plane
from proxy.resources import ResourceError
from trust.admission import Spend
from trust.bundle import TrustBundle
from trust.credential import Credential
from trust.identity import format_id, spiffe_node, spiffe_workload
from trust.svid import certificate_pem

log = logging.getLogger("gossamer.peer")

FIRST_SYNC_S_MAX: Final = 3.0  # a peer that was a member before goes on alone after this long
REGISTRATIONS: Final = "registrations"
CONTACTS_SAVED_S: Final = 5.0
DRAIN_NOTICE_S: Final = 0.5  # between saying that this host drains and taking no more connections
TELEMETRY_S: Final = 1.0
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
    ) -> None:
        self.config = config
        self.keys = keys
        self.clock = clock
        self.identity = established.identity
        self.membership = established.membership
        self.authority = established.authority
        self.boot = boot
        self.seeds = tuple(seed for seed in config.seeds if seed != config.gossip_address)
        self.stopping = False
        self.stop_asked = asyncio.Event()
        self.ready = asyncio.Event()
        self.failed = ""
        self._rng = random.Random(secrets.randbits(64))
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._unpublished = asyncio.Event()
        self._members_moved = False

        self.contacts = load_contacts(store)
        restored = restore(store.load(), self.membership, clock_drift_max_s=config.clock_drift_max_s)
        self.registry = restored.registry
        self.journal = restored.journal
        self.revocations = self.registry.revocations
        self.disk = Disk(store)
        # Nobody to wait for: the founder's first start, and a mesh of one.
        self.alone = not self.seeds and not self.contacts
        self.node = Node(
            identity=self.identity,
            credential=self.membership.credential,
            registry=self.registry,
            journal=self.journal,
            config=PROFILES[config.profile](),
            address=config.gossip_address,
            boot=boot,
            zone=config.zone,
            meta=self._meta(draining=False),
            rng=self._rng,
            now=clock.now(),
            hold_writes_s=0.0 if self.alone else FIRST_SYNC_S_MAX,
        )
        self.driver = Driver(self.node, clock, self.disk)
        self.folder = Folder(self.journal, self.registry)
        self.issuer = Issuer(
            authority=self.authority,
            root_certificate=self.membership.root_certificate,
            trust_domain=self.membership.trust_domain,
            revoked=self.revocations,
            ledger=restored.ledger,
            now=clock.now,
            spent=self._spent,
            svid_ttl_s=int(config.svid.ttl_s),
        )
        self.certifier = Certifier(
            member=self.membership,
            identity=self.identity,
            issuer=self.issuer,
            signers=self.signers,
            now=clock.now,
            changed=self._certificates_changed,
            renewed=self._credential_renewed,
            rng=self._rng,
        )
        self._bundle = TrustBundle(self.membership.trust_domain, [self.membership.root_certificate])
        self._bundle_pem = certificate_pem(self.membership.root_certificate)
        self.channels = Channels(
            bundle=self._bundle,
            revoked=self.revocations,
            hello=self._hello,
            feed=self.driver.feed,
            issuer=self.issuer,
            enforcement=Enforcement(
                heads=lambda: self.journal.heads,
                enforced=lambda: self.dataplane.enforced,
                node_of=node_of,
            ),
        )
        self.driver.streams = self.channels.exchanges
        self.driver.on_state = self._state_changed
        self.driver.on_member = self._member_moved
        self.datagrams: GossipDatagrams | None = None

        self.dataplane = DataPlane(
            plane=plane,
            sockets=ListeningSockets(
                Places(
                    bind=config.bind,
                    loopback=config.loopback,
                    inbound_port=config.ports.inbound,
                    outbound_port=config.ports.outbound,
                )
            ),
            situation=self._situation,
            limits=config.limits,
        )
        self.local = LocalServices(
            credential=lambda: self.certifier.member.credential,
            write=self.write,
            remember=self._remember,
            prepare=self._prepare,
            changed=self._services_changed,
        )
        self.files = FileWatch(config.services_dir, self.local)
        self.checks = HealthChecks(self._health_changed)
        self.traffic = Traffic()
        self.metrics = Metrics(self.traffic, gauges(self))

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Open everything. Raises DaemonError naming what could not be opened; then nothing is left open."""
        try:
            await self._open_gossip()
            await self._restore_services()
            try:
                self.dataplane.open_listeners(self.view())
            except BindError as error:
                raise DaemonError(str(error)) from error
            try:
                await self.dataplane.plane.start()
            except (OSError, TimeoutError) as error:
                raise DaemonError(f"the data plane did not start: {error}") from error
            self.certifier.restore(load_certificates(self.keys, self._bundle, self.clock.now()))
            self._certificates_changed()
        except BaseException:
            await self.stop(drain_s=0.0)
            raise
        self._spawn(self.certifier.run(), "certificates")
        self._spawn(self.dataplane.run(), "data plane")
        self._spawn(self._observe(), "telemetry")
        self._spawn(self._enter(), "entering the mesh")
        self._services_changed()

    async def stop(self, *, drain_s: float | None = None) -> None:
        """Say good-bye, finish what is in flight, close everything. Idempotent."""
        if self.stopping:
            return
        self.stopping = True
        self.ready.clear()
        drain_s = self.config.drain_timeout_s if drain_s is None else drain_s
        if drain_s > 0:
            self.driver.feed(MetaChanged(meta=self._meta(draining=True)))
            if self.local.services and len(self.node.engine.members()) > 1:
                await asyncio.sleep(min(DRAIN_NOTICE_S, drain_s))
            await self.dataplane.plane.drain(drain_s)
            self.driver.feed(Depart())
            try:
                async with asyncio.timeout(LEAVE_S_MAX):
                    await self.driver.departed.wait()
            except TimeoutError:
                log.warning("leave_untold", extra={"fields": {"waited_s": LEAVE_S_MAX}})
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.checks.close()
        await self.dataplane.plane.stop()
        self.dataplane.sockets.close()
        await self.channels.close()
        self.driver.close()
        if self.driver.datagrams is not None:
            self.driver.datagrams.close()
        await self.disk.close()

    async def _open_gossip(self) -> None:
        host, port = self.config.bind, self.config.ports.gossip
        try:
            self.driver.datagrams, self.datagrams = await open_datagrams(host, port, self._datagram)
            await self.channels.listen(host, port)
        except OSError as error:
            words = error.strerror or str(error)
            raise DaemonError(f"gossip port {host}:{port} cannot be opened: {words}") from error

    async def _restore_services(self) -> None:
        """Take up the command line's registrations. What the mesh was told before is in this node's own records."""
        text = await self.disk.run(lambda store: store.meta_get(REGISTRATIONS))
        mine = [r for r in self.journal.records(SERVICE) if r.writer == self.identity.id and r.payload]
        told = {record.key: record.payload for record in mine}
        try:
            self.local.restore(text.decode() if isinstance(text, bytes) else "", told)
        except ResourceError as error:
            raise DaemonError(f"registered services cannot be restored: {error}") from error

    async def _enter(self) -> None:
        """From certificate to ready."""
        while self.node_spiffe not in self.certifier.held:
            await self.until_changed()
        if not self.alone:
            self._spawn(self._join_seeds(), "joining")
            try:
                async with asyncio.timeout(FIRST_SYNC_S_MAX):
                    await self.driver.synced.wait()
            except TimeoutError:
                log.warning("alone", extra={"fields": {"waited_s": FIRST_SYNC_S_MAX}})
        await self.files.read()
        await self.local.publish()
        self._spawn(self.files.run(), "service files")
        self._spawn(self._publish_health(), "health")
        await self._certified()
        self.dataplane.changed()
        await self.dataplane.wait_enforced(dict(self.journal.heads))
        self.ready.set()

    async def _certified(self) -> None:
        """Until each wanted identity has its certificate, or its first attempt has failed."""
        while True:
            wanted = self.wanted_identities()
            if wanted <= {*self.certifier.held, *self.certifier.failures}:
                return
            await self.until_changed()

    # ------------------------------------------------------------------ what others ask of it

    def signers(self) -> Iterable[Address]:
        """Where certificates can be had, the likeliest first."""
        members = [m for m in self.node.engine.members() if m.id != self.identity.id]
        alive = [m for m in members if m.live]
        return [
            *(m.address for m in alive if m.meta.get("signer")),
            *self.seeds,
            *self.contacts,
            *(m.address for m in members if m.meta.get("signer") and not m.live),
        ]

    async def write(self, drafts: Sequence[Draft]) -> Written:
        """Publish records in this node's name; durable when it returns. Raises ApiError."""
        answer = await self.driver.ask(lambda request: Write(request=request, drafts=tuple(drafts)))
        assert isinstance(answer, Written)
        if answer.error:
            raise ApiError(answer.error)
        return answer

    async def join(self, seeds: tuple[Address, ...]) -> Joined:
        answer = await self.driver.ask(lambda request: JoinSeeds(request=request, seeds=seeds))
        assert isinstance(answer, Joined)
        return answer

    # ------------------------------------------------------------------ what is known, as others need it

    @property
    def served_version(self) -> int:
        """The snapshot the data plane serves; 0 before the first."""
        return self.dataplane.served.version if self.dataplane.served is not None else 0

    @property
    def oversized(self) -> int:
        """Datagrams that were dropped unread."""
        return self.datagrams.oversized if self.datagrams is not None else 0

    def _others(self) -> list[Member]:
        return [m for m in self.node.engine.members() if m.live and m.id != self.identity.id]

    @property
    def node_spiffe(self) -> str:
        return spiffe_node(self.membership.trust_domain, self.identity.id)

    def view(self, services: Mapping[Key, Registered] | None = None) -> View:
        """What is known here and now; with `services` as it would be if these were registered here."""
        me = self.node.engine.member(self.identity.id)
        assert me is not None
        others = self.folder.services(self.node.engine.members(), but=self.identity.id)
        here = self.local.instances(host_of(me), services)
        return View(
            node=format_id(self.identity.id),
            node_name=me.name,
            trust_domain=self.membership.trust_domain,
            zone=self.config.zone,
            services=(*here, *others),
            policies=self.folder.policies(),
            revoked=self.revocations.subjects(),
            access_log=self.config.access_log is not False,
        )

    def _situation(self) -> Situation:
        return Situation(
            view=self.view(),
            heads=dict(self.journal.heads),
            certificates=self.certifier.held,
            trust_bundle_pem=self._bundle_pem,
        )

    def _meta(self, *, draining: bool) -> dict[str, int | str | bool]:
        meta: dict[str, int | str | bool] = {"inbound": self.config.ports.inbound}
        if self.authority is not None:
            meta["signer"] = True
        if draining:
            meta["draining"] = True
        return meta

    def wanted_identities(self) -> set[str]:
        """The SPIFFE IDs this host needs certificates for."""
        domain = self.membership.trust_domain
        accounts = {spiffe_workload(domain, ns, account) for ns, account in self.local.accounts()}
        return {self.node_spiffe, *accounts}

    def _hello(self) -> Hello:
        signers = [m.address for m in self.node.engine.members() if m.live and m.meta.get("signer")]
        return Hello(
            root_certificate=self.membership.root_certificate,
            signer=self.authority is not None,
            signers=tuple(signers),
        )

    # ------------------------------------------------------------------ when something changed

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # A part that is gone would be missed silently: end the peer, and let its supervisor start it again.
            log.critical("task_failed", extra={"fields": {"task": task.get_name()}}, exc_info=error)
            self.failed = f"{task.get_name()}: {error}"
            self.stop_asked.set()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_changed(self) -> None:
        """Return when certificates or local services have changed."""
        await self._changed.wait()

    def _datagram(self, source: Address, data: bytes) -> None:
        self.driver.feed(DatagramReceived(source=source, data=data))

    def _state_changed(self) -> None:
        self.dataplane.changed()

    def _member_moved(self, member: Member, previous: State | None) -> None:
        fields = {
            "name": member.name,
            "node": format_id(member.id),
            "address": f"{member.address[0]}:{member.address[1]}",
            "state": member.state.value,
            "previous": previous.value if previous else "unknown",
        }
        log.info("member", extra={"fields": fields})
        self._members_moved = True

    def _certificates_changed(self) -> None:
        node = self.certifier.held.get(self.node_spiffe)
        if node is not None:
            self.channels.present(node)
        save_certificates(self.keys, self.certifier.held.values())
        self.dataplane.changed()
        self._tell_changed()

    def _credential_renewed(self, credential: Credential) -> None:
        self.keys.write(KeyFile.CREDENTIAL, credential.encode())
        self.driver.feed(CredentialRenewed(credential=credential))

    def _services_changed(self) -> None:
        self.certifier.want(self.wanted_identities())
        self.checks.replace(self.local.checks())
        self.dataplane.changed()
        self._tell_changed()

    def _health_changed(self, namespace: str, name: str, health: Health, detail: str) -> None:
        fields = {"service": f"{namespace}/{name}", "health": health, "detail": detail}
        log.info("health", extra={"fields": fields})
        self.local.set_health((namespace, name), health)
        self._unpublished.set()

    async def _publish_health(self) -> None:
        while True:
            await self._unpublished.wait()
            self._unpublished.clear()
            try:
                await self.local.publish()
            except ApiError as error:
                log.error("health_untold", extra={"fields": {"reason": str(error)}})

    def _prepare(self, services: Mapping[Key, Registered]) -> None:
        try:
            self.dataplane.open_listeners(self.view(services))
        except BindError as error:
            raise ApiError(str(error)) from error

    async def _remember(self, text: str) -> None:
        try:
            await self.disk.run(lambda store: store.meta_set(REGISTRATIONS, text.encode()))
        except StoreError as error:
            raise ApiError(str(error)) from error

    async def _spent(self, spend: Spend) -> None:
        await self.disk.commit(Batch(spent=[(spend.token_id, spend.node, spend.expires_at)]))

    async def _join_seeds(self) -> None:
        seeds, unresolved = await resolve([*self.seeds, *self.contacts])
        joined = await self.join(seeds) if seeds else None
        failed = {**unresolved, **(joined.failed if joined is not None else {})}
        wanted = set(self.seeds)
        for (host, port), reason in failed.items():
            if wanted and (host, port) not in wanted:
                continue  # a member of another day; the seeds are what somebody configured
            log.warning("seed_unreachable", extra={"fields": {"seed": f"{host}:{port}", "reason": reason}})

    async def _observe(self) -> None:
        saved_at = 0.0
        while True:
            await asyncio.sleep(TELEMETRY_S)
            self.observe()
            if self._members_moved and self.clock.now() - saved_at > CONTACTS_SAVED_S:
                self._members_moved = False
                saved_at = self.clock.now()
                try:
                    await self.disk.run(lambda store: save_contacts(store, self._others(), self._rng))
                except StoreError as error:
                    log.warning("contacts_unsaved", extra={"fields": {"reason": str(error)}})

    def observe(self) -> None:
        """Take in what the data plane has counted."""
        self.traffic.observe(self.dataplane.plane.observations(), time.monotonic())
