"""Clients that the tools of others do not offer, each a process of its own that prints one line of JSON.

    python -m benchmarks.dataplane_clients pace PORT HOST RATE SECONDS CONNECTIONS
    python -m benchmarks.dataplane_clients drain PORT SECONDS CONNECTIONS
    python -m benchmarks.dataplane_clients shake PORT SNI FOLDER SECONDS
    python -m benchmarks.dataplane_clients idle PORT HOST FOLDER CONNECTIONS   (waits for its standard input to end)

`pace` is an open loop, as wrk2: request i is due at i / rate whatever became of those before, and its latency counts
from then, also while it waits for one of the connections. So a proxy that pauses pays for every request that fell
due in the meantime (no coordinated omission).
"""

import gc
import json
import select
import socket
import ssl
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 256 * 1024
_GRACE_S: Final = 5.0
_TAIL: Final = b"backend\n"  # of what dataplane_backends.py answers


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(host: str) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode()


def read_answer(connection: socket.socket) -> None:
    """Raises ConnectionError for anything but a 200 with a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(head.split(b"\r\n")[0].decode("latin-1"))
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    length = next(int(value) for name, _, value in lines if name == b"content-length")
    while len(body) < length:
        body += _some(connection)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed")
    return data


# ---------------------------------------------------------------- pace


def pace(port: int, host: str, rate: float, seconds: float, connections: int) -> dict[str, float]:
    """Latencies at a fixed rate, in seconds. Answers are small, and known by how they end."""
    wanted = request(host)
    free = deque(connect(port) for _ in range(connections))
    for each in free:  # so that the path is warm
        each.sendall(wanted)
        read_answer(each)
    due_of: dict[socket.socket, float] = {}
    latencies: list[float] = []
    waiting: deque[float] = deque()
    total = int(rate * seconds)
    issued = 0
    gc.disable()
    begun = time.perf_counter() + 0.05
    end = begun + seconds + _GRACE_S
    while len(latencies) < total:
        now = time.perf_counter()
        if now > end:
            break
        while issued < total and begun + issued / rate <= now:
            waiting.append(begun + issued / rate)
            issued += 1
        while waiting and free:
            connection = free.popleft()
            due_of[connection] = waiting.popleft()
            connection.send(wanted)
        until = begun + issued / rate if issued < total else end
        ready, _, _ = select.select(due_of, (), (), max(0.0, until - time.perf_counter()))
        for connection in ready:
            if _some(connection).endswith(_TAIL):
                latencies.append(time.perf_counter() - due_of.pop(connection))
                free.append(connection)
    for connection in (*free, *due_of):
        connection.close()
    latencies.sort()
    done = len(latencies)
    if not done:
        raise ConnectionError("not one answer")
    return {
        "offered": rate,
        "unanswered": total - done,
        "p50_s": latencies[done // 2],
        "p99_s": latencies[min(done - 1, done * 99 // 100)],
        "p999_s": latencies[min(done - 1, done * 999 // 1000)],
        "max_s": latencies[-1],
    }


# ---------------------------------------------------------------- drain


def drain(port: int, seconds: float, connections: int) -> dict[str, float]:
    """Bytes that arrive, read and dropped; counted from the first byte of each connection on."""
    counts = [0] * connections
    end = time.perf_counter() + seconds

    def read(number: int) -> None:
        buffer = bytearray(_READ_BYTES)
        with connect(port) as connection:
            while time.perf_counter() < end:
                taken = connection.recv_into(buffer)
                if not taken:
                    raise ConnectionError("closed")
                counts[number] += taken

    threads = [threading.Thread(target=read, args=(number,)) for number in range(connections)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"bytes": sum(counts), "seconds": time.perf_counter() - begun, "least": min(counts)}


# ---------------------------------------------------------------- TLS


def client_context(folder: Path, name: str = "web") -> ssl.SSLContext:
    """Shows `name`'s certificate and checks the chain: the names are Gossamer's business, not this client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(str(folder / "root.pem"))
    context.load_cert_chain(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    return context


def shake(port: int, sni: str, folder: Path, seconds: float) -> dict[str, float]:
    """New connections with full handshakes, each with one request, as fast as two threads can."""
    context = client_context(folder)
    counts = [0, 0]
    wanted = b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % sni.encode()
    end = time.perf_counter() + seconds

    def run(number: int) -> None:
        while time.perf_counter() < end:
            with connect(port) as plain, context.wrap_socket(plain, server_hostname=sni) as connection:
                connection.sendall(wanted)
                read_answer(connection)
            counts[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"connections": sum(counts), "seconds": time.perf_counter() - begun, "least": min(counts)}


def idle(port: int, host: str, folder: Path | None, connections: int) -> None:
    """Open connections, one request on each, and keep them; with `folder`, under TLS."""
    context = None if folder is None else client_context(folder)
    kept: list[socket.socket] = []
    for _ in range(connections):
        connection = connect(port)
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname=host)
        connection.sendall(request(host))
        read_answer(connection)
        kept.append(connection)
    print(json.dumps({"open": len(kept)}), flush=True)
    sys.stdin.read()


def main(arguments: list[str]) -> None:
    match arguments:
        case ["pace", port, host, rate, seconds, connections]:
            told = pace(int(port), host, float(rate), float(seconds), int(connections))
        case ["drain", port, seconds, connections]:
            told = drain(int(port), float(seconds), int(connections))
        case ["shake", port, sni, folder, seconds]:
            told = shake(int(port), sni, Path(folder), float(seconds))
        case ["idle", port, host, folder, connections]:
            idle(int(port), host, Path(folder) if folder != "-" else None, int(connections))
            return
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
