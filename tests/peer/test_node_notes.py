"""What is said about others is bounded, and what was left unsaid is counted."""

from peer.messages import Note
from peer.node_notes import NODES_MAX, SORTS_MAX, STALE_MAX, WINDOW_S, Complaints, Replays, warning

ALICE, BOB = b"a" * 16, b"b" * 16


def complain(complaints: Complaints, now: float, node: bytes | None, reason: str) -> list[Note]:
    return complaints.tell(now, node, warning("record_refused", node, reason))


def test_each_sort_of_complaint_is_told_once_a_window_and_the_rest_counted() -> None:
    complaints = Complaints()
    assert len(complain(complaints, 0.0, ALICE, "the live records up to 5")) == 1
    assert complaints.deadline is None
    for number in range(1000):
        assert complain(complaints, 1.0, ALICE, f"the live records up to {number}") == []
    assert len(complain(complaints, 1.0, ALICE, "bad signature")) == 1
    assert len(complain(complaints, 1.0, BOB, "bad signature")) == 1
    assert complaints.deadline == WINDOW_S
    assert complaints.due(WINDOW_S - 1) == []
    (summary,) = complaints.due(WINDOW_S)
    assert (summary.event, summary.fields["times"]) == ("complaints_repeated", 1000)
    assert complaints.due(WINDOW_S) == []
    assert len(complain(complaints, WINDOW_S, ALICE, "the live records up to 5")) == 1
    assert complaints.untold == 1000


def test_who_varies_its_offences_is_told_of_a_few_times() -> None:
    complaints = Complaints()
    told = sum(len(complain(complaints, 0.0, ALICE, chr(97 + n % 26) * n)) for n in range(100))
    assert told == SORTS_MAX


def test_a_window_that_left_nothing_unsaid_ends_in_silence() -> None:
    complaints = Complaints()
    complain(complaints, 0.0, ALICE, "x")
    assert len(complain(complaints, WINDOW_S, ALICE, "x")) == 1
    assert complaints.due(2 * WINDOW_S) == []
    assert len(complaints) == 0


def test_beyond_the_bound_all_further_nodes_share_one_window() -> None:
    complaints = Complaints()
    for number in range(NODES_MAX + 100):
        complain(complaints, 0.0, number.to_bytes(16, "big"), "x")
    assert len(complaints) == NODES_MAX + 1
    assert complaints.untold == 99
    for number in range(NODES_MAX + 100):
        complain(complaints, WINDOW_S, number.to_bytes(16, "big"), "x")
    assert len(complaints) <= NODES_MAX + 1


def test_the_last_of_many_stale_records_is_too_many_once_a_window() -> None:
    replays = Replays()
    assert [n for n in range(1, 5 * STALE_MAX) if replays.stale(0.0, ALICE)] == [STALE_MAX]
    assert not any(replays.stale(1.0, BOB) for _ in range(STALE_MAX - 1))
    assert not replays.stale(WINDOW_S + 1, BOB)
    assert [n for n in range(1, 5 * STALE_MAX) if replays.stale(WINDOW_S, ALICE)] == [STALE_MAX]


def test_only_so_many_are_counted_and_room_is_made_by_time() -> None:
    replays = Replays()
    for number in range(NODES_MAX + 100):
        replays.stale(0.0, number.to_bytes(16, "big"))
    assert len(replays) == NODES_MAX
    assert not any(replays.stale(1.0, ALICE) for _ in range(2 * STALE_MAX))
    assert any(replays.stale(WINDOW_S, ALICE) for _ in range(2 * STALE_MAX))
    assert len(replays) == 1
