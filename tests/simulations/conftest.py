"""Small worlds to try things in."""

from collections.abc import Callable
from typing import Any

import pytest

from simulations.world import World

Build = Callable[..., World]


@pytest.fixture(scope="session")
def mesh_of() -> Build:
    """`mesh_of(n, **options)`: a world of n hosts that see one another; the first is everybody's seed."""

    def build(count: int, *, zones: tuple[str, ...] = ("",), settled: bool = True, **options: Any) -> World:
        world = World(**({"crypto": "model", "size": count} | options))
        for index in range(count):
            world.add(zone=zones[index % len(zones)], seeds=[0] if index else [])
        for host in world.hosts:
            world.start(host)
        if settled:
            assert world.run_until(world.converged, within_s=30) is not None
            world.run(2)
        return world

    return build
