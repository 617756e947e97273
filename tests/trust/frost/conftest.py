"""Groups made by a dealer, who in these tests knows everything, and the published vectors."""

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from trust.coordinator import Coordinator, Request
from trust.group import Scalar, Secret, base_mul, scalar_of
from trust.groupkey import GroupKey, KeyShare, group_key
from trust.polynomial import evaluate, random_coefficients
from trust.roast import Begin, Completed, Excluded, Failed, Reply, Send, Signing, Tick
from trust.sessionwire import (
    ShareReply,
    ShareRequest,
    ToCoordinator,
    ToSigner,
    decode_to_coordinator,
    decode_to_signer,
)
from trust.signer import Answer, Asked, Signer

VECTORS = Path(__file__).parent / "vectors"


@dataclass
class Group:
    """A key, all of its shares, and the polynomial behind them."""

    key: GroupKey
    shares: dict[Scalar, KeyShare]
    coefficients: tuple[Scalar, ...]
    entropy: Callable[[int], bytes]


def make_group(t: int, n: int, seed: int = 0, *, epoch: int = 0) -> Group:
    entropy = Random(f"{t} {n} {seed}").randbytes
    coefficients = random_coefficients(t, entropy)
    secrets = {scalar_of(i): evaluate(coefficients, scalar_of(i)) for i in range(1, n + 1)}
    members = [(identifier, base_mul(secret)) for identifier, secret in secrets.items()]
    key = group_key(base_mul(coefficients[0]), t, members, epoch=epoch)
    shares = {identifier: KeyShare(key, identifier, Secret(secret)) for identifier, secret in secrets.items()}
    return Group(key=key, shares=shares, coefficients=coefficients, entropy=entropy)


@pytest.fixture(scope="session")
def new_group() -> Callable[..., Group]:
    return make_group


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], dict[str, Any]]:
    def load(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((VECTORS / name).read_text())
        return content

    return load


# ------------------------------------------------------------------ one coordinator, its signers, a clock


Behaviour = Callable[["Net", Scalar, ToSigner, list[ToCoordinator]], list[tuple[float, ToCoordinator]]]


class Net:
    """Signers that answer after a few milliseconds, or as their behaviour has it, on a simulated clock. It watches
    that no honest signer ever gives two shares under one commitment."""

    coordinator = b"coordinator-0001"

    def __init__(self, group: Group, seed: int = 0) -> None:
        self.group, self.rng, self.now = group, Random(seed), 0.0
        self.signers = {
            i: Signer([share], lambda request, _coordinator, _now: b"signed " + request, group.entropy)
            for i, share in group.shares.items()
        }
        self.behaviours: dict[Scalar, Behaviour] = {}
        self.events: list[tuple[float, int, Scalar, ToCoordinator]] = []
        self.used: set[tuple[Scalar, bytes, bytes]] = set()
        self.sent: list[ToSigner] = []
        self._sequence = 0
        self.told_at = 0.0  # when the machine told something last
        self.said: dict[Scalar, list[ToCoordinator]] = {i: [] for i in self.signers}

    def deliver(self, signer: Scalar, message: ToSigner) -> None:
        """A message to a signer, through its wire form; its answers are under way then."""
        message = decode_to_signer(message.encode())
        self.sent.append(message)
        asked = Asked(coordinator=self.coordinator, message=message)
        answers = [o.message for o in self.signers[signer].step(self.now, asked) if isinstance(o, Answer)]
        for answer in answers:
            if isinstance(answer, ShareReply) and isinstance(message, ShareRequest):
                own = next(c for c in message.commitments if c.identifier == signer)
                assert (signer, own.hiding, own.binding) not in self.used, "a nonce was used twice"
                self.used.add((signer, own.hiding, own.binding))
        behave = self.behaviours.get(signer)
        if behave is None:
            timed = [(self.rng.uniform(0.001, 0.02), answer) for answer in answers]
        else:
            timed = behave(self, signer, message, answers)
        for delay, answer in timed:
            self._sequence += 1  # of two at the same instant the earlier
            heapq.heappush(self.events, (self.now + delay, self._sequence, signer, answer))
            self.said[signer].append(answer)

    def run(
        self, machine: Signing | Coordinator, first: Begin | Request, *, until: float = 60.0
    ) -> list[Completed | Failed | Excluded]:
        """Step `machine` until nothing is under way and no deadline is left. Returns what it told."""
        told: list[Completed | Failed | Excluded] = []
        self.take(machine.step(self.now, first), told)
        while self.now < until:
            deadline = machine.deadline
            if self.events and (deadline is None or self.events[0][0] < deadline):
                self.now, _, signer, message = heapq.heappop(self.events)
                data = decode_to_coordinator(message.encode())
                self.take(machine.step(self.now, Reply(signer=signer, message=data)), told)
            elif deadline is not None:
                self.now = deadline
                self.take(machine.step(self.now, Tick()), told)
            else:
                break
        return told

    def take(
        self,
        outputs: list[Send | Excluded | Completed | Failed],
        told: list[Completed | Failed | Excluded],
    ) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self.deliver(output.signer, output.message)
            else:
                told.append(output)
                self.told_at = self.now


@pytest.fixture(scope="session")
def new_net() -> Callable[..., Net]:
    return Net
