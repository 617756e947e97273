"""`gossamer chaos`: run experiments, make up many from seeds, replay, shrink and report them.

Invariant: exit code 0 if every steady state held, 1 if one did not or a run could not be done, 2 if a file or an option
is wrong, 130 if somebody ended it, when what there is so far is told. Nothing is done to any mesh before all files are
read and the driver has said that it can do all they ask.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.options import EXIT_INTERRUPTED, Failure

if TYPE_CHECKING:
    from chaos.drivers.driver import Driver
    from chaos.experiment import Experiment
    from chaos.journal import Journal

LIBRARY = Path(__file__).parent / "experiments"
DRIVERS = ("sim", "netns", "process", "toxiproxy")
SEEDS_MAX = 1_000_000
JOBS_MAX = 64

_output = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
)  # fmt: skip
_driver = click.option(
    "--driver", type=click.Choice(DRIVERS), help="Default: the first of the experiment's own."
)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group()
def chaos() -> None:
    """Experiments: do to a mesh what the world will do to it, and see whether it holds."""


# ------------------------------------------------------------------ reading


@chaos.command("list")
@_output
def list_experiments(output: str) -> None:
    """The experiments that come with Gossamer. Their names can be given instead of files."""
    found = [(path.stem, _load(str(path))) for path in sorted(LIBRARY.glob("*.yaml"))]
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
def validate(files: tuple[str, ...]) -> None:
    """Check experiments without doing anything."""
    for name in files:
        experiment = _resolved(_load(name), None, name)
        for driver in experiment.drivers:
            if driver in DRIVERS:
                _check(_driver_of(driver), experiment, name)
        click.echo(f"{name}: ok ({len(experiment.method)} faults, {experiment.topology.size} nodes)")


@chaos.command()
@click.argument("file")
@click.option("--seed", type=click.IntRange(0), help="Instead of the experiment's own.")
@_driver
def explain(file: str, seed: int | None, driver: str | None) -> None:
    """What will happen when, to whom, what is judged, and what a driver cannot do."""
    from rich.console import Console
    from rich.table import Table

    from chaos.words import timeline_lines

    experiment = _resolved(_load(file), seed, file)
    console = Console()
    console.print(f"[bold]{_safe(experiment.title)}[/bold]")
    for text in (experiment.description, experiment.expect and f"Expected: {experiment.expect}"):
        if text:
            console.print(_safe(text), style="dim")
    topology = experiment.topology
    zones = ", ".join(f"{count} in {zone}" for zone, count in topology.zones.items())
    console.print(
        f"{topology.size} nodes, profile {topology.profile}, seed {experiment.seed}"
        + (f": {zones}" if zones else "")
    )
    table = Table("from", "to", "what", "whom", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in timeline_lines(experiment):
        table.add_row(*map(_safe, row))
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
        chosen = _driver_of(name)
        for invariant in sorted(experiment.hypothesis.judged & chosen.sees, key=lambda each: each.value):
            console.print(f"  {invariant.value}")
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
    "--journal", type=_file, help="Write what happened to this file (JSON); `replay` and `report` read it."
)
@click.option("--report", type=_file, help="Write an HTML report to this file.")
@click.option("--junit", type=_file, help="Write the verdicts as JUnit XML to this file.")
@_output
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
        experiment = _resolved(_load(name), seed, name)
        chosen = _driver_of(driver or experiment.drivers[0])
        _check(chosen, experiment, name)
        wanted.append((chosen, experiment))
    if journal is not None and len(wanted) > 1:
        raise Failure("--journal takes one experiment: give one file", code=2)
    journals: list[Journal] = []
    for each, experiment in wanted:
        journals.append(_play(each, experiment))
        if journals[-1].status == "aborted":
            break
    if journal is not None:
        _write(journal, journals[0].json())
    _write_reports(journals, report, junit)
    _tell(journals, output)


def _play(driver: "Driver", experiment: "Experiment") -> "Journal":
    """One run; aborted where it breaks, or where somebody ends it."""
    from chaos.attempt import INTERRUPTED, aborted, attempt

    try:
        with _bar(experiment.title) as progress:
            return attempt(lambda: driver.run(experiment, progress), experiment, driver.name)
    except KeyboardInterrupt:
        return aborted(experiment, driver.name, INTERRUPTED)


@chaos.command()
@click.argument("file")
@_output
def replay(file: str, output: str) -> None:
    """Run what a journal, or a file that swarm kept, says; say whether the same came of it."""
    from chaos.attempt import INTERRUPTED, signs

    experiment, before = _kept(file)
    if before is not None and before.reason == INTERRUPTED:
        before = None  # it came to nothing that could be compared
    journal = _play(_driver_of(before.driver if before is not None else "sim"), experiment)
    if before is None or journal.reason == INTERRUPTED:
        _tell([journal], output)
        return
    same = signs(journal) == signs(before) and journal.digest == before.digest
    words = "exactly as before" if same else "NOT as before"
    click.echo(f"{words}: {', '.join(sorted(signs(journal))) or 'everything held'}", err=output == "json")
    _tell([journal], output, exits=False)
    if not same:
        sys.exit(1)


@chaos.command()
@click.argument("file")
@click.option(
    "--save", type=_file, help="Write the smaller experiment to this file; default: to standard output."
)
def shrink(file: str, save: Path | None) -> None:
    """The fewest faults that still make a failing experiment fail in the same way (driver sim)."""
    from chaos.attempt import attempt, signs
    from chaos.drivers.sim import BEFORE_S, SimDriver
    from chaos.experiment import dump
    from chaos.shrink import shrink as smaller

    experiment, _ = _kept(file)
    driver = SimDriver()
    _check(driver, experiment, file)
    first = attempt(lambda: driver.run(experiment, _nothing), experiment, driver.name)
    broken = signs(first)
    if not broken:
        raise Failure(f"{file}: everything holds: there is nothing to shrink")

    def fails(candidate: "Experiment") -> bool:
        run = partial(driver.run, candidate, _nothing, digest=False, brief=True)
        return bool(broken & signs(attempt(run, candidate, driver.name)))

    def say(runs: int, candidate: "Experiment") -> None:
        words = f"after {runs} runs {len(candidate.method)} faults, {candidate.topology.size} nodes"
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{words}", err=True, nl=False)

    broke_s = min((each.at_s for each in first.violations), default=None)
    small = smaller(experiment, fails, say, broke_s=None if broke_s is None else broke_s - BEFORE_S)
    if sys.stderr.isatty():
        click.echo("", err=True)
    counts = f"{len(experiment.method)} faults became {len(small.method)}; {', '.join(sorted(broken))} still broken"
    click.echo(counts, err=True)
    if save is None:
        click.echo(dump(small), nl=False)
    else:
        _write(save, dump(small))


@chaos.command()
@click.argument("journals", nargs=-1, required=True, metavar="JOURNAL...")
@click.option("--html", "html_file", type=_file, help="Where to; default: beside the first journal, .html.")
@click.option("--junit", type=_file, help="Write the verdicts as JUnit XML to this file, too.")
def report(journals: tuple[str, ...], html_file: Path | None, junit: Path | None) -> None:
    """Draw journals as one HTML file that needs nothing else."""
    from chaos.journal import JournalError, read_journal

    try:
        taken = [read_journal(Path(name)) for name in journals]
    except JournalError as error:
        raise Failure(str(error), code=2) from error
    target = html_file or Path(journals[0]).with_suffix(".html")
    _write_reports(taken, target, junit)
    click.echo(str(target))


@chaos.command()
@click.option(
    "--seeds", default="0-199", show_default=True, metavar="N | FIRST-LAST", help="How many, or which."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, JOBS_MAX), default=1, show_default=True, help="Processes."
)
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), default="chaos-failures", show_default=True,
              help="Directory for the experiments that fail, and their journals.")  # fmt: skip
@_output
def swarm(seeds: str, jobs: int, keep: Path, output: str) -> None:
    """Make up an experiment from each seed and run them all in the virtual world."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from chaos.swarm import Outcome, campaign

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
        console.print(f"  seed {outcome.seed}: {_safe(what)}  ({keep}/seed-{outcome.seed}.yaml)", style="red")
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
    _write(directory / f"seed-{seed}.yaml", dump(experiment))
    driver = SimDriver()
    journal = attempt(lambda: driver.run(experiment, _nothing), experiment, driver.name)
    _write(directory / f"seed-{seed}.json", journal.json())


# ------------------------------------------------------------------ Chaos Toolkit


@chaos.command("export")
@click.argument("file")
@click.option("-o", "--save", type=_file, help="Write to this file; default: to standard output.")
@click.option("--seed", type=click.IntRange(0), help="Instead of the experiment's own.")
@click.option("--peer", "peers", multiple=True, metavar="NODE=DATA-DIR",
              help="The data directory of a node's peer; once for each node.")  # fmt: skip
def export_toolkit(file: str, save: Path | None, seed: int | None, peers: tuple[str, ...]) -> None:
    """Write an experiment as Chaos Toolkit's JSON (`chaos run` of chaostoolkit.org runs it on peers that run here)."""
    from chaos.toolkit import export

    experiment = _resolved(_load(file), seed, file)
    directories = {}
    for each in peers:
        node, equals, directory = each.partition("=")
        if not equals or not directory or node not in experiment.topology.names:
            raise Failure(
                f"--peer {each!r}: a node of the experiment is expected, as n0=/var/lib/gossamer", code=2
            )
        directories[node] = str(Path(directory).absolute())
    text = json.dumps(export(experiment, directories), indent=2) + "\n"
    if save is None:
        click.echo(text, nl=False)
    else:
        _write(save, text)


@chaos.command("import")
@click.argument("file", type=_file)
@click.option("-o", "--save", type=_file, help="Write to this file; default: to standard output.")
def import_toolkit(file: Path, save: Path | None) -> None:
    """Read an experiment from Chaos Toolkit's JSON. What it leaves out is said on standard error."""
    from chaos.experiment import ExperimentError, dump
    from chaos.toolkit import read_toolkit
    from peer.yamlfile import YamlFileError, read_text

    try:
        experiment, left_out = read_toolkit(read_text(file), str(file))
    except YamlFileError as error:
        raise Failure(str(error), code=2) from error
    except ExperimentError as error:
        raise Failure(*error.lines, code=2) from error
    for words in left_out:
        click.echo(f"{file}: left out: {_plain(words)}", err=True)
    if save is None:
        click.echo(dump(experiment), nl=False)
    else:
        _write(save, dump(experiment))


# ------------------------------------------------------------------ parts


def _driver_of(name: str) -> "Driver":
    """The driver of that name, imported when it is asked for."""
    match name:
        case "sim":
            from chaos.drivers.sim import SimDriver

            return SimDriver()
        case "netns" | "process":
            from chaos.drivers.real import NetnsDriver, ProcessDriver

            return NetnsDriver() if name == "netns" else ProcessDriver()
        case "toxiproxy":
            from chaos.drivers.toxiproxy import ToxiproxyDriver

            return ToxiproxyDriver()
    raise Failure(f"this version has no driver {name!r}: there is {', '.join(DRIVERS)}", code=2)


def _load(name: str) -> "Experiment":
    from chaos.experiment import ExperimentError, load

    path = Path(name)
    if not path.exists() and (LIBRARY / f"{name}.yaml").is_file():
        path = LIBRARY / f"{name}.yaml"
    try:
        return load(path)
    except ExperimentError as error:
        raise Failure(*error.lines, code=2) from error


def _resolved(experiment: "Experiment", seed: int | None, name: str) -> "Experiment":
    from chaos.experiment import ExperimentError
    from chaos.plan import resolve

    if seed is not None:
        experiment = experiment.model_copy(update={"seed": seed})
    try:
        return resolve(experiment, source=name)
    except ExperimentError as error:
        raise Failure(*error.lines, code=2) from error


def _check(driver: "Driver", experiment: "Experiment", name: str) -> None:
    lacks = driver.lacks(experiment)
    if lacks:
        raise Failure(*(f"{name}: {lack.place}: driver {driver.name}: {lack.why}" for lack in lacks), code=2)


def _kept(name: str) -> tuple["Experiment", "Journal | None"]:
    """An experiment, resolved, of a journal (with that journal) or of a file."""
    from chaos.journal import JournalError, read_journal

    if not name.endswith(".json"):
        return _resolved(_load(name), None, name), None
    try:
        journal = read_journal(Path(name))
    except JournalError as error:
        raise Failure(str(error), code=2) from error
    return journal.experiment, journal


def _write_reports(journals: Sequence["Journal"], html_file: Path | None, junit_file: Path | None) -> None:
    from chaos.report import html, junit

    if html_file is not None:
        _write(html_file, html(journals))
    if junit_file is not None:
        _write(junit_file, junit(journals))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror or error}") from error


def _tell(journals: Sequence["Journal"], output: str, *, exits: bool = True) -> None:
    if output == "json":
        plain = [journal.data() for journal in journals]
        click.echo(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2))
    else:
        _print(journals)
    if not exits:
        return
    for journal in journals:
        if journal.status == "aborted":
            _abort(journal)
    if any(journal.status != "completed" for journal in journals):
        sys.exit(1)


def _abort(journal: "Journal") -> None:
    from chaos.attempt import INTERRUPTED

    if journal.reason == INTERRUPTED:
        raise Failure(
            f"interrupted in {journal.experiment.title!r}: what was done has been undone",
            code=EXIT_INTERRUPTED,
        )
    raise Failure(f"{journal.driver}: {journal.reason}")


def _print(journals: Sequence["Journal"]) -> None:
    from rich.console import Console

    console = Console()
    for journal in journals:
        good = journal.status == "completed"
        console.print(
            f"[bold]{_safe(journal.experiment.title)}[/bold]  [{'green' if good else 'red'}]{journal.status}[/]"
        )
        pace = f"{journal.lasted_s:.1f} s in {journal.took_s:.1f} s, driver {journal.driver}, seed {journal.seed}"
        console.print(pace, style="dim")
        if journal.reason:
            console.print(f"  {_safe(journal.reason)}", style="red")
        for violation in journal.violations:
            console.print(
                f"  {violation.invariant} at {violation.at_s:.3f} s: {_safe(violation.what)}", style="red"
            )
        for name, value in journal.figures.items():
            if value is not None:
                console.print(f"  {name.replace('_', ' ')} {value:g}")


def _plain(text: str) -> str:
    from peer.render import safe

    return safe(text)


def _safe(text: str) -> str:
    from rich.markup import escape

    from peer.render import safe

    return escape(safe(text))


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


def _nothing(_done: float, _total: float, _what: str) -> None:
    """Progress that nobody watches."""


@contextmanager
def _bar(title: str) -> Iterator[Callable[[float, float, str], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    errors = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as shown:
        task = shown.add_task("", total=None, title=_safe(title))

        def progress(done_s: float, total_s: float, what: str) -> None:
            shown.update(task, completed=done_s, total=total_s, description=_safe(what))

        yield progress
