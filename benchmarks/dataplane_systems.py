"""What the systems that are compared have in common, and Gossamer itself.

A system is two proxies of one worker each, `a` on the caller's host and `b` on the other one's, between a load
generator and the backends of dataplane_backends.py. Every system does the same work: find the route, know who calls,
refuse `/forbidden` and callers other than `web`, eject failing endpoints, count. None writes an access log.

    plain       caller -> a -> backend
    mtls        caller -> a -> TLS 1.3, both sides certified -> b -> backend
    inbound     TLS caller -> b -> backend
    grpc, grpc_mtls, tcp, tcp_mtls: the same, for HTTP/2 and for bytes

Invariant: what a system says to offer in `entries` enforces who may call (tests/benchmarks/test_dataplane.py).
"""

import asyncio
import os
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.dataplane_identities import TRUST_DOMAIN, Identities
from proxy.embedded.plane import EmbeddedPlane
from proxy.embedded.process import WORKER
from proxy.plane import Applied
from proxy.snapshot import (
    AppProtocol,
    Authorization,
    AuthzPolicy,
    AuthzRule,
    CircuitBreaker,
    Cluster,
    Destination,
    Endpoint,
    InboundService,
    Listener,
    Operation,
    Snapshot,
    Source,
)

ROOT: Final = Path(__file__).resolve().parent.parent  # where `python -m benchmarks.…` finds its modules
PATIENCE_S: Final = 20.0
FORBIDDEN: Final = "/forbidden"


class BenchmarkError(Exception):
    """Something the benchmark needs is not there, or answered wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Ports of the backends."""

    http: int
    grpc: int
    tcp: int
    sink: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a path begins. `hops`: whose processor time counts, "a", "b" or "ab"."""

    port: int
    host: str
    hops: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A system that serves. `a` and `b` are the processes of its two proxies (the same, where there is one)."""

    name: str
    entries: dict[str, Entry]
    a: tuple[int, ...]
    b: tuple[int, ...] = ()

    def pids(self, entry: Entry) -> tuple[int, ...]:
        return (self.a if "a" in entry.hops else ()) + (self.b if "b" in entry.hops else ())


class System(ABC):
    """Something to measure. `start` gives what `stack` is to end."""

    name: str

    @abstractmethod
    async def start(
        self, folder: Path, identities: Identities, backends: Backends, stack: AsyncExitStack
    ) -> Running: ...


# ---------------------------------------------------------------- processes


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def listening_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    return sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


async def wait_for_port(port: int) -> None:
    """Raises TimeoutError when nobody listens in time."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return


async def spawn(stack: AsyncExitStack, log: Path, ports: Sequence[int], *command: str) -> int:
    """Run a program until the stack ends; returns its pid once it listens on `ports`."""
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, stdout=sink, stderr=sink, cwd=ROOT)

    async def end() -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(3.0):
                await process.wait()
        except TimeoutError:  # it waits for connections that nobody closes
            process.kill()
            await process.wait()

    stack.push_async_callback(end)
    try:
        for port in ports:
            await wait_for_port(port)
    except TimeoutError:
        said = log.read_text(errors="replace")[-2000:]  # noqa: ASYNC240
        raise BenchmarkError(f"{command[0]} does not listen: {said}") from None
    return process.pid


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time of processes so far, in seconds."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: Sequence[int]) -> int:
    """Resident memory that is the processes' own or their share of common pages (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


# ---------------------------------------------------------------- gossamer


class Gossamer(System):
    """Workers of the embedded plane; with `tree`, those of another working copy (before a change, beside after)."""

    def __init__(self, name: str = "gossamer", tree: Path | None = None, *, access_log: bool = False) -> None:
        self.name = name
        self._access_log = access_log
        self._program: tuple[str, ...] = WORKER
        if tree is not None:
            start = (
                f"import sys; sys.path.insert(0, {str(tree)!r}); from proxy.embedded.worker import main; "
                "sys.exit(main(sys.argv[1:]))"
            )
            self._program = ("-P", "-c", start)

    async def start(
        self, folder: Path, identities: Identities, backends: Backends, stack: AsyncExitStack
    ) -> Running:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        names = ("out", "in", "tcp", "tcp_mtls")
        sockets = {name: stack.enter_context(listening_socket()) for name in names}
        ports = {name: port_of(sock) for name, sock in sockets.items()}
        processes = []
        for snapshot in self._snapshots(identities, backends, ports["in"]):
            plane = EmbeddedPlane(stdout=nowhere, program=self._program)
            await plane.start()
            stack.push_async_callback(plane.stop)
            given = {listener.name: sockets[listener.name] for listener in snapshot.listeners}
            outcome = await plane.apply(snapshot, given)
            if not isinstance(outcome, Applied):
                raise BenchmarkError(f"{self.name} refuses the benchmark's snapshot: {outcome.reason}")
            processes.append(plane.processes())
        a, b = processes
        http = ports["out"]
        return Running(
            name=self.name,
            a=a,
            b=b,
            entries={
                "plain": Entry(port=http, host="near", hops="a"),
                "mtls": Entry(port=http, host="far", hops="ab"),
                "inbound": Entry(port=ports["in"], host="far.default.mesh", hops="b"),
                "sink": Entry(port=http, host="far-sink", hops="ab"),
                "grpc": Entry(port=http, host="near-grpc", hops="a"),
                "grpc_mtls": Entry(port=http, host="far-grpc", hops="ab"),
                "tcp": Entry(port=ports["tcp"], host="", hops="a"),
                "tcp_mtls": Entry(port=ports["tcp_mtls"], host="", hops="ab"),
            },
        )

    def _snapshots(
        self, identities: Identities, backends: Backends, inbound_port: int
    ) -> tuple[Snapshot, Snapshot]:
        web = identities.spiffe("web")
        callers = Source(principals=(web.removeprefix("spiffe://"),))

        def authorization(protocol: AppProtocol) -> Authorization:
            operations = () if protocol == "tcp" else (Operation(not_paths=(f"{FORBIDDEN}*",)),)
            rule = AuthzRule(sources=(callers,), operations=operations)
            policy = AuthzPolicy(name="default/web-only", variants=((rule,),))
            return Authorization(allow=(policy,), default_deny=True)

        kinds: tuple[tuple[str, AppProtocol, int], ...] = (
            ("", "http", backends.http), ("-grpc", "grpc", backends.grpc), ("-tcp", "tcp", backends.tcp),
            ("-sink", "http", backends.sink),
        )  # fmt: skip

        def service(side: str, suffix: str, protocol: AppProtocol, port: int) -> InboundService:
            return InboundService(
                sni=f"{side}{suffix}.default.mesh", service=f"{side}{suffix}", namespace="default", port=80,
                protocol=protocol, identity=identities.spiffe(side), app_host="127.0.0.1", app_port=port,
                authorization=authorization(protocol), request_timeout_s=120.0,
            )  # fmt: skip

        def cluster(side: str, suffix: str, protocol: AppProtocol, port: int) -> Cluster:
            sni = f"{side}{suffix}.default.mesh"
            endpoint = Endpoint(
                id=f"{identities.node}/{sni}:80", node=identities.node, host="127.0.0.1",
                port=port if side == "near" else inbound_port, sni=sni, identity=identities.spiffe(side),
                local=sni if side == "near" else "",
            )  # fmt: skip
            return Cluster(
                name=f"{sni}:80", service=f"{side}{suffix}", namespace="default", protocol=protocol,
                endpoints=(endpoint,), breaker=CircuitBreaker(),
            )  # fmt: skip

        every = [(side, *kind) for side in ("near", "far") for kind in kinds]
        common: dict[str, Any] = {
            "version": 1, "node": identities.node, "trust_domain": TRUST_DOMAIN,
            "trust_bundle_pem": identities.bundle_pem, "access_log": self._access_log,
        }  # fmt: skip
        caller: dict[str, Any] = {"caller": web, "caller_service": "web"}
        node_a = Snapshot(
            **common,
            node_name="a",
            listeners=(
                Listener(name="out", kind="outbound", **caller),
                Listener(name="tcp", kind="upstream", destination="near-tcp.default.mesh:80", **caller),
                Listener(name="tcp_mtls", kind="upstream", destination="far-tcp.default.mesh:80", **caller),
            ),
            certificates=(identities.certificates["web"],),
            inbound=tuple(service("near", *kind) for kind in kinds),
            clusters=tuple(cluster(*each) for each in every),
            destinations=tuple(
                Destination(
                    service=f"{side}{suffix}", namespace="default", port=80, protocol=protocol,
                    cluster=f"{side}{suffix}.default.mesh:80", request_timeout_s=120.0,
                )
                for side, suffix, protocol, _ in every
            ),
        )  # fmt: skip
        node_b = Snapshot(
            **common,
            node_name="b",
            listeners=(Listener(name="in", kind="inbound"),),
            certificates=(identities.certificates["far"],),
            inbound=tuple(service("far", *kind) for kind in kinds),
        )
        return node_a, node_b


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs one of the benchmark's own programs."""
    return (sys.executable, "-m", f"benchmarks.{module}", *arguments)
