"""A result as text for a terminal, as markdown, and as plain data.

Invariant: the same figures in all three; a figure that does not exist ("it did not happen in time") is a dash, in
data a null.
"""

from typing import Any

from rich import box
from rich.table import Table as Grid

from simulations.tables.table import Column, Result, Row, Value

NONE = "–"


def shown(column: Column, value: Value) -> str:
    """One figure as it is read."""
    if value is None:
        return NONE
    if isinstance(value, float) and column.digits is not None:
        return f"{value:,.{column.digits}f}".replace(",", " ")
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def cells(result: Result, row: Row) -> list[str]:
    return [shown(column, row.get(column.key)) for column in result.table.columns]


def provenance(result: Result) -> str:
    """How the figures came about."""
    return (
        f"`{result.command}`, {result.date}, Python {result.python}, {result.cpu_s:.0f} s of processor time"
    )


def grid(result: Result) -> Grid:
    """For a terminal."""
    made = Grid(title=result.table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in result.table.columns:
        made.add_column(column.title, justify="left" if _is_words(result, column) else "right")
    for row in result.rows:
        made.add_row(*cells(result, row))
    return made


def markdown(result: Result) -> str:
    """A section, from its heading on; ends with a newline."""
    table = result.table
    titles = [column.title for column in table.columns]
    rules = [":--" if _is_words(result, column) else "--:" for column in table.columns]
    lines = [titles, rules, *(cells(result, row) for row in result.rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(titles))]
    text = [
        "| "
        + " | ".join(
            _padded(cell, width, rule) for cell, width, rule in zip(line, widths, rules, strict=True)
        )
        + " |"
        for line in lines
    ]
    notes = [f"- {note}" for note in table.notes]
    parts = [f"## {table.title}", table.about, "\n".join(text), *(["\n".join(notes)] if notes else [])]
    return "\n\n".join([*parts, provenance(result)]) + "\n"


def _padded(cell: str, width: int, rule: str) -> str:
    if cell == rule:
        return ":" + "-" * (width - 1) if rule == ":--" else "-" * (width - 1) + ":"
    return cell.ljust(width) if rule == ":--" else cell.rjust(width)


def data(result: Result) -> dict[str, Any]:
    """For programs."""
    return {
        "table": result.table.name,
        "title": result.table.title,
        "about": result.table.about,
        "notes": list(result.table.notes),
        "command": result.command,
        "seed": result.seed,
        "date": result.date,
        "python": result.python,
        "cpu_s": round(result.cpu_s, 1),
        "columns": [{"key": column.key, "title": column.title} for column in result.table.columns],
        "rows": [{column.key: row.get(column.key) for column in result.table.columns} for row in result.rows],
    }


def _is_words(result: Result, column: Column) -> bool:
    values = [row.get(column.key) for row in result.rows]
    return any(isinstance(value, str) for value in values) and column.digits is None
