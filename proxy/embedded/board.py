"""Numbers that each worker writes for the others to read, in memory they share.

Row 0 is how many connections each worker holds, so that they take new ones evenly (`accepting.py`); behind it are
groups of three, each what the workers hold of one cluster's limits (`SharedBreaker`). A column belongs to one worker,
and nobody else writes it while that runs: a store of eight aligned bytes is whole on every processor there is, so
nothing is locked, and a reader is at most a moment behind. When a worker ends, whatever it held has ended with it: the
control process wipes its column.

Invariant: a worker writes its own column only; the control process those of workers that do not run.
"""

import mmap
import os
import tempfile
from collections.abc import Collection, Sequence
from typing import Final

from proxy.breaker import HELD

GROUPS: Final = (
    4096  # clusters whose limits are shared; of those beyond, each worker has the limits to itself
)
ROWS: Final = 1 + GROUPS * HELD
NO_GROUP: Final = -1
_WORD_BYTES: Final = 8


class Board:
    """`workers` columns of ROWS numbers."""

    def __init__(self, descriptor: int, workers: int) -> None:
        """Takes a descriptor of memory of `size_bytes(workers)`, all zero at first."""
        self.descriptor = descriptor
        self.workers = workers
        self._map = mmap.mmap(descriptor, size_bytes(workers))
        self._numbers = memoryview(self._map).cast("q")

    @classmethod
    def make(cls, workers: int) -> "Board":
        """New memory, nothing but zero in it. Raises OSError."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("gossamer-workers", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, size_bytes(workers))
        return cls(descriptor, workers)

    def column(self, worker: int) -> memoryview:
        """The numbers of one worker, by row."""
        return self._numbers[worker * ROWS : (worker + 1) * ROWS]

    def group(self, worker: int, number: int) -> memoryview:
        """What one worker holds of the cluster whose group that is."""
        start = worker * ROWS + 1 + number * HELD
        return self._numbers[start : start + HELD]

    def wipe(self, worker: int) -> None:
        """It holds nothing any more."""
        start = worker * ROWS * _WORD_BYTES
        self._map[start : start + ROWS * _WORD_BYTES] = bytes(ROWS * _WORD_BYTES)

    def close(self) -> None:
        os.close(self.descriptor)


class Groups:
    """Which cluster has which group. A group is given away anew only once no worker serves its cluster any more."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, clusters: Sequence[str]) -> tuple[int, ...]:
        """The groups of these clusters, in their order; NO_GROUP where there are none left."""
        taken = set(self._numbers.values())
        free = (number for number in range(GROUPS) if number not in taken)
        for cluster in clusters:
            if cluster not in self._numbers:
                number = next(free, NO_GROUP)
                if number == NO_GROUP:
                    break
                self._numbers[cluster] = number
        return tuple(self._numbers.get(cluster, NO_GROUP) for cluster in clusters)

    def keep_only(self, clusters: Collection[str]) -> None:
        """No worker serves any other."""
        self._numbers = {name: number for name, number in self._numbers.items() if name in clusters}


def size_bytes(workers: int) -> int:
    return workers * ROWS * _WORD_BYTES
