"""The post of a peer's ceremonies: letters that wait to be read, letters that leave, and how many there were.

A letter is one byte that says its sort, and a content that is the business of whoever reads that sort:

    b"c" <frame>                 of a ceremony (`trust/ceremony/statement.py`), or of one that is over: its outcome
    b"w" <ceremony> <keys ...>   a signer wishes for these signers (`peer/wishes.py`)
    b"o" <order>                 a signer shows what its operator orders (`trust/ceremony/appointment.py`)
    b"n" <ceremony> <words>      a signer does not make the reader's wish or order its own, and why
    b"r" <message>               a share's repair (`trust/ceremony/repair.py`, `peer/mending.py`)
    b"q" <request>               a node that governs wants a new root (`peer/rollover.py`)
    b"s" <frame>                 of the ceremony that makes it

Invariant: what waits is bounded, in all and for each node, in letters and in bytes; what finds no room is dropped and
counted. No letter is printed, for it may hold a share.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from trust.ceremony.statement import FRAME_BYTES_MAX
from trust.identity import format_id

log = logging.getLogger("gossamer.ceremony")

FRAME, WISH, ORDER, REFUSAL, REPAIR = b"c", b"w", b"o", b"n", b"r"
REQUEST, STEP = b"q", b"s"
ROLLOVER: Final = frozenset({REQUEST, STEP})
LETTER_BYTES_MAX: Final = FRAME_BYTES_MAX + 1
INBOX_MAX: Final = 1024
INBOX_EACH_MAX: Final = 256  # of one node
INBOX_EACH_BYTES_MAX: Final = 1024 * 1024


@dataclass(slots=True)
class Traffic:
    """What came and went, for metrics and tests."""

    received: int = 0
    sent: int = 0
    dropped: int = 0
    rejected: int = 0
    sealed: int = 0
    retries: int = 0


class Post:
    """See the module's theory. `send(node, letter)` may lose."""

    def __init__(self, send: Callable[[bytes, bytes], None]) -> None:
        self.traffic = Traffic()
        self._carry = send
        self._inbox: deque[tuple[bytes, bytes]] = deque()
        self._letters_of: Counter[bytes] = Counter()
        self._bytes_of: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._inbox)

    def __repr__(self) -> str:
        return f"Post(inbox={len(self)}, {self.traffic})"

    def receive(self, node: bytes, letter: bytes) -> bool:
        """A letter came, over an authenticated stream from `node`. Whether there was room for it."""
        full = len(self._inbox) >= INBOX_MAX or self._letters_of[node] >= INBOX_EACH_MAX
        heavy = self._bytes_of[node] + len(letter) > INBOX_EACH_BYTES_MAX
        if full or heavy or len(letter) > LETTER_BYTES_MAX:
            self.traffic.dropped += 1
            return False
        self._inbox.append((node, letter))
        self._bytes_of[node] += len(letter)
        self._letters_of[node] += 1
        return True

    def read(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """The letters that wait, in their order: sender, sort, content."""
        while self._inbox:
            node, letter = self._inbox.popleft()
            self.traffic.received += 1
            yield node, letter[:1], letter[1:]
        self._letters_of.clear()
        self._bytes_of.clear()

    def send(self, node: bytes, sort: bytes, content: bytes) -> None:
        """May be lost."""
        self.traffic.sent += 1
        self._carry(node, sort + content)

    def reject(self, node: bytes, reason: str) -> None:
        """What `node` sent was malformed, forged or out of place."""
        self.traffic.rejected += 1
        log.debug("ceremony_rejected", extra={"fields": {"node": format_id(node), "reason": reason}})
