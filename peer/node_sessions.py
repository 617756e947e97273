"""The exchanges under way: how many there may be, with whom, and until when.

What others open and what this node opens have bounds of their own, and so has each other node, so that nobody can keep
this node from reconciling by opening exchanges and leaving them open.

Invariant: every exchange has an end (`SESSION_S_MAX`); the numbers of those this node opens are odd.
"""

from dataclasses import dataclass
from typing import Final

from gossip.events import Address
from peer.session import SyncSession

OUTBOUND_MAX: Final = 16
INBOUND_MAX: Final = 16
INBOUND_PER_NODE_MAX: Final = 2
OUTBOUND_PER_NODE_MAX: Final = 2  # a member may announce any number of addresses, one after the other
SESSION_S_MAX: Final = 30.0

TOO_MANY: Final = "too many exchanges under way"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One exchange. `address` is None for one that the other side opened; `session` is None until the stream this
    node asked for is open."""

    address: Address | None
    node: bytes | None
    with_members: bool
    ends_at: float
    session: SyncSession | None = None
    taken: int = 0  # records and proofs that were news here
    refused: bool = False  # whether some could not be taken


class Sessions:
    """Exchanges by stream number."""

    __slots__ = ("_exchanges", "_next")

    def __init__(self) -> None:
        self._exchanges: dict[int, Exchange] = {}
        self._next = 1  # odd: this node's; the driver numbers inbound streams even

    def __len__(self) -> int:
        return len(self._exchanges)

    def get(self, stream: int) -> Exchange | None:
        return self._exchanges.get(stream)

    def pop(self, stream: int) -> Exchange | None:
        return self._exchanges.pop(stream, None)

    @property
    def deadline(self) -> float | None:
        if not self._exchanges:
            return None
        return min(exchange.ends_at for exchange in self._exchanges.values())

    def overdue(self, now: float) -> list[int]:
        if not self._exchanges:
            return []  # nearly always
        return [stream for stream, exchange in self._exchanges.items() if exchange.ends_at <= now]

    def covers(self, address: Address, *, with_members: bool) -> bool:
        """Whether an exchange with that address is under way that does what is wanted."""
        return any(
            exchange.address == address and (exchange.with_members or not with_members)
            for exchange in self._exchanges.values()
        )

    def begin(self, now: float, address: Address, node: bytes | None, *, with_members: bool) -> int | None:
        """The number of a new exchange of this node's; None if there are too many."""
        outbound = [exchange for exchange in self._exchanges.values() if exchange.address is not None]
        if len(outbound) >= OUTBOUND_MAX:
            return None
        if node is not None and sum(e.node == node for e in outbound) >= OUTBOUND_PER_NODE_MAX:
            return None
        stream = self._next
        self._next += 2
        self._exchanges[stream] = Exchange(
            address=address, node=node, with_members=with_members, ends_at=now + SESSION_S_MAX
        )
        return stream

    def accept(self, now: float, stream: int, node: bytes, session: SyncSession) -> bool:
        """Take part in an exchange the other side opened; False if there are too many, or too many with it."""
        inbound = [exchange for exchange in self._exchanges.values() if exchange.address is None]
        if len(inbound) >= INBOUND_MAX or sum(e.node == node for e in inbound) >= INBOUND_PER_NODE_MAX:
            return False
        self._exchanges[stream] = Exchange(
            address=None, node=node, with_members=False, ends_at=now + SESSION_S_MAX, session=session
        )
        return True
