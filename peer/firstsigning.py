"""What a group signs before there is a mesh: the root's certificate, and the credential of each founder.

Orders and signers are those of any mesh (`peer/signing.py`, `peer/cosigner.py`), with founders in the place of members
and nobody to be let in. Once the mesh is made no signer takes such orders any more (`trust/founding.py`).

Invariant: nothing is signed here but for those who made the root.
"""

import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn

from peer.cosigner import Cosigner
from peer.custody import Custody
from peer.io.stream import FrameStream
from peer.signing import Signing, SigningError
from peer.spending import Spending
from trust.admission import Spend, TokenLedger
from trust.credential import CREDENTIAL_TTL_S
from trust.epoch import EpochRecord
from trust.errors import AdmissionError
from trust.founding import request_founding
from trust.identity import NodeIdentity
from trust.order import ENTROPY_BYTES, Kind, Order, Rules, derive
from trust.revocation import RevocationSet

log = logging.getLogger("gossamer.founding")

_NOBODY: Final = "nobody joins a mesh that is being founded"


class FirstSignatures:
    """This founder as signer and as coordinator. `dial(node)` opens a stream to another founder for signing,
    `member_of` tells which founder called."""

    def __init__(
        self,
        *,
        custody: Custody,
        record: EpochRecord,
        identity: NodeIdentity,
        name: str,
        trust_domain: str,
        dial: Callable[[bytes], Awaitable[FrameStream]],
        member_of: Callable[[FrameStream], bytes | None],
        now: Callable[[], float],
    ) -> None:
        self._identity, self._name, self._now = identity, name, now
        self._rules = Rules(
            root_public=record.group.public,
            root_certificate=b"",
            trust_domain=trust_domain,
            revoked=RevocationSet(record.group.public),
            ledger=TokenLedger(),
            founders=frozenset(record.value.ids),
        )
        self.cosigner = Cosigner(
            custody=custody, rules=self._rules, node=identity.id,
            spending=Spending(TokenLedger(), _unspent, settled=_unsettled, newest=lambda: record.epoch),
            now=now, entropy=secrets.token_bytes, member_of=member_of,
        )  # fmt: skip
        self._signing = Signing(
            custody=custody, cosigner=self.cosigner, node=identity.id, dial=dial, may_sign=lambda _node: True,
            rng=random.Random(secrets.randbits(64)), entropy=secrets.token_bytes,
        )  # fmt: skip

    async def root_certificate(self) -> bytes | None:
        """The root's own certificate; None if too few founders answer just now. Raises TrustError."""
        return await self._signed(Kind.ROOT, b"", 0)

    async def credential(self) -> bytes | None:
        """This founder's; None if too few answer just now. Raises TrustError."""
        request = request_founding(self._identity, self._name, self._now()).encode()
        return await self._signed(Kind.FOUNDER, request, CREDENTIAL_TTL_S)

    async def close(self) -> None:
        """End the streams."""
        await self._signing.close()

    async def _signed(self, kind: Kind, request: bytes, ttl_s: int) -> bytes | None:
        order = Order(
            kind=kind, request=request, issued_at=int(self._now()), ttl_s=ttl_s,
            entropy=secrets.token_bytes(ENTROPY_BYTES),
        )  # fmt: skip
        try:
            return await self._signing.sign(order, derive(order, self._rules))
        except SigningError as error:
            log.warning("founding_unsigned", extra={"fields": {"kind": kind.value, "reason": str(error)}})
            return None


async def _unspent(_spends: Sequence[Spend]) -> None:
    raise AdmissionError(_NOBODY)


def _unsettled() -> NoReturn:
    raise AdmissionError(_NOBODY)
