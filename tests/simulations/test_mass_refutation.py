"""Halves that meet again: everybody has been accused, everybody refutes, and all that is told at once stays bounded.

Push alone reaches n members when each is told an update ln n times and a little more (n e^-m are missed at m times):
that many, and not a multiple of it, is what each refutation may cost each member.
"""

import math
from collections import Counter

import pytest

from gossip.accusation import Verdict
from gossip.judge import Judge
from gossip.statement import Alive, Statement
from simulations.faults import Cut, Heal, Partition, happen
from simulations.tables.ground import warm
from simulations.world import World

NODES = 40


def halves(world: World, cut_s: float) -> None:
    groups = tuple(range(NODES // 2)), tuple(range(NODES // 2, NODES))
    happen(world, Partition(name="halves", kind=Cut.APART, groups=groups))
    world.run(cut_s)
    happen(world, Heal())


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, bytes]]:
    """How often each judge was told of each member's second incarnation by datagrams."""
    counts: Counter[tuple[int, bytes]] = Counter()
    hear = Judge.hear

    def noting(judge: Judge, now: float, statement: Statement, *, streamed: bool = False) -> Verdict:
        if isinstance(statement, Alive) and statement.incarnation == 1 and not streamed:
            counts[id(judge), statement.node] += 1
        return hear(judge, now, statement, streamed=streamed)

    monkeypatch.setattr(Judge, "hear", noting)
    return counts


def test_a_mass_of_refutations_is_told_about_as_often_as_it_must_be(
    heard: Counter[tuple[int, bytes]],
) -> None:
    with warm(NODES, profile="lan", seed=1) as world:
        halves(world, 30.0)
        assert world.run_until(world.converged, within_s=10.0) is not None
        world.run(5.0)
        refuted = [host for host in world.hosts if host.node and host.node.engine.statistics().refutations]
        assert len(refuted) == NODES
    told = heard.total() / NODES / (NODES - 1)
    assert math.log(NODES) < told < 2 * math.log(NODES) + 1
    assert max(heard.values()) < 8 * math.log(NODES)
