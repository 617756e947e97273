"""Refusals of wishes and orders among signers: told to whoever wished, in words, and kept for the operator who asks.

Invariant: for each epoch a signer tells and keeps one refusal of each fellow signer, the last, of WORDS_MAX characters
that can be printed; it logs at most LOGGED_MAX of one.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Final

from peer.post import REFUSAL, Post
from trust.ceremony.electorate import DIGEST_BYTES
from trust.epoch import EpochRecord, succession
from trust.identity import format_id

log = logging.getLogger("gossamer.ceremony")

WORDS_MAX: Final = 200
LOGGED_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Why what this peer's operator asked for has to be ordered by others too ("" if not); which signers (node ids)
    order which signers (public keys); which of them refuse what this peer wishes for, and why."""

    lacks: str
    orders: dict[bytes, tuple[bytes, ...]]
    refusals: dict[bytes, str]


class Refusals:
    """See the module's theory. `record` is always the newest epoch's."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._others: dict[bytes, str] = {}
        self._told: dict[bytes, str] = {}
        self._logged: Counter[bytes] = Counter()

    @property
    def of_others(self) -> dict[bytes, str]:
        """The words of those that refuse this peer's wish, by node id."""
        return dict(self._others)

    def forget(self) -> None:
        """Another epoch has begun."""
        self._others.clear()
        self._told.clear()
        self._logged.clear()

    def tell(self, node: bytes, reason: str, record: EpochRecord) -> None:
        """This peer refuses what `node` wishes for."""
        words = reason[:WORDS_MAX]
        if self._told.get(node) != words and self._logged[node] < LOGGED_MAX:
            self._logged[node] += 1
            fields = {"epoch": record.epoch + 1, "by": format_id(node), "reason": words}
            log.warning("wish_refused", extra={"fields": fields})
        self._told[node] = words
        self._post.send(node, REFUSAL, succession(record).ceremony + words.encode())

    def hear(self, node: bytes, content: bytes, record: EpochRecord) -> None:
        """A fellow signer refuses."""
        name, words = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if name != succession(record).ceremony:
            return
        text = words[: 4 * WORDS_MAX].decode(errors="replace")[:WORDS_MAX]
        self._others[node] = "".join(each if each.isprintable() else "?" for each in text)
