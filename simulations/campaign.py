"""Many stories, one seed each: told, let come to rest, and held against the invariants.

After the last fault the mesh is left alone until views and journals agree, QUIET_S_MAX at most, and then SETTLED_S
more, so that what only looks settled has time to show it.

Invariant: the outcome of a story is a function of its seed, and a report names the seeds of those that failed.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from simulations.faults import tell
from simulations.host import INBOX_DATAGRAMS_MAX
from simulations.invariants import Watch
from simulations.randomness import stream
from simulations.sometimes import Sometimes, Tally
from simulations.stories import HOSTS_MAX, Plot, plot
from simulations.world import World

QUIET_S_MAX: Final = 120.0
SETTLED_S: Final = 5.0
BEGUN_S: Final = 5.0  # for the first joins
DISK_DELAYS_S: Final = (0.002, 0.02, 0.5)  # flash, a busy disk, one that is about to fail
INBOXES: Final = (
    INBOX_DATAGRAMS_MAX,
    INBOX_DATAGRAMS_MAX,
    16,
)  # a small one overflows at a process that stands still
REAL_EVERY: Final = 8  # each so-many-th story has real keys and signatures


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one story ended. `rested_s` is how long agreement took after the last fault; None: it did not come."""

    plot: Plot
    profile: str
    crypto: str
    broken: tuple[str, ...]
    sometimes: Counter[Sometimes]
    rested_s: float | None
    events: int
    digest: str


@dataclass(slots=True)
class Report:
    """What came of all of them."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.broken]

    @property
    def sometimes(self) -> Counter[Sometimes]:
        total: Counter[Sometimes] = Counter()
        for outcome in self.outcomes:
            total.update(outcome.sometimes)
        return total

    @property
    def never(self) -> list[Sometimes]:
        """What never happened in the whole campaign."""
        seen = self.sometimes
        return [each for each in Sometimes if not seen[each]]


def tell_one(
    seed: int,
    *,
    hosts_max: int = HOSTS_MAX,
    lasts_s: float = 30.0,
    digest: bool = False,
    line: Callable[[str], None] | None = None,
) -> Outcome:
    """Tell the story of that seed and judge it."""
    plotted = plot(seed, hosts_max=hosts_max, lasts_s=lasts_s)
    profile = stream(seed, "profile").choice(["lan", "lan", "lan", "local"])
    crypto = "real" if seed % REAL_EVERY == 0 else "model"
    world = World(
        seed=seed,
        config=profile,
        size=plotted.hosts,
        crypto="real" if crypto == "real" else "model",
        disk_delay_s=stream(seed, "disk").choice(DISK_DELAYS_S),
        digest=digest,
        line=line,
    )
    watch, tally = Watch(world), Tally(world)
    inbox = stream(seed, "inbox").choice(INBOXES)
    for index in range(plotted.hosts):
        host = world.add(seeds=(0, 1) if index > 1 else (0,) if index else ())
        host.inbox_datagrams_max = inbox
        world.start(host)
    world.run(BEGUN_S)
    tell(world, plotted.story)
    world.run(plotted.lasts_s)
    rested_s = world.run_until(watch.settled, within_s=QUIET_S_MAX, grain_s=0.5)
    world.run(SETTLED_S)
    watch.final()
    return Outcome(
        plot=plotted,
        profile=profile,
        crypto=crypto,
        broken=tuple(watch.broken),
        sometimes=tally.finish(),
        rested_s=rested_s,
        events=world.events,
        digest=world.digest() if digest else "",
    )


def campaign(seeds: Iterable[int], *, hosts_max: int = HOSTS_MAX, lasts_s: float = 30.0) -> Report:
    """Tell the stories of these seeds."""
    report = Report()
    for seed in seeds:
        report.outcomes.append(tell_one(seed, hosts_max=hosts_max, lasts_s=lasts_s))
    return report
