"""Datagrams: the socket under the gossip.

Invariant: nothing is looked at here; a datagram goes to the node whole or, when too large, nowhere. An address that
cannot be sent to (another member named it) costs one count, never the socket.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

DATAGRAM_BYTES_MAX: Final = 1400


class GossipDatagrams(asyncio.DatagramProtocol):
    """Hands each datagram of at most DATAGRAM_BYTES_MAX bytes to `received(source, data)`; counts the rest."""

    def __init__(self, received: Callable[[tuple[str, int], bytes], None]) -> None:
        self._received = received
        self._transport: asyncio.DatagramTransport | None = None
        self.oversized = 0
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def send(self, address: tuple[str, int], data: bytes) -> None:
        """Send it, or count that it could not be."""
        host, port = address
        if self._transport is None or not 0 < port < 65536:
            self.errors += 1
            return
        try:
            self._transport.sendto(data, (host, port))
        except (OSError, ValueError):  # uvloop: an address of the other family
            self.errors += 1

    def copy_socket(self) -> socket.socket:
        """The socket once more, for a process that takes over. Only while it is open."""
        assert self._transport is not None
        own: socket.socket = self._transport.get_extra_info("socket")
        return socket.fromfd(own.fileno(), own.family, socket.SOCK_DGRAM)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) > DATAGRAM_BYTES_MAX:
            self.oversized += 1
            return
        self._received((addr[0], addr[1]), data)

    def error_received(self, _exc: Exception) -> None:
        self.errors += 1  # an ICMP error for some earlier datagram: the probe's timeout says it better


async def open_datagrams(
    host: str,
    port: int,
    received: Callable[[tuple[str, int], bytes], None],
    held: socket.socket | None = None,
) -> GossipDatagrams:
    """Bind `host:port`, unless `held` is bound there already. Raises OSError."""
    bound = held or socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        if held is None:
            bound.bind((host, port))
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: GossipDatagrams(received), sock=bound
        )
    except BaseException:
        bound.close()
        raise
    return protocol
