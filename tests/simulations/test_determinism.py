"""One seed, one story: in another process, under another hash seed, with real keys and with the stand-in."""

import os
import subprocess
import sys

import pytest

_STORY = """
import sys
from simulations.host import Keeps
from simulations.network import apart
from simulations.world import World
from peer.messages import Draft

world = World(seed=int(sys.argv[2]), crypto=sys.argv[1], digest=True)
hosts = [world.add(zone="ab"[i % 2], seeds=[0] if i else []) for i in range(7)]
for host in hosts:
    world.start(host)
world.run(5)
world.network.loss = world.network.duplication = 0.1
world.network.settle()
world.network.cut("w", apart([[0, 1, 2]]))
world.write(hosts[1], Draft(kind="note", key="k", payload=b"v" * 1500))
world.crash(hosts[5])
world.stop(hosts[4])
world.run(12)
world.network.heal()
world.resume(hosts[4])
world.restart(hosts[5], Keeps.IDENTITY)
world.set_clock(hosts[3], offset_s=1.5, drift=1e-3)
world.leave(hosts[6])
world.run(8)
print(world.digest(), world.trace.events)
"""


def tell(crypto: str, seed: int, hash_seed: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _STORY, crypto, str(seed)],
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("crypto", ["real", "model"])
def test_the_same_seed_has_the_same_digest_in_two_processes(crypto: str) -> None:
    first, second = tell(crypto, 1, 0), tell(crypto, 1, 4711)
    assert first == second
    assert int(first.split()[1]) > 2000
    assert tell(crypto, 2, 0) != first
