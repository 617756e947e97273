"""The keys this node has asked to have certified: whatever else is certified in its name is not its own.

A key is put on disk before it is asked for, so that a crash between the two makes no certificate a strange one. Where
there is no such file yet, or it was damaged, nothing is said of certificates that began before.

Invariant: bounded; a key is kept for as long as a certificate of it can be valid.
"""

import json
import logging
from pathlib import Path
from typing import Any, Final, Self

from peer.io.statefile import StateFile, StateFileError
from trust.authority import BACKDATE_S
from trust.svid import SVID_TTL_S_MAX, Svid
from trust.transparency import key_digest

log = logging.getLogger("gossamer.certify")

FILE_NAME: Final = "asked.json"
KEYS_MAX: Final = 4096
_SECONDS_MAX: Final = 1e15
KEPT_S: Final = SVID_TTL_S_MAX + BACKDATE_S


class AskedKeys:
    """The file of one data directory. `add` blocks."""

    def __init__(self, file: StateFile, now: float, *, first_start: bool) -> None:
        self._file = file
        self._since = 0.0 if first_start else now  # of what began before nothing is known
        self._keys: dict[str, float] = {}  # digest in hex -> when it may be forgotten (Unix s); oldest first
        try:
            data = file.read_json()
            if data is not None:
                self._keys = {bytes.fromhex(key).hex(): _moment(at) for key, at in data["keys"].items()}
                self._since = _moment(data["since"])
        except (StateFileError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("asked_unread", extra={"fields": {"reason": str(error)}})
            self._keys, self._since = {}, now

    @classmethod
    def of(cls, data_dir: Path, now: float, *, first_start: bool) -> Self:
        return cls(StateFile(data_dir / FILE_NAME), now, first_start=first_start)

    def add(self, public_der: bytes, now: float) -> None:
        """Remember a key that is about to be asked for. A disk that fails is reported, and the key is known anyway."""
        digest = key_digest(public_der).hex()
        if digest in self._keys:
            return
        kept = {key: at for key, at in self._keys.items() if at > now}
        kept[digest] = now + KEPT_S
        while len(kept) > KEYS_MAX:
            del kept[next(iter(kept))]
            self._since = now  # of what is forgotten nothing is said
        self._keys = kept
        try:
            self._file.write(json.dumps({"since": self._since, "keys": kept}))
        except StateFileError as error:
            log.warning("asked_unsaved", extra={"fields": {"reason": str(error)}})

    def includes(self, svid: Svid) -> bool:
        """Whether this node asked for that certificate, or cannot know that it did not."""
        if key_digest(svid.public_der).hex() in self._keys:
            return True
        # It says of itself when it began; only its end bounds that, since none lives longer than a day.
        return svid.not_after < self._since + SVID_TTL_S_MAX and svid.not_before < self._since - BACKDATE_S

    def __len__(self) -> int:
        return len(self._keys)


def _moment(value: Any) -> float:
    """Unix seconds. Raises ValueError, TypeError."""
    if not abs(value) <= _SECONDS_MAX:  # which is so of infinity and of what is no number
        raise ValueError(f"{value!r:.40} is no time")
    return float(value)
