"""Many experiments made up from seeds (`chaos/swarm.py`), run in the virtual world, in several processes if wanted.

A core that breaks under a seed is a finding like a violated invariant. Ctrl-C ends a campaign with what it has by then;
however it ends, the processes it started have ended too.

Invariant: every seed that was run has one outcome, and it is the same whatever process ran it.
"""

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final, Protocol

from chaos.swarm import draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one seed. `broken` names what was violated."""

    seed: int
    broken: tuple[str, ...]
    sometimes: Counter[str]
    faults: Counter[str]
    node_s: float
    error: str = ""


@dataclass(slots=True)
class Campaign:
    """What came of all of them."""

    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: bool = False  # by Ctrl-C, before all seeds had their turn

    @property
    def failed(self) -> list[Outcome]:
        return sorted(
            (each for each in self.outcomes if each.broken or each.error), key=lambda each: each.seed
        )

    @property
    def sometimes(self) -> Counter[str]:
        return sum((each.sometimes for each in self.outcomes), Counter())

    @property
    def faults(self) -> Counter[str]:
        return sum((each.faults for each in self.outcomes), Counter())

    @property
    def node_hours(self) -> float:
        return sum(each.node_s for each in self.outcomes) / 3600

    @property
    def never(self) -> list[str]:
        """The situations the campaign never came to."""
        from simulations.sometimes import Sometimes

        seen = self.sometimes
        return [each.value for each in Sometimes if not seen[each.value]]


class _StoppedError(Exception):
    """The campaign was ended while this experiment ran."""


class _Stop(Protocol):
    """An event that processes share."""

    def is_set(self) -> bool: ...

    def set(self) -> None: ...


_stops: Final[list[_Stop]] = []  # of the campaign this process works for, if it does


def _works_for(stop: _Stop) -> None:
    """A terminal's Ctrl-C reaches all processes: those that work wait to be told by the one that asked them to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stops.append(stop)


def _goes_on(_done: float, _total: float, _what: str) -> None:
    if any(stop.is_set() for stop in _stops):
        raise _StoppedError


def outcome_of(seed: int) -> Outcome:
    """Draw the experiment of that seed, run it in the virtual world, and judge it."""
    from chaos.drivers.sim import SimDriver

    experiment = draw(seed)
    journal = SimDriver().run(experiment, _goes_on, digest=False)
    return Outcome(
        seed=seed,
        broken=tuple(sorted({violation.invariant for violation in journal.violations})),
        sometimes=Counter({name: count for name, count in journal.sometimes.items() if count}),
        faults=Counter(event.inject.fault for event in experiment.method),
        node_s=journal.lasted_s * experiment.topology.size,
    )


def _guarded(seed: int) -> Outcome:
    """An outcome whatever happens: what goes wrong in one world must not take the campaign with it."""
    try:
        return outcome_of(seed)
    except _StoppedError:
        raise
    except Exception as error:  # a core that breaks under a seed is a finding, and is reported as one
        words = f"{type(error).__name__}: {error}"
        return Outcome(seed=seed, broken=(), sometimes=Counter(), faults=Counter(), node_s=0.0, error=words)


def campaign(seeds: Sequence[int], *, jobs: int, progress: Callable[[Outcome], None]) -> Campaign:
    """Run the experiments of these seeds in so many processes. KeyboardInterrupt ends it with what it has by then."""
    report = Campaign()

    def took(outcome: Outcome) -> None:
        report.outcomes.append(outcome)
        progress(outcome)

    try:
        if jobs <= 1:
            for seed in seeds:
                took(_guarded(seed))
        else:
            _share(seeds, jobs, took)
    except KeyboardInterrupt:
        report.interrupted = True
    return report


def _share(seeds: Sequence[int], jobs: int, took: Callable[[Outcome], None]) -> None:
    """Among processes. However it ends, they have ended too, and what they had finished was taken."""
    stop = multiprocessing.Event()
    waiting: set[Future[Outcome]] = set()

    def take(futures: Iterable[Future[Outcome]]) -> None:
        for future in tuple(futures):
            waiting.discard(future)
            took(future.result())

    with ProcessPoolExecutor(max_workers=jobs, initializer=_works_for, initargs=(stop,)) as pool:
        try:
            for seed in seeds:
                waiting.add(pool.submit(_guarded, seed))
                if len(waiting) >= 4 * jobs:
                    take(wait(waiting, return_when=FIRST_COMPLETED).done)
            take(waiting)
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
            take(each for each in waiting if not each.cancelled() and each.exception() is None)
            raise
