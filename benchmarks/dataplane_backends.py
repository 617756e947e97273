"""What stands behind the proxies: nginx for requests and gRPC, and two small programs for bytes.

    python -m benchmarks.dataplane_backends source PORT   sends zeros to whoever connects, as fast as it can
    python -m benchmarks.dataplane_backends sink PORT     answers a request with the SHA-256 of its body

nginx answers `/` with a line of text, `/1m` with 1 MiB, `/big` with the big file, and every gRPC call with one message
of five bytes: a static file, followed by `grpc-status: 0` as a trailer.
"""

import asyncio
import hashlib
import os
import socket
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, cast

import httptools
import uvloop

from benchmarks.dataplane_systems import Backends, free_ports, python, spawn
from benchmarks.dataplane_tools import program

MIB: Final = 1024 * 1024
GRPC_MESSAGE: Final = b"\0\0\0\0\x05hello"
_ZEROS: Final = bytes(MIB)

_NGINX: Final = """
daemon off; master_process off; worker_processes 1; pid {folder}/backend.pid; error_log {folder}/backend.error;
worker_rlimit_nofile 20000;
events {{ worker_connections 15000; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on; sendfile on; sendfile_max_chunk 2m;
  open_file_cache max=16; http2_max_requests 1000000000; http2_recv_timeout 300s; keepalive_timeout 300s;
  client_max_body_size 0;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{http} backlog=4096; root {folder}/files;
    location = / {{ return 200 "hello from the backend\\n"; }}
  }}
  server {{
    listen 127.0.0.1:{grpc} http2 backlog=4096; root {folder}/files; default_type application/grpc;
    error_page 405 =200 /grpc; add_trailer grpc-status 0;
    location / {{ try_files /grpc =404; }}
  }}
}}
"""


async def start_backends(folder: Path, stack: AsyncExitStack, *, big_bytes: int = 0) -> Backends:
    """`big_bytes` of random data are `/big`. Returns when all of them listen."""
    files = folder / "files"
    files.mkdir()
    (files / "1m").write_bytes(os.urandom(MIB))
    (files / "grpc").write_bytes(GRPC_MESSAGE)
    with (files / "big").open("wb") as big:
        for _ in range(big_bytes // MIB):
            big.write(os.urandom(MIB))
    http, grpc, tcp, sink = free_ports(4)
    config = folder / "backend.conf"
    config.write_text(_NGINX.format(folder=folder, http=http, grpc=grpc))
    await spawn(
        stack, folder / "backend.log", [http, grpc], program("nginx"), "-c", str(config), "-p", str(folder)
    )
    module = "dataplane_backends"
    await spawn(stack, folder / "source.log", [tcp], *python(module, "source", str(tcp)))
    await spawn(stack, folder / "sink.log", [sink], *python(module, "sink", str(sink)))
    return Backends(http=http, grpc=grpc, tcp=tcp, sink=sink)


# ---------------------------------------------------------------- programs


def _pour(connection: socket.socket) -> None:
    with connection:
        try:
            while True:
                connection.sendall(_ZEROS)
        except OSError:
            pass  # the other side has had enough


def serve_source(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=4096) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_pour, args=(connection,), daemon=True).start()


class _Sink(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._digest = hashlib.sha256()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, by duck typing

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._digest.update(body)

    def on_message_complete(self) -> None:
        told = self._digest.hexdigest().encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
        self._digest = hashlib.sha256()


async def serve_sink(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "source":
        serve_source(int(sys.argv[2]))
    else:
        uvloop.run(serve_sink(int(sys.argv[2])))
