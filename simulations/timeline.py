"""How each node was seen over time: by what share of the others, and what it really was meanwhile.

Kept as steps: a row is told of only when it changes. A node is seen by the nodes that run (and have not left) only; the
opinion of one that is gone counts no more.

Invariant: the counts of a row are what one would get by asking every running node.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from gossip.member import State
from peer.messages import MemberMoved
from simulations.faults import (
    Crash,
    Delete,
    Disorder,
    Fault,
    Heal,
    Join,
    Leave,
    Loss,
    OneWay,
    Partition,
    Pause,
    Publish,
    Restart,
    Resume,
    Skew,
    Slow,
)
from simulations.host import Host
from simulations.world import World

UNKNOWN_S: Final = 0.25  # a newcomer needs a moment to hear of everybody
STATES: Final = (State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT)


class Truth(Enum):
    """What a host really was."""

    RUNNING = "running"
    IMPAIRED = "stopped or slow"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Step:
    """From `at` (seconds since the start) so many see it in each of STATES, of so many that could."""

    at: float
    seen: tuple[int, int, int, int]
    observers: int


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted: a partition, a loss."""

    label: str
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to one host, or to the mesh (None)."""

    at: float
    label: str
    host: int | None


@dataclass(slots=True)
class _Row:
    seen: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    steps: list[Step] = field(default_factory=list)
    truth: list[tuple[float, Truth]] = field(default_factory=list)


class Timeline:
    """Listens to one world from the moment it is made."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rows: dict[int, _Row] = {}
        # by observer, while it runs: how it sees each node, if otherwise than its base says
        self._views: dict[int, dict[bytes, State]] = {}
        self._base: dict[bytes, State] = {}  # what those see that knew one another from the start
        self._warm: set[int] = set()  # them, while they live their first life
        self._warm_at = 0.0
        self._counted = True  # whether the rows say so already
        self._open: dict[str, tuple[str, float]] = {}
        self._spans: list[Span] = []
        self.marks: list[Mark] = []
        world.on_moved.append(self._moved)
        world.on_life.append(self._life)
        world.on_fault.append(self._fault)

    @property
    def now(self) -> float:
        return self._world.now - self._world.start_at

    @property
    def hosts(self) -> Sequence[int]:
        if not self._counted:
            self._count_warm()
        return sorted(self._rows)

    def steps(self, host: int) -> Sequence[Step]:
        return self._rows[host].steps

    def truth(self, host: int) -> Sequence[tuple[float, Truth]]:
        return self._rows[host].truth

    def eventful(self, host: int) -> bool:
        """Whether anything was done to it, or anybody saw it otherwise than alive, or did not know it for long."""
        row = self._rows[host]
        if len(row.truth) > 1 or any(mark.host == host for mark in self.marks):
            return True
        followed = zip(row.steps, [*row.steps[1:], Step(self.now, (0, 0, 0, 0), 0)], strict=True)
        return any(
            any(step.seen[1:]) or (step.seen[0] < step.observers - 1 and following.at - step.at > UNKNOWN_S)
            for step, following in followed
        )

    def spans(self) -> list[Span]:
        """What lasted; what still does lasts until now."""
        return self._spans + [Span(label, begun, self.now) for label, begun in self._open.values()]

    # ------------------------------------------------------------------ what is heard

    def _row(self, host: int) -> _Row:
        return self._rows.setdefault(host, _Row())

    def _count_warm(self) -> None:
        """Let the rows of those that knew one another from the start say so, once for all of them."""
        self._counted = True
        for index in self._warm:
            row = self._rows[index]
            row.seen[0] += len(self._warm) - 1
            row.steps.append(Step(self._warm_at, (row.seen[0], 0, 0, 0), len(self._warm)))

    def _moved(self, host: Host, moved: MemberMoved) -> None:
        self._see(host.index, moved.member.id, moved.member.state)

    def _see(self, observer: int, node: bytes, state: State) -> None:
        if not self._counted:
            self._count_warm()
        subject = self._world.host_of(node)
        view = self._views.setdefault(observer, {})
        before = view.get(node)
        if before is None and observer in self._warm:
            before = self._base.get(node)
        view[node] = state
        if subject is None or subject.index == observer or before is state:
            return
        if subject.id != node:
            return  # the host has another identity by now
        row = self._row(subject.index)
        if before is not None:
            row.seen[STATES.index(before)] -= 1
        row.seen[STATES.index(state)] += 1
        self._step(row)

    def _step(self, row: _Row) -> None:
        step = Step(self.now, (row.seen[0], row.seen[1], row.seen[2], row.seen[3]), len(self._views))
        if row.steps and row.steps[-1].at == step.at:
            row.steps[-1] = step
        else:
            row.steps.append(step)

    def _life(self, host: Host, what: str) -> None:
        row = self._row(host.index)
        if what == "warm":
            row.truth.append((self.now, Truth.RUNNING))
            self._views[host.index] = {}
            self._base[host.id] = State.ALIVE
            self._warm.add(host.index)
            self._counted, self._warm_at = False, self.now
            return
        if not self._counted:
            self._count_warm()
        if what == "start":
            if not self._known(host):
                row.seen = [0, 0, 0, 0]
            row.truth.append((self.now, Truth.RUNNING))
            self._views[host.index] = {}
        elif what == "crash":
            row.truth.append((self.now, Truth.DOWN))
            self._forget(host)
        else:
            return
        for each in self._rows.values():
            self._step(each)  # one more, or less, that could see it

    def _forget(self, host: Host) -> None:
        """The opinions of a node that is gone."""
        view = self._views.pop(host.index, {})
        if host.index in self._warm:
            view = self._base | view
            self._warm.discard(host.index)
        for node, state in view.items():
            subject = self._world.host_of(node)
            if subject is not None and subject is not host and subject.id == node:
                self._rows[subject.index].seen[STATES.index(state)] -= 1

    def _known(self, host: Host) -> bool:
        """Whether anybody has an opinion of the node this host runs."""
        if host.id in self._base and self._warm:
            return True
        return any(host.id in view for view in self._views.values())

    def _fault(self, fault: Fault) -> None:
        match fault:
            case Partition():
                self._begin(fault.name, fault.name)
            case OneWay():
                self._begin(fault.name, fault.name)
            case Heal():
                self._end([fault.name] if fault.name is not None else list(self._open))
            case Loss():
                key = f"loss {fault.source} {fault.target}"
                whose = "" if fault.source is None else f" from n{fault.source}"
                whose += "" if fault.target is None else f" to n{fault.target}"
                self._end([key])
                if fault.share:
                    self._begin(key, f"{fault.share:.0%} loss{whose}")
            case Disorder():
                self._end(["disorder"])
                if fault.duplication or fault.reordering:
                    self._begin("disorder", f"{fault.duplication:.0%} twice, {fault.reordering:.0%} late")
            case Pause():
                self._row(fault.host).truth.append((self.now, Truth.IMPAIRED))
                self.marks.append(Mark(self.now, "stopped", fault.host))
            case Slow():
                slow = bool(fault.blocked_s or fault.service_s)
                if self._world.hosts[fault.host].up:
                    truth = Truth.IMPAIRED if slow else Truth.RUNNING
                    self._row(fault.host).truth.append((self.now, truth))
                self.marks.append(Mark(self.now, "slow" if slow else "quick again", fault.host))
            case Resume():
                if self._world.hosts[fault.host].up:
                    self._row(fault.host).truth.append((self.now, Truth.RUNNING))
                self.marks.append(Mark(self.now, "resumed", fault.host))
            case Crash():
                self.marks.append(Mark(self.now, "crash", fault.host))
            case Restart():
                self.marks.append(Mark(self.now, "restart", fault.host))
            case Leave():
                self.marks.append(Mark(self.now, "leave", fault.host))
            case Skew():
                self.marks.append(Mark(self.now, f"clock {fault.offset_s:+g} s", fault.host))
            case Publish() | Delete():
                self.marks.append(Mark(self.now, "record", fault.host))
            case Join():
                self.marks.append(Mark(self.now, "join", None))

    def _begin(self, key: str, label: str) -> None:
        self._end([key])
        self._open[key] = label, self.now

    def _end(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._open:
                label, begun = self._open.pop(key)
                self._spans.append(Span(label, begun, self.now))
