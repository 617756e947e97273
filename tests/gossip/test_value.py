"""Values: like frozen dataclasses in all but the guard."""

from gossip.value import value


@value
class Point:
    x: int
    y: int


@value
class Other:
    x: int
    y: int


def test_values_compare_and_hash_by_kind_and_fields() -> None:
    assert Point(x=1, y=2) == Point(x=1, y=2)
    assert Point(x=1, y=2) != Point(x=2, y=1)
    assert Point(x=1, y=2) != Other(x=1, y=2)
    assert len({Point(x=1, y=2), Point(x=1, y=2)}) == 1


def test_values_have_slots_only() -> None:
    assert not hasattr(Point(x=1, y=2), "__dict__")
