"""The array types of the large simulations, and two acts on them that numpy does not have as one call."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]
Bools: TypeAlias = NDArray[np.bool_]


def first_of_each(keys: Ints, at: Floats) -> tuple[Ints, Ints]:
    """(the distinct keys, the place of each one's earliest `at`)."""
    order = np.lexsort((at, keys))
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(keys) else order
    return ordered[starts], order[starts]


def distinct_others(rng: np.random.Generator, own: Ints, members: int, count: int) -> Ints:
    """For each of `own` (numbers within a mesh of `members`) `count` distinct others: an array (len(own), count)."""
    picks = rng.integers(0, members - 1, (len(own), count))
    if count > 1:
        while True:
            ordered = np.sort(picks, axis=1)
            again = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
            if not len(again):
                break
            picks[again] = rng.integers(0, members - 1, (len(again), count))
    picks += picks >= own[:, None]  # step over oneself
    return picks
