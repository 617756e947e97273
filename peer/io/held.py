"""Sockets that were bound before this process began: what one peer process leaves to the one that takes over from it.

Whoever would bind a port asks here first. A socket fits when it is of the kind and at the address that is wanted now,
for the configuration may have changed in between; what nobody has taken is closed in the end.

Invariant: a socket is handed out once.
"""

import socket
from collections.abc import Mapping
from typing import Final

GOSSIP_DATAGRAMS: Final = "gossip/udp"
GOSSIP_STREAMS: Final = "gossip/tcp"
ADMIN_PORT: Final = "admin/tcp"
ADMIN_SOCKET: Final = "admin/unix"
LISTENER_PREFIX: Final = "listener/"  # and the listener's name: the data plane's


class HeldSockets:
    """By what they are for. None at all when this process has taken over from no other."""

    def __init__(self, sockets: Mapping[str, socket.socket] | None = None) -> None:
        self._sockets = dict(sockets or {})

    def take(self, name: str, host: str, port: int) -> socket.socket | None:
        """The socket of that name, if it is bound there."""
        held = self._sockets.get(name)
        if held is None or held.getsockname()[:2] != (host, port):
            return None
        return self._sockets.pop(name)

    def take_unix(self, name: str) -> socket.socket | None:
        """The socket of that name, which is bound to a file; None if no process before left one."""
        return self._sockets.pop(name, None)

    def holds(self, kind: socket.SocketKind, host: str, port: int) -> bool:
        """Whether a socket of that kind is bound there."""
        return any(
            held.family != socket.AF_UNIX and held.type == kind and held.getsockname()[:2] == (host, port)
            for held in self._sockets.values()
        )

    def close(self) -> None:
        for held in self._sockets.values():
            held.close()
        self._sockets.clear()
