"""The operator's word that what this peer has lost nobody has (`--accept-state-loss`): it holds once.

It is about a loss that has happened. Left behind in a configuration file or a service unit it would be heeded at the
next loss too, when others do hold more: the peer would give out its numbers again, for which it is expelled, and serve
without the mesh's policies. So a peer remembers, in a file that survives its database, that it has heeded the word, or
was given it when there was nothing to lose. From then on it is ignored, with a warning, until this peer has been
started without it: then it is no longer a word that was left behind.

Invariant: heeded at one start only, unless that start was cut short before what it meant was on disk.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from peer.io.statefile import StateFile, StateFileError

FILE_NAME: Final = "state-loss-accepted"

log = logging.getLogger("gossamer.peer")


@dataclass(frozen=True, slots=True)
class LossWord:
    """What became of the word in this data directory. Methods block."""

    file: StateFile

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        return cls(StateFile(data_dir / FILE_NAME))

    def heeded(self, *, given: bool, anything_to_lose: bool, now: float) -> bool:
        """Whether this start goes by the word. `anything_to_lose`: this host was a member before this start."""
        if not given:
            self._forget()
            return False
        try:
            spent = self.file.read() is not None
        except StateFileError as error:
            spent = True
            log.warning("state_loss_word_unread", extra={"fields": {"reason": str(error)}})
        if spent:
            reason = (
                "it holds once: take accept_state_loss out of the configuration, and start once without it"
            )
            log.warning("state_loss_word_ignored", extra={"fields": {"reason": reason}})
            return False
        if not anything_to_lose:
            self.spend(now)
        return anything_to_lose

    def spend(self, now: float) -> None:
        """What the word meant is on disk."""
        try:
            self.file.write(f"{int(now)}\n")
        except StateFileError as error:
            log.warning("state_loss_word_kept", extra={"fields": {"reason": str(error)}})

    def _forget(self) -> None:
        try:
            self.file.path.unlink(missing_ok=True)
        except OSError as error:
            fields = {"file": str(self.file.path), "reason": error.strerror or str(error)}
            log.warning("state_loss_word_kept", extra={"fields": fields})
