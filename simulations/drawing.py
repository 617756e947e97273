"""A time-line as a picture: a row for each node (or group of nodes), coloured by how the others see it.

Above, what was done to the mesh; left, who; in each row the share of the observers that see the node alive, suspect,
dead or left, stacked, and under it a line that tells how it really was. The eye is to find three things at once: when
something was done, when everybody knew, and whether anybody was wronged.

Matplotlib is needed for this and nothing else (`pip install gossamer-mesh[sim]`), and is imported when a picture is
drawn.

Invariant: a picture shows what the time-line holds, nothing is smoothed away: a column is the state at its left edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulations.timeline import Mark, Timeline, Truth

if TYPE_CHECKING:
    from simulations.stage import Played

ROWS_MAX: Final = 40
COLUMNS: Final = 1600
NAMED_MAX: Final = 3
FORMATS: Final = (".svg", ".png", ".pdf")

# Okabe and Ito's colours, told apart by people who see colours differently.
ALIVE, SUSPECT, DEAD, LEFT, UNSEEN = "#9fd8c2", "#e69f00", "#c8442c", "#8f8f9c", "#f4f4f1"
RUNNING, IMPAIRED = "#1f5f50", "#cc79a7"
CUT = "#3d5a80"
INK, FAINT = "#222222", "#b5b5b0"


class DrawingError(Exception):
    """The picture cannot be drawn; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """Some hosts shown as one."""

    label: str
    hosts: tuple[int, ...]


def rows_of(timeline: Timeline, *, rows_max: int = ROWS_MAX) -> list[Row]:
    """One row a host, but one for all of which there is nothing to tell. Where there are too many, those something was
    done to have rows of their own as far as half the rows go, and the others come in groups."""
    eventful = [host for host in timeline.hosts if timeline.eventful(host)]
    quiet = tuple(host for host in timeline.hosts if host not in set(eventful))
    rows = [Row(f"n{host}", (host,)) for host in eventful]
    if len(rows) > rows_max:
        done_to = {mark.host for mark in timeline.marks}
        touched = [host for host in eventful if host in done_to]
        if len(touched) > rows_max // 2:
            touched = []
        rest = [host for host in eventful if host not in set(touched)]
        size = -(-len(rest) // (rows_max - len(touched)))
        groups = [tuple(rest[at : at + size]) for at in range(0, len(rest), size)]
        rows = [Row(f"n{host}", (host,)) for host in touched] + [
            Row(_named(group), group) for group in groups
        ]
    if quiet:
        word = "the other " if rows else ""
        rows.append(Row(f"{word}{len(quiet)} nodes" if len(quiet) > 1 else f"n{quiet[0]}", quiet))
    return rows


def _named(group: tuple[int, ...]) -> str:
    if len(group) <= NAMED_MAX:
        return ", ".join(f"n{host}" for host in group)
    return f"n{group[0]} … n{group[-1]} ({len(group)})"


def shares(timeline: Timeline, row: Row, times: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """At each time the share of observers that see the row alive, suspect, dead, left; the rest knows nothing of it."""
    total = [[0.0, 0.0, 0.0, 0.0] for _ in times]
    for host in row.hosts:
        steps, place = timeline.steps(host), -1
        for column, at in enumerate(times):
            while place + 1 < len(steps) and steps[place + 1].at <= at:
                place += 1
            if place < 0:
                continue
            step = steps[place]
            others = max(1, sum(step.seen), step.observers - 1)
            for state, count in enumerate(step.seen):
                total[column][state] += count / others / len(row.hosts)
    return [(a, s, d, gone) for a, s, d, gone in total]


def changing(seen: Sequence[object]) -> list[int]:
    """The first column, each that differs from the one before it, and the last: all that a picture in steps needs."""
    last = len(seen) - 1
    return [column for column in range(len(seen)) if column in (0, last) or seen[column] != seen[column - 1]]


def draw(played: "Played", path: Path) -> None:
    """Draw the time-line into `path`, whose ending says the format. Raises DrawingError."""
    if path.suffix.lower() not in FORMATS:
        raise DrawingError(f"{path.name}: a picture's name ends in {', '.join(FORMATS)}")
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise DrawingError(
            "drawing needs matplotlib, which is not installed: pip install 'gossamer-mesh[sim]'"
        ) from error
    timeline = played.timeline
    rows = rows_of(timeline)
    spans = sorted(timeline.spans(), key=lambda span: span.begins)
    # fixed hash salt: the same story gives the same SVG, byte for byte
    style: Any = {
        "font.family": "sans-serif",
        "font.size": 9,
        "svg.hashsalt": "gossamer",
        "svg.fonttype": "none",
    }
    with mpl.rc_context(style):
        lanes = _lanes(spans)
        top = 0.26 * max(1, len(set(lanes)) + bool(timeline.marks)) + 0.1
        height = 1.7 + top + 0.24 * len(rows)
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(12, height), sharex=True, height_ratios=[top, 0.24 * len(rows) + 0.3],
            layout="constrained",
        )  # fmt: skip
        _draw_rows(below, timeline, rows)
        _draw_deeds(above, timeline, spans, lanes)
        _title(above, played)
        _legend(figure)
        try:
            figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise DrawingError(f"{path}: {error.strerror or error}") from error
        finally:
            plt.close(figure)


def _draw_rows(axes: Any, timeline: Timeline, rows: Sequence[Row]) -> None:
    end = timeline.now
    columns = [end * column / COLUMNS for column in range(COLUMNS)]
    for place, row in enumerate(rows):  # not snapped to pixels, which would swallow what is narrower
        everywhere = shares(timeline, row, columns)
        steps = changing(everywhere)
        times, seen = [columns[step] for step in steps], [everywhere[step] for step in steps]
        axes.fill_between(times, place - 0.40, place + 0.30, color=UNSEEN, linewidth=0, snap=False)
        bottom = [place + 0.30] * len(times)  # the axis points down: a band grows upwards from its truth line
        for state, colour in enumerate((ALIVE, LEFT, SUSPECT, DEAD)):
            index = (0, 3, 1, 2)[state]
            edge = [y - 0.70 * share[index] for y, share in zip(bottom, seen, strict=True)]
            axes.fill_between(times, edge, bottom, color=colour, linewidth=0, step="post", snap=False)
            bottom = edge
        if len(row.hosts) == 1 or not any(timeline.eventful(host) for host in row.hosts):
            _draw_truth(axes, timeline, row.hosts[0], place, end)
    for at in sorted({edge for span in timeline.spans() for edge in (span.begins, span.ends)}):
        axes.axvline(at, color=CUT, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.7, zorder=0.5)
    placed = {row.hosts[0]: place for place, row in enumerate(rows) if len(row.hosts) == 1}
    for mark in timeline.marks:
        if mark.host in placed:
            axes.plot(
                [mark.at] * 2, [placed[mark.host] - 0.44, placed[mark.host] + 0.44], color=INK, linewidth=0.9
            )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, end)
    axes.set_xlabel("seconds")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_truth(axes: Any, timeline: Timeline, host: int, place: int, end: float) -> None:
    """The line under a band: running, stopped or slow, or (no line) down."""
    truth = [*timeline.truth(host), (end, Truth.DOWN)]
    for (begins, what), (ends, _) in pairwise(truth):
        if what is not Truth.DOWN:
            colour = RUNNING if what is Truth.RUNNING else IMPAIRED
            axes.plot([begins, ends], [place + 0.38] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")


def _lanes(spans: Sequence[Any]) -> list[int]:
    """For each span the first lane that is free when it begins."""
    free: list[float] = []
    lanes = []
    for span in spans:
        lane = next((at for at, until in enumerate(free) if until <= span.begins), len(free))
        if lane == len(free):
            free.append(0.0)
        free[lane] = span.ends
        lanes.append(lane)
    return lanes


def _draw_deeds(axes: Any, timeline: Timeline, spans: Sequence[Any], lanes: Sequence[int]) -> None:
    end = timeline.now
    for span, lane in zip(spans, lanes, strict=True):
        axes.barh(lane, span.ends - span.begins, left=span.begins, height=0.72, color=CUT, alpha=0.85)
        inside = (span.ends - span.begins) / end > 0.01 * len(span.label)
        at = (span.begins + span.ends) / 2 if inside else span.ends + end * 0.004
        axes.text(
            at,
            lane,
            span.label,
            ha="center" if inside else "left",
            va="center",
            color="white" if inside else INK,
        )
    lane = max(lanes, default=-1) + 1
    axes.set_ylim(max(0, lane - (not timeline.marks)) + 0.5, -0.5)
    free_from = 0.0
    for begins, ends, label in _gathered(timeline.marks, end):
        if ends > begins:
            axes.plot([begins, ends], [lane] * 2, color=INK, linewidth=1.2)
        axes.plot([begins], [lane], marker="v", color=INK, markersize=5)
        width = 0.0075 * end * len(label)
        rightward = ends + width < end
        at = ends + end * 0.006 if rightward else begins - end * 0.006
        if (begins if rightward else at - width) >= free_from:
            axes.text(at, lane, label, ha="left" if rightward else "right", va="center")
            free_from = at + width if rightward else begins
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _gathered(marks: Sequence[Mark], end: float) -> list[tuple[float, float, str]]:
    """(begin, end, words): marks of one kind that fall close together count as one."""
    runs: list[list[Mark]] = []
    for mark in marks:
        if runs and runs[-1][-1].label == mark.label and mark.at - runs[-1][-1].at < end * 0.02:
            runs[-1].append(mark)
        else:
            runs.append([mark])
    return [(run[0].at, run[-1].at, f"{run[0].label} {_whom(run)}".rstrip()) for run in runs]


def _whom(run: Sequence[Mark]) -> str:
    hosts = {mark.host for mark in run}
    if len(run) == 1:
        return "" if run[0].host is None else f"n{run[0].host}"
    return f"{len(hosts)} nodes" if len(hosts) == len(run) else f"{len(hosts)} nodes, {len(run)} times"


def _title(axes: Any, played: "Played") -> None:
    scenario = played.scenario
    detail = f"{played.nodes} nodes, profile {played.profile}, seed {played.seed}"
    axes.set_title(f"{scenario.name}: {scenario.about}", loc="left", fontsize=12, fontweight="bold", pad=18)
    axes.text(0, 1.0, detail, transform=axes.transAxes, va="bottom", color="#555555")


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bands = [
        Patch(color=colour, label=f"seen {word}")
        for word, colour in (("alive", ALIVE), ("suspect", SUSPECT), ("dead", DEAD), ("as left", LEFT))
    ]
    bands.append(Patch(facecolor=UNSEEN, edgecolor=FAINT, label="unknown"))
    lines = [
        Line2D([], [], color=RUNNING, linewidth=2.2, label="really running"),
        Line2D([], [], color=IMPAIRED, linewidth=2.2, label="really stopped or slow"),
    ]
    figure.legend(handles=[*bands, *lines], loc="outside lower center", ncols=7, frameon=False)
