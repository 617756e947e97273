"""What a virtual mesh does while faults happen to it: edits and deletions of policies, and members that come and go.

The virtual world gives records no meaning, so a policy is a record of the kind `note` with the causal context of what
its author saw, as a policy has it. A node that starts writes one at once, under a key of its own: so does a peer, whose
services are records.

Invariant: the same experiment has the same workload, whatever the nodes do; a write by a node that is down is none.
"""

from collections.abc import Callable
from typing import TypeAlias

from chaos.experiment import Experiment
from simulations import faults as sim
from simulations.host import Host
from simulations.randomness import stream
from simulations.world import World

Callback: TypeAlias = Callable[[None, None], None]


class Work:
    """The workload of one world, between `begin` and `end`."""

    def __init__(self, world: World, experiment: Experiment) -> None:
        self._world = world
        self._load = experiment.workload
        self._rng = stream(experiment.seed, "chaos", "workload")
        self._churn_rng = stream(experiment.seed, "chaos", "churn")
        self._down: set[int] = set()
        self._runs = False

    def begin(self) -> None:
        self._runs = True
        if self._load.policies is not None:
            self._world.on_life.append(self._register)
            self._soon(self._rng.expovariate(1 / self._load.policies.every), self._edit)
        if self._load.churn is not None:
            self._soon(self._churn_rng.expovariate(1 / self._load.churn.every), self._kill)

    def end(self) -> None:
        """No more of it; whom churn killed comes back."""
        self._runs = False
        for index in sorted(self._down):
            self._start(index, None)

    def _soon(self, after_s: float, what: Callback) -> None:
        self._world.push(self._world.now + after_s, what, None, None)

    def _register(self, host: Host, what: str) -> None:
        if self._runs and what == "start":
            fault = sim.Publish(host=host.index, key=f"of {host.name}")
            self._world.push(self._world.now, sim.happen, self._world, fault)

    def _edit(self, _first: None, _second: None) -> None:
        policies = self._load.policies
        if not self._runs or policies is None:
            return
        host = self._rng.randrange(len(self._world.hosts))
        key = f"p{self._rng.randrange(policies.keys)}"
        deletes = self._rng.random() < policies.deletes
        fault = (
            sim.Delete(host=host, key=key) if deletes else sim.Publish(host=host, key=key, size=policies.size)
        )
        if self._world.hosts[host].member:
            sim.happen(self._world, fault)
        self._soon(self._rng.expovariate(1 / policies.every), self._edit)

    def _kill(self, _first: None, _second: None) -> None:
        churn = self._load.churn
        if not self._runs or churn is None:
            return
        index = self._churn_rng.randrange(len(self._world.hosts))
        host = self._world.hosts[index]
        if host.member and index not in self._down:
            self._down.add(index)
            sim.happen(self._world, sim.Crash(host=index))
            self._world.push(self._world.now + churn.down, self._start, index, None)
        self._soon(self._churn_rng.expovariate(1 / churn.every), self._kill)

    def _start(self, index: int, _: None) -> None:
        if index in self._down:
            self._down.discard(index)
            if not self._world.hosts[index].up:
                sim.happen(self._world, sim.Restart(host=index))
