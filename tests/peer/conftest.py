"""A world of pure nodes: datagrams, streams and disks are dictionaries, time is a number."""

import asyncio
import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from crdt.journal import Equivocation, Journal
from crdt.record import Record
from gossip.config import local
from peer.channels import Channels, node_of
from peer.enforcement import Enforcement
from peer.enroll import Membership
from peer.io.stream import Hello
from peer.issuer import Issuer
from peer.messages import (
    CloseStream,
    DatagramReceived,
    Departed,
    Draft,
    Input,
    Joined,
    JoinSeeds,
    MemberMoved,
    Note,
    OpenStream,
    Output,
    Persist,
    Persisted,
    SendDatagram,
    SendFrame,
    StateChanged,
    StreamClosed,
    StreamFrame,
    StreamOpened,
    Synced,
    Tick,
    Write,
    Written,
)
from peer.node import Node
from peer.records import Registry
from tests.peer.signers import Parts, parts
from tests.peer.team import Team
from trust.admission import Spend, TokenLedger, found
from trust.authority import Authority, SoleAuthority, root_certificate
from trust.bundle import TrustBundle
from trust.ceremony.alone import founded_alone
from trust.credential import Credential
from trust.identity import NodeIdentity, spiffe_node
from trust.issuance import issue_svid, request_svid
from trust.order import Rules
from trust.revocation import RevocationSet
from trust.svid import KeyedSvid, keyed, new_leaf_key

START = 1_800_000_000.0
DOMAIN = "cluster.local"


class Mesh:
    """Root and members of one mesh, without any node running."""

    def __init__(self) -> None:
        self.authority = SoleAuthority.from_seed(b"r" * 32, holder=bytes(16))

    def member(self, number: int, **rights: Any) -> tuple[NodeIdentity, Credential]:
        identity = NodeIdentity.from_seed(bytes([number]) * 32)
        credential = found(
            self.authority,
            identity,
            f"node-{number}",
            trust_domain=DOMAIN,
            now=int(START),
            entropy=random.Random(number).randbytes,
        )
        if rights:
            changed = replace(credential, **rights)
            credential = changed.signed(self.authority.sign(changed.signing_bytes()))
        return identity, credential

    def registry(self) -> Registry:
        return Registry(
            root=self.authority.root_public,
            trust_domain=DOMAIN,
            drift_ms=5000,
            revocations=RevocationSet(self.authority.root_public),
        )


class World:
    """Runs nodes on a virtual clock. `cut(a, b)` says whether nothing passes from a to b now."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.now = START
        self.nodes: dict[tuple[str, int], Node] = {}
        self.disk: dict[tuple[str, int], dict[tuple[bytes, str, str], Record]] = {}
        self.proofs: dict[tuple[str, int], dict[bytes, Equivocation]] = {}  # the disk's, too
        self.answers: dict[tuple[str, int], list[Written | Joined]] = {}
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.opened: Counter[tuple[str, int]] = Counter()  # streams each node asked for
        self.synced: set[tuple[str, int]] = set()
        self.departed: set[tuple[str, int]] = set()
        self.cut: Callable[[tuple[str, int], tuple[str, int]], bool] = lambda _a, _b: False
        self.disk_delay_s = 0.001
        self._queue: list[tuple[float, int, tuple[str, int], Input]] = []
        self._order = itertools.count()
        self._links: dict[tuple[tuple[str, int], int], tuple[tuple[str, int], int]] = {}
        self._inbound = itertools.count(2, 2)

    def node(self, number: int, **options: Any) -> tuple[str, int]:
        """Start node `number` at 10.0.0.<number>."""
        rights = options.pop("rights", {})
        identity, credential = self.mesh.member(number, **rights)
        address = (f"10.0.0.{number}", 7946)
        registry = options.pop("registry", None) or self.mesh.registry()
        self.nodes[address] = Node(
            identity=identity,
            credential=credential,
            registry=registry,
            journal=options.pop("journal", None) or Journal(verify=registry.judge),
            config=local(),
            address=address,
            boot=int(self.now * 1000),
            zone="",
            meta={"inbound": 15006},
            rng=random.Random(number),
            now=self.now,
            **options,
        )
        self.disk.setdefault(address, {})
        self.proofs.setdefault(address, {})
        self.answers.setdefault(address, [])
        return address

    def feed(self, address: tuple[str, int], event: Input) -> None:
        if address in self.nodes:
            for output in self.nodes[address].step(self.now, event):
                self._obey(address, output)

    def write(self, address: tuple[str, int], *drafts: Draft, request: int = 1) -> None:
        self.feed(address, Write(request=request, drafts=drafts))

    def join(self, address: tuple[str, int], *seeds: tuple[str, int]) -> None:
        self.feed(address, JoinSeeds(request=0, seeds=seeds))

    def run(self, seconds: float) -> None:
        """Let `seconds` pass."""
        end = self.now + seconds
        while True:
            deadlines = [n.deadline for n in self.nodes.values() if n.deadline is not None]
            due = min(deadlines, default=end + 1)
            arrives = self._queue[0][0] if self._queue else end + 1
            moment = min(due, arrives)
            if moment > end:
                break
            self.now = max(self.now, moment)
            if arrives <= due:
                _, _, address, event = heapq.heappop(self._queue)
                self.feed(address, event)
                continue
            for address, node in list(self.nodes.items()):
                if node.deadline is not None and node.deadline <= self.now:
                    self.feed(address, Tick())
        self.now = end

    def later(self, after_s: float, address: tuple[str, int], event: Input) -> None:
        heapq.heappush(self._queue, (self.now + after_s, next(self._order), address, event))

    def _obey(self, at: tuple[str, int], output: Output) -> None:
        match output:
            case SendDatagram():
                if not self.cut(at, output.address):
                    self.later(0.001, output.address, DatagramReceived(source=at, data=output.data))
            case OpenStream():
                self._open(at, output)
            case SendFrame():
                link = self._links.get((at, output.stream))
                if link is not None and not self.cut(at, link[0]):
                    self.later(0.002, link[0], StreamFrame(stream=link[1], data=output.data))
            case CloseStream():
                link = self._links.pop((at, output.stream), None)
                if link is not None:
                    self._links.pop(link, None)
                    self.later(0.002, link[0], StreamClosed(stream=link[1]))
            case Persist():
                self.proofs[at].update({fork.writer: fork for fork in output.forks})
                for record in output.delete:
                    self.disk[at].pop((record.writer, record.kind, record.key), None)
                for record in output.put:
                    self.disk[at][record.writer, record.kind, record.key] = record
                if output.ticket:
                    self.later(self.disk_delay_s, at, Persisted(ticket=output.ticket))
            case Written() | Joined():
                self.answers[at].append(output)
            case Note():
                self.notes.append((output.event, dict(output.fields)))
            case Synced():
                self.synced.add(at)
            case Departed():
                self.departed.add(at)
            case MemberMoved() | StateChanged():
                pass

    def _open(self, at: tuple[str, int], output: OpenStream) -> None:
        self.opened[at] += 1
        target = self.nodes.get(output.address)
        if target is None or self.cut(at, output.address) or self.cut(output.address, at):
            self.later(0.002, at, StreamClosed(stream=output.stream, reason="unreachable"))
            return
        if output.node is not None and output.node != target.identity.id:
            self.later(0.002, at, StreamClosed(stream=output.stream, reason="another node"))
            return
        inbound = next(self._inbound)
        self._links[at, output.stream] = (output.address, inbound)
        self._links[output.address, inbound] = (at, output.stream)
        caller = self.nodes[at].identity.id
        self.later(0.002, output.address, StreamOpened(stream=inbound, node=caller, inbound=True))
        self.later(0.002, at, StreamOpened(stream=output.stream, node=target.identity.id, inbound=False))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    """For tests that need a new one for each example."""
    return World


# ------------------------------------------------------------------ a mesh on real sockets


@dataclass
class Person:
    """A member of a `LiveMesh`, with what it needs to speak TLS."""

    identity: NodeIdentity
    membership: Membership
    svid: KeyedSvid

    @property
    def credential(self) -> Credential:
        return self.membership.credential


class LiveMesh:
    """Root, members and signers of a mesh whose certificates are valid now: OpenSSL reads the real clock. `advance_s`
    moves the clock of the issuers."""

    def __init__(self, root: bytes = b"root", authority: Authority | None = None) -> None:
        self.advance_s = 0.0
        self.seed = root.ljust(32)
        self.authority = authority or SoleAuthority.from_seed(self.seed, holder=bytes(16))
        self.root = root_certificate(self.authority, DOMAIN, int(time.time()))
        self.bundle = TrustBundle(DOMAIN, [self.root])
        self.revoked = RevocationSet(self.authority.root_public)
        self.spends: list[Spend] = []
        self._entropy = random.Random(7)

    def now(self) -> float:
        return time.time() + self.advance_s

    def member(self, number: int, **rights: Any) -> Person:
        return self.person(NodeIdentity.from_seed(bytes([number]) * 32), f"node-{number}", **rights)

    def person(self, identity: NodeIdentity, name: str, **rights: Any) -> Person:
        credential = found(
            self.authority,
            identity,
            name,
            trust_domain=DOMAIN,
            now=int(self.now()),
            entropy=self._entropy.randbytes,
        )
        changed = replace(credential, **rights)
        credential = changed.signed(self.authority.sign(changed.signing_bytes()))
        membership = Membership(root_certificate=self.root, trust_domain=DOMAIN, credential=credential)
        svid = self._issued(identity, credential, spiffe_node(DOMAIN, identity.id), 3600)
        return Person(identity, membership, svid)

    def svid(self, person: Person, spiffe: str, ttl_s: int = 3600) -> KeyedSvid:
        return self._issued(person.identity, person.credential, spiffe, ttl_s)

    def _issued(self, identity: NodeIdentity, credential: Credential, spiffe: str, ttl_s: int) -> KeyedSvid:
        key = new_leaf_key(self._entropy.randbytes)
        request = request_svid(identity, credential, spiffe, key, self.now())
        der = issue_svid(
            self.authority, self.root, request, trust_domain=DOMAIN, now=int(self.now()),
            entropy=self._entropy.randbytes, revoked=self.revoked, ttl_s=ttl_s,
        )  # fmt: skip
        root = self.authority.root_public
        return keyed(der, key, root_public=root, trust_domain=DOMAIN, now=self.now())

    def rules(self) -> Rules:
        return Rules(
            root_public=self.authority.root_public, root_certificate=self.root, trust_domain=DOMAIN,
            revoked=self.revoked, ledger=TokenLedger(),
        )  # fmt: skip

    def alone(self, identity: NodeIdentity, *, knows: bool = True, **options: Any) -> Parts:
        """A peer that signs for this mesh all by itself; or one that does not know who does."""

        async def spent(spends: Sequence[Spend]) -> None:
            self.spends += spends

        made = parts(identity.id, self.rules(), self.now, options.pop("spent", spent), **options)
        if knows:
            made.custody.take(*founded_alone(identity, DOMAIN, self.seed))
        return made

    def issuer(self, number: int = 1, **options: Any) -> Issuer:
        """That of a peer alone."""
        return self.alone(NodeIdentity.from_seed(bytes([number]) * 32), **options).issuer


@dataclass
class Post:
    """Channels that listen, and what they were told."""

    person: Person
    channels: Channels
    issuer: Issuer
    heard: list[Input] = field(default_factory=list)
    heads: dict[bytes, int] = field(default_factory=dict)
    stale: list[bool] = field(default_factory=list)  # not empty: it enforces nothing of what it holds

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.channels.port


@pytest.fixture
def live() -> LiveMesh:
    return LiveMesh()


@pytest.fixture(scope="session")
def live_mesh() -> type[LiveMesh]:
    return LiveMesh


@pytest.fixture
async def post(live: LiveMesh) -> AsyncIterator[Callable[..., Awaitable[Post]]]:
    """Open channels for a member: `await post(person, signer=True)`."""
    async with AsyncExitStack() as stack:

        @asynccontextmanager
        async def listening(
            person: Person, signer: bool, hello: Hello | None, options: dict[str, Any]
        ) -> AsyncIterator[Post]:
            issuer = live.alone(person.identity, knows=signer, **options).issuer
            heard: list[Input] = []
            heads: dict[bytes, int] = {}
            stale: list[bool] = []
            said = hello or Hello(root_certificate=live.root, issues=signer, signers=())
            channels = Channels(
                bundle=live.bundle,
                revoked=live.revoked,
                hello=lambda: said,
                feed=heard.append,
                issuer=issuer,
                enforcement=Enforcement(
                    heads=lambda: heads,
                    enforces=lambda dots: (
                        not stale and all(heads.get(writer, 0) >= seq for writer, seq in dots)
                    ),
                    node_of=node_of,
                ),
            )
            channels.present(person.svid)
            await channels.listen("127.0.0.1", 0)
            try:
                yield Post(person, channels, issuer, heard, heads, stale)
            finally:
                await channels.close()

        async def make(
            person: Person, *, signer: bool = False, hello: Hello | None = None, **options: Any
        ) -> Post:
            return await stack.enter_async_context(listening(person, signer, hello, options))

        yield make


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Let the loop run until a condition holds."""

    async def wait(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
async def team(live_mesh: type[LiveMesh]) -> AsyncIterator[Team]:
    """Five signers that listen."""
    made = Team(live_mesh)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
