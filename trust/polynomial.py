"""Shamir's secret sharing over the scalars of Ed25519, with Feldman's commitments (RFC 9591, appendix C).

A secret is f(0) of a polynomial f of degree t-1; the share of participant i is f(i). Any t shares give f(0) back by
Lagrange's formula, t-1 say nothing about it. Commitments to the coefficients (each times the base point) let anyone
compute f(i)*B, so a participant can check the share it was sent and everybody can know its *verifying share*.

Identifiers are scalars other than zero, for f(0) is the secret, and different from each other, for otherwise the
formula divides by zero. Coefficients and shares are secret, identifiers, commitments and Lagrange coefficients public.

Invariant: no function here takes an identifier that is zero, or a set in which one stands twice.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from trust.errors import GroupError
from trust.group import (
    IDENTITY,
    ONE,
    WIDE_BYTES,
    ZERO,
    Point,
    Scalar,
    base_mul,
    is_zero,
    point_add,
    point_mul,
    scalar_add,
    scalar_from_wide,
    scalar_invert,
    scalar_mul,
    scalar_sub,
)

PARTICIPANTS_MAX: Final = 32  # ceremonies are quadratic in them, and 3 to 7 are usual


def random_coefficients(count: int, entropy: Callable[[int], bytes]) -> tuple[Scalar, ...]:
    """`count` uniform secret scalars."""
    return tuple(scalar_from_wide(entropy(WIDE_BYTES)) for _ in range(count))


def evaluate(coefficients: Sequence[Scalar], identifier: Scalar) -> Scalar:
    """f(identifier), `coefficients` from the constant upwards: a share. Raises GroupError for identifier zero."""
    assert coefficients, "a polynomial has a constant"
    _refuse_zero(identifier)
    value = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = scalar_add(scalar_mul(value, identifier), coefficient)
    return value


def commit(coefficients: Sequence[Scalar]) -> tuple[Point, ...]:
    """Feldman's commitment: each coefficient times the base point (IDENTITY where it is zero)."""
    return tuple(base_mul(coefficient) for coefficient in coefficients)


def evaluate_commitment(commitment: Sequence[Point], identifier: Scalar) -> Point:
    """f(identifier) * B from the commitment to f alone. Raises GroupError for identifier zero or a bad point."""
    assert commitment, "a polynomial has a constant"
    _refuse_zero(identifier)
    value = commitment[-1]
    for point in reversed(commitment[:-1]):
        value = point_add(point_mul(identifier, value), point)
    return value


def matches(share: Scalar, commitment: Sequence[Point], identifier: Scalar) -> bool:
    """Whether `share` is f(identifier) of the polynomial committed to. Raises GroupError as `evaluate_commitment`."""
    return base_mul(share) == evaluate_commitment(commitment, identifier)


def sum_commitments(commitments: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """The commitment to the sum of the polynomials. All must have the same degree: raises GroupError."""
    assert commitments, "there is something to sum"
    if len({len(commitment) for commitment in commitments}) != 1:
        raise GroupError("the commitments are to polynomials of different degrees")
    total = tuple(commitments[0])
    for commitment in commitments[1:]:
        total = tuple(point_add(a, b) for a, b in zip(total, commitment, strict=True))
    return total


def lagrange(identifier: Scalar, identifiers: Collection[Scalar], at: Scalar = ZERO) -> Scalar:
    """The weight of the share of `identifier` when the shares of `identifiers` are put together into f(at):
    the product of (at - j) / (i - j) over the others j. Raises GroupError: an identifier is zero or there twice, or
    `identifier` is not among them."""
    check_identifiers(identifiers)
    if identifier not in identifiers:
        raise GroupError("the participant is not in the set")
    numerator, denominator = ONE, ONE
    for other in identifiers:
        if other != identifier:
            numerator = scalar_mul(numerator, scalar_sub(at, other))
            denominator = scalar_mul(denominator, scalar_sub(identifier, other))
    return scalar_mul(numerator, scalar_invert(denominator))


def interpolate_points(points: Mapping[Scalar, Point], at: Scalar = ZERO) -> Point:
    """f(at) * B from verifying shares by identifier. Raises GroupError as `lagrange`, or for a bad point."""
    total = IDENTITY
    for identifier, point in points.items():
        total = point_add(total, point_mul(lagrange(identifier, points, at), point))
    return total


def check_identifiers(identifiers: Collection[Scalar]) -> None:
    """Raises GroupError unless there are 1 to PARTICIPANTS_MAX, all different, none zero."""
    if not 1 <= len(identifiers) <= PARTICIPANTS_MAX:
        raise GroupError(f"{len(identifiers)} participants: 1 to {PARTICIPANTS_MAX} are possible")
    if len(set(identifiers)) != len(identifiers):
        raise GroupError("a participant is there twice")
    for identifier in identifiers:
        _refuse_zero(identifier)


def _refuse_zero(identifier: Scalar) -> None:
    if is_zero(identifier):
        raise GroupError("a participant's identifier is never zero: f(0) is the secret")
