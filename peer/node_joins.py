"""Requests to enter the mesh through given addresses: which are still out, and how the others answered.

Invariant: every request is answered once, when each of its addresses has been contacted or has failed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gossip.events import Address
from peer.messages import Joined, Output


@dataclass(slots=True)
class _Request:
    waiting: set[Address]
    contacted: list[Address] = field(default_factory=list)
    failed: dict[Address, str] = field(default_factory=dict)


class Joins:
    """The requests under way."""

    def __init__(self) -> None:
        self._requests: dict[int, _Request] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: int, seeds: Iterable[Address]) -> None:
        self._requests[request] = _Request(waiting=set(seeds))

    def contacted(self, address: Address) -> list[Output]:
        """An exchange with that address came to its end; the requests this answers."""
        for request in self._requests.values():
            if address in request.waiting:
                request.waiting.discard(address)
                request.contacted.append(address)
        return self.answers()

    def failed(self, address: Address, reason: str) -> list[Output]:
        """That address could not be contacted; the requests this answers."""
        for request in self._requests.values():
            if address in request.waiting:
                request.waiting.discard(address)
                request.failed[address] = reason
        return self.answers()

    def answers(self) -> list[Output]:
        """The requests that have nothing left to wait for."""
        done = [number for number, request in self._requests.items() if not request.waiting]
        out: list[Output] = []
        for number in done:
            request = self._requests.pop(number)
            out.append(Joined(request=number, contacted=tuple(request.contacted), failed=request.failed))
        return out
