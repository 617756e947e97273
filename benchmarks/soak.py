"""Two peers under steady traffic while their workers are killed, their certificates rotate and their snapshots change.

    python -m benchmarks.soak [--seconds 600] [--kill-every-s 10] [--save benchmarks/RESULTS.md]

wrk asks one peer, at a bounded rate, for a service of the other, over mTLS, with two workers each. All the while
certificates live for ten seconds (they are renewed at half-life), a service comes or goes each second, and every few
seconds a worker is killed, of the one peer and of the other in turn; each peer has one worker that never is.

What may go wrong is counted at each kill: for the caller's worker the connections of wrk that it holds, for the
callee's all that may have been under way through it, if it was reached at all (the peers put many requests on a
connection): one for each connection of wrk. Whatever else wrk saw is a fault: a connection refused, a timeout, more
errors than that. Memory is the proportional set size of the processes that live throughout; it is flat when its median
over the last quarter is within MEMORY_GROWTH_MAX of the one over the second.
"""

import argparse
import asyncio
import http.client
import re
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.peers import memory_mib, processes
from peer.admin.client import AdminClient
from peer.demo.mesh import LocalMesh, LocalPeer

NETWORK: Final = "127.10.77"
CONNECTIONS: Final = 16
PAUSE_MS: Final = 40  # of each connection between two requests: at most 400 requests a second
TIMEOUT_S: Final = (
    10  # of a request: longer than a worker takes to come back, so that it means one that was lost
)
SAMPLE_S: Final = 5.0
MEMORY_GROWTH_MAX: Final = 0.05
CONFIG: Final = "svid: {ttl_s: 10}\nworkers: 2\naccess_log: false\n"
SERVICE: Final = "service: {{name: {name}, address: {host}, port: 8080}}"
SWAPPED: Final = {"service": {"name": "swapped", "address": f"{NETWORK}.1", "port": 8081}}
SCRIPT: Final = f"function delay() return {PAUSE_MS} end\n"


@dataclass
class Outcome:
    """What was done, and what came of it."""

    seconds: float
    requests: int = 0
    swaps: int = 0
    kills: int = 0
    renewals: int = 0
    errors_allowed: int = 0
    failures: dict[str, int] = field(default_factory=dict)  # as wrk names them
    memory_mib: dict[str, list[float]] = field(default_factory=dict)
    flags: dict[str, int] = field(
        default_factory=dict
    )  # why the caller's peer answered itself, by Envoy's flags
    deaths: int = 0  # of members, as the other one believed
    problems: list[str] = field(default_factory=list)

    def judge(self, growth_max: float = MEMORY_GROWTH_MAX) -> None:
        """Fill in `problems`."""
        if not self.failures or not self.requests:
            self.problems.append("wrk said nothing")
        for name in ("connect", "timeout"):
            if self.failures.get(name):
                self.problems.append(f"{self.failures[name]} errors of the kind {name}")
        lost = sum(self.failures.get(name, 0) for name in ("read", "write", "not 2xx"))
        if lost > self.errors_allowed:
            self.problems.append(f"{lost} requests failed, the killed workers had {self.errors_allowed}")
        for name, samples in self.memory_mib.items():
            early, late = quarters(samples)
            if late > early * (1 + growth_max):
                self.problems.append(f"{name} grew from {early:.1f} to {late:.1f} MiB")

    def table(self) -> str:
        lost = ", ".join(f"{count} {name}" for name, count in self.failures.items() if count) or "none"
        rows = [
            ("requests answered", f"{self.requests:,} ({self.requests / self.seconds:.0f}/s)"),
            ("workers killed", str(self.kills)),
            ("certificates renewed", str(self.renewals)),
            ("snapshots changed", str(self.swaps)),
            ("requests that the killed workers may have had", str(self.errors_allowed)),
            ("errors seen by wrk", lost),
            (
                "why, as the caller's peer says",
                ", ".join(f"{n} {f}" for f, n in sorted(self.flags.items())) or "-",
            ),
            ("times a peer was believed dead", str(self.deaths)),
        ]
        for name, samples in self.memory_mib.items():
            early, late = quarters(samples)
            rows.append((f"memory of {name}, second quarter and last", f"{early:.1f} MiB, {late:.1f} MiB"))
        rows.append(
            ("verdict", "; ".join(self.problems) or "only the killed workers' connections; memory flat")
        )
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def quarters(samples: list[float]) -> tuple[float, float]:
    """Medians over the second and the last quarter."""
    quarter = max(1, len(samples) // 4)
    return statistics.median(samples[quarter : 2 * quarter] or samples), statistics.median(samples[-quarter:])


def connections_held(pid: int, port: int) -> int:
    """How many connections that came in on `port` a process holds; 0 when it has just ended."""
    sockets = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(str(descriptor.readlink()))
            except FileNotFoundError:
                continue  # closed meanwhile
    except FileNotFoundError:
        return 0
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(row[1].partition(":")[2], 16) == port and f"socket:[{row[9]}]" in sockets for row in rows)


class Soak:
    """One run on a mesh of two."""

    def __init__(self, mesh: LocalMesh, seconds: float, kill_every_s: float) -> None:
        self.web, self.cart = mesh.peers
        self._kill_every_s = kill_every_s
        self.outcome = Outcome(seconds)
        self._veterans = {
            f"{part} of {peer.name}": pid
            for peer in mesh.peers
            for part, pid in zip(("control process", "worker"), processes(peer), strict=False)
        }

    async def run(self) -> Outcome:
        outcome = self.outcome
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(SCRIPT)
            script.flush()
            wrk = await asyncio.create_subprocess_exec(
                *(
                    "wrk",
                    "-t",
                    "1",
                    "-c",
                    str(CONNECTIONS),
                    "-d",
                    f"{outcome.seconds:.0f}s",
                    "-s",
                    script.name,
                ),
                *("--timeout", f"{TIMEOUT_S}s", "-H", "Host: cart", f"http://{self.web.host}:15001/"),
                stdout=asyncio.subprocess.PIPE,
            )
            tasks = [
                asyncio.create_task(each)
                for each in (self._swap(), self._kill(), self._sample(), self._watch())
            ]
            said, _ = await wrk.communicate()
            for task in tasks:
                task.cancel()
            for error in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(error, Exception):
                    outcome.problems.append(f"the soak itself failed: {error!r}")
        self._read(said.decode())
        await asyncio.sleep(3.0)  # until the last workers have reported
        self._explain(await asyncio.to_thread(_metrics, self.web.host))
        outcome.deaths = sum(peer.log.count("state=dead") for peer in (self.web, self.cart))
        return outcome

    def _explain(self, metrics: str) -> None:
        for line in metrics.splitlines():
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if not line.startswith("istio_requests_total{") or labels.get("reporter") != "source":
                continue
            if labels["response_code"] != "200":
                why = f"{labels['response_code']} {labels['response_flags']}"
                self.outcome.flags[why] = self.outcome.flags.get(why, 0) + int(float(line.rpartition(" ")[2]))

    def _read(self, said: str) -> None:
        outcome = self.outcome
        found = re.search(r"(\d+) requests in", said)
        outcome.requests = int(found[1]) if found else 0
        errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        names = ("connect", "read", "write", "timeout")
        outcome.failures = {name: int(errors[i]) if errors else 0 for i, name in enumerate(names, 1)}
        other = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        outcome.failures["not 2xx"] = int(other[1]) if other else 0

    async def _swap(self) -> None:
        client = AdminClient(self.web.directory)
        while True:
            await asyncio.to_thread(client.register, [SWAPPED], "soak")
            self.outcome.swaps += 1
            await asyncio.sleep(1.0)
            await asyncio.to_thread(client.deregister, "default", "swapped")
            self.outcome.swaps += 1
            await asyncio.sleep(1.0)

    async def _kill(self) -> None:
        turns: list[tuple[LocalPeer, int]] = [(self.web, 15001), (self.cart, 15006)]
        while True:
            await asyncio.sleep(self._kill_every_s)
            peer, port = turns[self.outcome.kills % 2]
            mortal = [pid for pid in processes(peer)[1:] if pid not in self._veterans.values()]
            if not mortal:
                self.outcome.problems.append(f"the worker of {peer.name} has not come back")
                return
            process = await asyncio.create_subprocess_exec("kill", "-STOP", str(mortal[0]))
            await process.wait()  # so that nothing comes or goes between the count and the end
            held = connections_held(mortal[0], port)
            self.outcome.errors_allowed += held if peer is self.web else CONNECTIONS * bool(held)
            process = await asyncio.create_subprocess_exec("kill", "-KILL", str(mortal[0]))
            await process.wait()
            self.outcome.kills += 1

    async def _sample(self) -> None:
        while True:
            for name, pid in self._veterans.items():
                self.outcome.memory_mib.setdefault(name, []).append(memory_mib(pid))
            await asyncio.sleep(min(SAMPLE_S, self.outcome.seconds / 16))

    async def _watch(self) -> None:
        """Each renewal is written down by the peer."""
        files = [peer.directory / "keys" / "certificates" for peer in (self.web, self.cart)]
        seen = [file.stat().st_mtime_ns for file in files]
        while True:
            await asyncio.sleep(0.25)
            now = [file.stat().st_mtime_ns for file in files]
            self.outcome.renewals += sum(a != b for a, b in zip(seen, now, strict=True))
            seen = now


def _metrics(host: str) -> str:
    with closing(http.client.HTTPConnection(host, 15020, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        with connection.getresponse() as answer:
            return answer.read().decode()


async def soak(seconds: float, kill_every_s: float) -> Outcome:
    """Build the mesh, wait until the service is reached, and run."""
    async with LocalMesh(2, network=NETWORK) as mesh:
        config = mesh.directory / "soak.yaml"
        config.write_text(CONFIG)
        await mesh.start("--config", str(config))
        web, cart = mesh.peers
        await mesh.application("cart", "v1", cart.host, 8080)
        for peer, name in ((web, "web"), (cart, "cart")):
            await peer.command(
                "service", "register", "-f", "-", stdin=SERVICE.format(name=name, host=peer.host)
            )
        await _reached(web)
        return await Soak(mesh, seconds, kill_every_s).run()


async def _reached(web: LocalPeer) -> None:
    """Until all workers know the service: connections that are open at the same time are spread over them."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if all(await asyncio.gather(*(_answered(web) for _ in range(CONNECTIONS)))):
            return
        await asyncio.sleep(0.1)
    raise TimeoutError("cart is not reached")


async def _answered(web: LocalPeer) -> bool:
    try:
        reader, writer = await asyncio.open_connection(web.host, 15001)
    except OSError:
        return False  # it does not listen yet
    with closing(writer):
        try:
            await asyncio.sleep(0.1)  # so that the others are open too
            writer.write(b"GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n")
            return (await reader.read()).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--kill-every-s", type=float, default=10.0)
    parser.add_argument("--save", type=Path, help="Append the table to this file.")
    options = parser.parse_args()
    outcome = asyncio.run(soak(options.seconds, options.kill_every_s))
    outcome.judge()
    print(outcome.table())
    if options.save:
        command = (
            f"python -m benchmarks.soak --seconds {options.seconds:g} --kill-every-s {options.kill_every_s:g}"
        )
        day = time.strftime("%Y-%m-%d")
        words = f"`{command}` (`make soak`), {day}: wrk on {CONNECTIONS} connections, two peers with two workers each."
        with options.save.open("a") as file:
            file.write(f"\n{words}\n\n{outcome.table()}\n")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
