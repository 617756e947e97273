"""Signers of a test mesh: custody in memory, and everything of a peer that takes part in a signature."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peer.cosigner import Cosigner
from peer.custody import Custody
from peer.handover import Settled
from peer.io.keys import Keys
from peer.io.stream import FrameStream, StreamError
from peer.issuer import Issuer
from peer.signing import Signing
from peer.spending import Spending
from trust.admission import Spend
from trust.coordinator import CoordinatorConfig
from trust.epoch import EpochRecord
from trust.groupkey import KeyShare
from trust.order import Rules
from trust.signer import SHARES_MAX


class MemoryCustody(Custody):
    """Without a disk. Shares that it drops are not wiped: tests hold them too."""

    def __init__(self, root: bytes, node: bytes) -> None:
        super().__init__(Keys(Path("/nonexistent")), root, node)

    def take(self, record: EpochRecord, share: KeyShare) -> None:
        self.learn(record)
        self._held[record.epoch] = (record, share)
        for epoch in sorted(self._held)[:-SHARES_MAX]:
            del self._held[epoch]
        self._tell()

    def _store_records(self) -> None:
        pass


@dataclass
class Parts:
    """What of a peer takes part in a signature."""

    custody: MemoryCustody
    spending: Spending
    cosigner: Cosigner
    signing: Signing
    issuer: Issuer


async def nowhere(_node: bytes) -> FrameStream:
    raise StreamError("it is not a member that is known here")


def parts(
    node: bytes, rules: Rules, now: Callable[[], float], store: Callable[[Sequence[Spend]], Awaitable[None]], *,
    dial: Callable[[bytes], Awaitable[FrameStream]] = nowhere,
    member_of: Callable[[FrameStream], bytes | None] = lambda _stream: None,
    may_sign: Callable[[bytes], bool] = lambda _node: True,
    settled: Callable[[], Settled] = lambda: Settled(epoch=0),
    config: CoordinatorConfig | None = None, seed: int = 0, svid_ttl_s: int = 3600,
    make: Callable[..., Cosigner] = Cosigner,
) -> Parts:  # fmt: skip
    """Put together as the daemon does it, with a custody that is still empty."""
    entropy = random.Random(f"{node.hex()} {seed}")
    custody = MemoryCustody(rules.root_public, node)

    def newest() -> int:
        return -1 if custody.record is None else custody.record.epoch

    spending = Spending(rules.ledger, store, settled=settled, newest=newest)
    cosigner = make(
        custody=custody, rules=rules, node=node, spending=spending, now=now, entropy=entropy.randbytes,
        member_of=member_of,
    )  # fmt: skip
    signing = Signing(
        custody=custody, cosigner=cosigner, node=node, dial=dial, may_sign=may_sign, rng=entropy,
        entropy=entropy.randbytes, config=config,
    )  # fmt: skip
    issuer = Issuer(signing=signing, rules=rules, now=now, svid_ttl_s=svid_ttl_s)
    return Parts(custody, spending, cosigner, signing, issuer)
