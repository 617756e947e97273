"""What is to happen in a world comes in the order of (time, sequence), whatever the slots (simulations/schedule.py)."""

from heapq import heappop, heappush

from hypothesis import given
from hypothesis import strategies as st

from simulations.schedule import Event, Schedule

# around the edges of slots, in one slot, far apart, and the same moment twice
TIMES = st.one_of(
    st.floats(0, 0.01), st.floats(0, 50), st.sampled_from([0.0, 0.001, 0.002, 0.0029999999999999996, 0.003])
)


def nothing(_first: object, _second: object) -> None:
    pass


def upto(schedule: Schedule, end: float) -> list[Event]:
    return list(schedule.upto(end))


@given(st.lists(st.one_of(TIMES, st.tuples(TIMES)), max_size=60))
def test_events_come_as_from_one_heap(script: list[float | tuple[float]]) -> None:
    """A number is put in, so long after the present; a tuple lets so much time pass."""
    schedule, heap, now, number = Schedule(), list[tuple[float, int]](), 0.0, 0
    for each in [*script, (100.0,)]:
        if isinstance(each, float):
            number += 1
            schedule.put(now + each, nothing, number, None)
            heappush(heap, (now + each, number))
            continue
        now += each[0]
        expected = []
        while heap and heap[0][0] <= now:
            expected.append(heappop(heap))
        assert [(at, first) for at, _, _, first, _ in upto(schedule, now)] == expected
        assert len(schedule) == len(heap)


def test_what_is_put_in_meanwhile_has_its_turn() -> None:
    schedule, seen = Schedule(), []
    schedule.put(1.0, nothing, "first", None)
    schedule.put(1.0005, nothing, "third", None)
    schedule.put(1.5, nothing, "fifth", None)
    for at, _, _, first, _ in schedule.upto(1.2):
        seen.append(first)
        if first == "first":
            schedule.put(at + 0.0001, nothing, "second", None)
            schedule.put(at + 0.1, nothing, "fourth", None)
            schedule.put(at + 0.3, nothing, "too late", None)
    assert seen == ["first", "second", "third", "fourth"]
    assert [event[3] for event in upto(schedule, 2.0)] == ["too late", "fifth"]


def test_of_one_moment_what_was_put_in_first_comes_first() -> None:
    schedule = Schedule()
    for number in range(5):
        schedule.put(3.0, nothing, number, None)
    assert [event[3] for event in upto(schedule, 3.0)] == [0, 1, 2, 3, 4]


def test_what_was_due_already_comes_next() -> None:
    schedule = Schedule()
    schedule.put(5.0, nothing, "now", None)
    assert [event[3] for event in upto(schedule, 5.0)] == ["now"]
    schedule.put(4.0, nothing, "late", None)
    schedule.put(5.1, nothing, "later", None)
    assert [event[3] for event in upto(schedule, 6.0)] == ["late", "later"]
