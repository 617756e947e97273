"""The path of a request: names, routes, identity, headers. Who may call: `test_plane_authorization.py`."""

import asyncio
import re
from typing import Any

import pytest

from proxy.snapshot import (
    Backend,
    HeaderEdit,
    HeaderMatch,
    Redirect,
    Rewrite,
    RouteMatch,
    RouteRule,
    StringMatch,
)

from .application import App, Received, answer
from .certificates import spiffe
from .client import call, connect
from .twohosts import BOTH, LOCAL, REMOTE, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    "host",
    [
        "echo",
        "echo.default",
        "echo.default.mesh",
        "echo:80",
        "echo.default.mesh:80",
        "ECHO.Default.mesh",
        "echo.default.mesh.",
    ],
)
async def test_a_service_answers_to_each_of_its_names(mesh: Mesh, app: App, host: str) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    reply = await mesh.call(host=host)
    assert (reply.status, reply.body) == (200, b"app")


@pytest.mark.parametrize(
    "host", ["nobody", "echo.other", "echo:81", "echo.default.mesh.org", "127.0.0.1", "a.b.c.mesh", "echo:x"]
)
async def test_an_unknown_name_is_a_404_that_says_the_name(mesh: Mesh, app: App, host: str) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    reply = await mesh.call(host=host, path=f"/{host}")
    assert (reply.status, reply.body) == (404, f'no service "{host}" in the mesh\n'.encode())
    assert reply.header("server") == "gossamer"
    line = await mesh.log_line("a", path=f"/{host}")
    assert (line["flags"], line["code"]) == ("NR", 404)


async def test_absolute_form_names_the_service_and_replaces_host(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    reply = await mesh.call(path="http://echo.default.mesh/x?y=1", host="nonsense")
    assert reply.status == 200
    assert (app.received[-1].path, app.received[-1].header("host")) == ("/x?y=1", "echo.default.mesh")


async def test_connect_to_an_http_service_carries_requests_with_every_decision(mesh: Mesh, app: App) -> None:
    rule = RouteRule(
        name="HTTPRoute/default/r/0",
        matches=(RouteMatch(path=StringMatch(kind="prefix_path", value="/yes")),),
        backends=(Backend(cluster="echo.default.mesh:80"),),
    )
    await mesh.serve(Service("echo", {REMOTE: app.port}, destination={"rules": (rule,), "routed": True}))
    async with connect(mesh.port()) as connection:
        await connection.send(b"CONNECT echo.default.mesh:80 HTTP/1.1\r\nhost: echo.default.mesh:80\r\n\r\n")
        assert (await connection.read_head())[0] == 200
        assert (await connection.request(path="/yes", host="whatever")).body == b"app"
        assert (await connection.request(path="/no", host="whatever")).status == 404
        assert (await connection.request(path="/yes/2", host="whatever")).status == 200


async def test_connect_to_nobody_is_refused(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n")
        reply = await connection.reply()
        assert (reply.status, reply.body) == (404, b'no service "example.com:443" in the mesh\n')
        assert await connection.at_end()


async def test_an_upstream_port_is_the_destination_whatever_host_says(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}), upstreams=("echo",))
    reply = await call(mesh.port("a/echo"), host="localhost:9191")
    assert (reply.status, reply.body) == (200, b"app")
    assert app.received[-1].header("host") == "localhost:9191"


# ---------------------------------------------------------------- identity and headers


@BOTH
async def test_the_application_learns_who_called_and_cannot_be_lied_to(
    mesh: Mesh, app: App, where: str
) -> None:
    await mesh.serve(Service("echo", {where: app.port}))
    await mesh.call(headers={"X-Forwarded-Client-Cert": "By=evil;URI=spiffe://test.mesh/ns/default/sa/admin"})
    certs = [value for name, value in app.received[-1].headers if name == "x-forwarded-client-cert"]
    assert certs == [f"By={spiffe('echo')};URI={spiffe('web')}"]


async def test_the_inbound_side_trusts_the_certificate_not_the_header(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    async with mesh.inbound("echo", account="batch") as connection:
        await connection.request(headers={"x-forwarded-client-cert": f"URI={spiffe('admin')}"})
    certs = [value for name, value in app.received[-1].headers if name == "x-forwarded-client-cert"]
    assert certs == [f"By={spiffe('echo')};URI={spiffe('batch')}"]


SPELLINGS = ("x_forwarded_client_cert", "X_Forwarded-Client-Cert", "x-forwarded_client_cert")


@BOTH
async def test_no_spelling_a_server_takes_for_the_same_header_gets_through(
    mesh: Mesh, app: App, where: str
) -> None:
    await mesh.serve(Service("echo", {where: app.port}))
    lie = f"By=evil;URI={spiffe('admin')}"
    fields = "".join(f"{name}: {lie}\r\n" for name in SPELLINGS)
    head = f"POST / HTTP/1.1\r\nhost: echo\r\ntransfer-encoding: chunked\r\n{fields}\r\n"
    async with connect(mesh.port()) as connection:
        await connection.send(f"{head}1\r\nx\r\n0\r\n{fields}x-sum: 1\r\n\r\n".encode())
        assert (await connection.reply()).status == 200
    received = app.received[-1]
    certs = [value for name, value in received.headers if "client" in name]
    assert certs == [f"By={spiffe('echo')};URI={spiffe('web')}"]
    assert received.trailers == [("x-sum", "1")]


async def test_a_trace_is_continued_with_a_new_span(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = f"00-{trace}-00f067aa0ba902b7-01"
    await mesh.call(headers={"traceparent": sent, "tracestate": "v=1", "x-request-id": "abc"})
    received = app.received[-1]
    parent = received.header("traceparent")
    assert parent is not None
    assert re.fullmatch(rf"00-{trace}-[0-9a-f]{{16}}-01", parent)
    assert parent != sent
    assert (received.header("tracestate"), received.header("x-request-id")) == ("v=1", "abc")
    line = await mesh.log_line("b", request_id="abc")
    assert line["trace_id"] == trace


async def test_a_trace_is_begun_where_there_is_none_or_a_broken_one(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    await mesh.call(headers={"traceparent": "00-0-0-01", "tracestate": "v=1"})
    received = app.received[-1]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", received.header("traceparent") or "")
    assert received.header("tracestate") is None
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", received.header("x-request-id") or "")


async def test_hop_by_hop_headers_stop_here(mesh: Mesh, app: App) -> None:
    async def script(
        app: App, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(
            answer(
                headers="connection: x-gone\r\nx-gone: 1\r\nkeep-alive: timeout=5\r\nserver: mine\r\nvia: x\r\n"
            )
        )

    app.script = script
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    reply = await mesh.call(
        headers={"connection": "keep-alive, x-secret", "x-secret": "1", "te": "trailers",
        "proxy-authorization": "x", "x-kept": "1"}
    )  # fmt: skip
    names = {name for name, _ in app.received[-1].headers}
    assert not names & {"connection", "x-secret", "te", "proxy-authorization", "keep-alive"}
    assert "x-kept" in names
    assert {name for name, _ in reply.headers} == {"server", "via", "content-length"}
    assert (reply.header("server"), reply.header("via")) == ("mine", "x")


# ---------------------------------------------------------------- routes


def rule(name: str, *matches: RouteMatch, backends: tuple[Backend, ...] = (), **rest: Any) -> RouteRule:
    return RouteRule(name=name, matches=matches or (RouteMatch(),), backends=backends, **rest)


def prefix(value: str) -> RouteMatch:
    return RouteMatch(path=StringMatch(kind="prefix_path", value=value))


async def serve_two(mesh: Mesh, app: App, other: App, *rules: RouteRule) -> None:
    await mesh.serve(
        Service("echo", {REMOTE: app.port}, destination={"rules": rules, "routed": True}),
        Service("other", {LOCAL: other.port}),
    )


TO_APP = (Backend(cluster="echo.default.mesh:80"),)
TO_OTHER = (Backend(cluster="other.default.mesh:80"),)


async def test_rules_choose_the_backend_by_path_and_header(mesh: Mesh, app: App, other: App) -> None:
    beta = RouteMatch(headers=(HeaderMatch(name="x-beta", value=StringMatch(kind="exact", value="1")),))
    await serve_two(
        mesh, app, other, rule("v2", prefix("/v2"), backends=TO_OTHER), rule("beta", beta, backends=TO_OTHER),
        rule("rest", prefix("/v1"), backends=TO_APP),
    )  # fmt: skip
    assert (await mesh.call(path="/v2/x")).body == b"other"
    assert (await mesh.call(path="/v2example")).status == 404
    assert (await mesh.call(path="/v1")).body == b"app"
    assert (await mesh.call(path="/", headers={"X-Beta": "1"})).body == b"other"
    assert (await mesh.log_line("a", path="/v2/x"))["route"] == "v2"


async def test_the_path_is_routed_and_forwarded_in_its_normal_form(mesh: Mesh, app: App, other: App) -> None:
    await serve_two(
        mesh, app, other, rule("v2", prefix("/v2"), backends=TO_OTHER), rule("rest", backends=TO_APP)
    )
    assert (await mesh.call(path="/v1/..//%76%32/x?q=%2e")).body == b"other"
    assert other.received[-1].path == "/v2/x?q=%2e"
    assert (await mesh.call(path="/%00")).status == 400


async def test_weights_split_the_traffic(mesh: Mesh, app: App, other: App) -> None:
    backends = (
        Backend(cluster="echo.default.mesh:80", weight=3), Backend(cluster="other.default.mesh:80", weight=1),
    )  # fmt: skip
    await serve_two(mesh, app, other, rule("split", backends=backends))
    async with connect(mesh.port()) as connection:
        bodies = [(await connection.request()).body for _ in range(400)]
    assert 50 <= bodies.count(b"other") <= 150


@BOTH
@pytest.mark.parametrize("head", ["GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.1\r\nhost:\r\n\r\n"])
async def test_a_request_without_a_host_gets_the_name_of_its_service(
    mesh: Mesh, app: App, where: str, head: str
) -> None:
    """Such as those of HTTP/1.0 to an upstream port. Towards another host they ended the stream, and it was blamed."""
    await mesh.serve(Service("echo", {where: app.port}), upstreams=("echo",))
    async with connect(mesh.port("a/echo")) as connection:
        await connection.send(head.encode())
        assert (await connection.reply()).status == 200
    assert app.received[0].header("host") == "echo.default.mesh:80"


@pytest.mark.parametrize(
    ("host", "redirect", "location"),
    [
        ("[::1]:9191", Redirect(scheme="https"), "https://[::1]/a"),
        ("[::1]:9191", Redirect(port=8080), "http://[::1]:8080/a"),
        ("[::1]", Redirect(), "http://[::1]/a"),
        ("echo:9191", Redirect(), "http://echo:9191/a"),
        ("echo:9191", Redirect(scheme="https"), "https://echo/a"),
        ("", Redirect(), "http://echo.default.mesh/a"),
    ],
)
async def test_a_redirect_keeps_what_it_does_not_change(
    mesh: Mesh, app: App, host: str, redirect: Redirect, location: str
) -> None:
    await mesh.serve(
        Service(
            "echo", {LOCAL: app.port}, destination={"rules": (rule("r", redirect=redirect),), "routed": True}
        ),
        upstreams=("echo",),
    )
    reply = await call(mesh.port("a/echo"), path="/a", host=host)
    assert (reply.status, reply.header("location")) == (302, location)


async def test_filters_rewrite_edit_and_redirect(mesh: Mesh, app: App, other: App) -> None:
    await serve_two(
        mesh, app, other,
        rule(
            "rewrite", prefix("/old"), backends=TO_APP, rewrite=Rewrite(path_prefix="/new", hostname="inner"),
            request_headers=HeaderEdit(set=(("x-set", "1"),), add=(("x-add", "2"),), remove=("x-remove",)),
            response_headers=HeaderEdit(set=(("x-answer", "3"),)),
        ),
        rule(
            "redirect", prefix("/away"), redirect=Redirect(scheme="https", hostname="other.org", path_prefix="/there")
        ),
    )  # fmt: skip
    reply = await mesh.call(path="/old/x?y", headers={"x-remove": "1", "x-set": "0"})
    received = app.received[-1]
    assert (received.path, received.header("host")) == ("/new/x?y", "inner")
    assert (received.header("x-set"), received.header("x-add"), received.header("x-remove")) == (
        "1",
        "2",
        None,
    )
    assert reply.header("x-answer") == "3"
    reply = await mesh.call(path="/away/x?y")
    assert (reply.status, reply.header("location")) == (302, "https://other.org/there/x?y")


async def test_a_backend_that_resolves_to_nothing_is_a_500(mesh: Mesh, app: App, other: App) -> None:
    await serve_two(mesh, app, other, rule("broken", backends=(Backend(cluster=""),)))
    assert (await mesh.call(path="/broken")).status == 500


async def test_the_caller_namespace_may_have_rules_of_its_own(mesh: Mesh, app: App, other: App) -> None:
    await mesh.serve(
        Service(
            "echo", {REMOTE: app.port},
            destination={"rules": (rule("producer", backends=TO_APP),),
            "caller_rules": (("default", (rule("mine", backends=TO_OTHER),)),)},
        ),
        Service("other", {LOCAL: other.port}),
    )  # fmt: skip
    assert (await mesh.call()).body == b"other"
