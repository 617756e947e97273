"""How much one destination is asked at a time: requests under way, connections, and who waits for one."""

import asyncio
from typing import Any

import pytest

from proxy.snapshot import CircuitBreaker, HeaderEdit, Limits

from .application import App, answer
from .client import Reply, connect
from .patience import until
from .test_plane_request_path import TO_APP, prefix, rule
from .twohosts import LOCAL, REMOTE, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_beyond_the_breaker_is_503_uo(mesh: Mesh, app: App) -> None:
    release = held_back(app)
    await mesh.serve(Service("echo", {REMOTE: app.port}, cluster={"breaker": CircuitBreaker(requests_max=2)}))
    busy = [asyncio.ensure_future(mesh.call()) for _ in range(2)]
    await until(lambda: len(app.received) == 2, "two requests under way")
    assert (await mesh.call(path="/uo")).status == 503
    release.set()
    assert [(await task).body for task in busy] == [b"done"] * 2
    assert (await mesh.call()).body == b"done"
    assert (await mesh.log_line("a", path="/uo"))["flags"] == "UO"


async def test_connections_are_limited_and_requests_wait_for_one(mesh: Mesh, app: App) -> None:
    gate = asyncio.Semaphore(0)

    async def wait(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await gate.acquire()
        writer.write(answer(body=b"done"))

    app.script = wait
    breaker = CircuitBreaker(connections_max=1, pending_max=2)
    await mesh.serve(Service("echo", {LOCAL: app.port}, cluster={"breaker": breaker}))
    await mesh.serve(Service("echo", {REMOTE: app.port}, cluster={"breaker": breaker}))
    alone = {"connection": "upgrade", "upgrade": "websocket"}  # which wants a connection to itself
    tasks = [asyncio.ensure_future(mesh.call(headers=alone))]
    await until(lambda: app.received, "one request under way")
    tasks += [asyncio.ensure_future(mesh.call(headers=alone)) for _ in range(4)]
    refused = await first_done(tasks, 2)
    assert [reply.status for reply in refused] == [503, 503]
    assert all(b"overflow" in reply.body for reply in refused)
    for _ in range(3):
        gate.release()
    assert sorted([(await task).status for task in tasks]) == [200, 200, 200, 503, 503]
    assert app.connections == 1


async def test_requests_share_the_connections_there_may_be(mesh: Mesh, app: App) -> None:
    release = held_back(app)
    breaker = CircuitBreaker(connections_max=1)
    await mesh.serve(Service("echo", {REMOTE: app.port}, cluster={"breaker": breaker}))
    tasks = [asyncio.ensure_future(mesh.call()) for _ in range(20)]
    await until(lambda: len(app.received) == 20, "all requests under way")
    release.set()
    assert [(await task).body for task in tasks] == [b"done"] * 20


async def test_a_head_as_large_as_is_taken_does_not_end_the_connection_others_share(
    mesh: Mesh, app: App
) -> None:
    release = held_back(app, path="/waits")
    limits = Limits(header_bytes_max=8192, headers_max=100)
    await mesh.serve(
        Service("echo", {REMOTE: app.port}, cluster={"breaker": CircuitBreaker(connections_max=1)}),
        limits=limits,
    )
    waiting = asyncio.ensure_future(mesh.call(path="/waits"))
    await until(lambda: app.received, "one request under way")
    many = {f"x-{number:03}": "y" * 76 for number in range(90)}  # in HTTP/2 32 bytes are counted for each
    assert (await mesh.call(headers=many)).status == 200
    release.set()
    assert (await waiting).body == b"done"


async def test_a_head_that_grows_too_large_on_its_way_is_refused_before_it_ends_the_connection_others_share(
    mesh: Mesh, app: App
) -> None:
    """Each `{` of a path goes on as `%7B`: what the caller's side takes may be more than the other host does."""
    release = held_back(app, path="/waits")
    await mesh.serve(Service("echo", {REMOTE: app.port}))
    waiting = asyncio.ensure_future(mesh.call(path="/waits"))
    await until(lambda: app.received, "one request under way")
    async with connect(mesh.port()) as connection:
        statuses = [
            (await connection.request(path="/" + "{" * 20_000 + "?" + "q" * more)).status
            for more in (0, *range(20_500, 22_000, 100), 40_000)
        ]
    assert statuses == sorted(statuses)
    assert set(statuses) == {200, 431}
    release.set()
    assert (await waiting).body == b"done"
    assert (await mesh.log_line("a", code=431))["flags"] == "DPE"


async def test_a_route_whose_filters_write_more_than_a_head_holds_costs_its_own_requests(
    mesh: Mesh, app: App
) -> None:
    release = held_back(app, path="/waits")
    large = tuple((f"x-{number}", "v" * 4096) for number in range(16))
    filtered = rule(
        "large", prefix("/large"), backends=TO_APP, request_headers=HeaderEdit(set=large, add=large)
    )
    await mesh.serve(
        Service(
            "echo", {REMOTE: app.port},
            destination={"rules": (filtered, rule("rest", backends=TO_APP)), "routed": True},
        )
    )  # fmt: skip
    waiting = asyncio.ensure_future(mesh.call(path="/waits"))
    await until(lambda: app.received, "one request under way")
    assert (await mesh.call(path="/large", method="POST", body=b"x")).status == 431
    release.set()
    assert (await waiting).body == b"done"


@pytest.mark.parametrize("where", [LOCAL, REMOTE])
async def test_as_many_headers_pass_to_another_host_as_to_this_one(mesh: Mesh, app: App, where: str) -> None:
    count = Limits().headers_max - 2  # with `host`, and `content-length` of an answer

    async def serve(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(headers="".join(f"y-{number}: 1\r\n" for number in range(count))))

    app.script = serve
    await mesh.serve(Service("echo", {where: app.port}))
    reply = await mesh.call(headers={f"x-{number}": "1" for number in range(count)})
    assert reply.status == 200
    assert sum(name.startswith("y-") for name, _ in reply.headers) == count
    assert sum(name.startswith("x-") for name, _ in app.received[0].headers) >= count


def held_back(app: App, *, path: str | None = None) -> asyncio.Event:
    """The application answers a request for `path`, or any, once the event is set, and others at once."""
    release = asyncio.Event()

    async def serve(app: App, request: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        if path in {None, request.path}:
            await release.wait()
        writer.write(answer(body=b"done"))

    app.script = serve
    return release


async def first_done(tasks: list[asyncio.Task[Reply]], count: int) -> list[Reply]:
    await until(lambda: sum(task.done() for task in tasks) >= count, f"{count} answers")
    return [task.result() for task in tasks if task.done()]
