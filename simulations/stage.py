"""Where a scenario is played: a world, what is done to it, what is measured, and the time-line of it.

Invariant: a figure is measured from the world; None says that what should be timed did not happen in time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from gossip.member import State
from peer.messages import MemberMoved
from simulations import views
from simulations.faults import Fault, happen
from simulations.host import Host
from simulations.randomness import stream
from simulations.timeline import Timeline
from simulations.world import World

Crypto = Literal["auto", "real", "model"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured. `unit` is "s", "B/s", "" …"""

    name: str
    value: float | int | None
    unit: str = ""


@dataclass(slots=True)
class Stage:
    """See the module's theory."""

    world: World
    timeline: Timeline
    figures: list[Figure] = field(default_factory=list)
    moves: list[tuple[float, int, MemberMoved]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.on_moved.append(lambda host, moved: self.moves.append((self.world.now, host.index, moved)))

    @property
    def hosts(self) -> list[Host]:
        return self.world.hosts

    def pick(self, count: int, *, but: Iterable[int] = ()) -> list[int]:
        """So many hosts at random."""
        spared = frozenset(but)
        pool = [host.index for host in self.hosts if host.index not in spared]
        return stream(self.world.seed, "scenario", len(self.figures)).sample(pool, min(count, len(pool)))

    def do(self, *faults: Fault) -> None:
        """Let these happen now."""
        for fault in faults:
            happen(self.world, fault)

    def figure(self, name: str, value: float | int | None, unit: str = "") -> None:
        self.figures.append(Figure(name, value, unit))

    def time(
        self, name: str, condition: Callable[[], bool], *, within_s: float, grain_s: float = 0.02
    ) -> bool:
        """Let time pass until `condition` holds and note how long it took."""
        took_s = self.world.run_until(condition, within_s=within_s, grain_s=grain_s)
        self.figure(name, None if took_s is None else round(took_s, 3), "s")
        return took_s is not None

    def converges(self, name: str, *, within_s: float) -> bool:
        return self.time(name, self.world.converged, within_s=within_s, grain_s=0.05)

    def first(self, subject: Host, state: State, since: float) -> float | None:
        """Seconds from `since` until somebody saw the node in that state."""
        for at, _, moved in self.moves:
            if at >= since and moved.member.id == subject.id and moved.member.state is state:
                return round(at - since, 3)
        return None

    def detections(self, subjects: Iterable[Host], since: float) -> list[float]:
        """For each observer and subject, the seconds from `since` until it saw the subject dead; sorted."""
        nodes = {host.id for host in subjects}
        seen: dict[tuple[int, bytes], float] = {}
        for at, observer, moved in self.moves:
            if at >= since and moved.member.id in nodes and moved.member.state is State.DEAD:
                seen.setdefault((observer, moved.member.id), round(at - since, 3))
        return sorted(seen.values())

    def false_alarms(self, healthy: Iterable[Host], since: float) -> tuple[int, int]:
        """(suspicions, verdicts of death) of nodes that ran all the time, over all observers."""
        nodes = {host.id for host in healthy}
        states = [
            moved.member.state for at, _, moved in self.moves if at >= since and moved.member.id in nodes
        ]
        return states.count(State.SUSPECT), states.count(State.DEAD)

    def differences(self) -> list[str]:
        """Where views are wrong now."""
        return views.differences(self.world, at_most=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A story that can be played. `warm`: begin with nodes that know one another."""

    name: str
    about: str
    nodes: int
    play: Callable[[Stage], None]
    warm: bool = True
    nodes_min: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of one."""

    scenario: Scenario
    seed: int
    nodes: int
    profile: str
    crypto: str
    seconds: float
    events: int
    figures: tuple[Figure, ...]
    differences: tuple[str, ...]
    timeline: Timeline
    digest: str


def play(
    scenario: Scenario,
    *,
    seed: int = 1,
    nodes: int | None = None,
    profile: str = "lan",
    crypto: Crypto = "auto",
    line: Callable[[str], None] | None = None,
    digest: bool = False,
) -> Played:
    """Play a scenario from beginning to end."""
    count = max(scenario.nodes_min, scenario.nodes if nodes is None else nodes)
    world = World(seed=seed, config=profile, size=count, crypto=crypto, line=line, digest=digest)
    stage = Stage(world, Timeline(world))
    for index in range(count):
        world.add(seeds=(0, 1) if index > 1 else (0,) if index else ())
    if scenario.warm:
        world.start_warm(world.hosts)
        world.run(BEFORE_S)
    scenario.play(stage)
    return Played(
        scenario=scenario,
        seed=seed,
        nodes=count,
        profile=profile,
        crypto="real" if world.mesh.is_real else "model",
        seconds=world.now - world.start_at,
        events=world.events,
        figures=tuple(stage.figures),
        differences=tuple(stage.differences()),
        timeline=stage.timeline,
        digest=world.digest() if world.trace is not None else "",
    )


BEFORE_S = 5.0  # how long a mesh runs before anything is done to it
AFTER_S = 3.0  # how long it is watched after the last thing measured
