"""How long a mesh takes to make its root, and to move it to other signers: real peers on this machine.

    python -m benchmarks.ceremonies [--rounds 5]

Five `gossamer peer` processes found a mesh together (3 of 5), two join, and a signer is asked for 4 of 7, then for
fresh shares, again and again. Key generation is timed at the founders, by their logs: from when the last of them had
met all others to when the last one held its share. It contains the settling on who founds. Resharing is timed where
it is asked for: from `ca reshare` to the new epoch, sealed, proven by a signature of the new group and stored there.
"""

import argparse
import asyncio
import statistics
import time
from datetime import datetime

from peer.admin.client import AdminClient
from peer.ceremonies import PACE_S
from peer.demo.mesh import LocalMesh, LocalPeer

NETWORK = "127.10.44"
CONFIG = "ca: {signers: 7, settle_s: 3600}\n"


def at(peer: LocalPeer, words: str) -> float:
    """When the last line with `words` was written (s)."""
    lines = [line for line in peer.log.splitlines() if words in line and line[:2] == "20"]
    return datetime.fromisoformat(lines[-1].split()[0]).timestamp()


async def reshared(peer: LocalPeer, names: list[str]) -> tuple[float, dict[str, object]]:
    begun = time.monotonic()
    result = await asyncio.to_thread(AdminClient(peer.directory).ca_reshare, names, 60.0)
    return time.monotonic() - begun, result


async def measure(rounds: int) -> None:
    async with LocalMesh(7, network=NETWORK) as mesh:
        config = mesh.directory / "gossamer.yaml"
        config.write_text(CONFIG)
        founders, flags = mesh.peers[:5], ("--config", str(config))
        token = (await mesh.peers[0].command("token", "create", "--bootstrap")).strip()
        seeds = [word for peer in founders for word in ("--seed", f"{peer.host}:7946")]
        for peer in founders:
            await peer.start("--bootstrap-expect", "5", "--token", token, *seeds, *flags, wait=False)
        for peer in founders:
            await peer.wait_ready()
        begun = max(at(peer, "missing=0") for peer in founders)
        ended = max(at(peer, "mesh_founded") for peer in founders)
        print(f"key generation, 3 of 5: {ended - begun:.2f} s")
        for peer in mesh.peers[5:]:
            await mesh.join(peer, *flags)
        seven = [peer.name for peer in mesh.peers]
        took, result = await reshared(founders[0], seven)
        print(f"3 of 5 to 4 of 7, first time (no streams yet): {took:.2f} s, {result}")
        times = []
        for number in range(rounds):
            await asyncio.sleep(PACE_S)  # no signer makes the others change faster than that
            took, result = await reshared(founders[number % 5], seven)
            assert result["threshold"] == 4, result
            times.append(took)
        print(
            f"4 of 7, fresh shares, {rounds} times: median {statistics.median(times):.2f}, max {max(times):.2f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
