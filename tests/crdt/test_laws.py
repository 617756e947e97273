"""The laws of merging, for every replicated type: one table of types, one list of laws, each law on each type.

A type is given by how states come about, how two merge, what a delta is, the order of states, and the bytes a state is
compared by. Registers, sets and maps have no merge of their own: they are folds over journals. Their state is a journal
in which several authors edited, deleted and heard of one another, and they are compared by what the fold makes of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import counter
from crdt.clock import HybridClock, VersionVector
from crdt.codec import pack
from crdt.counter import Tally, decode_tally, encode_tally
from crdt.journal import Journal
from crdt.ormap import live_versions
from crdt.record import Record
from crdt.register import context_for, versions

KEYS = "abc"


@dataclass(frozen=True)
class Type:
    """`states` draws three states that may be merged."""

    name: str
    states: Callable[[Any], st.SearchStrategy[list[Any]]]
    merge: Callable[[Any, Any], Any]
    apply: Callable[[Any, Any], Any]  # the first state, and a delta of the second for it
    below: Callable[[Any, Any], bool]
    heads: Callable[[Any], Any]
    canonical: Callable[[Any], bytes]


# ---------------------------------------------------------------------- plain lattices


def observed(clock: int, stamp: int) -> int:
    moved = HybridClock(clock)
    moved.observe(stamp, 0)
    return moved.last


def three(strategy):
    return lambda _crdt: st.lists(strategy, min_size=3, max_size=3)


def vector_delta(mine: VersionVector, theirs: VersionVector) -> VersionVector:
    return VersionVector((w, seq) for w, seq in theirs.items() if seq > mine.get(w, 0))


VECTORS = st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 4)).map(VersionVector)

# ---------------------------------------------------------------------- counters

WIDTH_MS = 10


@st.composite
def tallies(draw) -> Tally:
    """Counted by whoever, whenever, over a few windows more than are kept; the clock may go back."""
    tally = Tally(width_ms=WIDTH_MS)
    for key, now_ms in draw(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 75)), max_size=6)):
        tally = tally.add({key: draw(st.integers(1, 3))}, now_ms)
    return tally


@pytest.fixture(scope="module", autouse=True)
def small_bounds():
    """So small that many examples overstep them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter, "WINDOWS_MAX", 4)
        patch.setattr(counter, "KEYS_MAX", 3)
        yield


def tally_bytes(tally: Tally) -> bytes:
    assert len(tally.keys) <= counter.KEYS_MAX
    data = encode_tally(tally)
    assert decode_tally(data) == tally
    return data


# ---------------------------------------------------------------------- folds over journals


@st.composite
def journals(draw, crdt) -> list[Journal]:
    """Three peers who edit a few keys, delete them and hear of one another."""
    authors = [crdt.Author(number) for number in range(3)]
    peers = st.integers(0, 2)
    steps = st.tuples(
        st.sampled_from(["edit", "delete", "hear", "hear"]), peers, peers, st.sampled_from(KEYS)
    )
    for number, (step, one, other, key) in enumerate(draw(st.lists(steps, max_size=12))):
        author = authors[one]
        if step == "hear":
            absorb_all(crdt, author.journal, authors[other].journal, from_start=False)
        else:
            held = [record for record in author.journal.records("policy") if record.key == key]
            payload = b"" if step == "delete" else b"%d" % number
            author.write(key, payload, context=context_for(held, author.id))
    return [author.journal for author in authors]


def absorb_all(crdt, journal: Journal, source: Journal, *, from_start: bool) -> None:
    for writer in list(source.heads):
        after = 0 if from_start else journal.heads.get(writer, 0)
        assert journal.absorb(source.delta(writer, after, 2**30), crdt.NOW_MS).refused == ()


def twin(crdt, journal: Journal) -> Journal:
    made = crdt.replica()
    assert made.restore(list(journal.records("policy")), dict(journal.heads)) == ()
    return made


def journal_type(crdt, name: str, canonical: Callable[[Journal], bytes]) -> Type:
    def joined(from_start: bool) -> Callable[[Journal, Journal], Journal]:
        def join(one: Journal, other: Journal) -> Journal:
            made = twin(crdt, one)
            absorb_all(crdt, made, other, from_start=from_start)
            return made

        return join

    def below(one: Journal, other: Journal) -> bool:
        """Seen there, and nothing that was replaced or deleted here is back there."""
        current = {record for held in live_versions(other.records("policy")).values() for record in held}
        replaced = set(one.records("policy")) - {
            record for held in live_versions(one.records("policy")).values() for record in held
        }
        return VersionVector(other.heads).descends(VersionVector(one.heads)) and not replaced & current

    return Type(
        name=name,
        states=journals,
        merge=joined(True),
        apply=joined(False),
        below=below,
        heads=lambda journal: dict(journal.heads),
        canonical=canonical,
    )


def said(records: tuple[Record, ...]) -> list[bytes]:
    return [record.signing_bytes() for record in records]


def by_key(journal: Journal) -> dict[str, list[Record]]:
    return {key: [r for r in journal.records("policy") if r.key == key] for key in KEYS}


def lww(journal: Journal) -> bytes:
    return pack({key: said(versions(records)[:1]) for key, records in by_key(journal).items()})


def multi_value(journal: Journal) -> bytes:
    return pack({key: said(versions(records)) for key, records in by_key(journal).items()})


def or_set(journal: Journal) -> bytes:
    """The keys present: an edit adds, a deletion removes the additions its author saw."""
    return pack(list(live_versions(journal.records("policy"))))


def or_map(journal: Journal) -> bytes:
    return pack({key: said(held) for key, held in live_versions(journal.records("policy")).items()})


def whole_replica(journal: Journal) -> bytes:
    return journal.canonical() + journal.fingerprint()


FOLDS = {"LWW": lww, "MV": multi_value, "OR-set": or_set, "OR-map": or_map, "journal": whole_replica}

LATTICES = {
    "HLC": Type(
        name="HLC",
        states=three(st.integers(0, 2**20)),
        merge=observed,
        apply=lambda mine, theirs: observed(mine, theirs) if theirs > mine else mine,
        below=lambda one, other: one <= other,
        heads=lambda clock: clock,
        canonical=pack,
    ),
    "version vector": Type(
        name="version vector",
        states=three(VECTORS),
        merge=VersionVector.merge,
        apply=lambda mine, theirs: mine.merge(vector_delta(mine, theirs)),
        below=lambda one, other: other.descends(one),
        heads=dict,
        canonical=lambda vector: pack(vector.entries),
    ),
    "windowed counter": Type(
        name="windowed counter",
        states=three(tallies()),
        merge=Tally.merge,
        apply=lambda mine, theirs: mine.merge(theirs.delta(mine)),
        below=lambda one, other: other.descends(one),
        heads=lambda tally: (tally.floor_ms, dict(tally.cells)),
        canonical=tally_bytes,
    ),
}


def type_of(crdt, name: str) -> Type:
    return LATTICES.get(name) or journal_type(crdt, name, FOLDS[name])


# ---------------------------------------------------------------------- the laws


def commutative(kind: Type, a: Any, b: Any, c: Any) -> None:
    assert kind.canonical(kind.merge(a, b)) == kind.canonical(kind.merge(b, a))


def associative(kind: Type, a: Any, b: Any, c: Any) -> None:
    left = kind.merge(kind.merge(a, b), c)
    assert kind.canonical(left) == kind.canonical(kind.merge(a, kind.merge(b, c)))


def idempotent(kind: Type, a: Any, b: Any, c: Any) -> None:
    assert kind.canonical(kind.merge(a, a)) == kind.canonical(a)
    both = kind.merge(a, b)
    assert kind.canonical(kind.merge(both, b)) == kind.canonical(kind.merge(both, a)) == kind.canonical(both)


def monotone(kind: Type, a: Any, b: Any, c: Any) -> None:
    """A merge is above both, the least that is, and keeps the order of what is merged."""
    both, more = kind.merge(a, b), kind.merge(kind.merge(a, b), c)
    assert kind.below(a, both)
    assert kind.below(b, both)
    assert kind.below(kind.merge(a, c), more)
    for state in (a, b, c):  # what is above both is above their merge
        if kind.below(a, state) and kind.below(b, state):
            assert kind.below(both, state)


def delta_is_state(kind: Type, a: Any, b: Any, c: Any) -> None:
    assert kind.canonical(kind.apply(a, b)) == kind.canonical(kind.merge(a, b))
    assert kind.canonical(kind.apply(kind.apply(a, b), c)) == kind.canonical(kind.merge(kind.merge(a, b), c))


def equal_heads_are_equal_bytes(kind: Type, a: Any, b: Any, c: Any) -> None:
    """Of all states that two or three of the given ones lead to, by states or by deltas, in any order."""
    paths = [(x,) for x in (a, b, c)] + [(x, y) for x in (a, b, c) for y in (a, b, c) if x is not y]
    paths += [(a, b, c), (c, a, b), (b, c, a)]
    reached = []
    for number, (first, *rest) in enumerate(paths):
        state = first
        for other in rest:
            state = (kind.merge, kind.apply)[number % 2](state, other)
        reached.append((kind.heads(state), kind.canonical(state)))
    for heads, data in reached:
        assert all(data == other_data for other_heads, other_data in reached if other_heads == heads)
    assert reached[-1] == reached[-2] == reached[-3]


LAWS = [commutative, associative, idempotent, monotone, delta_is_state, equal_heads_are_equal_bytes]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", [*LATTICES, *FOLDS])
@given(data=st.data())
def test_law(crdt, name, law, data):
    kind = type_of(crdt, name)
    law(kind, *data.draw(kind.states(crdt)))
