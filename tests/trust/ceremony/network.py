"""A network in memory for ceremonies: seeded loss, repetition, delay, partition, crashes, and liars.

Every participant is a real machine behind a disk that keeps what was stored last. A crash happens *between two
outputs*: what was stored stays, what was not sent is gone. Frames pass as bytes.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

from tests.trust.secret import interpolate
from trust.ceremony.electorate import Electorate, founding
from trust.ceremony.events import (
    Convicted,
    Input,
    Members,
    Output,
    Received,
    Refused,
    Rejected,
    Retrying,
    Sealed,
    Send,
    Store,
    Tick,
    Timing,
    Wish,
)
from trust.ceremony.growth import SignerRules
from trust.ceremony.machine import Ceremony
from trust.epoch import EpochRecord, check_epoch, succession
from trust.group import Scalar, base_mul
from trust.groupkey import KeyShare, identifier_of
from trust.identity import NodeIdentity

TIMING = Timing()
DOMAIN = "cluster.local"


def people(count: int, seed: int = 0) -> list[NodeIdentity]:
    """So many nodes."""
    rng = random.Random(f"people {seed}")
    return sorted((NodeIdentity.from_seed(rng.randbytes(32)) for _ in range(count)), key=lambda each: each.id)


@dataclass
class Faults:
    """What the network does to frames: shares of them, and a delay in seconds at most."""

    loss: float = 0.0
    repeat: float = 0.0
    delay_s: float = 0.05
    cut: Callable[[bytes, bytes, float], bool] = lambda a, b, now: False


@dataclass
class Node:
    identity: NodeIdentity
    build: Callable[["Node"], Ceremony]
    kind: Callable[..., Ceremony] = Ceremony
    machine: Ceremony | None = None
    disk: bytes | None = None
    lives: int = 0
    outputs: int = 0
    crash_at: set[int] = field(default_factory=set)  # crash before this output of the node is carried out
    down_s: float = 1.0
    sealed: list[Sealed] = field(default_factory=list)
    convicted: list[Convicted] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    retrying: list[Retrying] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    replay: list[Input] = field(default_factory=list)  # what the driver tells a machine that starts


class Network:
    """Runs machines until they are done or the time is over. One seed, one run."""

    def __init__(self, seed: int = 0, faults: Faults | None = None) -> None:
        self.rng = random.Random(f"network {seed}")
        self.seed = seed
        self.faults = faults or Faults()
        self.now = 0.0
        self.nodes: dict[bytes, Node] = {}
        self.frames = 0
        self.bytes = 0
        self.alter: Callable[[bytes, bytes, bytes], bytes | None] = lambda source, target, data: data
        self._events: list[tuple[float, int, bytes, Input | None]] = []
        self._count = 0
        self.dead: set[bytes] = set()
        self.electors: frozenset[bytes] = frozenset()

    # ------------------------------------------------------------------ setting up

    def add(
        self,
        identity: NodeIdentity,
        electorate: Electorate,
        *,
        rules: SignerRules | None = None,
        share: KeyShare | None = None,
        kind: Callable[..., Ceremony] = Ceremony,
        secret: Scalar | None = None,
        inputs: Iterable[Input] = (),
    ) -> Node:
        def build(node: Node) -> Ceremony:
            entropy = random.Random(f"{self.seed} {identity.id.hex()} {node.lives}").randbytes
            return node.kind(
                identity=identity,
                electorate=electorate,
                rules=rules or SignerRules(),
                entropy=entropy,
                share=share,
                secret=secret,
                timing=TIMING,
                memory=node.disk,
            )

        self.electors = frozenset(electorate.ids)
        node = Node(identity=identity, build=build, kind=kind, replay=list(inputs))
        self.nodes[identity.id] = node
        self._at(0.0, identity.id, None)
        return node

    # ------------------------------------------------------------------ running

    def run(self, until: float = 600.0, done: Callable[[], bool] | None = None) -> bool:
        """Whether `done` came true by `until`."""
        finished = done or self.all_sealed
        while not finished():
            when = self._next_deadline()
            if self._events and (when is None or self._events[0][0] <= when[0]):
                self.now, _, target, given = heapq.heappop(self._events)
                if self.now > until:
                    return False
                self._deliver(target, given)
            elif when is not None:
                self.now = max(self.now, when[0])
                if self.now > until:
                    return False
                self._feed(self.nodes[when[1]], Tick())
            else:
                return False
        return True

    def all_sealed(self) -> bool:
        """Whether every node that lives knows the outcome."""
        return all(node.sealed for id_, node in self.nodes.items() if id_ not in self.dead)

    def kill(self, node: bytes) -> None:
        """For good."""
        self.dead.add(node)
        self.nodes[node].machine = None

    def _next_deadline(self) -> tuple[float, bytes] | None:
        times = [
            (node.machine.deadline, id_)
            for id_, node in self.nodes.items()
            if node.machine is not None and node.machine.deadline is not None
        ]
        return min(times, default=None)

    def _at(self, when: float, target: bytes, given: Input | None) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, target, given))

    def _deliver(self, target: bytes, given: Input | None) -> None:
        node = self.nodes.get(target)
        if node is None or target in self.dead:
            return
        if given is None:
            if node.machine is None:
                node.machine = node.build(node)
                for each in [*node.replay, Tick()]:
                    self._feed(node, each)
        elif node.machine is not None:
            self._feed(node, given)

    def _feed(self, node: Node, given: Input) -> None:
        if node.machine is None:
            return
        for output in node.machine.step(self.now, given):
            if node.outputs in node.crash_at:
                node.outputs += 1
                self._crash(node)
                return
            node.outputs += 1
            self._carry_out(node, output)

    def _crash(self, node: Node) -> None:
        node.machine = None
        node.lives += 1
        self._at(self.now + node.down_s, node.identity.id, None)

    def _carry_out(self, node: Node, output: Output) -> None:
        match output:
            case Store():
                node.disk = output.data
            case Send():
                self._carry(node.identity.id, output.node, output.data)
            case Sealed():
                node.sealed.append(output)
            case Convicted():
                node.convicted.append(output)
            case Rejected():
                node.rejected.append(output)
            case Retrying():
                node.retrying.append(output)
            case Refused():
                node.refused.append(output)

    def _carry(self, source: bytes, target: bytes, data: bytes) -> None:
        altered = self.alter(source, target, data)
        if altered is None or self.faults.cut(source, target, self.now):
            return
        self.frames += 1
        self.bytes += len(altered)
        copies = 2 if self.rng.random() < self.faults.repeat else 1
        for _ in range(copies):
            if self.rng.random() >= self.faults.loss:
                delay = self.rng.random() * self.faults.delay_s
                self._at(self.now + delay, target, Received(node=source, data=altered))


# ---------------------------------------------------------------------- common settings


def found(
    count: int,
    *,
    seed: int = 0,
    faults: Faults | None = None,
    rules: SignerRules | None = None,
    strict: bool = False,
) -> tuple[Network, Electorate, list[NodeIdentity]]:
    """A network in which `count` nodes are about to found a mesh."""
    founders = people(count, seed)
    rules = rules or SignerRules(signers=count)
    electorate = founding(
        DOMAIN, [each.public_key for each in founders], threshold=rules.threshold_of(count), strict=strict
    )
    network = Network(seed, faults)
    for each in founders:
        network.add(each, electorate, rules=rules)
    return network, electorate, founders


def founded(
    count: int, *, seed: int = 0, rules: SignerRules | None = None, strict: bool = False
) -> tuple[EpochRecord, dict[bytes, KeyShare], list[NodeIdentity]]:
    """A group that exists."""
    record, shares, founders = _founded(count, seed, rules, strict)
    return record, dict(shares), list(founders)


@cache
def _founded(
    count: int, seed: int, rules: SignerRules | None, strict: bool
) -> tuple[EpochRecord, dict[bytes, KeyShare], list[NodeIdentity]]:
    network, _, founders = found(count, seed=seed, rules=rules, strict=strict)
    assert network.run()
    return outcome(network), shares_of(network), founders


def outcome(network: Network) -> EpochRecord:
    """The one record that all living nodes sealed."""
    records = {
        sealed.record.digest: sealed.record for node in network.nodes.values() for sealed in node.sealed
    }
    assert len(records) == 1, f"{len(records)} outcomes"
    return next(iter(records.values()))


def shares_of(network: Network) -> dict[bytes, KeyShare]:
    """Shares by node id."""
    return {
        id_: sealed.share
        for id_, node in network.nodes.items()
        for sealed in node.sealed[-1:]
        if sealed.share is not None
    }


def check_outcome(network: Network, electorate: Electorate, secret: Scalar | None = None) -> EpochRecord:
    """All that must hold of a ceremony that ended: one record, decided, and shares that make its root."""
    record = outcome(network)
    check_epoch(record, electorate)
    shares = shares_of(network)
    group = record.group
    for id_, share in shares.items():
        assert share.group == group
        assert share.secret.public() == group.verifying_share(identifier_of(id_))
    if len(shares) >= group.threshold:
        some = dict(list(shares.items())[: group.threshold])
        whole = interpolate({identifier_of(id_): share.secret.expose() for id_, share in some.items()})
        assert base_mul(whole) == group.public
        assert secret is None or whole == secret
    return record


def reshare(
    record: EpochRecord,
    shares: dict[bytes, KeyShare],
    old: list[NodeIdentity],
    new: list[NodeIdentity],
    *,
    seed: int = 0,
    faults: Faults | None = None,
    rules: SignerRules | None = None,
    absent: Iterable[bytes] = (),
) -> tuple[Network, Electorate]:
    """A network in which the signers of `record` are about to hand over to `new`, by an operator's order."""
    electorate = succession(record)
    network = Network(seed, faults)
    rules = rules or SignerRules(signers=len(new))
    everyone = {each.id: each for each in [*old, *new]}
    wish = Wish(keys=tuple(each.public_key for each in new))
    members = Members(known=frozenset(everyone), ordered=frozenset(each.id for each in new))
    gone = set(absent)
    for id_, each in everyone.items():
        if id_ not in gone:
            network.add(each, electorate, rules=rules, share=shares.get(id_), inputs=[members, wish])
    return network, electorate
