"""Two machines face to face: first over made-up lists, which may be large and odd, then over real engines."""

import random
import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip import sync
from gossip.codec import pack, unpack_array
from gossip.config import memberlist
from gossip.digest import Digest, Mark, Standing
from gossip.engine import Engine
from gossip.errors import ExchangeError, MalformedError
from gossip.events import Evict, MembersReceived, Rejected, SyncFailed
from gossip.frame import (
    FRAME_BYTES_MAX,
    Buckets,
    Group,
    Items,
    Same,
    Summary,
    Wanted,
    decode_frame,
    encode_frame,
)
from gossip.statement import Alive, decode_statement, sign_left
from gossip.sync import (
    CHUNK_BYTES_MAX,
    CHUNKS_MAX,
    TURN_CHUNKS_MAX,
    TURNS_MAX,
    Lack,
    MemberExchange,
    decode_members,
)
from tests.gossip.test_frame import FRAMES
from tests.gossip.world import (
    START,
    Speaker,
    acquaint,
    converse,
    engine_of,
    identity_of,
    members_payload,
    suspicion,
)

STATEMENT = struct.Struct(">16sQQB")
EMPTY = pack([1, []])
STATEMENT_BYTES = 500  # what a whole Alive with its credential takes


class Book:
    """A member list of marks alone, whose statements say the mark they prove and are believed."""

    def __init__(self, members: dict[bytes, Mark]) -> None:
        self.members: dict[bytes, Mark] = {}
        self.digest = Digest()
        for node, mark in members.items():
            self.put(node, mark)

    def put(self, node: bytes, mark: Mark) -> None:
        self.digest.replace(node, self.members.get(node), mark)
        self.members[node] = mark

    @property
    def root(self) -> bytes:
        return self.digest.root

    @property
    def count(self) -> int:
        return self.digest.count

    def values(self) -> bytes:
        return self.digest.values()

    def marks(self, buckets: Container[int]) -> Iterator[tuple[bytes, Mark]]:
        return ((node, mark) for node, mark in self.members.items() if node[0] in buckets)

    def lack(self, node: bytes, mark: Mark) -> Lack:
        ours = self.members.get(node)
        if ours is None or ours.rank < mark.rank:
            return Lack.EVERYTHING
        return Lack.PROOFS if ours < mark else Lack.NOTHING

    def alive(self, node: bytes) -> bytes | None:
        mark = self.members.get(node)
        return (
            None if mark is None else STATEMENT.pack(node, *mark.rank, Standing.LIVE).ljust(STATEMENT_BYTES)
        )

    def proofs(self, node: bytes) -> tuple[bytes, ...]:
        mark = self.members.get(node)
        return () if mark is None or mark.standing is Standing.LIVE else (STATEMENT.pack(node, *mark),)

    def take_in(self, chunk: bytes) -> list[bytes]:
        statements = unpack_array(chunk, size_max=CHUNK_BYTES_MAX)[1]
        for statement in statements:
            node, boot, incarnation, standing = STATEMENT.unpack_from(statement)
            mark = Mark(boot, incarnation, Standing(standing))
            assert standing == Standing.LIVE or node in self.members, "a proof of somebody unknown"
            if self.members.get(node, Mark(0, 0, Standing.NONE)) < mark:
                self.put(node, mark)
        return statements


def machine(book: Book, *, initiator: bool) -> MemberExchange:
    return MemberExchange(book, peer=None, initiator=initiator)


def pair(one: Book, other: Book) -> tuple[MemberExchange, MemberExchange]:
    return machine(one, initiator=True), machine(other, initiator=False)


@dataclass
class Talk:
    """What an exchange cost and carried. `told` are the statements each side was told, in order."""

    bytes: int = 0
    flights: int = 0
    turn_bytes_max: int = 0
    told: dict[int, list[bytes]] = field(default_factory=lambda: {0: [], 1: []})

    @property
    def round_trips(self) -> float:
        return self.flights / 2


def exchange(one: Book, other: Book) -> Talk:
    talk, towards, turn = Talk(), None, 0
    for to, _, frame, step in converse(*pair(one, other), 0, 1):
        assert len(frame) <= FRAME_BYTES_MAX
        if to != towards:
            towards, turn = to, 0
            talk.flights += 1
        turn += len(frame)
        talk.bytes += len(frame)
        talk.turn_bytes_max = max(talk.turn_bytes_max, turn)
        for chunk in step.members:
            talk.told[to] += (one, other)[to].take_in(chunk)
    return talk


def union(one: dict[bytes, Mark], other: dict[bytes, Mark]) -> dict[bytes, Mark]:
    nobody = Mark(0, 0, Standing.NONE)
    return {node: max(one.get(node, nobody), other.get(node, nobody)) for node in one.keys() | other.keys()}


NODES = st.builds(
    lambda bucket, rest: bytes((bucket,)) + bytes(14) + bytes((rest,)), st.integers(0, 5), st.integers(0, 9)
)
MARKS = st.builds(
    Mark, st.integers(1, 2), st.integers(0, 1), st.sampled_from([Standing.LIVE, Standing.DEAD, Standing.LEFT])
)
MARKS_BY_NODE = st.dictionaries(NODES, MARKS, max_size=25)


# ---------------------------------------------------------------- what comes of it
@given(MARKS_BY_NODE, MARKS_BY_NODE)
def test_any_two_lists_become_what_both_know_in_three_round_trips(
    ours: dict[bytes, Mark], theirs: dict[bytes, Mark]
) -> None:
    one, other = Book(ours), Book(theirs)
    talk = exchange(one, other)
    assert one.members == other.members == union(ours, theirs)
    assert talk.round_trips <= 3
    told = [node for side in talk.told.values() for node in side]
    assert len(set(told)) == len(told), "nothing is told twice"


@given(MARKS_BY_NODE, MARKS_BY_NODE, st.integers(1, 4), st.integers(2, 3), st.integers(1, 3))
def test_so_they_do_when_everything_is_cut_into_small_pieces(
    ours: dict[bytes, Mark], theirs: dict[bytes, Mark], items: int, chunks: int, statements: int
) -> None:
    one, other = Book(ours), Book(theirs)
    with (
        patch.object(sync, "ITEMS_MAX", items),
        patch.object(sync, "TURN_CHUNKS_MAX", chunks),
        patch.object(sync, "CHUNK_ITEMS_MAX", statements),
    ):
        talk = exchange(one, other)
    assert one.members == other.members == union(ours, theirs)
    for told in talk.told.values():
        classes = [STATEMENT.unpack_from(statement)[3] for statement in told]
        assert sorted(classes, key=lambda standing: standing != Standing.LIVE) == classes, "Alives first"


@given(MARKS_BY_NODE, MARKS_BY_NODE, st.lists(st.tuples(st.booleans(), NODES, MARKS), max_size=8))
def test_changes_meanwhile_break_nothing_and_the_next_exchange_settles_them(
    ours: dict[bytes, Mark], theirs: dict[bytes, Mark], changes: list[tuple[bool, bytes, Mark]]
) -> None:
    books = Book(ours), Book(theirs)
    for to, _, _, step in converse(*pair(*books), 0, 1):
        for chunk in step.members:
            books[to].take_in(chunk)
        if changes:
            side, node, mark = changes.pop()
            books[side].put(node, max(mark, books[side].members.get(node, mark)))
    known = union(books[0].members, books[1].members)
    exchange(*books)
    assert books[0].members == books[1].members == known


# ---------------------------------------------------------------- what it costs
def crowd(count: int) -> dict[bytes, Mark]:
    rng = random.Random(count)
    return {rng.randbytes(16): Mark(1, 0, Standing.LIVE) for _ in range(count)}


@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_in_sync_it_is_a_few_bytes_each_way_whatever_the_size(count: int) -> None:
    members = crowd(count)
    talk = exchange(Book(members), Book(members))
    assert talk.bytes <= 32
    assert talk.round_trips == 1


@pytest.mark.parametrize(("differences", "kilobytes"), [(1, 5), (10, 25), (100, 170), (1000, 900)])
def test_among_ten_thousand_the_cost_is_that_of_the_differences(differences: int, kilobytes: float) -> None:
    members = crowd(10_000)
    one, other = Book(members), Book(members)
    changed = random.Random(1).sample(sorted(members), differences)
    for index, node in enumerate(changed):
        (one if index % 2 else other).put(node, Mark(1, 1, Standing.LIVE))
    talk = exchange(one, other)
    assert one.root == other.root
    assert talk.bytes <= kilobytes * 1000
    assert len(talk.told[0]) + len(talk.told[1]) == differences
    buckets_bytes, bucket_bytes = 2100, 33 * 10_000 / 256
    assert talk.bytes <= buckets_bytes + differences * (bucket_bytes * 1.6 + STATEMENT_BYTES + 40)


def test_who_knows_nobody_gets_everybody_a_bounded_piece_at_a_time() -> None:
    members = crowd(10_000)
    joiner, teller = Book({bytes(16): Mark(1, 0, Standing.LIVE)}), Book(members)
    talk = exchange(joiner, teller)
    assert joiner.members == teller.members
    assert talk.bytes < 1.02 * 10_000 * STATEMENT_BYTES
    assert talk.turn_bytes_max <= (TURN_CHUNKS_MAX + 1) * FRAME_BYTES_MAX
    assert talk.round_trips <= 3 + talk.bytes / ((TURN_CHUNKS_MAX - 1) * CHUNK_BYTES_MAX)
    back = exchange(Book(members), Book({bytes(16): Mark(1, 0, Standing.LIVE)}))
    assert back.bytes < 10_000 * (STATEMENT_BYTES + 32 + 16 + 8)  # statement, item, id wanted, framing
    assert back.turn_bytes_max <= (TURN_CHUNKS_MAX + 1) * FRAME_BYTES_MAX


def test_ids_made_to_fall_into_one_bucket_are_reconciled_too() -> None:
    members = {b"\x07" + node[1:]: mark for node, mark in crowd(5000).items()}
    one, other = Book(dict(list(members.items())[:4000])), Book(dict(list(members.items())[1000:]))
    exchange(one, other)
    assert one.members == other.members == members


def test_of_a_death_only_the_proof_is_told() -> None:
    members = crowd(100)
    one, other = Book(members), Book(members)
    node = min(members)
    one.put(node, Mark(1, 0, Standing.DEAD))
    talk = exchange(one, other)
    assert talk.told == {0: [], 1: [STATEMENT.pack(node, 1, 0, Standing.DEAD)]}
    other.put(node, Mark(1, 1, Standing.LEFT))
    talk = exchange(one, other)
    assert [len(statement) for statement in talk.told[0]] == [STATEMENT_BYTES, STATEMENT.size]


# ---------------------------------------------------------------- what is refused
ID, OTHER_ID = b"\x01" + bytes(15), b"\x02" + bytes(15)
LIVE = Mark(1, 0, Standing.LIVE)
CHUNK = pack([1, [STATEMENT.pack(ID, 1, 0, 1)]])
NOTHING = Items(more=False, cut=False, groups=())


def wanted(*whole: bytes, more: bool = False) -> bytes:
    return encode_frame(Wanted(more=more, whole=whole, proofs=()))


def items(*nodes: bytes, more: bool = False, cut: bool = False) -> bytes:
    groups = tuple(
        Group(bucket=bucket, items=tuple((node, LIVE) for node in sorted(nodes) if node[0] == bucket))
        for bucket in sorted({node[0] for node in nodes})
    )
    return encode_frame(Items(more=more, cut=cut, groups=groups))


def initiator(*frames: bytes) -> MemberExchange:
    """One that has one member in a bucket that differs, and has been sent `frames`."""
    made = machine(Book({ID: LIVE}), initiator=True)
    made.start()
    for frame in frames:
        made.receive(frame)
    return made


def responder(*frames: bytes) -> MemberExchange:
    made = machine(Book({OTHER_ID: LIVE}), initiator=False)
    for frame in frames:
        made.receive(frame)
    return made


SUMMARY = encode_frame(Summary(root=b"x" * 8, count=1, notice=EMPTY))
BUCKETS = encode_frame(Buckets(values=bytes(2048), notice=EMPTY))
SAME = encode_frame(Same(notice=EMPTY))


@pytest.mark.parametrize("frame", [SUMMARY, items(), wanted(), CHUNK, b"", b"\xff"])
def test_an_initiator_is_answered_with_same_or_buckets(frame: bytes) -> None:
    with pytest.raises(ExchangeError):
        initiator(frame)


@pytest.mark.parametrize("frame", [SAME, BUCKETS, items(), wanted(), b"", b"\xff"])
def test_a_responder_is_asked_with_a_summary_first(frame: bytes) -> None:
    with pytest.raises(ExchangeError):
        responder(frame)


@pytest.mark.parametrize("frame", [SUMMARY, SAME, BUCKETS, items(), CHUNK])
def test_nothing_follows_the_end(frame: bytes) -> None:
    empty = machine(Book({}), initiator=False)
    empty.receive(encode_frame(Summary(root=bytes(8), count=0, notice=EMPTY)))
    for ended in (initiator(SAME), initiator(BUCKETS, wanted()), responder(SUMMARY, items()), empty):
        assert ended.done
        with pytest.raises(ExchangeError):
            ended.receive(frame)


def test_statements_nobody_asked_for_are_refused() -> None:
    with pytest.raises(ExchangeError, match="nobody asked for"):
        responder(SUMMARY, CHUNK)
    with pytest.raises(ExchangeError, match="nobody asked for"):
        responder(SUMMARY, items(OTHER_ID), CHUNK)  # it knew that one
    assert responder(SUMMARY, items(ID)).receive(CHUNK).members == (CHUNK,)


@pytest.mark.parametrize("asking", [True, False])
def test_a_turn_has_so_many_statements_and_no_more(asking: bool) -> None:
    talking = initiator(BUCKETS) if asking else responder(SUMMARY, items(ID))
    for _ in range(TURN_CHUNKS_MAX):
        talking.receive(CHUNK)
    with pytest.raises(ExchangeError, match="more statements"):
        talking.receive(CHUNK)


def test_an_exchange_has_so_many_statements_and_no_more() -> None:
    talking = initiator(BUCKETS)
    for _ in range(CHUNKS_MAX // TURN_CHUNKS_MAX):
        for _ in range(TURN_CHUNKS_MAX):
            talking.receive(CHUNK)
        talking.receive(wanted(more=True))
    with pytest.raises(ExchangeError, match="more statements"):
        talking.receive(CHUNK)


def test_a_chunk_too_large_is_refused() -> None:
    with pytest.raises(ExchangeError, match="more statements"):
        initiator(BUCKETS, b"\x92\x01" + bytes(CHUNK_BYTES_MAX))


def test_turns_without_end_are_ended() -> None:
    for talking, frame in ((initiator(BUCKETS), wanted(more=True)), (responder(SUMMARY), items(more=True))):
        for _ in range(TURNS_MAX - 1):
            talking.receive(frame)
        with pytest.raises(ExchangeError, match="no end"):
            talking.receive(frame)


def test_who_wants_more_than_it_was_offered_is_refused() -> None:
    with pytest.raises(ExchangeError, match="more than it was offered"):
        initiator(BUCKETS, wanted(ID, OTHER_ID))
    with pytest.raises(ExchangeError, match="more than it was offered"):
        initiator(BUCKETS, wanted(ID, more=True), wanted(ID))


@pytest.mark.parametrize(
    "again",
    [
        items(ID),
        items(b"\x00" * 16),
        items(ID, OTHER_ID),
        encode_frame(Items(more=False, cut=False, groups=(Group(bucket=1, items=()),))),
    ],
)
def test_what_was_listed_is_not_listed_again(again: bytes) -> None:
    with pytest.raises(ExchangeError, match="listed already"):
        responder(SUMMARY, items(ID, more=True), again)


def test_a_bucket_that_was_cut_goes_on_behind_the_cut() -> None:
    middle = ID[:-1] + b"\x05"
    talking = responder(SUMMARY, items(ID, middle, more=True, cut=True))
    with pytest.raises(ExchangeError, match="listed already"):
        talking.receive(items(middle))
    talking = responder(SUMMARY, items(ID, middle, more=True, cut=True))
    assert decode_frame(talking.receive(items(ID[:-1] + b"\x06")).send[-1])


@given(
    st.lists(FRAMES.map(encode_frame) | st.binary(max_size=60) | st.just(CHUNK), max_size=6), st.booleans()
)
def test_whatever_is_sent_is_taken_or_refused(frames: list[bytes], asking: bool) -> None:
    talking = initiator(BUCKETS) if asking else responder(SUMMARY)
    sent = 0
    for frame in frames:
        try:
            step = talking.receive(frame)
        except ExchangeError:
            return
        sent += len(step.send)
        assert len(step.members) <= 1
    assert sent <= 3 * len(frames)


@given(st.binary(max_size=400))
def test_any_bytes_are_members_or_malformed(data: bytes) -> None:
    try:
        decode_members(data)
    except MalformedError:
        pass


def test_a_list_of_members_too_large_is_refused_unread() -> None:
    with pytest.raises(MalformedError, match="at most"):
        decode_members(bytes(CHUNK_BYTES_MAX + 1))


# ---------------------------------------------------------------- real engines
def meet(one: Engine, other: Engine) -> tuple[int, list[Rejected]]:
    """An exchange of two engines: its bytes, and what either side rejected."""
    size, rejected = 0, []
    machines = one.exchange(other.id, initiator=True), other.exchange(one.id, initiator=False)
    for to, sender, frame, step in converse(*machines, one, other):
        size += len(frame)
        for chunk in step.members:
            outputs = to.step(START, MembersReceived(node=sender.id, data=chunk))
            rejected += [output for output in outputs if isinstance(output, Rejected)]
    return size, rejected


def told(engine: Engine, payload: tuple[bytes, ...]) -> list[Rejected]:
    return [
        output
        for chunk in payload
        for output in engine.step(START, MembersReceived(node=None, data=chunk))
        if isinstance(output, Rejected)
    ]


def states(engine: Engine) -> dict[str, str]:
    return {member.name: member.state.value for member in engine.members()}


def test_members_are_told_with_their_proofs() -> None:
    one, other = engine_of("one"), engine_of("other")
    acquaint(one, "a", "b", "c", "d")
    acquaint(other, "a", "e")
    told(one, (pack([1, [suspicion(accuser, "a").encode() for accuser in ("b", "c", "d")]]),))
    one._parts.judge.condemn_due(START + 1000)
    told(one, (pack([1, [suspicion("c", "b").encode()]]),))
    told(other, (pack([1, [sign_left(identity_of("e"), rank=(1, 1)).encode()]]),))
    assert meet(one, other)[1] == []
    other._parts.judge.condemn_due(
        START + 1000
    )  # whether a Dead on a stream is believed is the judge's business
    assert states(one) == dict.fromkeys(("one", "other", "c", "d"), "alive") | {
        "a": "dead", "b": "suspect", "e": "left",
    }  # fmt: skip
    assert states(other) == states(one) | {"b": "dead"}


def test_engines_in_sync_exchange_a_few_bytes() -> None:
    one, other = engine_of("one"), engine_of("other")
    acquaint(one, "a", "b", "c")
    meet(one, other)
    assert meet(one, other) == (meet(other, one)[0], [])
    assert meet(one, other)[0] <= 32


SPEAKERS = {name: Speaker(name) for name in "abcdefgh"}
FACTS = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.tuples(st.integers(1, 2), st.integers(0, 2), st.sampled_from(["alive", "dead", "left"])),
)


def engine_with(name: str, facts: dict[str, tuple[int, int, str]]) -> Engine:
    engine = engine_of(name)
    alives, proofs = [], []
    for member, (boot, incarnation, state) in facts.items():
        alives.append(SPEAKERS[member].alive(boot=boot, incarnation=2 * incarnation).encode())
        if state == "left":
            left = sign_left(SPEAKERS[member].identity, rank=(boot, 2 * incarnation + 1))
            proofs.append(left.encode())
        elif state == "dead":
            accusers = [accuser for accuser in "ijk" if accuser != member]
            alives += [Speaker(accuser).alive().encode() for accuser in accusers]
            rank = (boot, 2 * incarnation)
            proofs += [suspicion(accuser, member, rank).encode() for accuser in accusers]
    told(engine, (pack([1, alives + proofs]),))
    engine._parts.judge.condemn_due(START + 1000)
    return engine


@given(FACTS, FACTS)
def test_two_rosters_become_what_the_judge_makes_of_both(
    ours: dict[str, tuple[int, int, str]], theirs: dict[str, tuple[int, int, str]]
) -> None:
    one, other, third = engine_with("one", ours), engine_with("other", theirs), engine_of("third")
    told(third, members_payload(one) + members_payload(other))
    _, rejected = meet(one, other)
    assert rejected == []
    for engine in (one, other, third):
        engine._parts.judge.condemn_due(START + 1000)
    found = [{(m.id, m.rank, m.state) for m in engine.members()} for engine in (one, other, third)]
    assert found[0] == found[1] == {fact for fact in found[2] if fact[0] != third.id}
    assert one._parts.view.root == other._parts.view.root


def test_who_is_suspected_hears_it_by_stream_though_the_lists_are_equal() -> None:
    for asks in (True, False):
        one, other = engine_of("one"), engine_of("other")
        acquaint(one, "a", "b")
        meet(one, other)
        told(one, (pack([1, [suspicion("a", "other").encode()]]),))
        assert one._parts.view.root == other._parts.view.root
        size, rejected = meet(one, other) if asks else meet(other, one)
        assert (rejected, other.statistics().refutations) == ([], 1)
        assert size < 200
        meet(one, other)
        assert states(one)["other"] == "alive"


def test_each_side_of_an_exchange_hears_at_least_that_the_other_lives() -> None:
    one, other = Book({ID: LIVE}), Book({ID: LIVE})
    heard = [(to, step.members) for to, _, _, step in converse(*pair(one, other), 0, 1)]
    assert heard == [(1, (EMPTY,)), (0, (EMPTY,))]


def test_who_is_thought_dead_hears_it_in_the_exchange_and_refutes() -> None:
    one, other = engine_of("one"), engine_of("other")
    acquaint(one, "a", "b", "c", "other")
    told(one, (pack([1, [suspicion(accuser, "other").encode() for accuser in "abc"]]),))
    one._parts.judge.condemn_due(START + 1000)
    meet(one, other)
    meet(one, other)
    assert states(one)["other"] == "alive"
    assert other.statistics().refutations == 1


def test_the_evicted_and_the_expired_are_not_passed_on_and_not_asked_for() -> None:
    teller, pupil = engine_of("teller"), engine_of("pupil")
    acquaint(teller, "a", "b")
    for engine, name in ((teller, "a"), (pupil, "b")):
        engine.step(START, Evict(node=identity_of(name).id, reason="revoked"))
    assert meet(teller, pupil)[1] == []
    assert states(pupil) == {"pupil": "alive", "teller": "alive"}
    nodes = {statement.node for chunk in members_payload(teller) for statement in decode_members(chunk)}
    assert nodes == {teller.id, pupil.id, identity_of("b").id}
    teller.step(START + 8 * 86_400, SyncFailed(address=("10.0.0.9", 1)))  # a week has gone by
    assert len(decode_members(members_payload(teller)[0])) == 1


def test_large_payloads_come_in_bounded_chunks_with_the_teller_first() -> None:
    teller, pupil = engine_of("teller"), engine_of("pupil")
    for start in range(0, 300, 50):
        acquaint(teller, *(f"m{index}" for index in range(start, start + 50)))
    payload = members_payload(teller)
    assert len(payload) > 1
    assert all(len(chunk) <= CHUNK_BYTES_MAX for chunk in payload)
    first = decode_members(payload[0])[0]
    assert isinstance(first, Alive)
    assert first.node == teller.id
    assert told(pupil, payload) == []
    assert len(pupil.members()) == 302


@pytest.mark.parametrize("asker", ["teller", "pupil"])
def test_with_whole_lists_everything_goes_both_ways_at_once(asker: str) -> None:
    engines = {name: engine_of(name, config=memberlist()) for name in ("teller", "pupil")}
    acquaint(engines["teller"], "a", "b")
    one = engines[asker]
    other = engines["pupil" if asker == "teller" else "teller"]
    for _ in range(2):
        statements = [
            decode_statement(statement)
            for _, _, frame, _ in converse(
                one.exchange(other.id, initiator=True), other.exchange(one.id, initiator=False), one, other
            )
            for statement in unpack_array(frame, size_max=FRAME_BYTES_MAX)[1]
        ]
        assert {statement.node for statement in statements} >= {identity_of(name).id for name in "ab"}
        assert meet(one, other)[1] == []
    assert len(statements) == 8
    assert set(states(engines["pupil"])) == {"teller", "pupil", "a", "b"}


@pytest.mark.parametrize("whole_asks", [False, True])
def test_a_responder_follows_the_way_of_the_initiator(whole_asks: bool) -> None:
    one, other = engine_of("one", config=memberlist()), engine_of("other")
    acquaint(one, "a")
    acquaint(other, "b")
    meet(one, other) if whole_asks else meet(other, one)
    assert set(states(one)) == set(states(other)) == {"one", "other", "a", "b"}
