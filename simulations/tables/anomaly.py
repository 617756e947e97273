"""Slow processing of messages, as the Lifeguard paper varies it: a process runs, and its messages stand still.

While a member is blocked nothing it sends leaves and nothing sent to it arrives; both go on, all at once, when the
block ends. Its timers run. So it goes on probing, hears no answers, suspects whoever it probed, and sees those
suspicions run out: what it has to say about healthy members when the block ends is all wrong. A process that is stopped
(SIGSTOP, a virtual machine that is moved; `faults.Slow`) does no such harm: its timers stand still too, and a node that
finds its clock ahead of itself knows that it was away.

It is a property of the wires here, so that nodes of every profile meet the same: the delay of a datagram is what is
left of the sender's block, then its way, then what is left of the receiver's block.

Invariant: a block delays; it loses nothing.
"""

from collections.abc import Container

from simulations.network import Network
from simulations.world import World


class StandingStill(Network):
    """The network of a world, on which from now on the members `slow` are blocked for `blocked_s`, run for
    `running_s`, and so on."""

    def __init__(self, world: World, slow: Container[int], *, blocked_s: float, running_s: float) -> None:
        self._world = world
        self._slow = slow
        self._since = world.now
        self._blocked_s = blocked_s
        self._cycle_s = blocked_s + running_s
        before = world.network
        super().__init__(before.rng, within=before.within)
        for _ in world.hosts:
            self.attach("")

    def settle(self) -> None:
        super().settle()
        self.plain = False  # every datagram is asked about

    def delay_s(self, source: int, target: int) -> float:
        now = self._world.now
        at = now + self._left_s(source, now)
        at += super().delay_s(source, target)
        at += self._left_s(target, at)
        return at - now

    def _left_s(self, host: int, at: float) -> float:
        """How much of its block a host has before it."""
        if host not in self._slow:
            return 0.0
        return max(0.0, self._blocked_s - (at - self._since) % self._cycle_s)


def stand_still(world: World, slow: Container[int], *, blocked_s: float, running_s: float) -> None:
    """Let these members be blocked, over and over, from now on."""
    assert world.network.plain, "a network with nothing else the matter with it"
    world.network = StandingStill(world, slow, blocked_s=blocked_s, running_s=running_s)
