"""Tables: what fits a terminal, what is shown of values, and what never reaches one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.render import Column, cell, layout, safe

COLUMNS = [
    Column("NAME", "name"),
    Column("DETAIL", "detail", fold=True),
    Column("BOOT", "boot", right=True, drop=2),
    Column("ZONE", "zone", drop=1),
    Column("ID", "id", squeeze=True),
]
TABLE = [["node-1", "d" * 30, "1" * 13, "eu-1a", "i" * 26]]  # 6 + 30 + 13 + 5 + 26, and 8 between


def test_what_fits_is_left_alone():
    assert layout(TABLE, COLUMNS, 88) == {0: 6, 1: 30, 2: 13, 3: 5, 4: 26}


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (87, {0: 6, 1: 29, 2: 13, 3: 5, 4: 26}),  # the widest gives way
        (70, {0: 6, 1: 19, 2: 13, 3: 5, 4: 19}),
        (49, {0: 6, 1: 16, 3: 5, 4: 16}),  # then the one to be dropped first
        (28, {0: 6, 1: 9, 4: 9}),
        (10, {0: 6, 1: 9, 4: 9}),  # what matters is never cut
    ],
)
def test_columns_give_way_in_order(width, expected):
    found = layout(TABLE, COLUMNS, width)
    assert found.keys() == expected.keys()
    assert sum(found.values()) == sum(expected.values())
    assert max(abs(found[index] - expected[index]) for index in found) <= 1


@given(
    st.lists(st.lists(st.text("x", max_size=60), min_size=5, max_size=5), min_size=1, max_size=4),
    st.integers(10, 200),
)
def test_a_layout_fits_or_is_as_small_as_it_can_be(table, width):
    found = layout(table, COLUMNS, width)
    total = sum(found.values()) + 2 * (len(found) - 1)
    smallest = all(found[index] <= 9 for index in (1, 4)) and 2 not in found and 3 not in found
    assert total <= width or smallest


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), ("", "-"), ([], "-"), (0, "0"), (False, "no"), (True, "yes"), ([1, "b"], "1,b"),
        ({"version": "v1", "tier": "a"}, "version=v1,tier=a"), ("a\nb", "a\\x0ab"),
    ],
)  # fmt: skip
def test_cells(value, text):
    assert cell(value) == text


@given(st.text())
def test_what_is_shown_cannot_move_the_cursor_or_the_line(text):
    shown = safe(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in shown)
