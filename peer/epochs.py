"""Epochs of the signer group in the journal: records of kind `epoch`, from which every member learns who signs.

An epoch proves itself (`trust/epoch.py`), so who carries it does not matter and several may. Its signers see to it that
somebody does: each looks which epochs it knows are in nobody's journal, waits longer the higher its rank, and
publishes what is still missing then. So mostly one does, and none is missing for long.

Invariant: what is in the journal and decided is known to custody, once the epochs before it are.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from crdt.record import Record
from peer.api import ApiError
from peer.custody import Custody
from peer.records import epoch_key
from trust.epoch import EpochRecord, decode_epoch
from trust.errors import EpochError

log = logging.getLogger("gossamer.ceremony")

PUBLISH_AFTER_S: Final = 0.2  # times one more than the rank among the signers
RETRY_S: Final = 5.0

Publish = Callable[[EpochRecord], Awaitable[None]]  # raises ApiError


@dataclass(slots=True)
class Epochs:
    """See the module's theory. `records()` are those of kind `epoch` that the journal holds, `publish` adds one."""

    custody: Custody
    node: bytes
    records: Callable[[], Iterable[Record]]
    publish: Publish
    now: Callable[[], float]
    _taken: set[tuple[bytes, str, int]] = field(default_factory=set)
    _useless: set[tuple[bytes, str, int]] = field(default_factory=set)  # and will never be anything
    _foreign: set[tuple[bytes, str, int]] = field(default_factory=set)  # of a root that is not this mesh's
    _roots_known: int = 1
    _missing_since: float | None = None

    def take_in(self) -> bool:
        """Learn what the journal holds; whether the newest epoch is another one now."""
        records = list(self.records())
        held = {_dot(each) for each in records}
        if self.custody.roots_known != self._roots_known:
            self._roots_known, self._foreign = self.custody.roots_known, set()
        self._foreign &= held
        self._taken &= held  # a writer may replace its own as often as it likes
        self._useless &= held
        done = self._taken | self._useless | self._foreign
        news = [each for each in records if _dot(each) not in done]
        decoded: list[tuple[EpochRecord, Record]] = []
        for record in news:
            try:
                epoch = decode_epoch(record.payload)
                if self.custody.knows_root(epoch.group.public):
                    decoded.append((epoch, record))
                else:
                    self._foreign.add(_dot(record))  # until a rollover to that root is heard of
            except EpochError as error:
                self._useless.add(_dot(record))
                log.warning("epoch_unreadable", extra={"fields": {"key": record.key, "reason": str(error)}})
        changed = False
        for epoch, record in sorted(decoded, key=lambda each: each[0].epoch):
            try:
                changed |= self.custody.learn(epoch)
            except EpochError as error:
                # It may only have to wait for the one before it: tried again when there is more. One that is held
                # against the one before it costs up to SIGNERS_MAX signatures to refuse, and does so once.
                if self.custody.chain.known(epoch.value.previous):
                    self._useless.add(_dot(record))
                if epoch.epoch == 0:
                    self._useless.add(_dot(record))  # of another mesh
                fields = {"epoch": epoch.epoch, "reason": str(error)}
                log.debug("epoch_not_taken", extra={"fields": fields})
            else:
                self._taken.add(_dot(record))
        return changed

    def missing(self) -> list[EpochRecord]:
        """What this node knows and no journal holds, decided as it stands there."""
        held = {each.key for each in self.records() if _dot(each) in self._taken}
        return [each for each in self.custody.chain.records if epoch_key(each) not in held]

    async def tell(self) -> float | None:
        """Publish what is missing, if it is this node's turn; when (by the clock given) to ask again, None for when
        something has changed."""
        record = self.custody.record
        if record is None or self.node not in record.value.ids:
            return None
        missing = self.missing()
        if not missing:
            self._missing_since = None
            return None
        if self._missing_since is None:
            self._missing_since = self.now()
        turn_at = self._missing_since + PUBLISH_AFTER_S * (1 + record.value.ids.index(self.node))
        if self.now() < turn_at:
            return turn_at
        try:
            for each in missing:
                await self.publish(each)
        except ApiError as error:
            log.warning("epoch_unpublished", extra={"fields": {"reason": str(error)}})
            return self.now() + RETRY_S
        self._missing_since = None
        return None


def _dot(record: Record) -> tuple[bytes, str, int]:
    return record.writer, record.key, record.seq
