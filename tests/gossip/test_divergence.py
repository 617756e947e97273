import itertools

from gossip.config import lan
from gossip.divergence import Divergence, ListDivergence, SyncGate
from gossip.entry import Link

OURS, THEIRS = b"o" * 16, b"t" * 16
OWN, OTHER = b"o" * 8, b"t" * 8


# ---------------------------------------------------------------- the gate
def test_one_stream_per_address_within_the_spacing() -> None:
    gate = SyncGate(2.0)
    address, other = ("10.0.0.1", 1), ("10.0.0.2", 1)
    assert [gate.ask(0.0, address), gate.ask(1.9, address), gate.ask(1.9, other), gate.ask(2.0, address)] == [
        True, False, True, True,
    ]  # fmt: skip


def test_the_gate_is_bounded() -> None:
    gate = SyncGate(2.0)
    asked = [gate.ask(0.0, (f"10.{i // 65536}.{i // 256 % 256}.{i % 256}", 1)) for i in range(5000)]
    assert asked.count(True) == 4096
    assert gate.ask(2.0, ("10.200.0.1", 1))


# ---------------------------------------------------------------- journals
def divergence() -> Divergence:
    return Divergence(lan(), OURS, now=0.0)


def test_a_settled_difference_is_told_at_once_and_then_at_a_rate() -> None:
    judge, link = divergence(), Link()
    assert judge.judge(10.0, link, THEIRS, settled=True)
    assert not judge.judge(11.9, link, THEIRS, settled=True)
    assert judge.judge(12.0, link, THEIRS, settled=True)


def test_a_push_in_flight_on_either_side_is_no_difference() -> None:
    judge, link = divergence(), Link()
    assert not judge.judge(10.0, link, THEIRS, settled=False)
    judge.observe(10.0, b"n" * 16)
    assert not judge.judge(10.4, link, THEIRS, settled=True)
    assert not judge.judge(10.4, link, b"n" * 16, settled=True)
    assert judge.judge(10.5, link, THEIRS, settled=True)


def test_under_constant_writes_a_lasting_difference_still_counts() -> None:
    judge, link = divergence(), Link()
    results = []
    for tenth in range(60):
        now = 10 + tenth / 10
        judge.observe(now, tenth.to_bytes(16, "big"))
        results.append(judge.judge(now, link, THEIRS, settled=False))
    assert results.index(True) == 50
    assert results.count(True) == 1


def test_agreement_starts_the_patience_afresh() -> None:
    judge, link = divergence(), Link()
    for now in range(10, 20):
        judge.observe(now, now.to_bytes(16, "big"))
        assert not judge.judge(now, link, THEIRS, settled=False) or now >= 15
        if now % 3 == 0:
            assert not judge.judge(now, link, now.to_bytes(16, "big"), settled=True)
            assert link.differs_since is None


# ---------------------------------------------------------------- member lists
def lists() -> ListDivergence:
    return ListDivergence(lan(), OWN, now=0.0)


def look(
    judge: ListDivergence,
    now: float,
    theirs: bytes = OTHER,
    *,
    settled: bool = True,
    starts: bool = True,
    members: int = 8,
) -> bool:
    peer = repr(now).encode()  # another one each time
    return judge.judge(
        now, peer, theirs, settled=settled and judge.settled(now), starts=starts, members=members
    )


def test_lists_that_differ_are_worth_one_stream_within_the_spacing_whoever_differs() -> None:
    judge = lists()
    assert [look(judge, 10.0), look(judge, 11.9, b"x" * 8), look(judge, 12.0, b"y" * 8)] == [
        True,
        False,
        True,
    ]


def test_equal_lists_are_worth_none() -> None:
    judge = lists()
    assert not any(look(judge, float(now), OWN) for now in range(100))


def test_only_whose_turn_it_is_starts() -> None:
    judge = lists()
    assert not look(judge, 10.0, starts=False)
    assert look(judge, 10.1)


def test_news_under_way_on_either_side_is_no_difference() -> None:
    judge = lists()
    judge.observe(10.0, b"n" * 8)
    assert not look(judge, 10.4)
    assert not look(judge, 10.6, settled=False)
    assert look(judge, 10.6)


def test_who_differs_from_everybody_for_long_asks_settled_or_not_and_no_more_often_than_that() -> None:
    judge, asked = lists(), []
    for tenth in range(200):
        now = 10 + tenth / 10
        judge.observe(now, tenth.to_bytes(8, "big"))
        if look(judge, now, settled=False, starts=False):
            asked.append(tenth)
    assert asked == [50, 100, 150]


def test_in_a_large_mesh_patience_is_longer() -> None:
    judge = lists()
    asked = [now for now in range(10, 200) if look(judge, float(now), settled=False, members=10_000)]
    assert asked == [60, 110, 160]  # ten times as long at ten thousand members


def test_agreement_with_two_others_shows_that_a_node_is_not_the_odd_one_out() -> None:
    judge = lists()
    for now in range(10, 60):
        assert not look(judge, float(now), settled=False)
        if now % 4 == 0:
            assert not look(judge, float(now), OWN, settled=False)
            assert not look(judge, now + 0.1, OWN, settled=False)


def test_agreement_with_one_other_shows_it_only_where_there_is_no_more_than_one() -> None:
    for members, expected in ((2, False), (3, True)):
        judge, asked = lists(), False
        for now in range(10, 60):
            asked |= look(judge, float(now), settled=False, members=members)
            judge.judge(now, b"the same", OWN, settled=False, starts=True, members=members)
        assert asked is expected


def test_exchanges_that_one_peer_asks_for_again_and_again_count_once() -> None:
    judge = lists()
    for now in range(10, 20):
        judge.exchanged(float(now), b"evil", asked=False)
    assert judge.settled(12.0)


def exchanges(judge: ListDivergence, seconds: int) -> list[int]:
    """When a list that no exchange helps is worth a stream, asked each second."""
    times = []
    for now in range(10, 10 + seconds):
        if look(judge, float(now)):
            times.append(now)
            judge.exchanged(float(now), repr(now).encode(), asked=True)
    return times


def test_a_list_that_exchanges_do_not_help_is_left_alone_for_longer_and_longer() -> None:
    times = exchanges(lists(), 400)
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [2, 4, 8, 16, 32, *[64] * 5]


def test_a_change_or_an_agreement_ends_that() -> None:
    judge = lists()
    exchanges(judge, 60)
    assert not judge.settled(70.0)
    judge.observe(70.0, b"n" * 8)
    assert judge.settled(70.5)
    for now in (71.0, 73.0, 77.0):
        judge.exchanged(now, repr(now).encode(), asked=True)
    assert not judge.settled(80.0)
    for now in (80.0, 80.1):  # two others agree
        assert not look(judge, now, b"n" * 8)
    assert judge.settled(80.1)


def test_the_other_side_of_an_exchange_is_left_alone_too() -> None:
    judge = lists()
    judge.exchanged(10.0, b"peer", asked=False)
    assert not judge.settled(11.9)
    assert judge.settled(12.0)
