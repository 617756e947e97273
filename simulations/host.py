"""One host: an address, a disk, a clock, a processor, and the node that runs on it, if one does.

A host outlives its processes. `life` counts them; what was meant for an earlier one is dropped. What arrives while the
node cannot take it (stopped, blocked, busy with something else) waits in `inbox`, in order; datagrams wait in the
socket's buffer, which is bounded, streams in the kernel, which slows the sender. A timer that comes due meanwhile waits
there too: in front after a stop, as an event loop runs overdue timers first, else behind what came before it.

Invariant: `node` is None exactly while no process runs; at most one tick waits.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from crdt.journal import Journal
from gossip.census import NOBODY, Census
from gossip.config import GossipConfig
from gossip.events import Address
from gossip.member import State
from gossip.statement import sign_alive
from peer.contacts import CONTACTS_MAX
from peer.memory import recall
from peer.messages import Input
from peer.node import Node
from peer.records import REVOCATION, Registry
from simulations.clock import HostClock
from simulations.disk import Disk
from simulations.mesh import Identity, Mesh, People, layer
from trust.credential import Credential
from trust.errors import TrustError
from trust.revocation import decode_revocation

if TYPE_CHECKING:
    from simulations.byzantine import Liar
    from simulations.streams import End, Greeting

PORT: Final = 7946
META: Final = {"inbound": 15006}
INBOX_DATAGRAMS_MAX: Final = 256  # what Linux's default receive buffer (208 KiB) holds of small datagrams


class Keeps(Enum):
    """What of a host is still there when its process starts again."""

    ALL = "all"  # the disk is whole
    BACKUP = "backup"  # the database is an old copy of itself, and the process can tell
    IDENTITY = "identity"  # keys, credential and contacts; the database and the boot number are gone
    NOTHING = "nothing"  # a new node at an old address


@dataclass(slots=True)
class Traffic:
    """What one host has sent and received, by all its lives. Bytes are UDP payload, and what TLS hands to TCP."""

    datagrams_sent: int = 0
    bytes_sent: int = 0
    datagrams_received: int = 0
    bytes_received: int = 0
    datagrams_unheard: int = 0  # nobody was listening
    datagrams_overflowed: int = 0  # no room in the socket's buffer
    streams_opened: int = 0
    stream_bytes_sent: int = 0
    stream_bytes_received: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Host:
    """See the module's theory. Only the world and its parts change a host."""

    index: int
    name: str
    address: Address
    zone: str
    identity: Identity
    credential: Credential
    disk: Disk
    seeds: tuple[Address, ...] = ()
    node: Node | None = None
    life: int = 0
    identities: int = 1  # how many it has had
    powered: bool = True  # with the power gone nothing answers for the process, not even the kernel
    departed: bool = False  # its node has said good-bye
    # time
    clock: HostClock | None = None  # None: perfect
    scheduled: float = inf  # when the one valid timer entry fires
    timer_at: float = inf  # when that timer is meant
    ticks_now: int = 0  # ticks without the time moving on
    ticked_at: float = -inf
    lags: int = 0  # how often its node was told that it ran late
    versions: tuple[int, int] | None = None  # of datagrams that its release reads, where it is another one
    liar: "Liar | None" = None  # what speaks for its node (simulations/byzantine.py)
    # the processor
    stopped: bool = False
    stalls: int = 0  # number of the present series of stalls; 0: none
    service_s: float = 0.0  # what each input takes on top
    busy_until: float = 0.0
    inbox: deque[Any] = field(default_factory=deque)
    inbox_datagrams_max: int = INBOX_DATAGRAMS_MAX
    datagrams_waiting: int = 0
    tick_waits: bool = False
    waking: bool = False
    # streams by the number its node knows them by
    streams: dict[int, "End"] = field(default_factory=dict)
    inbound: int = 2
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def id(self) -> bytes:
        """The id of its node: of the one that runs, or ran last."""
        return bytes(self.identity.id)

    @property
    def up(self) -> bool:
        return self.node is not None

    @property
    def member(self) -> bool:
        """Whether it runs and has not said good-bye."""
        return self.node is not None and not self.departed

    @property
    def boot(self) -> int:
        """The boot number its node announces, or last announced."""
        return self.node.engine.boot if self.node is not None else self.disk.boot

    def states(self) -> dict[bytes, State]:
        """How its node sees every member, itself included; empty when none runs."""
        if self.node is None:
            return {}
        return {member.id: member.state for member in self.node.engine.members()}

    def __repr__(self) -> str:
        how = "stopped" if self.stopped else "departed" if self.departed else "up" if self.node else "down"
        return f"Host({self.name}, {how}, life {self.life})"


Item: TypeAlias = "Input | Greeting"


def start_node(
    host: Host,
    *,
    mesh: Mesh,
    config: GossipConfig,
    rng: random.Random,
    now: float,
    people: People | None = None,
) -> tuple[Node, tuple[Address, ...]]:
    """The node of a host's next life, from what its disk holds, and whom it contacts: as `peer/daemon.py` does it.
    With `people` it starts as one who has long been a member with them."""
    disk = host.disk
    if people is not None:
        disk.known, disk.met, disk.entered = people, True, True
    registry, journal = restored(host, mesh)
    contacts = tuple(dict.fromkeys(a for a in (*host.seeds, *disk.contacts) if a != host.address))
    founder = not host.seeds
    memory = recall(
        met=disk.met or not founder, entered=disk.entered, damaged=disk.doubt, reachable=bool(contacts)
    )
    if people is None:
        disk.boot = max(disk.boot + 1, int(now * 1000))
    node = Node(
        identity=host.identity,
        credential=host.credential,
        registry=registry,
        journal=journal,
        config=config if host.versions is None else replace(config, versions=host.versions),
        address=host.address,
        boot=disk.boot,
        zone=host.zone,
        meta=META,
        rng=rng,
        now=now,
        hold_writes_s=memory.hold_writes_s if people is None else 0.0,
        census=NOBODY if people is None else people.census,
    )
    return node, contacts


def introduce(hosts: Sequence[Host], *, since: float) -> People:
    """What nodes of these hosts know that have known one another since then. Gives each its boot number."""
    alives = []
    for host in hosts:
        host.disk.boot = int(since * 1000)
        alive = sign_alive(
            host.identity,
            host.credential,
            boot=host.disk.boot,
            incarnation=0,
            address=host.address,
            zone=host.zone,
            meta=META,
        )
        alives.append((alive, host.credential))
    return People(
        census=Census(alives, since=since),
        credentials={host.id: host.credential for host in hosts},
        introductions={host.id: host.credential.encode() for host in hosts},
    )


def restored(host: Host, mesh: Mesh) -> tuple[Registry, Journal]:
    """Registry and journal from the disk (`peer/restore.py`)."""
    known = host.disk.known
    registry = mesh.registry({} if known is None else known.credentials)
    introductions = {
        writer: blob
        for writer, blob in host.disk.introductions.items()
        if not registry.introduce(writer, blob)
    }
    journal = Journal(
        verify=registry.judge, introductions=None if known is None else layer(known.introductions)
    )
    damage = journal.restore(
        host.disk.records.values(),
        heads=host.disk.heads,
        introductions=introductions,
        equivocations=host.disk.forks.values(),
    )
    assert not damage, f"the disk of {host.name} holds what was never written: {damage}"
    for record in journal.records(REVOCATION):
        if record.payload and not registry.objection(record):
            try:
                registry.revocations.add(decode_revocation(record.payload))
            except TrustError:
                continue  # as the peer does, which logs it
    return registry, journal


def remember(host: Host, rng: random.Random) -> None:
    """What a peer keeps in its data directory from time to time: whom it knows, and a boot number that rose."""
    if host.node is None:
        return
    others = [
        member.address
        for member in host.node.engine.members()
        if member.live and member.id != host.identity.id
    ]
    if others:
        host.disk.met = True
        host.disk.contacts = tuple(rng.sample(others, min(CONTACTS_MAX, len(others))))
    host.disk.boot = max(host.disk.boot, host.node.engine.boot)


def address_of(index: int) -> Address:
    """10.0.0.1, 10.0.0.2, … for 16 million hosts."""
    number = index + 1
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", PORT
