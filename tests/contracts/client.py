"""A caller that speaks HTTP/1.1 one byte at a time, if need be."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .patience import TIMEOUT_S

LISTENING = "0A"  # the state, in /proc/net/tcp


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


async def read_chunked(reader: asyncio.StreamReader) -> tuple[bytes, list[tuple[str, str]]]:
    """A chunked body, and its trailers."""
    body = b""
    while size := int(await asyncio.wait_for(reader.readuntil(b"\r\n"), TIMEOUT_S), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    trailers = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line[:-2].decode().partition(": ")
        trailers.append((name, value))
    return body, trailers


class Connection:
    """One client connection, one byte at a time if need be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_head(self) -> tuple[int, list[tuple[str, str]]]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), TIMEOUT_S)
        lines = raw[:-4].decode("latin-1").split("\r\n")
        assert lines[0].startswith("HTTP/1.1 "), lines[0]
        pairs = [line.split(": ", 1) if ": " in line else [line.rstrip(":"), ""] for line in lines[1:]]
        return int(lines[0].split(" ")[1]), [(name, value) for name, value in pairs]

    async def reply(self, *, to_head: bool = False) -> Reply:
        informational: list[int] = []
        while True:
            status, headers = await self.read_head()
            if status >= 200 or status == 101:
                break
            informational.append(status)
        reply = Reply(status, headers, b"", informational=informational)
        if to_head or status in (101, 204, 304):
            return reply
        length = reply.header("content-length")
        if reply.header("transfer-encoding") == "chunked":
            reply.body, reply.trailers = await read_chunked(self.reader)
        elif length is not None:
            reply.body = await asyncio.wait_for(self.reader.readexactly(int(length)), TIMEOUT_S)
        else:
            reply.body = await asyncio.wait_for(self.reader.read(), TIMEOUT_S)
        return reply

    async def request(
        self, method: str = "GET", path: str = "/", headers: dict[str, str] | None = None, body: bytes = b"",
        host: str = "echo",
    ) -> Reply:  # fmt: skip
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"content-length: {len(body)}")
        await self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return await self.reply(to_head=method == "HEAD")

    async def at_end(self) -> bool:
        """Whether the other side closes, with nothing more to read."""
        try:
            return await asyncio.wait_for(self.reader.read(1), TIMEOUT_S) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, OSError):
            pass  # the other side was first


@asynccontextmanager
async def connect(port: int, **options: Any) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20, **options)
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        await connection.close()


async def call(port: int, **request: Any) -> Reply:
    """One request on a connection of its own."""
    async with connect(port) as connection:
        return await connection.request(**request)


def connections_of(pid: int, port: int) -> int:
    """How many connections taken on `port` a process holds (IPv4)."""
    sockets = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            sockets.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(
        row[3] != LISTENING and int(row[1].partition(":")[2], 16) == port and f"socket:[{row[9]}]" in sockets
        for row in rows
    )
