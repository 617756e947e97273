"""One measurement of one system on one path: figures, and the command that gave them.

Processor time is that of the proxies alone, user and system, from /proc. Requests that fail end the benchmark: a
proxy that refuses is a fast one.
"""

import asyncio
import hashlib
import json
import re
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.dataplane_backends import MIB
from benchmarks.dataplane_systems import ROOT, BenchmarkError, Entry, Running, cpu_s, memory_bytes, python
from benchmarks.dataplane_tools import program
from benchmarks.dataplane_varied import SHARED_FIELDS, write_paths, write_script

Figures = dict[str, float]
_SAMPLE_S: Final = 0.1
_CALLERS: Final = 8  # connections of gRPC calls
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How hard, and for how long. `rate`: of the fixed-rate row, per second."""

    seconds: int
    connections: int = 32
    rate: float = 0.0
    idle: int = 10_000


async def _run(command: tuple[str, ...]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        raw, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)}: {errors.decode()[-1000:]}{raw.decode()[-1000:]}")
    return raw.decode()


async def _charged(running: Running, entry: Entry, command: tuple[str, ...]) -> tuple[str, float]:
    (output,), used = await _charged_all(running, entry, [command])
    return output, used


async def _charged_all(
    running: Running, entry: Entry, commands: Sequence[tuple[str, ...]]
) -> tuple[list[str], float]:
    """The commands at once: what they say, and what the proxies spent."""
    pids = running.pids(entry)
    before = cpu_s(pids)
    outputs = await asyncio.gather(*map(_run, commands))
    return outputs, cpu_s(pids) - before


def _number(pattern: str, output: str) -> float:
    match = re.search(pattern, output, re.MULTILINE)
    if match is None:
        raise BenchmarkError(f"no {pattern!r} in:\n{output}")
    return float(match[1])


def _latency_s(output: str, percentile: int) -> float:
    match = re.search(rf"^\s*{percentile}%\s+([\d.]+)(us|ms|s)\s*$", output, re.MULTILINE)
    return float(match[1]) * _UNITS[match[2]] if match else float("nan")


async def requests(
    running: Running, path: str, load: Load, *, target: str = "/", options: tuple[str, ...] = ()
) -> Figures:
    """wrk, a closed loop: as many requests as the path takes. `options` are more of wrk's."""
    entry = running.entries[path]
    url = f"http://127.0.0.1:{entry.port}{target}"
    command = (
        program("wrk"), "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--latency",
        "-H", f"Host: {entry.host}", *options, url,
    )  # fmt: skip
    output, used = await _charged(running, entry, command)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", output)
    if failed is not None:
        raise BenchmarkError(f"requests failed on {running.name} {path}: {failed[0]}")
    count = _number(r"(\d+) requests in", output)
    if not count:
        raise BenchmarkError(f"not one request was answered by {running.name} {path} in {load.seconds} s")
    return {
        "rps": _number(r"Requests/sec:\s+([\d.]+)", output),
        "cpu_us": used / count * 1e6,
        "p50_us": _latency_s(output, 50) * 1e6,
        "p99_us": _latency_s(output, 99) * 1e6,
    }


async def varied_requests(running: Running, path: str, load: Load, folder: Path) -> Figures:
    """The same, each request with another query, `x-request-id` and `traceparent`. `folder` takes the script."""
    script = write_script(folder / "varied.lua")
    fields = [option for field in SHARED_FIELDS for option in ("-H", field)]
    return await requests(running, path, load, options=(*fields, "-s", str(script)))


async def megabytes(running: Running, path: str, load: Load) -> Figures:
    """1 MiB responses: what a core of the proxies carries, and what went through."""
    figures = await requests(running, path, load, target="/1m")
    return {"mb_per_core_s": MIB / figures["cpu_us"], "mb_s": figures["rps"] * MIB / 1e6}


async def at_rate(running: Running, path: str, load: Load) -> Figures:
    """An open loop at `load.rate`."""
    entry = running.entries[path]
    arguments = (str(entry.port), entry.host, str(load.rate), str(load.seconds), str(load.connections))
    output, used = await _charged(running, entry, python("dataplane_clients", "pace", *arguments))
    told = json.loads(output)
    if told["unanswered"]:
        raise BenchmarkError(f"{running.name}: {told['unanswered']} requests unanswered at {load.rate:.0f}/s")
    return {
        "p50_us": told["p50_s"] * 1e6,
        "p99_us": told["p99_s"] * 1e6,
        "p999_us": told["p999_s"] * 1e6,
        "cpu_us": used / (load.rate * load.seconds) * 1e6,
    }


async def calls(running: Running, path: str, load: Load, message: Path) -> Figures:
    """gRPC unary calls with `message` by h2load: eight connections, four streams each."""
    entry = running.entries[path]
    return await _called(running, path, load, [_h2load(entry, load, message, _CALLERS, _method(entry))])


async def varied_calls(running: Running, path: str, load: Load, message: Path, folder: Path) -> Figures:
    """The same, each call to another path; `folder` takes the lists of paths.

    An h2load gives all its connections the same paths at the same time, and a proxy that has just decided about one
    knows it when the others ask; so each connection has an h2load and a list of its own.
    """
    entry = running.entries[path]
    lists = [write_paths(folder / f"paths-{number}", _method(entry)) for number in range(_CALLERS)]
    commands = [_h2load(entry, load, message, 1, "-i", str(each)) for each in lists]
    return await _called(running, path, load, commands)


def _method(entry: Entry) -> str:
    return f"http://127.0.0.1:{entry.port}/t.Echo/Unary"


def _h2load(entry: Entry, load: Load, message: Path, connections: int, *asked: str) -> tuple[str, ...]:
    return (
        program("h2load"), f"-c{connections}", "-m4", "-t1", "-D", str(load.seconds), "-d", str(message),
        "-H", f":authority: {entry.host}", "-H", "content-type: application/grpc", "-H", "te: trailers", *asked,
    )  # fmt: skip


async def _called(running: Running, path: str, load: Load, commands: Sequence[tuple[str, ...]]) -> Figures:
    outputs, used = await _charged_all(running, running.entries[path], commands)
    for output in outputs:
        if _number(r"(\d+) failed", output) or not _number(r"(\d+) 2xx", output):
            raise BenchmarkError(f"calls failed on {running.name} {path}:\n{output}")
    count = sum(_number(r"(\d+) succeeded", output) for output in outputs)
    return {"rps": count / load.seconds, "cpu_us": used / count * 1e6}


async def stream(running: Running, path: str, load: Load) -> Figures:
    """Bytes of four TCP connections."""
    entry = running.entries[path]
    output, used = await _charged(
        running, entry, python("dataplane_clients", "drain", str(entry.port), str(load.seconds), "4")
    )
    told = json.loads(output)
    if not told["least"]:
        raise BenchmarkError(f"{running.name} {path}: a connection carried nothing")
    return {"mb_s": told["bytes"] / told["seconds"] / 1e6, "mb_per_core_s": told["bytes"] / used / 1e6}


async def handshakes(running: Running, path: str, load: Load, folder: Path) -> Figures:
    """New mTLS connections, each with one request."""
    entry = running.entries[path]
    output, used = await _charged(
        running,
        entry,
        python("dataplane_clients", "shake", str(entry.port), entry.host, str(folder), str(load.seconds)),
    )
    told = json.loads(output)
    return {"per_s": told["connections"] / told["seconds"], "cpu_us": used / told["connections"] * 1e6}


async def idle(running: Running, path: str, load: Load, folder: Path | None) -> Figures:
    """Memory that kept-alive connections take, each after one request."""
    entry = running.entries[path]
    pids = running.pids(entry)
    where = str(folder) if folder is not None else "-"

    async def kept(count: int) -> int:
        process = await asyncio.create_subprocess_exec(
            *python("dataplane_clients", "idle", str(entry.port), entry.host, where, str(count)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
            if not line:
                raise BenchmarkError(f"{running.name} {path}: {count} connections could not be opened")
            return memory_bytes(pids)
        finally:
            process.stdin.close()
            await process.wait()

    before = await kept(10)  # whatever the first ones bring with them
    after = await kept(load.idle)
    return {"kib_each": (after - before) / (load.idle - 10) / 1024}


async def big_body(running: Running, big: Path) -> Figures:
    """A large body down and up: is it the same, and how much more memory do the proxies take meanwhile?"""
    size = big.stat().st_size  # noqa: ASYNC240
    digest = await asyncio.to_thread(_digest, big)
    mtls, sink = running.entries["mtls"], running.entries["sink"]
    pids = running.pids(mtls)
    before = memory_bytes(pids)
    highest = before
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, memory_bytes(pids))
            await asyncio.sleep(_SAMPLE_S)

    watching = asyncio.create_task(watch())
    try:
        begun = asyncio.get_running_loop().time()
        down = await asyncio.to_thread(_download, mtls, big.name)
        halfway = asyncio.get_running_loop().time()
        up = await asyncio.to_thread(_upload, sink, big)
        ended = asyncio.get_running_loop().time()
    finally:
        done.set()
        await watching
    if digest not in (down, up) or down != up:
        raise BenchmarkError(f"{running.name}: a body changed on its way")
    return {
        "more_mib": (highest - before) / MIB,
        "down_mb_s": size / (halfway - begun) / 1e6,
        "up_mb_s": size / (ended - halfway) / 1e6,
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(entry: Entry, name: str) -> str:
    wanted = urllib.request.Request(f"http://127.0.0.1:{entry.port}/{name}", headers={"Host": entry.host})
    digest = hashlib.sha256()
    with urllib.request.urlopen(wanted, timeout=300) as answer:
        while data := answer.read(MIB):
            digest.update(data)
    return digest.hexdigest()


def _upload(entry: Entry, path: Path) -> str:
    with path.open("rb") as file:
        headers = {"Host": entry.host, "Content-Length": str(path.stat().st_size)}
        wanted = urllib.request.Request(
            f"http://127.0.0.1:{entry.port}/", data=file, headers=headers, method="POST"
        )
        with urllib.request.urlopen(wanted, timeout=300) as answer:
            return str(answer.read().decode())
