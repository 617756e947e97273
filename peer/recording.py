"""A signer's part of the log: what it has heard was issued, written on pages of its own journal.

What came within a minute is written down when it is over, and within a minute everybody shows his certificates to the
same signer. A page is larger than a datagram, so it travels in the streams that compare journals, and the fewer there
are the better; `benchmarks/issuance.py` has what other ways cost. A page whose certificates have all expired, with an
allowance for clocks that differ, gives its place to the next one, so that the log is as large as what is valid and
needs no tombstones; what a crowd leaves behind beyond that is deleted in the end.

Invariant: what waits, and each page, is bounded; what is full is counted and loses nothing that was written.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from peer.issuelog import ENTRIES_MAX, ISSUANCE, PLACES_MAX, encode_page
from peer.messages import Draft
from trust.issued import Issued

WRITTEN_S: Final = 60.0
WAITING_MAX: Final = 16_384  # two certificates of 8,000 hosts that start at once
PAGES_AT_ONCE: Final = 16
ALLOWANCE_S: Final = 300.0  # as much as clocks of members may differ
SPARE_S: Final = 3600.0  # a place that was not needed for so long is given up


class Recording:
    """See the module's docstring. Times are Unix seconds."""

    def __init__(self, *, written_s: float = WRITTEN_S) -> None:
        self._written_s = written_s
        self._waiting: OrderedDict[bytes, tuple[Issued, float]] = OrderedDict()  # by leaf, oldest first
        self.refused = 0  # found no place among those that wait, or in the journal

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, leaf: bytes) -> bool:
        return leaf in self._waiting

    def add(self, issued: Issued, now: float) -> None:
        """Write this down when it is time."""
        if issued.leaf in self._waiting:
            return
        if len(self._waiting) >= WAITING_MAX:
            self.refused += 1
        else:
            self._waiting[issued.leaf] = (issued, now)

    def pages(
        self, now: float, epoch: int, places: Mapping[int, float]
    ) -> dict[str, tuple[Draft, list[bytes]]]:
        """What is to be written now, with the leafs on it, by key. `places` of this node are in use until then."""
        if not self._waiting:
            return {}
        _, since = next(iter(self._waiting.values()))
        if now // self._written_s == since // self._written_s and len(self._waiting) < ENTRIES_MAX:
            return {}
        waiting = [issued for issued, _ in self._waiting.values()]
        free = (place for place in range(PLACES_MAX) if places.get(place, 0.0) + ALLOWANCE_S < now)
        pages: dict[str, tuple[Draft, list[bytes]]] = {}
        for begin in range(0, min(len(waiting), PAGES_AT_ONCE * ENTRIES_MAX), ENTRIES_MAX):
            entries = tuple(waiting[begin : begin + ENTRIES_MAX])
            place = next(free, None)
            if place is None:
                self.refused += len(entries)
                self.written(issued.leaf for issued in entries)
                continue
            key = str(place)
            draft = Draft(kind=ISSUANCE, key=key, payload=encode_page(epoch, entries))
            pages[key] = (draft, [issued.leaf for issued in entries])
        return pages

    def written(self, leafs: Iterable[bytes]) -> None:
        """These are in the journal, or need not be any more."""
        for leaf in leafs:
            self._waiting.pop(leaf, None)


def spare(places: Mapping[int, float], now: float) -> list[Draft]:
    """Deletions of pages whose places nobody needed again."""
    ended = (place for place, end in sorted(places.items()) if end + ALLOWANCE_S + SPARE_S < now)
    return [Draft(kind=ISSUANCE, key=str(place), payload=b"") for place in ended]
