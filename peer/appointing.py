"""What operators order of the signers of the epoch to come: at this peer, and at its fellow signers.

An order counts once as many signers as have the root together give the same (`trust/ceremony/appointment.py`). Each
peer shows its own to the others again every AGAIN_S, for letters are lost; with the epoch they all are forgotten.

Invariant: what is kept is verified, one order for each signer of today.
"""

import logging
from collections.abc import Callable
from typing import Final

from trust.ceremony.appointment import Appointment, agreed, appoint, check_appointment, decode_appointment
from trust.epoch import EpochRecord, succession
from trust.identity import NodeIdentity, format_id, node_id

log = logging.getLogger("gossamer.ceremony")

AGAIN_S: Final = 3.0


class Appointing:
    """See the module's theory. `unix` is the time of day (s), `record` always the newest epoch's."""

    def __init__(self, identity: NodeIdentity, unix: Callable[[], float]) -> None:
        self._identity = identity
        self._unix = unix
        self._orders: dict[bytes, Appointment] = {}  # by the signer's node id
        self._shown_at: float | None = None

    @property
    def orders(self) -> dict[bytes, tuple[bytes, ...]]:
        """Which signers (node ids) order which (public keys)."""
        return {node: order.keys for node, order in self._orders.items()}

    def forget(self) -> None:
        """Another epoch has begun."""
        self._orders.clear()

    def order(self, keys: tuple[bytes, ...], record: EpochRecord) -> None:
        """This peer's operator wants exactly these signers. Raises CeremonyError."""
        known = self._orders.get(self._identity.id)
        given_at = int(self._unix()) if known is None else max(int(self._unix()), known.given_at + 1)
        order = appoint(self._identity, succession(record).ceremony, keys, given_at)
        self._orders[self._identity.id] = order
        self._shown_at = None

    def hear(self, content: bytes, record: EpochRecord) -> bool:
        """A fellow signer shows an order, its own or another one's. Whether it is new. Raises CeremonyError: it is none
        that counts."""
        order = decode_appointment(content)
        known = self._orders.get(order.node)
        if order == known:
            return False
        check_appointment(order, succession(record))
        if order.node == self._identity.id or (known is not None and known.given_at >= order.given_at):
            return False
        self._orders[order.node] = order
        fields = {
            "epoch": record.epoch + 1, "by": format_id(order.node),
            "signers": ", ".join(format_id(each) for each in map(node_id, order.keys)),
        }  # fmt: skip
        log.warning("signers_ordered", extra={"fields": fields})
        return True

    def letters(self) -> list[bytes]:
        """All orders, encoded: for those to whom a wish is told that rests on them."""
        return [order.encode() for order in self._orders.values()]

    def agreed(self, record: EpochRecord, barred: frozenset[bytes]) -> tuple[bytes, ...]:
        """The group that enough signers order (public keys); () for none."""
        return agreed(self._orders.values(), succession(record), barred)

    def show(self, now: float) -> bytes | None:
        """This peer's own order, when it is time to show it again by a clock (s) that never falls."""
        own = self._orders.get(self._identity.id)
        if own is None or (self._shown_at is not None and now < self._shown_at + AGAIN_S):
            return None
        self._shown_at = now
        return own.encode()
