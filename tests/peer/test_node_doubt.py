"""Doubt about one's own journal is over some time, whoever does not answer."""

import math
from typing import Any

import pytest

from peer.messages import JoinSeeds, Written
from peer.node_doubt import JOINING_S_MAX, WORD_S_MAX
from tests.peer.test_node import Address, policy, three

SILENT = ("10.0.0.9", 7946)  # takes connections and says nothing


@pytest.fixture
def doubting(world: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Address]:
    """One of three nodes has lost its disk; a seed that it is given lets it hang."""
    _, two, _ = three(world)
    opened = world._open
    monkeypatch.setattr(
        world, "_open", lambda at, output: None if output.address == SILENT else opened(at, output)
    )
    del world.nodes[two]
    world.disk[two] = {}
    world.answers[two].clear()
    world.synced.discard(two)
    world.node(2, hold_writes_s=math.inf)
    return world, two


def written(world: Any, address: Address) -> list[str]:
    return [answer.error for answer in world.answers[address] if isinstance(answer, Written)]


def test_a_seed_that_says_nothing_holds_writes_up_no_longer_than_that(doubting: tuple[Any, Address]) -> None:
    world, two = doubting
    world.join(two, ("10.0.0.1", 7946), SILENT)
    world.run(JOINING_S_MAX)
    assert two not in world.synced, "it might have been the one that knows"
    world.write(two, policy("one"))
    world.run(1 + WORD_S_MAX)
    assert two in world.synced
    assert written(world, two) == [""]


def test_nor_does_one_that_is_given_again_and_again(doubting: tuple[Any, Address]) -> None:
    world, two = doubting
    world.join(two, ("10.0.0.1", 7946), SILENT)
    for request in range(1, 20):
        world.feed(two, JoinSeeds(request=request, seeds=(SILENT,)))
        world.run(2)
    world.write(two, policy("one"))
    world.run(1)
    assert written(world, two) == [""]


def test_a_seed_that_refuses_costs_nothing(doubting: tuple[Any, Address]) -> None:
    world, two = doubting
    world.join(two, ("10.0.0.1", 7946), ("10.0.0.8", 7946))
    world.write(two, policy("one"))
    world.run(3)
    assert written(world, two) == [""]
