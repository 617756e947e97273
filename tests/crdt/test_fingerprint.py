from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from crdt.fingerprint import SUM_MODULUS, Fingerprint
from crdt.record import content_digest

WRITERS = st.binary(min_size=16, max_size=16)
STATES = st.dictionaries(WRITERS, st.tuples(st.integers(0, 9), st.integers(0, SUM_MODULUS - 1)), max_size=40)


def made(states) -> Fingerprint:
    fingerprint = Fingerprint()
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


def test_nothing_held_is_zero():
    assert Fingerprint().value == bytes(16)
    assert Fingerprint().check(b"w" * 16) is None
    assert Fingerprint().ranges().fingerprint(b"", None) == bytes(8)


@given(STATES.filter(lambda states: len(states) >= 2), st.data())
def test_what_travels_does_not_add_up(states, data):
    """Sums of 16 bytes that anybody can add up, members could bring to collide by their choice of records."""
    writer = data.draw(st.sampled_from(sorted(states)))
    rest = {w: state for w, state in states.items() if w != writer}
    parts = [int.from_bytes(made(some).value, "big") for some in (rest, {writer: states[writer]})]
    assert sum(parts) % 2**128 != int.from_bytes(made(states).value, "big")


def test_what_is_added_up_is_too_long_for_a_search(crdt):
    """The content of records, and the terms of writers: see the module's docstring for what 2048 bits are worth."""
    author = crdt.Author(1).write_all((f"key{n}", b"x") for n in range(3))
    digests = [content_digest(record) for record in author.records]
    assert all(2**2000 < digest < SUM_MODULUS for digest in digests)
    assert crdt.log_of(author.records).digest == sum(digests) % SUM_MODULUS
    assert SUM_MODULUS == 2**2048


@given(STATES.filter(bool), st.data())
def test_checks_depend_on_the_key_of_the_session(states, data):
    writer = data.draw(st.sampled_from(sorted(states)))
    fingerprint = made(states)
    for tell in (
        lambda key: fingerprint.check(writer, key),
        lambda key: fingerprint.ranges().fingerprint(b"", None, key),
    ):
        assert tell(b"one") == tell(b"one") != tell(b"other")
        assert len(tell(b"one")) == 8


def test_a_picture_stays_as_it_was_and_is_the_same_until_something_changes():
    fingerprint = made({b"a" * 16: (1, 1)})
    picture = fingerprint.ranges()
    assert fingerprint.ranges() is picture
    before = picture.fingerprint(b"", None)
    fingerprint.note(b"b" * 16, 1, 1)
    assert picture.fingerprint(b"", None) == before != fingerprint.ranges().fingerprint(b"", None)


@given(STATES, st.binary(max_size=3), st.none() | st.binary(min_size=1, max_size=3))
def test_a_range_has_the_fingerprint_of_its_writers_alone(states, low, high):
    if high is not None and high <= low:
        return
    inside = {w: s for w, s in states.items() if w >= low and (high is None or w < high)}
    ranges = made(states).ranges()
    assert ranges.within(low, high) == sorted(inside)
    assert ranges.size(low, high) == len(inside)
    assert ranges.fingerprint(low, high) == made(inside).ranges().fingerprint(b"", None)


@given(STATES.filter(lambda states: len(states) >= 2), st.data())
def test_a_split_cuts_a_range_into_rising_nonempty_parts(states, data):
    parts = data.draw(st.integers(2, min(16, len(states))))
    ranges = made(states).ranges()
    bounds = [b"", *ranges.split(b"", None, parts), None]
    found = [ranges.within(low, high) for low, high in pairwise(bounds)]
    assert [writer for part in found for writer in part] == sorted(states)
    assert all(found)
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_bounds_are_the_shortest_that_separate():
    fingerprint = Fingerprint()
    for writer in (b"aab" + bytes(13), b"aad" + bytes(13), b"c" + bytes(15)):
        fingerprint.note(writer, 1, 1)
    assert fingerprint.ranges().split(b"", None, 3) == [b"aad", b"c"]
