"""A node cut off from many, for less time than a lone accuser waits: what it suspects meanwhile nobody hears."""

import pytest

from simulations.faults import Cut, Heal, Partition, happen
from simulations.tables.ground import warm

NODES = 128
WITHIN_S = 8.0  # the accusers would wait for 50 s, and then condemn


@pytest.mark.parametrize("cut_s", [1.5, 6.0])
def test_who_was_cut_off_takes_its_suspicions_back(cut_s: float) -> None:
    with warm(NODES, profile="lan", seed=2) as world:
        apart = (0,)
        happen(world, Partition(name="one", kind=Cut.APART, groups=(apart, tuple(range(1, NODES)))))
        world.run(cut_s)
        happen(world, Heal())
        world.run(1.0)  # what is on its way turns into suspicions
        assert world.run_until(world.converged, within_s=WITHIN_S) is not None
