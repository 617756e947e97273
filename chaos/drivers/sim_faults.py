"""What each fault is in the virtual world.

Conditions (loss, disorder, delay) may overlap; the network has one setting of each. So what stands at a moment is kept
by number, and whenever something begins or ends the settings are worked out anew from all of it.

Invariant: after the last end the network is as it was before the first beginning, and every clock is right.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from chaos.drivers.quota import PERIOD_S
from chaos.experiment import Event, Experiment, Topology
from chaos.fault import (
    Byzantine,
    Certificates,
    Clock,
    Delay,
    Disk,
    Disorder,
    Flap,
    Join,
    Keeps,
    Kill,
    Leave,
    Loss,
    Partition,
    Pause,
    Restart,
    Shape,
    Signers,
    Slow,
    Swizzle,
    Traffic,
    Version,
)
from simulations import faults as sim
from simulations.authority import Authority
from simulations.byzantine import Lie as HostLie
from simulations.host import Host
from simulations.host import Keeps as HostKeeps
from simulations.network import Latency
from simulations.randomness import stream
from simulations.world import World

T = TypeVar("T")
U = TypeVar("U")

COMES_BACK_S: Final = 1.0  # a process that was asked to end is started again after so long
KEEPS: Final = {
    Keeps.ALL: HostKeeps.ALL,
    Keeps.BACKUP: HostKeeps.BACKUP,
    Keeps.IDENTITY: HostKeeps.IDENTITY,
    Keeps.NOTHING: HostKeeps.NOTHING,
}
_WHAT_LACKS: Final = {
    "bandwidth": "the virtual network has no bandwidth: streams are as fast as their round trips",
    "tcp": "streams are modelled as frames that arrive in order, not as TCP",
    "descriptors": "a virtual process has no file descriptors",
    "dns": "virtual nodes know addresses, not names: see the driver netns",
    "poison": "the virtual world has no data plane a policy could poison",
    "application": "the virtual world has no applications",
}


def lack(event: Event, topology: Topology) -> str:
    """Why this fault cannot be had in the virtual world; empty if it can."""
    inject = event.inject
    if isinstance(inject, Signers | Certificates) and not topology.signers:
        return "without signers everybody has a certificate for the whole time: give topology.signers"
    if isinstance(inject, Signers) and inject.count >= topology.signers and inject.how == "revoke":
        return "somebody has to stay who signs"
    if isinstance(inject, Certificates) and inject.how == "revoke":
        return "nobody revokes in the virtual world: see the drivers netns and process"
    if inject.fault in _WHAT_LACKS:
        return _WHAT_LACKS[inject.fault]
    if isinstance(inject, Partition) and inject.traffic is not Traffic.ALL:
        return "the virtual world has no data plane: partitions are of all traffic"
    return ""


class Hands:
    """Does faults to one world. Hosts are called as the experiment calls its nodes."""

    def __init__(self, world: World, experiment: Experiment, authority: Authority | None = None) -> None:
        self._world = world
        self._authority = authority
        self._seed = experiment.seed
        self._standing: dict[int, Loss | Delay | Disorder] = {}
        self._lost: dict[int, list[Host]] = {}  # signers, by the number of the fault

    def begin(self, number: int, event: Event) -> None:
        """Inject the fault with that number in the timeline."""
        inject, world = event.inject, self._world
        match inject:
            case Partition():
                self._do(_partition(f"partition {number}", inject))
            case Loss() | Delay() | Disorder():
                self._standing[number] = inject
                self._settle()
            case Slow():
                blocked_s, running_s = inject.blocked, inject.running
                if inject.quota:
                    blocked_s, running_s = PERIOD_S * (1 - inject.quota), PERIOD_S * inject.quota
                for host in self._hosts(event):
                    self._do(
                        sim.Slow(
                            host=host.index,
                            blocked_s=blocked_s,
                            running_s=running_s,
                            service_s=inject.each,
                        )
                    )
            case Pause():
                self._each(event, lambda host: sim.Pause(host=host))
            case Kill(power=power):
                self._each(event, lambda host: sim.Crash(host=host, power=power))
            case Leave():
                self._each(event, lambda host: sim.Leave(host=host))
            case Restart():
                for turn, host in enumerate(self._hosts(event)):
                    self._later(turn * inject.every, self._restart, host, inject.graceful)
            case Join():
                seeds = tuple(range(min(2, len(world.hosts))))
                for _ in range(inject.count):
                    self._do(sim.Join(seeds=seeds, zone=inject.zone))
            case Flap():
                until = world.now + (event.lasts or 0.0)
                for host in self._hosts(event):
                    self._flap((host, inject.every, until), None)
            case Swizzle():
                self._swizzle(number, event, inject.every)
            case Clock():
                self._each(
                    event, lambda host: sim.Skew(host=host, offset_s=inject.offset, drift=inject.drift)
                )
            case Disk():
                for host in self._hosts(event):
                    if inject.how == "full":
                        host.disk.full = True
                    else:
                        host.disk.lie()
            case Byzantine():
                for host in self._hosts(event):
                    world.lie(host, HostLie(inject.lie.value))
            case Signers(how="lose"):
                for host in self._seats(inject.count):
                    self._lost.setdefault(number, []).append(host)
                    self._do(sim.Crash(host=host.index))
            case Signers(how="revoke", count=count) if self._authority is not None:
                self._authority.revoke(self._seats(count))
            case Certificates() if self._authority is not None:
                self._authority.barred |= {host.index for host in self._hosts(event)}
            case Version():
                for host in self._hosts(event):
                    self._speak(host, inject)
            case _:
                raise AssertionError(f"a fault the driver says it lacks: {inject.fault}")

    def end(self, number: int, event: Event) -> None:
        """Undo it."""
        inject = event.inject
        match inject:
            case Partition():
                self._do(sim.Heal(name=f"partition {number}"))
            case Loss() | Delay() | Disorder():
                self._standing.pop(number, None)
                self._settle()
            case Slow():
                self._each(event, lambda host: sim.Slow(host=host))
            case Pause():
                self._each(event, lambda host: sim.Resume(host=host))
            case Kill(keeps=keeps):
                self._each(event, lambda host: sim.Restart(host=host, keeps=KEEPS[keeps]))
            case Leave():
                self._each(event, lambda host: sim.Restart(host=host))
            case Flap():
                for host in self._hosts(event):
                    self._start(host)
            case Swizzle():
                for host in self._hosts(event):
                    self._do(sim.Heal(name=_clog(number, host)))
            case Clock():
                self._each(event, lambda host: sim.Skew(host=host))
            case Disk():
                for host in self._hosts(event):
                    if inject.how == "full":
                        host.disk.emptied()
                    else:
                        host.disk.tell_the_truth()
            case Byzantine():
                for host in self._hosts(event):
                    self._world.lie(host, None)
            case Signers(how="lose"):
                for host in self._lost.pop(number, ()):
                    self._start(host)
            case Certificates() if self._authority is not None:
                self._authority.barred -= {host.index for host in self._hosts(event)}
            case Version():
                for host in self._hosts(event):
                    self._speak(host, None)
            case Restart() | Join() | Signers():
                return  # over when they happened
            case _:
                raise AssertionError(f"a fault the driver says it lacks: {inject.fault}")

    # ------------------------------------------------------------------ parts

    def _do(self, fault: sim.Fault) -> None:
        sim.happen(self._world, fault)

    def _each(self, event: Event, fault_of: Callable[[int], sim.Fault]) -> None:
        for host in self._hosts(event):
            self._do(fault_of(host.index))

    def _hosts(self, event: Event) -> list[Host]:
        pick = getattr(event.inject, "pick", None)
        names = pick.nodes if pick is not None else ()
        return [self._world.hosts[int(name[1:])] for name in names]

    def _seats(self, count: int) -> list[Host]:
        seats = () if self._authority is None else self._authority.seats[:count]
        return [self._world.hosts[index] for index in seats]

    def _speak(self, host: Host, fault: Version | None) -> None:
        """Start the host's node again as one that reads these versions; None: as all do."""
        host.versions = None if fault is None else (fault.oldest or fault.version, fault.version)
        if host.up:
            self._do(sim.Restart(host=host.index))

    def _later(self, after_s: float, what: Callable[[T, U], None], first: T, second: U) -> None:
        self._world.push(self._world.now + after_s, what, first, second)

    def _restart(self, host: Host, graceful: bool) -> None:
        if graceful and host.member:
            self._do(sim.Leave(host=host.index))
            self._later(COMES_BACK_S, self._start_again, host, None)
        else:
            self._do(sim.Restart(host=host.index))

    def _start_again(self, host: Host, _: None) -> None:
        self._do(sim.Restart(host=host.index))

    def _start(self, host: Host) -> None:
        if host.node is None:
            self._do(sim.Restart(host=host.index))

    def _flap(self, flapping: tuple[Host, float, float], _: None) -> None:
        host, every, until = flapping
        if self._world.now >= until:
            return
        self._do(sim.Crash(host=host.index) if host.up else sim.Restart(host=host.index))
        self._later(every / 2, self._flap, flapping, None)

    def _swizzle(self, number: int, event: Event, every: float) -> None:
        """One after the other from the beginning, and back in another order, the last one at the end."""
        hosts = self._hosts(event)
        lasts_s = event.lasts if event.lasts is not None else 2 * every * len(hosts)
        step_s = min(every, lasts_s / (2 * len(hosts)))
        back = stream(self._seed, "swizzle", number).sample(hosts, len(hosts))
        for turn, host in enumerate(hosts):
            self._later(turn * step_s, self._clog, number, host)
        for turn, host in enumerate(reversed(back)):
            self._later(lasts_s - turn * step_s, self._unclog, number, host)

    def _clog(self, number: int, host: Host) -> None:
        name = _clog(number, host)
        self._do(sim.Partition(name=name, kind=sim.Cut.APART, groups=((host.index,),)))

    def _unclog(self, number: int, host: Host) -> None:
        self._do(sim.Heal(name=_clog(number, host)))

    def _settle(self) -> None:
        """Work out loss, delay and disorder from what stands."""
        network = self._world.network
        everybody = {host.name for host in self._world.hosts}
        passes: dict[tuple[int | None, int | None], float] = {}
        late: dict[int, list[Delay]] = {}
        duplicated = late_share = corrupted = replayed = 0.0
        burst = 1.0
        for fault in self._standing.values():
            if isinstance(fault, Disorder):
                duplicated, late_share = max(duplicated, fault.duplicate), max(late_share, fault.reorder)
                corrupted, replayed = max(corrupted, fault.corrupt), max(replayed, fault.replay)
                continue
            indices = [int(name[1:]) for name in fault.pick.nodes]
            if isinstance(fault, Delay):
                for index in indices:
                    late.setdefault(index, []).append(fault)
                continue
            burst = max(burst, fault.burst)
            places = _places(fault, indices, everybody=len(indices) == len(everybody))
            for place in places:
                passes[place] = passes.get(place, 1.0) * (1 - fault.share)
        for source, target in network.lossy:
            network.set_loss(0.0, source=source, target=target)
        for (source, target), share in passes.items():
            network.set_loss(1 - share, source=source, target=target)
        for host in self._world.hosts:
            delays = late.get(host.index)
            network.set_delay(host.index, _summed(delays) if delays else None)
        network.duplication, network.reordering = duplicated, late_share
        network.corruption, network.replaying, network.burst = corrupted, replayed, burst
        network.settle()


def _places(fault: Loss, indices: list[int], *, everybody: bool) -> list[tuple[int | None, int | None]]:
    if fault.to:
        return [(one, int(other[1:])) for one in indices for other in fault.to]
    if everybody and fault.direction == "both":
        return [(None, None)]
    out: list[tuple[int | None, int | None]] = [(index, None) for index in indices]
    inward: list[tuple[int | None, int | None]] = [(None, index) for index in indices]
    return {"out": out, "in": inward, "both": out + inward}[fault.direction]


def _summed(delays: list[Delay]) -> Latency:
    return Latency(base_s=sum(each.delay for each in delays), jitter_s=sum(each.jitter for each in delays))


def _clog(number: int, host: Host) -> str:
    return f"swizzle {number} {host.name}"


def _partition(name: str, fault: Partition) -> sim.Fault:
    groups = tuple(tuple(int(node[1:]) for node in group) for group in fault.groups)
    match fault.shape:
        case Shape.BRIDGE:
            return sim.Partition(name=name, kind=sim.Cut.BRIDGE, groups=groups)
        case Shape.RING:
            return sim.Partition(name=name, kind=sim.Cut.RING, groups=groups)
        case Shape.ONE_WAY:
            return sim.OneWay(name=name, sources=groups[0], targets=groups[1])
        case Shape.DEAF:
            return sim.OneWay(name=name, sources=groups[1], targets=groups[0])
        case _:
            return sim.Partition(name=name, kind=sim.Cut.APART, groups=groups)
