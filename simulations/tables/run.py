"""One run of a table: its rows, and what it took.

Invariant: the clock of the machine is read to time a run and to date it, never to decide anything but how long
`healthy` may go on.
"""

import platform
import resource
import shlex
from collections.abc import Callable
from datetime import UTC, datetime

from simulations.tables.table import CPU_S, PROFILES_COMPARED, Options, Result, Row, Table


def run(table: Table, options: Options, *, tell: Callable[[Row, float], None] | None = None) -> Result:
    """Measure the table. `tell` hears of each row as it comes, and of the processor time it took."""
    begun = last = _cpu_s()
    rows: list[Row] = []
    for row in table.measure(options):
        rows.append(row)
        now = _cpu_s()
        if tell is not None:
            tell(row, now - last)
        last = now
    return Result(
        table=table,
        rows=tuple(rows),
        command=command(table, options),
        seed=options.seed,
        date=datetime.now(UTC).date().isoformat(),
        python=platform.python_version(),
        cpu_s=last - begun,
    )


def command(table: Table, options: Options) -> str:
    """The command that measures this table again."""
    words = ["gossamer sim table", table.name]
    if options.profiles != PROFILES_COMPARED:
        words.append(f"--profiles {','.join(options.profiles)}")
    if options.nodes:
        words.append(f"--nodes {','.join(map(str, options.nodes))}")
    if options.runs is not None:
        words.append(f"--runs {options.runs}")
    if options.large:
        words.append("--large")
    if options.cpu_s != CPU_S:
        words.append(f"--cpu-s {options.cpu_s:g}")
    if options.cuts:
        words.append(f"--cuts {shlex.quote(','.join(options.cuts))}")
    if options.cut_s is not None:
        words.append(f"--cut-s {options.cut_s:g}")
    return " ".join([*words, f"--seed {options.seed}"])


def _cpu_s() -> float:
    """Of this process and of those it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)
