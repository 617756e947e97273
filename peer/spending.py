"""The uses of join tokens, as a signer keeps them: what is on disk, and whether everything spent before is known here.

No signer sees every admission: each takes t of n. Every signer counts those it gave a share for, and never gives one
for more different nodes than the token allows. So with n signers, each of which follows that, a token with k uses
admits at most floor(k * n / t) nodes. For the thresholds a mesh chooses itself (majorities) that is once for k = 1,
whoever asks whom at the same time, because any two majorities share a signer; and less than 2k for others, which it
only comes to when many ask at once through different signers. It is never less than k. With f signers that lie it is
floor(k * (n - f) / (t - f)).

When the group changes, the new signers have to know what was spent. A record of every use in the journal would burden
every member with them, and could not say that it is complete. So each new signer, and each that stays, asks the old
ones for their ledgers (`peer/handover.py`). Until it knows those of n - t + 1 of them, which is one of every t that may
have admitted somebody, it lets nobody in. Nobody hands its ledger over before it lets nobody in for the old group any
more. Renewals, certificates and revocations spend nothing and never wait.

Invariant: `kept` returns when every use counted so far for this ledger is on disk.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from trust.admission import Spend, TokenLedger
from trust.order import ORDER_SKEW_S_MAX, Draft

if TYPE_CHECKING:
    from peer.handover import Settled

__all__ = ["Spending"]


class Spending:
    """`store(spends)` makes uses durable, or raises StoreError. `settled` tells for which epoch all earlier uses are
    known here, `newest` which is the newest epoch."""

    def __init__(
        self, ledger: TokenLedger, store: Callable[[Sequence[Spend]], Awaitable[None]], *,
        settled: Callable[[], "Settled"], newest: Callable[[], int],
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self._store = store
        self._settled, self._newest = settled, newest
        self._unsaved: dict[Spend, None] = {}

    def unready(self, draft: Draft, epoch: int) -> str:
        """Why whoever `draft` is for may not be let in with a share of `epoch` now; "" if that may be."""
        if draft.spend is None:
            return ""
        if epoch != self._newest():
            return f"nobody joins by the signers of epoch {epoch} any more: epoch {self._newest()} has begun"
        settled = self._settled()
        begun = settled.since if settled.waiting == epoch else math.inf
        if epoch > settled.epoch and draft.vouched_at <= begun + ORDER_SKEW_S_MAX:
            return "this signer does not know yet which tokens the signers before it have let in"
        return ""

    async def kept(self, spend: Spend | None) -> bool:
        """Count `spend`, and return when it and what was counted before are on disk; whether that took any waiting.
        Raises StoreError.

        The ledger counts a use at once, so a host whose first request met a full disk, or that asks twice at the same
        time, is admitted for free the second time: what is not on disk by then is waited for again.
        """
        if spend is not None:
            self.ledger.record(spend)
            self._unsaved[spend] = None
        unsaved = tuple(self._unsaved)
        if not unsaved:
            return False
        await self._store(unsaved)
        for each in unsaved:
            self._unsaved.pop(each, None)
        return True

    async def learn(self, spends: Iterable[Spend]) -> None:
        """Take in uses that another signer counted; durable when it returns. Raises StoreError."""
        known = set(self.ledger)
        for spend in spends:
            if spend not in known:
                self.ledger.record(spend)
                self._unsaved[spend] = None
        await self.kept(None)
