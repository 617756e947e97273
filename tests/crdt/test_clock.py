from hypothesis import given
from hypothesis import strategies as st

from crdt.clock import HybridClock, VersionVector, hlc_at, hlc_ms

MS = st.integers(0, 2**41)
VECTORS = st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(1, 5)).map(VersionVector)


@given(st.lists(st.tuples(st.booleans(), MS, st.integers(0, 2**57)), max_size=30))
def test_stamps_rise_whatever_the_wall_clock_and_the_others_say(steps):
    clock, last = HybridClock(), 0
    for is_tick, now_ms, stamp in steps:
        if is_tick:
            given_out = clock.tick(now_ms)
            assert given_out > last
            last = given_out
        else:
            clock.observe(stamp, now_ms)
            last = max(last, stamp)


def test_a_stamp_is_close_to_wall_time_when_nobody_is_ahead():
    assert hlc_ms(HybridClock().tick(1234)) == 1234
    assert hlc_at(1234) >> 16 == 1234


def test_a_stamp_follows_causality_when_the_wall_clock_is_behind():
    ahead, behind = HybridClock(), HybridClock()
    cause = ahead.tick(5000)
    behind.observe(cause, 1000)
    assert behind.tick(1000) > cause


def test_a_full_counter_carries_into_the_milliseconds():
    clock = HybridClock(hlc_at(7) + 2**16 - 1)
    assert clock.tick(7) == hlc_at(8)


@given(VECTORS, VECTORS, VECTORS)
def test_vectors_form_a_semilattice(a, b, c):
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert a.merge(b).descends(a)
    assert a.merge(b).descends(b)
    assert hash(a.merge(b)) == hash(b.merge(a))


@given(VECTORS, VECTORS)
def test_merge_is_the_least_upper_bound(a, b):
    upper = a.merge(b)
    for writer, seq in upper.entries:
        assert seq in (a.get(writer, 0), b.get(writer, 0))


@given(VECTORS, VECTORS)
def test_descends_is_having_seen_every_write(a, b):
    assert a.descends(b) == all(a.get(writer, 0) >= seq for writer, seq in b.entries)


def test_entries_are_sorted_and_hold_the_highest_seq_of_each_writer():
    assert VersionVector([(b"b", 1), (b"a", 2), (b"b", 3), (b"b", 2)]).entries == ((b"a", 2), (b"b", 3))
