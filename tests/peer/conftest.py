"""A world of pure nodes: datagrams, streams and disks are dictionaries, time is a number."""

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from crdt.journal import Journal
from crdt.record import Record
from gossip.config import local
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
from trust.admission import found
from trust.authority import SoleAuthority
from trust.credential import Credential
from trust.identity import NodeIdentity
from trust.revocation import RevocationSet

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
            from dataclasses import replace

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
        self.answers: dict[tuple[str, int], list[Written | Joined]] = {}
        self.notes: list[tuple[str, dict[str, Any]]] = []
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
        registry = self.mesh.registry()
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
