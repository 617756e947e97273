from hypothesis import given
from hypothesis import strategies as st

from gossip.config import lan, memberlist
from gossip.suspicion import accusers_needed, confirmations_expected, timeout_s


def test_two_nodes_expect_no_confirmation_and_wait_the_classic_floor() -> None:
    assert confirmations_expected(lan(), able=1) == 0
    assert timeout_s(lan(), members=2, able=1, accusers=1) == 4.0


def test_three_nodes_expect_one_confirmation_and_a_verdict_takes_both_accusers() -> None:
    assert confirmations_expected(lan(), able=2) == 1
    assert accusers_needed(lan(), able=2) == 2
    assert timeout_s(lan(), members=3, able=2, accusers=1) == 24.0
    assert timeout_s(lan(), members=3, able=2, accusers=2) == 1.75


def test_many_nodes_need_three_accusers_however_many_there_are() -> None:
    assert [accusers_needed(lan(), able) for able in (1, 2, 3, 4, 1000)] == [1, 2, 3, 3, 3]


def test_the_timeout_shrinks_along_the_lifeguard_curve() -> None:
    waits = [timeout_s(lan(), members=100, able=99, accusers=accusers) for accusers in (1, 2, 3)]
    assert waits[0] == 48.0
    assert 1.75 < waits[1] < 48.0
    assert waits[2] == 1.75


def test_a_node_in_bad_health_waits_longer_up_to_the_floor_of_a_lone_accuser() -> None:
    waits = [timeout_s(lan(), members=100, able=99, accusers=3, health=health) for health in range(8)]
    assert waits[:4] == [1.75, 3.5, 5.25, 7.0]
    assert set(waits[4:]) == {8.0}


def test_memberlist_never_goes_below_its_one_floor() -> None:
    assert timeout_s(memberlist(), members=100, able=99, accusers=9) == 8.0


@given(
    members=st.integers(1, 10_000),
    able=st.integers(0, 10_000),
    accusers=st.integers(1, 10),
    more=st.integers(0, 5),
)
def test_more_accusers_never_lengthen_the_wait(members: int, able: int, accusers: int, more: int) -> None:
    wait = timeout_s(lan(), members=members, able=able, accusers=accusers)
    assert 0 < timeout_s(lan(), members=members, able=able, accusers=accusers + more) <= wait <= 96.0
