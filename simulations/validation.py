"""Holds the large simulations (simulations/meanfield) against the exact ones, which run the node itself.

Both answer the same questions about the same profile, network and number of members with samples of seconds; the two
samples are compared three ways: drawn (cumulative distributions), the greatest distance between them (Kolmogorov and
Smirnov), and the overlap coefficient of the two densities, the integral of their minimum (Weitzman, 1970).

The overlap is estimated with a histogram whose K bins hold equal shares of both samples together, K being twice the
cube root of the smaller sample (at least 4). Two errors of it are known. Two samples of *one* distribution do not
overlap wholly, because of chance in each bin: what is to be expected then is

    1 - sqrt(K * (1 / a + 1 / b) / (2 * pi))        for samples of a and b values,

reported beside the estimate as `attainable`, for an overlap means something only against it. And differences finer
than a bin do not show, which is why the distance stands beside it. Where a question pools the members of a run, the
values of one run are not independent: then a and b are the numbers of runs, and the bins follow from them.

The exact tier comes in as a function (`Samples`), so nothing here depends on how it works.

Invariant: neither comparison changes when both samples change places; equal samples overlap by 1 at distance 0.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, assert_never

from simulations.meanfield import detection as crashes  # first: it says what to install when numpy is missing
from simulations.meanfield import spread as updates

# isort: split
import numpy as np

from gossip.config import GossipConfig
from simulations.meanfield.arrays import Floats
from simulations.meanfield.parameters import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = (100, 1_000, 10_000)


class Question(Enum):
    """What both tiers are asked. The value is what a figure says."""

    HEARD = "an update reaches one member"
    HEARD_BY_99 = "an update reaches 99 % of members"
    HEARD_BY_ALL = "an update reaches everybody"
    SUSPECTED = "the first member suspects a crashed one"
    DEAD = "one member knows that another is dead"
    DEAD_TO_ALL = "everybody knows that a member is dead"

    @property
    def pooled(self) -> bool:
        """Whether each member of a run gives a value, and not each run one."""
        return self in (Question.HEARD, Question.DEAD)


class Samples(Protocol):
    """A tier: seconds since the publication or the crash, one value a run, or one a run and member (`pooled`); inf for
    what never came about. With the same arguments it gives the same values."""

    def __call__(
        self,
        question: Question,
        *,
        members: int,
        runs: int,
        seed: int,
        config: GossipConfig,
        network: Network,
    ) -> Floats: ...


def meanfield_samples(
    question: Question, *, members: int, runs: int, seed: int, config: GossipConfig, network: Network
) -> Floats:
    """The large simulations as `Samples`."""
    match question:
        case Question.HEARD | Question.HEARD_BY_99 | Question.HEARD_BY_ALL:
            spread = updates.spread(config, members, runs=runs, seed=seed, network=network)
            if question is Question.HEARD:
                return spread.heard_at[spread.heard_at > 0]  # the publisher did not hear of it
            return spread.seconds(0.99 if question is Question.HEARD_BY_99 else 1.0)
        case Question.SUSPECTED | Question.DEAD | Question.DEAD_TO_ALL:
            crash = crashes.detection(config, members, runs=runs, seed=seed, network=network)
            if question is Question.SUSPECTED:
                return crash.first_suspicion_s
            return crash.dead_at.ravel() if question is Question.DEAD else crash.all_verdicts_s
    assert_never(question)


# ------------------------------------------------------------ comparing
def bins_for(first: int, second: int) -> int:
    """K, for samples of so many independent values."""
    return max(4, round(2 * math.cbrt(min(first, second))))


def overlap(first: Floats, second: Floats, bins: int) -> float:
    """The overlap coefficient of the distributions behind two samples; inf is a value like any other."""
    pool = np.sort(np.concatenate((first, second)))
    edges = np.unique(pool[(np.arange(1, bins) * len(pool)) // bins])
    shares = []
    for sample in (first, second):
        places = np.searchsorted(edges, sample, side="right")
        shares.append(np.bincount(places, minlength=len(edges) + 1) / len(sample))
    return float(np.minimum(*shares).sum())


def attainable(first: int, second: int, bins: int) -> float:
    """The overlap to expect of samples of one distribution, of so many independent values."""
    return max(0.0, 1 - math.sqrt(bins * (1 / first + 1 / second) / (2 * math.pi)))


def distance(first: Floats, second: Floats) -> float:
    """The greatest difference of the two cumulative distributions (Kolmogorov and Smirnov)."""
    pool = np.concatenate((first, second))
    below = [np.searchsorted(np.sort(sample), pool, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One question at one size."""

    question: Question
    members: int
    exact: Floats
    large: Floats
    overlap: float
    attainable: float
    distance: float

    def __str__(self) -> str:
        return (
            f"{self.question.value}, n = {self.members:,}: overlap {self.overlap:.2f} "
            f"(of {self.attainable:.2f} attainable), distance {self.distance:.2f}, median "
            f"{np.median(self.exact):.3f} s exact and {np.median(self.large):.3f} s large"
        )


def compare(
    exact: Samples,
    question: Question,
    *,
    members: int,
    exact_runs: int,
    large_runs: int,
    seed: int,
    config: GossipConfig,
    network: Network,
    large: Samples = meanfield_samples,
) -> Comparison:
    """Ask both tiers one question."""
    one = exact(question, members=members, runs=exact_runs, seed=seed, config=config, network=network)
    two = large(question, members=members, runs=large_runs, seed=seed, config=config, network=network)
    bins = bins_for(exact_runs, large_runs)
    return Comparison(
        question=question,
        members=members,
        exact=one,
        large=two,
        overlap=overlap(one, two, bins),
        attainable=attainable(exact_runs, large_runs, bins),
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
    exact, large = comparison.exact, comparison.large
    _steps(panel, exact, label="exact (the node itself)", color="black", width=2.2)
    _steps(panel, large, label="large (arrays)", color="tab:orange", width=1.4)
    finite = np.concatenate((exact, large))
    finite = finite[np.isfinite(finite)]
    if len(finite):
        right = float(np.quantile(finite, 0.995)) * 1.15
        panel.set_xlim(0, right)
    panel.set_ylim(0, 1.02)
    panel.set_xlabel("seconds", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.25)
    panel.text(
        0.5,
        1.02,
        f"n = {comparison.members:,}   overlap {comparison.overlap:.2f} of {comparison.attainable:.2f}   "
        f"KS {comparison.distance:.2f}",
        transform=panel.transAxes,
        fontsize=8,
        ha="center",
        va="bottom",
    )


def _steps(panel: "Axes", sample: Floats, *, label: str, color: str, width: float) -> None:
    """The cumulative distribution; values that never came about keep it below 1."""
    finite = np.sort(sample[np.isfinite(sample)])
    heights = np.arange(1, len(finite) + 1) / len(sample)
    panel.step(np.concatenate(([0.0], finite)), np.concatenate(([0.0], heights)), where="post", label=label,
               color=color, linewidth=width)  # fmt: skip


def validate(
    exact: Samples,
    path: Path,
    *,
    config: GossipConfig,
    network: Network,
    sizes: Sequence[int] = SIZES,
    questions: Sequence[Question] = (
        Question.HEARD,
        Question.HEARD_BY_ALL,
        Question.SUSPECTED,
        Question.DEAD,
    ),
    exact_runs: Sequence[int] = (100, 40, 10),
    large_runs: int = 200,
    seed: int = 1,
    title: str = "Exact and large simulations",
) -> list[Comparison]:
    """Compare both tiers at each size and draw it; `exact_runs` is for each of `sizes`."""
    comparisons = [
        compare(
            exact,
            question,
            members=members,
            exact_runs=runs,
            large_runs=max(runs, min(large_runs, 2_000_000 // members)),
            seed=seed,
            config=config,
            network=network,
        )
        for question in questions
        for members, runs in zip(sizes, exact_runs, strict=True)
    ]
    draw(comparisons, path, title=title)
    return comparisons
