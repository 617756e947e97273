import pytest

from crdt.delta import Delta
from crdt.quarantine import HELD_OVERHEAD_BYTES, Claim, Quarantine
from crdt.record import record_bytes


@pytest.fixture(scope="module")
def records(crdt):
    author = crdt.Author(1).write_all((f"key{n}", b"x") for n in range(1, 9))
    return {record.seq: record for record in author.records}


def quarantine(records, *, writer_records: int = 100, total_records: int = 100) -> Quarantine:
    each = record_bytes(records[1]) + HELD_OVERHEAD_BYTES
    return Quarantine(writer_bytes_max=writer_records * each, bytes_max=total_records * each)


def part(records, after: int, upto: int, target: int) -> Delta:
    return Delta(
        writer=records[1].writer,
        after=after,
        upto=upto,
        target=target,
        records=tuple(records[n] for n in range(after + 1, upto + 1)),
    )


def stage(held: Quarantine, delta: Delta, head: int = 0) -> Claim | None:
    for record in delta.records:
        held.hold(record, None)
    held.stage(delta, head)
    return held.claim(delta.writer)


def test_what_is_held_comes_back_in_rising_order(records):
    held = quarantine(records)
    for seq in (5, 2, 7, 3):
        held.hold(records[seq], None)
    writer = records[1].writer
    assert [h.record.seq for h in held.within(writer, 2, 7)] == [3, 5, 7]
    assert [h.record.seq for h in held.take(writer, 0, 5)] == [2, 3, 5]
    assert len(held) == 1
    assert [h.record.seq for h in held.take(writer, 5, 2**40)] == [7]
    assert (len(held), held.bytes_held, held.writers) == (0, 0, ())


def test_a_writer_past_its_bound_loses_its_hold_and_it_is_counted(records):
    held = quarantine(records, writer_records=3)
    for seq in (2, 3, 4):
        held.hold(records[seq], None)
    assert (len(held), held.overflowed) == (3, 0)
    held.hold(records[5], None)
    assert (len(held), held.overflowed, held.bytes_held) == (0, 4, 0)


def test_past_the_total_the_one_who_holds_most_goes(crdt, records):
    held = quarantine(records, total_records=4)
    others = [crdt.Author(n).write("key1", b"x") for n in (2, 3, 4)]
    held.hold(others[0], None)
    held.hold(records[2], None)
    held.hold(records[3], None)
    for other in others[1:]:
        held.hold(other, "unknown writer")
    assert held.overflowed == 2
    assert held.writers == tuple(other.writer for other in others)


def test_what_is_not_verified_has_a_small_place_and_leaves_the_rest_alone(crdt, records):
    each = record_bytes(records[1]) + HELD_OVERHEAD_BYTES
    held = Quarantine(writer_bytes_max=100 * each, bytes_max=100 * each, unjudged_bytes_max=2 * each)
    held.hold(records[2], None)
    strangers = [crdt.Author(n).write("key1", b"x") for n in range(2, 8)]
    for stranger in strangers:
        held.hold(stranger, "unknown writer")
    assert held.overflowed == 4
    assert held.writers == (records[2].writer, strangers[-2].writer, strangers[-1].writer)
    held.hold(strangers[-1], None)  # verified by now: it makes room
    held.hold(strangers[0], "unknown writer")
    assert held.overflowed == 4
    for writer in held.writers:
        held.take(writer, 0, 100)
    assert (len(held), held.bytes_held) == (0, 0)


def test_a_verified_record_is_not_displaced_by_an_unverified_one(crdt, records):
    held = quarantine(records)
    impostor = crdt.Author(1).write_all([("other", b"1"), ("other", b"2")]).records[1]
    held.hold(records[2], None)
    assert held.hold(impostor, "unknown writer") == records[2]
    assert held.at(impostor.writer, 2).record == records[2]


def test_an_unverified_record_makes_room_for_another(crdt, records):
    held = quarantine(records)
    impostor = crdt.Author(1).write_all([("other", b"1"), ("other", b"2")]).records[1]
    held.hold(impostor, "unknown writer")
    assert held.hold(records[2], None) is None
    assert [h.record for h in held] == [records[2]]
    assert held.bytes_held == record_bytes(records[2]) + HELD_OVERHEAD_BYTES


def test_parts_join_into_one_claim(records):
    held = quarantine(records)
    assert stage(held, part(records, 0, 2, 6)) == Claim(after=0, upto=2, target=6)
    assert stage(held, part(records, 2, 4, 6)) == Claim(after=0, upto=4, target=6)
    joined = stage(held, part(records, 4, 6, 6))
    assert joined == Claim(after=0, upto=6, target=6)
    assert joined.complete


def test_a_joined_claim_is_complete_only_at_the_largest_target(records):
    held = quarantine(records)
    stage(held, part(records, 0, 2, 8))
    joined = stage(held, part(records, 2, 6, 6))
    assert joined == Claim(after=0, upto=6, target=8)
    assert not joined.complete


def test_a_part_that_joins_nothing_claims_nothing(records):
    held = quarantine(records)
    assert stage(held, part(records, 3, 5, 5)) is None
    assert stage(held, part(records, 0, 2, 5)) == Claim(after=0, upto=2, target=5)
    assert stage(held, part(records, 3, 5, 5)) == Claim(after=0, upto=2, target=5)


def test_a_claim_that_wants_the_impossible_gives_way_to_a_modest_one(records):
    held = quarantine(records)
    stage(held, part(records, 0, 4, 2**40))
    assert stage(held, part(records, 0, 3, 6)) == Claim(after=0, upto=3, target=6)


def test_starting_over_does_not_shorten_a_claim(records):
    held = quarantine(records)
    stage(held, part(records, 0, 4, 6))
    assert stage(held, part(records, 0, 2, 6)) == Claim(after=0, upto=4, target=6)


def test_removing_a_record_removes_the_claim_that_counted_on_it(records):
    held = quarantine(records)
    stage(held, part(records, 0, 3, 6))
    held.remove(records[2])
    assert held.claim(records[1].writer) is None
    assert [h.record.seq for h in held] == [1, 3]
