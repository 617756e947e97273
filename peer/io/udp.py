"""Datagrams: the socket under the gossip.

Invariant: nothing is looked at here; a datagram goes to the node whole or, when too large, nowhere.
"""

import asyncio
from collections.abc import Callable
from typing import Final

DATAGRAM_BYTES_MAX: Final = 1400


class GossipDatagrams(asyncio.DatagramProtocol):
    """Hands each datagram of at most DATAGRAM_BYTES_MAX bytes to `received(source, data)`; counts the rest."""

    def __init__(self, received: Callable[[tuple[str, int], bytes], None]) -> None:
        self._received = received
        self.oversized = 0
        self.errors = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) > DATAGRAM_BYTES_MAX:
            self.oversized += 1
            return
        self._received((addr[0], addr[1]), data)

    def error_received(self, _exc: Exception) -> None:
        self.errors += 1  # an ICMP error for some earlier datagram: the probe's timeout says it better


async def open_datagrams(
    host: str, port: int, received: Callable[[tuple[str, int], bytes], None]
) -> tuple[asyncio.DatagramTransport, GossipDatagrams]:
    """Bind `host:port`. Raises OSError."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: GossipDatagrams(received), local_addr=(host, port)
    )
    return transport, protocol
