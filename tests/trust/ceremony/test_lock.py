"""What was decided once stays decided: locks outlive crashes, and no opening passes over one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.trust.ceremony.network import Network, check_outcome, found, people
from trust.ceremony.bodies import Join, Opening
from trust.ceremony.electorate import founding
from trust.ceremony.lock import check_justified, check_lock
from trust.ceremony.statement import Closed, Frame, Kind, Said, decode_frame, state
from trust.errors import CeremonyError


def dropping(network: Network, drops: Callable[[bytes, bytes, Frame], bool]) -> None:
    def alter(source: bytes, target: bytes, data: bytes) -> bytes | None:
        return None if drops(source, target, decode_frame(data)) else data

    network.alter = alter


def is_said(frame: Frame, *kinds: Kind) -> bool:
    return isinstance(frame, Said) and frame.statement.kind in kinds


@pytest.mark.parametrize("forgets", [False, True])
def test_what_one_elector_saw_decided_the_others_decide_after_it_is_gone(forgets: bool) -> None:
    network, electorate, founders = found(5)
    first = founders[0].id

    def hidden(source: bytes, target: bytes, frame: Frame) -> bool:
        return target != first and (is_said(frame, Kind.CONFIRM) or isinstance(frame, Closed))

    dropping(network, hidden)
    assert network.run(30, lambda: bool(network.nodes[first].sealed))
    decided = network.nodes[first].sealed[0].record
    network.run(network.now + 1, lambda: False)
    network.kill(first)
    others = [node for id_, node in network.nodes.items() if id_ != first]
    assert not any(node.sealed for node in others)
    if forgets:
        for node in others:
            network._crash(node)
    # The votes of that attempt are lost for good: the others have to decide in another one.
    attempt = decided.attempt
    dropping(
        network,
        lambda source, target, frame: (
            is_said(frame, Kind.CONFIRM) and isinstance(frame, Said) and frame.statement.attempt == attempt
        ),
    )
    assert network.run(300)
    assert check_outcome(network, electorate).digest == decided.digest
    assert not any(node.convicted for node in others)


def test_the_same_value_is_decided_again_through_many_lost_attempts() -> None:
    network, electorate, _ = found(5)
    values: set[bytes] = set()

    def hidden(source: bytes, target: bytes, frame: Frame) -> bool:
        if isinstance(frame, Said) and frame.statement.kind is Kind.CONFIRM:
            values.add(frame.statement.body)
            return True
        return False

    dropping(network, hidden)
    assert not network.run(120)
    assert len(values) == 1
    dropping(network, lambda source, target, frame: False)
    assert network.run(600)
    assert {check_outcome(network, electorate).digest} == values


def test_no_share_leaves_before_all_have_echoed_the_same() -> None:
    network, _, founders = found(3)
    deaf, mute = founders[0].id, founders[1].id
    shares: list[bytes] = []

    def hidden(source: bytes, target: bytes, frame: Frame) -> bool:
        if is_said(frame, Kind.SHARE):
            shares.append(source)
        return (source, target) == (mute, deaf) and is_said(frame, Kind.ECHO)

    dropping(network, hidden)
    network.run(9)
    assert deaf not in shares
    assert mute in shares


# ---------------------------------------------------------------------- openings by hand

SIGNERS = people(3)
ELECTORATE = founding("cluster.local", [each.public_key for each in SIGNERS])
IDS = tuple(each.id for each in SIGNERS)


def opening(*joins: Join, attempt: int = 4, **changes: Any) -> Opening:
    said = [
        state(each, ELECTORATE.ceremony, attempt, Kind.JOIN, join.encode()).encode()
        for each, join in zip(SIGNERS, joins, strict=False)
    ]
    keys = tuple(each.public_key for each in SIGNERS)
    return replace(Opening(threshold=2, dealers=IDS, receivers=keys, joins=tuple(said)), **changes)


FREE = Join(able=True)
LOCKED = Join(able=True, lock=2, locked=bytes(32))


def test_an_opening_with_a_quorum_of_free_electors_is_justified() -> None:
    assert check_justified(opening(FREE, FREE, FREE), 4, ELECTORATE, ()) is None


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (opening(FREE, FREE), "takes the joins of a quorum"),
        (opening(FREE, LOCKED, FREE), "passes over its value"),
        (opening(FREE, FREE, FREE, attempt=3), "not of its attempt"),
        (opening(FREE, FREE, Join(able=False)), "did not join, or that cannot"),
        (opening(FREE, FREE, Join(able=True, lock=4, locked=bytes(32))), "still to come"),
        (opening(FREE, FREE, FREE, value=b"nonsense"), "the lock is of no epoch"),
    ],
)
def test_an_opening_that_is_not_justified_is_refused(made: Opening, reason: str) -> None:
    with pytest.raises(CeremonyError, match=reason):
        check_justified(made, 4, ELECTORATE, ())


def test_an_elector_counts_once_in_an_opening() -> None:
    made = opening(FREE, FREE, FREE)
    twice = opening(joins=(made.joins[0], made.joins[0], made.joins[1]))
    with pytest.raises(CeremonyError, match="another elector"):
        check_justified(twice, 4, ELECTORATE, ())


def test_a_lock_takes_the_prepares_of_a_quorum_for_one_value_in_one_attempt() -> None:
    network, electorate, founders = found(3)
    assert network.run(30)
    value = network.nodes[founders[0].id].sealed[0].record.value

    def prepares(*attempts: int, digest: bytes = value.digest) -> list[bytes]:
        return [
            state(each, electorate.ceremony, at, Kind.PREPARE, digest).encode()
            for each, at in zip(founders, attempts, strict=False)
        ]

    assert check_lock(value.encode(), prepares(1, 1, 1), electorate, ()).attempt == 1
    for wrong in (prepares(1, 1), prepares(1, 1, 2), prepares(1, 1, 1, digest=bytes(32)), []):
        with pytest.raises(CeremonyError):
            check_lock(value.encode(), wrong, electorate, ())
