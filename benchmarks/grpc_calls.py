"""CPU per unary gRPC call of the embedded data plane, with grpcio as client and server.

    python benchmarks/grpc_calls.py [--rounds 5] [--seconds 4] [--calls 32]

Two paths, in rotating order, with `--calls` at once on one channel and messages of a few bytes:

    plain   client -> worker A -> server on the same host (HTTP/2 on both sides, no TLS)
    mtls    client -> worker A -> TLS 1.3, HTTP/1.1 -> worker B -> server

Client and server are slower than the workers and share the cores with them, so only the workers' CPU means something:
user and system time from /proc, divided by the calls that were answered.
"""

import argparse
import asyncio
import dataclasses
import os
import socket
import statistics
import sys
import time
from typing import Any

import grpc
import grpc.aio
from dataplane import Issuer, apply, cpu_s, listening_socket, port_of, snapshots, wait_for_port

from proxy.embedded.plane import EmbeddedPlane
from proxy.snapshot import Snapshot


async def serve(port: int) -> None:
    async def unary(request: bytes, context: Any) -> bytes:
        return request

    server = grpc.aio.server()
    handlers = {"Unary": grpc.unary_unary_rpc_method_handler(unary)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Echo", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def speaking_grpc(snapshot: Snapshot) -> Snapshot:
    return dataclasses.replace(
        snapshot,
        inbound=tuple(dataclasses.replace(each, protocol="grpc") for each in snapshot.inbound),
        clusters=tuple(dataclasses.replace(each, protocol="grpc") for each in snapshot.clusters),
        destinations=tuple(dataclasses.replace(each, protocol="grpc") for each in snapshot.destinations),
    )


async def measure(
    outbound: int, authority: str, pids: tuple[int, ...], calls: int, seconds: float
) -> tuple[float, float]:
    """Calls per second, and CPU in microseconds per call."""
    options: list[tuple[str, Any]] = [
        ("grpc.default_authority", authority),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    done = 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{outbound}", options=options) as channel:
        unary = channel.unary_unary("/t.Echo/Unary")
        await unary(b"warm")
        before, begun = cpu_s(pids), time.monotonic()

        async def repeat() -> None:
            nonlocal done
            while time.monotonic() < begun + seconds:
                assert await unary(b"hello") == b"hello"
                done += 1

        await asyncio.gather(*(repeat() for _ in range(calls)))
        return done / (time.monotonic() - begun), (cpu_s(pids) - before) / done * 1e6


async def run(options: argparse.Namespace) -> None:
    sockets: list[socket.socket] = [listening_socket() for _ in range(3)]
    outbound, inbound, reserved = sockets
    backend_port = port_of(reserved)
    reserved.close()
    backend = await asyncio.create_subprocess_exec(sys.executable, __file__, "--serve", str(backend_port))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    planes: list[EmbeddedPlane] = []
    try:
        await wait_for_port(backend_port)
        both = snapshots(Issuer(), backend_port, port_of(inbound), False)
        for snapshot, sock in zip(both, (outbound, inbound), strict=True):
            planes.append(EmbeddedPlane(stdout=nowhere))
            await planes[-1].start()
            await apply(planes[-1], speaking_grpc(snapshot), sock)
        a, b = (plane.processes() for plane in planes)
        paths: dict[str, tuple[str, tuple[int, ...]]] = {"plain": ("near", a), "mtls": ("far", (*a, *b))}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
        for round_number in range(options.rounds):
            names = list(paths)
            for name in names[round_number % 2 :] + names[: round_number % 2]:
                authority, pids = paths[name]
                taken[name].append(
                    await measure(port_of(outbound), authority, pids, options.calls, options.seconds)
                )
        print(f"{'path':8}{'calls/s':>10}{'CPU us/call':>14}   medians of {options.rounds}")
        for name, samples in taken.items():
            rate, cpu = (statistics.median(sample[column] for sample in samples) for column in (0, 1))
            print(f"{name:8}{rate:10.0f}{cpu:14.1f}")
    finally:
        await asyncio.gather(*(plane.stop() for plane in planes))
        backend.terminate()
        await backend.wait()
        os.close(nowhere)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--calls", type=int, default=32, help="at once")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    asyncio.run(serve(options.serve) if options.serve else run(options))


if __name__ == "__main__":
    main()
