"""Large writes: made a slice at a time, seen as one, and made anew when what they build on changes."""

from collections.abc import Sequence
from typing import Any

import pytest

from crdt.record import Record
from peer.messages import Draft, Output, Persist, Write, Written
from peer.node_writes import DRAFTS_AT_ONCE, Writes

NOW = 1_700_000_000.0
LARGE = 3 * DRAFTS_AT_ONCE + 1


@pytest.fixture
def writes(world: Any) -> Writes:
    node = world.nodes[world.node(1)]
    return Writes(identity=node.identity, journal=node.journal, registry=node.registry, hold_until=0.0)


def write(request: int, count: int, name: str = "k") -> Write:
    drafts = [Draft(kind="note", key=f"{name}{number}", payload=b"x") for number in range(count)]
    return Write(request=request, drafts=tuple(drafts))


def slices(writes: Writes, first: Sequence[Output] = ()) -> list[list[Output]]:
    """What each step gives until nothing is left to do at once."""
    found = [list(first)]
    while writes.deadline is not None and writes.deadline <= NOW:
        found.append(writes.dispatch(NOW))
        assert len(found) < 100
    return found


def stored(writes: Writes, outputs: Sequence[Output]) -> tuple[Record, ...]:
    """Have the disk keep what was asked of it."""
    (persist,) = [each for each in outputs if isinstance(each, Persist)]
    records = writes.stored(persist.ticket)
    assert records == persist.put
    writes.journal.enter(records, int(NOW * 1000))
    return records


def test_a_large_write_is_made_in_slices_and_stored_as_one(writes: Writes, monkeypatch: Any) -> None:
    made: list[int] = []
    draft = type(writes.journal).draft

    def counting(*arguments: Any, **options: Any) -> Record:
        made[-1] += 1
        return draft(*arguments, **options)

    monkeypatch.setattr(type(writes.journal), "draft", counting)
    made.append(0)
    outputs = writes.add(NOW, write(1, LARGE))
    while writes.deadline is not None:
        assert outputs == []  # nothing is on its way before all of it is made
        assert writes.journal.heads.get(writes.identity.id, 0) == 0
        made.append(0)
        outputs = writes.dispatch(NOW)
    assert made == [DRAFTS_AT_ONCE] * 3 + [1]
    records = stored(writes, outputs)
    assert [record.seq for record in records] == list(range(1, LARGE + 1))
    assert writes.acknowledge() == [Written(request=1, records=records)]


def test_what_comes_while_a_batch_is_made_waits_for_the_next(writes: Writes) -> None:
    writes.add(NOW, write(1, LARGE))
    assert writes.add(NOW, write(2, 1, "late")) == []
    *_, last = slices(writes)
    assert len(stored(writes, last)) == LARGE
    (first,) = writes.acknowledge()
    assert isinstance(first, Written)
    assert first.request == 1
    (record,) = stored(writes, writes.dispatch(NOW))
    assert record.key == "late0"


def test_one_bad_draft_late_in_a_large_write_refuses_all_of_it_and_nothing_else(writes: Writes) -> None:
    bad = write(2, LARGE)
    bad = Write(request=2, drafts=(*bad.drafts, Draft(kind="note", key="", payload=b"x" * 2_000_000)))
    writes.add(NOW, write(1, 2 * DRAFTS_AT_ONCE, "one"))
    for each in (bad, write(3, 5, "three"), write(4, 0)):
        writes._waiting.append((NOW, each))
    writes._put_back(writes._making)  # so that all of them are made together
    outputs = [output for step in slices(writes, writes.dispatch(NOW)) for output in step]
    refused = {each.request: each.error for each in outputs if isinstance(each, Written)}
    assert refused.keys() == {2, 4}
    assert refused[4] == "there is nothing to write"
    records = stored(writes, outputs)
    assert [record.seq for record in records] == list(range(1, 2 * DRAFTS_AT_ONCE + 6))
    assert [each.request for each in writes.acknowledge() if isinstance(each, Written)] == [1, 3]


def test_a_batch_is_made_anew_when_its_journal_moves_meanwhile(writes: Writes) -> None:
    """This peer hears a record of its own that it had lost: its number must not be used again."""
    lost = writes.journal.draft(
        writer=writes.identity.id, kind="note", key="lost", payload=b"x", now_ms=int(NOW * 1000),
        sign=writes.identity.sign,
    )  # fmt: skip
    writes.add(NOW, write(1, LARGE))
    writes.journal.merge([lost], int(NOW * 1000))
    *_, last = slices(writes)
    records = stored(writes, last)
    assert [record.seq for record in records] == list(range(2, LARGE + 2))
    assert not writes.journal.forks
    assert [each.request for each in writes.acknowledge() if isinstance(each, Written)] == [1]


def test_a_batch_is_made_anew_behind_a_number_that_turns_out_to_be_used(writes: Writes) -> None:
    writes.add(NOW, write(1, LARGE))
    assert writes.journal.pass_over(writes.identity.id, 7)
    *_, last = slices(writes)
    (persist,) = [each for each in last if isinstance(each, Persist)]
    assert min(record.seq for record in persist.put) > 7
    assert len(persist.put) == LARGE


def test_a_batch_that_is_being_made_waits_again_when_numbers_are_in_doubt(writes: Writes) -> None:
    writes.add(NOW, write(1, LARGE))
    writes.hold(NOW + 5.0)
    assert writes.dispatch(NOW) == []
    assert writes.deadline == NOW + 5.0  # and does not turn in circles until then
    writes.release()
    *_, last = slices(writes, writes.dispatch(NOW))
    assert len(stored(writes, last)) == LARGE
