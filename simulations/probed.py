"""What becomes of regular probes where packets are lost, and whom they accuse: counted in the node itself.

The figures are those of the arrays (simulations/meanfield/probing.py), so that each step of a probe can be held against
its model. The nodes are healthy and know one another; counting begins LOSSY_S after the loss did, when local health and
estimates of round trips are what they stay. Two meshes share the time: in each of them all probes follow the ids and
phases of its nodes.

What saved a probe is what ended it: an ack of its target (the first ping's until the second was sent), an ack by way of
a relay, or whatever came over a stream. A probe that failed accuses nobody if its target announced something meanwhile:
it was outrun.

Invariant: counting changes nothing of what happens; each regular probe that ends is counted once.
"""

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from gossip.config import GossipConfig
from gossip.member import State
from gossip.probe import Probe, Purpose
from peer.node import Node
from simulations.exact import settled
from simulations.meanfield.parameters import Network
from simulations.tables.ground import forget
from simulations.tables.watch import Watch

LOSSY_S: Final = 10.0
MESHES: Final = 2
_HOUR_S: Final = 3600.0


class End(Enum):
    """What a regular probe ended with."""

    FIRST = "first ping"
    SECOND = "second ping"
    RELAY = "relay"
    STREAM = "stream"
    FAILED = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """Counts of `node_hours`. `outrun` are of those that failed; `accusations` count once, however many heard of them;
    `verdicts` are all wrong, and count at each member that reached one."""

    node_hours: float
    ends: Counter[End]
    outrun: int
    accusations: int
    verdicts: int

    @property
    def per_hour(self) -> float:
        """Accusations a node-hour."""
        return self.accusations / self.node_hours

    @property
    def per_hour_error(self) -> float:
        """Of that, one standard error of a count."""
        return float(self.accusations**0.5) / self.node_hours

    @property
    def per_hour_max(self) -> float:
        """Where none was counted: the 95 % bound (Hanley and Lippman-Hand, 1983)."""
        return 3 / self.node_hours

    def counts(self) -> list[int]:
        """By what they ended with, in the order of `End`."""
        return [self.ends[end] for end in End]

    def share(self, count: int) -> float:
        """Of all regular probes that ended."""
        return count / self.ends.total()


def probed(
    config: GossipConfig,
    network: Network,
    *,
    members: int,
    node_hours: float,
    meshes: int = MESHES,
    seed: int = 0,
) -> Probed:
    """Let meshes of `members` healthy nodes probe each other for so many node-hours, all meshes together."""
    ends: Counter[End] = Counter()
    outrun = accusations = verdicts = 0
    for number in range(meshes):
        world = settled(members, seed + 1000 * number, config, network)
        world.run(LOSSY_S)
        everybody = {host.id for host in world.hosts}
        listeners = [Listener(host.node) for host in world.hosts if host.node is not None]
        with Watch(world) as watch:
            world.run(node_hours * _HOUR_S / members / meshes)
        for listener in listeners:
            ends += listener.ends
            outrun += listener.outrun
        accusations += watch.accusations(everybody)
        verdicts += watch.count(State.DEAD, everybody)
        forget(world)
    return Probed(node_hours=node_hours, ends=ends, outrun=outrun, accusations=accusations, verdicts=verdicts)


class Listener:
    """Stands between a node's engine and its probes, from when it is made, and counts how the regular ones end."""

    def __init__(self, node: Node) -> None:
        self.ends: Counter[End] = Counter()
        self.outrun = 0
        probes = node.engine._parts.probes
        self._roster = node.engine._parts.roster
        self._finish, self._finish_target, self._failed = probes.finish, probes.finish_target, probes.failed
        self._streamed = False  # what ends a probe now came over a stream
        instrumented: Any = probes
        instrumented.finish = self.finish
        instrumented.finish_target = self.finish_target
        instrumented.failed = self.failed

    def finish(self, sequence: int, *, sender: bytes) -> Probe | None:
        probe = self._finish(sequence, sender=sender)
        if probe is not None and probe.purpose is Purpose.ROUND:
            self.ends[self._saved_by(probe, sender)] += 1
        return probe

    def finish_target(self, target: bytes) -> Probe | None:
        self._streamed = True  # it calls `finish`
        try:
            return self._finish_target(target)
        finally:
            self._streamed = False

    def failed(self, now: float) -> list[Probe]:
        due = self._failed(now)
        for probe in due:
            if probe.purpose is Purpose.ROUND:
                self.ends[End.FAILED] += 1
                entry = self._roster.get(probe.target)
                self.outrun += entry is not None and entry.member.rank > probe.rank
        return due

    def _saved_by(self, probe: Probe, sender: bytes) -> End:
        if self._streamed:
            return End.STREAM
        if sender != probe.target:
            return End.RELAY
        return End.SECOND if probe.indirect else End.FIRST
