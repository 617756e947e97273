"""h2spec (summerwind, 2.2.1, --strict): its list of what RFC 7540 and RFC 7541 ask of a server.

Against an upstream port one case is known to fail, and has to (`KNOWN`): the port speaks HTTP/1.1 too, so that what
does not begin as HTTP/2 does is a request in HTTP/1.1 that is none, and is told so in its own language. RFC 9113 (3.4)
lets an endpoint leave out GOAWAY there, "since an invalid preface indicates that the peer is not using HTTP/2".

Between hosts the listener says that it takes frames of 64 KiB. There too the tool's "large" HEADERS frame has 17,579
bytes, a little more than the least that anybody must take, so it is none that is too large (`WITHIN`). Its DATA frame
is as long as was announced and a byte more, and is refused.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from trust.bundle import TrustBundle
from trust.tls import Caller

from .application import App
from .certificates import TRUST_DOMAIN, spiffe
from .tools import tool
from .twohosts import Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

CASES = 146
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # what XML has no room for (2.2 of XML 1.0)
KNOWN = {"http2/3.5: Sends invalid connection preface"}
WITHIN = {"http2/4.2: Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE"}


@asynccontextmanager
async def stunnel(mesh: Mesh) -> AsyncIterator[int]:
    """A plain port in front of the inbound listener of "b", for h2spec shows no certificate."""
    bundle = TrustBundle.from_pem(TRUST_DOMAIN, mesh.root.bundle_pem)
    context = Caller(certificate=mesh.certificate("web"), bundle=bundle, alpn=("h2",)).expecting(
        spiffe("echo")
    )

    open_now: set[asyncio.StreamWriter] = set()
    serving: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass  # as good as an end: the tool goes away in the middle of answers
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        there = await asyncio.open_connection(
            "127.0.0.1", mesh.port("b/in"), ssl=context, server_hostname="echo.default.mesh"
        )
        open_now.update((writer, there[1]))
        await asyncio.gather(pass_on(reader, there[1]), pass_on(there[0], writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield int(server.sockets[0].getsockname()[1])
    for writer in open_now:
        writer.transport.abort()
    await asyncio.gather(*serving)


async def failures(port: int, report: Path) -> set[str]:
    process = await asyncio.create_subprocess_exec(
        tool("h2spec"), "-S", "-p", str(port), "-P", "/p", "-j", str(report), "-o", "5",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await asyncio.wait_for(process.wait(), 100)
    text = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", report.read_text())  # it shows frames as they are
    cases = ElementTree.fromstring(text).findall(".//testcase")
    assert len(cases) == CASES
    return {
        f"{case.get('package')}: {case.get('classname')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }


async def test_h2spec_by_prior_knowledge(mesh: Mesh, app: App, tmp_path: Path) -> None:
    await mesh.serve(Service("echo", {"a": app.port}), upstreams=("echo",))
    assert await failures(mesh.port("a/echo"), tmp_path / "report.xml") == KNOWN


async def test_h2spec_by_alpn(mesh: Mesh, app: App, tmp_path: Path) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    async with stunnel(mesh) as port:
        assert await failures(port, tmp_path / "report.xml") == WITHIN
