"""`gossamer chaos`: run experiments, make up many from seeds, replay, shrink and report them.

Invariant: exit code 0 if every steady state held, 1 if one did not or a run could not be done, 2 if a file or an option
is wrong, 130 if somebody ended it, when what there is so far is told. Nothing is done to any mesh before all files are
read and the driver has said that it can do all they ask.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chaos.cli_campaign import swarm
from chaos.cli_files import (
    DRIVERS,
    LIBRARY,
    check,
    driver_of,
    file_path,
    kept,
    load,
    nothing,
    resolved,
    write,
)
from chaos.cli_telling import bar, markup_safe, output_option, tell, write_reports
from chaos.cli_toolkit import export_toolkit, import_toolkit
from peer.commands.options import EXIT_INTERRUPTED, Failure

if TYPE_CHECKING:
    from chaos.drivers.driver import Driver
    from chaos.experiment import Experiment
    from chaos.journal import Journal


_driver = click.option(
    "--driver", type=click.Choice(DRIVERS), help="Default: the first of the experiment's own."
)


@click.group()
def chaos() -> None:
    """Experiments: do to a mesh what the world will do to it, and see whether it holds."""


# ------------------------------------------------------------------ reading


@chaos.command("list")
@output_option
def list_experiments(output: str) -> None:
    """The experiments that come with Gossamer. Their names can be given instead of files."""
    found = [(path.stem, load(str(path))) for path in sorted(LIBRARY.glob("*.yaml"))]
    if output == "json":
        rows = [
            {
                "name": n,
                "title": e.title,
                "drivers": list(e.drivers),
                "nodes": e.topology.size,
                "tags": list(e.tags),
            }
            for n, e in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(name) for name, _ in found), default=0)
    for name, experiment in found:
        click.echo(f"{name:<{width}}  {experiment.title} ({', '.join(experiment.drivers)})")


@chaos.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@output_option
def validate(files: tuple[str, ...], output: str) -> None:
    """Check experiments without doing anything."""
    rows: list[dict[str, Any]] = []
    for name in files:
        experiment = resolved(load(name), None, name)
        for driver in experiment.drivers:
            if driver in DRIVERS:
                check(driver_of(driver), experiment, name)
        faults, nodes = len(experiment.method), experiment.topology.size
        rows.append({"file": name, "faults": faults, "nodes": nodes, "valid": True})
        if output != "json":
            click.echo(f"{name}: ok ({faults} faults, {nodes} nodes)")
    if output == "json":
        click.echo(json.dumps(rows, indent=2))


@chaos.command()
@click.argument("file")
@click.option("--seed", type=click.IntRange(0), help="Instead of the experiment's own.")
@_driver
def explain(file: str, seed: int | None, driver: str | None) -> None:
    """What will happen when, to whom, what is judged, and what a driver cannot do."""
    from rich.console import Console
    from rich.table import Table

    from chaos.words import timeline_lines

    experiment = resolved(load(file), seed, file)
    console = Console()
    console.print(f"[bold]{markup_safe(experiment.title)}[/bold]")
    for text in (experiment.description, experiment.expect and f"Expected: {experiment.expect}"):
        if text:
            console.print(markup_safe(text), style="dim")
    topology = experiment.topology
    zones = ", ".join(f"{count} in {zone}" for zone, count in topology.zones.items())
    console.print(
        f"{topology.size} nodes, profile {topology.profile}, seed {experiment.seed}"
        + (f": {zones}" if zones else "")
    )
    table = Table("from", "to", "what", "whom", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in timeline_lines(experiment):
        table.add_row(*map(markup_safe, row))
    console.print(table)
    console.print(f"The steady state, within {experiment.hypothesis.within:g} s of the end:")
    for name, bound in experiment.hypothesis.bounds.model_dump(by_alias=True, exclude_none=True).items():
        console.print(
            f"  {name} at most {bound:g}" if "success" not in name else f"  {name} at least {bound:.1%}"
        )
    for name in (driver,) if driver else experiment.drivers:
        if name not in DRIVERS:
            console.print(f"{name}: this version has no such driver", style="yellow")
            continue
        chosen = driver_of(name)
        for invariant in sorted(experiment.judged & chosen.sees, key=lambda each: each.value):
            console.print(f"  {invariant.value}")
        hidden = sorted(each.value for each in experiment.judged - chosen.sees)
        if hidden:
            console.print(f"{name} does not see: {', '.join(hidden)}", style="dim")
        lacks = chosen.lacks(experiment)
        console.print(f"{name}: can do all of it" if not lacks else f"{name} cannot do all of it:")
        for lack in lacks:
            console.print(f"  {lack.place}: {lack.why}", style="yellow")


# ------------------------------------------------------------------ running


@chaos.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_driver
@click.option("--seed", type=click.IntRange(0), help="Instead of the experiment's own.")
@click.option(
    "--journal",
    type=file_path,
    help="Write what happened to this file (JSON); `replay` and `report` read it.",
)
@click.option("--report", type=file_path, help="Write an HTML report to this file.")
@click.option("--junit", type=file_path, help="Write the verdicts as JUnit XML to this file.")
@output_option
def run(
    files: tuple[str, ...],
    driver: str | None,
    seed: int | None,
    journal: Path | None,
    report: Path | None,
    junit: Path | None,
    output: str,
) -> None:
    """Run experiments, by file or by the name of one that comes with Gossamer, and say whether the mesh held."""
    wanted = []
    for name in files:
        experiment = resolved(load(name), seed, name)
        chosen = driver_of(driver or experiment.drivers[0])
        check(chosen, experiment, name)
        wanted.append((chosen, experiment))
    if journal is not None and len(wanted) > 1:
        raise Failure("--journal takes one experiment: give one file", code=2)
    journals: list[Journal] = []
    for each, experiment in wanted:
        journals.append(_play(each, experiment))
        if journals[-1].status == "aborted":
            break
    if journal is not None:
        write(journal, journals[0].json())
    write_reports(journals, report, junit)
    tell(journals, output)


def _play(driver: "Driver", experiment: "Experiment") -> "Journal":
    """One run; aborted where it breaks, or where somebody ends it."""
    from chaos.attempt import INTERRUPTED, aborted, attempt

    try:
        with bar(experiment.title) as progress:
            return attempt(lambda: driver.run(experiment, progress), experiment, driver.name)
    except KeyboardInterrupt:
        return aborted(experiment, driver.name, INTERRUPTED)


@chaos.command()
@click.argument("file")
@output_option
def replay(file: str, output: str) -> None:
    """Run what a journal, or a file that swarm kept, says; say whether the same came of it."""
    from chaos.attempt import INTERRUPTED, signs

    experiment, before = kept(file)
    if before is not None and before.reason == INTERRUPTED:
        before = None  # it came to nothing that could be compared
    journal = _play(driver_of(before.driver if before is not None else "sim"), experiment)
    if before is None or journal.reason == INTERRUPTED:
        tell([journal], output)
        return
    same = signs(journal) == signs(before) and journal.digest == before.digest
    words = "exactly as before" if same else "NOT as before"
    click.echo(f"{words}: {', '.join(sorted(signs(journal))) or 'everything held'}", err=output == "json")
    tell([journal], output, exits=False)
    if not same:
        sys.exit(1)


@chaos.command()
@click.argument("file")
@click.option(
    "--save", type=file_path, help="Write the smaller experiment to this file; default: to standard output."
)
def shrink(file: str, save: Path | None) -> None:
    """The fewest faults that still make a failing experiment fail in the same way (driver sim)."""
    from chaos.attempt import attempt, signs
    from chaos.drivers.sim import BEFORE_S, SimDriver
    from chaos.experiment import dump
    from chaos.shrink import shrink as smaller

    experiment, _ = kept(file)
    driver = SimDriver()
    check(driver, experiment, file)
    first = attempt(lambda: driver.run(experiment, nothing), experiment, driver.name)
    broken = signs(first)
    if not broken:
        raise Failure(f"{file}: everything holds: there is nothing to shrink")

    def fails(candidate: "Experiment") -> bool:
        run = partial(driver.run, candidate, nothing, digest=False, brief=True)
        return bool(broken & signs(attempt(run, candidate, driver.name)))

    smallest, interrupted = experiment, False

    def say(runs: int, candidate: "Experiment") -> None:
        nonlocal smallest
        smallest = candidate
        words = f"after {runs} runs {len(candidate.method)} faults, {candidate.topology.size} nodes"
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{words}", err=True, nl=False)

    broke_s = min((each.at_s for each in first.violations), default=None)
    try:
        small = smaller(experiment, fails, say, broke_s=None if broke_s is None else broke_s - BEFORE_S)
    except KeyboardInterrupt:
        small, interrupted = smallest, True
    if sys.stderr.isatty():
        click.echo("", err=True)
    counts = f"{len(experiment.method)} faults became {len(small.method)}; {', '.join(sorted(broken))} still broken"
    click.echo(counts, err=True)
    if save is None:
        click.echo(dump(small), nl=False)
    else:
        write(save, dump(small))
    if interrupted:
        raise Failure("interrupted: this is the smallest so far", code=EXIT_INTERRUPTED)


@chaos.command()
@click.argument("journals", nargs=-1, required=True, metavar="JOURNAL...")
@click.option(
    "--html", "html_file", type=file_path, help="Where to; default: beside the first journal, .html."
)
@click.option("--junit", type=file_path, help="Write the verdicts as JUnit XML to this file, too.")
def report(journals: tuple[str, ...], html_file: Path | None, junit: Path | None) -> None:
    """Draw journals as one HTML file that needs nothing else."""
    from chaos.journal import JournalError, read_journal

    try:
        taken = [read_journal(Path(name)) for name in journals]
    except JournalError as error:
        raise Failure(str(error), code=2) from error
    target = html_file or Path(journals[0]).with_suffix(".html")
    write_reports(taken, target, junit)
    click.echo(str(target))


for command in (swarm, export_toolkit, import_toolkit):
    chaos.add_command(command)
