"""The daemon: every part of a running peer, put together.

In what order they are opened and closed is `peer/lifecycle.py`, the way from there to ready `peer/entering.py`, what is
done again and again after it `peer/upkeep.py`, what when something changed `peer/reactions.py`.

Invariant: no socket of the peer is open and none of its tasks runs before `start`.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gossip.config import GossipConfig, lan, local, wan
from gossip.events import Address
from peer.admin.metrics import Metrics
from peer.admin.traffic import Traffic
from peer.api import ApiError
from peer.asked import AskedKeys
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
from peer.entering import ENTERED
from peer.establish import Established
from peer.filewatch import FileWatch
from peer.fold import Folder
from peer.gauges import gauges
from peer.handover import SETTLED, Handover, decode_settled
from peer.io.health import HealthChecks
from peer.io.held import HeldSockets
from peer.io.keys import KeyFileError, Keys
from peer.io.store import Batch, Store
from peer.io.stream import CEREMONY, FOUND, KIN, SEEN, SIGN, SPENT, FrameStream
from peer.io.udp import GossipDatagrams
from peer.issuances import Issuances
from peer.issuer import Issuer
from peer.lifecycle import Lifecycle
from peer.local import LocalServices
from peer.lossword import LossWord
from peer.memory import recall
from peer.messages import (
    Draft,
    Joined,
    JoinSeeds,
    Write,
    Written,
)
from peer.node import Node
from peer.outlook import Outlook
from peer.quarantine import DEADLY, PROVEN_AFTER_S, Probation
from peer.reactions import Reactions
from peer.restore import Restored, restore
from peer.rollover import RolloverCeremony
from peer.rootline import RootLine
from peer.rootvote import Votes
from peer.sightings import Sightings
from peer.signing import Signing
from peer.sockets import ListeningSockets, Places
from peer.succession import Succession
from peer.tasks import Tasks
from peer.tokens import SpentTokens
from peer.upgrade import Upgrade
from peer.upkeep import Upkeep
from proxy.plane import OldWorker, Plane
from trust.bundle import TrustBundle
from trust.errors import RolloverError
from trust.groupkey import GroupKey
from trust.identity import format_id
from trust.order import Rules

log = logging.getLogger("gossamer.peer")

PROFILES: Final[Mapping[str, Callable[[], GossipConfig]]] = {"lan": lan, "wan": wan, "local": local}


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
        self.lifecycle = Lifecycle(self, old_workers)
        self.upgrade: Upgrade | None = None  # of the process this peer is
        self.stopping = False
        self.stop_asked = asyncio.Event()
        self.ready = asyncio.Event()
        self.failed = ""
        self.tasks = Tasks(self._fail)
        self.spawn = self.tasks.spawn
        self._changed = asyncio.Event()
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
        self.rootline = RootLine(self)
        self.rootline.begin()
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
        self.issuances = Issuances(self)
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
        self.bundle = TrustBundle(self.membership.trust_domain, self.outlook.anchors())
        self.channels = Channels(
            bundle=self.bundle,
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
            root_public=self.membership.roots.first,
            root_certificate=self.membership.root_certificate,
            roots=self.membership.roots,
            trust_domain=self.membership.trust_domain,
            revoked=self.revocations,
            ledger=restored.ledger,
            group=lambda: self.custody.group,
            rolling=lambda: self.custody.next,
            carries=self.rootline.carries,
        )
        self.votes = self._votes()
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
            vote=None if self.votes is None else self.votes.cast,
            shared=self.issuances.shared,
        )
        self.signing = self._signing_of(None)
        self.next_signing = self._signing_of(self._next_group)
        self.rollover = RolloverCeremony(self, self.next_signing)
        self.issuer = Issuer(
            signing=self.signing,
            rules=rules,
            now=self.clock.now,
            svid_ttl_s=int(self.config.svid.ttl_s),
            root=lambda: self.custody.root,
            signed=self.issuances.signed,
        )

    def _signing_of(self, group: Callable[[], GroupKey | None] | None) -> Signing:
        return Signing(
            custody=self.custody,
            cosigner=self.cosigner,
            node=self.identity.id,
            dial=self._dial_signer,
            may_sign=self.outlook.may_sign,
            rng=self.rng,
            entropy=secrets.token_bytes,
            group=group,
        )

    def _next_group(self) -> GroupKey | None:
        return None if self.custody.next is None else self.custody.next.after.group

    def _votes(self) -> Votes | None:
        try:
            return Votes(self.keys)
        except (KeyFileError, RolloverError) as error:
            # What it has named is unknown, and naming again could make two successors of one root.
            log.error("rollover_vote_lost", extra={"fields": {"reason": str(error)}})
            return None

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
            read_ahead=self.folder.read_ahead,
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

    # ------------------------------------------------------------------ what others ask of it

    async def start(self) -> None:
        """Open everything. Raises DaemonError naming what could not be opened; then nothing is left open."""
        await self.lifecycle.start()

    async def stop(self, *, drain_s: float | None = None) -> None:
        """Close everything. Without `drain_s`: say good-bye, and finish what is in flight before. Idempotent."""
        await self.lifecycle.stop(drain_s=drain_s)

    async def write(self, drafts: Sequence[Draft]) -> Written:
        """Publish records in this node's name; durable when it returns. Raises ApiError."""
        try:
            answer = await self.driver.ask(lambda request: Write(request=request, drafts=tuple(drafts)))
        except DriverClosedError as error:
            raise ApiError(str(error)) from error
        assert isinstance(answer, Written)
        if answer.error:
            raise ApiError(answer.error, code=2 if answer.invalid else 1)
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

    def observe(self) -> None:
        """Take in what the data plane has counted."""
        telemetry = self.dataplane.plane.observations()
        self.traffic.observe(telemetry, time.monotonic())
        self.sightings.met_by_plane(telemetry.met)
