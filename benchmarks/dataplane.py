"""Requests per second and CPU per request of one worker of the embedded data plane, beside its bare backend.

    python benchmarks/dataplane.py [--rounds 5] [--seconds 4] [--connections 32] [--only plain]

Three paths, measured in rotating order so that a slow minute of the machine falls on all of them:

    bare    wrk -> backend
    plain   wrk -> worker A (route, authorise, balance) -> backend on the same host, no TLS
    mtls    wrk -> worker A -> TLS 1.3 -> worker B (authorise) -> backend

wrk, backend and workers share the machine's cores, so absolute figures are a lower bound; ratios hold. CPU is user and
system time of the workers from /proc, divided by the requests wrk counted.
"""

import argparse
import asyncio
import dataclasses
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from proxy.embedded.plane import EmbeddedPlane
from proxy.plane import Applied
from proxy.snapshot import (
    Certificate,
    Cluster,
    Destination,
    Endpoint,
    InboundService,
    Listener,
    Snapshot,
)
from trust.authority import SoleAuthority, root_certificate
from trust.credential import Credential
from trust.identity import NodeIdentity, format_id, spiffe_workload
from trust.issuance import issue_svid, request_svid
from trust.revocation import RevocationSet
from trust.svid import certificate_pem, keyed, new_leaf_key

TRUST_DOMAIN = "bench.local"
BODY = b"hello from the backend\n"
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ return 200 "{body}"; }} }}
}}
"""


class Issuer:
    """A throw-away mesh root, and certificates under it."""

    def __init__(self) -> None:
        self._now = int(time.time())
        self._identity = NodeIdentity.from_seed(os.urandom(32))
        self._authority = SoleAuthority.from_seed(os.urandom(32), holder=self._identity.id)
        self._root = root_certificate(self._authority, TRUST_DOMAIN, self._now)
        credential = Credential(
            trust_domain=TRUST_DOMAIN,
            public_key=self._identity.public_key,
            agreement_key=self._identity.agreement_key,
            name="bench",
            services=("*/*",),
            publish=True,
            invite=False,
            serial=os.urandom(16),
            issued_at=self._now - 60,
            expires_at=self._now + 86_400,
        )
        self._credential = credential.signed(self._authority.sign(credential.signing_bytes()))
        self.node = format_id(self._identity.id)
        self.bundle_pem = certificate_pem(self._root)

    def certificate(self, account: str) -> Certificate:
        identity = spiffe_workload(TRUST_DOMAIN, "default", account)
        key = new_leaf_key(os.urandom)
        der = issue_svid(
            self._authority,
            self._root,
            request_svid(self._identity, self._credential, identity, key, self._now),
            trust_domain=TRUST_DOMAIN,
            now=self._now,
            entropy=os.urandom,
            revoked=RevocationSet(self._authority.root_public),
        )
        svid = keyed(
            der, key, root_public=self._authority.root_public, trust_domain=TRUST_DOMAIN, now=self._now
        )
        return Certificate(
            identity=identity, chain_pem=svid.chain_pem, key_pem=svid.key_pem, not_after=svid.not_after
        )


def listening_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    return sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


# ---------------------------------------------------------------- the backend


class _Answer(asyncio.Protocol):
    """The smallest HTTP/1.1 server, where there is no nginx."""

    response = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (
        len(BODY),
        BODY,
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.response * data.count(b"\r\n\r\n"))  # type: ignore[attr-defined]


def serve_own_backend(port: int) -> None:
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Answer, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def start_backend(port: int, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        command = [sys.executable, __file__, "--serve-backend", str(port)]
        return subprocess.Popen(command), "uvloop (no nginx found)"
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, body=BODY.decode().replace("\n", "\\n")))
    return subprocess.Popen([nginx, "-c", str(config), "-p", str(folder)], stderr=subprocess.DEVNULL), "nginx"


async def wait_for_port(port: int, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await writer.wait_closed()
            return


# ---------------------------------------------------------------- the planes


@dataclasses.dataclass
class Route:
    """One measured path: where wrk goes, and whose CPU counts."""

    name: str
    url: str
    workers: tuple[int, ...]


def snapshots(issuer: Issuer, backend: int, inbound: int, log: bool) -> tuple[Snapshot, Snapshot]:
    """Node A calls `near` (its own host) and `far` (node B)."""
    certificates = {account: issuer.certificate(account) for account in ("web", "near", "far")}

    def service(name: str) -> InboundService:
        return InboundService(
            sni=f"{name}.default.mesh", service=name, namespace="default", port=80, protocol="http",
            identity=certificates[name].identity, app_host="127.0.0.1", app_port=backend,
        )  # fmt: skip

    def cluster(name: str, host: str, port: int, local: str) -> Cluster:
        endpoint = Endpoint(
            id=f"{issuer.node}/{name}.default.mesh:80", node=issuer.node, host=host, port=port,
            sni=f"{name}.default.mesh", identity=certificates[name].identity, local=local,
        )  # fmt: skip
        return Cluster(
            name=f"{name}.default.mesh:80",
            service=name,
            namespace="default",
            protocol="http",
            endpoints=(endpoint,),
        )

    destinations = tuple(
        Destination(
            service=name, namespace="default", port=80, protocol="http", cluster=f"{name}.default.mesh:80"
        )
        for name in ("near", "far")
    )
    caller = certificates["web"].identity
    common = {
        "version": 1, "node": issuer.node, "trust_domain": TRUST_DOMAIN, "trust_bundle_pem": issuer.bundle_pem,
        "access_log": log,
    }  # fmt: skip
    node_a = Snapshot(
        **common,  # type: ignore[arg-type]
        node_name="a",
        listeners=(Listener(name="out", kind="outbound", caller=caller, caller_service="web"),),
        certificates=(certificates["web"],),
        inbound=(service("near"),),
        clusters=(
            cluster("near", "127.0.0.1", backend, "near.default.mesh"),
            cluster("far", "127.0.0.1", inbound, ""),
        ),
        destinations=destinations,
    )
    node_b = Snapshot(
        **common,  # type: ignore[arg-type]
        node_name="b",
        listeners=(Listener(name="in", kind="inbound"),),
        certificates=(certificates["far"],),
        inbound=(service("far"),),
    )
    return node_a, node_b


async def apply(plane: EmbeddedPlane, snapshot: Snapshot, sock: socket.socket) -> None:
    outcome = await plane.apply(snapshot, {snapshot.listeners[0].name: sock})
    if not isinstance(outcome, Applied):
        raise SystemExit(f"the data plane refuses the benchmark's snapshot: {outcome.reason}")


# ---------------------------------------------------------------- measuring


def cpu_s(pids: tuple[int, ...]) -> float:
    """User and system time so far, in seconds."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Sample:
    rps: float
    cpu_us: float
    p50_us: float
    p99_us: float


_UNITS = {"us": 1.0, "ms": 1000.0, "s": 1_000_000.0}


def latency_us(output: str, percentile: str) -> float:
    match = re.search(rf"^\s*{percentile}%\s+([\d.]+)(us|ms|s)\s*$", output, re.MULTILINE)
    return float(match[1]) * _UNITS[match[2]] if match else float("nan")


async def measure(wrk: str, path: Route, connections: int, seconds: int) -> tuple[Sample, list[str]]:
    host = "near" if path.name == "plain" else "far"
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", f"Host: {host}", path.url]
    before = cpu_s(path.workers)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    raw, _ = await process.communicate()
    used = cpu_s(path.workers) - before
    output = raw.decode()
    total = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if process.returncode != 0 or total is None or rate is None:
        raise SystemExit(f"wrk failed on {path.name}:\n{output}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output) or re.search(
        r"Socket errors: (.*)", output
    )
    if failed is not None:
        raise SystemExit(f"requests failed on {path.name}: {failed[0]}")
    requests = int(total[1])
    sample = Sample(
        rps=float(rate[1]),
        cpu_us=used / requests * 1e6,
        p50_us=latency_us(output, "50"),
        p99_us=latency_us(output, "99"),
    )
    return sample, command


def report(samples: dict[str, list[Sample]], commands: dict[str, list[str]], backend: str) -> None:
    bare = statistics.median(sample.rps for sample in samples["bare"]) if "bare" in samples else float("nan")
    print(f"\nbackend: {backend}; medians of {len(next(iter(samples.values())))} rounds")
    print(f"{'path':8}{'req/s':>10}{'of bare':>10}{'CPU us/req':>12}{'p50 us':>10}{'p99 us':>10}")
    for name, taken in samples.items():
        rps = statistics.median(sample.rps for sample in taken)
        cpu = statistics.median(sample.cpu_us for sample in taken)
        cpu_text = f"{cpu:.1f}" if name != "bare" else "-"
        p50 = statistics.median(sample.p50_us for sample in taken)
        p99 = statistics.median(sample.p99_us for sample in taken)
        print(f"{name:8}{rps:10.0f}{rps / bare:10.2f}{cpu_text:>12}{p50:10.0f}{p99:10.0f}")
    for name, command in commands.items():
        print(f"{name}: {' '.join(command)}")


async def run(options: argparse.Namespace) -> None:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed. On Debian and Ubuntu: apt-get install wrk")
    planes: list[EmbeddedPlane] = []
    sockets = [listening_socket() for _ in range(3)]
    outbound, inbound, reserved = sockets
    backend_port = port_of(reserved)
    reserved.close()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with tempfile.TemporaryDirectory() as folder:
        backend, backend_name = start_backend(backend_port, Path(folder))
        try:
            await wait_for_port(backend_port)
            issuer = Issuer()
            for snapshot, sock in zip(
                snapshots(issuer, backend_port, port_of(inbound), options.log),
                (outbound, inbound),
                strict=True,
            ):
                plane = EmbeddedPlane(stdout=nowhere)
                planes.append(plane)
                await plane.start()
                await apply(plane, snapshot, sock)
            a, b = (plane.processes() for plane in planes)
            paths = [
                Route("bare", f"http://127.0.0.1:{backend_port}/", ()),
                Route("plain", f"http://127.0.0.1:{port_of(outbound)}/", a),
                Route("mtls", f"http://127.0.0.1:{port_of(outbound)}/", (*a, *b)),
            ]
            paths = [path for path in paths if path.name in options.only] if options.only else paths
            print("workers:", a, b, flush=True)
            samples: dict[str, list[Sample]] = {path.name: [] for path in paths}
            commands: dict[str, list[str]] = {}
            for path in paths:  # warm up: connections, caches
                await measure(wrk, path, options.connections, 1)
            for round_number in range(options.rounds):
                shift = round_number % len(paths)
                for path in paths[shift:] + paths[:shift]:
                    sample, commands[path.name] = await measure(
                        wrk, path, options.connections, options.seconds
                    )
                    samples[path.name].append(sample)
                    print(f"  {path.name:6} {sample.rps:9.0f} req/s  {sample.cpu_us:6.1f} us", flush=True)
            report(samples, commands, backend_name)
        finally:
            await asyncio.gather(*(plane.stop() for plane in planes))
            backend.send_signal(signal.SIGTERM)
            backend.wait()
            os.close(nowhere)
            for sock in sockets:
                sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", action="append", choices=("bare", "plain", "mtls"), help="repeatable")
    parser.add_argument("--log", action="store_true", help="with access logs (to the null device)")
    parser.add_argument("--serve-backend", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_backend:
        serve_own_backend(options.serve_backend)
    else:
        asyncio.run(run(options))


if __name__ == "__main__":
    main()
