"""`gossamer chaos swarm`: experiments made up from seeds, many at once.

Invariant: what failed is kept, with its journal, before the next seed's turn; a campaign that somebody ends tells what
there is.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from chaos.cli_files import nothing, write
from chaos.cli_telling import markup_safe, output_option
from peer.commands.options import EXIT_INTERRUPTED, Failure

SEEDS_MAX: Final = 1_000_000
JOBS_MAX: Final = 64


@click.command()
@click.option(
    "--seeds", default="0-199", show_default=True, metavar="N | FIRST-LAST", help="How many, or which."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, JOBS_MAX), default=1, show_default=True, help="Processes."
)
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), default="chaos-failures", show_default=True,
              help="Directory for the experiments that fail, and their journals.")  # fmt: skip
@output_option
def swarm(seeds: str, jobs: int, keep: Path, output: str) -> None:
    """Make up an experiment from each seed and run them all in the virtual world."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from chaos.campaign import Outcome, campaign

    chosen = _range(seeds)
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed = 0
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as shown:
        task = shown.add_task("experiments", total=len(chosen))

        def progress(outcome: Outcome) -> None:
            nonlocal failed
            failed += bool(outcome.broken or outcome.error)
            shown.update(
                task, advance=1, description=f"experiments, {failed} failed" if failed else "experiments"
            )
            if outcome.broken or outcome.error:
                _keep(keep, outcome.seed)

        told = campaign(chosen, jobs=jobs, progress=progress)
    if output == "json":
        click.echo(
            json.dumps(
                {
                    "experiments": len(told.outcomes),
                    "interrupted": told.interrupted,
                    "node_hours": round(told.node_hours, 3),
                    "faults": dict(told.faults.most_common()),
                    "failed": [
                        {"seed": each.seed, "broken": list(each.broken), "error": each.error}
                        for each in told.failed
                    ],
                    "sometimes": dict(told.sometimes.most_common()),
                    "never": told.never,
                },
                indent=2,
            )
        )
    else:
        _tell_campaign(Console(), told, keep)
    if told.interrupted:
        raise Failure(
            f"interrupted after {len(told.outcomes)} of {len(chosen)} experiments", code=EXIT_INTERRUPTED
        )
    if told.failed:
        sys.exit(1)


def _tell_campaign(console: Any, told: Any, keep: Path) -> None:
    console.print(
        f"[bold]{len(told.outcomes)} experiments[/bold], {told.node_hours:.1f} node-hours, "
        f"{told.faults.total()} faults; {len(told.failed)} failed"
    )
    for outcome in told.failed:
        what = ", ".join(outcome.broken) or outcome.error
        console.print(
            f"  seed {outcome.seed}: {markup_safe(what)}  ({keep}/seed-{outcome.seed}.yaml)", style="red"
        )
    for name, count in told.sometimes.most_common():
        console.print(f"{count:>9}  {name}")
    for name in told.never:
        console.print(f"{0:>9}  {name}", style="yellow")


def _keep(directory: Path, seed: int) -> None:
    """The experiment of a seed that failed, and its journal."""
    from chaos.attempt import attempt
    from chaos.drivers.sim import SimDriver
    from chaos.experiment import dump
    from chaos.swarm import draw

    experiment = draw(seed)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"{directory}: cannot be made: {error.strerror or error}") from error
    write(directory / f"seed-{seed}.yaml", dump(experiment))
    driver = SimDriver()
    journal = attempt(lambda: driver.run(experiment, nothing), experiment, driver.name)
    write(directory / f"seed-{seed}.json", journal.json())


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    try:
        chosen = range(int(first), int(last) + 1) if dash else range(int(first))
    except ValueError:
        chosen = range(0)
    if not chosen or len(chosen) > SEEDS_MAX:
        raise Failure(
            f"--seeds {text!r}: a number such as 1000, or FIRST-LAST such as 0-199, is expected", code=2
        )
    return chosen
