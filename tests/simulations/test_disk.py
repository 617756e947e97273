"""What survives a crash."""

import random

import pytest

from crdt.record import Record
from peer.messages import Persist
from simulations.disk import Disk


def record(seq: int, key: str = "k") -> Record:
    return Record(
        writer=b"w" * 16, seq=seq, kind="note", key=key, payload=b"p", context=(), hlc=1, floor=0, rest=bytes(32),
        signature=bytes(64),
    )  # fmt: skip


def batch(seq: int, key: str = "k", ticket: int = 0) -> Persist:
    return Persist(ticket=ticket, put=(record(seq, key),), heads={b"w" * 16: seq})


def test_what_comes_during_a_sync_is_one_group_after_it() -> None:
    disk = Disk()
    assert disk.want(batch(1, ticket=1))
    assert not disk.want(batch(2, ticket=2))
    assert not disk.want(batch(3))
    assert disk.synced() == [1]
    assert disk.heads == {b"w" * 16: 1}
    assert disk.busy
    assert disk.synced() == [2]
    assert [r.seq for r in disk.records.values()] == [3]
    assert not disk.busy


def test_a_key_never_goes_back_to_an_older_record() -> None:
    disk = Disk()
    for seq in (2, 1):
        disk.want(batch(seq))
        disk.synced()
    assert [r.seq for r in disk.records.values()] == [2]
    assert disk.heads == {b"w" * 16: 2}


def test_a_crash_takes_what_waits_and_the_group_under_way_whole_or_not() -> None:
    outcomes = set()
    for seed in range(20):
        disk = Disk()
        for seq in (1, 2, 3):
            disk.want(batch(seq, key=str(seq)))
        disk.crash(random.Random(seed))
        assert not disk.busy
        outcomes.add(tuple(sorted(disk.heads.values())))
        assert disk.lost + disk.batches == 3
    assert outcomes == {(), (1,)}


def test_a_crash_on_a_full_disk_leaves_nothing_of_what_came_behind_what_found_no_room() -> None:
    for seed in range(20):
        disk = Disk(full=True)
        disk.want(batch(1, key="first"))
        assert disk.refused() == []
        disk.want(batch(2, key="second"))
        disk.crash(random.Random(seed))
        assert (disk.records, disk.heads, disk.lost) == ({}, {}, 2)


def test_what_is_deleted_goes_before_what_is_put() -> None:
    disk = Disk()
    disk.want(batch(1))
    disk.synced()
    disk.want(Persist(ticket=0, delete=(record(1),)))
    disk.synced()
    assert disk.records == {}


def test_a_backup_that_is_put_back_is_doubted() -> None:
    disk = Disk()
    disk.want(batch(1))
    disk.synced()
    disk.backup = disk.copy()
    disk.want(batch(2))
    disk.synced()
    disk.put_back()
    assert disk.heads == {b"w" * 16: 1}
    assert [r.seq for r in disk.records.values()] == [1]
    assert disk.doubt
    disk.want(batch(2))
    disk.synced()
    assert disk.backup.heads == {b"w" * 16: 1}


@pytest.mark.parametrize(("power", "left"), [(True, 1), (False, 2)])
def test_a_disk_that_lies_about_its_syncs_loses_them_with_the_power(power: bool, left: int) -> None:
    disk = Disk()
    disk.want(batch(1))
    disk.synced()
    disk.lie()
    disk.want(batch(2, ticket=1))
    assert disk.synced() == [1]
    assert disk.crash(random.Random(0), power=power) is power
    assert disk.heads == {b"w" * 16: left}
    assert not disk.doubt


def test_what_was_synced_before_the_lie_ends_is_there() -> None:
    disk = Disk()
    disk.lie()
    disk.want(batch(1))
    disk.synced()
    disk.tell_the_truth()
    assert not disk.crash(random.Random(0), power=True)
    assert disk.heads == {b"w" * 16: 1}
