"""The ceremonies of a running peer: this node's part in each change of the signers, from wish to wiped share.

At any time one ceremony can be under way: the one for the epoch after the newest that is known here. A signer sits
down to it when it wishes for other signers, or when a fellow signer has spoken; a node that is to become a signer, when
a signer speaks to it. Letters come and go through the `post`, whose wish counts is a matter of the `counsel`, who still
sits when all is over hears the outcome (`outcomes`), and a lost share is restored by the other signers (`mending`).

When an epoch is sealed, in this order: this node's share is kept (`Custody.take`), the memory of the ceremony is
erased, the record goes to whoever asks and into the journal. The share of the epoch before stays for a while and is
then erased (`retiring`): the new group has proved that it can sign before anybody voted.

A memory that cannot be written stops this node's part before anything has left, and it begins again from what is
stored; one that cannot be read keeps it out of that epoch's ceremony.

Invariant: nothing is sent, published or erased before what it rests on is durable.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, assert_never

from peer.appointing import Appointing
from peer.counsel import Counsel
from peer.custody import Custody
from peer.favours import Favours
from peer.io.keys import KeyFileError, Keys
from peer.mending import Mending
from peer.outcomes import Outcomes
from peer.post import FRAME, ORDER, REFUSAL, REPAIR, WISH, Post, Traffic
from peer.refusals import Asked
from peer.retiring import Retirement
from peer.sitting import Effect, Sitting, erased, forget_memory, remembered
from peer.wishes import Judgement
from trust.ceremony.electorate import DIGEST_BYTES, Electorate
from trust.ceremony.events import (
    CeremonyStatus,
    Convicted,
    Input,
    Learned,
    Members,
    Received,
    Refused,
    Rejected,
    Retrying,
    Sealed,
    Send,
    Tick,
    Timing,
    Wish,
)
from trust.ceremony.growth import SignerRules
from trust.ceremony.repair import REPAIR_BYTES_MAX
from trust.epoch import EpochRecord, succession
from trust.errors import CeremonyError, EpochError, span
from trust.identity import NodeIdentity, format_id

log = logging.getLogger("gossamer.ceremony")

LOOK_S: Final = 3.0  # between two looks at who should be signers; each takes in all members
IDLE_S: Final = 30.0  # the same on a node that is no signer
PACE_S: Final = 10.0  # after an epoch, before a signer takes part in another that it does not wish for itself
RETRY_S: Final = 5.0  # after the disk failed


class Ceremonies:
    """See the module's theory. `send(node, letter)` may lose; `now` is a clock (s) that never falls, `unix` the time of
    day (s)."""

    def __init__(
        self,
        *,
        custody: Custody,
        keys: Keys,
        identity: NodeIdentity,
        rules: SignerRules,
        judgement: Judgement,
        send: Callable[[bytes, bytes], None],
        now: Callable[[], float],
        unix: Callable[[], float],
        timing: Timing | None = None,
        retain_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`retain_s` is how much longer (s) shares of epochs that are over may be asked for."""
        self._custody, self._keys = custody, keys
        self._identity, self._me = identity, identity.id
        self._rules = rules
        self._now, self._timing = now, timing
        self._post = Post(send)
        self._counsel = Counsel(identity.id, self._post, judgement, rules, Appointing(identity, unix))
        self._wishes = self._counsel.wishes
        self._outcomes = Outcomes(custody, now)
        self._mending = Mending(custody, identity.id, self._post, now)
        self._retirement = Retirement(custody, keys, now, retain_s)
        self._wake = asyncio.Event()
        self._sitting: Sitting | None = None
        self._barred = -1  # the epoch whose memory cannot be read
        self._failed_until = 0.0
        self._recalled = False
        self._members = Members(known=frozenset())
        self._told_wish: tuple[bytes, ...] | None = None  # the machine that sits
        self._told_members: Members | None = None
        self._look_at = 0.0
        self._newest = -1
        self._paced_until = 0.0
        self._favours = Favours()

    def __repr__(self) -> str:
        return f"Ceremonies({self._custody!r}, sitting={self._sitting!r}, inbox={len(self._post)})"

    # -------------------------------------------------------------- what others ask of it

    def receive(self, node: bytes, letter: bytes) -> None:
        """A letter came, over an authenticated stream from `node`."""
        if self._post.receive(node, letter):
            self._wake.set()

    def changed(self) -> None:
        """Members, revocations or epochs have changed."""
        self._look_at = 0.0
        self._wake.set()

    def ask(self, keys: tuple[bytes, ...] | None) -> tuple[bytes, ...]:
        """Wish for these signers (public keys), or for what this node thinks right; to the same signers for fresh
        shares. What is wished for. Raises CeremonyError."""
        self._follow()  # else a wish for the epoch after one that was just sealed would go with those for it
        record = self._custody.record
        if record is None or self._me not in record.value.ids:
            raise CeremonyError("this peer is no signer")
        wanted = self._wishes.ask(keys, record)
        self.changed()
        return wanted

    @property
    def asked(self) -> Asked:
        """What has become of what this peer's operator asked for, and of all orders."""
        return self._counsel.asked

    @property
    def traffic(self) -> Traffic:
        """What came and went."""
        return self._post.traffic

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
            wait_s = self._next() - self._now()
            if wait_s > 0 and not self._post:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def turn(self) -> None:
        """Everything that is due now."""
        if self._now() < self._failed_until:
            return
        try:
            if not self._recalled:
                await self._recall()
                self._recalled = True
            self._follow()
            self._look()
            await self._converse()
            if self._mending.mend():
                self._sitting = None  # it sat down without a share, and goes on with one
            self._retirement.retire()
        except KeyFileError as error:
            log.error("ceremony_interrupted", extra={"fields": {"reason": str(error), "retry_s": RETRY_S}})
            self._sitting, self._recalled = None, False
            self._told_wish = self._told_members = None
            self._failed_until = self._now() + RETRY_S

    def _next(self) -> float:
        if self._now() < self._failed_until:
            return self._failed_until
        times = [self._look_at, self._retirement.deadline, self._mending.deadline]
        times.append(None if self._sitting is None else self._sitting.deadline)
        return min(time for time in times if time is not None)

    async def _recall(self) -> None:
        """Take up what an earlier life sat in. Of an epoch that was decided meanwhile, the share may be there."""
        for epoch in remembered(self._keys):
            newest = self._custody.record
            before = self._custody.chain.at(epoch - 1)
            outcome = self._custody.chain.at(epoch)
            if newest is None or before is None or epoch > newest.epoch + 1:
                continue
            if outcome is not None and erased(self._keys, epoch):
                if failed := forget_memory(self._keys, epoch):
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
        record = self._custody.record
        if record is None or record.epoch == self._newest:
            return
        if self._newest >= 0 or any(share.group.epoch < record.epoch for share in self._custody.shares):
            self._retirement.begin()
        if self._newest >= 0:
            self._favours.sealed(self._now(), record.value.keys, self._wishes.own)
            self._counsel.forget()
            self._paced_until = self._now() + PACE_S
        self._newest = record.epoch
        self._told_wish = self._told_members = None
        self._mending.begin_anew()

    def _look(self) -> None:
        record, now = self._custody.record, self._now()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        if record is None or self._me not in record.value.ids:
            self._look_at = now + IDLE_S
            return
        self._members = self._counsel.look(record)
        self._counsel.show(now, record)
        if self._wishes.current is not None and self._sitting is None and self._may_follow(record):
            self._seat(self._sit(succession(record), record.epoch + 1))

    def _may_follow(self, record: EpochRecord) -> bool:
        """Whether to sit down to the next ceremony now. No signer alone makes the others change from epoch to epoch:
        neither as fast as they can, nor, without a reason of theirs, more often than `favours` says."""
        if self._custody.next is not None:
            return False  # these signers are about to go over to another root
        if self._me not in record.value.ids or self._wishes.commanded or self._wishes.backed(record):
            return True
        own, now = self._wishes.own, self._now()
        if not self._favours.needed(own):
            return True
        return now >= self._paced_until and self._favours.wait_s(now) <= 0

    def _seat(self, sitting: Sitting | None) -> None:
        self._sitting = sitting
        self._told_wish = self._told_members = None
        self._members = self._counsel.look(self._custody.record)

    def _sit(self, electorate: Electorate, epoch: int) -> Sitting | None:
        if self._barred == epoch:
            return None
        shares = [share for share in self._custody.shares if share.group == electorate.group]
        try:
            return Sitting(
                keys=self._keys,
                electorate=electorate,
                identity=self._identity,
                rules=self._rules,
                share=shares[0] if shares else None,
                now=self._now,
                timing=self._timing,
            )
        except CeremonyError as error:
            # What it voted is unknown, and voting again could make two outcomes.
            self._barred = epoch
            log.error("ceremony_memory_lost", extra={"fields": {"epoch": epoch, "reason": str(error)}})
            return None

    # -------------------------------------------------------------- letters

    async def _converse(self) -> None:
        given = self._read()
        sitting = self._sitting
        if sitting is None:
            return
        record = self._custody.record
        if record is not None and record.epoch >= sitting.epoch:
            decided = self._custody.chain.at(sitting.epoch)
            if decided is None:  # from before what is known here
                self._end(sitting)
                return
            inputs: list[Input] = [Learned(record=decided.encode())]
        else:
            inputs = self._news()
        inputs += given.get(sitting.name, [])
        due = sitting.deadline is not None and sitting.deadline <= self._now()
        if inputs or due:
            self._carry_out(sitting, await sitting.step([*inputs, Tick()]))

    def _news(self) -> list[Input]:
        """What the machine was not told yet of members and wishes."""
        news: list[Input] = []
        record = self._custody.record
        if self._members is not self._told_members:
            self._told_members = self._members
            news.append(self._members)
        wish = self._wishes.current
        if wish != self._told_wish:
            self._told_wish = wish
            news.append(Wish(keys=wish))
            if record is not None:
                self._counsel.tell(wish, record)
        return news

    def _read(self) -> dict[bytes, list[Input]]:
        """The letters that have come: those of a ceremony, by its name. The others are dealt with here."""
        frames: dict[bytes, list[Input]] = {}
        for node, sort, content in self._post.read():
            if sort == FRAME:
                name = content[:DIGEST_BYTES]
                if self._knows(node, name):
                    frames.setdefault(name, []).append(Received(node=node, data=content))
            elif sort in {WISH, ORDER, REFUSAL}:
                self._hear_wish(node, sort, content)
            elif sort == REPAIR and len(content) <= REPAIR_BYTES_MAX:
                if self._mending.hear(node, content):
                    self._sitting = None
            else:
                self._post.reject(node, "no such letter")
        return frames

    def _knows(self, node: bytes, name: bytes) -> bool:
        """Whether a frame is of the ceremony that is under way; sit down to it if it is the next one."""
        if self._sitting is not None and self._sitting.name == name:
            return True
        record = self._custody.record
        if record is None:
            return False
        electorate = succession(record)
        if electorate.ceremony == name:
            if self._sitting is None and node in electorate.ids and self._may_follow(record):
                self._seat(self._sit(electorate, electorate.epoch))
            return self._sitting is not None and self._sitting.name == name
        outcome = self._outcomes.answer(node, name)
        if outcome is not None:
            self._post.send(node, FRAME, outcome)
        return False

    def _hear_wish(self, node: bytes, sort: bytes, content: bytes) -> None:
        record = self._custody.record
        if record is None or not self._counsel.hear(node, sort, content, record):
            return
        if sort == ORDER:
            self._members = self._wishes.members
        if self._sitting is None and self._may_follow(record):
            self._seat(self._sit(succession(record), record.epoch + 1))
        elif self._sitting is None and (wait_s := self._favours.wait_s(self._now())) > 0:
            self._counsel.put_off(
                node, f"it has no reason itself, and follows others again in {span(wait_s)}", record
            )

    # -------------------------------------------------------------- what comes of it

    def _carry_out(self, sitting: Sitting, effects: list[Effect]) -> None:
        for effect in sorted(effects, key=lambda each: not isinstance(each, Sealed)):
            match effect:
                case Sealed():
                    self._keep(sitting, effect)
                case Send():
                    self._post.send(effect.node, FRAME, effect.data)
                case Convicted():
                    log.critical("signer_convicted", extra={"fields": sitting.told(effect)})
                case Retrying():
                    self.traffic.retries += 1
                    log.info("ceremony_retrying", extra={"fields": sitting.told(effect)})
                case Refused():
                    log.warning("opening_refused", extra={"fields": sitting.told(effect)})
                case Rejected():
                    self._post.reject(effect.node, effect.reason)
                case _:
                    assert_never(effect)

    def _keep(self, sitting: Sitting, sealed: Sealed) -> None:
        """Raises KeyFileError: the memory still holds the outcome."""
        record, share = sealed.record, sealed.share
        try:
            if share is None:
                self._custody.learn(record)
            else:
                self._custody.take(record, share)
        except EpochError as error:
            log.error("epoch_refused", extra={"fields": {"epoch": record.epoch, "reason": str(error)}})
        else:
            self.traffic.sealed += 1
            fields = {
                "epoch": record.epoch, "threshold": record.group.threshold, "signers": len(record.value.keys),
                "share": share is not None, **self._change(record),
            }  # fmt: skip
            log.info("epoch_sealed", extra={"fields": fields})
        self._end(sitting)

    def _change(self, record: EpochRecord) -> dict[str, str]:
        """Who became a signer by it, and who is none any more."""
        before = self._custody.chain.at(record.epoch - 1)
        old = set() if before is None else set(before.value.ids)
        new = set(record.value.ids)
        return {
            "joined": ", ".join(map(format_id, sorted(new - old))),
            "left": ", ".join(map(format_id, sorted(old - new))),
        }

    def _end(self, sitting: Sitting) -> None:
        sitting.forget()
        if self._sitting is sitting:
            self._sitting = None
        self._look_at = 0.0
