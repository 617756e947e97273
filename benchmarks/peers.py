"""What a peer costs when idle, and how long a policy takes from `apply` to enforcement at the other peers.

    python benchmarks/peers.py [--peers 3] [--idle-s 30] [--rounds 20]

Real `gossamer peer` processes on 127.0.0.x, profile `lan`. Memory is the proportional set size of the control
process and its worker (/proc/<pid>/smaps_rollup), CPU their user and system time over the idle stretch.
Enforcement is measured at the data plane: an AuthorizationPolicy that denies is applied at the last peer, and
a client polls a service behind each of the others until it is refused; the clock starts when `apply` is sent
and when it is acknowledged.
"""

import argparse
import asyncio
import os
import statistics
import time
from pathlib import Path

import aiohttp

from peer.admin.client import AdminClient
from peer.demo.mesh import LocalMesh, LocalPeer

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SERVICE = "service: {{name: app{n}, address: {host}, port: 8080}}"
DENY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "refuse-all"},
    "spec": {"action": "DENY", "rules": [{}]},
}


def processes(peer: LocalPeer) -> list[int]:
    """The control process and its children."""
    assert peer.process is not None
    pid = peer.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def idle(mesh: LocalMesh, seconds: float) -> None:
    before = {pid: cpu_s(pid) for peer in mesh.peers for pid in processes(peer)}
    await asyncio.sleep(seconds)
    rows = []
    for peer in mesh.peers:
        control, *workers = processes(peer)
        row = (memory_mib(control), sum(map(memory_mib, workers)))
        spent = [100 * (cpu_s(pid) - before[pid]) / seconds for pid in (control, *workers)]
        rows.append((*row, spent[0], sum(spent[1:])))
    names = ("control PSS MiB", "worker PSS MiB", "control CPU %", "worker CPU %")
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        print(f"idle  {name:<16} median {statistics.median(values):7.2f}   max {max(values):7.2f}")


async def enforcement(mesh: LocalMesh, rounds: int) -> None:
    author = mesh.peers[-1]
    others = mesh.peers[:-1]
    client = AdminClient(author.directory)
    for number, peer in enumerate(others, 1):
        await mesh.application(f"app{number}", "v1", peer.host, 8080)
        text = SERVICE.format(n=number, host=peer.host)
        await peer.command("service", "register", "-f", "-", stdin=text)
    from_send, from_ack = [], []
    async with aiohttp.ClientSession() as http:

        async def code(number: int, peer: LocalPeer) -> int:
            url = f"http://{peer.host}:15001/"
            async with http.get(url, headers={"host": f"app{number}"}) as answer:
                await answer.read()
                return answer.status

        async def reach(wanted: int) -> float:
            async def one(number: int, peer: LocalPeer) -> float:
                while await code(number, peer) != wanted:
                    pass  # each look is a request through the peer
                return time.monotonic()

            return max(await asyncio.gather(*(one(n, p) for n, p in enumerate(others, 1))))

        await reach(200)
        for _ in range(rounds):
            sent = time.monotonic()
            watching = asyncio.create_task(reach(403))
            await asyncio.to_thread(client.apply, [DENY], "benchmark")
            acknowledged = time.monotonic()
            enforced = await watching
            from_send.append(enforced - sent)
            from_ack.append(enforced - acknowledged)
            await asyncio.to_thread(client.delete, [("AuthorizationPolicy", "default", "refuse-all")])
            await reach(200)
    for name, values in (("from apply sent", from_send), ("from acknowledged", from_ack)):
        low, mid, high = (1000 * f(values) for f in (min, statistics.median, max))
        print(f"enforced at all others, {name:<18} median {mid:6.0f} ms   min {low:6.0f}   max {high:6.0f}")


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--idle-s", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    async with LocalMesh(options.peers) as mesh:
        await mesh.start(profile="lan")
        print(f"{options.peers} peers, profile lan")
        await idle(mesh, options.idle_s)
        await enforcement(mesh, options.rounds)


if __name__ == "__main__":
    asyncio.run(main())
