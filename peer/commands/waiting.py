"""`--wait`: following how a policy spreads, on a terminal with a bar.

Everything said here goes to standard error: a bar while it lasts where that is a terminal, one line at the end
anywhere. What was published is told on standard output even when it did not spread in time, or when the user did
not want to wait for that (Ctrl-C, exit code 130): waiting ends then, what was published stays published.

Invariant: standard output is the same with and without a terminal.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from peer.commands.options import EXIT_INTERRUPTED, PERCENT, CallsPeer, F, Failure, duration
from peer.render import print_notes

if TYPE_CHECKING:
    from peer.estimate import Count

NAMED_MAX: Final = 5  # of what was published, in a line of text
UNTOLD: Final = (
    "interrupted before the peer answered: it may have been published all the same (look with: gossamer get)"
)

Row = Mapping[str, Any]
Call = Callable[[Callable[[dict[str, Any]], None] | None], list[dict[str, Any]]]


def wait_options(function: F) -> F:
    function = click.option(
        "--timeout",
        type=duration("0s", "1h"),
        default="10s",
        show_default=True,
        help="How long --wait waits.",
    )(function)
    return click.option(
        "--wait", type=PERCENT, metavar="PERCENT", help="Wait until this share of the mesh enforces it."
    )(function)


def follow(call: Call, wait: float | None, show: Callable[[Sequence[Row]], None]) -> list[dict[str, Any]]:
    """Make the call, show its rows, and with `wait` how the change spreads meanwhile. Raises Failure, also when the
    user interrupts it."""
    if wait is None:
        try:
            with CallsPeer():
                rows = call(None)
        except KeyboardInterrupt as interrupt:
            raise Failure(UNTOLD, code=EXIT_INTERRUPTED) from interrupt
        show(rows)
        return rows
    told: dict[str, Any] = {}
    try:
        with _Bar(wait) as bar, CallsPeer():

            def progress(event: dict[str, Any]) -> None:
                told.update(event)
                bar.update(event.get("enforcement") or {})

            rows = call(progress)
    except Failure:
        if told.get("published"):
            show(_with(told["published"], told))
        raise
    except KeyboardInterrupt as interrupt:
        if not told.get("published"):
            raise Failure(UNTOLD, code=EXIT_INTERRUPTED) from interrupt
        show(_with(told["published"], told))
        raise Failure(_interrupted(told), code=EXIT_INTERRUPTED) from interrupt
    show(_with(rows, told))
    if told.get("enforcement"):
        count = _count(told["enforcement"])
        print_notes([f"enforced by {count.words()} after {count.seconds:.1f} s"])
    return rows


def _with(rows: Sequence[Row], told: Mapping[str, Any]) -> list[dict[str, Any]]:
    enforcement = told.get("enforcement")
    return [dict(row) | ({"enforcement": enforcement} if enforcement else {}) for row in rows]


def _interrupted(told: Mapping[str, Any]) -> str:
    """What stands, and how far it had come."""
    there = [row for row in told["published"] if row.get("version")]
    names = [
        f"{row.get('kind')} {row.get('namespace')}/{row.get('name')} ({row.get('version')})"
        for row in there[:NAMED_MAX]
    ]
    more = len(there) - len(names)
    published = ", ".join(names) + (f" and {more} more" if more else "")
    line = f"interrupted; published all the same: {published}; "
    if not told.get("enforcement"):
        return line + "nobody was asked yet who enforces it"
    count = _count(told["enforcement"])
    missing = f"; missing: {count.missing_words()}" if count.missing else ""
    return line + f"enforced by {count.words()} so far{missing}"


def _count(document: Mapping[str, Any]) -> "Count":
    from peer.estimate import Count

    return Count(
        members=document["members"],
        asked=document["asked"],
        enforced=document["enforced"],
        missing=tuple(document["missing"]),
        seconds=document["seconds"],
    )


class _Bar:
    """A bar on standard error; nothing where that is no terminal."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._drawn: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> "_Bar":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._drawn = self._stack.enter_context(
                Progress(
                    TextColumn("enforced"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn(),
                    console=Console(stderr=True, highlight=False), transient=True,
                )
            )  # fmt: skip
            self._drawn.add_task("", total=None, words="")
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def update(self, count: Mapping[str, Any]) -> None:
        if self._drawn is None or not count:
            return
        shown = f"{count['enforced']} of {count['asked']} members, waiting for {self._wait:g} %"
        self._drawn.update(
            self._drawn.task_ids[0], total=count["asked"], completed=count["enforced"], words=shown
        )
