"""The table of planted faults: what each took to be found, and how small an experiment shows it.

    python -m tests.chaos.mutation_table [NAME ...] [--save FILE]

`--save` puts the table into a file that has its heading, in the place of what stands there. Exit code 1 if a fault was
not found, or not shrunk far enough.

Invariant: the table is made of nothing but what was just found.
"""

import re
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.mutations import BY_NAME, FAULTS_MAX, MUTATIONS, SEEDS_MAX, Found, Mutation, find

HEADING: Final = "## Planted faults"
COLUMNS: Final = (
    "planted",
    "what the code then does",
    "found by seed",
    "which broke",
    "faults left",
    "runs alike",
)


def row_of(mutation: Mutation, found: Found | None) -> tuple[str, ...]:
    """One line of the table."""
    if found is None:
        return (f"`{mutation.name}`", mutation.about, f"not within {SEEDS_MAX}", "", "", "")
    broken = ", ".join(sorted(found.broken))
    return (
        f"`{mutation.name}`",
        mutation.about,
        ", ".join(map(str, found.seeds)),
        broken,
        str(found.faults),
        "yes",
    )


def table_of(rows: Sequence[tuple[str, ...]]) -> str:
    """The table in Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def saved(text: str, table: str) -> str:
    """`text` with that table under HEADING. Raises ValueError when it has no such heading."""
    made, count = re.subn(
        rf"({re.escape(HEADING)}\n.*?\n)(\|.*?)(?=\n\n|\Z)", rf"\1{'{}'}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"no table under {HEADING!r}")
    return made.replace("{}", table)


def main(arguments: Sequence[str]) -> int:
    parser = ArgumentParser(description="Plant faults in the cores and let the swarm find them.")
    parser.add_argument("names", nargs="*", choices=[*BY_NAME, []], metavar="NAME")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args(arguments)
    rows, good = [], True
    for mutation in [BY_NAME[name] for name in given.names] or MUTATIONS:
        began = time.perf_counter()
        found = find(mutation)
        rows.append(row_of(mutation, found))
        good = good and found is not None and found.faults <= FAULTS_MAX
        print(" | ".join(rows[-1]), f"({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)
    table = table_of(rows)
    if given.save is None:
        print(table)
    else:
        given.save.write_text(saved(given.save.read_text(), table))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
