"""One engine under test among scripted members: what state tests of failure detectors do with half-real peers.

The engine is driven by its own deadlines on a virtual clock. The others are Speakers that answer what they are asked
as their script says: a ping, a request to relay, a stream. They know the wire, not the rules, so a test says exactly
who fails to do what. `World` (tests/gossip/world.py) is the place for whole meshes.
"""

import heapq
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gossip.codec import pack
from gossip.config import GossipConfig
from gossip.engine import Engine
from gossip.errors import ForgedError
from gossip.events import (
    Address,
    Input,
    MemberChanged,
    MembersReceived,
    Output,
    Rejected,
    RequestSync,
    Send,
    SyncFailed,
    Tick,
)
from gossip.member import Member, State
from gossip.message import Body, Gossip, Nack, Ping, PingRequest
from gossip.statement import Alive, Dead, Left, Statement, decode_statement, sign_alive, sign_left
from tests.gossip.world import (
    START,
    Speaker,
    ack,
    credential_of,
    engine_of,
    identity_of,
    suspicion,
)
from trust.credential import Credential

OWN = "own"
LATENCY_S = 0.001


# ---------------------------------------------------------------- statements by name
def alive_of(
    name: str,
    rank: tuple[int, int] = (1, 0),
    *,
    address: Address = ("10.9.9.9", 7946),
    meta: Mapping[str, int | str | bool] | None = None,
    credential: Credential | None = None,
) -> Alive:
    return sign_alive(
        identity_of(name),
        credential or credential_of(name),
        boot=rank[0],
        incarnation=rank[1],
        address=address,
        zone="z1",
        meta={"version": "1"} if meta is None else meta,
    )


def left_of(name: str, rank: tuple[int, int]) -> Left:
    return sign_left(identity_of(name), rank=rank)


def dead_of(subject: str, accusers: Iterable[str], rank: tuple[int, int] = (1, 0)) -> Dead:
    return Dead(
        subject=identity_of(subject).id,
        boot=rank[0],
        incarnation=rank[1],
        suspicions=tuple(suspicion(accuser, subject, rank) for accuser in accusers),
    )


def chunk(*statements: Statement) -> bytes:
    """One chunk of a stream peer's members."""
    items: list[object] = [statement.encode() for statement in statements]
    return pack([1, items])


# ---------------------------------------------------------------- the company
@dataclass
class Peer:
    """What one scripted member does."""

    speaker: Speaker
    answers: bool = True  # pings from the engine reach it, and its acks come back
    relayed: bool = True  # it answers what relays ask it
    relays: bool = True  # it pings for others and passes the ack on
    nacks: bool = True  # it says so when its relayed ping is not answered
    streams: bool = True
    heard: list[tuple[float, Body]] = field(default_factory=list)

    def statements(self) -> list[Statement]:
        return [decode_statement(update) for _, body in self.heard for update in body.updates]


class Company:
    """An engine called `own` that knows `names`, all alive at (1, 0), and has nothing left to tell of them."""

    def __init__(self, *names: str, config: GossipConfig | None = None, seed: int = 0) -> None:
        self.now = START
        self.engine: Engine = engine_of(OWN, config=config, seed=seed)
        self.peers = {
            name: Peer(Speaker(name, address=(f"10.9.0.{index + 1}", 7946)))
            for index, name in enumerate(names)
        }
        self.outputs: list[tuple[float, Output]] = []
        self.rng = random.Random(seed)
        self._by_address = {peer.speaker.address: name for name, peer in self.peers.items()}
        self._arriving: list[tuple[float, int, Input]] = []
        self._sequence = 0
        if names:
            self.step(
                MembersReceived(node=None, data=chunk(*(p.speaker.alive() for p in self.peers.values())))
            )
            self.engine._parts.broadcasts.clear()

    # ------------------------------------------------------------ doing
    def step(self, event: Input) -> list[Output]:
        outputs = self.engine.step(self.now, event)
        for output in outputs:
            self.outputs.append((self.now, output))
            match output:
                case Send():
                    self._take(output)
                case RequestSync():
                    self._stream(output)
                case _:
                    pass
        return outputs

    def say(self, by: str, *statements: Statement) -> list[Output]:
        """`by` gossips statements to the engine."""
        updates = [statement.encode() for statement in statements]
        return self.step(self.peers[by].speaker.datagram(OWN, Gossip(), updates=updates))

    def bury(self, by: str, name: str, accusers: str, rank: tuple[int, int] = (1, 0)) -> list[Output]:
        """`by` gossips accusations of `name` and, when there was the time to refute them, the proof of its death."""
        self.say(by, *(suspicion(accuser, name, rank) for accuser in accusers))
        self.now += self.engine._parts.config.refutation_s + 0.001
        return self.say(by, dead_of(name, accusers, rank))

    def stream(self, *statements: Statement) -> list[Output]:
        """Somebody's members arrive on a stream."""
        return self.step(MembersReceived(node=None, data=chunk(*statements)))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            deadline = self.engine.deadline
            arrives = self._arriving[0][0] if self._arriving else None
            if arrives is not None and arrives <= end and (deadline is None or arrives <= deadline):
                self.now, _, event = heapq.heappop(self._arriving)
                self.step(event)
            elif deadline is not None and deadline <= end:
                self.now = max(self.now, deadline)
                self.step(Tick())
            else:
                break
        self.now = end

    def run_until(self, name: str, *states: State, within_s: float) -> float:
        """Seconds until `name` is in one of `states`, to the engine's own deadline; fails when it never is."""
        start = self.now
        while self.state(name) not in states:
            waited = self.now - start
            assert waited <= within_s, f"{name} is {self.state(name)} after {waited} s"
            times = [self._arriving[0][0]] if self._arriving else []
            times += [] if self.engine.deadline is None else [self.engine.deadline]
            self.run(max(0.0, min(times) - self.now))
        return self.now - start

    # ------------------------------------------------------------ asking
    def member(self, name: str) -> Member:
        found = self.engine.member(identity_of(name).id)
        assert found is not None, f"{name} is unknown"
        return found

    def state(self, name: str) -> State:
        return self.member(name).state

    def changes(self, name: str | None = None) -> list[tuple[float, State | None, State]]:
        """(when, from, to) of each change told to the driver, of `name` or of all."""
        return [
            (at, output.previous, output.member.state)
            for at, output in self.outputs
            if isinstance(output, MemberChanged) and name in (None, output.member.name)
        ]

    def rejected(self) -> list[str]:
        return [output.reason for _, output in self.outputs if isinstance(output, Rejected)]

    def messages(self, name: str, kind: type) -> list[tuple[float, Body]]:
        """What of this kind the engine has sent to `name`."""
        return [(at, body) for at, body in self.peers[name].heard if isinstance(body.message, kind)]

    def told(self, kind: type, subject: str) -> list[Statement]:
        """Statements of this kind about `subject` that anybody heard from the engine."""
        node = identity_of(subject).id
        heard = [statement for peer in self.peers.values() for statement in peer.statements()]
        return [
            s
            for s in heard
            if isinstance(s, kind) and node == (s.node if isinstance(s, Alive) else s.subject)
        ]

    # ------------------------------------------------------------ the others
    def _arrive(self, event: Input, after_s: float = LATENCY_S) -> None:
        self._sequence += 1
        heapq.heappush(self._arriving, (self.now + after_s, self._sequence, event))

    def _take(self, send: Send) -> None:
        name = self._by_address.get(send.address)
        if name is None:
            return
        peer = self.peers[name]
        try:
            _, body = peer.speaker.read(send.data, of=OWN)
        except ForgedError:
            return  # meant for another who claims this address
        peer.heard.append((self.now, body))
        match body.message:
            case Ping(sequence=sequence) if peer.answers:
                self._arrive(peer.speaker.datagram(OWN, ack(sequence)), 2 * LATENCY_S)
            case PingRequest(sequence=sequence, target=target) if peer.relays:
                others = [p for p in self.peers.values() if p.speaker.identity.id == target]
                if others and others[0].relayed:
                    self._arrive(peer.speaker.datagram(OWN, ack(sequence)), 4 * LATENCY_S)
                elif peer.nacks:
                    self._arrive(peer.speaker.datagram(OWN, Nack(sequence=sequence)), 4 * LATENCY_S)
            case _:
                pass

    def _stream(self, request: RequestSync) -> None:
        name = self._by_address.get(request.address)
        if name is None or not self.peers[name].streams:
            self._arrive(SyncFailed(address=request.address), 2 * LATENCY_S)
            return
        speaker = self.peers[name].speaker
        own = MembersReceived(node=speaker.identity.id, data=chunk(speaker.alive()))
        self._arrive(own, 4 * LATENCY_S)


def settled(*names: str) -> Company:
    """A company in which nothing waits to be told."""
    company = Company(*names)
    company.run(10.0)
    for peer in company.peers.values():
        peer.heard.clear()
    company.outputs.clear()
    assert company.engine.statistics().updates_queued == 0
    return company


def silent(peer: Peer) -> None:
    """Nothing reaches it any more, by any path."""
    peer.answers = peer.relayed = peer.streams = peer.relays = False
