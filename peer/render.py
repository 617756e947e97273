"""How the command line prints: tables for people, JSON and YAML for scripts.

On a terminal a table is drawn by rich, fits the width and uses colour where it means something. Anywhere else it is
plain columns with two spaces between them, nothing cut and nothing coloured, for grep and awk.

Names and details come from other peers, so control characters are shown as escapes and never sent to a terminal.

Invariant: standard output carries data only; what is said about it goes to standard error.
"""

import codecs
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click

Row = Mapping[str, Any]

_GAP: Final = 2
_SQUEEZED_MIN: Final = 9  # what is still worth showing of a column

_DIFF_STYLES: Final[Sequence[tuple[str, Mapping[str, Any]]]] = (
    ("---", {"bold": True}),
    ("+++", {"bold": True}),
    ("@@", {"fg": "cyan"}),
    ("-", {"fg": "red"}),
    ("+", {"fg": "green"}),
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, and the row's key or a function of the row.

    `squeeze`: may be cut with an ellipsis on a narrow terminal. `drop`: left out there, the highest number first.
    `fold`: continues on the next line.
    """

    title: str
    value: str | Callable[[Row], str]
    right: bool = False
    squeeze: bool = False
    fold: bool = False
    drop: int = 0
    colors: Mapping[str, str] = field(default_factory=dict)

    def text(self, row: Row) -> str:
        return cell(row.get(self.value)) if isinstance(self.value, str) else safe(self.value(row))


def print_data(data: Any, output: str, columns: Sequence[Column], *, empty: str = "nothing") -> None:
    """Print `data` as asked. As a table: a list of rows; an empty one is told on standard error."""
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    elif output == "yaml":
        click.echo(_printed_yaml(data), nl=False)
    elif not data:
        print_notes([empty])
    else:
        _print_table(data, columns)


def print_documents(documents: Sequence[Row], output: str) -> None:
    """Resources as YAML documents that `apply -f -` takes back, or as a JSON list."""
    if output == "json":
        click.echo(json.dumps(documents, indent=2))
    else:
        click.echo("---\n".join(_printed_yaml(document) for document in documents), nl=False)


def print_notes(lines: Sequence[str]) -> None:
    """Say something about the data: standard error."""
    for line in lines:
        click.echo(safe(line), err=True)


def print_lines(lines: Sequence[str]) -> None:
    """Data that is lines of text."""
    for line in lines:
        click.echo(safe(line))


def print_diff(text: str) -> None:
    """A unified diff; in colour on a terminal."""
    for line in text.splitlines():
        styles = next((styles for start, styles in _DIFF_STYLES if line.startswith(start)), {})
        click.echo(_styled(safe(line), **styles))


def unified(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, names: tuple[str, str]) -> str:
    """What changes from one document to another, line by line of their canonical YAML; "" for nothing. None: there
    is no document."""
    lines = [[] if each is None else yaml_text(each, sort_keys=True).splitlines() for each in (before, after)]
    shown = [
        name if each is not None else "/dev/null" for name, each in zip(names, (before, after), strict=True)
    ]
    return "\n".join(difflib.unified_diff(lines[0], lines[1], shown[0], shown[1], lineterm=""))


def _printed_yaml(data: Any) -> str:
    """Where standard output takes less than Unicode, YAML's own escapes, which are read back as what they stand for."""
    encoding = codecs.lookup(sys.stdout.encoding or "utf-8").name
    return yaml_text(data, allow_unicode=encoding in {"utf-8", "ascii"})  # click writes UTF-8 for ASCII


def yaml_text(data: Any, *, sort_keys: bool = False, allow_unicode: bool = True) -> str:
    import yaml

    text: str = yaml.safe_dump(
        data, sort_keys=sort_keys, allow_unicode=allow_unicode, default_flow_style=False, width=100
    )
    return text


def _styled(text: str, **styles: Any) -> str:
    """In colour where standard output is a terminal whose user wants it (https://no-color.org)."""
    colored = styles and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, **styles) if colored else text


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return safe(",".join(f"{key}={item}" for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return safe(",".join(str(item) for item in value))
    return safe(str(value))


def safe(text: str) -> str:
    """Text with control and direction-changing characters written as escapes."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def _print_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    table = [[column.text(row) for column in columns] for row in rows]
    if sys.stdout.isatty():
        _print_rich(table, columns)
    else:
        _print_plain(table, columns)


def _print_plain(table: Sequence[Sequence[str]], columns: Sequence[Column]) -> None:
    lines = [[column.title for column in columns], *table]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = (
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _print_rich(table: Sequence[Sequence[str]], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    shown = layout(table, columns, console.width)
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index, width in shown.items():
        column = columns[index]
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.fold,
            overflow="fold" if column.fold else "ellipsis",
            width=width,
        )
    for row in table:
        drawn.add_row(*(Text(row[index], columns[index].colors.get(row[index], "")) for index in shown))
    needed = sum(shown.values()) + _GAP * (len(shown) - 1)
    console.print(drawn, width=max(needed, console.width), crop=False)


def layout(table: Sequence[Sequence[str]], columns: Sequence[Column], width: int) -> dict[int, int]:
    """The columns to show on a terminal, each with its width.

    First the widest column that may be squeezed or folded gives way, down to _SQUEEZED_MIN; then droppable columns go,
    highest number first. What still does not fit runs over: nothing that matters is cut.
    """
    natural = [
        max(len(column.title), *(len(row[index]) for row in table)) for index, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    droppable = sorted(
        (index for index in shown if columns[index].drop), key=lambda index: columns[index].drop
    )
    while True:
        widths = _squeezed({index: natural[index] for index in shown}, columns, width)
        if sum(widths.values()) + _GAP * (len(widths) - 1) <= width or not droppable:
            return widths
        shown.remove(droppable.pop())


def _squeezed(widths: dict[int, int], columns: Sequence[Column], width: int) -> dict[int, int]:
    flexible = [index for index in widths if columns[index].squeeze or columns[index].fold]
    excess = sum(widths.values()) + _GAP * (len(widths) - 1) - width
    while excess > 0:
        widest = max(flexible, key=lambda index: widths[index], default=None)
        if widest is None or widths[widest] <= _SQUEEZED_MIN:
            break
        widths[widest] -= 1
        excess -= 1
    return widths
