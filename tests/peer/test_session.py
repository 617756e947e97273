"""One exchange: both sides meet, and whatever else comes in is refused."""

from collections.abc import Container, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.journal import Journal
from crdt.record import Record, encode_record
from gossip.codec import pack, unpack_array
from gossip.digest import Digest, Mark, Standing
from gossip.frame import Same, encode_frame
from gossip.sync import CHUNKS_MAX, Lack, MemberExchange
from peer.messages import Draft
from peer.records import POLICY, encode_policy
from peer.session import SessionError, SyncSession
from tests.gossip.test_frame import FRAMES

EMPTY = pack([1, []])
A, B = b"A" * 16, b"B" * 16
MARK = Mark(1, 0, Standing.LIVE)


def draft(name: str) -> Draft:
    document = {"kind": "TrafficPolicy", "metadata": {"name": name, "namespace": "default"}, "spec": {}}
    return Draft(kind=POLICY, key=f"TrafficPolicy/default/{name}", payload=encode_policy(document))


def journal(world: Any, number: int, *names: str) -> Journal:
    address = world.node(number)
    world.write(address, *(draft(name) for name in names))
    world.run(0.1)
    made: Journal = world.nodes[address].journal
    return made


class Members:
    """A member list with one member, whose statement is its id."""

    def __init__(self, *nodes: bytes) -> None:
        self.digest = Digest()
        self.nodes = nodes
        for node in nodes:
            self.digest.replace(node, None, MARK)
        self.root, self.count, self.values = self.digest.root, len(nodes), self.digest.values

    def marks(self, buckets: Container[int]) -> Iterator[tuple[bytes, Mark]]:
        return ((node, MARK) for node in self.nodes if node[0] in buckets)

    def lack(self, node: bytes, mark: Mark) -> Lack:
        return Lack.NOTHING if node in self.nodes else Lack.EVERYTHING

    def alive(self, node: bytes) -> bytes:
        return node

    def proofs(self, node: bytes) -> tuple[bytes, ...]:
        return ()


def session(
    journal: Journal,
    members: Members | None = None,
    *,
    initiator: bool,
    whole: bool = False,
    knows: bool = True,
    other: bytes = B,
) -> SyncSession:
    exchange = (
        None if members is None else MemberExchange(members, peer=None, initiator=initiator, whole=whole)
    )
    return SyncSession(journal, exchange, initiator=initiator, knows=lambda: knows, other=other)


def talk(one: SyncSession, two: SyncSession) -> tuple[list[bytes], list[bytes], list[Any]]:
    """Carry frames both ways until silence; the members and deltas that came out."""
    queue = [(two, frame) for frame in one.start()]
    members: dict[int, list[bytes]] = {id(one): [], id(two): []}
    deltas: list[Any] = []
    done: set[int] = set()
    while queue:
        to, frame = queue.pop(0)
        progress = to.receive(frame)
        members[id(to)] += progress.members
        deltas += progress.deltas
        if progress.done:
            done.add(id(to))
        other = one if to is two else two
        queue += [(other, answer) for answer in progress.send]
    assert done == {id(one), id(two)}
    return members[id(one)], members[id(two)], deltas


def test_equal_journals_part_at_once(world: Any) -> None:
    assert talk(
        session(Journal(verify=world.mesh.registry().judge), initiator=True),
        session(Journal(verify=world.mesh.registry().judge), Members(B), initiator=False),
    ) == ([], [], [])


@pytest.mark.parametrize("whole", [False, True])
def test_members_are_told_both_ways_when_they_are_asked_for(world: Any, whole: bool) -> None:
    one, two = journal(world, 1), journal(world, 2)
    heard = talk(
        session(one, Members(A), initiator=True, whole=whole),
        session(two, Members(B), initiator=False),
    )
    notice = [] if whole else [EMPTY]
    assert heard[:2] == ([*notice, pack([1, [B]])], [*notice, pack([1, [A]])])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_members_and_journals_go_side_by_side_whichever_takes_longer(
    world: Any, whole: bool, names: tuple[str, ...]
) -> None:
    one, two = journal(world, 1, *names), journal(world, 2)
    many = [bytes((n % 256,)) + n.to_bytes(15, "big") for n in range(5000)]
    told, back, deltas = talk(
        session(one, Members(A, *many), initiator=True, whole=whole),
        session(two, Members(B), initiator=False),
    )
    assert told[-1] == pack([1, [B]])
    assert sum(len(unpack_array(chunk, size_max=65536)[1]) for chunk in back) == 5001
    keys = sorted(record.key for delta, _ in deltas for record in delta.records)
    assert keys == [f"TrafficPolicy/default/{name}" for name in names]


def test_equal_lists_and_equal_journals_cost_a_few_bytes(world: Any) -> None:
    made = journal(world, 1, "a")
    one = session(made, Members(A, B), initiator=True)
    two = session(made, Members(A, B), initiator=False)
    queue, size = [(two, frame) for frame in one.start()], 0
    while queue:
        to, frame = queue.pop(0)
        size += len(frame)
        queue += [(one if to is two else two, answer) for answer in to.receive(frame).send]
    assert size <= 80


def test_each_side_gets_what_it_lacks(world: Any) -> None:
    one, two = journal(world, 1, "a", "b"), journal(world, 2, "c")
    _, _, deltas = talk(session(one, initiator=True), session(two, Members(), initiator=False))
    keys = sorted(record.key for delta, _ in deltas for record in delta.records)
    assert keys == [f"TrafficPolicy/default/{name}" for name in "abc"]


def opened(world: Any, with_members: bool = True) -> SyncSession:
    answering = session(journal(world, 1, "a"), Members(A), initiator=False)
    answering.receive(b"s\x01" if with_members else b"s\x00")
    return answering


@pytest.mark.parametrize("frame", [b"", b"s", b"s\x02", b"s\x01\x01", b"m", b"b", b"r", b"x"])
def test_nothing_but_an_opening_opens(world: Any, frame: bytes) -> None:
    with pytest.raises(SessionError, match="does not open"):
        session(journal(world, 1), Members(), initiator=False).receive(frame)


@pytest.mark.parametrize("with_members", [True, False])
def test_whoever_says_goodbye_before_the_two_agree_has_broken_the_protocol(
    world: Any, with_members: bool
) -> None:
    """Else a peer that says nothing at all would count as one that has told everything."""
    with pytest.raises(SessionError, match="before the two agree"):
        opened(world, with_members).receive(b"b\x01")


def test_nobody_says_goodbye_while_members_are_under_way(world: Any) -> None:
    made = journal(world, 1, "a")
    one, two = session(made, Members(A), initiator=True), session(made, Members(B), initiator=False)
    opening, summary, probe = one.start()
    two.receive(opening)
    answers = two.receive(probe).send
    answers += tuple(frame for answer in answers for frame in one.receive(answer).send)
    assert not any(answer.startswith(b"b") for answer in answers)
    with pytest.raises(SessionError, match="before the two agree"):
        two.receive(b"b\x01")
    assert two.receive(summary).send


def test_members_nobody_asked_for_are_refused(world: Any) -> None:
    with pytest.raises(SessionError, match="unexpected"):
        opened(world, with_members=False).receive(b"mx")


@pytest.mark.parametrize("frame", [b"m", b"mx", b"m" + encode_frame(Same(notice=EMPTY))])
def test_an_exchange_of_members_that_breaks_its_protocol_ends_the_session(world: Any, frame: bytes) -> None:
    with pytest.raises(SessionError, match="members: "):
        opened(world).receive(frame)


def test_members_without_end_are_refused(world: Any) -> None:
    answering = opened(world)
    chunk = b"m" + pack([1, [A]])
    for _ in range(CHUNKS_MAX):
        answering.receive(chunk)
    with pytest.raises(SessionError, match="more statements"):
        answering.receive(chunk)


@pytest.mark.parametrize("known", [(True, False), (False, True), (True, True), (False, False)])
def test_each_side_hears_whether_the_other_knows_the_mesh(world: Any, known: tuple[bool, bool]) -> None:
    one = session(journal(world, 1, "a"), initiator=True, knows=known[0])
    two = session(journal(world, 2), initiator=False, knows=known[1])
    talk(one, two)
    assert (two.told, one.told) == known


@pytest.mark.parametrize("goodbye", [b"b", b"b\x02", b"b\x01\x01"])
def test_a_goodbye_that_does_not_say_is_none(world: Any, goodbye: bytes) -> None:
    made = journal(world, 1)
    one, two = session(made, initiator=True), session(made, initiator=False)
    for frame in one.start():
        two.receive(frame)
    with pytest.raises(SessionError, match="good-bye"):
        two.receive(goodbye)
    assert not two.told


def test_nothing_follows_the_goodbye(world: Any) -> None:
    one = session(journal(world, 1), Members(A), initiator=True)
    two = session(journal(world, 2), Members(B), initiator=False)
    talk(one, two)
    for ended in (one, two):
        for frame in (b"b\x01", b"mx", b"m" + pack([1, [A]]), b"r"):
            with pytest.raises(SessionError):
                ended.receive(frame)


@given(
    frames=st.lists(
        st.binary(max_size=100)
        | st.binary(max_size=60).map(lambda body: b"r" + body)
        | FRAMES.map(lambda frame: b"m" + encode_frame(frame)),
        max_size=5,
    )
)
def test_any_bytes_are_taken_or_refused_and_never_break_anything(
    make_world: Any, frames: list[bytes]
) -> None:
    answering = opened(make_world())
    for frame in frames:
        try:
            answering.receive(frame)
        except SessionError:
            return


def holding(world: Any) -> tuple[Journal, Record]:
    """The journal of a node that holds back the second of two records of another one."""
    author = journal(world, 1, "a", "b")
    *_, last = sorted(author.records(POLICY), key=lambda record: record.seq)
    registry = world.mesh.registry()
    holder = Journal(verify=registry.judge)
    writer, blob = next(iter(author.introductions.items()))
    registry.introduce(writer, blob)
    holder.merge([last], int(world.now * 1000))
    return holder, last


def test_who_lost_what_is_held_back_here_is_shown_it(world: Any) -> None:
    holder, last = holding(world)
    empty = Journal(verify=world.mesh.registry().judge)
    one = session(empty, initiator=True)
    two = session(holder, initiator=False, other=last.writer)
    queue, shown = [(two, frame) for frame in one.start()], []
    while queue:
        to, frame = queue.pop(0)
        progress = to.receive(frame)
        shown += [progress.held] if progress.held is not None else []
        queue += [(one if to is two else two, answer) for answer in progress.send]
    assert shown == [last]
    assert one.told


def test_nobody_else_is(world: Any) -> None:
    holder, _ = holding(world)
    one = session(Journal(verify=world.mesh.registry().judge), initiator=True)
    two = session(holder, initiator=False, other=B)
    frames = [frame for first in one.start() for frame in (b"", *two.receive(first).send)[1:]]
    assert not [frame for frame in frames if frame[:1] == b"h"]


def test_a_record_held_back_is_shown_once_at_the_end_and_whole(world: Any) -> None:
    _, last = holding(world)
    frame = b"h" + encode_record(last)
    with pytest.raises(SessionError, match="unexpected"):
        opened(world).receive(frame)
    ended = session(Journal(verify=world.mesh.registry().judge), initiator=False)
    ended.receive(b"s\x00")
    other = session(Journal(verify=world.mesh.registry().judge), initiator=True)
    for each in other.start()[1:]:
        ended.receive(each)
    with pytest.raises(SessionError, match="held back"):
        ended.receive(b"hxx")
    again = session(Journal(verify=world.mesh.registry().judge), initiator=False)
    again.receive(b"s\x00")
    for each in other.start()[1:]:
        again.receive(each)
    assert again.receive(frame).held == last
    with pytest.raises(SessionError, match="unexpected"):
        again.receive(frame)
