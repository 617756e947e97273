"""What can be done to a world, as data, and how it is done.

A story is a sequence of (seconds after its beginning, fault). Each fault says what is to happen in plain values, so
that a story can be printed, kept beside a result, and told again. Hosts are their indices; a fault that makes no sense
any more (a crash of what is down) does nothing.

Invariant: telling the same story to the same world has the same outcome.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias, assert_never

from crdt.register import context_for
from peer.messages import Draft
from simulations.host import Host, Keeps
from simulations.network import Wall, apart, bridged, majorities_ring, one_way
from simulations.world import World

NOTE: Final = "note"  # a kind of record no version of the peer gives a meaning to: kept and passed on unread


class Cut(Enum):
    """The shapes of partitions between groups."""

    APART = "apart"  # the groups, and whoever is in none, do not reach one another
    BRIDGE = "bridge"  # the last group reaches both others, which do not reach each other
    RING = "ring"  # each host of the one group reaches a different majority of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """kill -9, or with `power` the plug."""

    host: int
    power: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Start again, after a crash if it runs."""

    host: int
    keeps: Keeps = Keeps.ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """SIGSTOP."""

    host: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """SIGCONT; ends stalls too."""

    host: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A processor that is not there when it is wanted: stopped for `blocked_s`, running for `running_s`, and so on (the
    anomaly of the Lifeguard paper, section 5), and `service_s` on top of each input. All 0: quick again."""

    host: int
    blocked_s: float = 0.0
    running_s: float = 0.0
    service_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A wall of that name."""

    name: str
    kind: Cut
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneWay:
    """Nothing passes from the sources to the targets."""

    name: str
    sources: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heal:
    """Take down the wall of that name; None: all walls, all loss and all disorder."""

    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Lose that share of everything, of what one host sends or is sent, or of one directed link."""

    share: float
    source: int | None = None
    target: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disorder:
    """Deliver that share of datagrams twice, that share late."""

    duplication: float = 0.0
    reordering: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """Set a clock wrong, or with 0 and 0 right."""

    host: int
    offset_s: float = 0.0
    drift: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Let the node say good-bye and end."""

    host: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A new host, which knows these."""

    seeds: tuple[int, ...]
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Let the node write a record of that many bytes: an edit of what it sees under that key."""

    host: int
    key: str
    size: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Let the node delete what it sees under that key."""

    host: int
    key: str


Fault: TypeAlias = (
    Crash
    | Restart
    | Pause
    | Resume
    | Slow
    | Partition
    | OneWay
    | Heal
    | Loss
    | Disorder
    | Skew
    | Leave
    | Join
    | Publish
    | Delete
)
Story: TypeAlias = tuple[tuple[float, Fault], ...]


def tell(world: World, story: Iterable[tuple[float, Fault]]) -> None:
    """Let each fault happen at its time, counted from now."""
    for after_s, fault in story:
        world.push(world.now + after_s, happen, world, fault)


def happen(world: World, fault: Fault) -> None:
    """Let a fault happen now."""
    if world.trace is not None:
        world.trace.fault(world.now, fault)
    for observer in world.on_fault:
        observer(fault)
    match fault:
        case Partition() | OneWay():
            world.network.cut(fault.name, wall_of(fault))
        case Heal():
            world.network.heal(fault.name)
        case Loss():
            world.network.set_loss(fault.share, source=fault.source, target=fault.target)
        case Disorder():
            world.network.duplication, world.network.reordering = fault.duplication, fault.reordering
            world.network.settle()
        case Join():
            world.start(world.add(zone=fault.zone, seeds=fault.seeds))
        case _:
            _to_host(world, world.hosts[fault.host], fault)


def _to_host(
    world: World,
    host: Host,
    fault: Crash | Restart | Pause | Resume | Slow | Skew | Leave | Publish | Delete,
) -> None:
    match fault:
        case Crash():
            world.crash(host, power=fault.power)
        case Restart():
            world.restart(host, fault.keeps)
        case Pause():
            world.stop(host)
        case Resume():
            host.stalls = 0
            world.resume(host)
        case Slow():
            _slow(world, host, fault)
        case Skew():
            world.set_clock(host, offset_s=fault.offset_s, drift=fault.drift)
        case Leave():
            world.leave(host)
        case Publish():
            payload = f"{fault.key}@{world.now:.6f}".encode()
            _edit(world, host, fault.key, payload.ljust(fault.size, b"."))
        case Delete():
            _edit(world, host, fault.key, b"")
        case _:
            assert_never(fault)


def _edit(world: World, host: Host, key: str, payload: bytes) -> None:
    """Write with the context of what the host's node sees now, as an author does (peer/publishing.py)."""
    if host.node is None:
        return
    seen = [record for record in host.node.journal.records(NOTE) if record.key == key]
    if payload or seen:
        context = context_for(seen, host.id)
        world.write(host, Draft(kind=NOTE, key=key, payload=payload, context=context))


def wall_of(fault: Partition | OneWay) -> Wall:
    """The wall a partition puts up."""
    if isinstance(fault, OneWay):
        return one_way(fault.sources, fault.targets)
    match fault.kind:
        case Cut.APART:
            return apart(fault.groups)
        case Cut.BRIDGE:
            first, second, bridge = fault.groups
            return bridged(first, second, bridge)
        case Cut.RING:
            (hosts,) = fault.groups
            return majorities_ring(hosts)
    assert_never(fault.kind)


def _slow(world: World, host: Host, fault: Slow) -> None:
    host.service_s = fault.service_s
    host.stalls = 0
    world.resume(host)
    if fault.blocked_s and host.node is not None:
        world.stalls += 1
        host.stalls = world.stalls
        _block(world, (host, host.stalls, fault))


def _block(world: World, stall: tuple[Host, int, Slow]) -> None:
    host, series, fault = stall
    if host.stalls == series and host.node is not None:
        world.stop(host)
        world.push(world.now + fault.blocked_s, _unblock, world, stall)


def _unblock(world: World, stall: tuple[Host, int, Slow]) -> None:
    host, series, fault = stall
    if host.stalls == series:
        world.resume(host)
        world.push(world.now + fault.running_s, _block, world, stall)
