"""What the commands of `gossamer chaos` say: progress, verdicts, reports.

Invariant: a title, a name or a violation is shown as text, whatever it contains.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chaos.cli_files import write
from peer.commands.options import EXIT_INTERRUPTED, Failure

if TYPE_CHECKING:
    from chaos.journal import Journal

output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
)  # fmt: skip


def write_reports(journals: Sequence["Journal"], html_file: Path | None, junit_file: Path | None) -> None:
    """Those that were asked for."""
    from chaos.report import html, junit

    if html_file is not None:
        write(html_file, html(journals))
    if junit_file is not None:
        write(junit_file, junit(journals))


def tell(journals: Sequence["Journal"], output: str, *, exits: bool = True) -> None:
    """Print journals; end the command unless all of them held."""
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
            f"[bold]{markup_safe(journal.experiment.title)}[/bold]  [{'green' if good else 'red'}]{journal.status}[/]"
        )
        pace = f"{journal.lasted_s:.1f} s in {journal.took_s:.1f} s, driver {journal.driver}, seed {journal.seed}"
        console.print(pace, style="dim")
        if journal.reason:
            console.print(f"  {markup_safe(journal.reason)}", style="red")
        for violation in journal.violations:
            console.print(
                f"  {violation.invariant} at {violation.at_s:.3f} s: {markup_safe(violation.what)}",
                style="red",
            )
        for name, value in journal.figures.items():
            if value is not None:
                console.print(f"  {name.replace('_', ' ')} {value:g}")


def plain(text: str) -> str:
    """For a terminal."""
    from peer.render import safe

    return safe(text)


def markup_safe(text: str) -> str:
    """For rich, which finds no markup in it."""
    from rich.markup import escape

    from peer.render import safe

    return escape(safe(text))


@contextmanager
def bar(title: str) -> Iterator[Callable[[float, float, str], None]]:
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
        task = shown.add_task("", total=None, title=markup_safe(title))

        def progress(done_s: float, total_s: float, what: str) -> None:
            shown.update(task, completed=done_s, total=total_s, description=markup_safe(what))

        yield progress
