"""The disk: grouped commits, and what becomes of them when it is full."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import peer.disk
from peer.disk import Disk, joined
from peer.io.store import Batch, Store, StoreError

W = b"w" * 16


def row(key: str, seq: int) -> tuple[bytes, str, str, int, bytes]:
    return W, "policy", key, seq, b"%d" % seq


class Broken(Store):
    """A store that refuses commits while `full`, and holds them while `gate` is closed."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.full = False
        self.gate = threading.Event()
        self.gate.set()
        self.commits: list[Batch] = []

    def commit(self, batch: Batch) -> None:
        self.gate.wait(10)
        if self.full:
            raise StoreError("cannot write: the disk is full")
        self.commits.append(batch)
        super().commit(batch)

    def probe(self) -> None:
        if self.full:
            raise StoreError("cannot write: the disk is full")
        super().probe()


@pytest.fixture
async def broken(tmp_path: Any) -> Any:
    return Broken.open(tmp_path)


@pytest.fixture
async def disk(broken: Broken) -> Any:
    made = Disk(broken)
    yield made
    broken.gate.set()
    await made.close()


def keys(broken: Broken) -> set[bytes]:
    return set(broken.load().records)


async def test_a_commit_is_done_when_it_is_on_disk(disk: Disk, broken: Broken) -> None:
    await disk.commit(Batch(put=[row("a", 1)], heads={W: 1}))
    assert keys(broken) == {b"1"}
    assert broken.load().heads == {W: 1}


async def test_what_comes_during_a_commit_shares_the_next_one(disk: Disk, broken: Broken) -> None:
    broken.gate.clear()
    first = disk.commit(Batch(put=[row("a", 1)]))
    await asyncio.sleep(0)  # the worker has it
    others = [disk.commit(Batch(put=[row("b", n)])) for n in range(2, 12)]
    broken.gate.set()
    await asyncio.gather(first, *others)
    assert len(broken.commits) == 2
    assert keys(broken) == {b"1", b"11"}


async def test_a_full_disk_refuses_who_waits_and_never_stores_it(disk: Disk, broken: Broken) -> None:
    broken.full = True
    with pytest.raises(StoreError, match="full"):
        await disk.commit(Batch(put=[row("refused", 1)], heads={W: 1}))
    assert "full" in disk.problem
    broken.full = False
    await disk.commit(Batch(put=[row("kept", 1)], heads={W: 1}))
    assert disk.problem == ""
    assert [record[2] for batch in broken.commits for record in batch.put] == ["kept"]


async def test_a_mistake_of_ours_leaves_nobody_waiting(
    disk: Disk, broken: Broken, monkeypatch: Any, caplog: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(broken, "commit", lambda _: 1 / 0)
        with pytest.raises(StoreError, match="unexpected: ZeroDivisionError"):
            await disk.commit(Batch(put=[row("a", 1)]))
    assert "store_broke" in caplog.text
    await disk.commit(Batch(put=[row("a", 2)]))
    assert keys(broken) == {b"2"}


async def test_what_nobody_waits_for_is_stored_when_there_is_room_again(disk: Disk, broken: Broken) -> None:
    broken.full = True
    disk.owe(Batch(put=[row("heard", 1)], heads={b"x" * 16: 9}))
    with pytest.raises(StoreError):
        await disk.commit(Batch(put=[row("own", 2)]))
    disk.owe(Batch(delete=[(W, "policy", "gone")], put=[row("heard", 3)]))
    with pytest.raises(StoreError):
        await disk.commit(Batch(put=[row("own", 4)]))
    assert keys(broken) == set()
    broken.full = False
    await disk.commit(Batch(put=[row("own", 5)]))
    assert keys(broken) == {b"3", b"5"}
    assert broken.load().heads == {b"x" * 16: 9}


async def test_it_tries_again_by_itself(disk: Disk, broken: Broken, until: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(peer.disk, "RETRY_S", 0.01)
    broken.full = True
    disk.owe(Batch(put=[row("heard", 1)]))
    await until(lambda: disk.problem != "")
    broken.full = False
    await until(lambda: disk.problem == "")
    assert keys(broken) == {b"1"}


async def test_a_problem_is_told_once_and_so_is_its_end(disk: Disk, broken: Broken, caplog: Any) -> None:
    caplog.set_level("WARNING")
    broken.full = True
    for _ in range(3):
        with pytest.raises(StoreError):
            await disk.commit(Batch())
    broken.full = False
    await disk.commit(Batch())
    assert [record.message for record in caplog.records] == ["not_stored", "store_works_again"]


async def test_closing_finishes_what_was_asked_for(tmp_path: Any) -> None:
    store = Store.open(tmp_path)
    disk = Disk(store)
    waiting = [disk.commit(Batch(put=[row(str(n), n)])) for n in range(1, 9)]
    await disk.close()
    assert all(future.done() for future in waiting)
    again = Store.open(tmp_path)
    assert len(again.load().records) == 8
    again.close()


async def test_somebody_who_gave_up_waiting_keeps_nobody_from_the_disk(disk: Disk, broken: Broken) -> None:
    broken.gate.clear()
    first = disk.commit(Batch(put=[row("a", 1)]))
    second = disk.commit(Batch(put=[row("b", 2)]))
    await asyncio.sleep(0)
    first.cancel()
    broken.gate.set()
    await second
    assert keys(broken) == {b"1", b"2"}


rows = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 100))
batches = st.builds(
    lambda put, delete: Batch(
        put=[row(*each) for each in put], delete=[(W, "policy", key) for key in delete]
    ),
    st.lists(rows, max_size=3, unique_by=lambda each: each[0]),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=2, unique=True),
)


@given(st.lists(batches, max_size=5))
def test_joined_batches_end_where_they_would_one_by_one(group: list[Batch]) -> None:
    def apply(table: dict[Any, Any], batch: Batch) -> None:
        for place in batch.delete:
            table.pop(place, None)
        for each in batch.put:
            table[each[:3]] = each

    one_by_one: dict[Any, Any] = {}
    for batch in group:
        apply(one_by_one, batch)
    at_once: dict[Any, Any] = {}
    apply(at_once, joined(group))
    assert at_once == one_by_one


def test_joined_batches_remember_what_they_replace_among_themselves() -> None:
    group = [
        Batch(put=[row("a", 1)], past=[row("z", 1)]),
        Batch(put=[row("a", 2)]),
        Batch(delete=[(W, "policy", "a")], put=[row("a", 3), row("b", 4)]),
    ]
    batch = joined(group)
    assert list(batch.past) == [row("z", 1), row("a", 1), row("a", 2)]
    assert sorted(batch.put) == [row("a", 3), row("b", 4)]


def test_of_two_proofs_against_one_writer_the_first_is_stored() -> None:
    batches = [Batch(forks={W: (b"a", b"b")}), Batch(), Batch(forks={W: (b"c", b"d"), b"v": (b"e", b"f")})]
    assert joined(batches).forks == {W: (b"a", b"b"), b"v": (b"e", b"f")}


def test_an_older_record_that_counts_again_takes_the_place_of_the_newer_one(tmp_path: Path) -> None:
    """Of a writer that contradicts itself: what is asked for together is deleted before it is put."""
    store = Store.open(tmp_path)
    store.commit(Batch(put=[row("a", 2)], heads={W: 2}))
    store.commit(joined([Batch(delete=[(W, "policy", "a")], put=[row("a", 1), row("b", 3)], heads={W: 3})]))
    assert store.load().records == (row("a", 1)[4], row("b", 3)[4])
    store.close()
