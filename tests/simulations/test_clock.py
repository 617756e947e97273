"""A host's clock."""

from hypothesis import given
from hypothesis import strategies as st

from simulations.clock import HostClock


def test_shows_its_offset_and_gains_its_drift() -> None:
    clock = HostClock(1000.0, offset_s=3.0, drift=0.01)
    assert clock.read(1000.0) == 1003.0
    assert clock.read(1100.0) == 1104.0


def test_jumps_when_it_is_set_forward() -> None:
    clock = HostClock(1000.0)
    clock.set(1010.0, offset_s=5.0)
    assert clock.read(1010.0) == 1015.0


def test_runs_at_half_speed_until_it_is_right_when_it_is_set_back() -> None:
    clock = HostClock(1000.0)
    clock.set(1010.0, offset_s=-4.0)
    assert clock.read(1010.0) == 1010.0
    assert clock.read(1014.0) == 1012.0
    assert clock.read(1018.0) == 1014.0  # caught up: 8 s at half speed
    assert clock.read(1020.0) == 1016.0


def test_says_when_a_reading_will_come() -> None:
    clock = HostClock(1000.0, offset_s=2.0, drift=0.25)
    assert clock.when(1012.0, 1000.0) == 1008.0


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(-10, 10), st.floats(-0.1, 0.1)), min_size=1, max_size=8)
)
def test_never_runs_backwards_however_it_is_set(changes: list[tuple[float, float, float]]) -> None:
    clock, now, shown = HostClock(0.0), 0.0, 0.0
    for after_s, offset_s, drift in changes:
        for part in (0.3, 0.7):
            now += after_s * part
            assert clock.read(now) >= shown
            shown = clock.read(now)
        clock.set(now, offset_s=offset_s, drift=drift)
