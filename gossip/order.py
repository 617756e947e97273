"""A sorted set of node ids that can count: the rank of an id, the id of a rank, who follows a point on the ring.

Every node sorts the same ids the same way, so that a rank means the same everywhere without anybody agreeing on it:
the probing order and the witnesses of a suspect both rest on that. All operations take O(log n), or O(log^2 n) where a
shared base has changes upon it.

A `base` is a sorted tuple that many sets of one process may share (gossip/census.py); each keeps only what differs.

Invariant: the ids are those of the base that are not `gone`, and `extra`; the two never overlap.
"""

from bisect import bisect_left
from collections.abc import Iterator

from sortedcontainers import SortedList


class IdOrder:
    """Ids in byte order."""

    __slots__ = ("_base", "_extra", "_gone", "_size")

    def __init__(self, base: tuple[bytes, ...] = ()) -> None:
        self._base = base
        self._gone: SortedList[int] | None = None  # indices into the base
        self._extra: SortedList[bytes] | None = None
        self._size = len(base)

    def __len__(self) -> int:
        return self._size

    def __contains__(self, node: bytes) -> bool:
        index = self._index(node)
        if index is None:
            return self._extra is not None and node in self._extra
        return self._gone is None or index not in self._gone

    def add(self, node: bytes) -> None:
        """Put an id in; one that is there already stays once."""
        index = self._index(node)
        if index is not None:
            if self._gone is not None and index in self._gone:
                self._gone.remove(index)
                self._size += 1
            return
        if self._extra is None:
            self._extra = SortedList()
        if node not in self._extra:
            self._extra.add(node)
            self._size += 1

    def remove(self, node: bytes) -> None:
        """Take an id out, if it is there."""
        index = self._index(node)
        if index is None:
            if self._extra is not None and node in self._extra:
                self._extra.remove(node)
                self._size -= 1
            return
        if self._gone is None:
            self._gone = SortedList()
        if index not in self._gone:
            self._gone.add(index)
            self._size -= 1

    def rank(self, node: bytes) -> int:
        """How many ids are smaller than `node`, which need not be among them."""
        place = bisect_left(self._base, node)
        if self._gone:
            place -= self._gone.bisect_left(place)
        if self._extra:
            place += self._extra.bisect_left(node)
        return place

    def at(self, rank: int) -> bytes:
        """The id with `rank` smaller ones, 0 <= rank < len."""
        assert 0 <= rank < len(self), "a rank within the order"
        if not self._gone and not self._extra:
            return self._base[rank]
        if not self._base:
            assert self._extra is not None, "an order that is not empty"
            return bytes(self._extra[rank])
        low, high = (
            0,
            len(self._base),
        )  # the first place of the base whose id has a higher rank than asked for
        while low < high:
            middle = (low + high) // 2
            if self._upto(middle) <= rank:
                low = middle + 1
            else:
                high = middle
        return self._last_upto(low, rank)

    def after(self, point: bytes) -> Iterator[bytes]:
        """All ids, each once, from the first at or behind `point` on, around the ring."""
        count = len(self)
        start = self.rank(point)
        for step in range(count):
            yield self.at((start + step) % count)

    def between(self, low: bytes, high: bytes | None) -> Iterator[bytes]:
        """Ids from `low` on and below `high` (None: to the end), in order."""
        end = len(self) if high is None else self.rank(high)
        for rank in range(self.rank(low), end):
            yield self.at(rank)

    def __iter__(self) -> Iterator[bytes]:
        gone, extra = self._gone or (), list(self._extra or ())
        place = 0
        for index, node in enumerate(self._base):
            if index in gone:
                continue
            while place < len(extra) and extra[place] < node:
                yield extra[place]
                place += 1
            yield node
        yield from extra[place:]

    def _index(self, node: bytes) -> int | None:
        """Where the base has `node`."""
        place = bisect_left(self._base, node)
        return place if place < len(self._base) and self._base[place] == node else None

    def _upto(self, place: int) -> int:
        """How many ids of the order are at or below the base's id at `place`, less one if that id itself is in."""
        before = place - (self._gone.bisect_left(place) if self._gone else 0)
        return before + (self._extra.bisect_left(self._base[place]) if self._extra else 0)

    def _last_upto(self, place: int, rank: int) -> bytes:
        """The id of `rank`, which lies before the base's `place`: that of the base just before it that is not gone
        and has exactly this rank, or an extra one."""
        before = place - 1
        while before >= 0 and self._gone and before in self._gone:
            before -= 1
        if before >= 0 and self._upto(before) == rank:
            return self._base[before]
        assert self._extra is not None, "a rank that is not the base's is an extra one's"
        bases = place - (self._gone.bisect_left(place) if self._gone else 0)
        return bytes(self._extra[rank - bases])
