"""Quantiles as the tables mean them: the least value that so large a share of all does not exceed (nearest rank).

Invariant: a quantile is one of the values; of none there is none.
"""

import math
from collections.abc import Iterable


def quantile(values: Iterable[float], share: float) -> float | None:
    """The value at that share, 0 < share <= 1."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float | None:
    return quantile(values, 0.5)


def largest(values: Iterable[float]) -> float | None:
    return max(values, default=None)
