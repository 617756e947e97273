"""A mesh of real peers for one run: made, asked, and known by its parts.

Invariant: every process started here carries the run's mark; what a peer needs to join is made by the founder.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from chaos.conditions import NetworkFault, paths
from chaos.drivers.caller import FORBIDDEN
from chaos.drivers.deadman import MARK
from chaos.drivers.driver import DriverError
from chaos.drivers.fabric import Fabric, must
from chaos.drivers.quota import Quotas
from chaos.drivers.real_node import TMPFS_BYTES, RealNode
from chaos.drivers.real_requests import Requests
from chaos.drivers.real_watch import NAMESPACE
from chaos.experiment import Experiment
from chaos.fault import Bandwidth, Delay, Disk, Join, Slow, Tcp
from peer.admin.client import ClientError

OUTBOUND_PORT: Final = 15001
APPLICATION_PORT: Final = 9100
AT_ONCE_MAX: Final = 4

TcpFault: TypeAlias = Tcp | Delay | Bandwidth
STANDS_S_MAX: Final = 90.0


class Fronts(Protocol):
    """What may stand between a sidecar and its application (`chaos/drivers/toxiproxy.py`)."""

    async def front(self, node: str, service: str, host: str, port: int) -> int:
        """Put something in front of `host:port`; its own port."""

    async def begin(self, number: int, fault: TcpFault, nodes: tuple[str, ...]) -> None:
        """Let the connections of the applications of these nodes misbehave."""

    async def end(self, number: int, nodes: tuple[str, ...]) -> None:
        """No more."""


def joins(experiment: Experiment) -> int:
    """How many nodes come later."""
    return sum(event.inject.count for event in experiment.method if isinstance(event.inject, Join))


class RealMesh:
    """Nodes, the network between them, and what stands there."""

    def __init__(
        self, experiment: Experiment, fabric: Fabric, directory: Path, mark: str, *, fronts: Fronts | None
    ) -> None:
        self.fronts = fronts
        self.experiment = experiment
        self.fabric = fabric
        self.quotas = Quotas(mark)
        self.standing: dict[int, NetworkFault] = {}
        self.clogged: set[str] = set()
        self.kills: dict[str, float] = {}  # when, of those not yet known to be dead by all
        self.callers: list[Requests] = []
        self.failed: list[BaseException] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.began_at = time.monotonic()
        self.began_unix = time.time()
        self._directory = directory
        self._mark = mark
        self._tickets: dict[str, list[str]] = {}
        self.present = experiment.topology.size
        self.nodes = [self._node(index) for index in range(experiment.topology.size + joins(experiment))]

    def _node(self, index: int) -> RealNode:
        directory = self._directory / f"n{index}"
        return RealNode(
            f"n{index}",
            self.fabric.host(index),
            self.fabric.prefix(index),
            directory,
            zone=self.experiment.topology.zone_of(index) if index < self.experiment.topology.size else "",
            profile=self.experiment.topology.profile,
            mark=self._mark,
        )

    def clock(self) -> float:
        return time.monotonic() - self.began_at

    def by_name(self, name: str) -> RealNode:
        return self.nodes[int(name[1:])]

    def _disk_is_own(self, node: RealNode) -> bool:
        return any(
            isinstance(event.inject, Disk) and node.name in event.inject.pick.nodes
            for event in self.experiment.method
        )

    def commands_down(self) -> list[list[str]]:
        """What the dead man does before it removes the directory."""
        down = [["umount", "-l", str(node.data)] for node in self.nodes if self._disk_is_own(node)]
        limited = {
            name
            for event in self.experiment.method
            if isinstance(event.inject, Slow) and event.inject.quota
            for name in event.inject.pick.nodes
        }
        return down + self.quotas.commands_down(sorted(limited))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failed.append(error)

    # ------------------------------------------------------------------ the beginning

    async def populate(
        self,
        say: Callable[[str], None],
        differences: Callable[[], list[str]],
        look: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Until the mesh stands, with its services. Raises DriverError."""
        topology = self.experiment.topology
        say("the network is made")
        self.fabric.up(len(self.nodes))
        self.shape()
        for node in self.nodes[: self.present]:
            node.data.mkdir(parents=True, mode=0o700)
            if self._disk_is_own(node):
                options = f"size={TMPFS_BYTES},mode=700"
                must("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(node.data))
        first = self.nodes[0]
        first.start("--bootstrap")
        await first.ready()
        say("peers start")
        if topology.start == "cold":
            self._tickets = {node.name: await self.ticket() for node in self.nodes[1 : self.present]}
            return
        waiting = []
        for node in self.nodes[1 : self.present]:
            node.start(*await self.ticket())
            waiting.append(node.ready())
            if len(waiting) >= AT_ONCE_MAX:
                await asyncio.gather(*waiting)
                waiting = []
        await asyncio.gather(*waiting)
        until = time.monotonic() + STANDS_S_MAX
        while True:
            await look()
            if not (wrong := differences()):
                break
            if time.monotonic() > until:
                raise DriverError(f"the mesh did not stand within {STANDS_S_MAX:g} s: {wrong[0]}")
            await asyncio.sleep(0.2)
        for service in topology.services:
            await self._serve(service.name, service.on)
        await self._call()

    def start_cold(self) -> None:
        """Everybody at once, as the timeline begins; nobody waits for anybody."""
        for node in self.nodes[1 : self.present]:
            if node.name in self._tickets:
                node.start(*self._tickets[node.name])

    async def ticket(self) -> list[str]:
        """What a newcomer is given: a token, and the seeds."""
        first = self.nodes[0]
        try:
            token = await asyncio.to_thread(
                lambda: first.client.token_create(
                    services=("*/*",), ttl_s=86_400, uses=1, publish=True, invite=False
                )
            )
        except ClientError as error:
            raise DriverError(f"{first.name} gave no token: {error}") from error
        return [*self.seeds(), "--token", token]

    def seeds(self) -> list[str]:
        """Whom peers are told to contact."""
        count = min(self.experiment.topology.seeds, self.present)
        return [word for index in range(count) for word in ("--seed", f"{self.fabric.seed(index)}:7946")]

    async def revoke(self, node: RealNode) -> None:
        """Have the founder say that nobody believes that node any more. Raises DriverError."""
        first = self.nodes[0]
        await self._ask(first, partial(first.client.revoke, "node", node.name, "chaos"))

    async def _serve(self, name: str, on: Sequence[str]) -> None:
        """The service's processes, registered, with a path that nobody may ask for."""
        port = APPLICATION_PORT + [each.name for each in self.experiment.topology.services].index(name)
        for each in on:
            node = self.by_name(each)
            host = "127.0.0.1" if node.prefix else node.host
            node.spawn(sys.executable, "-m", "peer.demo.app", name, each, host, str(port))
            target = port if self.fronts is None else await self.fronts.front(each, name, host, port)
            document = {"service": {"name": name, "namespace": NAMESPACE, "address": host, "ports": [
                {"name": "http", "port": 80, "target": target, "protocol": "http"}]}}  # fmt: skip
            await self._ask(node, partial(node.client.register, [document], "chaos"))
        denied = {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": f"chaos-{name}", "namespace": NAMESPACE},
            "spec": {
                "targetRefs": [{"kind": "Service", "name": name}],
                "action": "DENY",
                "rules": [{"to": [{"operation": {"paths": [FORBIDDEN]}}]}],
            },
        }
        await self._ask(
            self.nodes[0],
            lambda: self.nodes[0].client.apply([denied], "chaos", wait_percent=100.0, timeout_s=20.0),
        )

    async def _ask(self, node: RealNode, question: Callable[[], Any]) -> None:
        try:
            await asyncio.to_thread(question)
        except ClientError as error:
            raise DriverError(f"{node.name}: {error}") from error

    async def _call(self) -> None:
        for requests in self.experiment.workload.requests:
            for name in requests.source:
                node = self.by_name(name)
                host = "127.0.0.1" if node.prefix else node.host
                process = await asyncio.create_subprocess_exec(
                    *(*node.prefix, sys.executable, "-m", "chaos.drivers.caller", host, str(OUTBOUND_PORT)),
                    *(f"{requests.service}.{NAMESPACE}.mesh", str(requests.rate)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, MARK: self._mark},
                )
                caller = Requests(node, requests.service, process)
                self.callers.append(caller)
                self.spawn(caller.listen())

    # ------------------------------------------------------------------ the network

    def shape(self) -> None:
        names = [node.name for node in self.nodes]
        self.fabric.shape(paths(names, self.experiment.topology, self.standing, frozenset(self.clogged)))

    def reachable(self, one: str, other: str) -> bool:
        names = [node.name for node in self.nodes]
        found = paths(names, self.experiment.topology, self.standing, frozenset(self.clogged))
        return not any(
            (path := found.get(pair)) is not None and (path.cut or path.cut_control)
            for pair in ((one, other), (other, one))
        )
