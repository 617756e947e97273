"""What one network of loopback addresses puts on the wire, counted packet by packet.

A packet socket on `lo` hears each IPv4 packet once, on its way in. A classic BPF program in the kernel drops what is
neither from nor to the network and cuts the rest to its headers. Lengths are the IP header's, so they include IP, UDP
and TCP headers, acknowledgements and handshakes. Loopback does not split TCP into segments as a network card would;
bytes are hardly touched by that (40 a segment), so TCP is given in bytes only.

A packet socket needs CAP_NET_RAW; `Tap.open` returns None without it. Processes' own counters are no substitute:
/proc counts sockets per machine, not per process.
"""

import asyncio
import ctypes
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

ETH_P_IP: Final = 0x0800
SO_ATTACH_FILTER: Final = 26
SOL_PACKET: Final = 263
PACKET_STATISTICS: Final = 6
HEADERS_BYTES: Final = 64
BUFFER_BYTES: Final = 8 * 1024 * 1024
UDP: Final = 17
TCP: Final = 6

# Classic BPF: code, jump if true, jump if false, constant.
_LOAD_HALF: Final = 0x28
_JUMP_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_SOURCE, _TARGET = 12, 16  # where the addresses are in an IPv4 header


@dataclass(slots=True, kw_only=True)
class Traffic:
    """Totals so far. `lost`: packets the kernel could not keep for the counter."""

    datagrams: int = 0
    udp_bytes: int = 0
    tcp_bytes: int = 0
    lost: int = 0


class Tap:
    """Counts packets of one port from its opening to `close`."""

    def __init__(self, tap: socket.socket, port: int) -> None:
        self.traffic = Traffic()
        self._tap = tap
        self._port = port
        asyncio.get_running_loop().add_reader(tap, self._drain)

    @classmethod
    def open(cls, network: str, port: int) -> Self | None:
        """`network` is the first two numbers of its addresses; None where the right to listen is missing."""
        try:
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # hears nothing before it is bound
        except PermissionError:
            return None
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        _attach(tap, network)
        tap.setblocking(False)
        tap.bind(("lo", ETH_P_IP))
        return cls(tap, port)

    def close(self) -> Traffic:
        """Stop counting; the totals."""
        self._drain()
        _, self.traffic.lost = struct.unpack("II", self._tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        asyncio.get_running_loop().remove_reader(self._tap)
        self._tap.close()
        return self.traffic

    def _drain(self) -> None:
        while True:
            try:
                packet = self._tap.recv(HEADERS_BYTES)
            except BlockingIOError:
                return
            self._count(packet)

    def _count(self, packet: bytes) -> None:
        header_bytes = (packet[0] & 0x0F) * 4
        ports = packet[header_bytes : header_bytes + 4]
        if len(ports) < 4 or self._port not in struct.unpack("!HH", ports):
            return
        length = int.from_bytes(packet[2:4])
        if packet[9] == UDP:
            self.traffic.datagrams += 1
            self.traffic.udp_bytes += length
        elif packet[9] == TCP:
            self.traffic.tcp_bytes += length


def _attach(tap: socket.socket, network: str) -> None:
    first, second = (int(part) for part in network.split("."))
    prefix = first << 8 | second
    program = [
        (_LOAD_HALF, 0, 0, _SOURCE),
        (_JUMP_EQUAL, 2, 0, prefix),
        (_LOAD_HALF, 0, 0, _TARGET),
        (_JUMP_EQUAL, 0, 1, prefix),
        (_RETURN, 0, 0, HEADERS_BYTES),
        (_RETURN, 0, 0, 0),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    tap.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code))
    )
