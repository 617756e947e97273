"""What llhttp, Node's parser, knows to be no message: its lists of invalid requests and responses, as facts about us.

Each fact is one of test/request/{invalid,content-length,transfer-encoding}.md and test/response/invalid.md of
nodejs/llhttp in its strict reading, written out anew with every line end spelled, since line ends are what most of them
are about. A request among them is answered with an error and the end, whichever listener it came to, and of it nothing
reaches the application; a response among them is a 502.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from .application import App, Received
from .client import Connection, connect
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = b"Host: echo\r\n"
CHUNKED = b"PUT /url HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: chunked\r\n"
EVIL = b"GET /evil HTTP/1.1\r\nHost: echo\r\n\r\n"
REQUESTS = {
    # test/request/invalid.md
    "ICE and GET": b"GET /music/sweet/music ICE/1.0\r\nHost: echo\r\n\r\n",
    "ICE, but not really": b"GET /music/sweet/music IHTTP/1.0\r\nHost: echo\r\n\r\n",
    "RTSP and PUT": b"PUT /music/sweet/music RTSP/1.0\r\nHost: echo\r\n\r\n",
    "HTTP and ANNOUNCE": b"ANNOUNCE /music/sweet/music HTTP/1.0\r\nHost: echo\r\n\r\n",
    "fields separated by CR": b"GET / HTTP/1.1\r\nHost: echo\r\nFoo: 1\rBar: 2\r\n\r\n",
    "fields separated by LF":
        b"POST / HTTP/1.1\r\nHost: echo\r\nx:x\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
    "fields ended by CR and another byte":
        b"GET / HTTP/1.1\r\nConnection: close\r\nHost: echo\r\n\rZGET /evil: HTTP/1.1\r\nHost: echo\r\n\r\n",
    "an empty field ended by CR":
        b"POST / HTTP/1.1\r\nHost: echo\r\nx:\rTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
    "an empty field ended by LF":
        b"POST / HTTP/1.1\r\nHost: echo\r\nx:\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
    "an at sign in a name": b"GET / HTTP/1.1\r\nHost: echo\r\nFo@: Failure\r\n\r\n",
    "a control in a name": b"GET / HTTP/1.1\r\nHost: echo\r\nFoo\x01test: Bar\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: echo\r\n: Bar\r\n\r\n",
    "a method that is none": b"MKCOLA / HTTP/1.1\r\nHost: echo\r\n\r\n",
    "a folded name": b"GET / HTTP/1.1\r\nHost: echo\r\nname\r\n : value\r\n\r\n",
    "a corrupted Connection": b"GET / HTTP/1.1\r\nHost: echo\r\nConnection\r\x1b\x35\xd5eep-Alive\r\nAccept: a\r\n\r\n",
    "a corrupted name": b"GET / HTTP/1.1\r\nHost: echo\r\nX-Some-Header\r\x1b\x35\xd5eep-Alive\r\nAccept: a\r\n\r\n",
    "a missing CR between fields": b"GET / HTTP/1.1\r\nHost: echo\r\nDummy: x\nContent-Length: 23\r\n\r\n" + EVIL,
    "a version that is none": b"GET / HTTP/5.6\r\nHost: echo\r\n\r\n",
    "a blank after the start line": b"GET / HTTP/1.1\r\n Host: echo\r\n\r\n",
    "only LFs": b"POST / HTTP/1.1\nHost: echo\nTransfer-Encoding: chunked\n\n1\nA\n0\n\n",
    "a blank before a field": b"POST /hello HTTP/1.1\r\nHost: echo\r\nFoo: bar\r\n Content-Length: 38\r\n\r\n" + EVIL,
    # test/request/content-length.md
    "a length that overflows": b"PUT /url HTTP/1.1\r\nHost: echo\r\nContent-Length: 1000000000000000000000\r\n\r\n",
    "two lengths": b"PUT /url HTTP/1.1\r\nHost: echo\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + EVIL,
    "a length beside identity":
        b"PUT /url HTTP/1.1\r\nHost: echo\r\nContent-Length: 1\r\nTransfer-Encoding: identity\r\n\r\n" + EVIL,
    "a blank behind Content-Length":
        b"PUT /url HTTP/1.1\r\nHost: echo\r\nConnection: upgrade\r\nContent-Length : 4\r\nUpgrade: ws\r\n\r\nabcdefgh",
    "a blank in a length": b"POST / HTTP/1.1\r\nHost: echo\r\nContent-Length: 4 2\r\n\r\n" + EVIL,
    "a blank in a longer length": b"POST / HTTP/1.1\r\nHost: echo\r\nContent-Length: 13 37\r\n\r\n" + EVIL,
    "an empty length": b"POST / HTTP/1.1\r\nHost: echo\r\nContent-Length:\r\n\r\n" + EVIL,
    "CR for the dash": b"PUT /url HTTP/1.1\r\nHost: echo\r\nContent\rLength: 003\r\n\r\nabc",
    "CR instead of the empty line": b"PUT /url HTTP/1.1\r\nHost: echo\r\nContent-Length: 3\r\n\rabc\r\n\r\n",
    # test/request/transfer-encoding.md
    "no semicolon before an extension": CHUNKED + b"\r\n2 erfrferferf\r\naa\r\n0 rrrr\r\n\r\n",
    "no extension after a semicolon": CHUNKED + b"\r\n2;\r\naa\r\n0\r\n\r\n",
    "an extension's quotes that do not close": CHUNKED + b'\r\n5;a="abc";b="def; ghi\r\nhello\r\n0\r\n\r\n',
    "pigeons": b"PUT /url HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: pigeons\r\n\r\n",
    "a coding and a length":
        b"POST /p HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nWorld",
    "empty codings and a length":
        b"POST / HTTP/1.1\r\nHost: echo\r\nContent-Length: 10\r\n" + b"Transfer-Encoding:\r\n" * 3 + b"\r\n2",
    "chunked before another coding":
        b"POST /p HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: chunked, deflate\r\n\r\nWorld",
    "chunked, and another coding":
        b"POST /p HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: deflate\r\n\r\nWorld",
    "chunkedchunked":
        b"POST /p HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: chunkedchunked\r\n\r\n5\r\nWorld\r\n0\r\n\r\n",
    "no last chunk": CHUNKED + b"\r\n3\r\nfoo\r\n\r\n",
    "LF in a chunk's size": CHUNKED + b"\r\n3 \n  \r\nfoo\r\n",
    "folding after chunked": CHUNKED + b"  abc\r\n\r\n5\r\nWorld\r\n0\r\n\r\n",
    "CR CR after a chunk's size": CHUNKED + b"\r\n5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n" + EVIL,
    "a chunk's end without CRLF": CHUNKED + b"\r\n5\r\nABCDE0\r\n\r\n",
    "a blank after a chunk's size": CHUNKED + b"\r\na \r\n0123456789\r\n0\r\n\r\n",
}  # fmt: skip
OK = b"Content-Length: 0\r\n\r\n"
RESPONSES = {
    # test/response/invalid.md
    "half a protocol": b"HTP/1.1 200 OK\r\n" + OK,
    "a digit too many in the major version": b"HTTP/01.1 200 OK\r\n" + OK,
    "another": b"HTTP/11.1 200 OK\r\n" + OK,
    "a digit too many in the minor version": b"HTTP/1.01 200 OK\r\n" + OK,
    "a tab after the version": b"HTTP/1.1\t200 OK\r\n" + OK,
    "CR in front": b"\rHTTP/1.1\t200 OK\r\n" + OK,
    "fields separated by CR": b"HTTP/1.1 200 OK\r\nFoo: 1\rBar: 2\r\n" + OK,
    "CR after the status line": b"HTTP/1.1 200 OK\r" + OK,
    "CR CR after the status line": b"HTTP/1.1 200 OK\r\rContent-Length: 4\r\n\r\nEvil",
    "a version that is none": b"HTTP/5.6 200 OK\r\n" + OK,
    "a blank after the status line": b"HTTP/1.1 200 OK\r\n Host: foo\r\n" + OK,
    "two blanks before the status": b"HTTP/1.1  200 OK\r\n" + OK,
    "a status of one digit": b"HTTP/1.1 2 OK\r\n" + OK,
    "only LFs, no body": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
    "only LFs": b"HTTP/1.1 200 OK\nFoo: abc\n\nBODY\n\r\n\r\n",
}


@pytest.mark.parametrize("listener", ["outbound", "inbound"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_what_is_no_request_to_llhttp_is_none_here(
    mesh: Mesh, app: App, name: str, listener: str
) -> None:
    def told() -> Any:
        return mesh.inbound("echo") if listener == "inbound" else connect(mesh.port())

    await mesh.serve(Service("echo", {"b": app.port}))
    async with told() as connection:
        await connection.send(REQUESTS[name])
        reply = await connection.reply()
        assert (reply.status, reply.header("server"), reply.header("connection")) == (
            400,
            "gossamer",
            "close",
        )
        assert await connection.at_end()
    assert app.received == []


def says(data: bytes) -> Callable[..., Any]:
    async def script(_: App, __: Received, ___: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return script


@BOTH
@pytest.mark.parametrize("name", RESPONSES)
async def test_what_is_no_response_to_llhttp_is_a_502_here(
    mesh: Mesh, app: App, name: str, where: str
) -> None:
    app.script = says(RESPONSES[name])
    await mesh.serve(Service("echo", {where: app.port}))
    connection: Connection
    async with connect(mesh.port()) as connection:
        assert (await connection.request()).status == 502
        app.script = None
        assert (await connection.request()).status == 200
