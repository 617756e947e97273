from hypothesis import given
from hypothesis import strategies as st

from gossip.config import lan
from gossip.rtt import ZONES_MAX, RoundTrips


def test_a_zone_never_heard_of_gets_the_full_timeout() -> None:
    assert RoundTrips(lan()).timeout_s("far") == lan().probe_timeout_s


def test_a_quick_zone_is_given_the_floor_and_no_more() -> None:
    trips = RoundTrips(lan())
    trips.measured("near", 0.001)
    assert trips.timeout_s("near") == lan().probe_timeout_s_min
    assert trips.timeout_s("far") == lan().probe_timeout_s


def test_a_zone_that_gets_slow_is_given_more_time_again() -> None:
    trips = RoundTrips(lan())
    for _ in range(20):
        trips.measured("z", 0.001)
    for _ in range(3):
        trips.measured("z", 0.25)
    assert trips.timeout_s("z") > 0.3
    for _ in range(60):
        trips.measured("z", 0.001)
    assert trips.timeout_s("z") == lan().probe_timeout_s_min


def test_the_estimator_is_that_of_rfc_6298() -> None:
    trips = RoundTrips(lan())
    trips.measured("z", 0.1)
    trips.measured("z", 0.2)
    srtt = trips.srtt_s("z")
    assert srtt is not None
    assert abs(srtt - (7 / 8 * 0.1 + 1 / 8 * 0.2)) < 1e-12
    # rttvar: 0.05, then 3/4 * 0.05 + 1/4 * 0.1 = 0.0625; 0.1125 + 4 * 0.0625 = 0.3625
    assert abs(trips.timeout_s("z") - 0.3625) < 1e-12


@given(samples=st.lists(st.floats(0, 1e6), min_size=1))
def test_whatever_is_measured_the_timeout_stays_within_its_bounds(samples: list[float]) -> None:
    trips = RoundTrips(lan())
    for sample in samples:
        trips.measured("z", sample)
    assert lan().probe_timeout_s_min <= trips.timeout_s("z") <= lan().probe_timeout_s


def test_zones_invented_by_a_member_are_bounded_and_do_not_shut_out_those_in_use() -> None:
    trips = RoundTrips(lan())
    for number in range(10 * ZONES_MAX):
        trips.measured(f"zone-{number}", 0.001)
        trips.measured("real", 0.001)
    assert trips.srtt_s("zone-0") is None
    assert trips.srtt_s("real") == 0.001
    known = [number for number in range(10 * ZONES_MAX) if trips.srtt_s(f"zone-{number}") is not None]
    assert len(known) == ZONES_MAX - 1
