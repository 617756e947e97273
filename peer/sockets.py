"""The listening sockets of the data plane, owned by the control process and handed to whoever serves them.

A socket stays open for as long as any listener of its name is wanted: workers may crash, restart or be
replaced while new connections wait in the kernel's queue.

Invariant: `open` binds all of what is missing or nothing.
"""

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from peer.io.held import LISTENER_PREFIX, HeldSockets
from proxy.snapshot import Listener

BACKLOG: Final = 4096


class BindError(Exception):
    """A port could not be had; the message says which and why. No socket was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where listeners go: `inbound` faces the mesh, the others are loopback only."""

    bind: str
    loopback: str
    inbound_port: int
    outbound_port: int

    def of(self, listener: Listener) -> tuple[str, int]:
        match listener.kind:
            case "inbound":
                return self.bind, self.inbound_port
            case "outbound":
                return self.loopback, self.outbound_port
            case "upstream":
                return self.loopback, int(listener.name.rpartition(":")[2])


class ListeningSockets:
    """Sockets by listener name."""

    def __init__(self, places: Places, held: HeldSockets | None = None) -> None:
        """`held` are bound already; those that are wanted are used."""
        self._places = places
        self._held = held or HeldSockets()
        self._open: dict[str, socket.socket] = {}

    def open(self, listeners: Iterable[Listener]) -> Mapping[str, socket.socket]:
        """Bind what is missing; all open sockets by name. Raises BindError."""
        fresh: dict[str, socket.socket] = {}
        try:
            for listener in listeners:
                if listener.name not in self._open and listener.name not in fresh:
                    fresh[listener.name] = self._bind(listener)
        except BindError:
            for opened in fresh.values():
                opened.close()
            raise
        self._open.update(fresh)
        return dict(self._open)

    def keep_only(self, listeners: Iterable[Listener]) -> None:
        """Close the sockets of listeners that are gone."""
        wanted = {listener.name for listener in listeners}
        for name in [n for n in self._open if n not in wanted]:
            self._open.pop(name).close()

    def copies(self) -> dict[str, socket.socket]:
        """All of them once more, for a process that takes over."""
        return {LISTENER_PREFIX + name: opened.dup() for name, opened in self._open.items()}

    def close(self) -> None:
        for opened in self._open.values():
            opened.close()
        self._open.clear()

    def _bind(self, listener: Listener) -> socket.socket:
        host, port = self._places.of(listener)
        held = self._held.take(LISTENER_PREFIX + listener.name, host, port)
        if held is not None:
            return held
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setblocking(False)
            opened.bind((host, port))
            opened.listen(BACKLOG)
        except OSError as error:
            opened.close()
            what = f"upstream port {port}" if listener.kind == "upstream" else f"{listener.kind} port {port}"
            raise BindError(f"{what} cannot be opened on {host}: {error.strerror}") from error
        return opened
