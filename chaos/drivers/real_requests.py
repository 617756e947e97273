"""Callers of services, and what became of their requests.

Invariant: a request that a policy denies succeeds when it is denied, and is a violation when it is answered.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chaos.conditions import walls
from chaos.drivers.real_node import RealNode
from chaos.experiment import Experiment
from chaos.fault import Partition, Traffic
from chaos.hypothesis import Invariant
from chaos.journal import Violation

LATEST_S = 2.0
SETTLES_S = 3.0  # what was on its way to the other side has failed by then
SIDE_S_MIN = 5.0  # how long a partition stands that sides are judged in


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when (Unix s), whether it went as it should, the status (0: none), whether a policy denies it."""

    at: float
    ok: bool
    status: int
    forbidden: bool


@dataclass(slots=True)
class Requests:
    """What the caller of one node said."""

    node: RealNode
    service: str
    process: "asyncio.subprocess.Process"
    told: list[Request] = field(default_factory=list)

    async def listen(self) -> None:
        """Until the caller ends."""
        assert self.process.stdout is not None, "a pipe was asked for"
        while line := await self.process.stdout.readline():
            each = json.loads(line)
            self.told.append(Request(each["at"], each["ok"], each["status"], each["forbidden"]))

    async def end(self) -> None:
        """End the caller."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def broken(callers: Sequence[Requests], began_unix: float, at_s: float) -> list[Violation]:
    """Accesses that should not have been, and callers that get no answer in the end."""
    found = []
    for caller in callers:
        for request in caller.told:
            if request.forbidden and 200 <= request.status < 400:
                what = f"{caller.node.name} got {request.status} where a policy denies"
                when = round(request.at - began_unix, 3)
                found.append(Violation(invariant=Invariant.AUTHORIZED.value, at_s=when, what=what))
        if not any(request.ok for request in caller.told if request.at > time.time() - LATEST_S):
            what = f"{caller.node.name} gets no answer"
            found.append(Violation(invariant=Invariant.SERVING.value, at_s=at_s, what=what))
    return found


def silent_sides(
    callers: Sequence[Requests], experiment: Experiment, stood: Mapping[int, tuple[float, float]]
) -> list[Violation]:
    """Callers that got nothing from their own side of a partition. `stood`: from when to when each did, by its number
    in the method (Unix s). What is short, or leaves a side without the service, is not looked at."""
    found = []
    serves = {service.name: set(service.on) for service in experiment.topology.services}
    asks = {(name, each.service) for each in experiment.workload.requests for name in each.source}
    for number, (began, ended) in stood.items():
        fault = experiment.method[number].inject
        if not isinstance(fault, Partition) or fault.traffic is Traffic.CONTROL or ended - began < SIDE_S_MIN:
            continue
        wall = walls(fault)
        for caller in callers:
            own, service = int(caller.node.name[1:]), caller.service
            near = [
                name
                for name in serves[service]
                if not wall(own, int(name[1:])) and not wall(int(name[1:]), own)
            ]
            answered = any(request.ok for request in caller.told if began + SETTLES_S <= request.at < ended)
            if (caller.node.name, service) in asks and near and not answered:
                what = f"{caller.node.name} got nothing from {service} on its side of {fault.shape.value}"
                found.append(
                    Violation(invariant=Invariant.SIDES.value, at_s=experiment.method[number].at, what=what)
                )
    return found


def share_of(callers: Sequence[Requests]) -> float | None:
    """Of all requests those that went as they should; None: there were none."""
    return _share([request for caller in callers for request in caller.told])


def per_second(callers: Sequence[Requests], began_unix: float) -> list[tuple[float, float]]:
    """(second, share of its requests that went as they should)"""
    seconds: dict[int, list[Request]] = {}
    for caller in callers:
        for request in caller.told:
            seconds.setdefault(int(request.at - began_unix), []).append(request)
    return [(float(at), _share(each) or 0.0) for at, each in sorted(seconds.items())]


def _share(requests: Sequence[Request]) -> float | None:
    return sum(request.ok for request in requests) / len(requests) if requests else None
