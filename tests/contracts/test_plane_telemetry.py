"""What a data plane tells of its requests: series that count each once a side, and lines that cannot be forged."""

import asyncio

import pytest

from .application import App
from .certificates import spiffe
from .client import connect
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@BOTH
async def test_both_sides_count_a_request_once(mesh: Mesh, app: App, where: str) -> None:
    name = f"counted-{where}"  # a name of its own: reports of earlier tests may still be under way
    await mesh.serve(Service(name, {where: app.port}))
    async with connect(mesh.port()) as connection:
        for _ in range(3):
            await connection.request("POST", body=b"12345", host=name)
    counts = {"source": 0, "destination": 0}
    async with asyncio.timeout(10):
        while counts != {"source": 3, "destination": 3}:
            for plane in mesh.planes.values():
                for series, delta in plane.observations().series.items():
                    if series.destination_service != name:
                        continue
                    counts[series.reporter] += delta.requests
                    assert (series.source_service, series.source_namespace) == ("web", "default")
                    assert series.source_principal == spiffe("web")
                    assert series.destination_namespace == "default"
                    assert series.destination_principal == spiffe(name)
                    assert (series.code, series.flags, series.protocol) == (200, "-", "http")
                    assert series.security == ("none" if where == "a" else "mutual_tls")
                    assert delta.request_bytes == 5 * delta.requests
                    assert delta.response_bytes == 3 * delta.requests
                    assert sum(delta.buckets) == delta.requests
                    assert delta.duration_sum_ms > 0
            assert max(counts.values()) <= 3
            await asyncio.sleep(0.02)


async def test_a_log_line_says_all_there_is_to_say_and_cannot_be_forged(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    await mesh.call(method="POST", path='/log?q="},{"', headers={"x-request-id": 'a"b\\\x80'}, body=b"12")
    line = await mesh.log_line("a", path='/log?q="},{"')
    assert line["time"].endswith("Z")
    assert line["duration_ms"] > 0
    assert (line["reporter"], line["method"], line["protocol"], line["code"], line["flags"]) == (
        "source", "POST", "HTTP/1.1", 200, "-",
    )  # fmt: skip
    assert (line["bytes_in"], line["bytes_out"]) == (2, 3)
    assert (line["source"], line["destination"]) == (spiffe("web"), "echo.default.mesh:80")
    assert line["upstream"] == f"127.0.0.1:{mesh.port('b/in')}"
    assert line["request_id"] == 'a"b\\\x80'
    inside = await mesh.log_line("b", request_id='a"b\\\x80')
    assert (inside["reporter"], inside["trace_id"]) == ("destination", line["trace_id"])
    assert inside["upstream"] == f"127.0.0.1:{app.port}"


async def test_the_access_log_can_be_switched_off(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}), access_log=False)
    await mesh.call(path="/quiet")
    await mesh.serve(Service("echo", {"b": app.port}))
    await mesh.call(path="/loud")
    await mesh.log_line("a", path="/loud")
    assert "/quiet" not in mesh.logs["a"].read_text()
