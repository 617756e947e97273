"""The tables of `gossamer sim table`: one question each, answered for every profile in one run.

Invariant: a figure in a table was measured in a world that ran for it, or the table says how it was worked out.
"""

from collections.abc import Mapping
from typing import Final

from simulations.tables.crash import CRASH
from simulations.tables.crowds import JOINS, QUARTER, RESTARTS
from simulations.tables.heal import HEAL
from simulations.tables.healthy import HEALTHY
from simulations.tables.loss import LOSS
from simulations.tables.slow import SLOW_GRID
from simulations.tables.speed import SPEED
from simulations.tables.spread import SPREAD
from simulations.tables.table import Table
from simulations.tables.traffic import TRAFFIC

TABLES: Final[Mapping[str, Table]] = {
    table.name: table
    for table in (
        CRASH,
        SLOW_GRID,
        LOSS,
        HEALTHY,
        SPREAD,
        TRAFFIC,
        HEAL,
        JOINS,
        RESTARTS,
        QUARTER,
        SPEED,
    )
}
