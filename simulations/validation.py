"""Holds the large simulations (simulations/meanfield) against the exact ones, which run the node itself.

Both play the same stories (an update is published, a member crashes) with the same profile, network and number of
members, and both answer the same questions about them with samples of seconds. Two samples are compared three ways:
drawn (cumulative distributions), the greatest distance between them (Kolmogorov and Smirnov), and the overlap
coefficient of the two densities, the integral of their minimum (Weitzman, 1970).

The overlap is estimated with a histogram whose K bins hold equal shares of both samples together, K being twice the
cube root of the number of runs in the smaller sample (at least 4). Two errors of it are known. Two samples of *one*
distribution do not overlap wholly, because of chance in each bin, and the values of one run are not independent where a
question pools its members. So the large runs are also compared among themselves, again and again, as many of them as
there are exact runs with all others: what overlap that gives in the median is `attainable`, and what it gives in 95 of
100 cases is `by_chance`: an overlap below that tells the two tiers apart. And differences finer than a bin do not show,
which is why the distance stands beside it.

The exact tier comes in as a `Tier`, so nothing here depends on how it works.

Invariant: neither comparison changes when both samples change places; equal samples overlap by 1 at distance 0.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from simulations.meanfield import detection as crashes  # first: it says what to install when numpy is missing
from simulations.meanfield import spread as updates

# isort: split
import numpy as np

from gossip.config import GossipConfig
from simulations.meanfield.arrays import Floats, Ints
from simulations.meanfield.parameters import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES: Final = (100, 1_000, 10_000)
_RESAMPLED: Final = 400
_UNLIKELY: Final = 0.05
_DRAWN_MAX: Final = 300


COLUMNS: Final = (
    "question",
    "nodes",
    "runs of the node",
    "overlap",
    "attainable",
    "by chance from",
    "distance (KS)",
    "median, node (s)",
    "median, arrays (s)",
)


class Question(Enum):
    """What both tiers are asked. The value is what a figure says."""

    HEARD = "an update reaches one member"
    HEARD_BY_ALL = "an update reaches everybody"
    SUSPECTED = "the first member suspects a crashed one"
    DEAD = "one member knows that another is dead"
    DEAD_TO_ALL = "everybody knows that a member is dead"


@dataclass(frozen=True, slots=True)
class Crash:
    """When each other member suspected a crashed one, and knew that it was dead: seconds after the crash."""

    suspected_s: Floats
    dead_s: Floats


class Tier(Protocol):
    """A way to simulate: seconds by run and other member, inf for what never came about. With the same arguments it
    gives the same values."""

    def updates(
        self, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
    ) -> list[Floats]: ...

    def crashes(
        self, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
    ) -> list[Crash]: ...


class Large:
    """The large simulations."""

    def updates(
        self, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
    ) -> list[Floats]:
        spread = updates.spread(config, members, runs=runs, seed=seed, network=network)
        return [heard[heard > 0] for heard in spread.heard_at]  # the publisher did not hear of it

    def crashes(
        self, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
    ) -> list[Crash]:
        crash = crashes.detection(config, members, runs=runs, seed=seed, network=network)
        return [Crash(*pair) for pair in zip(crash.suspected_at, crash.dead_at, strict=True)]


LARGE: Final = Large()


def answers(updated: Sequence[Floats], crashed: Sequence[Crash]) -> dict[Question, list[Floats]]:
    """What each run says to each question: one value, or one a member."""
    return {
        Question.HEARD: list(updated),
        Question.HEARD_BY_ALL: [heard.max(keepdims=True) for heard in updated],
        Question.SUSPECTED: [crash.suspected_s.min(keepdims=True) for crash in crashed],
        Question.DEAD: [crash.dead_s for crash in crashed],
        Question.DEAD_TO_ALL: [crash.dead_s.max(keepdims=True) for crash in crashed],
    }


# ------------------------------------------------------------ comparing
def bins_for(first: int, second: int) -> int:
    """K, for samples of so many runs."""
    return max(4, round(2 * math.cbrt(min(first, second))))


def edges_of(pool: Floats, bins: int) -> Floats:
    """What lies between bins that hold equal shares of `pool`."""
    ordered = np.sort(pool)
    return np.unique(ordered[(np.arange(1, bins) * len(ordered)) // bins])


def counts(sample: Floats, edges: Floats) -> Ints:
    """How many values are in each bin; inf is a value like any other."""
    return np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1)


def overlap(first: Floats, second: Floats, bins: int) -> float:
    """The overlap coefficient of the distributions behind two samples."""
    edges = edges_of(np.concatenate((first, second)), bins)
    return _common(counts(first, edges), counts(second, edges))


def _common(first: Ints, second: Ints) -> float:
    return float(np.minimum(first / first.sum(), second / second.sum()).sum())


def among_themselves(runs: Sequence[Floats], edges: Floats, drawn: int, seed: int) -> Floats:
    """The overlaps of `drawn` of `runs`, chosen at random, with all others of them, many times."""
    rng = np.random.Generator(np.random.PCG64(seed))
    table = np.array([counts(run, edges) for run in runs])
    everything = table.sum(axis=0)
    overlaps = np.empty(_RESAMPLED)
    for place in range(_RESAMPLED):
        chosen = table[rng.choice(len(runs), drawn, replace=False)].sum(axis=0)
        overlaps[place] = _common(chosen, everything - chosen)
    return overlaps


def distance(first: Floats, second: Floats) -> float:
    """The greatest difference of the two cumulative distributions (Kolmogorov and Smirnov)."""
    pool = np.concatenate((first, second))
    below = [np.searchsorted(np.sort(sample), pool, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One question at one size. `attainable` and `by_chance` are overlaps of the large runs among themselves: the
    median, and what 95 of 100 reach."""

    question: Question
    members: int
    runs: tuple[int, int]  # exact, large
    exact: Floats
    large: Floats
    overlap: float
    attainable: float
    by_chance: float
    distance: float

    def row(self) -> tuple[str, ...]:
        """Under COLUMNS."""
        medians = (f"{np.median(sample):.4f}" for sample in (self.exact, self.large))
        overlaps = (
            f"{value:.2f}" for value in (self.overlap, self.attainable, self.by_chance, self.distance)
        )
        return (self.question.value, f"{self.members:,}", f"{self.runs[0]}", *overlaps, *medians)


def compare(
    question: Question, exact: Sequence[Floats], large: Sequence[Floats], *, members: int, seed: int = 0
) -> Comparison:
    """Hold what both tiers' runs say against each other. There are more large runs than exact ones."""
    one, two = np.concatenate(exact), np.concatenate(large)
    bins = bins_for(len(exact), len(large))
    noise = among_themselves(large, edges_of(np.concatenate((one, two)), bins), len(exact), seed)
    return Comparison(
        question=question,
        members=members,
        runs=(len(exact), len(large)),
        exact=one,
        large=two,
        overlap=overlap(one, two, bins),
        attainable=float(np.median(noise)),
        by_chance=float(np.quantile(noise, _UNLIKELY)),
        distance=distance(one, two),
    )


# ------------------------------------------------------------ drawing
def draw(comparisons: Iterable[Comparison], path: Path, *, title: str) -> None:
    """A row of panels for each question, one for each size, as PNG or SVG by the name of `path`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'gossamer-mesh[sim]'") from error
    rows: dict[Question, list[Comparison]] = {}
    for comparison in comparisons:
        rows.setdefault(comparison.question, []).append(comparison)
    width = max(len(row) for row in rows.values())
    figure = Figure(figsize=(4.2 * width, 2.9 * len(rows) + 0.6), layout="constrained")
    panels = figure.subplots(len(rows), width, squeeze=False)
    for axes, (question, row) in zip(panels, rows.items(), strict=True):
        for place, panel in enumerate(axes):
            if place < len(row):
                _panel(panel, row[place])
            else:
                panel.set_axis_off()
        axes[0].set_ylabel("share of values")
        axes[width // 2].set_title(question.value, fontsize=11, fontweight="bold", pad=22)
    panels[0][0].legend(loc="lower right", fontsize=8, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


def _panel(panel: "Axes", comparison: Comparison) -> None:
    from matplotlib.ticker import LogLocator

    exact, large = comparison.exact, comparison.large
    _steps(panel, exact, label="exact (the node itself)", color="black", width=2.2)
    _steps(panel, large, label="large (arrays)", color="tab:orange", width=1.4)
    finite = np.concatenate((exact, large))
    finite = finite[np.isfinite(finite)]
    if len(finite):
        left, right = np.quantile(finite, (0.002, 0.998))
        if comparison.question is Question.HEARD:  # most have it after milliseconds, the last after a hundred
            panel.set_xscale("log")
            panel.set_xlim(left, right)
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(
                ""
            )  # of less than a decade they would be written over one another
        else:
            panel.set_xlim(left - 0.05 * (right - left), right + 0.05 * (right - left))
    panel.set_ylim(0, 1.02)
    panel.set_xlabel("seconds", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.25)
    panel.text(
        0.5,
        1.02,
        f"n = {comparison.members:,}, {comparison.runs[0]} exact runs: overlap {comparison.overlap:.2f} "
        f"(attainable {comparison.attainable:.2f}), KS {comparison.distance:.2f}",
        transform=panel.transAxes,
        fontsize=8,
        ha="center",
        va="bottom",
    )


def _steps(panel: "Axes", sample: Floats, *, label: str, color: str, width: float) -> None:
    """The cumulative distribution, by at most _DRAWN_MAX values of it; what never came about keeps it below 1."""
    finite = np.sort(sample[np.isfinite(sample)])
    places = np.unique(np.linspace(0, len(finite) - 1, min(len(finite), _DRAWN_MAX)).astype(np.int64))
    heights = (places + 1) / len(sample)
    panel.step(finite[places], heights, where="post", label=label, color=color, linewidth=width)


def validate(
    exact: Tier,
    path: Path,
    *,
    config: GossipConfig,
    network: Network,
    sizes: Sequence[int] = SIZES,
    exact_runs: Sequence[int] = (100, 20, 4),
    large_runs: int = 200,
    seed: int = 1,
    title: str = "Exact and large simulations",
    large: Tier = LARGE,
) -> Iterator[Comparison]:
    """Compare both tiers at each size, and draw what there is after each; `exact_runs` is for each of `sizes`."""
    comparisons: list[Comparison] = []
    for members, runs in zip(sizes, exact_runs, strict=True):
        of_both = [
            answers(
                tier.updates(members=members, runs=count, seed=seed, config=config, network=network),
                tier.crashes(members=members, runs=count, seed=seed, config=config, network=network),
            )
            for tier, count in ((exact, runs), (large, max(large_runs, 2 * runs)))
        ]
        for question in Question:
            comparisons.append(
                compare(question, of_both[0][question], of_both[1][question], members=members, seed=seed)
            )
            yield comparisons[-1]
        draw(comparisons, path, title=title)
