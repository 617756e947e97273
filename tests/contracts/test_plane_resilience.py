"""What a caller gets when endpoints fail: retries, timeouts, ejection, and the flag that says which."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from proxy.snapshot import (
    Backend,
    Endpoint,
    Outlier,
    RetryPolicy,
    RouteMatch,
    RouteRule,
)

from .application import App, answer
from .certificates import spiffe
from .client import connect
from .patience import until
from .twohosts import BOTH, LOCAL, REMOTE, Mesh, Service, listening_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")


def endpoint(name: str, port: int, **rest: Any) -> Endpoint:
    return Endpoint(
        id=f"{name}/echo.default.mesh:80", node=name, host="127.0.0.1", port=port, sni="echo.default.mesh",
        identity=spiffe("echo"), **rest,
    )  # fmt: skip


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and says nothing: a handshake never ends."""
    sock = listening_socket()
    yield int(sock.getsockname()[1])
    sock.close()


async def hang(app: App, request: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the mesh gives up


async def fail(app: App, request: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(500, b"broken"))


# ---------------------------------------------------------------- connecting


async def test_a_refused_connection_is_retried_on_another_endpoint(
    mesh: Mesh, app: App, reserve: Callable[[], int]
) -> None:
    await mesh.serve(
        Service(
            "echo", {REMOTE: app.port}, endpoints=(endpoint("dead", reserve()),),
            cluster={"balancer": "round_robin", "outlier": Outlier(enabled=False)},
        )
    )  # fmt: skip
    async with connect(mesh.port()) as connection:
        replies = [await connection.request("POST", body=b"x" * 1000) for _ in range(6)]
    assert [reply.status for reply in replies] == [200] * 6
    assert {received.body for received in app.received} == {b"x" * 1000}
    assert await counted(mesh, "retries") >= 1


async def counted(mesh: Mesh, name: str) -> int:
    total = 0

    def look() -> int:
        nonlocal total
        total += mesh.planes["a"].observations().counters.get(name, 0)
        return total

    count: int = await until(look, f"counter {name}")
    return count


async def test_nobody_to_connect_to_is_503_uf(mesh: Mesh, reserve: Callable[[], int]) -> None:
    port = reserve()
    await mesh.serve(Service("echo", {}, endpoints=(endpoint("dead", port),)))
    reply = await mesh.call(path="/uf")
    assert reply.status == 503
    assert b"upstream connect error" in reply.body
    line = await mesh.log_line("a", path="/uf")
    assert (line["flags"], line["upstream"]) == ("UF", f"127.0.0.1:{port}")


@BOTH
async def test_an_application_that_is_down_is_503_uf_where_it_is(mesh: Mesh, app: App, where: str) -> None:
    await mesh.serve(Service("echo", {where: app.port}, cluster={"retry": RetryPolicy(attempts=0)}))
    await app.stop()
    assert (await mesh.call(path=f"/down-{where}")).status == 503
    assert (await mesh.log_line(where, path=f"/down-{where}", code=503))["flags"] == "UF"


async def test_no_endpoint_is_503_uh(mesh: Mesh) -> None:
    await mesh.serve(Service("echo", {}))
    assert (await mesh.call(path="/uh")).status == 503
    assert (await mesh.log_line("a", path="/uh"))["flags"] == "UH"


async def test_an_unhealthy_endpoint_gets_nothing_until_too_few_are_left(
    mesh: Mesh, app: App, other: App
) -> None:
    service = Service("echo", {REMOTE: app.port, LOCAL: other.port}, cluster={"balancer": "round_robin"})
    await mesh.serve(service)
    snapshot = mesh.snapshots["a"]
    cluster = snapshot.clusters[0]

    async def with_health(*healthy: bool, panic_percent: int) -> set[bytes]:
        endpoints = tuple(replace(e, healthy=h) for e, h in zip(cluster.endpoints, healthy, strict=True))
        changed = replace(cluster, endpoints=endpoints, panic_threshold_percent=panic_percent)
        await mesh.apply("a", replace(snapshot, clusters=(changed,)))
        return {(await mesh.call()).body for _ in range(20)}

    assert await with_health(True, False, panic_percent=50) == {b"app"}
    assert await with_health(False, False, panic_percent=50) == {b"app", b"other"}
    assert await with_health(False, False, panic_percent=0) == {b"no healthy upstream\n"}


async def test_a_connection_that_does_not_come_about_ends_with_the_connect_timeout(
    mesh: Mesh, app: App, silent_port: int
) -> None:
    await mesh.serve(
        Service(
            "echo", {}, endpoints=(endpoint("silent", silent_port),),
            cluster={"connect_timeout_s": 0.2, "retry": RetryPolicy(attempts=0)},
        )
    )  # fmt: skip
    reply = await asyncio.wait_for(mesh.call(path="/slow-connect"), 3)
    assert reply.status == 503
    assert (await mesh.log_line("a", path="/slow-connect"))["flags"] == "UF"


async def test_an_endpoint_with_the_wrong_identity_is_never_spoken_to(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}, identity=spiffe("somebody-else")))
    reply = await mesh.call()
    assert reply.status == 503
    assert f"the peer is {spiffe('echo')}, expected {spiffe('somebody-else')}".encode() in reply.body
    assert app.received == []


async def test_a_caller_without_a_certificate_fails_closed(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    await mesh.apply("a", replace(mesh.snapshots["a"], certificates=()))
    reply = await mesh.call()
    assert (reply.status, reply.body) == (503, f"no certificate for {spiffe('web')} yet\n".encode())


# ---------------------------------------------------------------- answering


@BOTH
async def test_a_request_that_takes_too_long_is_504_ut(mesh: Mesh, app: App, where: str) -> None:
    app.script = hang
    await mesh.serve(Service("echo", {where: app.port}, destination={"request_timeout_s": 0.2}))
    reply = await asyncio.wait_for(mesh.call(path=f"/late-{where}"), 3)
    assert (reply.status, reply.body) == (504, b"upstream request timeout\n")
    assert (await mesh.log_line("a", path=f"/late-{where}"))["flags"] == "UT"


async def test_a_rule_may_shorten_the_timeout(mesh: Mesh, app: App) -> None:
    app.script = hang
    short = RouteRule(
        name="short",
        matches=(RouteMatch(),),
        backends=(Backend(cluster="echo.default.mesh:80"),),
        request_timeout_s=0.1,
    )
    await mesh.serve(Service("echo", {REMOTE: app.port}, destination={"rules": (short,), "routed": True}))
    assert (await asyncio.wait_for(mesh.call(), 3)).status == 504


async def test_the_inbound_side_has_a_timeout_of_its_own(mesh: Mesh, app: App) -> None:
    app.script = hang
    await mesh.serve(Service("echo", {REMOTE: app.port}, inbound={"request_timeout_s": 0.1}))
    assert (await asyncio.wait_for(mesh.call(path="/late-inside"), 3)).status == 504
    assert (await mesh.log_line("b", path="/late-inside"))["flags"] == "UT"


async def test_one_slow_try_is_given_up_for_another(mesh: Mesh, app: App, other: App) -> None:
    app.script = hang
    await mesh.serve(
        Service(
            "echo", {REMOTE: app.port, LOCAL: other.port},
            cluster={
                "balancer": "round_robin", "outlier": Outlier(enabled=False),
                "retry": RetryPolicy(on=("reset",), per_try_timeout_s=0.15),
            },
        )
    )  # fmt: skip
    replies = [await asyncio.wait_for(mesh.call(), 5) for _ in range(4)]
    assert [reply.body for reply in replies] == [b"other"] * 4


@BOTH
async def test_a_caller_that_sends_slowly_is_no_slow_try(mesh: Mesh, app: App, where: str) -> None:
    """The time of a try begins when the request is complete (as Envoy's), or slow callers would eject endpoints."""
    try_s = 0.2
    await mesh.serve(
        Service("echo", {where: app.port}, cluster={"retry": RetryPolicy(per_try_timeout_s=try_s)})
    )
    async with connect(mesh.port()) as connection:
        await connection.send(b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 3\r\n\r\n")
        for byte in (b"a", b"b", b"c"):
            await asyncio.sleep(try_s)
            await connection.send(byte)
        assert (await connection.reply()).status == 200
    assert [received.body for received in app.received] == [b"abc"]


@BOTH
async def test_the_time_of_a_try_begins_when_the_request_is_complete(
    mesh: Mesh, app: App, where: str
) -> None:
    app.script = hang
    await mesh.serve(
        Service("echo", {where: app.port}, cluster={"retry": RetryPolicy(per_try_timeout_s=0.1)})
    )
    async with connect(mesh.port()) as connection:
        await connection.send(b"POST / HTTP/1.1\r\nhost: echo\r\ncontent-length: 2\r\n\r\na")
        await connection.send(b"b")
        reply = await connection.reply()
    assert (reply.status, b"one try" in reply.body) == (504, True)


async def test_a_5xx_is_retried_only_when_the_policy_says_so(mesh: Mesh, app: App, other: App) -> None:
    app.script = fail
    cluster: dict[str, Any] = {"balancer": "round_robin", "outlier": Outlier(enabled=False)}
    service = Service("echo", {REMOTE: app.port, LOCAL: other.port}, cluster=cluster)
    await mesh.serve(service)
    assert sorted([(await mesh.call()).status for _ in range(4)]) == [200, 200, 500, 500]
    cluster["retry"] = RetryPolicy(on=("5xx",))
    await mesh.serve(service)
    assert [(await mesh.call(method="POST", body=b"abc")).status for _ in range(4)] == [200] * 4
    assert {received.body for received in other.received[-4:]} == {b"abc"}


async def test_a_kept_alive_connection_that_went_stale_is_replaced_unseen(mesh: Mesh, app: App) -> None:
    async def close_after(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(body=b"once"))

    app.script = close_after
    await mesh.serve(Service("echo", {LOCAL: app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(5):
            assert (await connection.request()).body == b"once"
            app.drop_connections()
    assert app.connections == 5


async def test_a_connection_that_breaks_under_a_post_is_not_tried_again(mesh: Mesh, app: App) -> None:
    async def cut(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        if len(app.received) == 1:
            writer.write(answer())
        else:
            writer.close()

    app.script = cut
    await mesh.serve(Service("echo", {LOCAL: app.port}))
    async with connect(mesh.port()) as connection:
        assert (await connection.request()).status == 200
        reply = await connection.request("POST", body=b"once only", path="/cut")
        assert reply.status == 503
        assert len(app.received) == 2
    assert (await mesh.log_line("a", path="/cut"))["flags"] == "UC"


async def test_a_response_that_breaks_off_is_not_passed_off_as_whole(mesh: Mesh, app: App) -> None:
    async def half(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    app.script = half
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(b"GET /half HTTP/1.1\r\nhost: echo\r\n\r\n")
        assert (await connection.read_head())[0] == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await connection.reader.readexactly(100)
    assert (await mesh.log_line("a", path="/half"))["flags"] in {"UC", "UPE"}


async def test_the_caller_going_away_ends_the_upstream_request(mesh: Mesh, app: App) -> None:
    gone = asyncio.Event()

    async def watch(app: App, request: Any, reader: asyncio.StreamReader, writer: Any) -> None:
        assert await reader.read() == b""
        gone.set()

    app.script = watch
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    async with connect(mesh.port()) as connection:
        await connection.send(b"GET /gone HTTP/1.1\r\nhost: echo\r\n\r\n")
        await until(lambda: app.received, "the request")
    await asyncio.wait_for(gone.wait(), 5)
    assert (await mesh.log_line("a", path="/gone"))["flags"] == "DC"


# ---------------------------------------------------------------- passive health


async def test_an_endpoint_that_fails_is_ejected_and_stays_out_over_a_new_snapshot(
    mesh: Mesh, app: App, other: App
) -> None:
    app.script = fail
    service = Service(
        "echo", {REMOTE: app.port, LOCAL: other.port}, cluster={"balancer": "round_robin",
        "outlier": Outlier(consecutive_5xx=3)}
    )  # fmt: skip
    await mesh.serve(service)
    async with connect(mesh.port()) as connection:
        statuses = [(await connection.request()).status for _ in range(20)]
        assert statuses.count(500) == 3
        await mesh.serve(service)
        assert [(await connection.request()).status for _ in range(10)] == [200] * 10
    ejection = (await until(lambda: mesh.planes["a"].observations().ejections, "an ejection"))[0]
    assert (ejection.cluster, ejection.endpoint, ejection.node) == (
        "echo.default.mesh:80",
        "b/echo.default.mesh:80",
        "b",
    )
    assert 0 < ejection.remaining_s <= 30
    assert ejection.count == 1


async def test_an_ejected_endpoint_returns_after_its_time(mesh: Mesh, app: App, other: App) -> None:
    app.script = fail
    await mesh.serve(
        Service(
            "echo", {REMOTE: app.port, LOCAL: other.port},
            cluster={"balancer": "round_robin", "outlier": Outlier(consecutive_5xx=1, base_ejection_time_s=0.5)},
        )
    )  # fmt: skip
    assert 500 in [(await mesh.call()).status for _ in range(2)]
    app.script = None
    assert {(await mesh.call()).body for _ in range(5)} == {b"other"}
    async with connect(mesh.port()) as connection:
        deadline = asyncio.get_running_loop().time() + 10
        while (await connection.request()).body != b"app":
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)


async def test_connect_failures_eject_too(mesh: Mesh, app: App, reserve: Callable[[], int]) -> None:
    await mesh.serve(
        Service(
            "echo", {REMOTE: app.port}, endpoints=(endpoint("dead", reserve()),),
            cluster={"balancer": "round_robin", "outlier": Outlier(consecutive_5xx=2)},
        )
    )  # fmt: skip
    for _ in range(8):
        assert (await mesh.call()).status == 200
    ejections = await until(lambda: mesh.planes["a"].observations().ejections, "an ejection")
    assert [ejection.node for ejection in ejections] == ["dead"]
