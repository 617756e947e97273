"""Secret sharing: any t shares are the secret, a bad share is seen, and no set of participants is malformed."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trust.secret import interpolate
from trust.errors import GroupError
from trust.group import IDENTITY, ONE, ZERO, base_mul, scalar_add, scalar_mul, scalar_of, scalar_sum
from trust.polynomial import (
    PARTICIPANTS_MAX,
    check_identifiers,
    commit,
    evaluate,
    evaluate_commitment,
    interpolate_points,
    lagrange,
    matches,
    random_coefficients,
    sum_commitments,
)


def number(value: int) -> bytes:
    return scalar_of(value)


@st.composite
def sharings(draw: st.DrawFn) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
    """A polynomial, and just enough of its shares."""
    t = draw(st.integers(1, 6))
    identifiers = draw(st.lists(st.integers(1, 2**63), min_size=t, max_size=t, unique=True))
    coefficients = random_coefficients(t, draw(st.randoms(use_true_random=False)).randbytes)
    return coefficients, {number(i): evaluate(coefficients, number(i)) for i in identifiers}


def test_evaluates_as_on_paper() -> None:
    coefficients = (number(5), number(3), number(2))
    assert evaluate(coefficients, number(4)) == number(5 + 3 * 4 + 2 * 16)
    assert evaluate((number(5),), number(4)) == number(5)


@given(sharings())
def test_any_t_shares_give_the_secret_and_every_other_share(
    sharing: tuple[tuple[bytes, ...], dict[bytes, bytes]],
) -> None:
    coefficients, shares = sharing
    assert interpolate(shares) == coefficients[0]
    elsewhere = number(2**64 - 1)
    assert interpolate(shares, elsewhere) == evaluate(coefficients, elsewhere)
    points = {identifier: base_mul(share) for identifier, share in shares.items()}
    assert interpolate_points(points) == base_mul(coefficients[0])


@given(sharings())
def test_a_share_matches_the_commitment_and_no_other_does(
    sharing: tuple[tuple[bytes, ...], dict[bytes, bytes]],
) -> None:
    coefficients, shares = sharing
    commitment = commit(coefficients)
    for identifier, share in shares.items():
        assert matches(share, commitment, identifier)
        assert not matches(scalar_add(share, ONE), commitment, identifier)


@given(sharings())
def test_one_share_too_few_is_consistent_with_every_secret(
    sharing: tuple[tuple[bytes, ...], dict[bytes, bytes]],
) -> None:
    """Perfect secrecy, stated so that it can fail: t-1 shares and *any* secret lie on one polynomial of degree t-1."""
    _, shares = sharing
    few = dict(list(shares.items())[1:])
    if not few:
        return
    elsewhere = number(2**64 - 1)
    for secret in (ZERO, ONE, number(77)):
        line = {ZERO: secret, **few}  # the secret as the "share" of participant zero
        one_more = scalar_sum(scalar_mul(_weight(i, list(line), elsewhere), v) for i, v in line.items())
        assert interpolate({**few, elsewhere: one_more}) == secret


def _weight(identifier: bytes, identifiers: list[bytes], at: bytes) -> bytes:
    """Lagrange's weight, by integers, with participant zero allowed."""
    order = 2**252 + 27742317777372353535851937790883648493
    as_int = {i: int.from_bytes(i, "little") for i in [*identifiers, at]}
    product = 1
    for other in identifiers:
        if other != identifier:
            product = product * (as_int[at] - as_int[other]) % order
            product = product * pow(as_int[identifier] - as_int[other], -1, order) % order
    return product.to_bytes(32, "little")


def test_the_sum_of_commitments_commits_to_the_sum() -> None:
    entropy = Random(3).randbytes
    first, second = random_coefficients(3, entropy), random_coefficients(3, entropy)
    total = tuple(scalar_add(a, b) for a, b in zip(first, second, strict=True))
    assert sum_commitments([commit(first), commit(second)]) == commit(total)
    assert sum_commitments([commit(first)]) == commit(first)
    with pytest.raises(GroupError, match="different degrees"):
        sum_commitments([commit(first), commit(second[:2])])


def test_a_sharing_of_nothing_has_an_identity_in_its_commitment() -> None:
    """As a refresh of shares does."""
    coefficients = (ZERO, number(7))
    commitment = commit(coefficients)
    assert commitment[0] == IDENTITY
    assert evaluate_commitment(commitment, number(3)) == base_mul(number(21))
    assert matches(number(21), commitment, number(3))
    assert evaluate_commitment(commit((ZERO, ZERO)), number(3)) == IDENTITY


def test_participant_zero_does_not_exist() -> None:
    for act in (
        lambda: evaluate((ONE, ONE), ZERO),
        lambda: evaluate_commitment((base_mul(ONE),), ZERO),
        lambda: lagrange(ONE, [ONE, ZERO]),
        lambda: interpolate({ZERO: ONE, ONE: ONE}),
        lambda: interpolate_points({ZERO: base_mul(ONE)}),
        lambda: check_identifiers([ZERO]),
    ):
        with pytest.raises(GroupError, match="never zero"):
            act()


def test_a_participant_stands_once_in_a_set_and_only_members_have_a_weight() -> None:
    with pytest.raises(GroupError, match="twice"):
        lagrange(ONE, [ONE, number(2), number(2)])
    with pytest.raises(GroupError, match="not in the set"):
        lagrange(number(3), [ONE, number(2)])


@pytest.mark.parametrize("count", [0, PARTICIPANTS_MAX + 1])
def test_the_number_of_participants_is_bounded(count: int) -> None:
    with pytest.raises(GroupError, match="are possible"):
        check_identifiers([number(i + 1) for i in range(count)])
    check_identifiers([number(i + 1) for i in range(PARTICIPANTS_MAX)])
