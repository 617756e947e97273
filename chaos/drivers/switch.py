"""A network in user space: one TUN device for each node, and this process between them.

What a node sends is read from its device and written to the receiver's, after what stands between the two has been done
to it: lost (alone or in bursts, a Gilbert model with mean burst length), cut, delayed with jitter, held back so that it
comes out of order, sent twice, again much later, damaged, or queued behind a bandwidth. `tc netem` does the same in
kernels that have it; many have not.

Damage changes one byte behind the IP header and leaves the checksums as they are, as broken hardware between two hosts
that recompute them would; UDP and TCP drop most of it, and what they let pass meets the ciphers.

Usage: switch.py SEED HUB (NAME NAMESPACE ADDRESS)...   Standard input: one line of JSON for each change,
[[source, target, {path}]…]; answered by "shaped". End of input ends it.

Invariant: packets wait in one heap of at most WAITING_MAX; beyond it they are dropped, as a full queue drops them.
"""

import asyncio
import fcntl
import json
import os
import random
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.conditions import CLEAR, Path

TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
PACKET_BYTES_MAX: Final = 65_535
MTU: Final = 1500
WAITING_MAX: Final = 50_000
REORDERED_BY_S: Final = 0.05
REPLAYED_AFTER_S: Final = 10.0
ADDRESS_OFFSET: Final = 16  # of the destination in an IPv4 header
QUEUED_S_MAX: Final = 2.0  # what waits longer for its bandwidth is dropped
IP_HEADER_BYTES: Final = 20
GOSSIP_PORT: Final = 7946
INBOUND_PORT: Final = 15006


@dataclass(slots=True)
class Way:
    """One direction: what stands there, and what it remembers."""

    path: Path = CLEAR
    losing: bool = False
    free_at: float = 0.0


@dataclass(slots=True)
class Fate:
    """When each copy of a packet is delivered (seconds from now), and what it looks like. Pure: no clock, no device."""

    rng: random.Random
    ways: dict[tuple[str, str], Way] = field(default_factory=dict)

    def of(self, source: str, target: str, packet: bytes, now: float) -> list[tuple[float, bytes]]:
        way = self.ways.get((source, target))
        if way is None or way.path is CLEAR:
            return [(0.0, packet)]
        path, rng = way.path, self.rng
        if path.cut or self._closed(path, packet) or self._lost(way):
            return []
        wait_s = path.delay_s + path.jitter_s * rng.random()
        if path.bytes_per_s:
            way.free_at = max(way.free_at, now) + len(packet) / path.bytes_per_s
            if way.free_at - now > QUEUED_S_MAX:
                way.free_at -= len(packet) / path.bytes_per_s
                return []
            wait_s += way.free_at - now
        if path.reorder and rng.random() < path.reorder:
            wait_s += REORDERED_BY_S * rng.random()
        if path.corrupt and rng.random() < path.corrupt:
            packet = damaged(packet, rng)
        copies = [(wait_s, packet)]
        if path.duplicate and rng.random() < path.duplicate:
            copies.append((wait_s + REORDERED_BY_S * rng.random(), packet))
        if path.replay and rng.random() < path.replay:
            copies.append((wait_s + REPLAYED_AFTER_S * (0.1 + rng.random()), packet))
        return copies

    def _lost(self, way: Way) -> bool:
        """Whether this one is lost: each by itself, or in runs of `burst` on average."""
        share, burst = way.path.loss, way.path.burst
        if not share:
            return False
        if burst <= 1 or share >= 1:
            return self.rng.random() < share
        # two states; the mean stay in the losing one is `burst`, and its share of all is `share`
        if way.losing:
            way.losing = self.rng.random() >= 1 / burst
        else:
            way.losing = self.rng.random() < share / (burst * (1 - share))
        return way.losing

    @staticmethod
    def _closed(path: Path, packet: bytes) -> bool:
        if not (path.cut_control or path.cut_data):
            return False
        found = ports(packet)
        return (path.cut_control and GOSSIP_PORT in found) or (path.cut_data and INBOUND_PORT in found)


def ports(packet: bytes) -> tuple[int, ...]:
    """Source and destination port of a UDP or TCP packet; none of anything else."""
    header = (packet[0] & 0x0F) * 4
    if packet[9] not in (6, 17) or len(packet) < header + 4:
        return ()
    return struct.unpack_from("!HH", packet, header)


def damaged(packet: bytes, rng: random.Random) -> bytes:
    """One byte behind the IP header changed."""
    if len(packet) <= IP_HEADER_BYTES:
        return packet
    at = rng.randrange(IP_HEADER_BYTES, len(packet))
    return packet[:at] + bytes([packet[at] ^ rng.randrange(1, 256)]) + packet[at + 1 :]


class Hub:
    """Devices and the loop."""

    def __init__(self, seed: int, nodes: list[tuple[str, str, str]], hub: str) -> None:
        self._fate = Fate(random.Random(seed))
        self._by_address: dict[bytes, str] = {}
        self._devices: dict[str, int] = {}
        self._waiting = 0
        for number, (name, namespace, address) in enumerate(nodes):
            self._devices[name] = _device(f"t{number}", namespace, address, hub)
            self._by_address[bytes(map(int, address.split(".")))] = name

    async def serve(self) -> None:
        """Until standard input ends."""
        loop = asyncio.get_running_loop()
        for name, descriptor in self._devices.items():
            loop.add_reader(descriptor, self._read, name, descriptor)
        reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        _say("ready")
        while line := await reader.readline():
            self._shape(json.loads(line))
            _say("shaped")

    def _shape(self, told: list[tuple[str, str, dict[str, Any]]]) -> None:
        wanted = {(source, target): Path(**path) for source, target, path in told}
        ways = self._fate.ways
        for pair in [pair for pair in ways if pair not in wanted]:
            del ways[pair]
        for pair, path in wanted.items():
            ways.setdefault(pair, Way()).path = path

    def _read(self, source: str, descriptor: int) -> None:
        try:
            packet = os.read(descriptor, PACKET_BYTES_MAX)
        except OSError:
            return  # the device is going, with its namespace
        if len(packet) < IP_HEADER_BYTES or packet[0] >> 4 != 4:
            return
        target = self._by_address.get(packet[ADDRESS_OFFSET : ADDRESS_OFFSET + 4])
        if target is None:
            return
        loop = asyncio.get_running_loop()
        for wait_s, copy in self._fate.of(source, target, packet, loop.time()):
            if not wait_s:
                self._write(target, copy)
            elif self._waiting < WAITING_MAX:
                self._waiting += 1
                loop.call_later(wait_s, self._late, target, copy)

    def _late(self, target: str, packet: bytes) -> None:
        self._waiting -= 1
        self._write(target, packet)

    def _write(self, target: str, packet: bytes) -> None:
        try:
            os.write(self._devices[target], packet)
        except OSError:
            return  # no room in the device's queue, or the device is going: the packet is lost


def _device(name: str, namespace: str, address: str, hub: str) -> int:
    """A TUN device, moved to the node's namespace with its address; its descriptor stays here."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    for words in (
        ["ip", "link", "set", name, "netns", namespace],
        ["ip", "-n", namespace, "link", "set", name, "name", "eth0"],
        ["ip", "-n", namespace, "addr", "add", f"{address}/32", "dev", "eth0"],
        ["ip", "-n", namespace, "link", "set", "eth0", "mtu", str(MTU), "up"],
        ["ip", "-n", namespace, "route", "add", "default", "dev", "eth0"],
    ):
        subprocess.run(words, check=True, capture_output=True)
    return descriptor


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    seed, hub, *rest = arguments
    nodes = [(rest[at], rest[at + 1], rest[at + 2]) for at in range(0, len(rest), 3)]
    asyncio.run(Hub(int(seed), nodes, hub).serve())


if __name__ == "__main__":
    main(sys.argv[1:])
