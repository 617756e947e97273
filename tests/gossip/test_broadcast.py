import pytest

from gossip.broadcast import Broadcasts, Queue
from gossip.message import item_bytes
from tests.gossip.world import suspicion


def test_least_sent_first_then_newest() -> None:
    queue: Queue[str] = Queue(10)
    for key in "abc":
        queue.put(key, key.encode())
    one = item_bytes(b"x")
    assert queue.take(2 * one, 10) == [b"c", b"b"]
    assert queue.take(2 * one, 10) == [b"a", b"c"]
    queue.put("d", b"d")
    assert queue.take(2 * one, 10) == [b"d", b"b"]


def test_an_item_is_gone_after_its_transmissions() -> None:
    queue: Queue[str] = Queue(10)
    queue.put("a", b"a")
    assert [queue.take(100, 3) for _ in range(4)] == [[b"a"], [b"a"], [b"a"], []]


def test_what_does_not_fit_waits_and_lets_smaller_ones_pass() -> None:
    queue: Queue[str] = Queue(10)
    queue.put("small", b"s")
    queue.put("large", b"L" * 500)
    assert queue.take(100, 3) == [b"s"]
    assert queue.take(1000, 3) == [b"L" * 500, b"s"]


def test_a_full_queue_drops_what_was_told_most() -> None:
    queue: Queue[int] = Queue(3)
    for key in range(3):
        queue.put(key, bytes([key]))
    queue.take(item_bytes(b"x"), 10)  # the newest, 2, has now been told once
    queue.put(3, b"\x03")
    assert queue.dropped == 1
    assert sorted(queue.take(100, 10)) == [b"\x00", b"\x01", b"\x03"]


def test_queues_stay_bounded_under_a_flood() -> None:
    broadcasts = Broadcasts(updates_max=50, payloads_max=20)
    for number in range(1000):
        node = number.to_bytes(16, "big")
        broadcasts.tell(node, "alive", b"a" * 100)
        broadcasts.publish(node, b"p" * 100)
    assert (len(broadcasts.updates), len(broadcasts.payloads)) == (50, 20)
    assert (broadcasts.updates.dropped, broadcasts.payloads.dropped) == (950, 980)
    assert len(broadcasts._subjects) <= 2 * 50 + 17


def test_news_about_a_member_replaces_what_was_queued_about_it() -> None:
    broadcasts = Broadcasts(updates_max=50, payloads_max=20)
    broadcasts.tell(b"n", "suspect", b"s1", accuser=b"x")
    broadcasts.tell(b"n", "suspect", b"s2", accuser=b"y")
    assert len(broadcasts.updates) == 2
    broadcasts.tell(b"n", "alive", b"refuted")
    assert broadcasts.fill(1000, 9) == ([b"refuted"], [])
    broadcasts.tell(b"n", "dead", b"dead")
    assert broadcasts.fill(1000, 9) == ([b"dead"], [])
    broadcasts.forget(b"n")
    assert len(broadcasts) == 0


def test_neither_queue_starves_the_other() -> None:
    broadcasts = Broadcasts(updates_max=1000, payloads_max=1000)
    for number in range(500):
        broadcasts.tell(number.to_bytes(16, "big"), "alive", b"u" * 400)
        broadcasts.publish(number.to_bytes(16, "big"), b"p" * 1000)
    filled = [broadcasts.fill(1300, 1000) for _ in range(20)]
    assert sum(bool(updates) for updates, _ in filled) >= 10
    assert sum(bool(payloads) for _, payloads in filled) >= 10
    for updates, payloads in filled:
        assert sum(map(item_bytes, [*updates, *payloads])) <= 1300


def test_datagrams_to_the_dead_take_no_turn_of_the_records() -> None:
    broadcasts = Broadcasts(updates_max=1000, payloads_max=1000)
    for number in range(500):
        broadcasts.tell(number.to_bytes(16, "big"), "alive", b"u" * 400)
        broadcasts.publish(number.to_bytes(16, "big"), b"p" * 1000)
    filled = [broadcasts.fill(1300, 1000, records=live) for _ in range(20) for live in (True, False)]
    assert sum(bool(payloads) for _, payloads in filled) == 10
    assert sum(bool(updates) for updates, _ in filled) == 30


def test_own_alive_is_left_out_where_an_introduction_carries_it() -> None:
    broadcasts = Broadcasts(updates_max=10, payloads_max=10)
    broadcasts.tell(b"me", "alive", b"own")
    broadcasts.tell(b"you", "alive", b"other")
    updates, _ = broadcasts.fill(1000, 9, skip=(b"me", "alive", b""))
    assert updates == [b"other"]


def test_the_dead_get_statements_but_no_records() -> None:
    broadcasts = Broadcasts(updates_max=10, payloads_max=10)
    broadcasts.tell(b"you", "alive", b"update")
    broadcasts.publish(b"digest", b"record")
    assert broadcasts.fill(1000, 9, records=False) == ([b"update"], [])


def test_nobody_is_told_twice_before_all_have_been_told_once() -> None:
    queue: Queue[str] = Queue(10)
    queue.put("a", b"a")
    assert queue.take(100, 9, to=b"x", audience=2) == [b"a"]
    assert queue.take(100, 9, to=b"x", audience=2) == []
    assert queue.take(100, 9, to=b"y", audience=2) == [b"a"]
    assert queue.take(100, 9, to=b"x", audience=2) == [b"a"]


def test_who_has_it_is_not_told_and_when_all_have_it_it_is_gone() -> None:
    queue: Queue[str] = Queue(10)
    queue.put("a", b"a")
    queue.echoed("a", b"x", audience=3, limit=99)
    assert queue.take(100, 9, to=b"x", audience=3) == []
    for _ in range(2):
        assert queue.take(100, 9, to=b"y", audience=3) == [b"a"]
        assert queue.take(100, 9, to=b"z", audience=3) == [b"a"]
    queue.echoed("a", b"y", audience=3, limit=99)
    assert "a" in queue
    queue.echoed("a", b"z", audience=3, limit=99)
    assert "a" not in queue


def test_an_echo_counts_like_a_transmission_for_up_to_half_of_them() -> None:
    queue: Queue[str] = Queue(10)
    queue.put("b", b"b")
    queue.put("a", b"a")
    for sender in (b"x", b"y", b"x", b"w", b"v"):
        queue.echoed("a", sender, audience=100, limit=6)
    room = item_bytes(b"a")
    told = [queue.take(room, 6, to=bytes([number]), audience=100) for number in range(12)]
    assert told[:3] == [[b"b"]] * 3  # told less often, so it goes first
    assert (told.count([b"b"]), told.count([b"a"])) == (6, 3)
    queue.echoed("gone", b"x", audience=100, limit=5)


def test_only_the_echo_of_the_same_statement_ends_it() -> None:
    broadcasts = Broadcasts(updates_max=10, payloads_max=10)
    first, second = suspicion("b", "a"), suspicion("c", "a")
    for told in (first, second):
        broadcasts.tell(told.subject, "suspect", told.encode(), accuser=told.accuser)
    broadcasts.echoed(first, b"x", audience=1, limit=9)
    updates, _ = broadcasts.fill(1000, 9, to=b"y", audience=2)
    assert updates == [second.encode()]


@pytest.mark.parametrize(("larger", "found"), [(64, [b"s"]), (65, [])])
def test_what_fits_is_looked_for_behind_so_many_that_do_not_and_no_more(
    larger: int, found: list[bytes]
) -> None:
    queue: Queue[int] = Queue(100)
    queue.put(0, b"s")
    for number in range(1, larger + 1):
        queue.put(number, b"L" * 500)
    assert queue.take(100, 3) == found
