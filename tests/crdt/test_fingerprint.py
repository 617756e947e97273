from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from crdt.fingerprint import Fingerprint, Ranges

WRITERS = st.binary(min_size=16, max_size=16)
STATES = st.dictionaries(WRITERS, st.tuples(st.integers(0, 9), st.integers(0, 2**128 - 1)), max_size=40)


def made(states) -> Fingerprint:
    fingerprint = Fingerprint(b"key")
    for writer, (head, digest) in states.items():
        fingerprint.note(writer, head, digest)
    return fingerprint


@given(STATES, STATES, st.randoms())
def test_the_value_depends_on_the_states_alone(before, after, random):
    """However a state was reached, through whichever others."""
    final = {**before, **after}
    steps = list(final.items())
    random.shuffle(steps)
    assert made(dict(steps)).value == made(final).value
    slow = made(before)
    for writer, (head, digest) in after.items():
        slow.note(writer, head, digest)
    assert slow.value == made(final).value


@given(STATES.filter(bool), st.data())
def test_one_different_writer_shows(states, data):
    writer = data.draw(st.sampled_from(sorted(states)))
    head, digest = states[writer]
    assert made({**states, writer: (head + 1, digest)}).value != made(states).value
    assert made({**states, writer: (head, digest ^ 1)}).value != made(states).value
    assert made({**states, writer: (head + 1, digest)}).check(writer) != made(states).check(writer)


def test_nothing_held_is_zero_and_the_key_matters():
    assert Fingerprint(b"").value == bytes(16)
    assert Fingerprint(b"").check(b"w" * 16) is None
    one, other = Fingerprint(b"one"), Fingerprint(b"other")
    for fingerprint in (one, other):
        fingerprint.note(b"w" * 16, 1, 1)
    assert one.value != other.value


@given(STATES, st.binary(max_size=3), st.none() | st.binary(min_size=1, max_size=3))
def test_a_range_has_the_fingerprint_of_its_writers_alone(states, low, high):
    if high is not None and high <= low:
        return
    inside = {w: s for w, s in states.items() if w >= low and (high is None or w < high)}
    ranges = Ranges(made(states).terms)
    assert ranges.within(low, high) == sorted(inside)
    assert ranges.fingerprint(low, high) == made(inside).value[-8:]


@given(STATES.filter(lambda states: len(states) >= 2), st.data())
def test_a_split_cuts_a_range_into_rising_nonempty_parts(states, data):
    parts = data.draw(st.integers(2, min(16, len(states))))
    ranges = Ranges(made(states).terms)
    bounds = [b"", *ranges.split(b"", None, parts), None]
    found = [ranges.within(low, high) for low, high in pairwise(bounds)]
    assert [writer for part in found for writer in part] == sorted(states)
    assert all(found)
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_bounds_are_the_shortest_that_separate():
    fingerprint = Fingerprint(b"")
    for writer in (b"aab" + bytes(13), b"aad" + bytes(13), b"c" + bytes(15)):
        fingerprint.note(writer, 1, 1)
    assert Ranges(fingerprint.terms).split(b"", None, 3) == [b"aad", b"c"]
