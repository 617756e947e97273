"""What is seen of a real mesh while faults happen to it, and the verdict.

Views are asked of every peer through its admin socket, all at once, every LOOK_EVERY_S; a peer that does not answer
(it is stopped, or starting) has no view. Policies are followed as in Jepsen's test `set-full`: every write is one of
its own, and is remembered as acknowledged, refused or unknown (nobody answered); in the end an acknowledged one is
there or was deleted, and one whose deletion was acknowledged is not.

Invariant: nothing here changes the mesh but `Policies`, whose writes are the workload.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.drivers.real_node import RealNode
from chaos.hypothesis import Invariant
from chaos.journal import VIOLATIONS_MAX, Lane, Seen, Violation
from peer.admin.client import ClientError

LOOK_EVERY_S: Final = 0.5
STATES: Final = ("alive", "suspect", "dead", "left")
NAMESPACE: Final = "chaos"
ANSWER_S_MAX: Final = 10.0

View = dict[str, tuple[str, int, int]]  # by name: state, boot, incarnation


@dataclass(slots=True)
class Views:
    """How the peers see one another, over time."""

    nodes: Sequence[RealNode]
    now: Any
    violations: list[Violation]
    latest: dict[str, View] = field(default_factory=dict)
    wrong: int = 0
    suspicions: int = 0
    reachable: Any = None  # (observer, subject) -> whether nothing stands between them
    _steps: dict[str, list[Seen]] = field(default_factory=dict)
    _truth: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    _ranks: dict[tuple[str, int], dict[str, tuple[int, int]]] = field(default_factory=dict)
    _accused: set[tuple[str, str, str]] = field(default_factory=set)

    def begin(self) -> None:
        """Time begins now: what was seen while the mesh was made is no part of the story."""
        self._steps.clear()
        self._truth.clear()

    async def look(self) -> None:
        """Ask everybody that is meant to run."""
        asked = [node for node in self.nodes if node.running and not node.impaired]
        answers = await asyncio.gather(*(asyncio.to_thread(_view_of, node) for node in asked))
        at_s = round(self.now(), 3)
        self.latest = {
            node.name: view
            for node, view in zip(asked, answers, strict=True)
            if view is not None and node.running
        }
        for node in asked:
            if node.name in self.latest:
                self._check(node, self.latest[node.name], at_s)
        for node in self.nodes:
            self._note(node, at_s)

    def _check(self, node: RealNode, view: View, at_s: float) -> None:
        ranks = self._ranks.setdefault((node.name, node.lives), {})
        for name, (state, boot, incarnation) in view.items():
            before = ranks.get(name)
            if before is not None and (boot, incarnation) < before:
                self._violate(
                    Invariant.MONOTONE,
                    at_s,
                    node.name,
                    f"saw {name} at {before}, now at {(boot, incarnation)}",
                )
            ranks[name] = (boot, incarnation)
            accusation = (node.name, name, state)
            if state not in ("dead", "suspect"):
                self._accused -= {(node.name, name, "dead"), (node.name, name, "suspect")}
            elif accusation not in self._accused:
                self._accused.add(accusation)
                if self._is_well(node, name, boot):
                    self.wrong += state == "dead"
                    self.suspicions += state == "suspect"

    def _is_well(self, observer: RealNode, name: str, boot: int) -> bool:
        """Whether that life of that node runs, undisturbed, with nothing between it and the observer."""
        subject = next((each for each in self.nodes if each.name == name), None)
        own = self.latest.get(name, {}).get(name)
        return (
            subject is not None
            and subject.running
            and subject.wanted
            and not (subject.impaired or observer.impaired)
            and own is not None
            and own[1] == boot
            and self.reachable(observer.name, name)
        )

    def _note(self, node: RealNode, at_s: float) -> None:
        counts = [0, 0, 0, 0]
        for observer, view in self.latest.items():
            if observer != node.name and node.name in view:
                counts[STATES.index(view[node.name][0])] += 1
        step = Seen(at_s=at_s, alive=counts[0], suspect=counts[1], dead=counts[2], left=counts[3])
        steps = self._steps.setdefault(node.name, [])
        if not steps or (steps[-1].alive, steps[-1].suspect, steps[-1].dead, steps[-1].left) != tuple(counts):
            steps.append(step)
        truth = "impaired" if node.running and node.impaired else "running" if node.running else "down"
        told = self._truth.setdefault(node.name, [])
        if not told or told[-1][1] != truth:
            told.append((at_s, truth))

    def differences(self) -> list[str]:
        """Where a running peer does not see exactly the running peers alive."""
        live = {node.name for node in self.nodes if node.running and node.wanted}
        found = []
        for name in sorted(live):
            view = self.latest.get(name)
            if view is None:
                found.append(f"{name} does not answer")
                continue
            seen = {other for other, (state, _, _) in view.items() if state in ("alive", "suspect")}
            found += [f"{name} does not see {other}, which runs" for other in sorted(live - seen)]
            found += [f"{name} sees {other}, which does not run" for other in sorted(seen - live)]
            found += [
                f"{name} suspects {other}" for other in sorted(live & seen) if view[other][0] == "suspect"
            ]
        return found

    def lanes(self) -> list[Lane]:
        return [
            Lane(
                node=node.name,
                seen=tuple(self._steps.get(node.name, ())),
                truth=tuple(self._truth.get(node.name, ())),
            )
            for node in self.nodes
        ]

    def _violate(self, invariant: Invariant, at_s: float, node: str, what: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(
                Violation(invariant=invariant.value, at_s=at_s, what=f"{node} {what}", node=node)
            )


def _view_of(node: RealNode) -> View | None:
    try:
        rows = node.client.members()
    except ClientError:
        return None
    view: View = {}
    for row in rows:
        name, seen = str(row["name"]), (str(row["state"]), int(row["boot"]), int(row["incarnation"]))
        if name not in view or view[name][1] <= seen[1]:  # who came back as somebody else has a later boot
            view[name] = seen
    return view


@dataclass(slots=True)
class Policies:
    """The workload of policies, and what became of each."""

    nodes: Sequence[RealNode]
    rng: random.Random
    deletes: float
    size: int
    acknowledged: dict[str, str] = field(default_factory=dict)  # name -> the node that said so
    unknown: set[str] = field(default_factory=set)
    deleted: dict[str, str] = field(default_factory=dict)  # name -> the node that said so
    perhaps_deleted: set[str] = field(default_factory=set)
    refused: int = 0
    _number: int = 0

    async def write(self) -> None:
        """One more, or one less."""
        running = [node for node in self.nodes if node.running and node.wanted and not node.impaired]
        if not running:
            return
        node = self.rng.choice(running)
        live = sorted(self.acknowledged.keys() - self.deleted.keys() - self.perhaps_deleted)
        if live and self.rng.random() < self.deletes:
            await self._delete(node, self.rng.choice(live))
        else:
            self._number += 1
            await self._add(node, f"p{self._number}")

    def disown(self, node: str) -> None:
        """What that node has said counts for nothing: nobody believes it any more, nor what it wrote."""
        self.unknown |= {name for name, author in self.acknowledged.items() if author == node}
        self.perhaps_deleted |= {name for name, author in self.deleted.items() if author == node}
        self.acknowledged = {name: author for name, author in self.acknowledged.items() if author != node}
        self.deleted = {name: author for name, author in self.deleted.items() if author != node}

    async def _add(self, node: RealNode, name: str) -> None:
        self.unknown.add(name)
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await asyncio.to_thread(node.client.apply, [_document(name, self.size)], "chaos")
        except ClientError:
            self.refused += 1  # it may have been written all the same, if the peer died while answering
        except TimeoutError:
            return
        else:
            self.unknown.discard(name)
            self.acknowledged[name] = node.name

    async def _delete(self, node: RealNode, name: str) -> None:
        self.perhaps_deleted.add(name)
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                rows = await asyncio.to_thread(node.client.delete, [("TrafficPolicy", NAMESPACE, name)])
        except (ClientError, TimeoutError):
            return
        if any(row.get("action") == "deleted" for row in rows):
            self.perhaps_deleted.discard(name)
            self.deleted[name] = node.name

    async def held(self) -> dict[str, frozenset[str]]:
        """What each running peer has; nothing for one that does not answer."""
        running = [node for node in self.nodes if node.running and node.wanted]
        answers = await asyncio.gather(*(asyncio.to_thread(_held_by, node) for node in running))
        return {node.name: have for node, have in zip(running, answers, strict=True) if have is not None}

    def broken(self, held: dict[str, frozenset[str]], at_s: float) -> list[Violation]:
        """Held against what was acknowledged."""
        found = []
        for node, have in sorted(held.items()):
            for name in sorted(self.acknowledged.keys() - self.deleted.keys() - self.perhaps_deleted - have):
                what = f"{node} lacks {name}, which {self.acknowledged[name]} acknowledged"
                found.append(Violation(invariant=Invariant.NO_LOSS.value, at_s=at_s, what=what, node=node))
            for name in sorted(self.deleted.keys() & have):
                what = f"{node} has {name}, whose deletion was acknowledged"
                found.append(
                    Violation(invariant=Invariant.NO_RESURRECTION.value, at_s=at_s, what=what, node=node)
                )
        return found


def _held_by(node: RealNode) -> frozenset[str] | None:
    try:
        rows = node.client.get("TrafficPolicy", NAMESPACE)
    except ClientError:
        return None
    return frozenset(str(row["metadata"]["name"]) for row in rows)


def _document(name: str, size: int) -> dict[str, Any]:
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"chaos/filler": "." * size}},
        "spec": {"targetRefs": [{"kind": "Service", "name": name}], "timeouts": {"request": "5s"}},
    }
