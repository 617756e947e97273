"""The ceremonies of a running peer: this node's part in each change of the signers, from wish to wiped share.

At any time one ceremony can be under way: the one for the epoch after the newest that is known here. A signer sits
down to it when it wishes for other signers, or when a fellow signer has spoken; a node that is to become a signer, when
a signer speaks to it. The letters that carry it:

    b"c" <frame>                 of a ceremony (`trust/ceremony/statement.py`), or of one that is over: its outcome
    b"w" <ceremony> <keys ...>   a signer wishes for these signers; fellow signers without a wish make it theirs
    b"r" <message>               a share's repair (`trust/ceremony/repair.py`)

When an epoch is sealed, in this order: this node's share is kept (`Custody.take`), the memory of the ceremony is
erased, the record goes to whoever asks and into the journal. The share of the epoch before stays for RETIRE_S, since
others may not have heard yet, and is then erased: the new group has proved that it can sign before anybody voted.

A memory that cannot be written stops this node's part before anything has left, and it begins again from what is
stored; one that cannot be read keeps it out of that epoch's ceremony.

Invariant: nothing is sent, published or erased before what it rests on is durable; the inbox is bounded.
"""

import asyncio
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol, assert_never

from peer.custody import Custody
from peer.io.keys import KeyFileError, Keys
from peer.sitting import Effect, Sitting, erased, forget_memory, remembered
from trust.ceremony.bodies import cut
from trust.ceremony.electorate import DIGEST_BYTES, SIGNERS_MAX, Electorate, by_id, check_electors
from trust.ceremony.events import (
    CeremonyStatus,
    Convicted,
    Input,
    Learned,
    Members,
    Received,
    Rejected,
    Retrying,
    Sealed,
    Send,
    Tick,
    Timing,
    Wish,
)
from trust.ceremony.growth import SignerRules
from trust.ceremony.repair import REPAIR_BYTES_MAX, Repair, Restored
from trust.ceremony.statement import FRAME_BYTES_MAX, Closed, encode_frame
from trust.epoch import EpochRecord, succession
from trust.errors import CeremonyError, EpochError, TrustError
from trust.groupkey import KeyShare
from trust.identity import KEY_BYTES, NodeIdentity, format_id, node_id

log = logging.getLogger("gossamer.ceremony")

FRAME, WISH, REPAIR = b"c", b"w", b"r"
LETTER_BYTES_MAX: Final = FRAME_BYTES_MAX + 1
INBOX_MAX: Final = 1024
INBOX_EACH_MAX: Final = 256  # of one node
INBOX_EACH_BYTES_MAX: Final = 1024 * 1024
LOOK_S: Final = 3.0  # between two looks at who should be signers; each takes in all members
IDLE_S: Final = 30.0  # the same on a node that is no signer
PACE_S: Final = 10.0  # after an epoch, before a signer takes part in another that it does not wish for itself
RETIRE_S: Final = 60.0  # longer than anybody takes to hear of a new epoch, unless it is cut off
RETRY_S: Final = 5.0  # after the disk failed
REPAIR_AFTER_S: Final = 5.0  # a share is lost, and not just on its way
ANSWER_S: Final = 0.5  # between two answers to one node about what is over
OVER_KEPT: Final = 16  # epochs whose outcome is told to whoever still sits


class Judgement(Protocol):
    """Who should be signers, by what this node sees (`peer/candidates.py`)."""

    def wish(self, record: EpochRecord) -> tuple[bytes, ...] | None:
        """Public keys, or None for no change."""

    def members(self, record: EpochRecord | None) -> Members:
        """Who may become a signer, and who must not."""


@dataclass(slots=True)
class Traffic:
    """What came and went, for metrics and tests."""

    received: int = 0
    sent: int = 0
    dropped: int = 0
    rejected: int = 0
    sealed: int = 0
    retries: int = 0


@dataclass(slots=True)
class _Wishes:
    """What signers are wished for in the epoch to come."""

    judged: tuple[bytes, ...] | None = None
    asked: tuple[bytes, ...] | None = None  # by this peer's operator
    hinted: tuple[bytes, ...] | None = None  # by a fellow signer

    @property
    def own(self) -> tuple[bytes, ...] | None:
        return self.asked or self.judged

    @property
    def current(self) -> tuple[bytes, ...] | None:
        return self.own or self.hinted


@dataclass(slots=True, repr=False)
class Ceremonies:
    """See the module's theory. `send(node, letter)` may lose; `now` is a clock (s) that never falls."""

    custody: Custody
    keys: Keys
    identity: NodeIdentity
    rules: SignerRules
    judgement: Judgement
    send: Callable[[bytes, bytes], None]
    now: Callable[[], float]
    timing: Timing | None = None
    traffic: Traffic = field(default_factory=Traffic)
    _inbox: deque[tuple[bytes, bytes]] = field(default_factory=deque)
    _inbox_of: Counter[bytes] = field(default_factory=Counter)
    _inbox_bytes: Counter[bytes] = field(default_factory=Counter)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _sitting: Sitting | None = None
    _barred: int = -1  # the epoch whose memory cannot be read
    _failed_until: float = 0.0
    _recalled: bool = False
    _wishes: _Wishes = field(default_factory=_Wishes)
    _told_wish: tuple[bytes, ...] | None = None
    _told_members: Members | None = None
    _members: Members = field(default_factory=lambda: Members(known=frozenset()))
    _look_at: float = 0.0
    _retire_at: float | None = None
    _newest: int = -1
    _paced_until: float = 0.0
    _repair: Repair | None = None
    _repair_gives: bool = False  # this node has a share to repair others' with
    _lacking_since: float | None = None
    _answered: dict[bytes, float] = field(default_factory=dict)
    _over: dict[bytes, tuple[EpochRecord, EpochRecord]] = field(
        default_factory=dict
    )  # by the ceremony's name
    _over_by: EpochRecord | None = None  # the newest epoch when that was made

    def __repr__(self) -> str:
        return f"Ceremonies({self.custody!r}, sitting={self._sitting!r}, inbox={len(self._inbox)})"

    # -------------------------------------------------------------- what others ask of it

    def receive(self, node: bytes, letter: bytes) -> None:
        """A letter came, over an authenticated stream from `node`."""
        full = len(self._inbox) >= INBOX_MAX or self._inbox_of[node] >= INBOX_EACH_MAX
        heavy = self._inbox_bytes[node] + len(letter) > INBOX_EACH_BYTES_MAX
        if full or heavy or len(letter) > LETTER_BYTES_MAX:
            self.traffic.dropped += 1
            return
        self._inbox.append((node, letter))
        self._inbox_bytes[node] += len(letter)
        self._inbox_of[node] += 1
        self._wake.set()

    def changed(self) -> None:
        """Members, revocations or epochs have changed."""
        self._look_at = 0.0
        self._wake.set()

    def ask(self, keys: tuple[bytes, ...] | None) -> tuple[bytes, ...]:
        """Wish for these signers (public keys), or for what this node thinks right; to the same signers for fresh
        shares. What is wished for. Raises CeremonyError."""
        self._follow()  # else a wish for the epoch after one that was just sealed would go with those for it
        record = self.custody.record
        if record is None or self.identity.id not in record.value.ids:
            raise CeremonyError("this peer is no signer")
        wanted = by_id(keys) if keys is not None else self.judgement.wish(record) or record.value.keys
        check_electors(wanted)
        self._check_wanted(wanted, record)
        self._follow()  # or the next turn forgets this together with what was wished of the epoch before
        self._wishes.asked = wanted
        self.changed()
        return wanted

    @property
    def status(self) -> CeremonyStatus | None:
        """Of the ceremony under way."""
        return None if self._sitting is None else self._sitting.status

    # -------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Take part in whatever comes; for ever."""
        while True:
            self._wake.clear()
            await self.turn()
            await asyncio.sleep(0)
            wait_s = self._next() - self.now()
            if wait_s > 0 and not self._inbox:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def turn(self) -> None:
        """Everything that is due now."""
        if self.now() < self._failed_until:
            return
        try:
            if not self._recalled:
                await self._recall()
                self._recalled = True
            self._follow()
            self._look()
            await self._converse()
            self._mend()
            self._retire()
        except KeyFileError as error:
            log.error("ceremony_interrupted", extra={"fields": {"reason": str(error), "retry_s": RETRY_S}})
            self._sitting, self._recalled = None, False
            self._told_wish = self._told_members = None
            self._failed_until = self.now() + RETRY_S

    def _next(self) -> float:
        if self.now() < self._failed_until:
            return self._failed_until
        times = [self._look_at, self._retire_at]
        times.append(None if self._sitting is None else self._sitting.deadline)
        if self._lacking_since is not None:
            again_at = 0.0 if self._repair is None else self._repair.deadline or 0.0
            times.append(max(again_at, self._lacking_since + REPAIR_AFTER_S))
        return min(time for time in times if time is not None)

    async def _recall(self) -> None:
        """Take up what an earlier life sat in. Of an epoch that was decided meanwhile, the share may be there."""
        for epoch in remembered(self.keys):
            newest = self.custody.record
            before = self.custody.chain.at(epoch - 1)
            outcome = self.custody.chain.at(epoch)
            if newest is None or before is None or epoch > newest.epoch + 1:
                continue
            if outcome is not None and erased(self.keys, epoch):
                if failed := forget_memory(self.keys, epoch):
                    raise KeyFileError(failed)
                continue
            sitting = self._sit(succession(before), epoch)
            if sitting is None or outcome is None:
                self._seat(sitting)
                continue
            for effect in await sitting.step([Learned(record=outcome.encode()), Tick()]):
                if isinstance(effect, Sealed):
                    self._keep(sitting, effect)

    # -------------------------------------------------------------- who should be signers

    def _follow(self) -> None:
        """The newest epoch may be another one now."""
        record = self.custody.record
        if record is None or record.epoch == self._newest:
            return
        if self._newest >= 0 or any(share.group.epoch < record.epoch for share in self.custody.shares):
            self._retire_at = self.now() + RETIRE_S
        if self._newest >= 0:
            self._wishes = _Wishes()
            self._paced_until = self.now() + PACE_S
        self._newest = record.epoch
        self._told_wish = self._told_members = None
        self._repair = None
        self._lacking_since = None

    def _look(self) -> None:
        record, now = self.custody.record, self.now()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        if record is None or self.identity.id not in record.value.ids:
            self._look_at = now + IDLE_S
            return
        self._wishes.judged = self.judgement.wish(record)
        self._members = self.judgement.members(record)
        if self._wishes.current is not None and self._sitting is None and self._may_follow(record):
            self._seat(self._sit(succession(record), record.epoch + 1))

    def _may_follow(self, record: EpochRecord) -> bool:
        """Whether to sit down to the next ceremony now. No signer alone makes the others change from epoch to epoch as
        fast as they can: a chain has an end (EPOCHS_MAX), and journals keep it."""
        elects = self.identity.id in record.value.ids
        return not elects or self._wishes.own is not None or self.now() >= self._paced_until

    def _seat(self, sitting: Sitting | None) -> None:
        self._sitting = sitting
        self._told_wish = self._told_members = None
        self._members = self.judgement.members(self.custody.record)

    def _sit(self, electorate: Electorate, epoch: int) -> Sitting | None:
        if self._barred == epoch:
            return None
        shares = [share for share in self.custody.shares if share.group == electorate.group]
        try:
            return Sitting(
                keys=self.keys,
                electorate=electorate,
                identity=self.identity,
                rules=self.rules,
                share=shares[0] if shares else None,
                now=self.now,
                timing=self.timing,
            )
        except CeremonyError as error:
            # What it voted is unknown, and voting again could make two outcomes.
            self._barred = epoch
            log.error("ceremony_memory_lost", extra={"fields": {"epoch": epoch, "reason": str(error)}})
            return None

    def _check_wanted(self, wanted: tuple[bytes, ...], record: EpochRecord) -> None:
        members = self.judgement.members(self.custody.record)
        for key in wanted:
            node = node_id(key)
            if node in members.barred:
                raise CeremonyError(f"node {format_id(node)} is revoked")
            if node not in members.known and node not in record.value.ids:
                raise CeremonyError(f"node {format_id(node)} is no member that can be a signer")
        if len(wanted) > max(self.rules.goal, len(record.value.keys)):
            raise CeremonyError(
                f"{len(wanted)} signers are more than ca.signers says ({self.rules.goal}), to which the mesh would go "
                "back: set that first, on all peers"
            )
        least = min(record.group.threshold, self.rules.threshold_of(self.rules.goal))
        if self.rules.threshold_of(len(wanted)) < least:
            raise CeremonyError(
                f"{len(wanted)} signers would lower the threshold from {record.group.threshold} to "
                f"{self.rules.threshold_of(len(wanted))}"
            )

    # -------------------------------------------------------------- letters

    async def _converse(self) -> None:
        given = self._read()
        sitting = self._sitting
        if sitting is None:
            return
        record = self.custody.record
        inputs: list[Input] = []
        if record is not None and record.epoch >= sitting.epoch:
            decided = self.custody.chain.at(sitting.epoch)
            if decided is None:  # from before what is known here
                self._end(sitting)
                return
            inputs.append(Learned(record=decided.encode()))
        else:
            inputs += self._news()
        inputs += given.get(sitting.name, [])
        due = sitting.deadline is not None and sitting.deadline <= self.now()
        if inputs or due:
            self._carry_out(sitting, await sitting.step([*inputs, Tick()]))

    def _news(self) -> list[Input]:
        """What the machine was not told yet of members and wishes."""
        news: list[Input] = []
        if self._members is not self._told_members:
            self._told_members = self._members
            news.append(self._members)
        wish = self._wishes.current
        if wish != self._told_wish:
            self._told_wish = wish
            news.append(Wish(keys=wish))
            self._tell_wish(wish)
        return news

    def _tell_wish(self, wish: tuple[bytes, ...] | None) -> None:
        record = self.custody.record
        own = self._wishes.own
        if record is None or wish is None or wish != own or self.identity.id not in record.value.ids:
            return
        hint = WISH + succession(record).ceremony + b"".join(wish)
        for node in record.value.ids:
            if node != self.identity.id:
                self._send(node, hint)

    def _read(self) -> dict[bytes, list[Input]]:
        """The letters that have come: those of a ceremony, by its name. The others are dealt with here."""
        frames: dict[bytes, list[Input]] = {}
        while self._inbox:
            node, letter = self._inbox.popleft()
            self.traffic.received += 1
            sort, content = letter[:1], letter[1:]
            if sort == FRAME:
                name = content[:DIGEST_BYTES]
                if self._knows(node, name):
                    frames.setdefault(name, []).append(Received(node=node, data=content))
            elif sort == WISH:
                self._hear_wish(node, content)
            elif sort == REPAIR and len(content) <= REPAIR_BYTES_MAX:
                self._hear_repair(node, content)
            else:
                self._reject(node, "no such letter")
        self._inbox_of.clear()
        self._inbox_bytes.clear()
        return frames

    def _knows(self, node: bytes, name: bytes) -> bool:
        """Whether a frame is of the ceremony that is under way; sit down to it if it is the next one."""
        if self._sitting is not None and self._sitting.name == name:
            return True
        record = self.custody.record
        if record is None:
            return False
        electorate = succession(record)
        if electorate.ceremony == name:
            if self._sitting is None and node in electorate.ids and self._may_follow(record):
                self._seat(self._sit(electorate, electorate.epoch))
            return self._sitting is not None and self._sitting.name == name
        self._answer_over(node, name)
        return False

    def _answer_over(self, node: bytes, name: bytes) -> None:
        """Who still sits in a ceremony that is over is told its outcome."""
        newest = self.custody.record
        if self._over_by is not newest:  # any member can ask, and as often as it likes
            chain = self.custody.chain.records[-OVER_KEPT - 1 :]
            self._over = {succession(before).ceremony: (before, after) for before, after in pairwise(chain)}
            self._over_by = newest
        before, after = self._over.get(name, (None, None))
        if before is None or after is None or node not in {*before.value.ids, *after.value.ids}:
            return
        if self.now() >= self._answered.get(node, 0.0) + ANSWER_S:
            self._answered[node] = self.now()
            self._send(node, FRAME + encode_frame(name, Closed(record=after.encode())))

    def _hear_wish(self, node: bytes, content: bytes) -> None:
        record = self.custody.record
        if record is None or self.identity.id not in record.value.ids or node not in record.value.ids:
            return
        electorate = succession(record)
        name, keys = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if name != electorate.ceremony or len(keys) % KEY_BYTES or len(keys) > SIGNERS_MAX * KEY_BYTES:
            return
        wanted = cut(keys, KEY_BYTES)
        try:
            check_electors(wanted)
            self._check_wanted(wanted, record)
        except CeremonyError as error:
            self._reject(node, str(error))
            return
        self._wishes.hinted = wanted
        if self._sitting is None and self._may_follow(record):
            self._seat(self._sit(electorate, electorate.epoch))

    def _send(self, node: bytes, letter: bytes) -> None:
        self.traffic.sent += 1
        self.send(node, letter)

    def _reject(self, node: bytes, reason: str) -> None:
        self.traffic.rejected += 1
        log.debug("ceremony_rejected", extra={"fields": {"node": format_id(node), "reason": reason}})

    # -------------------------------------------------------------- what comes of it

    def _carry_out(self, sitting: Sitting, effects: list[Effect]) -> None:
        for effect in sorted(effects, key=lambda each: not isinstance(each, Sealed)):
            match effect:
                case Sealed():
                    self._keep(sitting, effect)
                case Send():
                    self._send(effect.node, FRAME + effect.data)
                case Convicted():
                    fields = {"node": format_id(effect.node), "epoch": sitting.epoch}
                    log.critical("signer_convicted", extra={"fields": fields})
                case Retrying():
                    self.traffic.retries += 1
                    awaited = [format_id(node) for node in effect.awaited]
                    fields = {
                        "epoch": sitting.epoch, "attempt": effect.attempt, "reason": effect.reason,
                        "awaited": ", ".join(awaited),
                    }  # fmt: skip
                    log.info("ceremony_retrying", extra={"fields": fields})
                case Rejected():
                    self._reject(effect.node, effect.reason)
                case _:
                    assert_never(effect)

    def _keep(self, sitting: Sitting, sealed: Sealed) -> None:
        """Raises KeyFileError: the memory still holds the outcome."""
        record, share = sealed.record, sealed.share
        try:
            if share is None:
                self.custody.learn(record)
            else:
                self.custody.take(record, share)
        except EpochError as error:
            log.error("epoch_refused", extra={"fields": {"epoch": record.epoch, "reason": str(error)}})
        else:
            self.traffic.sealed += 1
            fields = {
                "epoch": record.epoch, "threshold": record.group.threshold, "signers": len(record.value.keys),
                "share": share is not None,
            }  # fmt: skip
            log.info("epoch_sealed", extra={"fields": fields})
        self._end(sitting)

    def _end(self, sitting: Sitting) -> None:
        sitting.forget()
        if self._sitting is sitting:
            self._sitting = None
        self._look_at = 0.0

    def _retire(self) -> None:
        record = self.custody.record
        if self._retire_at is None or record is None or self.now() < self._retire_at:
            return
        self._retire_at = None
        self.custody.retire(record.epoch)
        for epoch in remembered(self.keys):
            if epoch <= record.epoch and (failed := forget_memory(self.keys, epoch)):
                raise KeyFileError(failed)

    # -------------------------------------------------------------- a lost share

    def _mend(self) -> None:
        """Ask the other signers for this node's share, if it is lost."""
        if not self.custody.lacking:
            self._lacking_since = None
            return
        if self._lacking_since is None:
            self._lacking_since = self.now()
        if self.now() - self._lacking_since < REPAIR_AFTER_S:
            return
        repair = self._repairing()
        if repair is not None and repair.deadline is not None and repair.deadline <= self.now():
            log.warning("share_lost", extra={"fields": {"repair": repr(repair)}})
            self._repaired(repair.step(self.now(), Tick()))

    def _repairing(self) -> Repair | None:
        record = self.custody.record
        if record is None or self.identity.id not in record.value.ids:
            return None
        shares = [share for share in self.custody.shares if share.group == record.group]
        if self._repair is None or self._repair_gives != bool(shares):
            self._repair_gives = bool(shares)
            self._repair = Repair(
                me=self.identity.id, group=record.group, share=shares[0] if shares else None,
                entropy=secrets.token_bytes,
            )  # fmt: skip
        return self._repair

    def _hear_repair(self, node: bytes, content: bytes) -> None:
        repair = self._repairing()
        if repair is not None and content[:DIGEST_BYTES] == repair.name:
            self._repaired(repair.step(self.now(), Received(node=node, data=content)))

    def _repaired(self, outputs: list[Send | Rejected | Restored]) -> None:
        for output in outputs:
            match output:
                case Send():
                    self._send(output.node, REPAIR + output.data)
                case Rejected():
                    self._reject(output.node, output.reason)
                case Restored():
                    # A repair gives its share once: where that cannot be kept, another one begins a while later.
                    self._repair, self._lacking_since = None, self.now()
                    self._take_restored(output.share)
                case _:
                    assert_never(output)

    def _take_restored(self, share: KeyShare) -> None:
        record = self.custody.record
        if record is None or record.group != share.group:
            return
        try:
            self.custody.take(record, share)
        except TrustError as error:
            log.error("share_refused", extra={"fields": {"reason": str(error)}})
            return
        log.warning("share_restored", extra={"fields": {"epoch": record.epoch}})
        self._sitting = None  # it sat down without a share, and goes on with one
