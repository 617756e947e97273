"""What came of a scenario or a campaign, in words and as data.

Invariant: the words and the data say the same.
"""

from typing import Any

from rich.console import Console
from rich.table import Table

from simulations.campaign import Report
from simulations.sometimes import Sometimes
from simulations.stage import Figure, Played


def played_data(played: Played) -> dict[str, Any]:
    """For `-o json`."""
    return {
        "scenario": played.scenario.name,
        "seed": played.seed,
        "nodes": played.nodes,
        "profile": played.profile,
        "crypto": played.crypto,
        "seconds": round(played.seconds, 3),
        "events": played.events,
        "figures": [{"name": f.name, "value": f.value, "unit": f.unit} for f in played.figures],
        "differences": list(played.differences),
        "digest": played.digest,
    }


def print_played(console: Console, played: Played, took_s: float) -> None:
    console.print(f"[bold]{played.scenario.name}[/bold]  {played.scenario.about}")
    how = "real keys" if played.crypto == "real" else "modelled cryptography"
    console.print(f"{played.nodes} nodes, profile {played.profile}, seed {played.seed}, {how}", style="dim")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for figure in played.figures:
        table.add_row(figure.name, _value(figure))
    console.print(table)
    if played.differences:
        console.print("In the end not all views were right:", style="bold red")
        for difference in played.differences:
            console.print(f"  {difference}")
    else:
        console.print("In the end everybody saw exactly the nodes that lived.")
    pace = played.seconds / took_s if took_s else 0.0
    told = (
        f"{played.seconds:.1f} s told in {took_s:.1f} s ({pace:.0f} times real time), {played.events} events"
    )
    told += f", digest {played.digest}" if played.digest else ""
    console.print(told, style="dim", soft_wrap=True)


def _value(figure: Figure) -> str:
    if figure.value is None:
        return "[red]not in time[/red]"
    text = f"{figure.value:.2f}" if isinstance(figure.value, float) else f"{figure.value}"
    return f"{text} {figure.unit}".rstrip()


def campaign_data(report: Report) -> dict[str, Any]:
    """For `-o json`."""
    return {
        "stories": len(report.outcomes),
        "failed": [
            {"seed": outcome.plot.seed, "profile": outcome.profile, "broken": list(outcome.broken)}
            for outcome in report.failed
        ],
        "sometimes": {each.value: report.sometimes[each] for each in Sometimes},
        "never": [each.value for each in report.never],
    }


def print_campaign(console: Console, report: Report) -> None:
    console.print(
        f"[bold]{len(report.outcomes)} stories[/bold], {len(report.failed)} of them broke an invariant"
    )
    for outcome in report.failed:
        where = f"seed {outcome.plot.seed} ({outcome.plot.hosts} nodes, profile {outcome.profile})"
        console.print(where, style="bold red")
        for broken in outcome.broken:
            console.print(f"  {broken}")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    table.add_column(justify="right")
    table.add_column()
    for each, count in sorted(((e, report.sometimes[e]) for e in Sometimes), key=lambda pair: -pair[1]):
        table.add_row(str(count), each.value, style="" if count else "bold red")
    console.print(table)
