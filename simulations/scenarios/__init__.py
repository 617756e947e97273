"""The scenarios of `gossamer sim run`: one story each, with its faults, and what is measured of it.

Invariant: a scenario needs nothing but a stage; the same scenario, seed, size and profile tell the same story.
"""

from collections.abc import Mapping
from typing import Final

from simulations.scenarios.churn import JOINS, LEAVE, QUARTER_KILLED, RESTARTS
from simulations.scenarios.degraded import LOSSY, SLOW_MEMBERS
from simulations.scenarios.failures import CRASH
from simulations.scenarios.partitions import BRIDGE, HALVES, MAJORITIES_RING, ONE_WAY
from simulations.scenarios.state import TOMBSTONES
from simulations.stage import Scenario

SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        CRASH,
        QUARTER_KILLED,
        LEAVE,
        JOINS,
        RESTARTS,
        HALVES,
        BRIDGE,
        MAJORITIES_RING,
        ONE_WAY,
        SLOW_MEMBERS,
        LOSSY,
        TOMBSTONES,
    )
}
