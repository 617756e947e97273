"""The signatures that a new root needs before anybody follows on to it, and where they are told.

The signers of the new root accept it and sign its certificate, those of the old one name it. All that, and the first
epoch of the new root, goes into the journal in one write, where everybody finds it (`peer/rootline.py`).

Invariant: the old root is asked last, so it names none that cannot sign.
"""

import secrets
from typing import TYPE_CHECKING

from peer.messages import Draft
from peer.records import EPOCH, ROLLOVER, epoch_key, rollover_key
from trust.order import ENTROPY_BYTES, Kind, Order, Rolling, derive
from trust.rolling import RolloverRequest, terms_of
from trust.rollover import Rollover, Terms, complete

if TYPE_CHECKING:
    from peer.daemon import Daemon
    from peer.signing import Signing


class Naming:
    """See the module's theory."""

    def __init__(self, daemon: "Daemon", signing: "Signing") -> None:
        """`signing` obtains signatures of the root that is being made."""
        self._daemon = daemon
        self._signing = signing

    async def name(self, request: RolloverRequest, rolling: Rolling) -> Terms:
        """Have the new root accepted and named, and tell everybody. Raises SigningError: a signature could not be
        obtained now; TrustError, ApiError."""
        daemon = self._daemon
        terms = terms_of(request, rolling.before, rolling.after, daemon.membership.trust_domain)
        rollover = complete(
            Rollover(terms=terms),
            by_new=await self._signed(Kind.ACCEPTANCE, request, terms.new, self._signing),
            certificate=await self._signed(Kind.SUCCESSOR, request, terms.new, self._signing),
            by_old=await self._signed(Kind.SUCCESSION, request, terms.old, daemon.signing),
        )
        await daemon.write(
            [
                Draft(kind=EPOCH, key=epoch_key(rolling.after), payload=rolling.after.encode()),
                Draft(kind=ROLLOVER, key=rollover_key(rollover), payload=rollover.encode()),
            ]
        )
        return terms

    async def _signed(self, kind: Kind, request: RolloverRequest, root: bytes, signing: "Signing") -> bytes:
        daemon = self._daemon
        order = Order(
            kind=kind,
            request=request.encode(),
            issued_at=int(daemon.clock.now()),
            entropy=secrets.token_bytes(ENTROPY_BYTES),
        )
        return await signing.sign(order, derive(order, daemon.issuer.rules.under(root)))
