"""Reports of runs: one self-contained HTML file (no script, no address it would load from), and JUnit XML.

From top to bottom: the verdict, the first violation in words, the time-line as one drawing (bands of faults, then a
lane for each node: how many others see it alive, suspect, dead or left, and below it what it really was; then the
success ratio, where there were requests; across all of it a line at the first violation), figures,
situations reached, and the resolved experiment that runs it again.

Invariant: whatever a title, a name or a violation contains, it is text in the report and nothing else.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from chaos.experiment import dump
from chaos.journal import Happened, Journal, Lane

WIDTH: Final = 1100
LEFT: Final = 110
BAND: Final = 16
LANE: Final = 22
SHARE: Final = 36  # the height of the success ratio
COLOURS: Final = {"alive": "#3b8f5a", "suspect": "#e0a82e", "dead": "#c2433a", "left": "#7a8793"}
TRUTH: Final = {"running": "none", "impaired": "#e0a82e", "down": "#333"}
BANDS: Final = {
    "partition": "#b7c9e8", "loss": "#d9d2ec", "delay": "#d9d2ec", "disorder": "#d9d2ec", "kill": "#f0c4bf",
    "pause": "#f3e0b5", "slow": "#f3e0b5", "clock": "#cfe7e2", "disk": "#e4d5c5",
}  # fmt: skip
OTHER: Final = "#dddddd"

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1160px; color: #1d2329; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.verdict { display: inline-block; padding: .15rem .6rem; border-radius: .3rem; color: white; font-weight: 600 }
.completed { background: #3b8f5a } .failed, .aborted { background: #c2433a }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
pre { background: #f4f5f6; padding: 1rem; overflow-x: auto; font-size: 13px } svg { max-width: 100%; height: auto }
.dim { color: #66707a } .broken { border-left: 4px solid #c2433a; padding-left: .8rem; margin: .6rem 0 }
"""


def html(journals: Sequence[Journal]) -> str:
    """One page for these runs."""
    title = journals[0].experiment.title if len(journals) == 1 else f"{len(journals)} experiments"
    body = "".join("".join(_run(journal)) for journal in journals)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>{body}</html>\n"
    )


def _run(journal: Journal) -> Iterator[str]:
    experiment = journal.experiment
    yield f"<h1>{escape(experiment.title)}</h1>"
    how = f"driver {journal.driver}, seed {journal.seed}, {experiment.topology.size} nodes, "
    how += f"profile {experiment.topology.profile}, {journal.lasted_s:.1f} s"
    status = journal.status
    yield f'<p><span class="verdict {status}">{status}</span> <span class="dim">{escape(how)}</span></p>'
    for text in (
        experiment.description,
        experiment.expect and f"Expected: {experiment.expect}",
        journal.reason,
    ):
        if text:
            yield f"<p>{escape(text)}</p>"
    if journal.violations:
        yield "<h2>What did not hold</h2>"
        for violation in journal.violations:
            yield (
                f'<div class="broken"><b>{escape(violation.invariant)}</b> at {violation.at_s:.3f} s: '
                f"{escape(violation.what)}</div>"
            )
    yield f"<h2>Time-line</h2>{drawing(journal)}"
    yield "<h2>Figures</h2><table>"
    for name, value in journal.figures.items():
        shown = "–" if value is None else f"{value:g}"
        yield f'<tr><td>{escape(name.replace("_", " "))}</td><td class="n">{shown}</td></tr>'
    yield "</table>"
    if journal.sometimes:
        yield "<h2>Situations that came up</h2><table>"
        for name, count in sorted(journal.sometimes.items(), key=lambda pair: -pair[1]):
            if count:
                yield f'<tr><td class="n">{count}</td><td>{escape(name)}</td></tr>'
        yield "</table>"
    yield f"<h2>The experiment, as it was run</h2><pre>{escape(dump(experiment))}</pre>"


# ------------------------------------------------------------------ the drawing


def drawing(journal: Journal) -> str:
    """The time-line as SVG."""
    total_s = max(journal.lasted_s, 0.001)
    scale = (WIDTH - LEFT - 10) / total_s
    rows = _rows(journal.happened, total_s)
    top = 8 + BAND * (1 + max((row for row, _ in rows), default=-1))
    share = journal.series.get("success", ())
    height = top + LANE * len(journal.lanes) + (SHARE + 8 if share else 0) + 30
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" font-family="system-ui, sans-serif" font-size="11">'
    ]
    for row, each in rows:
        x, y = LEFT + each.at_s * scale, 4 + BAND * row
        ends_s = total_s if each.ends_s is None and each.kind == "partition" else each.ends_s
        width = max(3.0, ((each.at_s if ends_s is None else ends_s) - each.at_s) * scale)
        whom = f" ({', '.join(each.nodes)})" if each.nodes else ""
        label = escape(f"{each.label}{whom}")
        parts.append(
            f'<g><title>{label}, {each.at_s:.2f} s</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{BAND - 3}" fill="{BANDS.get(each.kind, OTHER)}"/>'
            f'<text x="{x + 3:.1f}" y="{y + 10}" fill="#1d2329">{escape(each.label)}</text></g>'
        )
    for number, lane in enumerate(journal.lanes):
        parts += _lane(lane, top + LANE * number, total_s, scale)
    bottom = top + LANE * len(journal.lanes)
    if share:
        parts += _share(share, bottom + 4, scale)
        bottom += SHARE + 8
    if journal.violations:
        first = min(journal.violations, key=lambda each: each.at_s)
        x = LEFT + min(first.at_s, total_s) * scale
        parts.append(
            f'<g><title>{escape(first.what)}</title><line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}" '
            f'stroke="#c2433a" stroke-width="2" stroke-dasharray="4 3"/></g>'
        )
    parts += _axis(total_s, scale, bottom)
    return "".join(parts) + "</svg>"


def _rows(happened: Sequence[Happened], total_s: float) -> list[tuple[int, Happened]]:
    """Each fault with the first row in which it, and its words, meet no other."""
    free: list[float] = []
    placed = []
    for each in sorted(happened, key=lambda one: (one.at_s, one.label)):
        ends_s = each.at_s if each.ends_s is None else each.ends_s
        needs_s = max(ends_s, each.at_s + (6 * len(each.label) + 12) * total_s / (WIDTH - LEFT))
        row = next((row for row, until in enumerate(free) if until <= each.at_s), len(free))
        free[row:] = [needs_s, *free[row + 1 :]]
        placed.append((row, each))
    return placed


def _lane(lane: Lane, y: float, total_s: float, scale: float) -> Iterator[str]:
    yield f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(lane.node)}</text>'
    ends = [*(step.at_s for step in lane.seen[1:]), total_s]
    for step, end_s in zip(lane.seen, ends, strict=True):
        counts = {"alive": step.alive, "suspect": step.suspect, "dead": step.dead, "left": step.left}
        sum_ = sum(counts.values())
        if not sum_ or end_s <= step.at_s:
            continue
        x, width, at = LEFT + step.at_s * scale, (end_s - step.at_s) * scale, y + 2
        for state, count in counts.items():
            if count:
                tall = (LANE - 8) * count / sum_
                yield _box(x, at, width, tall, COLOURS[state])
                at += tall
    ends = [*(at_s for at_s, _ in lane.truth[1:]), total_s]
    for (at_s, truth), end_s in zip(lane.truth, ends, strict=True):
        if TRUTH.get(truth, "none") != "none" and end_s > at_s:
            x, width = LEFT + at_s * scale, (end_s - at_s) * scale
            yield _box(x, y + LANE - 5, width, 3, TRUTH[truth], escape(truth))


def _share(points: Sequence[tuple[float, float]], y: float, scale: float) -> Iterator[str]:
    """The share of requests that went as they should, second by second; a line at all and one at none."""
    yield f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">success</text>'
    for level in (y, y + SHARE):
        yield f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{level}" y2="{level}" stroke="#dddddd"/>'
    line = " ".join(f"{LEFT + at_s * scale:.1f},{y + SHARE * (1 - share):.1f}" for at_s, share in points)
    yield f'<polyline points="{line}" fill="none" stroke="#1d2329" stroke-width="1.5"/>'


def _box(x: float, y: float, width: float, height: float, fill: str, title: str = "") -> str:
    inside = f"<title>{title}</title>" if title else ""
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}">{inside}</rect>'


def _axis(total_s: float, scale: float, y: float) -> Iterator[str]:
    step_s = next(
        step for step in (1, 2, 5, 10, 20, 60, 300, 600, 3600, 6 * 3600, 86_400, 1e9) if total_s / step <= 12
    )
    at_s = 0.0
    while at_s <= total_s:
        x = LEFT + at_s * scale
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}" stroke="#66707a"/>'
        yield f'<text x="{x:.1f}" y="{y + 16}" text-anchor="middle" fill="#66707a">{at_s:g} s</text>'
        at_s += step_s


# ------------------------------------------------------------------ JUnit


def junit(journals: Sequence[Journal]) -> str:
    """JUnit XML, one case for each run."""
    failed = [journal for journal in journals if journal.status == "failed"]
    aborted = [journal for journal in journals if journal.status == "aborted"]
    suite = Element(
        "testsuite",
        name="gossamer chaos",
        tests=str(len(journals)),
        failures=str(len(failed)),
        errors=str(len(aborted)),
        time=f"{sum(journal.took_s for journal in journals):.3f}",
    )
    for journal in journals:
        case = SubElement(
            suite,
            "testcase",
            classname=f"chaos.{journal.driver}",
            name=f"{journal.experiment.title} (seed {journal.seed})",
            time=f"{journal.took_s:.3f}",
        )
        if journal.status == "failed":
            lines = [f"{each.invariant} at {each.at_s:.3f} s: {each.what}" for each in journal.violations]
            SubElement(case, "failure", message=_printable(lines[0])).text = _printable("\n".join(lines))
        elif journal.status == "aborted":
            SubElement(case, "error", message=_printable(journal.reason))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suite, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "".join(
        each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text
    )
