"""Replicas below a floor: they get the writer's whole live set or nothing, whoever serves it and whatever happens
meanwhile. And the tombstones that make way for a floor: nothing they deleted comes back, on any replica, ever."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import crdt.reconcile
from crdt.journal import Journal
from crdt.ormap import live_versions
from crdt.reconcile import Reconciliation
from crdt.record import Record
from crdt.register import context_for, versions

SMALL_FRAME = 700  # bytes: two or three records, so that journals flow in parts


@pytest.fixture(scope="module", autouse=True)
def small_frames():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crdt.reconcile, "FRAME_BYTES_TARGET", SMALL_FRAME)
        yield


def exchange(library, one: Journal, other: Journal, frames_max: int = 10_000) -> int:
    """An exchange that is cut off after so many frames. Returns how many there were."""
    sides, journals = (
        (Reconciliation(one, initiator=True), Reconciliation(other, initiator=False)),
        (one, other),
    )
    frames, turn, count = sides[0].start(), 1, 0
    while frames and count < frames_max:
        step = sides[turn].receive(frames[0])
        for delta, _ in step.deltas:
            assert journals[turn].absorb(delta, library.NOW_MS).refused == ()
        frames, turn, count = step.send, 1 - turn, count + 1
    return count


def spent(library, number: int = 1, keys: int = 12):
    """An author of many keys, the first half of them deleted so long ago that the tombstones are gone."""
    author = library.Author(number)
    half = [f"key{n:02}" for n in range(keys // 2)]
    author.write_all((key, b"old") for key in half)
    author.write_all((key, b"") for key in half)
    author.write_all((f"key{n:02}", b"x" * 200) for n in range(keys // 2, keys))
    assert author.records[-1].floor == len(half) * 2
    return author


def below(library, author, head: int) -> Journal:
    journal = library.replica()
    journal.merge(author.records[:head], library.NOW_MS)
    assert 0 < journal.heads[author.id] == head < author.records[-1].floor
    return journal


@pytest.mark.parametrize("head", range(13))
def test_what_goes_to_a_replica_below_the_floor_is_the_whole_live_set(crdt, head):
    author = spent(crdt)
    live = crdt.live_by_definition(author.records)
    assert list(author.journal.delta(author.id, head, 2**30).records) == live
    old = author.at(head)
    merged = old.absorb(author.journal.delta(author.id, head, 2**30), crdt.NOW_MS)
    assert merged.accepted == tuple(live)
    assert old.canonical() == author.journal.canonical()


@pytest.mark.parametrize("head", [1, 6, 8, 11])
def test_a_snapshot_comes_from_a_third_party_when_its_writer_is_gone(crdt, head):
    author = spent(crdt)
    third, old = crdt.replica(), below(crdt, author, head)
    exchange(crdt, third, author.journal)
    assert exchange(crdt, old, third) > 5
    assert old.canonical() == third.canonical() == author.journal.canonical()
    assert not [record for record in old.records("policy") if record.payload == b"old"]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_snapshot_cut_off_anywhere_shows_the_old_state_or_the_new_one(crdt, cut):
    """And what comes after, from another, makes it whole."""
    author = spent(crdt)
    old = below(crdt, author, 8)
    before = old.canonical()
    other = crdt.replica()
    exchange(crdt, other, author.journal)
    exchange(crdt, old, author.journal, cut)
    assert old.canonical() in (before, author.journal.canonical())
    author.write("key12", b"")
    exchange(crdt, other, author.journal)
    exchange(crdt, old, other)
    assert old.canonical() == author.journal.canonical()


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_floor_that_rises_during_the_exchange_leaves_nothing_behind(crdt, cut):
    """Half a snapshot is there when its first keys are deleted and their tombstones go too."""
    author = spent(crdt)
    old, late = below(crdt, author, 8), crdt.replica()
    exchange(crdt, late, author.journal)
    exchange(crdt, old, author.journal, cut)
    author.write_all((f"key{n:02}", b"") for n in range(6, 10))
    author.write("key10", b"new")
    author.write("key11", b"new")
    author.write("another", b"new")
    assert author.records[-1].floor == 22
    exchange(crdt, old, author.journal)
    assert old.canonical() == author.journal.canonical()
    assert {record.key for record in old.records("policy")} == {"key10", "key11", "another"}
    exchange(crdt, old, late, 3)  # one that still has the first snapshot
    exchange(crdt, late, old)
    assert old.canonical() == late.canonical() == author.journal.canonical()


def test_parts_of_two_snapshots_do_not_mix(crdt):
    """The first parts from one server, the rest from one whose floor is higher, the first again from the first."""
    author = spent(crdt)
    server, old = crdt.replica(), below(crdt, author, 8)
    exchange(crdt, server, author.journal)
    author.write_all((f"key{n:02}", b"") for n in range(6, 12))
    author.write("last", b"new")
    for frames in (4, 6, 8):
        exchange(crdt, old, server, frames)
        exchange(crdt, old, author.journal, frames)
        head = old.heads[author.id]
        assert list(old.delta(author.id, 0, 2**30).records) == crdt.live_by_definition(author.records[:head])
    exchange(crdt, old, author.journal)
    assert old.canonical() == author.journal.canonical()


@dataclass
class Peer:
    """A writer and its replica, which may be older than what it wrote."""

    author: object
    written: list[Record] = field(default_factory=list)

    @property
    def journal(self) -> Journal:
        return self.author.journal

    @property
    def up_to_date(self) -> bool:
        return self.journal.heads.get(self.author.id, 0) == len(self.written)


PEERS = 4
ONE = st.integers(0, PEERS - 1)


class Mesh(RuleBasedStateMachine):
    """Replicas that write, delete, talk, are cut off in the middle, restart, lose their disks, and come back from
    old backups. The model is all that was ever written, and what its author held of the key when writing it."""

    library = None

    def __init__(self) -> None:
        super().__init__()
        self.peers = [Peer(self.library.Author(number)) for number in range(PEERS)]
        self.saw: dict[Record, frozenset[Record]] = {}
        self.backups: list[tuple[int, list[Record], dict[bytes, int]]] = []

    @property
    def history(self) -> list[Record]:
        return [record for peer in self.peers for record in peer.written]

    def _write(self, one: int, key: str, payload: bytes) -> None:
        peer = self.peers[one]
        if not peer.up_to_date:
            return  # a node hears what it wrote before it writes
        held = [record for record in peer.journal.records("policy") if record.key == key]
        record = peer.author.write(key, payload, context=context_for(held, peer.author.id))
        peer.written.append(record)
        self.saw[record] = frozenset(held)

    @rule(one=ONE, key=st.sampled_from("ab"))
    def edit(self, one: int, key: str) -> None:
        self._write(one, key, b"%d" % len(self.saw))

    @rule(one=ONE, key=st.sampled_from("ab"), later=st.integers(0, 2))
    def delete_and_go_on(self, one: int, key: str, later: int) -> None:
        """The floor follows with the writes after a deletion, if nothing older is live."""
        self._write(one, key, b"")
        for _ in range(later):
            self._write(one, f"own{one}", b"")

    @rule(one=ONE, other=ONE, frames=st.sampled_from([10_000, 10_000, 10_000, *range(2, 8)]))
    def talk(self, one: int, other: int, frames: int) -> None:
        if one != other:
            exchange(self.library, self.peers[one].journal, self.peers[other].journal, frames)

    @rule(one=ONE, data=st.data())
    def late_copy(self, one: int, data) -> None:
        """A record that was long on its way."""
        if self.history:
            record = data.draw(st.sampled_from(self.history))
            self.peers[one].journal.merge([record], self.library.NOW_MS)

    @rule(one=ONE)
    def back_up(self, one: int) -> None:
        journal = self.peers[one].journal
        self.backups = [*self.backups[-2:], (one, list(journal.records("policy")), dict(journal.heads))]

    @rule(
        one=ONE, how=st.sampled_from(["restart", "lose the disk", "come back from a backup"]), data=st.data()
    )
    def fail(self, one: int, how: str, data) -> None:
        if how == "restart":
            journal = self.peers[one].journal
            self._restore(one, list(journal.records("policy")), dict(journal.heads))
        elif how == "lose the disk":
            self._restore(one, [], {})
        elif self.backups:
            self._restore(*data.draw(st.sampled_from(self.backups)))

    def _restore(self, one: int, records: list[Record], heads: dict[bytes, int]) -> None:
        """Unless with it the last copy of something were lost."""
        left = [heads, *(peer.journal.heads for peer in self.peers if peer is not self.peers[one])]
        if all(max(held.get(p.author.id, 0) for held in left) == len(p.written) for p in self.peers):
            journal = self.library.replica()
            assert journal.restore(records, heads) == ()
            self.peers[one].author.journal = journal

    @invariant()
    def the_state_is_a_function_of_the_heads(self) -> None:
        for peer in self.peers:
            for writer in self.peers:
                held = list(peer.journal.delta(writer.author.id, 0, 2**30).records)
                head = peer.journal.heads.get(writer.author.id, 0)
                assert held == self.library.live_by_definition(writer.written[:head])

    @invariant()
    def nothing_replaced_or_deleted_is_back(self) -> None:
        """Wherever the record is known that replaced it, or was known and has gone below its writer's floor."""
        for peer in self.peers:
            known = [r for r in self.history if r.seq <= peer.journal.heads.get(r.writer, 0)]
            gone = {old for record in known for old in self.saw[record]}
            shown = {r for held in live_versions(peer.journal.records("policy")).values() for r in held}
            assert not shown & gone

    def teardown(self) -> None:
        """When all have talked to all, all are alike, and what is shown is what all of history comes to."""
        journals = [peer.journal for peer in self.peers]
        for _ in range(2):
            for one in journals:
                for other in journals:
                    if one is not other:
                        exchange(self.library, one, other)
        assert len({journal.canonical() for journal in journals}) == 1
        assert len({journal.fingerprint() for journal in journals}) == 1
        assert all(peer.up_to_date and not list(peer.journal.waiting()) for peer in self.peers)
        for key in {record.key for record in self.history}:
            everything = versions(record for record in self.history if record.key == key)
            assert live_versions(journals[0].records("policy")).get(key, ()) == everything


def test_no_deleted_key_comes_back_in_a_mesh_without_a_coordinator(crdt):
    class Run(Mesh):
        library = crdt

    examples = settings().max_examples * 2  # a trap takes six steps in a row
    run_state_machine_as_test(Run, settings=settings(max_examples=examples, stateful_step_count=30))
