"""HTTP/2 between hosts: agreed on in each handshake, judged by the `h2` library, curl and servers that know less."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from proxy.snapshot import Authorization, AuthzPolicy, AuthzRule, Endpoint, Operation
from trust.bundle import TrustBundle
from trust.tls import Caller, server_context

from .application import App, answer
from .certificates import TRUST_DOMAIN, spiffe
from .greeter import Greeter, Stub, refused
from .patience import until
from .test_plane_http2 import Client
from .twohosts import Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRPC = {"content-type": "application/grpc", "te": "trailers"}


def bundle(mesh: Mesh) -> TrustBundle:
    return TrustBundle.from_pem(TRUST_DOMAIN, mesh.root.bundle_pem)


@asynccontextmanager
async def inbound(
    mesh: Mesh, *offered: str, account: str = "web"
) -> AsyncIterator[tuple[str | None, Client]]:
    """What was agreed on, and a connection straight to the inbound listener of "b"."""
    context = Caller(certificate=mesh.certificate(account), bundle=bundle(mesh), alpn=offered).expecting(
        spiffe("echo")
    )
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", mesh.port("b/in"), ssl=context, server_hostname="echo.default.mesh"
    )
    try:
        yield writer.get_extra_info("ssl_object").selected_alpn_protocol(), Client(reader, writer)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), "h2"), (("h2",), "h2"), (("http/1.1",), "http/1.1"),
        ((), None), (("spdy/3",), None),
    ],
)  # fmt: skip
async def test_the_inbound_listener_speaks_what_was_agreed_on(
    mesh: Mesh, app: App, offered: tuple[str, ...], agreed: str | None
) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with inbound(mesh, *offered) as (selected, caller):
        assert selected == agreed
        if agreed == "h2":
            head, body = await caller.request((":path", "/p"), ("x-a", "b"))
            assert (head[":status"], body) == ("200", b"app")
        else:
            caller.writer.write(b"GET /p HTTP/1.1\r\nhost: echo\r\nx-a: b\r\n\r\n")
            assert (await caller.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert (app.received[0].path, app.received[0].header("x-a")) == ("/p", "b")
    assert app.received[0].header("x-forwarded-client-cert") == f"By={spiffe('echo')};URI={spiffe('web')}"


@pytest.mark.parametrize("offered", [(), ("http/1.1",)])
async def test_a_preface_is_no_agreement(mesh: Mesh, app: App, offered: tuple[str, ...]) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with inbound(mesh, *offered) as (_, caller):
        caller.writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await caller.reader.read()).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "begin", [b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"]
)
async def test_an_agreement_without_its_preface_is_an_end(mesh: Mesh, app: App, begin: bytes) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with inbound(mesh, "h2") as (_, caller):
        caller.writer.write(begin)
        told = await asyncio.wait_for(caller.reader.read(), 10)
        assert told[3] == 4, "SETTINGS come first"
        assert b"malformed preface" in told
    assert app.received == []


async def test_each_stream_is_judged_for_itself(mesh: Mesh, app: App) -> None:
    deny = AuthzPolicy(name="default/no", variants=((AuthzRule(operations=(Operation(paths=("/no",)),)),),))
    await mesh.serve(Service("echo", {"b": app.port}, authorization=Authorization(deny=(deny,))))
    async with inbound(mesh, "h2") as (_, caller):
        streams = [caller.send((":path", path)) for path in ("/yes", "/x/../no", "/yes")]
        assert [(await caller.reply(stream))[0][":status"] for stream in streams] == ["200", "403", "200"]
    assert [request.path for request in app.received] == ["/yes", "/yes"]
    await mesh.log_line("b", path="/no", code=403, protocol="HTTP/2", source=spiffe("web"))


async def test_a_service_of_plain_tcp_is_piped_whatever_is_offered(mesh: Mesh, app: App) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + await reader.readexactly(4))

    app.raw = echo
    await mesh.serve(Service("echo", {"b": app.port}, protocol="tcp"))
    async with inbound(mesh, "h2") as (_, caller):
        caller.writer.write(b"PRI ")
        assert await asyncio.wait_for(caller.reader.readexactly(8), 10) == b"got PRI "


async def test_calls_to_another_host_share_connections(mesh: Mesh, greeter: Greeter) -> None:
    await mesh.serve(Service("echo", {"b": greeter.port}, protocol="grpc"))
    async with Stub(mesh.port()) as stub:
        calls = [stub.unary("Wait", timeout=30) for _ in range(50)]
        await until(lambda: greeter.calls == 50, "all calls arrive")

        def few() -> bool:
            """What b told last may be of the test before."""
            return 0 < mesh.planes["b"].observations().connections <= 2

        await until(few, "fifty calls are under way on at most two connections")
        greeter.gate.set()
        assert set(await asyncio.gather(*calls)) == {b"late"}
    await mesh.log_line("b", protocol="HTTP/2", path="/t.Echo/Wait", reporter="destination")


async def test_a_revoked_caller_loses_all_its_streams(mesh: Mesh, app: App) -> None:
    service = Service("echo", {"b": app.port})
    await mesh.serve(service)
    async with inbound(mesh, "h2") as (_, caller):
        await caller.request()
        await mesh.serve(service, revoked=(spiffe("web"),))
        with pytest.raises((AssertionError, ConnectionError, ssl.SSLError)):
            await caller.request()
    assert len(app.received) == 1


# ---------------------------------------------------------------- servers that know less, or more than before


class Elsewhere:
    """A host of the mesh that is not this plane: what its handshake agrees on is its own affair."""

    def __init__(self, mesh: Mesh, *spoken: str) -> None:
        self.mesh, self.spoken = mesh, spoken
        self.seen: list[str] = []  # a version of HTTP for each request
        self.handshakes: list[str | None] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.in_http2 = self._http2

    async def __aenter__(self) -> "Elsewhere":
        context = server_context(
            bundle=bundle(self.mesh), default=self.mesh.certificate("echo"), alpn=self.spoken
        )
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()
        await self.server.wait_closed()

    @property
    def service(self) -> Service:
        there = Endpoint(
            id="x/echo", node="x", host="127.0.0.1", port=self.port, sni="echo.default.mesh", identity=spiffe("echo")
        )  # fmt: skip
        return Service("echo", {}, protocol="grpc", endpoints=(there,))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        self.handshakes.append(agreed)
        try:
            await (self.in_http2 if agreed == "h2" else self._http1)(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the mesh closed the connection

    async def _http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"POST /t.Echo/Unary HTTP/1.1\r\n"), head
            body = await reader.readexactly(
                int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            )
            self.seen.append("1.1")
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
                b"%x\r\n%b\r\n0\r\ngrpc-status: 0\r\n\r\n" % (len(body), body)
            )

    async def _http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        while True:
            writer.write(connection.data_to_send())
            data = await reader.read(65536)
            if not data:
                return
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self.seen.append("2")
                elif isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    head = [(":status", "200"), ("content-type", "application/grpc")]
                    connection.send_headers(event.stream_id, head)
                    connection.send_data(event.stream_id, b"\0\0\0\0\x02hi")
                    connection.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)


async def call_it(mesh: Mesh) -> bytes:
    reply = await mesh.call(method="POST", path="/t.Echo/Unary", headers=GRPC, body=b"\0\0\0\0\x02hi")
    assert (reply.status, reply.trailers) == (200, [("grpc-status", "0")])
    return reply.body


@pytest.mark.parametrize("spoken", [(), ("http/1.1",), ("h2",), ("h2", "http/1.1")])
async def test_a_server_is_spoken_to_in_what_it_agrees_to(mesh: Mesh, spoken: tuple[str, ...]) -> None:
    async with Elsewhere(mesh, *spoken) as elsewhere:
        await mesh.serve(elsewhere.service)
        assert await asyncio.gather(*(call_it(mesh) for _ in range(5))) == [b"\0\0\0\0\x02hi"] * 5
        assert await call_it(mesh) == b"\0\0\0\0\x02hi"
    assert elsewhere.seen == ["2" if "h2" in spoken else "1.1"] * 6
    assert set(elsewhere.handshakes) == {spoken[0] if spoken else None}


async def test_a_server_that_comes_back_newer_or_older_is_asked_again(mesh: Mesh) -> None:
    elsewhere = Elsewhere(mesh)
    for spoken in (("http/1.1",), ("h2", "http/1.1"), ()):
        elsewhere.spoken = spoken
        async with elsewhere:
            await mesh.serve(elsewhere.service)
            assert await call_it(mesh) == b"\0\0\0\0\x02hi"
            assert await call_it(mesh) == b"\0\0\0\0\x02hi"
    assert elsewhere.seen == ["1.1", "1.1", "2", "2", "1.1", "1.1"]


async def test_a_server_nobody_can_talk_to_is_unavailable(mesh: Mesh, greeter: Greeter) -> None:
    """It agrees to HTTP/2 and answers in HTTP/1.1."""

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer(200, b"hi"))

    async with Elsewhere(mesh, "h2") as elsewhere:
        elsewhere.in_http2 = lie
        await mesh.serve(elsewhere.service)
        async with Stub(mesh.port()) as stub:
            error = await refused(stub.unary("Unary"))
    assert error.code().name in {"UNAVAILABLE", "UNKNOWN"}, error


async def test_curl_by_alpn(mesh: Mesh, app: App, tmp_path: Path) -> None:
    """Another engine's client: TLS by OpenSSL's own rules, HTTP/2 by nghttp2. (It cannot judge a SPIFFE ID: -k.)"""
    assert shutil.which("curl"), "curl is not installed"
    await mesh.serve(Service("echo", {"b": app.port}))
    shown = mesh.certificate("web")
    (tmp_path / "web.pem").write_bytes(shown.chain_pem + b"\n" + shown.key_pem)
    versions = {}
    for version in ("--http2", "--http1.1"):
        process = await asyncio.create_subprocess_exec(
            "curl", "-sSk", version, "--cert", str(tmp_path / "web.pem"), "-w", "%{http_version} %{http_code}",
            "-d", "x" * 100_000, "--connect-to", f"::127.0.0.1:{mesh.port('b/in')}", "https://echo.default.mesh/p",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 20)
        versions[version] = out
    assert versions == {"--http2": b"app2 200", "--http1.1": b"app1.1 200"}
    assert [request.body for request in app.received] == [b"x" * 100_000] * 2
