"""The world: the hosts, their lives, and the questions one may ask of them. How it runs is in simulations/loop.py.

Invariant: the same seed and the same calls give the same story.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final, Literal

from gossip.config import PROFILES, GossipConfig
from gossip.events import Address
from gossip.member import State
from peer.messages import Depart, Departed, Draft, JoinSeeds, Write
from simulations import collector, views
from simulations.byzantine import Liar, Lie
from simulations.clock import HostClock
from simulations.crypto import Costs, Meter
from simulations.disk import Disk
from simulations.host import Host, Keeps, address_of, introduce, remember, start_node
from simulations.loop import Loop
from simulations.mesh import Mesh, ModelMesh, People, RealMesh
from simulations.network import LAN, Latency, Network
from simulations.randomness import stream
from simulations.trace import Trace
from trust.credential import CREDENTIAL_TTL_S

START: Final = 1_800_000_000.0  # Friday, 15 January 2027
REAL_CRYPTO_MAX: Final = 300  # hosts; beyond it "auto" takes the stand-in


class World(Loop):
    """See the module's theory. `size`, about how many hosts there will be, tells "auto" which cryptography."""

    def __init__(
        self,
        *,
        seed: int = 0,
        config: GossipConfig | str = "lan",
        size: int = 0,
        crypto: Literal["auto", "real", "model"] = "auto",
        costs: Costs | None = None,
        within: Latency = LAN,
        between: Mapping[tuple[str, str], Latency] | None = None,
        disk_delay_s: float = 0.002,
        ttl_s: int = CREDENTIAL_TTL_S,
        digest: bool = False,
        line: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.config = PROFILES[config]() if isinstance(config, str) else config
        meter = Meter()
        self.mesh: Mesh
        if crypto == "model" or (crypto == "auto" and size > REAL_CRYPTO_MAX):
            self.mesh = ModelMesh(seed, ttl_s=ttl_s, costs=costs or Costs(), meter=meter)
        else:
            self.mesh = RealMesh(seed, ttl_s=ttl_s, input_s=0.0 if costs is None else costs.input_s)
        super().__init__(
            start=START,
            network=Network(stream(seed, "network"), within=within, between=between),
            costs=self.mesh.costs,
            meter=meter,
            disk_delay_s=disk_delay_s,
        )
        self.network.flips = self.mesh.is_real
        self.hosts: list[Host] = []
        self.liars: set[int] = set()  # hosts whose nodes lie, or once lied
        self.faults_rng = stream(seed, "faults")
        self.stalls = 0  # series of stalls so far
        self.on_life: list[Callable[[Host, str], None]] = []  # "start", "warm", "crash", "disk lost", "lies"
        self.on_fault: list[Callable[[Any], None]] = []
        self._requests = 0
        self.odd: Host | None = None  # who saw things wrong when it was last asked (simulations/views.py)
        self._by_id: dict[bytes, Host] = {}
        self._keys: dict[bytes, bytes] = {}
        self._obeying[Departed] = self._departed
        if digest or line is not None:
            self.trace = Trace(START, name_of=self.name_of, at=self._place, line=line)

    # ------------------------------------------------------------------ hosts

    def add(self, *, zone: str = "", seeds: Sequence[int] = ()) -> Host:
        """A host, not yet running. `seeds` are the indices of those it is configured with; the first of a mesh has
        none."""
        index = self.network.attach(zone)
        identity = self.mesh.identity(index, 1)
        host = Host(
            index=index,
            name=f"n{index}",
            address=address_of(index),
            zone=zone,
            identity=identity,
            credential=self.mesh.credential(identity, f"n{index}", self.now),
            disk=Disk(),
            seeds=tuple(address_of(seed) for seed in seeds if seed != index),
        )
        self.hosts.append(host)
        self._by_address[host.address] = host
        self._know(host)
        return host

    def _know(self, host: Host) -> None:
        self._by_id[host.id] = host
        self._keys[host.id] = host.identity.public_key

    def start_warm(self, hosts: Sequence[Host]) -> None:
        """Run all these nodes as they would be had they known one another for an hour."""
        people = introduce(hosts, since=self.now - 3600)
        for host in hosts:
            self._start(host, people)
            self._arm(host)
        if len(hosts) > REAL_CRYPTO_MAX:
            collector.relax()

    def start(self, host: Host) -> None:
        """Run the host's node, from what is on its disk, and let it join."""
        self.arrive(host, JoinSeeds(request=0, seeds=self._start(host, None)))

    def _start(self, host: Host, people: People | None) -> tuple[Address, ...]:
        assert host.node is None, f"{host.name} runs already"
        host.life += 1
        host.powered, host.departed, host.stopped, host.waking = True, False, False, False
        host.scheduled, host.busy_until, host.inbound = inf, self.now, 2
        host.node, contacts = start_node(
            host,
            mesh=self.mesh,
            config=self.config,
            rng=stream(self.seed, "node", host.index, host.life),
            now=self.now_of(host),
            people=people,
        )
        for observer in self.on_life:
            observer(host, "start" if people is None else "warm")
        return contacts

    def crash(self, host: Host, *, power: bool = False) -> None:
        """Kill the process; with `power`, the machine goes dark with it."""
        if host.node is None:
            return
        for observer in self.on_life:
            observer(host, "crash")
        remember(host, stream(self.seed, "contacts", host.index, host.life))
        took_back = host.disk.crash(self.faults_rng, power=power)
        host.powered = not power
        self.streams.crashed(host)
        host.node = None
        host.scheduled, host.stopped, host.tick_waits = inf, False, False
        host.stalls, host.service_s = 0, 0.0  # slowness was the process's own
        host.inbox.clear()
        host.datagrams_waiting = 0
        if took_back:
            self._disk_lost(host)

    def restart(self, host: Host, keeps: Keeps = Keeps.ALL, *, address: Address | None = None) -> None:
        """Start the host's node again, after a crash if it still runs, with what is left, perhaps elsewhere."""
        self.crash(host)
        if keeps is Keeps.BACKUP and host.disk.backup is None:
            keeps = Keeps.IDENTITY  # there is none
        if keeps is Keeps.BACKUP:
            host.disk.put_back()
        elif keeps is not Keeps.ALL:
            kept = host.disk.contacts if keeps is Keeps.IDENTITY else ()
            backup = host.disk.backup if keeps is Keeps.IDENTITY else None
            host.disk = Disk(met=keeps is Keeps.IDENTITY, contacts=kept, backup=backup)
        if keeps is not Keeps.ALL:
            self._disk_lost(host)
        if keeps is Keeps.NOTHING:
            host.identity = self.mesh.identity(host.index, host.identities + 1)
            host.credential = self.mesh.credential(host.identity, host.name, self.now)
            host.identities += 1
            self._know(host)
        if address is not None:
            if self._by_address.get(host.address) is host:
                del self._by_address[host.address]
            host.address = address
            self._by_address[address] = host
        self.start(host)

    def _disk_lost(self, host: Host) -> None:
        """Something that was on the disk is not any more."""
        for observer in self.on_life:
            observer(host, "disk lost")

    def lie(self, host: Host, lie: Lie | None) -> None:
        """Let the host's node lie from now on, in all its lives; None: tell the truth. Nobody believes it again."""
        if lie is None:
            host.liar = None
            return
        host.liar = Liar(lie, host, stream(self.seed, "liar", host.index, host.life, lie.value))
        self.liars.add(host.index)
        for observer in self.on_life:
            observer(host, "lies")

    def leave(self, host: Host) -> None:
        """Let the node say good-bye."""
        if host.node is not None and not host.departed:
            self.arrive(host, Depart())

    def stop(self, host: Host) -> None:
        """SIGSTOP: what arrives waits, timers are late."""
        host.stopped = host.node is not None

    def resume(self, host: Host) -> None:
        """SIGCONT: timers first, then what waited, as an event loop does it."""
        host.stopped = False
        if host.node is not None:
            self._drain(host)

    def write(self, host: Host, *drafts: Draft) -> int:
        """Ask the node to write records; the number of the request that `Written` will answer."""
        self._requests += 1
        self.arrive(host, Write(request=self._requests, drafts=drafts))
        return self._requests

    def set_clock(self, host: Host, *, offset_s: float, drift: float = 0.0) -> None:
        """Set the host's clock wrong, or right with 0 and 0."""
        if host.clock is None:
            host.clock = HostClock(self.now)
        host.clock.set(self.now, offset_s=offset_s, drift=drift)
        host.scheduled = inf
        self._arm(host)

    def _departed(self, host: Host, _output: Departed) -> None:
        host.departed = True
        self.push(self.leaves, self._exit, host, host.life)

    def _exit(self, host: Host, life: int) -> None:
        """The process ends of its own accord, once its disk has what it was given."""
        if life == host.life and host.node is not None:
            while host.disk.busy:
                host.disk.synced()
            self.crash(host)

    # ------------------------------------------------------------------ time

    def run(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.run_to(self.now + seconds)

    def run_until(
        self, condition: Callable[[], bool], *, within_s: float, grain_s: float = 0.05
    ) -> float | None:
        """Seconds until `condition` held, looked at every `grain_s`; None if it did not `within_s`."""
        begin = self.now
        while not condition():
            if self.now - begin >= within_s:
                return None
            self.run(grain_s)
        return self.now - begin

    # ------------------------------------------------------------------ questions

    def live(self) -> list[Host]:
        """The hosts whose node runs and has not left."""
        return [host for host in self.hosts if host.member]

    def honest(self) -> list[Host]:
        """Those of them that never lied."""
        return [host for host in self.hosts if host.member and host.index not in self.liars]

    def converged(self) -> bool:
        """Whether every honest live node sees exactly the live ones alive, each at its present boot (`views.agree`)."""
        return views.agree(self)

    def all_see(self, subject: Host, state: State) -> bool:
        """Whether every other live node sees the node of `subject` (that runs or ran last) in that state."""
        return views.all_see(self, subject.id, state)

    def name_of(self, node: bytes) -> str:
        """The host that has, or last had, that node id."""
        host = self._by_id.get(node)
        return node.hex()[:8] if host is None else host.name if host.id == node else f"{host.name} as it was"

    def host_of(self, node: bytes) -> Host | None:
        """The host that has, or once had, that node id."""
        return self._by_id.get(node)

    def key_of(self, node: bytes) -> bytes | None:
        """What the node with that id signs under, be it of a host that has another identity by now."""
        return self._keys.get(node)

    def lied(self, node: bytes) -> bool:
        """Whether the node with that id is, or was, of a host that lies or once lied."""
        host = self._by_id.get(node)
        return host is not None and host.index in self.liars

    def digest(self) -> str:
        """Of everything that happened. Needs `digest=True`."""
        assert self.trace is not None, "this world keeps no trace"
        return self.trace.hexdigest()

    def _place(self, address: Address) -> str:
        host = self._by_address.get(address)
        return f"{address[0]}:{address[1]}" if host is None else host.name
