"""The used tokens once more, beside the database: a damaged store must not make a one-time token good again.

Invariant: what `add` returned from is on disk; expired tokens, which are refused for that, are forgotten.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from peer.io.statefile import StateFile, StateFileError
from trust.admission import Spend
from trust.identity import ID_BYTES
from trust.invitation import TOKEN_ID_BYTES

log = logging.getLogger("gossamer.store")

FILE_NAME: Final = "tokens.json"
_SECONDS_MAX: Final = 2**63 - 1  # what the store and a handover can carry


class SpentTokens:
    """The file of one data directory. Its methods block."""

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self._spends: set[Spend] = set()

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        return cls(StateFile(data_dir / FILE_NAME))

    def load(self, now: float) -> tuple[Spend, ...]:
        """The uses that still count. A file that cannot be read is reported and means none: the store has them too."""
        try:
            spends = [_spend(row) for row in self._file.read_json() or ()]
        except (StateFileError, ValueError, TypeError) as error:
            log.error("tokens_unread", extra={"fields": {"reason": str(error)}})
            return ()
        self._spends = {spend for spend in spends if spend.expires_at > now}
        return tuple(self._spends)

    def add(self, spends: Iterable[Spend], now: float) -> None:
        """Keep more uses. Raises StateFileError; then none of them is kept."""
        kept = {known for known in self._spends if known.expires_at > now} | set(spends)
        rows = sorted([each.token_id.hex(), each.node.hex(), each.expires_at] for each in kept)
        self._file.write(json.dumps(rows))
        self._spends = kept


def _spend(row: object) -> Spend:
    match row:
        case [str(token), str(node), int(at)] if 0 <= at <= _SECONDS_MAX:
            spend = Spend(token_id=bytes.fromhex(token), node=bytes.fromhex(node), expires_at=at)
            if (len(spend.token_id), len(spend.node)) == (TOKEN_ID_BYTES, ID_BYTES):
                return spend
    raise ValueError(f"not the use of a token: {row!r:.80}")
