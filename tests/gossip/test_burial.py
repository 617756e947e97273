import random

import pytest

from gossip.burial import Burials


def node(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_they_are_picked_by_number_in_the_order_of_their_deaths() -> None:
    burials = Burials()
    for number in (3, 1, 2):
        burials.add(node(number), 10.0 + number)
    burials.remove(node(1))
    burials.remove(node(1))  # once is enough
    assert [burials[place] for place in range(len(burials))] == list(burials) == [node(3), node(2)]
    with pytest.raises(IndexError):
        burials[2]


def test_who_has_been_dead_for_long_is_forgotten_a_bounded_number_at_a_time() -> None:
    burials = Burials()
    for number in range(200):
        burials.add(node(number), 0.0)
    burials.add(node(200), 25.0)
    left = []
    while len(burials) > 1:
        burials.settle(30.0, 30.0)
        left.append(len(burials))
    assert left == [137, 73, 9, 1]
    burials.settle(54.9, 30.0)
    assert list(burials) == [node(200)]
    burials.settle(55.0, 30.0)
    assert len(burials) == 0


def test_whatever_comes_and_goes_the_order_is_that_of_a_list() -> None:
    rng, burials, expected = random.Random(4), Burials(), list[bytes]()
    for _ in range(2000):
        chosen = node(rng.randrange(100))
        if chosen in expected:
            burials.remove(chosen)
            expected.remove(chosen)
        else:
            burials.add(chosen, 0.0)
            expected.append(chosen)
        assert len(burials) == len(expected)
    assert [burials[place] for place in range(len(burials))] == expected
