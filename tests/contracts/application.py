"""An application behind the mesh: what it got, and what it answers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .client import read_chunked


@dataclass
class Received:
    """A request as an application got it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


Script = Callable[["App", Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def raw_response(data: bytes, *, close: bool = False) -> Script:
    """A script that answers everything with these bytes."""

    async def script(
        app: "App", request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(data)
        if close:
            await writer.drain()
            writer.close()

    return script


class App:
    """An HTTP/1.1 application on a real socket. `script` answers each request; by default with the app's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.received: list[Received] = []
        self.connections = 0
        self.script: Script | None = None
        self.raw: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def start(self) -> "App":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        return self

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self.raw is not None:
                await self.raw(reader, writer)
                return
            while (request := await self._read(reader)) is not None:
                self.received.append(request)
                if self.script is not None:
                    await self.script(self, request, reader, writer)
                else:
                    writer.write(answer(body=self.name.encode()))
                await writer.drain()
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the mesh closed the connection
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Received | None:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        lines = raw[:-4].decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = [(name, value) for name, value in (line.split(": ", 1) for line in lines[1:])]
        request = Received(method, path, headers, b"", [])
        if request.header("transfer-encoding") == "chunked":
            request.body, request.trailers = await read_chunked(reader)
        elif (length := request.header("content-length")) and request.header("x-stream") is None:
            request.body = await reader.readexactly(int(length))
        return request

    def drop_connections(self) -> None:
        for writer in list(self._writers):
            writer.close()

    async def stop(self) -> None:
        self._server.close()
        self.drop_connections()
        await asyncio.sleep(0)
