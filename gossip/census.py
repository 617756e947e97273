"""Members that several engines of one process know alike from the start, held once.

A simulation of n nodes that all know each other would hold n^2 entries. With a census each engine holds a reference
and, of its own, only the members that differ or that it has dealt with (gossip/roster.py). A peer on a host has none.

Invariant: nothing in a census changes once it is made.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gossip.digest import Digest, Mark, Standing
from gossip.member import Member, State
from gossip.statement import Alive
from gossip.wire import SENDER_BYTES
from trust.credential import Credential


@dataclass(frozen=True, slots=True)
class Seat:
    """One member as everybody knows it: its own word, and that word's bytes."""

    member: Member
    alive: Alive
    encoded: bytes


class Census:
    """The members, sorted by id. `since` is when they count as seen first (Unix seconds)."""

    __slots__ = ("addresses", "digest", "expires_at", "ids", "prefixes", "seats")

    def __init__(self, members: Iterable[tuple[Alive, Credential]], *, since: float) -> None:
        seats = {alive.node: _seat(alive, credential, since) for alive, credential in members}
        self.ids: tuple[bytes, ...] = tuple(sorted(seats))
        self.seats: Mapping[bytes, Seat] = MappingProxyType(seats)
        self.prefixes: Mapping[bytes, bytes] = MappingProxyType(
            {node[:SENDER_BYTES]: node for node in self.ids}
        )
        self.addresses: Mapping[tuple[str, int], bytes] = MappingProxyType(
            {seat.member.address: node for node, seat in seats.items()}
        )
        self.digest = Digest()
        for node, seat in seats.items():
            self.digest.replace(node, None, Mark(*seat.member.rank, Standing.LIVE))
        self.expires_at = min((seat.member.credential.expires_at for seat in seats.values()), default=0)
        assert len(self.prefixes) == len(self.ids), "ids that differ in the sender field"


def _seat(alive: Alive, credential: Credential, since: float) -> Seat:
    member = Member(
        id=alive.node,
        name=credential.name,
        address=alive.address,
        state=State.ALIVE,
        incarnation=alive.incarnation,
        boot=alive.boot,
        zone=alive.zone,
        meta=dict(alive.meta),
        credential=credential,
        since=since,
    )
    return Seat(member, alive, alive.encode())


NOBODY = Census((), since=0.0)
