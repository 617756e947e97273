"""Callers of services, and what became of their requests.

Invariant: a request that a policy denies succeeds when it is denied, and is a violation when it is answered.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.drivers.real_node import RealNode
from chaos.hypothesis import Invariant
from chaos.journal import Violation

LATEST_S = 2.0


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


def shares(callers: Sequence[Requests], until_unix: float) -> tuple[float | None, float | None]:
    """(requests that went as they should, the same of those before that moment), as shares; None: there were none."""
    told = [request for caller in callers for request in caller.told]
    before = [request for request in told if request.at < until_unix]
    return _share(told), _share(before)


def per_second(callers: Sequence[Requests], began_unix: float) -> list[tuple[float, float]]:
    """(second, share of its requests that went as they should)"""
    seconds: dict[int, list[Request]] = {}
    for caller in callers:
        for request in caller.told:
            seconds.setdefault(int(request.at - began_unix), []).append(request)
    return [(float(at), _share(each) or 0.0) for at, each in sorted(seconds.items())]


def _share(requests: Sequence[Request]) -> float | None:
    return sum(request.ok for request in requests) / len(requests) if requests else None
