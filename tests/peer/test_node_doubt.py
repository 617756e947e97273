"""Doubt about one's own journal is over some time, whoever does not answer; and what others hold back of it counts."""

import math
from dataclasses import replace
from typing import Any

import pytest

from crdt.record import Record, encode_record
from crdt.writing import BEYOND
from peer.messages import CloseStream, JoinSeeds, StreamFrame, StreamOpened, Written
from peer.node import NOT_OURS
from peer.node_doubt import JOINING_S_MAX, WORD_S_MAX
from peer.session import SyncSession
from tests.peer.test_node import Address, lose, policy, three

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


# ------------------------------------------------------------------ what others hold back


def held_back(world: Any) -> tuple[Address, Address, Address, list[Record]]:
    """Three nodes; of three records of the second one the first has the first and holds back the third, and nobody has
    the second (seed 1769 of a campaign)."""
    one, two, three_ = three(world)
    world.write(two, policy("a"))
    world.run(2)
    world.cut = lambda source, target: two in (source, target)
    world.write(two, policy("b"))
    world.write(two, policy("c"))
    world.run(0.1)
    records = [answer.records[0] for answer in world.answers[two] if isinstance(answer, Written)]
    assert [record.seq for record in records] == [1, 2, 3]
    world.nodes[one].journal.merge([records[2]], int(world.now * 1000))
    return one, two, three_, records


def show(world: Any, address: Address, record: Record) -> list[Any]:
    """Somebody exchanges nothing with that node and then says that it holds this back; what the node says to that."""
    journal = world.nodes[address].journal
    session = SyncSession(journal, None, initiator=True, knows=lambda: True, other=bytes(16))
    world.feed(address, StreamOpened(stream=1000, node=b"p" * 16, inbound=True))
    for frame in session.start():
        world.feed(address, StreamFrame(stream=1000, data=frame))
    event = StreamFrame(stream=1000, data=b"h" + encode_record(record))
    out: list[Any] = world.nodes[address].step(world.now, event)
    for output in out:
        world._obey(address, output)
    return out


def test_a_number_that_somebody_holds_back_is_not_used_again(world: Any) -> None:
    one, two, three_, _ = held_back(world)
    lose(world, 2)
    world.cut = lambda _source, _target: False
    for name in ("x", "y", "z"):
        world.write(two, policy(name))
    world.join(two, three_)
    world.run(8)
    assert written(world, two) == ["", "", ""]
    seqs = [answer.records[0].seq for answer in world.answers[two] if isinstance(answer, Written)]
    assert seqs == [3 + BEYOND + 1, 3 + BEYOND + 2, 3 + BEYOND + 3]
    journals = [world.nodes[each].journal for each in (one, two, three_)]
    assert not [journal.forks for journal in journals if journal.forks]
    assert len({journal.fingerprint() for journal in journals}) == 1


def test_nor_by_a_node_that_does_not_know_that_it_lost_something(world: Any) -> None:
    """Its disk lied, so it waits for the first exchange only; being shown what it lacks it asks on."""
    one, two, three_, records = held_back(world)
    world.nodes[three_].journal.merge(records, int(world.now * 1000))  # it has what lies between
    lose(world, 2)
    world.node(2, hold_writes_s=3.0)
    world.cut = lambda _source, _target: False
    world.write(two, policy("x"))
    world.join(two, one)
    world.run(1)
    (answer,) = [answer for answer in world.answers[two] if isinstance(answer, Written)]
    assert (answer.error, answer.records[0].seq) == ("", 4)


def test_but_does_not_wait_for_ever(world: Any) -> None:
    one, two, three_, _ = held_back(world)
    world.cut = lambda source, target: three_ in (source, target)
    lose(world, 2)
    world.node(2, hold_writes_s=3.0)
    world.write(two, policy("x"))
    world.join(two, one)
    world.run(1 + WORD_S_MAX)
    (answer,) = [answer for answer in world.answers[two] if isinstance(answer, Written)]
    assert (answer.error, answer.records[0].seq) == ("", 3 + BEYOND + 1)


@pytest.mark.parametrize("forged", [False, True])
def test_only_ones_own_signature_proves_a_number_used(world: Any, forged: bool) -> None:
    one, two, _, records = held_back(world)
    node = world.nodes[two if forged else one]
    shown = replace(records[2], seq=2**40) if forged else records[2]
    out = show(world, two if forged else one, shown)
    assert CloseStream(stream=1000, reason=NOT_OURS) in out
    assert node.journal.batch(node.identity.id).head == node.journal.heads.get(node.identity.id, 0)


def test_what_is_written_after_the_first_word_waits_again_when_a_loss_comes_to_light(world: Any) -> None:
    one, two, three_, records = held_back(world)
    lose(world, 2)
    world.node(2, hold_writes_s=3.0)
    world.cut = lambda source, target: one in (source, target)
    world.join(two, three_)
    world.run(1)
    assert two in world.synced
    show(world, two, records[2])
    world.write(two, policy("x"))
    assert written(world, two) == []
    world.run(0.005)
    assert written(world, two) == [], "it asks"
    world.run(WORD_S_MAX)
    (answer,) = [answer for answer in world.answers[two] if isinstance(answer, Written)]
    assert (answer.error, answer.records[0].seq) == ("", 3 + BEYOND + 1)
