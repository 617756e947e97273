"""From what an experiment says to what will happen: every choice that is left to chance is drawn from the seed, once.

`resolve` gives an experiment again, in which each pick is a list of names and each partition a list of groups. A
resolved experiment resolves to itself; running one with any seed does the same things to the same nodes (the seed still
draws the network's dice). `moments` turns it into what a driver walks through: what begins and what ends, in order.

Invariant: the same experiment and seed give the same plan, whatever the driver; a draw for one fault never changes that
for another.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.experiment import Event, Experiment, ExperimentError
from chaos.fault import Join, Partition, Pick, Shape, Signers
from simulations.randomness import stream


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """At `at_s` the fault `number` (its place in the method) begins, or ends."""

    at_s: float
    number: int
    begins: bool


def moments(method: Sequence[Event]) -> list[Moment]:
    """What happens when, in order; what ends at the moment something else begins ends first."""
    found = []
    for number, event in enumerate(method):
        found.append(Moment(event.at, number, True))
        if event.ends is not None:
            found.append(Moment(event.ends, number, False))
    return sorted(found, key=lambda moment: (moment.at_s, moment.begins, moment.number))


def resolve(experiment: Experiment, *, source: str = "the experiment") -> Experiment:
    """The experiment with all its choices made. Raises ExperimentError when there is nobody to choose."""
    people = _People(experiment)
    return experiment.model_copy(
        update={
            "method": tuple(_resolved(people, experiment.seed, "method", experiment.method, source)),
            "rollbacks": tuple(_resolved(people, experiment.seed, "rollbacks", experiment.rollbacks, source)),
        }
    )


def _resolved(
    people: "_People", seed: int, where: str, method: Sequence[Event], source: str
) -> Iterator[Event]:
    for number, event in enumerate(method):
        rng = stream(seed, "chaos", where, number)
        inject = event.inject
        try:
            if isinstance(inject, Join | Signers):
                yield event
            elif isinstance(inject, Partition):
                yield event.model_copy(update={"inject": _partition(people, rng, inject)})
            else:
                names = people.pick(rng, inject.pick, event.at)
                explicit = inject.model_copy(update={"pick": Pick(nodes=names)})
                yield event.model_copy(update={"inject": explicit})
        except LookupError as error:
            raise ExperimentError(f"{source}: {where}[{number}].pick: {error}") from error


class _People:
    """The nodes there are, and when each came."""

    def __init__(self, experiment: Experiment) -> None:
        self.topology = experiment.topology
        self._since = dict.fromkeys(self.topology.names, 0.0)
        for event in sorted(experiment.method, key=lambda each: each.at):
            if isinstance(event.inject, Join):
                for _ in range(event.inject.count):
                    self._since[f"n{len(self._since)}"] = event.at

    def at(self, at_s: float) -> list[str]:
        return [name for name, since in self._since.items() if since <= at_s]

    def pick(
        self, rng: random.Random, pick: Pick, at_s: float, *, count: int | None = None
    ) -> tuple[str, ...]:
        """Names, in the order of the mesh. `count` if the pick says none. Raises LookupError."""
        pool = self.at(at_s)
        if pick.nodes:
            pool = [name for name in pick.nodes if name in self._since]
        elif pick.zone is not None:
            zone_of = {f"n{index}": self.topology.zone_of(index) for index in range(self.topology.size)}
            pool = [name for name in pool if zone_of.get(name) == pick.zone]
        elif pick.signers:
            pool = pool[: max(1, self.topology.signers)]  # who founds a mesh signs for it
        pool = [name for name in pool if name not in pick.but]
        if not pool:
            raise LookupError("nobody is left to be picked")
        if pick.count is not None:
            wanted = pick.count
        elif pick.share is not None:
            wanted = max(1, round(pick.share * len(pool)))
        elif pick.nodes or pick.zone is not None or pick.all or pick.signers:
            wanted = len(pool)
        else:
            wanted = 1 if count is None else count
        if wanted > len(pool):
            raise LookupError(f"{wanted} nodes are wanted, there are {len(pool)}")
        chosen = set(pool) if wanted == len(pool) else set(rng.sample(pool, wanted))
        return tuple(name for name in pool if name in chosen)


def _partition(people: _People, rng: random.Random, fault: Partition) -> Partition:
    if fault.groups:
        return fault.model_copy(update={"pick": Pick()})
    names = list(people.topology.names)
    picked: tuple[str, ...] = ()
    match fault.shape:
        case Shape.HALVES:
            shuffled = rng.sample(names, len(names))
            middle = len(names) // 2
            groups = [shuffled[:middle], shuffled[middle:]]
        case Shape.RING:
            groups = [names]
        case Shape.ZONES:
            if len(people.topology.zones) < 2:
                raise LookupError("a partition of zones needs topology.zones")
            bounds = [0]
            for count in people.topology.zones.values():
                bounds.append(bounds[-1] + count)
            groups = [names[first:last] for first, last in pairwise(bounds)]
        case Shape.BRIDGE:
            picked = people.pick(rng, fault.pick, 0.0, count=1)
            others = [name for name in names if name not in picked]
            shuffled = rng.sample(others, len(others))
            middle = len(others) // 2
            groups = [shuffled[:middle], shuffled[middle:], list(picked)]
        case Shape.ONE | Shape.THIRD | Shape.ONE_WAY | Shape.DEAF:
            third = max(1, len(names) // 3) if fault.shape is Shape.THIRD else 1
            picked = people.pick(rng, fault.pick, 0.0, count=third)
            groups = [list(picked), [name for name in names if name not in picked]]
    if not all(groups):
        raise LookupError(f"{fault.shape.value} needs more nodes, or fewer picked ones")
    ordered = tuple(tuple(sorted(group, key=lambda name: int(name[1:]))) for group in groups)
    return fault.model_copy(update={"pick": Pick(), "groups": ordered})
