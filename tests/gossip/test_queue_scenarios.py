"""The transmit-limited queue, after hashicorp/memberlist's `queue_test.go` (TestTransmitLimited_Queue, _GetBroadcasts,
_GetBroadcasts_Limit, _Prune, _ordering, TestLimitedBroadcastLess) and `broadcast_test.go` (_Invalidates).

Taken: in which order things are sent, how often, and what invalidates what. Different here: among equally often sent
ones the newest goes first whatever their lengths (one too long lets shorter ones pass), the bound holds by itself
instead of by a call to prune, and suspicions by different accusers do not invalidate each other, being evidence.
"""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.broadcast import Broadcasts, Queue
from gossip.config import lan
from gossip.message import QUEUED_ITEMS_MAX, item_bytes

MESSAGE = b"1. this is a test."


def filled(*keys: str, items_max: int = 10) -> Queue[str]:
    queue: Queue[str] = Queue(items_max)
    for key in keys:
        queue.put(key, key.encode())
    return queue


def drained(queue: Queue[str], limit: int = 1) -> list[bytes]:
    """Everything, in the order it would be sent."""
    return queue.take(1_000_000, limit)


def test_news_under_a_key_takes_the_place_of_the_old_and_counts_as_the_newest() -> None:
    queue = filled("test", "foo", "bar")
    queue.put("test", b"again")
    assert len(queue) == 3
    assert drained(queue) == [b"again", b"bar", b"foo"]


def test_news_under_a_key_starts_its_transmissions_afresh() -> None:
    queue = filled("a")
    for _ in range(2):
        assert queue.take(100, 3) == [b"a"]
    queue.put("a", b"b")
    assert [queue.take(100, 3) for _ in range(4)] == [[b"b"], [b"b"], [b"b"], []]


def test_as_many_are_taken_as_fit_with_their_framing() -> None:
    queue: Queue[int] = Queue(10)
    for key in range(4):
        queue.put(key, MESSAGE)
    room = 4 * item_bytes(MESSAGE)
    assert len(queue.take(room, 9)) == 4
    assert len(queue.take(room - 1, 9)) == 3
    assert queue.take(item_bytes(MESSAGE) - 1, 9) == []


def test_each_goes_out_as_often_as_the_limit_and_then_there_is_nothing() -> None:
    queue: Queue[int] = Queue(10)
    for key in range(4):
        queue.put(key, MESSAGE + bytes([key]))
    room = 3 * item_bytes(MESSAGE + b"\0")
    rounds = [queue.take(room, 2) for _ in range(4)]
    assert [len(taken) for taken in rounds] == [3, 3, 2, 0]
    assert set(Counter(item for taken in rounds for item in taken).values()) == {2}


def test_the_limit_grows_with_the_logarithm_of_the_mesh() -> None:
    limits = [lan().retransmits(members) for members in (1, 9, 10, 99, 100, 999, 1000)]
    assert limits == [lan().retransmit_mult * digits for digits in (1, 1, 2, 2, 3, 3, 4)]


def test_what_was_sent_more_often_goes_later_whatever_its_age() -> None:
    queue = filled("old", "middle")
    assert queue.take(item_bytes(b"middle"), 20) == [b"middle"]
    assert queue.take(item_bytes(b"old"), 20) == [b"old"]
    assert queue.take(item_bytes(b"middle"), 20) == [b"middle"]
    queue.put("new", b"new")
    assert drained(queue, limit=20) == [b"new", b"old", b"middle"]


def test_length_decides_nothing_among_those_that_fit() -> None:
    queue: Queue[str] = Queue(10)
    queue.put("long", b"x" * 12)
    queue.put("short", b"x" * 10)
    assert drained(queue) == [b"x" * 10, b"x" * 12]


def test_what_is_beyond_the_bound_goes_and_what_was_told_least_stays() -> None:
    queue = filled("test", "foo", "bar", "baz", items_max=4)
    room = item_bytes(b"bar") * 2
    assert queue.take(room, 9) == [b"baz", b"bar"]
    queue.put("n1", b"n1")
    queue.put("n2", b"n2")
    assert queue.dropped == 2
    assert sorted(drained(queue)) == [b"foo", b"n1", b"n2", b"test"]


def test_a_datagrams_worth_is_bounded_in_number_too() -> None:
    queue: Queue[int] = Queue(1000)
    for key in range(200):
        queue.put(key, b"")
    assert len(queue.take(1_000_000, 9)) == QUEUED_ITEMS_MAX


def test_a_discarded_item_is_not_sent_and_discarding_what_is_not_there_is_nothing() -> None:
    queue = filled("a", "b")
    queue.discard("a")
    queue.discard("a")
    queue.discard("never")
    assert drained(queue) == [b"b"]
    assert len(queue) == 0


def test_news_about_one_member_leaves_news_about_others_alone() -> None:
    broadcasts = Broadcasts(updates_max=10, payloads_max=10)
    broadcasts.tell(b"test", "alive", b"t1")
    broadcasts.tell(b"foo", "alive", b"f1")
    broadcasts.tell(b"test", "dead", b"t2")
    assert broadcasts.fill(1000, 9)[0] == [b"t2", b"f1"]


def test_suspicions_by_different_accusers_stand_side_by_side_until_better_news_ends_them_all() -> None:
    broadcasts = Broadcasts(updates_max=10, payloads_max=10)
    for accuser in (b"x", b"y", b"x"):
        broadcasts.tell(b"n", "suspect", b"by " + accuser, accuser=accuser)
    assert sorted(broadcasts.fill(1000, 9)[0]) == [b"by x", b"by y"]
    broadcasts.tell(b"n", "alive", b"refuted")
    assert broadcasts.fill(1000, 9)[0] == [b"refuted"]


@pytest.mark.parametrize("kinds", [("alive", "left"), ("left", "alive"), ("dead", "left"), ("left", "dead")])
def test_the_last_word_about_a_member_is_the_only_one_told(kinds: tuple[str, str]) -> None:
    broadcasts = Broadcasts(updates_max=10, payloads_max=10)
    for kind in kinds:
        broadcasts.tell(b"n", kind, kind.encode())
    assert broadcasts.fill(1000, 9)[0] == [kinds[-1].encode()]


@given(
    acts=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 12), st.integers(0, 60)),
            st.tuples(st.just("take"), st.integers(0, 120), st.integers(1, 4)),
            st.tuples(st.just("discard"), st.integers(0, 12), st.just(0)),
        ),
        max_size=60,
    )
)
def test_whatever_the_order_of_events_the_bounds_hold_and_the_least_sent_goes_first(
    acts: list[tuple[str, int, int]],
) -> None:
    queue: Queue[int] = Queue(8)
    sent: dict[bytes, int] = {}
    serial = 0
    held: dict[int, bytes] = {}
    for act, first, second in acts:
        if act == "put":
            serial += 1
            held[first] = serial.to_bytes(4, "big") + bytes(second)
            sent[held[first]] = 0
            queue.put(first, held[first])
        elif act == "discard":
            queue.discard(first)
            held.pop(first, None)
        else:
            taken = queue.take(first, second)
            assert sum(map(item_bytes, taken)) <= first
            assert len(set(taken)) == len(taken)
            counts = [sent[data] for data in taken]
            assert counts == sorted(counts)
            for data in taken:
                assert sent[data] == 0 or sent[data] < 4
                sent[data] += 1
        assert len(queue) <= 8
        assert {key for key in range(13) if key in queue} <= held.keys()
