"""What the signers before knew of used tokens, handed over to those who sign after them (why: `peer/spending.py`).

    new signer -> "spent"               purpose
    new signer -> epoch (8 bytes)       that it signs in, and wants to know everything spent before
    old signer -> b"s" <uses>, ...      40 bytes each, PAGE of them in a frame
               -> b"."                  that was all
               or b"l" <reason, UTF-8>  not now

A signer of epoch e asks those of e - 1, itself among them if it was one, until it knows n - t + 1 ledgers of them: one
of every t that may have let somebody in. A ledger is handed over for e only by who has all it needs for e - 1 itself:
so it says everything of all epochs before. And only by who knows that e has begun, and lets nobody in for an epoch
before from then on (`Spending.unready`). What it had begun by then is in the ledger. Where epochs follow one another
faster than ledgers, the newest is tried first, for it says all, and then the others, which may have to be known first.

Should so many of the old ones be gone for good that this never comes about, there is no harm in tokens that did not
exist when the epoch began here: those made by a member whose credential is younger. Credentials are renewed twice
a week, so that after that time at the latest new tokens work again.

An old signer that lies can leave uses out, as one that gives shares for everything can, and is outnumbered by the
others. It can also name uses that never were and so make tokens useless: HANDED_MAX bounds how much of the ledger that
takes, LASTS_S_MAX how long. Signers that are honest never come to HANDED_MAX, for they admit nobody beyond
ADMITTED_MAX. Whose ledger is larger all the same hands over nothing and says so: a part would make tokens usable twice.

Invariant: `settled` moves on only after everything it promises is on disk.
"""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from peer.custody import Custody
from peer.io.store import StoreError
from peer.io.stream import FrameStream, StreamError
from peer.spending import Spending
from trust.admission import SPENDS_MAX, Spend, TokenLedger
from trust.credential import CREDENTIAL_TTL_S_MAX
from trust.epoch import EpochRecord
from trust.groupkey import EPOCH_MAX
from trust.identity import ID_BYTES, format_id
from trust.invitation import TOKEN_ID_BYTES
from trust.order import ORDER_SKEW_S_MAX

log = logging.getLogger("gossamer.signing")

SETTLED: Final = "tokens_settled"  # the name under which the store keeps it
PAGE: Final = 4096
HANDED_MAX: Final = SPENDS_MAX // 2  # by one signer: more uses than that are not believed
# A token does not outlive the credential of who made it. What would be kept for ever fills the ledger for good.
LASTS_S_MAX: Final = CREDENTIAL_TTL_S_MAX + 2 * ORDER_SKEW_S_MAX
RETRY_S_MIN: Final = 0.5
RETRY_S_MAX: Final = 30.0
ASK_S_MAX: Final = 10.0
TRIED_MAX: Final = 8  # epochs in one go

_USE: Final = struct.Struct(f">{TOKEN_ID_BYTES}s{ID_BYTES}sQ")
_EPOCH: Final = struct.Struct(">Q")
_STATE: Final = struct.Struct(">qqq")
_MORE, _ALL, _LATER = b"s", b".", b"l"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """All uses before `epoch` are known here (-1: nothing is said). This node heard at `since` (Unix s) that it signs
    in `waiting`, the newest epoch by then, which it is not settled for yet."""

    epoch: int = -1
    waiting: int = -1
    since: int = 0

    def encode(self) -> bytes:
        """The form it is stored in."""
        return _STATE.pack(self.epoch, self.waiting, self.since)


def decode_settled(data: bytes | None) -> Settled:
    """Inverse of `Settled.encode`; nothing known where that is damaged or there is none."""
    if data is None or len(data) != _STATE.size:
        return Settled()
    epoch, waiting, since = _STATE.unpack(data)
    return Settled(epoch=epoch, waiting=waiting, since=since)


class Handover:
    """Asks and answers. `store` makes uses durable, `settle` a Settled; both raise StoreError. `dial(node)` opens a
    stream of purpose `spent` or raises StreamError. `now` is Unix time."""

    def __init__(
        self,
        *,
        custody: Custody,
        node: bytes,
        ledger: TokenLedger,
        store: Callable[[Sequence[Spend]], Awaitable[None]],
        settled: Settled,
        settle: Callable[[Settled], Awaitable[None]],
        dial: Callable[[bytes], Awaitable[FrameStream]],
        member_of: Callable[[FrameStream], bytes | None],
        now: Callable[[], float],
    ) -> None:
        self._custody, self._node = custody, node
        self._settled, self._settle = settled, settle
        self._dial, self._member_of, self._now = dial, member_of, now
        self._handed: dict[int, set[bytes]] = {}  # who handed its ledger over, by epoch asked for
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: dict[int, str] = {}  # why not, by epoch
        self._too_many = -1  # the epoch for which the ledger was too large to be handed over
        self.spending = Spending(ledger, store, settled=lambda: self.settled, newest=self._newest)
        custody.changed(self._custody_changed)

    @property
    def settled(self) -> Settled:
        """What is known of the uses before."""
        return self._settled

    @property
    def unsettled(self) -> str:
        """Why this signer lets nobody new in, "" if it does or is none."""
        record = self._custody.record
        if record is None or self._node not in record.value.ids or self._settled.epoch >= record.epoch:
            return ""
        return self._told.get(record.epoch, "the signers before it have not been heard yet")

    def _newest(self) -> int:
        record = self._custody.record
        return -1 if record is None else record.epoch

    # -------------------------------------------------------------- asking

    def _custody_changed(self) -> None:
        if self._loop is not None:  # a share is stored on a thread of its own
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Get settled for each epoch this node signs in, for ever."""
        self._loop = asyncio.get_running_loop()
        retry_s = RETRY_S_MIN
        while True:
            self._wake.clear()
            due = self._due()
            if due and await self._settled_for_one(due):
                retry_s = RETRY_S_MIN
                continue
            try:
                async with asyncio.timeout(retry_s if due else None):
                    await self._wake.wait()
                retry_s = RETRY_S_MIN
            except TimeoutError:
                retry_s = min(2 * retry_s, RETRY_S_MAX)

    def _due(self) -> list[EpochRecord]:
        """Epochs that this node signed in and is not settled for: the newest, then from the oldest on."""
        chain = self._custody.chain
        due = [
            record
            for record in chain.records
            if record.epoch > self._settled.epoch and self._node in record.value.ids
        ]
        known = [record for record in due[:-1] if record.epoch == 0 or chain.at(record.epoch - 1) is not None]
        return [*due[-1:], *known][:TRIED_MAX]

    async def _settled_for_one(self, due: list[EpochRecord]) -> bool:
        """Whether this node is settled for one more epoch now."""
        try:
            if self._settled.waiting != due[0].epoch:
                since = int(self._now())
                await self._keep(Settled(epoch=self._settled.epoch, waiting=due[0].epoch, since=since))
            for record in due:
                missing = await self._gathered(record)
                if not missing:
                    rest = self._settled if record is not due[0] else Settled()
                    await self._keep(Settled(epoch=record.epoch, waiting=rest.waiting, since=rest.since))
                    for kept in (self._handed, self._told):
                        for epoch in [each for each in kept if each <= record.epoch]:
                            del kept[epoch]
                    log.info("tokens_settled", extra={"fields": {"epoch": record.epoch}})
                    return True
                self._tell(record.epoch, missing)
        except StoreError as error:
            self._tell(due[0].epoch, str(error))
        return False

    async def _keep(self, settled: Settled) -> None:
        """Durable, and then in force. Raises StoreError."""
        await self._settle(settled)
        self._settled = settled

    async def _gathered(self, record: EpochRecord) -> str:
        """Ask the signers before `record`; "" once enough have handed over, or why not. Raises StoreError."""
        if record.epoch == 0:
            return ""
        before = self._custody.chain.at(record.epoch - 1)
        if before is None:
            return f"who signed in epoch {record.epoch - 1} is not known here"
        handed = self._handed.setdefault(record.epoch, set())
        if self._node in before.value.ids and self._settled.epoch >= before.epoch:
            handed.add(self._node)
        needed = len(before.value.ids) - before.group.threshold + 1
        asked = [node for node in before.value.ids if node not in handed and node != self._node]
        reasons: list[str] = []
        if len(handed) < needed:
            for node, answer in zip(
                asked, await asyncio.gather(*(self._ask(node, record.epoch) for node in asked)), strict=True
            ):
                if isinstance(answer, str):
                    reasons.append(f"{format_id(node)[:8]} {answer}")
                else:
                    await self.spending.learn(answer)
                    handed.add(node)
        if len(handed) >= needed:
            return ""
        return f"{len(handed)} of {needed} ledgers of epoch {before.epoch} are here: {'; '.join(reasons)}"

    async def _ask(self, node: bytes, epoch: int) -> list[Spend] | str:
        """Its ledger, or why not."""
        try:
            async with asyncio.timeout(ASK_S_MAX):
                stream = await self._dial(node)
                try:
                    stream.write(_EPOCH.pack(epoch))
                    return await self._read(stream)
                finally:
                    stream.abort()
        except StreamError as error:
            return str(error)
        except TimeoutError:
            return f"has not handed over within {ASK_S_MAX:g} s"

    async def _read(self, stream: FrameStream) -> list[Spend] | str:
        spends: list[Spend] = []
        while True:
            frame = await stream.read()
            tag, body = frame[:1], frame[1:]
            if tag == _LATER:
                return body[:500].decode(errors="replace")
            if tag == _ALL:
                return [spend for spend in spends if spend.expires_at > self._now()]
            if tag != _MORE or len(body) % _USE.size:
                return "handed over what is no ledger"
            if len(spends) + len(body) // _USE.size > HANDED_MAX:
                return f"handed over more than {HANDED_MAX} uses of tokens, which is more than is believed"
            page = [
                Spend(token_id=token, node=holder, expires_at=ends)
                for token, holder, ends in _USE.iter_unpack(body)
            ]
            if any(spend.expires_at > self._now() + LASTS_S_MAX for spend in page):
                return "handed over uses of tokens that there cannot be"
            spends += page

    def _tell(self, epoch: int, reason: str) -> None:
        if reason != self._told.get(epoch):
            self._told[epoch] = reason
            fields = {"epoch": epoch, "reason": reason, "effect": "nobody new is let in by this signer"}
            log.warning("tokens_unsettled", extra={"fields": fields})

    # -------------------------------------------------------------- answering

    async def serve(self, stream: FrameStream, _purpose: bytes) -> None:
        """Hand the ledger over to a new signer (a handler of `peer/io/listen.py`)."""
        asking = self._member_of(stream)
        if asking is None:
            raise StreamError("ledgers are handed over to signers")
        frame = await stream.read()
        if len(frame) != _EPOCH.size:
            raise StreamError("a signer asked for what is no epoch")
        refusal = self._refusal(asking, min(_EPOCH.unpack(frame)[0], EPOCH_MAX))
        if refusal:
            stream.write(_LATER + refusal.encode())
        else:
            spends = list(self.spending.ledger)
            for at in range(0, len(spends), PAGE):
                page = (
                    _USE.pack(each.token_id, each.node, each.expires_at) for each in spends[at : at + PAGE]
                )
                stream.write(_MORE + b"".join(page))
                await stream.flush()
            stream.write(_ALL)
            fields = {"signer": format_id(asking), "uses": len(spends)}
            log.info("tokens_handed_over", extra={"fields": fields})
        await stream.flush()
        await stream.read()  # until the other side, which has it all then, goes

    def _refusal(self, asking: bytes, epoch: int) -> str:
        record, before = self._custody.chain.at(epoch), self._custody.chain.at(epoch - 1) if epoch else None
        if record is None or before is None:
            return f"epoch {epoch} has not begun here"
        if asking not in record.value.ids:
            return f"no signer of epoch {epoch} asks"
        if self._node not in before.value.ids:
            return f"did not sign in epoch {epoch - 1}"
        if self._settled.epoch < epoch - 1:
            return f"does not know yet itself what was used before epoch {epoch - 1}"
        if (uses := len(self.spending.ledger)) > HANDED_MAX:
            words = (
                f"counts {uses} uses of tokens, more than the {HANDED_MAX} that can be handed over: it waits until "
                "tokens have expired"
            )
            if self._too_many != epoch:
                self._too_many = epoch
                log.error(
                    "ledger_too_large", extra={"fields": {"epoch": epoch, "uses": uses, "reason": words}}
                )
            return words
        return ""
