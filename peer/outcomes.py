"""What came of ceremonies that are over, for whoever still sits in one: the last OVER_KEPT of them, by name.

Invariant: an answer costs a look into a table that is made once an epoch, and goes only to who was in the epoch before
or after, at most every ANSWER_S: any member can ask, and as often as it likes.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from peer.custody import Custody
from trust.ceremony.statement import Closed, encode_frame
from trust.epoch import EpochRecord, succession

ANSWER_S: Final = 0.5  # between two answers to one node
OVER_KEPT: Final = 16  # epochs


class Outcomes:
    """See the module's theory. `now` is a clock (s) that never falls."""

    def __init__(self, custody: Custody, now: Callable[[], float]) -> None:
        self._custody = custody
        self._now = now
        self._over: dict[bytes, tuple[EpochRecord, EpochRecord]] = {}  # by the ceremony's name
        self._over_by: EpochRecord | None = None  # the newest epoch when that was made
        self._answered: dict[bytes, float] = {}

    def answer(self, node: bytes, name: bytes) -> bytes | None:
        """The frame that tells `node` the outcome of the ceremony `name`; None if it is to hear nothing."""
        newest = self._custody.record
        if self._over_by is not newest:
            chain = self._custody.chain.records[-OVER_KEPT - 1 :]
            self._over = {succession(before).ceremony: (before, after) for before, after in pairwise(chain)}
            self._over_by = newest
        before, after = self._over.get(name, (None, None))
        if before is None or after is None or node not in {*before.value.ids, *after.value.ids}:
            return None
        if self._now() < self._answered.get(node, 0.0) + ANSWER_S:
            return None
        self._answered[node] = self._now()
        return encode_frame(name, Closed(record=after.encode()))
