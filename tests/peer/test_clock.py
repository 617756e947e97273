"""The clock never falls, follows the wall clock forward at once, and waits for it when it is behind."""

from hypothesis import given
from hypothesis import strategies as st

from peer.clock import Clock


class Times:
    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 50.0

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.wall, monotonic=lambda: self.monotonic)


def test_it_runs_with_the_monotonic_clock() -> None:
    times = Times()
    clock = times.clock()
    assert clock.now() == 1_000_000.0
    times.monotonic += 0.5  # the wall clock is being slewed
    assert clock.now() == 1_000_000.5


def test_after_a_suspension_it_is_where_the_wall_clock_is() -> None:
    times = Times()
    clock = times.clock()
    times.wall += 7200
    assert clock.now() == 1_007_200.0


def test_when_the_wall_clock_is_set_back_time_goes_on_slowly_until_they_agree() -> None:
    times = Times()
    clock = times.clock()
    times.wall -= 100
    readings = []
    for _ in range(400):
        times.pass_s(1)
        readings.append(clock.now())
    assert readings == sorted(set(readings))
    assert abs(readings[-1] - times.wall) <= 1.0


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e4)), max_size=30))
def test_it_never_falls_whatever_the_wall_clock_does(steps: list[tuple[float, float]]) -> None:
    times = Times()
    clock = times.clock()
    last = clock.now()
    for jump, passed in steps:
        times.wall += jump
        times.pass_s(passed)
        now = clock.now()
        assert now >= last
        assert now >= times.wall - 1.0001
        last = now
