"""Table `speed`: how fast the simulator runs the real node, and how much memory a node takes.

Each row is measured in a process of its own, so that memory which an earlier world gave back to the allocator counts
for none. Processor time is what is divided by: on a machine with other work to do, time on the wall says little.

Invariant: what is timed is the mesh at work; making it is told apart.
"""

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from simulations.tables.ground import SETTLE_S, warm
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table

NODE_SECONDS: Final = 60_000  # of each row
LASTS_S_MIN: Final = 5.0
LASTS_S_MAX: Final = 120.0
_STATM: Final = Path("/proc/self/statm")


def speed(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for nodes in options.sizes((100, 1000), (10_000,)):
        for profile in options.profiles:
            with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as fresh:
                yield fresh.submit(timed, nodes, profile, options.seed).result()


def timed(nodes: int, profile: str, seed: int) -> Row:
    """One row, measured in this process."""
    memory = _memory_mb()
    begun = time.process_time()
    lasts_s = min(LASTS_S_MAX, max(LASTS_S_MIN, NODE_SECONDS / nodes))
    with warm(nodes, profile=profile, seed=seed, push_pull=False) as world:
        made_s = time.process_time() - begun
        events, at, wall = world.events, time.process_time(), time.perf_counter()
        world.run(lasts_s)
        cpu_s, wall_s = time.process_time() - at, time.perf_counter() - wall
        events = world.events - events
        grown = _memory_mb() - memory
    return {
        "nodes": nodes,
        "profile": profile,
        "lasts_s": lasts_s,
        "made_s": made_s,
        "per_cpu_s": lasts_s / cpu_s,
        "per_wall_s": lasts_s / wall_s,
        "us": cpu_s / lasts_s / nodes * 1e6,
        "events": events / cpu_s,
        "node_kb": grown * 1024 / nodes,
        "memory_mb": memory + grown,
    }


def _memory_mb() -> float:
    """The resident set of this process now; where the system does not tell, the most it has been."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SPEED: Final = Table(
    name="speed",
    title="Speed of the simulator",
    about=(
        "An idle, settled mesh of the real node; virtual seconds for each second of processor, and of wall-clock, "
        "time. Memory is the resident set of the process, and what a node adds to it."
    ),
    columns=(
        NODES,
        PROFILE,
        Column(key="lasts_s", title="virtual (s)", digits=0),
        Column(key="made_s", title=f"to make and settle for {SETTLE_S:g} s (CPU s)", digits=1),
        Column(key="per_cpu_s", title="x real time, CPU", digits=1),
        Column(key="per_wall_s", title="x real time, wall", digits=1),
        Column(key="us", title="CPU µs per node-second", digits=0),
        Column(key="events", title="events/CPU s", digits=0),
        Column(key="node_kb", title="kB a node", digits=1),
        Column(key="memory_mb", title="process (MB)", digits=0),
    ),
    measure=speed,
    notes=("These figures are of the machine as much as of the code; all others are the same everywhere.",),
)
