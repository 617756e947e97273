import random

from hypothesis import given
from hypothesis import strategies as st

from gossip.digest import BUCKETS, ROOT_BYTES, Digest, Mark, Standing

NODES = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(0, 2**64 - 1)
COUNTED = st.sampled_from([Standing.LIVE, Standing.DEAD, Standing.LEFT])
MARKS = st.builds(Mark, NUMBERS, NUMBERS, COUNTED)
LISTS = st.dictionaries(NODES, MARKS, max_size=12)


def digest_of(members: dict[bytes, Mark]) -> Digest:
    digest = Digest()
    for node, mark in members.items():
        digest.replace(node, None, mark)
    return digest


def state(digest: Digest) -> tuple[bytes, bytes, int]:
    return digest.root, digest.values(), digest.count


@given(LISTS, st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(members: dict[bytes, Mark], rng: random.Random) -> None:
    shuffled = list(members.items())
    rng.shuffle(shuffled)
    assert state(digest_of(members)) == state(digest_of(dict(shuffled)))


@given(LISTS, LISTS)
def test_a_digest_changed_step_by_step_is_that_of_the_list_it_ends_with(
    before: dict[bytes, Mark], after: dict[bytes, Mark]
) -> None:
    digest = digest_of(before)
    for node in before.keys() | after.keys():
        digest.replace(node, before.get(node), after.get(node))
    assert state(digest) == state(digest_of(after))


@given(LISTS)
def test_the_root_is_the_sum_of_the_buckets(members: dict[bytes, Mark]) -> None:
    digest = digest_of(members)
    values = digest.values()
    assert len(values) == BUCKETS * ROOT_BYTES
    sums = [int.from_bytes(values[at : at + ROOT_BYTES], "big") for at in range(0, len(values), ROOT_BYTES)]
    assert (sum(sums) % 2**64).to_bytes(ROOT_BYTES, "big") == digest.root
    assert {number for number, value in enumerate(sums) if value} == {node[0] for node in members}
    assert digest.count == len(members)


@given(NODES, MARKS, NODES, MARKS)
def test_whatever_is_different_shows(node: bytes, mark: Mark, other: bytes, theirs: Mark) -> None:
    same = (node, mark) == (other, theirs)
    assert (digest_of({node: mark}).root == digest_of({other: theirs}).root) == same


def test_id_rank_and_class_all_count() -> None:
    node, mark = bytes(16), Mark(1, 2, Standing.LIVE)
    roots = {
        digest_of({key: value}).root
        for key, value in [
            (node, mark),
            (b"\x00" * 15 + b"\x01", mark),
            (node, mark._replace(boot=2)),
            (node, mark._replace(incarnation=1)),
            (node, mark._replace(standing=Standing.DEAD)),
            (node, mark._replace(standing=Standing.LEFT)),
        ]
    }
    assert len(roots) == 6


def test_who_stands_nowhere_does_not_count() -> None:
    digest = Digest()
    digest.replace(bytes(16), None, Mark(1, 0, Standing.NONE))
    assert state(digest) == state(Digest())
    digest.replace(bytes(16), Mark(1, 0, Standing.NONE), Mark(1, 0, Standing.LIVE))
    assert digest.count == 1
    digest.replace(bytes(16), Mark(1, 0, Standing.LIVE), Mark(1, 1, Standing.NONE))
    assert state(digest) == state(Digest())


def test_left_prevails_over_dead_and_dead_over_live_but_a_higher_rank_over_all() -> None:
    marks = [
        Mark(1, 0, Standing.LIVE),
        Mark(1, 0, Standing.DEAD),
        Mark(1, 0, Standing.LEFT),
        Mark(1, 1, Standing.LIVE),
        Mark(2, 0, Standing.LIVE),
    ]
    assert sorted(marks[index] for index in (3, 1, 4, 0, 2)) == marks


@given(LISTS, NODES, MARKS)
def test_copies_go_ways_of_their_own(members: dict[bytes, Mark], node: bytes, mark: Mark) -> None:
    base = digest_of(members)
    before = state(base)
    one, other = base.copy(), base.copy()
    one.replace(node, members.get(node), mark)
    assert state(base) == state(other) == before
    assert state(one) == state(digest_of(members | {node: mark}))
    base.replace(node, members.get(node), mark)
    assert state(base) == state(one)
    assert state(other) == before


def test_copies_share_their_memory_until_they_change() -> None:
    base = digest_of({bytes(16): Mark(1, 0, Standing.LIVE)})
    copies = [base.copy() for _ in range(100)]
    assert len({id(copy._values) for copy in copies}) == 1
    copies[0].replace(b"\x01" * 16, None, Mark(1, 0, Standing.LIVE))
    assert len({id(copy._values) for copy in copies}) == 2
    changed = id(copies[0]._values)
    copies[0].replace(b"\x02" * 16, None, Mark(1, 0, Standing.LIVE))
    assert id(copies[0]._values) == changed
    assert copies[1]._values is base._values
