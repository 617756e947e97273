"""Repair of a lost share: the published sums, any t helpers, and helpers who lie."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.errors import AuthorityError, DealingError, GroupError
from trust.group import ONE, scalar_add, scalar_of
from trust.repair import cut, gather, restore

Vectors = Callable[[str], dict[str, Any]]
LOST = scalar_of(1)


def test_reproduces_the_published_sums(vectors: Vectors) -> None:
    published = vectors("zf-repair-share.json")
    for part, prefix in (("scalar_generation", "random_scalar"), ("sigma_generation", "sigma")):
        values = {name: bytes.fromhex(value) for name, value in published[part].items()}
        total = values.pop(f"{prefix}_sum")
        assert len(values) >= 3
        assert gather(values.values()) == total


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32))
def test_any_t_helpers_restore_the_share(new_group: Callable[..., Any], t: int, more: int, seed: int) -> None:
    group = new_group(t, t + more)
    rng = Random(seed)
    helpers = rng.sample([i for i in group.shares if i != LOST], rng.randint(t, t + more - 1))
    pieces = {i: cut(group.shares[i], helpers, LOST, rng.randbytes) for i in helpers}
    sums = [gather(pieces[sender][helper] for sender in helpers) for helper in helpers]
    restored = restore(group.key, LOST, sums)
    assert restored.secret.expose() == group.shares[LOST].secret.expose()


def test_one_false_sum_is_seen(new_group: Callable[..., Any]) -> None:
    group = new_group(2, 3)
    helpers = [scalar_of(2), scalar_of(3)]
    pieces = {i: cut(group.shares[i], helpers, LOST, group.entropy) for i in helpers}
    sums = [gather(pieces[sender][helper] for sender in helpers) for helper in helpers]
    with pytest.raises(AuthorityError, match="not the one"):
        restore(group.key, LOST, [sums[0], scalar_add(sums[1], ONE)])
    with pytest.raises(AuthorityError, match="not the one"):
        restore(group.key, LOST, sums[:1])
    with pytest.raises(GroupError, match="canonical"):
        restore(group.key, LOST, [sums[0], b"\xff" * 32])


def test_too_few_helpers_the_loser_itself_and_strangers_restore_nothing(
    new_group: Callable[..., Any],
) -> None:
    group = new_group(3, 5)
    helper = group.shares[scalar_of(2)]
    with pytest.raises(DealingError, match="3 are needed"):
        cut(helper, [scalar_of(2), scalar_of(3)], LOST, group.entropy)
    with pytest.raises(DealingError, match="cannot help"):
        cut(helper, [LOST, scalar_of(2), scalar_of(3)], LOST, group.entropy)
    with pytest.raises(GroupError, match="does not belong"):
        cut(helper, [scalar_of(2), scalar_of(3), scalar_of(4)], scalar_of(9), group.entropy)
    with pytest.raises(GroupError, match="not in the set"):
        cut(helper, [scalar_of(3), scalar_of(4), scalar_of(5)], LOST, group.entropy)
    with pytest.raises(GroupError, match="twice"):
        cut(helper, [scalar_of(2), scalar_of(2), scalar_of(3)], LOST, group.entropy)
