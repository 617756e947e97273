"""Distrust grows with what is held against a node, is bounded, and passes."""

from peer.node_distrust import (
    FORGET_S,
    FRUITLESS_MAX,
    FRUITLESS_WAIT_S,
    FRUITLESS_WAIT_S_MAX,
    KNOWN_COST,
    NODES_MAX,
    NOTHING_COST,
    OFFENCE_WAIT_S,
    OFFENCE_WAIT_S_MAX,
    REFUSED_WAIT_S_MAX,
    SERVED_BYTES_MIN,
    SERVED_COPIES_MAX,
    SERVED_S,
    Distrust,
)

ALICE, BOB = b"a" * 16, b"b" * 16


def test_the_first_offence_costs_nothing_and_each_further_one_twice_as_much() -> None:
    distrust = Distrust()
    distrust.offended(0.0, ALICE)
    assert not distrust.shuns(0.0, ALICE)
    distrust.offended(0.0, ALICE)
    assert distrust.shuns(OFFENCE_WAIT_S - 0.1, ALICE)
    assert not distrust.shuns(OFFENCE_WAIT_S, ALICE)
    distrust.offended(0.0, ALICE)
    assert distrust.shuns(2 * OFFENCE_WAIT_S - 0.1, ALICE)
    assert not distrust.shuns(0.0, BOB)
    assert not distrust.shuns(0.0, None)


def test_the_wait_is_bounded_and_offences_are_forgotten() -> None:
    distrust = Distrust()
    for _ in range(100):
        distrust.offended(0.0, ALICE, REFUSED_WAIT_S_MAX)
    assert not distrust.shuns(REFUSED_WAIT_S_MAX, ALICE)
    for _ in range(100):
        distrust.offended(0.0, ALICE)
    assert distrust.shuns(OFFENCE_WAIT_S_MAX - 1, ALICE)
    assert not distrust.shuns(OFFENCE_WAIT_S_MAX, ALICE)
    distrust.offended(FORGET_S, ALICE)
    assert not distrust.shuns(FORGET_S, ALICE)  # the first again


def test_exchanges_that_bring_nothing_are_begun_more_rarely_until_one_does() -> None:
    distrust = Distrust()
    distrust.fruitful(ALICE)
    assert len(distrust) == 0
    for _ in range(FRUITLESS_MAX):
        assert not distrust.spaces(0.0, ALICE)
        distrust.fruitless(0.0, ALICE, NOTHING_COST)
    assert distrust.spaces(FRUITLESS_WAIT_S - 1, ALICE)
    assert not distrust.spaces(FRUITLESS_WAIT_S, ALICE)
    assert not distrust.shuns(0.0, ALICE)
    distrust.fruitless(0.0, ALICE, KNOWN_COST)
    assert distrust.spaces(2 * FRUITLESS_WAIT_S - 1, ALICE)
    for _ in range(100):
        distrust.fruitless(0.0, ALICE, KNOWN_COST)
    assert not distrust.spaces(FRUITLESS_WAIT_S_MAX, ALICE)
    distrust.fruitful(ALICE)
    assert not distrust.spaces(0.0, ALICE)


def test_the_nodes_remembered_are_bounded() -> None:
    distrust = Distrust()
    for number in range(NODES_MAX + 10):
        distrust.offended(float(number), number.to_bytes(16, "big"))
    assert len(distrust) == NODES_MAX


def test_who_asks_for_everything_again_and_again_is_shunned_and_who_does_so_rarely_is_not() -> None:
    distrust = Distrust()
    whole = SERVED_BYTES_MIN
    for copy in range(SERVED_COPIES_MAX + 1):
        distrust.served(float(copy), ALICE, whole, whole)
        assert not distrust.shuns(float(copy), ALICE)
    distrust.served(5.0, ALICE, whole, whole)
    assert distrust.shuns(5.0, ALICE)
    for copy in range(20):
        distrust.served(copy * SERVED_S / 2, BOB, whole, whole)
        assert not distrust.shuns(copy * SERVED_S / 2, BOB)
