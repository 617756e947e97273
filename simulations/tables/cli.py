"""`gossamer sim table NAME...`: measure tables, print them, keep them in RESULTS.md.

Invariant: standard output carries the tables and nothing else; what is under way is told on standard error.
"""

import json
import os
from pathlib import Path

import click
from rich.console import Console

from gossip.config import PROFILES
from peer.commands.options import numbers
from simulations.tables.table import CPU_S, PROFILES_COMPARED

ALL = "all"


def _profiles(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in PROFILES]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown) or 'none'}: one or more of {', '.join(PROFILES)}")
    return names


def _sizes(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    sizes = numbers(value, int)
    if min(sizes) < 5:
        raise click.BadParameter("a mesh that says anything has at least 5 nodes")
    return sizes


def _cuts(value: str) -> tuple[str, ...]:
    from simulations.tables.heal import SHAPES

    shapes = tuple(word.strip() for word in value.split(",") if word.strip())
    unknown = [shape for shape in shapes if shape not in SHAPES]
    if unknown:
        raise click.UsageError(f"--cuts {', '.join(unknown)}: one or more of {', '.join(SHAPES)}")
    return shapes


@click.command("table")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--profiles", default=",".join(PROFILES_COMPARED), callback=_profiles, show_default=True)
@click.option(
    "--nodes", metavar="N,N,...", callback=_sizes, help="Sizes of the meshes, for those of the table."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--runs", type=click.IntRange(min=1), help="How often each thing is done, for what the table does."
)
@click.option(
    "--large", is_flag=True, help="The rows that take minutes each too: 10,000 nodes, the whole grid."
)
@click.option(
    "--cpu-s", type=click.FloatRange(min=1), default=CPU_S, show_default=True, help="Of `healthy`, a profile."
)
@click.option("--cuts", metavar="CUT,CUT,...", default="", help="Of `heal`: only these, e.g. halves.")
@click.option("--cut-s", type=click.FloatRange(min=0), help="Of `heal`: for so many seconds.")
@click.option(
    "-o", "output", type=click.Choice(["table", "json", "markdown"]), default="table", show_default=True
)
@click.option(
    "--save", "file", type=click.Path(dir_okay=False, path_type=Path), help="Replace the sections there."
)
def table(
    names: tuple[str, ...],
    profiles: tuple[str, ...],
    nodes: tuple[int, ...],
    seed: int,
    runs: int | None,
    large: bool,
    cpu_s: float,
    cuts: str,
    cut_s: float | None,
    output: str,
    file: Path | None,
) -> None:
    """Measure tables, for each profile in one run: crash, slow, loss, healthy, spread, traffic, heal, joins, restarts,
    quarter, speed, or all of them."""
    from simulations.tables import TABLES
    from simulations.tables.layout import data, grid, markdown, provenance
    from simulations.tables.results import FrameError, save
    from simulations.tables.run import run
    from simulations.tables.table import Options, Result, Row

    if file is not None:  # before hours of work
        if not os.path.isdir(file.parent):
            raise click.BadParameter(f"{file.parent} is no directory", param_hint="--save")
        if os.path.exists(file) and not os.path.isfile(file):
            raise click.BadParameter(f"{file} is no file", param_hint="--save")
    unknown = [name for name in names if name not in TABLES and name != ALL]
    if unknown:
        raise click.UsageError(f"no such table: {', '.join(unknown)} (there are {', '.join([*TABLES, ALL])})")
    chosen = list(TABLES) if ALL in names else list(dict.fromkeys(names))
    options = Options(
        profiles=profiles,
        nodes=nodes,
        seed=seed,
        runs=runs,
        large=large,
        cpu_s=cpu_s,
        cuts=_cuts(cuts),
        cut_s=cut_s,
    )
    results: list[Result] = []
    unsaved: list[str] = []
    console = Console(width=None if Console().is_terminal else 220)

    def tell(row: Row, spent_s: float) -> None:
        keys = ("nodes", "what", "shape", "loss", "slow", "blocked_s", "cut_s", "profile")
        words = [str(row[key]) for key in keys if row.get(key) is not None]
        click.echo(f"{name}: {' '.join(words)}: {spent_s:.1f} s", err=True)

    for name in chosen:
        result = run(TABLES[name], options, tell=tell)
        results.append(result)
        if file is not None:
            try:
                save(file, name, markdown(result), list(TABLES))
            except FrameError as error:
                unsaved.append(f"{file}: {error}")
            except OSError as error:
                unsaved.append(f"{file}: {error.strerror or error}")
        if output == "table":
            console.print(grid(result))
            for line in (*result.table.notes, provenance(result)):
                console.print(line, markup=False, highlight=False)
        elif output == "markdown":
            click.echo(markdown(result))
    if output == "json":
        click.echo(json.dumps([data(result) for result in results], indent=2))
    if unsaved:  # what was measured is printed first
        raise click.ClickException("; ".join(dict.fromkeys(unsaved)))
