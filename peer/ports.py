"""Are this peer's ports free? Asked before anything is written, so that a start that cannot succeed changes nothing.

Invariant: nothing stays bound; the listeners are opened later and say the same words if they lose the race.
"""

import socket

from peer.config import Config
from peer.io.held import HeldSockets


class PortInUseError(Exception):
    """A port cannot be had; the message names it. Nothing was changed."""


def check_ports(config: Config, held: HeldSockets) -> None:
    """`held` are bound already, for this process. Raises PortInUseError."""
    ports = config.ports
    wanted = [
        ("gossip", config.bind, ports.gossip, socket.SOCK_DGRAM),
        ("gossip", config.bind, ports.gossip, socket.SOCK_STREAM),
        ("inbound", config.bind, ports.inbound, socket.SOCK_STREAM),
        ("outbound", config.loopback, ports.outbound, socket.SOCK_STREAM),
        ("admin", config.loopback, ports.admin, socket.SOCK_STREAM),
    ]
    for name, host, port, kind in wanted:
        if held.holds(kind, host, port):
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                words = error.strerror or str(error)
                raise PortInUseError(f"{name} port {host}:{port} cannot be opened: {words}") from error
