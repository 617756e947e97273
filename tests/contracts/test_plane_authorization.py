"""Who may call: what a policy judges is what the application would get, whatever a route makes of it."""

import ssl
from typing import Any

import pytest

from proxy.snapshot import (
    Authorization,
    AuthzPolicy,
    AuthzRule,
    Condition,
    HeaderEdit,
    HeaderMatch,
    Operation,
    Rewrite,
    RouteMatch,
    Source,
    StringMatch,
)

from .application import App
from .certificates import spiffe
from .client import connect
from .test_plane_request_path import TO_APP, prefix, rule
from .twohosts import BOTH, REMOTE, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


def only(*accounts: str, paths: tuple[str, ...] = ()) -> Authorization:
    principals = tuple(spiffe(account).removeprefix("spiffe://") for account in accounts)
    operations = (Operation(paths=paths),) if paths else ()
    allowed = AuthzRule(sources=(Source(principals=principals),), operations=operations)
    return Authorization(allow=(AuthzPolicy(name="default/only", variants=((allowed,),)),))


@BOTH
async def test_who_is_not_allowed_gets_403_and_the_application_nothing(
    mesh: Mesh, app: App, where: str
) -> None:
    await mesh.serve(Service("echo", {where: app.port}, authorization=only("batch")))
    reply = await mesh.call(path=f"/denied-{where}")
    assert (reply.status, reply.body) == (403, b"RBAC: access denied\n")
    assert app.received == []
    line = await mesh.log_line(
        where, path=f"/denied-{where}", code=403, **({"reporter": "destination"} if where == REMOTE else {})
    )
    assert line["authz_policy"] == "no ALLOW policy matches"


@BOTH
async def test_policies_see_identity_and_normal_path(mesh: Mesh, app: App, where: str) -> None:
    deny = AuthzPolicy(
        name="default/no-admin", variants=((AuthzRule(operations=(Operation(paths=("/admin*",)),)),),)
    )
    await mesh.serve(Service("echo", {where: app.port}, authorization=Authorization(deny=(deny,))))
    assert (await mesh.call(path="/")).status == 200
    for path in ("/admin", "//admin", "/x/../admin", "/%61dmin", "/;x/admin"):
        assert (await mesh.call(path=path)).status == 403
    assert {received.path for received in app.received} == {"/"}


def denying(**operation: Any) -> Authorization:
    denied = AuthzRule(operations=(Operation(**operation),))
    return Authorization(deny=(AuthzPolicy(name="default/deny", variants=((denied,),)),))


async def serve_filtered(mesh: Mesh, app: App, where: str, policy: Authorization, **filters: object) -> None:
    filtered = rule("filtered", prefix("/public"), backends=TO_APP, **filters)
    await mesh.serve(
        Service(
            "echo", {where: app.port}, authorization=policy,
            destination={"rules": (filtered, rule("rest", backends=TO_APP)), "routed": True},
        )
    )  # fmt: skip


@BOTH
@pytest.mark.parametrize("replacement", ["/admin", "/x/../admin", "/%61dmin", "/x/%2e%2e/admin", "//admin"])
async def test_policies_judge_the_path_a_rewrite_makes(
    mesh: Mesh, app: App, where: str, replacement: str
) -> None:
    rewrite = Rewrite(path_prefix=replacement)
    await serve_filtered(mesh, app, where, denying(paths=("/admin*",)), rewrite=rewrite)
    assert (await mesh.call(path="/public/keys")).status == 403
    assert app.received == []
    await serve_filtered(mesh, app, where, denying(paths=("/public*",)), rewrite=rewrite)
    assert (await mesh.call(path="/public/keys?q=..")).status == 200
    assert app.received[-1].path == "/admin/keys?q=.."


@BOTH
@pytest.mark.parametrize("replacement", ["/a?b=", "/a#b", "/%00", "/%zz", "/..;x"])
async def test_a_rewrite_to_what_is_no_path_is_a_500(
    mesh: Mesh, app: App, where: str, replacement: str
) -> None:
    await serve_filtered(mesh, app, where, Authorization(), rewrite=Rewrite(path_prefix=replacement))
    seen = f"/public/{where}/{replacement.encode().hex()}"
    assert (await mesh.call(path=seen)).status == 500
    assert app.received == []
    line = await mesh.log_line("a", path=seen)
    assert (line["flags"], line["route"]) == ("NR", "filtered")


@BOTH
async def test_policies_judge_the_host_and_the_headers_a_route_sets(mesh: Mesh, app: App, where: str) -> None:
    await serve_filtered(
        mesh, app, where, denying(hosts=("inner",)), rewrite=Rewrite(hostname="inner"),
    )  # fmt: skip
    assert (await mesh.call(path="/public")).status == 403
    assert (await mesh.call(path="/other")).status == 200
    tier = Condition(key="request.headers[x-tier]", values=("gold",))
    gold = AuthzPolicy(name="default/gold", variants=((AuthzRule(conditions=(tier,)),),))
    for edit, gets in (
        (HeaderEdit(set=(("x-tier", "gold"),)), 200), (HeaderEdit(remove=("x-tier",)), 403),
        (HeaderEdit(set=(("x-tier", "tin"),)), 403),
    ):  # fmt: skip
        await serve_filtered(mesh, app, where, Authorization(allow=(gold,)), request_headers=edit)
        sent = {"x-tier": "tin" if gets == 200 else "gold"}
        assert (await mesh.call(path="/public", headers=sent)).status == gets
        assert (await mesh.call(path="/other", headers=sent)).status == (403 if gets == 200 else 200)


@BOTH
async def test_a_deny_of_the_port_the_application_listens_on_holds(mesh: Mesh, app: App, where: str) -> None:
    for protocol in ("http", "tcp"):
        policy = denying(ports=(app.port,))
        await mesh.serve(
            Service("echo", {where: app.port}, protocol=protocol, authorization=policy), upstreams=("echo",)
        )
        async with connect(mesh.port("a/echo")) as connection:
            if protocol == "http":
                assert (await connection.request()).status == 403
            else:
                await connection.send(b"x")
                assert await connection.at_end()
    assert app.connections == 0


UPGRADE = {"connection": "upgrade", "upgrade": "websocket"}


@BOTH
@pytest.mark.parametrize(
    ("name", "value", "request_"),
    [
        ("upgrade", "websocket", {"headers": UPGRADE}),
        ("content-length", "3", {"method": "POST", "body": b"abc"}),
        ("expect", "100-continue", {"method": "POST", "headers": {"expect": "100-continue"}}),
    ],
)
async def test_policies_and_routes_see_what_a_request_asks_of_the_connection(
    mesh: Mesh, app: App, where: str, name: str, value: str, request_: dict[str, Any]
) -> None:
    asked = Condition(key=f"request.headers[{name}]", values=(value,))
    deny = AuthzPolicy(name="default/asked", variants=((AuthzRule(conditions=(asked,)),),))
    await mesh.serve(Service("echo", {where: app.port}, authorization=Authorization(deny=(deny,))))
    assert (await mesh.call(**request_)).status == 403
    assert (await mesh.call()).status == 200
    matched = RouteMatch(headers=(HeaderMatch(name=name, value=StringMatch(kind="exact", value=value)),))
    routed = rule("asked", matched, backends=TO_APP)
    await mesh.serve(Service("echo", {where: app.port}, destination={"rules": (routed,), "routed": True}))
    assert (await mesh.call(**request_)).status == 200
    assert (await mesh.call()).status == 404


async def test_a_denied_body_is_not_waited_for(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}, authorization=only("batch")))
    async with connect(mesh.port()) as connection:
        await connection.send(b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 1000000\r\n\r\nbegin")
        reply = await connection.reply()
        assert (reply.status, reply.header("connection")) == (403, "close")


async def test_an_inbound_caller_without_the_mesh_certificate_gets_no_byte_through(
    mesh: Mesh, app: App
) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with connect(mesh.port("b/in"), ssl=context, server_hostname="echo.default.mesh") as connection:
        # In TLS 1.3 the client is done before the server has judged it.
        await connection.send(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
        assert await connection.at_end()
    assert app.received == []


async def test_an_unknown_sni_is_refused_in_the_handshake(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await mesh.inbound("echo", sni="nobody.default.mesh").__aenter__()
