"""Smaller experiments that fail in the same way.

What began after the first violation has no part in it and goes first. Then delta debugging (Zeller and Hildebrandt, TSE
2002) on the timeline: leave out halves, then quarters, … then single faults, for as long as the run still breaks one of
the invariants it broke at first. Where many are left the failure hangs on the dice, and parts are left out under other
ones. Then what surrounds the faults is made smaller in the same spirit: the workload, how
long a fault lasts, nodes nobody names.

Invariant: what is returned fails, by one of the invariants it was asked to fail by, and is no larger than what came in.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from chaos.experiment import Event, Experiment, Topology, Workload
from chaos.fault import Join, Loss, Partition, Pick, Signers

RUNS_MAX: Final = 400
FEW: Final = 3  # faults that somebody can read: fewer are not bought with another seed
DICE: Final = 5
APART: Final = 1_000_003  # between seeds, so that none is the next experiment's
OF_SIGNERS: Final = frozenset({"signers", "certificates"})

Fails = Callable[[Experiment], bool]


@dataclass(slots=True)
class _Budget:
    """Asks whether an experiment fails, RUNS_MAX times."""

    fails: Fails
    progress: Callable[[int, Experiment], None]
    runs: int = 0

    def still(self, smaller: Experiment) -> bool:
        if self.runs >= RUNS_MAX:
            return False
        self.runs += 1
        failed = self.fails(smaller)
        if failed:
            self.progress(self.runs, smaller)
        return failed


def shrink(
    experiment: Experiment,
    fails: Fails,
    progress: Callable[[int, Experiment], None],
    *,
    broke_s: float | None = None,
) -> Experiment:
    """The smallest that was found. `experiment` is resolved and fails; `broke_s`: when, on its timeline."""
    budget = _Budget(fails, progress)
    if broke_s is not None:
        cut = _until(experiment, max(0.0, broke_s))
        if cut != experiment and budget.still(cut):
            experiment = cut
    before = None
    while before != experiment and budget.runs < RUNS_MAX:
        before = experiment
        experiment = _fewer_faults(experiment, budget)
        if len(experiment.method) > FEW:
            experiment = _other_dice(experiment, budget)
            if experiment != before:
                continue  # fewer faults make every further run shorter: all else waits
        for smaller in _simpler(experiment):
            if smaller != experiment and budget.still(smaller):
                experiment = smaller
        experiment = _shorter(experiment, budget)
    return experiment


def _until(experiment: Experiment, end_s: float) -> Experiment:
    """Without what begins later; what lasts longer ends then."""
    method = tuple(
        event if event.ends is None or event.ends <= end_s
        else event.model_copy(update={"lasts": max(0.0, round(end_s - event.at, 3))})
        for event in experiment.method
        if event.at <= end_s
    )  # fmt: skip
    lasts_s = min(round(end_s, 3), experiment.timeline_s)
    return experiment.model_copy(update={"method": _without_strangers(experiment, method), "lasts": lasts_s})


def _fewer_faults(experiment: Experiment, budget: _Budget) -> Experiment:
    """ddmin on the method."""
    parts = 2
    method: Sequence[Event] = experiment.method
    while method:
        size = max(1, -(-len(method) // parts))
        for first in range(0, len(method), size):
            rest = _without_strangers(experiment, (*method[:first], *method[first + size :]))
            smaller = experiment.model_copy(update={"method": rest})
            if budget.still(smaller):
                experiment, method = smaller, rest
                parts = max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(method), parts * 2)
    return experiment


def _other_dice(experiment: Experiment, budget: _Budget) -> Experiment:
    """Without a half, or a quarter, but from another seed: what fails by chance may need other dice for that."""
    for dice in range(1, DICE + 1):
        for parts in (2, 4):
            size = -(-len(experiment.method) // parts)
            for first in range(0, len(experiment.method), size):
                method = (*experiment.method[:first], *experiment.method[first + size :])
                rest = _without_strangers(experiment, method)
                other = experiment.model_copy(update={"method": rest, "seed": experiment.seed + dice * APART})
                if budget.still(other):
                    return other
    return experiment


def _simpler(experiment: Experiment) -> Iterator[Experiment]:
    """What surrounds the faults, one thing less each."""
    yield experiment.model_copy(update={"workload": Workload()})
    topology = experiment.topology
    if topology.links:
        yield experiment.model_copy(update={"topology": topology.model_copy(update={"links": ()})})
    if topology.start == "cold":
        yield experiment.model_copy(update={"topology": topology.model_copy(update={"start": "warm"})})
    if topology.signers and not any(event.inject.fault in OF_SIGNERS for event in experiment.method):
        yield experiment.model_copy(update={"topology": topology.model_copy(update={"signers": 0})})
    named = [int(name[1:]) for event in experiment.method for name in _nodes(event)]
    joins = any(isinstance(event.inject, Join) for event in experiment.method)
    if not topology.zones and not joins:  # newcomers are numbered after those of the beginning
        for size in range(max([1, topology.signers - 1, *named]) + 1, topology.size):
            yield experiment.model_copy(update={"topology": Topology(**{**dict(topology), "nodes": size})})


def _shorter(experiment: Experiment, budget: _Budget) -> Experiment:
    """Half as long, half as long again, …, each fault by itself."""
    for number in range(len(experiment.method)):
        while (lasts_s := experiment.method[number].lasts) is not None and lasts_s >= 1:
            half = experiment.method[number].model_copy(update={"lasts": round(lasts_s / 2, 3)})
            method = (*experiment.method[:number], half, *experiment.method[number + 1 :])
            ends = max(each.at if each.ends is None else each.ends for each in method)
            smaller = experiment.model_copy(
                update={"method": method, "lasts": min(experiment.lasts or ends, ends)}
            )
            if not budget.still(smaller):
                break
            experiment = smaller
    return experiment


def _nodes(event: Event) -> Iterator[str]:
    inject = event.inject
    if isinstance(inject, Partition):
        for group in inject.groups:
            yield from group
    pick = getattr(inject, "pick", None)
    if pick is not None:
        yield from pick.nodes
    if inject.fault == "loss":
        yield from inject.to


def _without_strangers(experiment: Experiment, method: Sequence[Event]) -> tuple[Event, ...]:
    """The faults, with nobody in them who is not there: a newcomer is not, once its join is left out."""
    joined = sum(event.inject.count for event in method if isinstance(event.inject, Join))
    there = {f"n{index}" for index in range(experiment.topology.size + joined)}
    return tuple(kept for event in method if (kept := _among(event, there)) is not None)


def _among(event: Event, there: set[str]) -> Event | None:
    """The fault as far as these nodes go; None where nothing is left of it."""
    if there.issuperset(_nodes(event)):
        return event
    inject = event.inject
    if isinstance(inject, Partition):
        groups = tuple(tuple(name for name in group if name in there) for group in inject.groups)
        return (
            event.model_copy(update={"inject": inject.model_copy(update={"groups": groups})})
            if all(groups)
            else None
        )
    if isinstance(inject, Join | Signers):
        return event
    nodes = tuple(name for name in inject.pick.nodes if name in there)
    if not nodes:
        return None
    left = inject.model_copy(update={"pick": Pick(nodes=nodes)})
    if isinstance(left, Loss) and left.to:
        left = left.model_copy(update={"to": tuple(name for name in left.to if name in there)})
        if not left.to:
            return None
    return event.model_copy(update={"inject": left})
