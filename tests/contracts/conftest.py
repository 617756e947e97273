"""A mesh of two hosts with real workers, sockets and certificates, for the contract every data plane keeps.

Nothing here knows which engine is tested: `PLANES` names them, and each test runs on each.
"""

import asyncio
import os
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.embedded.plane import EmbeddedPlane
from proxy.plane import Applied, Plane, Rejected, Series, SeriesDelta
from proxy.snapshot import (
    Authorization,
    Certificate,
    Cluster,
    Destination,
    Endpoint,
    InboundService,
    Listener,
    Snapshot,
)
from trust.authority import SoleAuthority, root_certificate
from trust.bundle import TrustBundle
from trust.credential import Credential
from trust.identity import NodeIdentity, format_id, spiffe_workload
from trust.issuance import issue_svid, request_svid
from trust.revocation import RevocationSet
from trust.svid import certificate_pem, keyed, new_leaf_key
from trust.tls import Caller

from .greeter import Greeter

PLANES: dict[str, Callable[..., Plane]] = {"embedded": EmbeddedPlane}
TRUST_DOMAIN = "test.mesh"
TIMEOUT_S = 10.0
LISTENING = "0A"  # the state, in /proc/net/tcp


async def until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for: {what}"
        await asyncio.sleep(0.02)
    return value


# ---------------------------------------------------------------- certificates


class MeshRoot:
    """A throw-away mesh root, and certificates under it."""

    def __init__(self) -> None:
        self.now = int(time.time())
        self.identity = NodeIdentity.from_seed(os.urandom(32))
        self.authority = SoleAuthority.from_seed(os.urandom(32), holder=self.identity.id)
        self.root_der = root_certificate(self.authority, TRUST_DOMAIN, self.now)
        credential = Credential(
            trust_domain=TRUST_DOMAIN, public_key=self.identity.public_key, agreement_key=self.identity.agreement_key,
            name="tests", services=("*/*",), publish=True, invite=False, serial=os.urandom(16),
            issued_at=self.now - 60, expires_at=self.now + 86_400,
        )  # fmt: skip
        self.credential = credential.signed(self.authority.sign(credential.signing_bytes()))
        self.bundle_pem = certificate_pem(self.root_der)

    def certificate(self, account: str, namespace: str = "default") -> Certificate:
        """A fresh one each time, as after a rotation."""
        identity = spiffe_workload(TRUST_DOMAIN, namespace, account)
        key = new_leaf_key(os.urandom)
        der = issue_svid(
            self.authority, self.root_der, request_svid(self.identity, self.credential, identity, key, self.now),
            trust_domain=TRUST_DOMAIN, now=self.now, entropy=os.urandom,
            revoked=RevocationSet(self.authority.root_public),
        )  # fmt: skip
        svid = keyed(
            der, key, root_public=self.authority.root_public, trust_domain=TRUST_DOMAIN, now=self.now
        )
        return Certificate(
            identity=identity, chain_pem=svid.chain_pem, key_pem=svid.key_pem, not_after=svid.not_after
        )


@pytest.fixture(scope="session")
def root() -> MeshRoot:
    return MeshRoot()


def spiffe(account: str, namespace: str = "default") -> str:
    return spiffe_workload(TRUST_DOMAIN, namespace, account)


# ---------------------------------------------------------------- a client


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


async def read_chunked(reader: asyncio.StreamReader) -> tuple[bytes, list[tuple[str, str]]]:
    """A chunked body, and its trailers."""
    body = b""
    while size := int(await asyncio.wait_for(reader.readuntil(b"\r\n"), TIMEOUT_S), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    trailers = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line[:-2].decode().partition(": ")
        trailers.append((name, value))
    return body, trailers


class Connection:
    """One client connection, one byte at a time if need be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_head(self) -> tuple[int, list[tuple[str, str]]]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), TIMEOUT_S)
        lines = raw[:-4].decode("latin-1").split("\r\n")
        assert lines[0].startswith("HTTP/1.1 "), lines[0]
        pairs = [line.split(": ", 1) if ": " in line else [line.rstrip(":"), ""] for line in lines[1:]]
        return int(lines[0].split(" ")[1]), [(name, value) for name, value in pairs]

    async def reply(self, *, to_head: bool = False) -> Reply:
        informational: list[int] = []
        while True:
            status, headers = await self.read_head()
            if status >= 200 or status == 101:
                break
            informational.append(status)
        reply = Reply(status, headers, b"", informational=informational)
        if to_head or status in (101, 204, 304):
            return reply
        length = reply.header("content-length")
        if reply.header("transfer-encoding") == "chunked":
            reply.body, reply.trailers = await read_chunked(self.reader)
        elif length is not None:
            reply.body = await asyncio.wait_for(self.reader.readexactly(int(length)), TIMEOUT_S)
        else:
            reply.body = await asyncio.wait_for(self.reader.read(), TIMEOUT_S)
        return reply

    async def request(
        self, method: str = "GET", path: str = "/", headers: dict[str, str] | None = None, body: bytes = b"",
        host: str = "echo",
    ) -> Reply:  # fmt: skip
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"content-length: {len(body)}")
        await self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return await self.reply(to_head=method == "HEAD")

    async def at_end(self) -> bool:
        """Whether the other side closes, with nothing more to read."""
        try:
            return await asyncio.wait_for(self.reader.read(1), TIMEOUT_S) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, OSError):
            pass  # the other side was first


@asynccontextmanager
async def connect(port: int, **options: Any) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20, **options)
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        await connection.close()


async def call(port: int, **request: Any) -> Reply:
    """One request on a connection of its own."""
    async with connect(port) as connection:
        return await connection.request(**request)


def connections_of(pid: int, port: int) -> int:
    """How many connections taken on `port` a process holds (IPv4)."""
    sockets = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            sockets.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(
        row[3] != LISTENING and int(row[1].partition(":")[2], 16) == port and f"socket:[{row[9]}]" in sockets
        for row in rows
    )


# ---------------------------------------------------------------- applications


@dataclass
class Received:
    """A request as an application got it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


Script = Callable[["App", Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


class App:
    """An HTTP/1.1 application on a real socket. `script` answers each request; by default with the app's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.received: list[Received] = []
        self.connections = 0
        self.script: Script | None = None
        self.raw: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def start(self) -> "App":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        return self

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self.raw is not None:
                await self.raw(reader, writer)
                return
            while (request := await self._read(reader)) is not None:
                self.received.append(request)
                if self.script is not None:
                    await self.script(self, request, reader, writer)
                else:
                    writer.write(answer(body=self.name.encode()))
                await writer.drain()
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the mesh closed the connection
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Received | None:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        lines = raw[:-4].decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = [(name, value) for name, value in (line.split(": ", 1) for line in lines[1:])]
        request = Received(method, path, headers, b"", [])
        if request.header("transfer-encoding") == "chunked":
            request.body, request.trailers = await read_chunked(reader)
        elif (length := request.header("content-length")) and request.header("x-stream") is None:
            request.body = await reader.readexactly(int(length))
        return request

    def drop_connections(self) -> None:
        for writer in list(self._writers):
            writer.close()

    async def stop(self) -> None:
        self._server.close()
        self.drop_connections()
        await asyncio.sleep(0)


# ---------------------------------------------------------------- the mesh


def listening_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(256)
    return sock


@dataclass
class Service:
    """`on` maps hosts ("a", "b") to the application's port there; what is not on "a" is reached over mTLS."""

    name: str
    on: dict[str, int]
    protocol: str = "http"
    port: int = 80
    authorization: Authorization = field(default_factory=Authorization)
    cluster: dict[str, Any] = field(default_factory=dict)
    destination: dict[str, Any] = field(default_factory=dict)
    inbound: dict[str, Any] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()  # besides those of `on`
    identity: str = ""  # what callers expect, when that is not the service's own

    @property
    def cluster_name(self) -> str:
        return f"{self.name}.default.mesh:{self.port}"


class Mesh:
    """Two hosts: callers are on "a"."""

    def __init__(self, root: MeshRoot, planes: dict[str, Plane], logs: dict[str, Path]) -> None:
        self.root = root
        self.planes = planes
        self.logs = logs
        self.version = 0
        self.sockets = {name: listening_socket() for name in ("a/out", "a/in", "b/out", "b/in")}
        self.certificates: dict[str, Certificate] = {}
        self.snapshots: dict[str, Snapshot] = {}

    def port(self, name: str = "a/out") -> int:
        return int(self.sockets[name].getsockname()[1])

    def certificate(self, account: str) -> Certificate:
        if account not in self.certificates:
            self.certificates[account] = self.root.certificate(account)
        return self.certificates[account]

    def endpoint(self, service: Service, host: str) -> Endpoint:
        return Endpoint(
            id=f"{host}/{service.cluster_name}", node=host, host="127.0.0.1", port=self.port(f"{host}/in"),
            sni=f"{service.name}.default.mesh", identity=service.identity or spiffe(service.name),
            local=f"{service.name}.default.mesh" if host == "a" else "",
        )  # fmt: skip

    def snapshot(
        self, host: str, services: tuple[Service, ...], *, caller: str = "web", upstreams: tuple[str, ...] = (),
        **changes: Any,
    ) -> Snapshot:  # fmt: skip
        local = [service for service in services if host in service.on]
        accounts = {caller, *(service.name for service in local)}
        listeners = [
            Listener(name="in", kind="inbound"),
            Listener(name="out", kind="outbound", caller=spiffe(caller), caller_service=caller),
        ]
        if host == "a":
            for name in upstreams:
                if f"a/{name}" not in self.sockets:
                    self.sockets[f"a/{name}"] = listening_socket()
                target = next(s for s in services if s.name == name)
                listeners.append(
                    Listener(
                        name=name, kind="upstream", caller=spiffe(caller), caller_service=caller,
                        destination=target.cluster_name,
                    )
                )  # fmt: skip
        snapshot = Snapshot(
            version=self.version, node=format_id(self.root.identity.id), node_name=host, trust_domain=TRUST_DOMAIN,
            trust_bundle_pem=self.root.bundle_pem,
            listeners=tuple(listeners),
            certificates=tuple(self.certificate(account) for account in sorted(accounts)),
            inbound=tuple(
                InboundService(
                    **{
                        "sni": f"{s.name}.default.mesh", "service": s.name, "namespace": "default", "port": s.port,
                        "protocol": s.protocol, "identity": spiffe(s.name), "app_host": "127.0.0.1",
                        "app_port": s.on[host], "authorization": s.authorization, **s.inbound,
                    }
                )
                for s in local
            ),
            clusters=tuple(
                Cluster(
                    name=s.cluster_name, service=s.name, namespace="default", protocol=s.protocol,
                    endpoints=(*(self.endpoint(s, each) for each in s.on), *s.endpoints), **s.cluster,
                )
                for s in services
            ),
            destinations=tuple(
                Destination(
                    service=s.name, namespace="default", port=s.port, protocol=s.protocol, cluster=s.cluster_name,
                    **s.destination,
                )
                for s in services
            ),
        )  # fmt: skip
        if host == "b":  # callers are on "a": nothing leaves "b"
            snapshot = replace(snapshot, clusters=(), destinations=())
        return replace(snapshot, **changes)

    async def apply(self, host: str, snapshot: Snapshot) -> Applied | Rejected:
        self.snapshots[host] = snapshot
        return await self.planes[host].apply(
            snapshot,
            {listener.name: self.sockets[f"{host}/{listener.name}"] for listener in snapshot.listeners},
        )

    async def serve(self, *services: Service, **changes: Any) -> None:
        """Both hosts serve these and nothing else."""
        self.version += 1
        for host in ("b", "a"):
            snapshot = self.snapshot(host, services, **changes)
            outcome = await self.apply(host, snapshot)
            assert outcome == Applied(version=self.version), outcome

    async def call(self, **request: Any) -> Reply:
        return await call(self.port(), **request)

    @asynccontextmanager
    async def inbound(
        self, service: str, *, account: str = "web", sni: str | None = None, expecting: str | None = None
    ) -> AsyncIterator[Connection]:
        """A connection straight to the inbound listener of "b"."""
        caller = Caller(
            certificate=self.certificate(account),
            bundle=TrustBundle.from_pem(TRUST_DOMAIN, self.root.bundle_pem),
        )
        context = caller.expecting(expecting or spiffe(service))
        name = f"{service}.default.mesh" if sni is None else sni
        async with connect(self.port("b/in"), ssl=context, server_hostname=name) as connection:
            yield connection

    async def log_line(self, host: str, **wanted: Any) -> dict[str, Any]:
        """The first access-log line with these fields, once it is there."""
        import json

        def found() -> dict[str, Any] | None:
            for line in self.logs[host].read_text().splitlines():
                entry: dict[str, Any] = json.loads(line)
                if all(entry.get(name) == value for name, value in wanted.items()):
                    return entry
            return None

        entry: dict[str, Any] = await until(found, f"a log line with {wanted}")
        return entry

    async def observed(self, host: str, **wanted: Any) -> tuple[Series, SeriesDelta]:
        """The first series with these labels, once it is reported."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            for series, delta in self.planes[host].observations().series.items():
                if all(getattr(series, name) == value for name, value in wanted.items()):
                    return series, delta
            await asyncio.sleep(0.05)
        raise AssertionError(f"no series with {wanted}")

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=PLANES)
async def shared_mesh(request: pytest.FixtureRequest, root: MeshRoot) -> AsyncIterator[Mesh]:
    """Started once: a worker takes longer to start than most tests take."""
    with tempfile.TemporaryDirectory() as folder:
        logs = {host: Path(folder) / host for host in ("a", "b")}
        descriptors = {
            host: os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND) for host, path in logs.items()
        }
        planes = {host: PLANES[request.param](stdout=descriptor) for host, descriptor in descriptors.items()}
        mesh = Mesh(root, planes, logs)
        try:
            for plane in planes.values():
                await plane.start()
            yield mesh
        finally:
            for plane in planes.values():
                await plane.stop()
            for descriptor in descriptors.values():
                os.close(descriptor)
            mesh.close()


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(shared_mesh: Mesh) -> AsyncIterator[Mesh]:
    """The shared mesh, with nothing served, so that nothing of an earlier test is remembered. No worker may die."""
    await shared_mesh.serve()
    for plane in shared_mesh.planes.values():
        plane.observations()
    pids = {host: plane.processes() for host, plane in shared_mesh.planes.items()}
    yield shared_mesh
    assert {host: plane.processes() for host, plane in shared_mesh.planes.items()} == pids, "a worker died"


@pytest_asyncio.fixture(loop_scope="session")
async def app() -> AsyncIterator[App]:
    application = await App("app").start()
    yield application
    await application.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def other() -> AsyncIterator[App]:
    application = await App("other").start()
    yield application
    await application.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def greeter() -> AsyncIterator[Greeter]:
    made = await Greeter().start()
    yield made
    await made.server.stop(None)
