"""Windowed counters: what they count, what they drop, and their bytes. Their laws: test_laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.codec import MalformedError, pack
from crdt.counter import (
    COUNT_MAX,
    KEY_BYTES_MAX,
    KEYS_MAX,
    OTHERS,
    START_MS_MAX,
    TALLY_BYTES_MAX,
    TOTAL_MAX,
    WIDTH_MS_MAX,
    WINDOWS_MAX,
    Tally,
    decode_tally,
    encode_tally,
    totals,
)

NOW_MS = 1_700_000_000_000
SECOND = Tally(width_ms=1000)
USES = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.integers(0, 20_000)), min_size=1, max_size=20
)


def used(tally: Tally, key: str, now_ms: int, span_ms: int) -> int:
    return tally.used(now_ms, span_ms).get(key, 0)


def test_what_is_counted_twice_in_a_window_adds_up():
    tally = SECOND.add({"a": 2, "b": 1}, NOW_MS).add({"a": 3}, NOW_MS + 999)
    assert tally.cells == {("a", NOW_MS): 5, ("b", NOW_MS): 1}
    assert tally.add({"a": 1}, NOW_MS + 1000).cells[("a", NOW_MS + 1000)] == 1
    assert tally.add({"a": 0}, NOW_MS) == tally


def test_the_window_a_span_begins_in_counts_by_its_part():
    tally = SECOND.add({"a": 10}, NOW_MS).add({"a": 4}, NOW_MS + 1000)
    assert used(tally, "a", NOW_MS + 1999, 2000) == 14
    assert used(tally, "a", NOW_MS + 2250, 2000) == 4 + 8  # 750 of the first 1000 ms, rounded up
    assert used(tally, "a", NOW_MS + 2250, 1250) == 4
    assert used(tally, "a", NOW_MS + 9000, 2000) == 0
    assert used(tally, "b", NOW_MS, 2000) == 0


@given(USES, st.integers(1, 6000))
def test_a_span_counts_no_less_than_was_used_in_it_and_no_more_than_a_window_besides(uses, span_ms):
    """Of what the windows kept reach back to."""
    tally, now_ms = SECOND, 0
    for key, amount, at_ms in sorted(uses, key=lambda use: use[2]):
        tally, now_ms = tally.add({key: amount}, at_ms), at_ms
    for key in "ab":
        exactly, widely = (
            sum(amount for name, amount, at in uses if name == key and at > now_ms - reach)
            for reach in (span_ms - 1000, span_ms + 1000)
        )
        assert exactly <= used(tally, key, now_ms, span_ms) <= widely


def test_the_mesh_used_what_its_writers_used():
    one = SECOND.add({"a": 10, "b": 1}, NOW_MS)
    other = Tally(width_ms=500).add({"a": 7}, NOW_MS)  # whatever its windows are
    assert totals([one, other], NOW_MS, 1000) == {"a": 17, "b": 1}
    assert totals([], NOW_MS, 1000) == {}


def test_a_writer_whose_clock_is_ahead_is_counted_in_full():
    assert used(SECOND.add({"a": 3}, NOW_MS + 5000), "a", NOW_MS, 1000) == 3


def test_old_windows_go_and_no_late_copy_brings_them_back():
    old = SECOND.add({"a": 1}, NOW_MS)
    new = old.add({"b": 1}, NOW_MS + WINDOWS_MAX * 1000)
    assert new.keys == {"b"}
    assert new.merge(old) == old.merge(new) == new
    assert new.merge(new.delta(old)) == old.merge(new.delta(old)) == new


def test_a_silent_writer_keeps_its_floor_when_it_counts_nothing():
    tally = SECOND.add({"a": 1}, NOW_MS)
    later = tally.add({}, NOW_MS + WINDOWS_MAX * 1000)
    assert later.cells == {}
    assert later.merge(tally) == later


def test_a_clock_that_went_back_below_the_floor_loses_nothing():
    tally = SECOND.add({"a": 1}, NOW_MS + 3_600_000).add({"a": 5}, NOW_MS)
    assert sum(tally.cells.values()) == 6
    assert used(tally, "a", NOW_MS, 1000) == 6


def test_keys_beyond_the_bound_are_counted_under_others():
    tally = SECOND.add({f"key{n:03}": 1 for n in range(KEYS_MAX + 10)}, NOW_MS)
    assert len(tally.keys) == KEYS_MAX
    assert tally.cells[(OTHERS, NOW_MS)] == 11
    assert sum(tally.cells.values()) == KEYS_MAX + 10
    again = tally.add({"key000": 1, "another": 1}, NOW_MS)
    assert again.cells[("key000", NOW_MS)] == 2
    assert again.cells[(OTHERS, NOW_MS)] == 12


def test_keys_of_old_windows_make_room():
    tally = SECOND.add({f"key{n:03}": 1 for n in range(KEYS_MAX - 1)}, NOW_MS)
    later = tally.add({"another": 1}, NOW_MS + WINDOWS_MAX * 1000)
    assert later.keys == {"another"}


def test_a_merge_beyond_the_bound_lets_the_oldest_windows_go():
    old = SECOND.add({f"old{n}": 1 for n in range(KEYS_MAX - 1)}, NOW_MS)
    new = SECOND.add({"new": 1, "newer": 1}, NOW_MS + 1000)
    merged = old.merge(new)
    assert merged.keys == {"new", "newer"}
    assert merged.floor_ms == NOW_MS + 1000
    assert merged.merge(old) == merged


def test_counts_and_totals_stop_at_their_bounds():
    full = SECOND.add({"a": COUNT_MAX}, NOW_MS).add({"a": 1}, NOW_MS)
    assert full.cells == {("a", NOW_MS): COUNT_MAX}
    assert totals([full] * 40_000, NOW_MS, 1000) == {"a": TOTAL_MAX}


def test_the_largest_tally_has_room_in_its_bound():
    tally = Tally(width_ms=WIDTH_MS_MAX)
    newest = START_MS_MAX - START_MS_MAX % WIDTH_MS_MAX
    keys = {f"{n:02}".ljust(KEY_BYTES_MAX, "k"): COUNT_MAX for n in range(KEYS_MAX - 1)} | {OTHERS: 1}
    for back in reversed(range(WINDOWS_MAX)):
        tally = tally.add(keys, newest - back * WIDTH_MS_MAX)
    data = encode_tally(tally)
    assert TALLY_BYTES_MAX - 512 < len(data) <= TALLY_BYTES_MAX
    assert decode_tally(data) == tally


@given(USES)
def test_a_tally_decodes_to_itself(uses):
    tally = SECOND
    for key, amount, at_ms in uses:
        tally = tally.add({key: amount}, at_ms)
    assert decode_tally(encode_tally(tally)) == tally


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.binary(max_size=3) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.dictionaries(st.sampled_from(["", "a", "b"]), st.lists(st.integers(0, 9), max_size=6) | JSONISH)


@given(st.tuples(st.just(1) | JSONISH, st.integers(-1, 9) | JSONISH, st.integers(-1, 99) | JSONISH, ROWS))
def test_well_packed_nonsense_is_malformed_or_a_tally(fields):
    data = pack(list(fields))
    try:
        tally = decode_tally(data)
    except MalformedError:
        return
    assert encode_tally(tally) == data


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([2, 1000, 0, {}], "format 1"),
        ([True, 1000, 0, {}], "format 1"),
        ([1, 1000, 0], "format 1"),
        ([1, 0, 0, {}], "wide"),
        ([1, True, 0, {}], "wide"),
        ([1, WIDTH_MS_MAX + 1, 0, {}], "wide"),
        ([1, 1000, 500, {}], "floor"),
        ([1, 1000, -1000, {}], "floor"),
        ([1, 1, START_MS_MAX + 1, {}], "floor"),
        ([1, 1000, 0, []], "map"),
        ([1, 1000, 0, {f"{n}": [0, 1] for n in range(KEYS_MAX + 1)}], "map of at most"),
        ([1, 1000, 0, {"k" * (KEY_BYTES_MAX + 1): [0, 1]}], "key of more"),
        ([1, 1000, 0, {"a": []}], "pairs"),
        ([1, 1000, 0, {"a": [0]}], "pairs"),
        ([1, 1000, 0, {"a": [0, True]}], "pairs"),
        ([1, 1000, 0, {"a": [WINDOWS_MAX, 1]}], "rise"),
        ([1, 1000, 0, {"a": [1, 1, 0, 1]}], "rise"),
        ([1, 1000, 0, {"a": [1, 1, 1, 1]}], "rise"),
        ([1, 1000, 0, {"a": [0, 0]}], "count"),
        ([1, 1000, 0, {"a": [0, COUNT_MAX + 1]}], "count"),
        ([1, 1, START_MS_MAX, {"a": [1, 1]}], "beyond all times"),
    ],
)
def test_each_rule_of_a_tally_is_kept(fields, why):
    with pytest.raises(MalformedError, match=why):
        decode_tally(pack(fields))


def test_bytes_past_the_bound_are_malformed():
    with pytest.raises(MalformedError, match="at most"):
        decode_tally(bytes(TALLY_BYTES_MAX + 1))


def test_each_writers_newest_tally_is_what_a_journal_folds(crdt):
    """One key, many writers: the journal keeps the newest tally of each, and the sum needs no server."""
    authors, mesh = [crdt.Author(number) for number in range(3)], crdt.replica()
    for number, author in enumerate(authors):
        tally = SECOND
        for _ in range(2):
            tally = tally.add({"alice": number + 1}, NOW_MS)
            author.write("RateLimit/default/cart", encode_tally(tally), kind="quota")
        mesh.merge(reversed(author.records), crdt.NOW_MS)
    held = [decode_tally(record.payload) for record in mesh.records("quota")]
    assert totals(held, NOW_MS, 1000) == {"alice": 2 + 4 + 6}
