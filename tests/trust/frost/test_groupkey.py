"""The public half of a shared key is one polynomial or refused; the secret half fits it or does not exist."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.codec import pack
from trust.errors import AuthorityError, GroupError
from trust.group import IDENTITY, ONE, ZERO, Secret, base_mul, scalar_of
from trust.groupkey import (
    EPOCH_MAX,
    GROUP_KEY_BYTES_MAX,
    GroupKey,
    KeyShare,
    decode_group_key,
    group_key,
    identifier_of,
    in_order,
    node_of,
)

NewGroup = Callable[..., Any]


def table(key: GroupKey) -> bytes:
    return b"".join(identifier + point for identifier, point in key.members)


def test_reads_back_what_it_encoded(new_group: NewGroup) -> None:
    for t, n in ((1, 1), (2, 3), (3, 5)):
        key = new_group(t, n, epoch=EPOCH_MAX).key
        assert decode_group_key(key.encode()) == key
        assert group_key(key.public, t, reversed(key.members), epoch=EPOCH_MAX) == key


def test_a_group_of_the_largest_size_fits_its_bound(new_group: NewGroup) -> None:
    key = new_group(2, 32, epoch=EPOCH_MAX).key
    assert len(key.encode()) <= GROUP_KEY_BYTES_MAX
    assert decode_group_key(key.encode()) == key
    more = [*key.members, (scalar_of(33), key.public)]
    with pytest.raises(AuthorityError, match="1 to 32 are possible"):
        group_key(key.public, 2, more)


def test_parts_that_do_not_belong_together_are_refused(new_group: NewGroup) -> None:
    key = new_group(2, 4).key
    first, second, third, fourth = key.members
    elsewhere = base_mul(scalar_of(7))
    for public, threshold, members, reason in (
        (elsewhere, 2, key.members, "not those of the root"),
        (key.public, 2, [first, second, third, (fourth[0], elsewhere)], "one polynomial"),
        (key.public, 3, [*key.members[:3], (fourth[0], elsewhere)], "one polynomial"),
        (key.public, 1, key.members, "not those of the root"),
        (key.public, 0, key.members, "threshold of 0"),
        (key.public, 5, key.members, "threshold of 5"),
        (key.public, 2, [], "0 participants"),
        (key.public, 2, [first, second, first], "twice"),
        (key.public, 2, [first, second, (ZERO, key.public)], "zero"),
        (key.public, 2, [first, second, (third[0], IDENTITY)], "identity"),
        (key.public, 2, [first, second, (third[0], b"\x02" + bytes(31))], "prime-order"),
        (key.public, 2, [first, second, (b"\xff" * 32, third[1])], "canonical"),
        (IDENTITY, 2, key.members, "identity"),
    ):
        with pytest.raises(AuthorityError, match=reason):
            group_key(public, threshold, members)
    with pytest.raises(AuthorityError, match="epoch"):
        group_key(key.public, 2, key.members, epoch=EPOCH_MAX + 1)


def test_a_table_that_is_cut_or_out_of_order_is_refused(new_group: NewGroup) -> None:
    key = new_group(2, 3).key
    rows = table(key)
    for data, reason in (
        (pack([key.public, 2, 0, rows[:-1]]), "cut off"),
        (pack([key.public, 2, 0, rows[64:] + rows[:64]]), "not in order"),
        (pack([key.public, 2, 0, rows[:64] + rows]), "twice"),
        (pack([key.public, 2, 0, b""]), "0 participants"),
        (pack([key.public, 2, 0, bytes(33 * 64)]), "at most"),
        (pack([key.public, 2, 0, bytes(GROUP_KEY_BYTES_MAX)]), "at most"),
    ):
        with pytest.raises(AuthorityError, match=reason):
            decode_group_key(data)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_authority_errors(data: bytes) -> None:
    with pytest.raises(AuthorityError):
        decode_group_key(data)


@given(st.binary(min_size=16, max_size=16).filter(any))
def test_a_node_is_its_identifier(node: bytes) -> None:
    assert node_of(identifier_of(node)) == node


@pytest.mark.parametrize("identifier", [bytes(16) + ONE[:16], b"\x01" * 16, b""], ids=bytes.hex)
def test_an_identifier_that_is_no_node_names_none(identifier: bytes) -> None:
    with pytest.raises(GroupError, match="not that of a node"):
        node_of(identifier)


def test_participants_are_ordered_as_integers() -> None:
    numbers = [256, 1, 257, 255, 2]
    assert in_order(map(scalar_of, numbers)) == [scalar_of(i) for i in sorted(numbers)]


def test_a_share_fits_its_group_or_does_not_exist(new_group: NewGroup) -> None:
    group = new_group(2, 3)
    share = group.shares[ONE]
    with pytest.raises(AuthorityError, match="not the one"):
        KeyShare(group.key, scalar_of(2), Secret(share.secret.expose()))
    with pytest.raises(AuthorityError, match="does not belong"):
        KeyShare(group.key, scalar_of(4), Secret(share.secret.expose()))
    with pytest.raises(AuthorityError, match="not the one"):
        KeyShare(replace(group.key, members=new_group(2, 3, seed=1).key.members), ONE, share.secret)


def test_a_share_is_neither_printed_nor_pickled_and_can_be_forgotten(new_group: NewGroup) -> None:
    group = new_group(2, 3, seed=2)
    share = group.shares[ONE]
    text = repr(share)
    assert group.key.public.hex() in text
    assert share.secret.expose().hex() not in text
    with pytest.raises(TypeError):
        pickle.dumps(share)
    share.wipe()
    assert share.secret.wiped
