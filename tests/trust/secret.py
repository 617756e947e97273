"""The secret put together from shares: what tests hold against the root, and what no code of a peer can do."""

from collections.abc import Mapping

from trust.group import ZERO, Scalar, scalar_mul, scalar_sum
from trust.polynomial import lagrange


def interpolate(shares: Mapping[Scalar, Scalar], at: Scalar = ZERO) -> Scalar:
    """f(at) from shares by identifier; with `at` zero this is *the secret*. Raises GroupError as `lagrange`."""
    return scalar_sum(
        scalar_mul(lagrange(identifier, shares, at), share) for identifier, share in shares.items()
    )
