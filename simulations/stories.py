"""Stories of mixed faults, made up from a seed.

Each story uses only some of the kinds of fault, chosen anew (swarm testing: Groce et al., ISSTA 2012): a mesh that is
cut and healed all the time never comes to see what two quiet crashes do. A story ends with everything put right, and
every host that is down up again or buried for good, so that what follows is quiet.

Invariant: a story is a function of its seed; every fault in it is one that makes sense at its time.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from simulations.faults import (
    Crash,
    Cut,
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
    Story,
)
from simulations.host import Keeps
from simulations.randomness import stream

HOSTS_MIN: Final = 3
HOSTS_MAX: Final = 12
JOINED_MAX: Final = 3
SIZES: Final = (60, 400, 900, 3000, 16_000)  # of records: some ride on a datagram, some need a stream
DISK_LOST_APART_S: Final = 5.0  # from a partition
KNOWING_MIN: Final = 2  # hosts that have kept their disks, so that somebody can tell the others


@dataclass(slots=True)
class _Author:
    """Writes one story, knowing how each host stands."""

    rng: random.Random
    count: int
    up: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    skewed: set[int] = field(default_factory=set)
    slow: set[int] = field(default_factory=set)
    blank: set[int] = field(default_factory=set)  # whose disk was lost some time
    walls: int = 0
    standing: set[str] = field(default_factory=set)
    disk_lost_at: float = -math.inf
    at: float = 0.0
    keys: int = 0
    told: list[tuple[float, Fault]] = field(default_factory=list)

    def one(self, hosts: set[int]) -> int:
        return self.rng.choice(sorted(hosts))

    def groups(self, parts: int) -> tuple[tuple[int, ...], ...]:
        """All hosts dealt out to so many groups, none of them empty."""
        dealt = self.rng.sample(range(self.count), self.count)
        cuts = sorted(self.rng.sample(range(1, self.count), parts - 1))
        bounds = [0, *cuts, self.count]
        return tuple(tuple(dealt[a:b]) for a, b in pairwise(bounds))

    # ------------------------------------------------------------------ kinds of fault; None: not now

    def crash(self) -> Fault | None:
        if len(self.up) < 2:
            return None
        host = self.one(self.up)
        self.up.discard(host)
        self.stopped.discard(host)
        self.slow.discard(host)
        return Crash(host=host, power=self.rng.random() < 0.3)

    def restart(self) -> Fault | None:
        """A disk is lost only where others can tell what was on it: on the wrong side of a partition nobody may, and
        the node would number its records anew from what it is told (`peer/node_doubt.py`)."""
        down = set(range(self.count)) - self.up
        host = self.one(down) if down and self.rng.random() < 0.7 else self.rng.randrange(self.count)
        keeps = self.rng.choices([Keeps.ALL, Keeps.IDENTITY, Keeps.NOTHING], [6, 2, 1])[0]
        if keeps is Keeps.IDENTITY:
            knowing = self.up - self.stopped - self.blank - {host}
            if host in self.up or self.standing or len(knowing) < KNOWING_MIN:
                return None
            self.disk_lost_at = self.at
            self.blank.add(host)
        self.up.add(host)
        self.stopped.discard(host)
        self.slow.discard(host)
        return Restart(host=host, keeps=keeps)

    def pause(self) -> Fault | None:
        if self.stopped and self.rng.random() < 0.6:
            host = self.one(self.stopped)
            self.stopped.discard(host)
            return Resume(host=host)
        if not self.up - self.stopped:
            return None
        host = self.one(self.up - self.stopped)
        self.stopped.add(host)
        return Pause(host=host)

    def slowness(self) -> Fault | None:
        if not self.up:
            return None
        host = self.one(self.up)
        self.slow.add(host)
        self.stopped.discard(host)
        if self.rng.random() < 0.3:
            return Slow(host=host, service_s=self.rng.choice([0.002, 0.01, 0.05]))
        blocked_s = self.rng.choice([0.05, 0.3, 1.0, 4.0])
        return Slow(host=host, blocked_s=blocked_s, running_s=blocked_s * self.rng.choice([0.1, 0.5, 2.0]))

    def wall(self) -> Fault | None:
        if self.at - self.disk_lost_at < DISK_LOST_APART_S:
            return None
        if self.standing and self.rng.random() < 0.5:
            name = self.rng.choice(sorted(self.standing))
            self.standing.discard(name)
            return Heal(name=name)
        name = f"wall {self.walls}"
        self.walls += 1
        self.standing.add(name)
        kind = self.rng.choice(["halves", "bridge", "ring", "one way", "deaf"])
        match kind:
            case "halves":
                return Partition(name=name, kind=Cut.APART, groups=self.groups(2))
            case "bridge":
                return Partition(name=name, kind=Cut.BRIDGE, groups=self.groups(3))
            case "ring" if self.count >= 5:
                return Partition(name=name, kind=Cut.RING, groups=(tuple(range(self.count)),))
            case "deaf":
                host = self.rng.randrange(self.count)
                everybody = tuple(range(self.count))
                return OneWay(name=name, sources=everybody, targets=(host,))
            case _:
                mute, deaf = self.groups(2)
                return OneWay(name=name, sources=mute, targets=deaf)

    def loss(self) -> Fault | None:
        share = self.rng.choice([0.05, 0.3, 0.5, 0.8])
        match self.rng.randrange(4):
            case 0:
                return Loss(share=min(share, 0.5))
            case 1:
                return Loss(share=share, source=self.rng.randrange(self.count))
            case 2:
                return Loss(share=share, target=self.rng.randrange(self.count))
            case _:
                source, target = self.rng.sample(range(self.count), 2)
                return Loss(share=1.0, source=source, target=target)

    def disorder(self) -> Fault | None:
        return Disorder(
            duplication=self.rng.choice([0.0, 0.1, 0.5]), reordering=self.rng.choice([0.0, 0.2, 0.5])
        )

    def skew(self) -> Fault | None:
        host = self.rng.randrange(self.count)
        self.skewed.add(host)
        most_s = self.rng.choice([2.0, 2.0, 8.0])  # the last is further than a record may be stamped ahead
        offset_s, drift = self.rng.uniform(-most_s, most_s), self.rng.choice([0.0, 1e-3, -1e-3])
        return Skew(host=host, offset_s=round(offset_s, 3), drift=drift)

    def leave(self) -> Fault | None:
        if len(self.up) < 3:
            return None
        host = self.one(self.up)
        self.up.discard(host)
        return Leave(host=host)

    def join(self) -> Fault | None:
        if self.count >= HOSTS_MAX + JOINED_MAX:
            return None
        self.up.add(self.count)
        self.count += 1
        return Join(seeds=(0, 1))

    def publish(self) -> Fault | None:
        if not self.up:
            return None
        self.keys += 1
        key = f"k{self.keys if self.rng.random() < 0.5 else self.rng.randrange(1, self.keys + 1)}"
        return Publish(host=self.one(self.up), key=key, size=self.rng.choice(SIZES))

    def delete(self) -> Fault | None:
        """Of something that may be there."""
        if not self.up or not self.keys:
            return None
        return Delete(host=self.one(self.up), key=f"k{self.rng.randrange(1, self.keys + 1)}")

    def ending(self) -> list[Fault]:
        """Put everything right."""
        ending: list[Fault] = [Heal()]
        ending += [Resume(host=host) for host in sorted(self.stopped)]
        ending += [Slow(host=host) for host in sorted(self.slow)]
        ending += [Skew(host=host) for host in sorted(self.skewed)]
        for host in sorted(set(range(self.count)) - self.up):
            # a newcomer may know nobody but its seeds, so one of them has to be there
            if self.rng.random() < 0.6 or (host == 1 and not self.up & {0, 1}):
                self.up.add(host)
                ending.append(Restart(host=host))
        return ending


_KINDS: Final[tuple[tuple[Callable[[_Author], Fault | None], int], ...]] = (
    (_Author.crash, 3),
    (_Author.restart, 3),
    (_Author.pause, 3),
    (_Author.slowness, 2),
    (_Author.wall, 4),
    (_Author.loss, 3),
    (_Author.disorder, 1),
    (_Author.skew, 1),
    (_Author.leave, 1),
    (_Author.join, 1),
    (_Author.publish, 4),
    (_Author.delete, 2),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A story and the mesh it begins with."""

    seed: int
    hosts: int
    story: Story
    lasts_s: float


def plot(seed: int, *, hosts_max: int = HOSTS_MAX, lasts_s: float = 30.0) -> Plot:
    """The story of that seed."""
    rng = stream(seed, "story")
    count = rng.randint(HOSTS_MIN, hosts_max)
    author = _Author(rng, count, up=set(range(count)))
    chosen = rng.sample(_KINDS, rng.randint(3, len(_KINDS)))
    acts, weights = [act for act, _ in chosen], [weight for _, weight in chosen]
    at, told = 0.0, author.told
    pace_s = rng.choice([0.5, 2.0, 5.0])
    while True:
        author.at = at = at + rng.expovariate(1 / pace_s)
        if at >= lasts_s:
            break
        fault = rng.choices(acts, weights)[0](author)
        if fault is not None:
            told.append((round(at, 3), fault))
    told += [(lasts_s, fault) for fault in author.ending()]
    return Plot(seed=seed, hosts=count, story=tuple(told), lasts_s=lasts_s)
