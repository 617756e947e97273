"""Clients of others, each through the mesh to an application on another host: hey, h2load, and a browser.

curl is in test_plane_http2.py (prior knowledge) and test_plane_alpn.py (ALPN).
"""

import asyncio
import re
from pathlib import Path

import pytest
import pytest_asyncio

from .application import App, Received, answer
from .patience import until
from .tools import tool
from .twohosts import Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def run(*command: str, timeout_s: float = 60.0) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode(errors="replace")


@pytest_asyncio.fixture(loop_scope="session")
async def port(mesh: Mesh, app: App) -> int:
    await mesh.serve(Service("echo", {"b": app.port}), upstreams=("echo",))
    return mesh.port("a/echo")


async def test_hey(app: App, port: int) -> None:
    out = await run(
        tool("hey"), "-n", "200", "-c", "10", "-m", "POST", "-d", "x" * 5000, f"http://127.0.0.1:{port}/p?q=1"
    )
    assert re.search(r"\[200\]\s+200 responses", out), out
    assert "Error distribution" not in out
    assert {(r.method, r.path, r.body) for r in app.received} == {("POST", "/p?q=1", b"x" * 5000)}
    assert len(app.received) == 200


@pytest.mark.parametrize("version", ["http/1.1", "h2c"])
async def test_h2load(app: App, port: int, version: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"y" * 100_000)
    out = await run(
        tool("h2load"), "-p", version, "-n", "100", "-c", "4", "-m", "1" if version == "http/1.1" else "10",
        "-d", str(tmp_path / "body"), f"http://127.0.0.1:{port}/p",
    )  # fmt: skip
    assert "100 succeeded, 0 failed, 0 errored, 0 timeout" in out, out
    assert {len(r.body) for r in app.received} == {100_000}
    assert len(app.received) == 100


PAGE = b"""<!doctype html><link rel="stylesheet" href="/s.css"><script src="/s.js"></script><body>
<script>fetch("/echo", {method: "POST", body: "hello".repeat(20000)}).then(r => r.text()).then(t => {
  document.title = "got " + t; fetch("/told?" + encodeURIComponent(document.title))
})</script>"""


@pytest.mark.browser
async def test_a_browser(mesh: Mesh, app: App, port: int, tmp_path: Path) -> None:
    """A page, what it refers to, a POST by its script, all over connections kept alive."""

    async def script(
        _: App, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        kinds = {"/": "text/html", "/s.css": "text/css", "/s.js": "text/javascript", "/echo": "text/plain"}
        body = {"/": PAGE, "/echo": b"%d" % len(request.body)}.get(request.path, b"")
        writer.write(answer(200, body, f"content-type: {kinds.get(request.path, 'text/plain')}\r\n"))

    app.script = script
    chromium = asyncio.create_task(
        run(
            tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            f"--user-data-dir={tmp_path}", "--virtual-time-budget=10000", "--dump-dom", f"http://127.0.0.1:{port}/",
        )
    )  # fmt: skip
    told = "/told?" + "got%20100000"
    await until(lambda: any(r.path == told for r in app.received), "the page's script tells", 50)
    assert "got 100000" in await chromium
    assert {"/", "/s.css", "/s.js", "/echo", told} <= {r.path for r in app.received}
