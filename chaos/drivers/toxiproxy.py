"""The driver `toxiproxy`: real peers on loopback whose applications stand behind Shopify's Toxiproxy (2.x), so that TCP
itself misbehaves between a sidecar and its application: resets, silence, slow readers, slices, slow closes, delay, a
bandwidth, an end after so many bytes.

The server is the one at TOXIPROXY_URL, or `toxiproxy-server` on PATH, or is installed once with `go install` where Go
is present. One that was started here listens on a loopback port of the run's own and ends with it; on one that was
found running only the proxies of this run are made, and they are deleted.

Invariant: a proxy listens on the node's own loopback address; each toxic has the number of its fault and goes with it.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from chaos.drivers.deadman import MARK
from chaos.drivers.driver import DriverError, Lack, Progress
from chaos.drivers.real import ProcessDriver
from chaos.drivers.real_mesh import TcpFault
from chaos.experiment import Event, Experiment
from chaos.fault import Bandwidth, Delay
from chaos.journal import Journal

MODULE: Final = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
URL_VARIABLE: Final = "TOXIPROXY_URL"
CACHE: Final = Path.home() / ".cache" / "gossamer" / "toxiproxy-server"
STARTS_S_MAX: Final = 10.0
INSTALL_S_MAX: Final = 600.0
CALL_S_MAX: Final = 10.0
BEHIND: Final = 1000  # a proxy listens so many ports above its application


def toxic_of(fault: TcpFault) -> tuple[str, dict[str, int]]:
    """Type and attributes of the toxic for a fault (the project's README, "Toxics"). Times in ms, rates in KB/s."""
    if isinstance(fault, Delay):
        return "latency", {"latency": round(fault.delay * 1000), "jitter": round(fault.jitter * 1000)}
    if isinstance(fault, Bandwidth):
        return "bandwidth", {"rate": max(1, fault.bytes_per_s // 1000)}
    after_ms = round(fault.after * 1000)
    match fault.how:
        case "reset":
            return "reset_peer", {"timeout": after_ms}
        case "half-open":
            return "timeout", {"timeout": 0}
        case "slow-reader":
            return "bandwidth", {"rate": max(1, fault.size // 1000)}
        case "slicer":
            return "slicer", {"average_size": fault.size, "size_variation": fault.size // 2, "delay": 0}
        case "slow-close":
            return "slow_close", {"delay": after_ms or 1000}
        case "limit-data":
            return "limit_data", {"bytes": fault.size}


class Toxiproxy:
    """A server by its HTTP API. Calls block for CALL_S_MAX at most and raise DriverError."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._made: list[str] = []

    def version(self) -> str:
        return str(self._call("GET", "/version").get("version", ""))

    def front(self, name: str, listen: str, upstream: str) -> None:
        """Make a proxy."""
        self._call(
            "POST", "/proxies", {"name": name, "listen": listen, "upstream": upstream, "enabled": True}
        )
        self._made.append(name)

    def poison(self, proxy: str, toxic: str, kind: str, attributes: dict[str, int]) -> None:
        """Add a toxic to what the application answers."""
        body = {
            "name": toxic,
            "type": kind,
            "stream": "downstream",
            "toxicity": 1.0,
            "attributes": attributes,
        }
        self._call("POST", f"/proxies/{proxy}/toxics", body)

    def cure(self, proxy: str, toxic: str) -> None:
        self._call("DELETE", f"/proxies/{proxy}/toxics/{toxic}")

    def clear(self) -> None:
        """Delete the proxies that were made."""
        while self._made:
            self._call("DELETE", f"/proxies/{self._made.pop()}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json", "User-Agent": "gossamer-chaos"},
        )
        try:
            with urllib.request.urlopen(request, timeout=CALL_S_MAX) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            words = error.read(500).decode(errors="replace")
            raise DriverError(f"toxiproxy refused {method} {path}: {words.strip()}") from error
        except (OSError, ValueError) as error:
            raise DriverError(f"toxiproxy at {self._url} does not answer: {error}") from error
        answered = json.loads(text) if text.startswith(b"{") else {}
        return answered if isinstance(answered, dict) else {}


class Proxies:
    """The proxies of one run: one in front of each instance of a service."""

    def __init__(self, server: Toxiproxy, mark: str) -> None:
        self._server = server
        self._mark = mark
        self._of_node: dict[str, list[str]] = {}

    async def front(self, node: str, service: str, host: str, port: int) -> int:
        """Put a proxy in front of `host:port`; its own port."""
        name = f"{self._mark}-{node}-{service}"
        await asyncio.to_thread(self._server.front, name, f"{host}:{port + BEHIND}", f"{host}:{port}")
        self._of_node.setdefault(node, []).append(name)
        return port + BEHIND

    async def begin(self, number: int, fault: TcpFault, nodes: tuple[str, ...]) -> None:
        kind, attributes = toxic_of(fault)
        for name in self._fronts(nodes):
            await asyncio.to_thread(self._server.poison, name, f"fault-{number}", kind, attributes)

    async def end(self, number: int, nodes: tuple[str, ...]) -> None:
        for name in self._fronts(nodes):
            await asyncio.to_thread(self._server.cure, name, f"fault-{number}")

    def _fronts(self, nodes: tuple[str, ...]) -> list[str]:
        return [name for node in nodes for name in self._of_node.get(node, ())]


class ToxiproxyDriver(ProcessDriver):
    """See the module's theory."""

    name = "toxiproxy"

    def _lack(self, event: Event) -> str:
        return "" if isinstance(event.inject, TcpFault) else super()._lack(event)

    def _lacks_more(self, experiment: Experiment) -> tuple[Lack, ...]:
        found = list(super()._lacks_more(experiment))
        if not experiment.topology.services:
            found.append(
                Lack("topology.services", "toxiproxy stands between a sidecar and its application: name one")
            )
        return tuple(found)

    def run(self, experiment: Experiment, progress: Progress) -> Journal:
        url, process = os.environ.get(URL_VARIABLE, ""), None
        if not url:
            url, process = _started(find_server())
        server = Toxiproxy(url)
        try:
            _await(server)
            self._server = server
            return super().run(experiment, progress)
        finally:
            try:
                server.clear()
            finally:
                if process is not None:
                    process.terminate()
                    process.communicate()

    def _fronts(self, mark: str) -> Proxies:
        return Proxies(self._server, mark)


def find_server() -> str:
    """The path of a server, installed if need be. Raises DriverError."""
    for name in ("toxiproxy-server", "toxiproxy"):
        found = shutil.which(name)
        if found is not None:
            return found
    if CACHE.exists():
        return str(CACHE)
    go = shutil.which("go")
    if go is None:
        raise DriverError(
            f"toxiproxy-server is not on PATH, {URL_VARIABLE} is not set, and there is no Go to install it"
        )
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            [go, "install", MODULE],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_S_MAX,
            env={**os.environ, "GOBIN": str(CACHE.parent)},
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        words = getattr(error, "stderr", "") or str(error)
        raise DriverError(f"go install {MODULE}: {str(words).strip()[-300:]}") from error
    (CACHE.parent / "server").rename(CACHE)  # `go install` names a binary after its directory
    return str(CACHE)


def _started(path: str) -> tuple[str, "subprocess.Popen[bytes]"]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [path, "-host", "127.0.0.1", "-port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, MARK: "toxiproxy"},
    )
    return f"http://127.0.0.1:{port}", process


def _await(server: Toxiproxy) -> None:
    """Until it answers. Raises DriverError."""
    until = time.monotonic() + STARTS_S_MAX
    while True:
        try:
            version = server.version()
        except DriverError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
            continue
        if version != "git" and not version.lstrip("v").startswith("2."):  # `go install` knows no version
            raise DriverError(f"toxiproxy 2.x is needed, this is {version or 'something else'}")
        return
