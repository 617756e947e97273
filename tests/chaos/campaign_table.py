"""What a campaign came to, from the JSON of its parts: the figures in chaos/RESULTS.md.

    gossamer chaos swarm --seeds 0-499 -o json > part-0.json      (and so on, on one machine or several)
    python -m tests.chaos.campaign_table part-*.json [--save chaos/RESULTS.md]

`--save` puts the figures into a file that has their heading, in the place of what stands there. Exit code 1 if an
experiment failed, or a situation never came up.

Invariant: the figures are sums of what the parts say, and nothing else.
"""

import json
import re
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulations.sometimes import Sometimes

HEADING: Final = "### Its figures"


@dataclass(slots=True)
class Sum:
    """Of all parts."""

    experiments: int = 0
    node_hours: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)
    failed: list[Any] = field(default_factory=list)

    def add(self, part: Mapping[str, Any]) -> None:
        self.experiments += part["experiments"]
        self.node_hours += part["node_hours"]
        self.faults.update(part["faults"])
        self.sometimes.update(part["sometimes"])
        self.failed += part["failed"]

    @property
    def never(self) -> list[str]:
        return [each.value for each in Sometimes if not self.sometimes[each.value]]

    def text(self) -> str:
        """In Markdown."""
        reached = sum(1 for each in Sometimes if self.sometimes[each.value])
        said = (
            f"{self.experiments:,} experiments, {self.node_hours:,.1f} simulated node-hours, "
            f"{self.faults.total():,} faults; {len(self.failed)} failed; "
            f"{reached} of {len(Sometimes)} situations reached."
        )
        lines = [
            said,
            "",
            "| fault | times |",
            "| --- | --- |",
            *(f"| {name} | {count:,} |" for name, count in self.faults.most_common()),
            "",
            "| situation | times |",
            "| --- | --- |",
            *(f"| {name} | {count:,} |" for name, count in self.sometimes.most_common()),
            *(f"| {name} | never |" for name in self.never),
        ]
        return "\n".join(lines)


def saved(text: str, figures: str) -> str:
    """`text` with these figures under HEADING, up to the next heading. Raises ValueError when it has none."""
    made, count = re.subn(
        rf"({re.escape(HEADING)}\n\n).*?(?=\n#|\Z)", lambda m: m[1] + figures + "\n", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"no heading {HEADING!r}")
    return made


def main(arguments: Sequence[str]) -> int:
    parser = ArgumentParser(description="Add up the parts of a campaign.")
    parser.add_argument("parts", nargs="+", type=Path)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args(arguments)
    total = Sum()
    for part in given.parts:
        total.add(json.loads(part.read_text()))
    if given.save is None:
        print(total.text())
    else:
        given.save.write_text(saved(given.save.read_text(), total.text()))
    return 1 if total.failed or total.never else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
