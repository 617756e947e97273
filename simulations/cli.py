"""`gossamer sim`: play scenarios and campaigns of the virtual world from the command line.

Added to the `gossamer` command through the entry points `gossamer.commands`. What is heavy is imported when a command
runs, as in `peer/cli.py`.

Invariant: exit code 0 if what was played ended well, 1 if a view or an invariant was wrong, 2 for wrong use.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, cast

import click

from peer.commands.options import Failure
from simulations.large import large, mistakes, validate
from simulations.tables.cli import table

PROFILES = ("lan", "wan", "local", "memberlist")
NODES_MAX = 10_000

_output = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print.",
)
_profile = click.option(
    "--profile", type=click.Choice(PROFILES), default="lan", show_default=True, help="Settings of the nodes."
)


@click.group()
def sim() -> None:
    """The real node on a virtual clock and network: scenarios, campaigns, tables, pictures."""


for command in (table, large, mistakes, validate):
    sim.add_command(command)


@sim.command("list")
@_output
def list_scenarios(output: str) -> None:
    """The scenarios there are."""
    from simulations.scenarios import SCENARIOS

    if output == "json":
        rows = [{"name": s.name, "about": s.about, "nodes": s.nodes} for s in SCENARIOS.values()]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(map(len, SCENARIOS))
    for scenario in SCENARIOS.values():
        click.echo(f"{scenario.name:<{width}}  {scenario.about} ({scenario.nodes} nodes)")


@sim.command()
@click.argument("scenario")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed tells the same story.")
@click.option("--nodes", type=click.IntRange(3, NODES_MAX), help="Instead of the scenario's own number.")
@_profile
@click.option(
    "--crypto", type=click.Choice(["auto", "real", "model"]), default="auto", show_default=True,
    help="Real keys and signatures, or stand-ins that are charged for; auto: real up to 300 nodes.",
)  # fmt: skip
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), help="Write a line for each event to FILE."
)
@click.option(
    "--draw",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the time-line to FILE (.svg, .png, .pdf).",
)
@click.option("--digest", is_flag=True, help="Take a digest of all events, to compare runs by.")
@_output
def run(
    scenario: str,
    seed: int,
    nodes: int | None,
    profile: str,
    crypto: str,
    trace: Path | None,
    draw: Path | None,
    digest: bool,
    output: str,
) -> None:
    """Play SCENARIO and say what came of it."""
    from rich.console import Console

    from simulations.report import played_data, print_played
    from simulations.scenarios import SCENARIOS
    from simulations.stage import play

    chosen = SCENARIOS.get(scenario)
    if chosen is None:
        raise Failure(f"there is no scenario {scenario!r}: see gossamer sim list", code=2)
    began = time.perf_counter()
    with ExitStack() as stack:
        line = None if trace is None else _writer(stack, trace)
        played = play(
            chosen,
            seed=seed,
            nodes=nodes,
            profile=profile,
            crypto=cast(Literal["auto", "real", "model"], crypto),
            line=line,
            digest=digest,
        )
    took_s = time.perf_counter() - began
    if draw is not None:
        from simulations.drawing import DrawingError
        from simulations.drawing import draw as draw_played

        try:
            draw_played(played, draw)
        except DrawingError as error:
            raise Failure(str(error)) from error
    if output == "json":
        click.echo(json.dumps(played_data(played), indent=2))
    else:
        print_played(Console(), played, took_s)
    if played.differences:
        sys.exit(1)


@sim.command()
@click.option(
    "--seeds", default="0-199", show_default=True, metavar="FIRST-LAST", help="The stories to tell."
)
@_output
def campaign(seeds: str, output: str) -> None:
    """Tell many stories of mixed faults and hold each against the invariants."""
    from rich.console import Console
    from rich.progress import track

    from simulations.campaign import Report, tell_one
    from simulations.report import campaign_data, print_campaign

    chosen, report = _range(seeds), Report()
    errors = Console(stderr=True)
    for seed in track(chosen, "stories", console=errors, transient=True, disable=not errors.is_terminal):
        report.outcomes.append(tell_one(seed))
    if output == "json":
        click.echo(json.dumps(campaign_data(report), indent=2))
    else:
        print_campaign(Console(), report)
    if report.failed or report.never:
        sys.exit(1)


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        chosen = range(int(first), int(last or first) + 1)
    except ValueError:
        chosen = range(0)
    if not chosen:
        raise Failure(f"--seeds {text!r}: a number, or FIRST-LAST such as 0-199, is expected", code=2)
    return chosen


def _writer(stack: ExitStack, path: Path) -> Callable[[str], None]:
    try:
        file = stack.enter_context(path.open("w"))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from error
    return lambda line: print(line, file=file)
