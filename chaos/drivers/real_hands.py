"""What each fault is in a real mesh.

Invariant: what begins here ends here: a stopped process is started again, a full disk emptied, a limit taken back.
"""

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

from chaos.conditions import NETWORK, swizzled
from chaos.drivers.real_mesh import APPLICATION_PORT, RealMesh
from chaos.drivers.real_node import RealNode
from chaos.drivers.real_watch import NAMESPACE
from chaos.experiment import Event
from chaos.fault import (
    Application,
    Bandwidth,
    Certificates,
    Delay,
    Descriptors,
    Disk,
    Dns,
    Flap,
    Join,
    Keeps,
    Kill,
    Leave,
    Partition,
    Pause,
    Poison,
    Poisoned,
    Restart,
    Signers,
    Slow,
    Swizzle,
    Tcp,
)
from peer.admin.client import ClientError
from simulations.randomness import stream


class RealHands:
    """Does faults to one mesh. `disown` is told of nodes whose word counts for nothing any more; `refusals` is what
    peers said to poisoned policies."""

    def __init__(self, mesh: RealMesh, disown: Callable[[str], None]) -> None:
        self._mesh = mesh
        self._disown = disown
        self.refusals: list[str] = []

    def _picked(self, event: Event) -> list[RealNode]:
        pick = getattr(event.inject, "pick", None)
        return [self._mesh.by_name(name) for name in pick.nodes] if pick is not None else []

    async def begin(self, number: int, event: Event) -> None:
        inject = event.inject
        fronts = self._mesh.fronts
        match inject:
            case Tcp() | Delay() | Bandwidth() if fronts is not None:
                await fronts.begin(number, inject, inject.pick.nodes)
            case Swizzle():
                self._mesh.spawn(self._swizzle(number, event, inject))
            case Kill():
                for node in self._picked(event):
                    self._kill(node)
            case Signers(count=count):
                for node in self._mesh.nodes[:count]:
                    self._kill(node)
            case Pause():
                for node in self._picked(event):
                    node.impaired += 1
                    node.signal(signal.SIGSTOP)
            case Slow():
                for node in self._picked(event):
                    node.impaired += 1
                    if inject.quota:
                        self._mesh.quotas.limit(node.name, node.family(), inject.quota)
                        continue
                    self._mesh.spawn(
                        self._slow(node, inject, event.lasts or self._mesh.experiment.timeline_s)
                    )
            case Restart():
                self._mesh.spawn(self._restart(event, inject))
            case Leave():
                await asyncio.gather(*(node.stop() for node in self._picked(event)))
            case Join(count=count):
                for node in self._mesh.nodes[self._mesh.present : self._mesh.present + count]:
                    node.data.mkdir(parents=True, mode=0o700)
                    node.start(*await self._mesh.ticket())
                self._mesh.present += count
            case Flap():
                self._mesh.spawn(self._flap(event, inject))
            case Disk():
                for node in self._picked(event):
                    await asyncio.to_thread(node.fill_disk, True)
            case Descriptors(limit=limit):
                for node in self._picked(event):
                    node.limit_descriptors(limit)
            case Dns():
                for node in self._picked(event):
                    self._mesh.fabric.resolve(self._mesh.nodes.index(node), works=False)
            case Certificates():
                for node in self._picked(event):
                    node.impaired += 1
                    self._disown(node.name)
                    await self._mesh.revoke(node)
            case Poisoned():
                for node in self._picked(event)[:1]:
                    self._mesh.spawn(self._poison(node, inject.effect))
            case Application():
                await self._fail_service(event, inject, failing=True)
            case _ if isinstance(inject, NETWORK):
                self._mesh.standing[number] = inject
                self._mesh.shape()
            case _:
                raise AssertionError(f"a fault the driver says it lacks: {inject.fault}")

    async def end(self, number: int, event: Event) -> None:
        inject = event.inject
        fronts = self._mesh.fronts
        match inject:
            case Tcp() | Delay() | Bandwidth() if fronts is not None:
                await fronts.end(number, inject.pick.nodes)
            case Kill(keeps=keeps):
                for node in self._picked(event):
                    await self._start_again(node, keeps)
            case Signers(count=count):
                for node in self._mesh.nodes[:count]:
                    await self._start_again(node, Keeps.ALL)
            case Leave() | Flap():
                for node in self._picked(event):
                    await self._start_again(node, Keeps.ALL)
            case Pause():
                for node in self._picked(event):
                    node.impaired = max(0, node.impaired - 1)
                    node.signal(signal.SIGCONT)
            case Slow():
                for node in self._picked(event):
                    node.impaired = max(0, node.impaired - 1)
                    self._mesh.quotas.lift(node.name)
            case Disk():
                for node in self._picked(event):
                    await asyncio.to_thread(node.fill_disk, False)
            case Descriptors():
                for node in self._picked(event):
                    node.limit_descriptors(None)
            case Dns():
                for node in self._picked(event):
                    self._mesh.fabric.resolve(self._mesh.nodes.index(node), works=True)
            case Certificates():  # what is revoked stays so: it comes back as somebody else
                for node in self._picked(event):
                    await node.stop()
                    self._disown(node.name)
                    await self._start_again(node, Keeps.NOTHING)
            case Swizzle():
                self._mesh.clogged -= set(inject.pick.nodes)
                self._mesh.shape()
            case Application():
                await self._fail_service(event, inject, failing=False)
            case Partition() | _ if isinstance(inject, NETWORK):
                self._mesh.standing.pop(number, None)
                self._mesh.shape()
            case _:
                return  # over when it happened

    def _kill(self, node: RealNode) -> None:
        node.kill()
        if not self._mesh.standing and not self._mesh.clogged:
            self._mesh.kills[node.name] = self._mesh.clock()

    async def _start_again(self, node: RealNode, keeps: Keeps) -> None:
        if node.running:
            return
        flags = self._mesh.seeds()
        if keeps is not Keeps.ALL:
            await asyncio.to_thread(node.forget, keeps)
        if keeps is Keeps.NOTHING:
            flags = await self._mesh.ticket()
        node.start(*flags)

    async def _swizzle(self, number: int, event: Event, fault: Swizzle) -> None:
        began = self._mesh.clock()
        lasts_s = event.lasts if event.lasts is not None else 2 * fault.every * len(fault.pick.nodes)
        back = stream(self._mesh.experiment.seed, "swizzle", number).sample(
            fault.pick.nodes, len(fault.pick.nodes)
        )
        for after_s, name, gone in sorted(swizzled(fault, lasts_s, back)):
            await asyncio.sleep(max(0.0, began + after_s - self._mesh.clock()))
            (self._mesh.clogged.add if gone else self._mesh.clogged.discard)(name)
            self._mesh.shape()

    async def _slow(self, node: RealNode, fault: Slow, lasts_s: float) -> None:
        until = self._mesh.clock() + lasts_s
        try:
            while self._mesh.clock() < until and node.running:
                node.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.blocked)
                node.signal(signal.SIGCONT)
                await asyncio.sleep(fault.running)
        finally:
            node.signal(signal.SIGCONT)

    async def _restart(self, event: Event, fault: Restart) -> None:
        began = self._mesh.clock()
        for turn, node in enumerate(self._picked(event)):
            await asyncio.sleep(max(0.0, began + turn * fault.every - self._mesh.clock()))
            if fault.graceful:
                await node.stop()
            else:
                node.kill()
            node.start()

    async def _flap(self, event: Event, fault: Flap) -> None:
        until = self._mesh.clock() + (event.lasts or 0.0)
        while self._mesh.clock() < until:
            for node in self._picked(event):
                if node.running:
                    node.kill()
                else:
                    node.start()
            await asyncio.sleep(fault.every / 2)

    async def _poison(self, node: RealNode, effect: Poison) -> None:
        """Publish it as a person would; a refusal at the author's own peer is what is hoped for."""
        services = [service.name for service in self._mesh.experiment.topology.services] or ["nothing"]
        metadata: dict[str, Any] = {"name": f"poison-{effect.value}", "namespace": NAMESPACE}
        document: dict[str, Any] = {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": metadata,
            "spec": {
                "targetRefs": [{"kind": "Service", "name": services[0]}],
                "action": "DENY",
                "rules": [{}],
            },
        }
        if effect is Poison.OVERSIZED:
            metadata["annotations"] = {"filler": "." * 200_000}
        elif effect is Poison.UNREADABLE:
            document["spec"] = {"action": 7}
        try:
            await asyncio.to_thread(node.client.apply, [document], "chaos")
        except ClientError as error:
            self.refusals.append(f"{node.name} refused the poisoned policy: {error}"[:500])

    async def _fail_service(self, event: Event, fault: Application, *, failing: bool) -> None:
        """Tell the demo's application to fail, or to stop failing."""
        port = APPLICATION_PORT + [each.name for each in self._mesh.experiment.topology.services].index(
            fault.service
        )
        for node in self._picked(event):
            host = "127.0.0.1" if node.prefix else node.host
            words = "import sys,urllib.request as u;u.urlopen(u.Request(sys.argv[1],sys.argv[2].encode()),timeout=5)"
            url = f"http://{host}:{port}/failing"
            process = node.spawn(sys.executable, "-c", words, url, "on" if failing else "off")
            await asyncio.to_thread(process.wait)
