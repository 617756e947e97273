"""The end of the shares of epochs that are over.

When an epoch is sealed, the share of the one before stays for RETIRE_S, since others may not have heard yet, and longer
while it may be asked for. It is then erased, and with it what memories of ceremonies are left, up to that of the newest
epoch.

Invariant: the share of the newest epoch that is known here is never erased.
"""

from collections.abc import Callable
from typing import Final

from peer.custody import Custody
from peer.io.keys import KeyFileError, Keys
from peer.sitting import forget_memory, remembered

RETIRE_S: Final = 60.0  # longer than anybody takes to hear of a new epoch, unless it is cut off


class Retirement:
    """See the module's theory. `now` is a clock (s) that never falls; `retain_s`, how much longer (s) shares of epochs
    that are over may be asked for."""

    def __init__(
        self, custody: Custody, keys: Keys, now: Callable[[], float], retain_s: Callable[[], float]
    ) -> None:
        self._custody, self._keys = custody, keys
        self._now, self._retain_s = now, retain_s
        self.deadline: float | None = None  # when `retire` has something to do

    def begin(self) -> None:
        """An epoch is over, now."""
        self.deadline = self._now() + RETIRE_S

    def retire(self) -> None:
        """Erase what is due. Raises KeyFileError."""
        record = self._custody.record
        if self.deadline is None or record is None or self._now() < self.deadline:
            return
        if (longer_s := self._retain_s()) > 0:
            self.deadline = self._now() + longer_s
            return
        self.deadline = None
        self._custody.retire(record.epoch)
        for epoch in remembered(self._keys):
            if epoch <= record.epoch and (failed := forget_memory(self._keys, epoch)):
                raise KeyFileError(failed)
