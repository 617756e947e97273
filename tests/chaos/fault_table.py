"""All faults that can be declared, and which driver can do each: the table of chaos/README.md.

    python -m tests.chaos.fault_table [--save chaos/README.md]

A driver can do a fault if it lacks nothing of an experiment with it, in a mesh that has all a fault may need (zones,
services, signers). Of a driver's reasons the first is given where no other driver is named by it.

Invariant: the table is made of nothing but what the drivers say of themselves.
"""

import re
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from chaos.drivers.driver import Driver
from chaos.drivers.real import NetnsDriver, ProcessDriver
from chaos.drivers.sim import SimDriver
from chaos.drivers.toxiproxy import ToxiproxyDriver
from chaos.experiment import Experiment, parse
from chaos.fault import Certificates, Disk, Keeps, Lie, Poison, Shape, Signers, Tcp, Traffic
from chaos.plan import resolve

HEADING: Final = "## What each driver can do"
DRIVERS: Final[tuple[Driver, ...]] = (SimDriver(), NetnsDriver(), ProcessDriver(), ToxiproxyDriver())
DECLARED: Final = [
    *(f"fault: partition, shape: {shape.value}" for shape in Shape),
    *(f"fault: partition, traffic: {traffic.value}" for traffic in Traffic),
    "fault: loss, share: 10%, burst: 3",
    "fault: delay, delay: 1s, jitter: 1s",
    "fault: disorder, duplicate: 1%, reorder: 1%, corrupt: 1%, replay: 1%",
    "fault: bandwidth, bytes-per-second: 1000",
    *(f"fault: tcp, how: {how}" for how in get_args(Tcp.model_fields["how"].annotation)),
    "fault: slow, blocked: 1s, running: 1s",
    "fault: slow, quota: 10%",
    "fault: slow, each: 1ms",
    "fault: pause",
    *(f"fault: kill, keeps: {keeps.value}" for keeps in Keeps),
    "fault: kill, power: true",
    "fault: restart",
    "fault: leave",
    "fault: join",
    "fault: flap, every: 1s",
    "fault: swizzle",
    "fault: clock, offset: 1, drift: 0.01",
    *(f"fault: disk, how: {how}" for how in get_args(Disk.model_fields["how"].annotation)),
    "fault: descriptors, limit: 64",
    "fault: dns",
    *(f"fault: certificates, how: {how}" for how in get_args(Certificates.model_fields["how"].annotation)),
    *(f"fault: signers, how: {how}" for how in get_args(Signers.model_fields["how"].annotation)),
    *(f"fault: byzantine, lie: {lie.value}" for lie in Lie),
    "fault: version, version: 2",
    *(f"fault: poison, effect: {effect.value}" for effect in Poison),
    "fault: application, service: echo",
]
TOPOLOGIES: Final = (
    "zones: {east: 3, west: 3}, signers: 3",
    "zones: {east: 3, west: 3}, services: [{name: echo, on: [n1]}]",
)


def declared(method: str, topology: str) -> Experiment:
    """An experiment with that fault."""
    text = f"title: x\ntopology: {{{topology}}}\nmethod:\n- {{at: 1s, {method}}}\n"
    return resolve(parse(text, "f.yaml"))


def can(driver: Driver, method: str) -> bool:
    """Whether that driver can do that fault in some mesh."""
    return any(driver.lacks(declared(method, topology)) == () for topology in TOPOLOGIES)


def table() -> str:
    """In Markdown."""
    names = [driver.name for driver in DRIVERS]
    lines = [("fault", *names), tuple("---" for _ in range(len(names) + 1))]
    for method in DECLARED:
        marks = ("yes" if can(driver, method) else "–" for driver in DRIVERS)
        lines.append((f"`{method.removeprefix('fault: ')}`", *marks))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def saved(text: str) -> str:
    """`text` with that table under HEADING. Raises ValueError when it has no such heading."""
    made, count = re.subn(
        rf"({re.escape(HEADING)}\n.*?\n)(\|.*?)(?=\n\n|\Z)", lambda m: m[1] + table(), text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"no table under {HEADING!r}")
    return made.rstrip("\n") + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = ArgumentParser(description="Which driver can do what.")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args(arguments)
    if given.save is None:
        print(table())
    else:
        given.save.write_text(saved(given.save.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
