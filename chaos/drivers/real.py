"""The drivers of real meshes: `gossamer peer` processes, in network namespaces (`netns`) or on loopback (`process`).

A run makes everything it needs and takes it away again: directories below one temporary directory, a small file
system for each node whose disk is to be filled, namespaces under a prefix of its own. Before the first of these is
made the dead man (`chaos/drivers/deadman.py`) is told of all, and it cleans up whether this process ends well, by
Ctrl-C or by kill -9. No address of the host is used but 127/8 (`process`), and none at all by `netns`.

The journal's times count from the moment the mesh stood. Real time is not replayed exactly: `replay` does the same
faults to the same nodes at the same times.

Invariant: when `run` returns or raises, nothing of the run is left.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chaos.conditions import NETWORK, SHAPING
from chaos.drivers.driver import DriverError, Lack, Progress
from chaos.drivers.fabric import Fabric, Loopback, Router, Switch
from chaos.drivers.quota import Quotas
from chaos.drivers.real_mesh import Fronts, RealMesh, joins
from chaos.drivers.real_run import RealRun
from chaos.experiment import Event, Experiment
from chaos.fault import (
    Certificates,
    Disk,
    Dns,
    Kill,
    Loss,
    Signers,
    Slow,
    Swizzle,
)
from chaos.hypothesis import Invariant
from chaos.journal import Journal
from trust.credential import CREDENTIAL_TTL_S

NODES_MAX: Final = 40

_LACKS: Final = {
    "clock": "the clock of a real host is everybody's: only a simulated one can be set wrong",
    "byzantine": "a real peer runs the real code and only that",
    "version": "there is one release of the peer on this machine: see the driver sim",
    "tcp": "connections are not looked into here: see the driver toxiproxy",
}
_SEES: Final = frozenset(
    {
        Invariant.NO_LOSS,
        Invariant.NO_RESURRECTION,
        Invariant.MONOTONE,
        Invariant.AUTHORIZED,
        Invariant.VIEWS,
        Invariant.JOURNALS,
        Invariant.SERVING,
        Invariant.SIDES,
    }
)


class _Real(ABC):
    """What both drivers share."""

    name = ""
    sees = _SEES

    def lacks(self, experiment: Experiment) -> tuple[Lack, ...]:
        found = [
            Lack(f"{where}[{number}]", why)
            for where, method in (("method", experiment.method), ("rollbacks", experiment.rollbacks))
            for number, event in enumerate(method)
            if (why := self._lack(event))
        ]
        if experiment.topology.size > NODES_MAX:
            found.append(
                Lack(
                    "topology", f"{experiment.topology.size} real peers are too many, {NODES_MAX} are allowed"
                )
            )
        topology = experiment.topology
        if topology.signers:
            found.append(
                Lack("topology.signers", "a mesh made here has one signer, who founds it: see the driver sim")
            )
        if topology.certificates != CREDENTIAL_TTL_S:
            found.append(
                Lack(
                    "topology.certificates", "how long a real peer's live is not set here: see the driver sim"
                )
            )
        if experiment.rollbacks:
            found.append(Lack("rollbacks", "what is done is undone; nothing else is done afterwards"))
        if experiment.topology.start == "cold" and experiment.topology.services:
            found.append(Lack("topology.start", "services need a mesh that stands: give warm"))
        found += [
            Lack("steady-state-hypothesis.invariants", f"{each.value} cannot be seen from outside a peer")
            for each in experiment.hypothesis.invariants
            if each not in self.sees
        ]
        return (*found, *self._lacks_more(experiment))

    def _lack(self, event: Event) -> str:
        inject = event.inject
        if inject.fault in _LACKS:
            return _LACKS[inject.fault]
        if isinstance(inject, Disk) and inject.how != "full":
            return "a real disk cannot be made to lie about its syncs here: see the driver sim"
        if isinstance(inject, Certificates) and inject.how == "expire":
            return "a real peer renews by itself, and its certificate lives for days: see the driver sim"
        if isinstance(inject, Signers) and (inject.how == "revoke" or inject.count > 1):
            return "a mesh made here has one signer, who founds it: see the driver sim"
        if isinstance(inject, Kill) and inject.power:
            return "this machine's power is everybody's: see the driver sim"
        if isinstance(inject, Slow) and inject.each:
            return "a real process is not slowed at each input: give blocked and running, or quota"
        return ""

    def _lacks_more(self, experiment: Experiment) -> tuple[Lack, ...]:
        return ()

    @abstractmethod
    def _fabric(self, experiment: Experiment, mark: str) -> Fabric:
        """The network between the nodes of the run with that mark."""

    def _fronts(self, mark: str) -> Fronts | None:
        """What stands in front of applications."""
        return None

    def _check(self, experiment: Experiment) -> None:
        """Raises DriverError when this machine cannot do it."""
        if any(isinstance(event.inject, Slow) and event.inject.quota for event in experiment.method):
            Quotas("none").check()

    def run(self, experiment: Experiment, progress: Progress) -> Journal:
        self._check(experiment)
        control = None
        if experiment.hypothesis.bounds.success_against_control is not None:
            control = self._once(_undisturbed(experiment), progress, None).figures["success"]
        return self._once(experiment, progress, control)

    def _once(self, experiment: Experiment, progress: Progress, control: float | None) -> Journal:
        mark = f"gsm{secrets.token_hex(3)}"
        directory = Path(tempfile.mkdtemp(prefix=f"{mark}-"))
        fabric = self._fabric(experiment, mark)
        mesh = RealMesh(experiment, fabric, directory, mark, fronts=self._fronts(mark))
        dead_man = _dead_man(mark, directory, [*mesh.commands_down(), *fabric.commands_down()])
        run = RealRun(mesh, progress, driver=self.name, control=control)
        try:
            return asyncio.run(run.play())
        except (asyncio.CancelledError, DriverError):
            if run.interrupted:  # a terminal tells everybody: what `ip` says of its own end is not the reason
                raise KeyboardInterrupt from None
            raise
        finally:
            with _to_the_end():
                fabric.down()
                dead_man.communicate()  # closes its standard input: it cleans up and ends


class NetnsDriver(_Real):
    """Each node in a network namespace of its own. Needs root, iproute2 and nftables."""

    name = "netns"

    def _fabric(self, experiment: Experiment, mark: str) -> Fabric:
        most = experiment.topology.size + joins(experiment)
        shaped = any(link.delay or link.jitter for link in experiment.topology.links) or any(
            isinstance(event.inject, SHAPING) or (isinstance(event.inject, Loss) and event.inject.burst > 1)
            for event in experiment.method
        )
        named = any(isinstance(event.inject, Dns) for event in experiment.method)
        return Switch(mark, most, experiment.seed, named=named) if shaped else Router(mark, most, named=named)

    def _check(self, experiment: Experiment) -> None:
        super()._check(experiment)
        if os.geteuid() != 0:
            raise DriverError("network namespaces need root")
        for tool in ("ip", "nft"):
            if shutil.which(tool) is None:
                raise DriverError(f"{tool} is not installed (packages iproute2 and nftables)")


class ProcessDriver(_Real):
    """Peers on 127.x.y.1, 127.x.y.2, …: everything but faults of the network."""

    name = "process"

    def _lack(self, event: Event) -> str:
        if isinstance(event.inject, Dns):
            return "this host resolves names for everybody on it: see the driver netns"
        if isinstance(event.inject, (*NETWORK, Swizzle)):
            return "loopback has no network between the nodes: see the driver netns"
        return super()._lack(event)

    def _lacks_more(self, experiment: Experiment) -> tuple[Lack, ...]:
        if experiment.topology.links:
            return (
                Lack("topology.links", "loopback has no network between the nodes: see the driver netns"),
            )
        return ()

    def _fabric(self, experiment: Experiment, mark: str) -> Fabric:
        return Loopback(f"127.{64 + int(mark[3:5], 16) // 2}.{int(mark[5:7], 16)}")


def _undisturbed(experiment: Experiment) -> Experiment:
    """The same, but that nothing is done to it."""
    return experiment.model_copy(update={"method": (), "lasts": experiment.timeline_s})


@contextmanager
def _to_the_end() -> Iterator[None]:
    """Ctrl-C does nothing meanwhile: what is made undone is undone to the end."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _dead_man(mark: str, directory: Path, down: list[list[str]]) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "chaos.drivers.deadman", mark, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None, "pipes were asked for"
    assert process.stdout is not None, "pipes were asked for"
    process.stdin.write(json.dumps({"down": down}) + "\n")
    process.stdin.flush()
    if process.stdout.readline() != "ready\n":
        raise DriverError("the process that cleans up could not be started")
    return process
