"""A small deterministic world for engines: virtual clock, lossy network, streams; real crypto, no sockets.

Events are a heap of (time, sequence). Each host has an engine, an address and a clock reading of the one virtual
time. A stream (`RequestSync`) is one exchange of members (`Engine.exchange`), if both directions carry traffic.
"""

import hashlib
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from gossip.codec import pack
from gossip.config import GossipConfig, lan
from gossip.engine import Engine
from gossip.events import (
    Address,
    AddressConflict,
    Datagram,
    Diverged,
    Heard,
    Input,
    Join,
    LeaveSpread,
    MemberChanged,
    MembersReceived,
    Output,
    Rejected,
    RequestSync,
    Send,
    SyncFailed,
    Tick,
)
from gossip.member import State
from gossip.message import Ack, Body, Message, Ping, PingRequest, decode_body, encode_body
from gossip.statement import Alive, Suspect, sign_alive, sign_suspect
from gossip.sync import ExchangeStep, MemberExchange
from gossip.wire import KeyRing, Packet, parse, seal, unseal
from trust.credential import Credential
from trust.identity import NodeIdentity

T = TypeVar("T")

START = 1_750_000_000.0
TRUST_DOMAIN = "test.mesh"
ROOT = NodeIdentity.from_seed(b"r" * 32)


def identity_of(name: str) -> NodeIdentity:
    return NodeIdentity.from_seed(hashlib.sha256(name.encode()).digest())


def credential_of(
    name: str,
    *,
    issued_at: int = int(START),
    ttl_s: int = 7 * 86_400,
    root: NodeIdentity = ROOT,
    trust_domain: str = TRUST_DOMAIN,
) -> Credential:
    identity = identity_of(name)
    credential = Credential(
        trust_domain=trust_domain,
        public_key=identity.public_key,
        agreement_key=identity.agreement_key,
        name=name,
        services=("*/*",),
        publish=True,
        invite=False,
        serial=hashlib.sha256(f"{name}/{issued_at}".encode()).digest()[:16],
        issued_at=issued_at,
        expires_at=issued_at + ttl_s,
    )
    return credential.signed(root.sign(credential.signing_bytes()))


def engine_of(
    name: str,
    *,
    now: float = START,
    boot: int = 1,
    address: Address = ("10.0.0.1", 7946),
    config: GossipConfig | None = None,
    credential: Credential | None = None,
    seed: int = 0,
) -> Engine:
    return Engine(
        config=config or lan(),
        identity=identity_of(name),
        credential=credential or credential_of(name),
        trust_root=ROOT.public_key,
        address=address,
        boot=boot,
        zone="z1",
        meta={"version": "1"},
        rng=random.Random(f"{name}/{boot}/{seed}"),
        now=now,
    )


@dataclass
class Host:
    name: str
    engine: Engine
    address: Address
    boot: int
    up: bool = True
    life: int = 0
    scheduled: float | None = None
    paused: list[Datagram] | None = None  # what waits in the socket's buffer of a stopped process
    outputs: list[tuple[float, Output]] = field(default_factory=list)

    def states(self) -> dict[str, State]:
        return {member.name: member.state for member in self.engine.members()}


class World:
    def __init__(
        self,
        *,
        config: GossipConfig | None = None,
        seed: int = 0,
        loss: float = 0.0,
        latency_s: tuple[float, float] = (0.0005, 0.002),
    ) -> None:
        self.config = config or lan()
        self.rng = random.Random(seed)
        self.seed = seed
        self.loss = loss
        self.latency_s = latency_s
        self.now = START
        self.hosts: dict[str, Host] = {}
        self.by_address: dict[Address, str] = {}
        self.blocked: Callable[[str, str], bool] = lambda source, target: False
        self.lost: Callable[[str, str], bool] = lambda source, target: False  # datagrams; streams get through
        self.streams = True  # whether there are any
        self.counts: Counter[str] = Counter()
        self.bytes_by_host: Counter[str] = Counter()
        self.datagram_sizes: list[int] = []
        self.capture: list[tuple[float, str, Send]] | None = None
        self.on_output: Callable[[Host, Output], None] = lambda host, output: None
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._trace = hashlib.sha256()

    # ------------------------------------------------------------ hosts
    def start(
        self, name: str, *, seeds: Iterable[str] = (), address: Address | None = None, boot: int = 1
    ) -> Host:
        address = address or (f"10.0.{len(self.hosts) // 250}.{len(self.hosts) % 250 + 1}", 7946)
        engine = engine_of(
            name,
            now=self.now,
            boot=boot,
            address=address,
            config=self.config,
            seed=self.seed,
            credential=credential_of(name, issued_at=int(self.now)),
        )
        old = self.hosts.get(name)
        host = Host(name, engine, address, boot, life=old.life + 1 if old else 0)
        self.hosts[name] = host
        self.by_address[address] = name
        self.step(host, Join(seeds=tuple(self.hosts[seed].address for seed in seeds)))
        return host

    def start_many(self, count: int) -> list[Host]:
        """`count` hosts h0, h1, … all of which know h0."""
        return [self.start(f"h{index}", seeds=["h0"] if index else []) for index in range(count)]

    def crash(self, name: str) -> None:
        self.hosts[name].up = False

    def pause(self, name: str) -> None:
        self.hosts[name].paused = []

    def resume(self, name: str) -> None:
        """Timers first, then what waited in the socket's buffer: the worse order for the others."""
        host = self.hosts[name]
        waiting, host.paused, host.scheduled = host.paused or [], None, None
        self._tick(host)
        for datagram in waiting:
            self.step(host, datagram)

    def restart(
        self,
        name: str,
        *,
        address: Address | None = None,
        seeds: Iterable[str] = ("h0",),
        boot: int | None = None,
    ) -> Host:
        old = self.hosts[name]
        old.up = False
        return self.start(
            name, seeds=seeds, address=address or old.address, boot=old.boot + 1 if boot is None else boot
        )

    def up(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.up]

    def partition(self, *groups: Iterable[str]) -> None:
        side = {name: index for index, group in enumerate(groups) for name in group}
        self.blocked = lambda source, target: side.get(source) != side.get(target)

    def heal(self) -> None:
        self.blocked = lambda source, target: False

    # ------------------------------------------------------------ running
    def step(self, host: Host, event: Input) -> list[Output]:
        outputs = host.engine.step(self.now, event)
        for output in outputs:
            self._carry_out(host, output)
        self._schedule(host)
        return outputs

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], *, within_s: float, grain_s: float = 0.05) -> float:
        """Seconds until `condition` held, checked every `grain_s`; fails the test when it never does."""
        start = self.now
        while not condition():
            assert self.now - start < within_s, f"not within {within_s} s: {self.describe()}"
            self.run(grain_s)
        return self.now - start

    def converged(self) -> bool:
        """Every running host sees exactly the running hosts as alive, under their present boots."""
        expected = {host.engine.id: host.boot for host in self.up()}
        return all(
            {member.id: member.boot for member in host.engine.members() if member.live} == expected
            and all(member.state is State.ALIVE for member in host.engine.members() if member.live)
            for host in self.up()
        )

    def all_see(self, name: str, state: State) -> bool:
        return all(host.states().get(name) is state for host in self.up() if host.name != name)

    def outputs(self, kind: type, name: str | None = None) -> list[tuple[float, str, Output]]:
        return [
            (at, host.name, output)
            for host in self.hosts.values()
            for at, output in host.outputs
            if isinstance(output, kind) and (name is None or host.name == name)
        ]

    def changes(self, *states: State, of: str | None = None) -> list[tuple[float, str, MemberChanged]]:
        """(when, at whom, what) of each change into one of `states`, of member `of` or of all."""
        return [
            (at, name, output)
            for at, name, output in self.outputs(MemberChanged)
            if isinstance(output, MemberChanged)
            and output.member.state in states
            and of in (None, output.member.name)
        ]

    def digest(self) -> str:
        return self._trace.hexdigest()

    def describe(self) -> str:
        return "; ".join(
            f"{host.name}: " + ",".join(f"{name}={state.value}" for name, state in host.states().items())
            for host in self.up()
        )

    # ------------------------------------------------------------ the network
    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, action))

    def _schedule(self, host: Host) -> None:
        deadline = host.engine.deadline
        if deadline is None or (host.scheduled is not None and host.scheduled <= deadline):
            return
        host.scheduled = deadline
        self._at(max(deadline, self.now), lambda: self._tick(host))

    def _tick(self, host: Host) -> None:
        if not host.up or host.paused is not None or self.hosts[host.name] is not host:
            return
        host.scheduled = None
        deadline = host.engine.deadline
        if deadline is not None and deadline <= self.now:
            self.step(host, Tick())
        else:
            self._schedule(host)

    def _carry_out(self, host: Host, output: Output) -> None:
        self.on_output(host, output)
        match output:
            case Send():
                self._send(host, output)
                return
            case RequestSync():
                self.counts["sync"] += 1
                self._at(self.now + 2 * self._delay(), lambda: self._sync(host, output))
            case MemberChanged() | Heard() | Diverged() | Rejected() | AddressConflict() | LeaveSpread():
                pass
        host.outputs.append((self.now, output))

    def _send(self, host: Host, send: Send) -> None:
        self._trace.update(f"{self.now!r} {host.name} {send.address}".encode() + send.data)
        self.counts["datagrams"] += 1
        self.bytes_by_host[host.name] += len(send.data)
        self.datagram_sizes.append(len(send.data))
        if self.capture is not None:
            self.capture.append((self.now, host.name, send))
        if self.rng.random() < self.loss:
            return
        source = host.address
        self._at(self.now + self._delay(), lambda: self._deliver(host.name, source, send))

    def _deliver(self, sender: str, source: Address, send: Send) -> None:
        name = self.by_address.get(send.address)
        if name is None or not self.hosts[name].up or self.blocked(sender, name) or self.lost(sender, name):
            return
        host, datagram = self.hosts[name], Datagram(source=source, data=send.data)
        if host.address != send.address:
            return
        if host.paused is None:
            self.step(host, datagram)
        else:
            host.paused.append(datagram)

    def _sync(self, host: Host, request: RequestSync) -> None:
        if not host.up or host.paused is not None or self.hosts[host.name] is not host:
            return
        name = self.by_address.get(request.address)
        other = None if name is None else self.hosts[name]
        if (
            other is None
            or not self.streams
            or not other.up
            or other.paused is not None
            or other.address != request.address
            or self.blocked(host.name, other.name)
            or self.blocked(other.name, host.name)
            or request.node not in (None, other.engine.id)
        ):
            self.step(host, SyncFailed(address=request.address))
            return
        self.counts["streams"] += 1
        for receiver, sender, frame, step in converse(
            host.engine.exchange(other.engine.id, initiator=True),
            other.engine.exchange(host.engine.id, initiator=False),
            host,
            other,
        ):
            self.counts["stream_bytes"] += len(frame)
            for chunk in step.members:
                self.step(receiver, MembersReceived(node=sender.engine.id, data=chunk))

    def _delay(self) -> float:
        return self.rng.uniform(*self.latency_s)


def converse(
    initiator: MemberExchange, responder: MemberExchange, one: T, other: T
) -> Iterator[tuple[T, T, bytes, ExchangeStep]]:
    """Carry the frames of an exchange between `one` and `other` to its end: (to whom, from whom, frame, what it
    brought), in order; what it brought is to be taken in before the next is drawn."""
    machines, names = (initiator, responder), (one, other)
    queue = deque((1, frame) for frame in initiator.start())
    while queue:
        to, frame = queue.popleft()
        step = machines[to].receive(frame)
        yield names[to], names[1 - to], frame, step
        queue.extend((1 - to, answer) for answer in step.send)
    assert initiator.done
    assert responder.done


class Speaker:
    """Speaks the wire as one named node, with none of an engine's rules: what a hostile or odd member could send."""

    def __init__(
        self,
        name: str,
        *,
        boot: int = 1,
        address: Address = ("10.9.9.9", 7946),
        credential: Credential | None = None,
    ) -> None:
        self.identity = identity_of(name)
        self.credential = credential or credential_of(name)
        self.boot, self.address = boot, address
        self.keys = KeyRing(self.identity, keys_max=64)
        self.counter = int(START * 1e6)

    def alive(
        self, *, incarnation: int = 0, boot: int | None = None, address: Address | None = None
    ) -> Alive:
        return sign_alive(
            self.identity,
            self.credential,
            boot=self.boot if boot is None else boot,
            incarnation=incarnation,
            address=address or self.address,
            zone="z1",
            meta={"version": "1"},
        )

    def say(
        self,
        to: str,
        message: Message,
        *,
        updates: Iterable[bytes] = (),
        payloads: Iterable[bytes] = (),
        known_boot: int = 1,
        introduction: bytes | None = None,
        counter: int | None = None,
    ) -> bytes:
        self.counter += 1
        receiver = identity_of(to)
        body = Body(message=message, known_boot=known_boot, updates=tuple(updates), payloads=tuple(payloads))
        return seal(
            self.keys.sending(receiver.id, receiver.agreement_key, self.boot),
            version=1,
            sender=self.identity.id,
            boot=self.boot,
            counter=self.counter if counter is None else counter,
            introduction=self.alive().encode() if introduction is None else introduction,
            body=encode_body(body),
        )

    def datagram(self, to: str, message: Message, **options: object) -> Datagram:
        return Datagram(source=self.address, data=self.say(to, message, **options))

    def read(self, data: bytes, *, of: str) -> tuple[Packet, Body]:
        """Open a datagram that node `of` sent to this one."""
        sender = identity_of(of)
        packet = parse(data, (1, 1))
        cipher = self.keys.receiving(sender.id, sender.agreement_key, packet.boot, keep=True)
        return packet, decode_body(unseal(cipher, packet))


FINGERPRINT = bytes(16)
ROOT_OF_NOBODY = bytes(8)


def ping(
    sequence: int = 1,
    fingerprint: bytes = FINGERPRINT,
    settled: bool = True,
    *,
    members: bytes = ROOT_OF_NOBODY,
    members_settled: bool = False,
) -> Ping:
    return Ping(
        sequence=sequence,
        fingerprint=fingerprint,
        settled=settled,
        members=members,
        members_settled=members_settled,
    )


def ack(sequence: int = 1, fingerprint: bytes = FINGERPRINT, settled: bool = True) -> Ack:
    return Ack(
        sequence=sequence,
        fingerprint=fingerprint,
        settled=settled,
        members=ROOT_OF_NOBODY,
        members_settled=False,
    )


def ping_request(sequence: int, target: bytes) -> PingRequest:
    return PingRequest(
        sequence=sequence,
        target=target,
        fingerprint=FINGERPRINT,
        settled=True,
        members=ROOT_OF_NOBODY,
        members_settled=False,
    )


def suspicion(accuser: str, subject: str, rank: tuple[int, int] = (1, 0)) -> Suspect:
    return sign_suspect(identity_of(accuser), subject=identity_of(subject).id, rank=rank)


def members_payload(engine: Engine) -> tuple[bytes, ...]:
    """Everything `engine` knows of members, itself first: chunks, each for one `MembersReceived`."""
    return MemberExchange(engine._parts.view, peer=None, initiator=True, whole=True).start()


def acquaint(engine: Engine, *names: str, now: float = START) -> None:
    """Let `engine` hear of members at 10.9.0.1, 10.9.0.2, … over a stream."""
    alives: list[object] = [
        Speaker(name, address=(f"10.9.0.{index + 1}", 7946)).alive().encode()
        for index, name in enumerate(names)
    ]
    engine.step(now, MembersReceived(node=None, data=pack([1, alives])))
