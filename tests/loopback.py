"""Loopback addresses, and ports of 127.0.0.1, that only this process uses.

Several processes run tests at the same time (pytest-xdist), and a peer listens at the same ports wherever it runs: so
the address tells them apart. Its second number is the test module's, its third the process's (0 without xdist), its
fourth the host's. 127.0.0.1 is for what listens at a port that the kernel chose. A program that must be told its port
gets one that is reserved for it: a port that was merely found free may be another's by the time the program listens.

Invariant: two processes of one run have no address in common, and none with what takes 127.1.* to 127.191.* (the tests
of whole meshes, the benchmarks, the chaos drivers).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager


def network(module: int) -> str:
    """The first three numbers of the addresses that test module `module` (0 to 62) has in this process."""
    return network_of(module, os.environ.get("PYTEST_XDIST_WORKER", ""))


def network_of(module: int, worker: str) -> str:
    """As `network`, in the process that pytest-xdist calls `worker`: gw0, gw1, …; empty is the only one."""
    number = 1 + int(worker.removeprefix("gw")) if worker else 0
    assert 0 <= module < 63
    assert number < 256
    return f"127.{192 + module}.{number}"


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 at which nothing listens, kept until the block ends for who knows its number.

    It is bound, so the kernel chooses it for nobody; as the socket has SO_REUSEADDR and does not listen, a server with
    SO_REUSEADDR may have it (socket(7)).
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
