"""The wires: how long a datagram is on its way, whether it arrives, how often, and who is cut off from whom.

Delays come from a matrix of zones: a base and a random part. Loss is uniform, or of one host's outward or inward
traffic, or of one directed pair. Cuts are walls: each says for a directed pair of hosts whether nothing passes, any
number of them stand at once under names of their own, and each is taken down by its name. The kinds of wall that come
up in practice, and in the papers (Alquraan et al., OSDI 2018: complete, partial and one-way partitions), compile to a
look-up or two; a world without walls and loss asks nothing at all.

Losses may come in bursts (Gilbert, "Capacity of a burst-noise channel", 1960): each directed pair then has a good and
a bad state, in which all or nothing passes, and stays in the bad one for `burst` datagrams on average.

What is on its way when a wall goes up still arrives.

Invariant: the dice are drawn from one stream in the order of sending, and nothing is drawn for what cannot vary.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias, TypeVar

Wall: TypeAlias = Callable[[int, int], bool]  # (from, to): whether nothing passes


class Shape(Enum):
    """How the random part of a delay is distributed; `jitter_s` is its width or its mean."""

    UNIFORM = "uniform"
    EXPONENTIAL = "exponential"  # a queue on the way: mostly short, now and then long


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One way, in seconds."""

    base_s: float
    jitter_s: float = 0.0
    shape: Shape = Shape.UNIFORM

    def draw(self, rng: random.Random) -> float:
        if self.shape is Shape.UNIFORM:
            return self.base_s + self.jitter_s * rng.random()
        return self.base_s + rng.expovariate(1 / self.jitter_s)


LAN: Final = Latency(base_s=0.0002, jitter_s=0.0003)
WAN: Final = Latency(base_s=0.04, jitter_s=0.02)


class Network:
    """See the module's theory. Hosts are their indices. `between` says what two different zones are apart, where it is
    not `within` as inside one."""

    def __init__(
        self,
        rng: random.Random,
        *,
        within: Latency = LAN,
        between: Mapping[tuple[str, str], Latency] | None = None,
    ) -> None:
        self.rng = rng
        self.within = within
        self.loss = 0.0
        self.duplication = 0.0
        self.reordering = 0.0
        self.reordered_by_s = 0.05  # at most so much later than it would have come
        self.corruption = 0.0
        self.flips = (
            True  # what is damaged arrives with a byte changed; else (where nothing would tell) not at all
        )
        self.replaying = 0.0
        self.replayed_by_s = 10.0
        self.burst = 1.0  # datagrams in a run of losses, on average
        self.lost = 0
        self.blocked = 0
        self._between = dict(between or {})
        self._zones: list[str] = []
        self._outward: dict[int, float] = {}
        self._inward: dict[int, float] = {}
        self._links: dict[tuple[int, int], float] = {}
        self._late: dict[int, Latency] = {}
        self._bad: set[tuple[int, int]] = set()  # pairs in the midst of a burst
        self._walls: dict[str, Wall] = {}
        self._wall: Wall | None = None
        self.settle()

    # ------------------------------------------------------------------ what is on it

    def attach(self, zone: str) -> int:
        """One more host; returns its index."""
        self._zones.append(zone)
        return len(self._zones) - 1

    def settle(self) -> None:
        """Take in what was set: loss and the like may be assigned, then this is called."""
        self._lossy = bool(self.loss or self._outward or self._inward or self._links)
        if not self._lossy or self.burst <= 1:
            self._bad.clear()
        # whether every datagram passes once, after a uniform delay: what most of the time of most runs is like
        self.plain = (
            not self._lossy
            and self._wall is None
            and not self.duplication
            and not self.reordering
            and not self.corruption
            and not self.replaying
            and not self._between
            and not self._late
            and self.within.shape is Shape.UNIFORM
        )

    def set_loss(self, share: float, *, source: int | None = None, target: int | None = None) -> None:
        """Lose that share of everything, of what `source` sends, of what reaches `target`, or of one direction of
        one link. 0 ends it."""
        assert 0 <= share <= 1, f"a share of {share}"
        if source is None and target is None:
            self.loss = share
        elif target is None and source is not None:
            _put(self._outward, source, share)
        elif source is None and target is not None:
            _put(self._inward, target, share)
        elif source is not None and target is not None:
            _put(self._links, (source, target), share)
        self.settle()

    @property
    def lossy(self) -> tuple[tuple[int | None, int | None], ...]:
        """Where something is lost: (source, target) as `set_loss` takes them."""
        return (
            *(((None, None),) if self.loss else ()),
            *((source, None) for source in self._outward),
            *((None, target) for target in self._inward),
            *self._links,
        )

    def set_delay(self, source: int, late: Latency | None) -> None:
        """Let what `source` sends take so much longer; None: as long as ever."""
        if late is None:
            self._late.pop(source, None)
        else:
            self._late[source] = late
        self.settle()

    def cut(self, name: str, wall: Wall) -> None:
        """Put up a wall; one of that name is replaced."""
        self._walls[name] = wall
        self._rebuild()

    def heal(self, name: str | None = None) -> None:
        """Take down that wall, or all of them with all loss, duplication and reordering."""
        if name is not None:
            self._walls.pop(name, None)
        else:
            self._walls.clear()
            self._outward.clear()
            self._inward.clear()
            self._links.clear()
            self._late.clear()
            self.loss = self.duplication = self.reordering = self.corruption = self.replaying = 0.0
            self.burst = 1.0
        self._rebuild()

    @property
    def walls(self) -> tuple[str, ...]:
        return tuple(self._walls)

    def _rebuild(self) -> None:
        walls = tuple(self._walls.values())
        if len(walls) > 1:
            self._wall = lambda source, target: any(wall(source, target) for wall in walls)
        else:
            self._wall = walls[0] if walls else None
        self.settle()

    # ------------------------------------------------------------------ what passes

    def is_cut(self, source: int, target: int) -> bool:
        """Whether nothing passes that way now."""
        return self._wall is not None and self._wall(source, target)

    def loss_of(self, source: int, target: int) -> float:
        """The share of datagrams lost that way."""
        passes = 1 - self.loss
        if self._outward:
            passes *= 1 - self._outward.get(source, 0.0)
        if self._inward:
            passes *= 1 - self._inward.get(target, 0.0)
        if self._links:
            passes *= 1 - self._links.get((source, target), 0.0)
        return 1 - passes

    def delay_s(self, source: int, target: int) -> float:
        """How long one datagram takes that way, if it passes."""
        late = self._late.get(source) if self._late else None
        if late is not None:
            return late.draw(self.rng) + self._usual_s(source, target)
        return self._usual_s(source, target)

    def _usual_s(self, source: int, target: int) -> float:
        if self._between:
            zones = self._zones[source], self._zones[target]
            if zones[0] != zones[1]:
                apart = self._between.get(zones) or self._between.get((zones[1], zones[0]))
                if apart is not None:
                    return apart.draw(self.rng)
        return self.within.draw(self.rng)

    def delays_s(self, source: int, target: int) -> Sequence[float]:
        """When each copy of one datagram arrives: none, one, or two."""
        if self._wall is not None and self._wall(source, target):
            self.blocked += 1
            return ()
        rng = self.rng
        if self._lossy:
            share = self.loss_of(source, target)
            if share and self._loses(source, target, share):
                self.lost += 1
                return ()
        first = self.delay_s(source, target)
        if self.reordering and rng.random() < self.reordering:
            first += self.reordered_by_s * rng.random()
        if self.duplication and rng.random() < self.duplication:
            return first, first + self.reordered_by_s * rng.random()
        if self.replaying and rng.random() < self.replaying:
            return first, first + self.replayed_by_s * rng.random()
        return (first,)

    def _loses(self, source: int, target: int, share: float) -> bool:
        if self.burst <= 1 or share >= 1:
            return self.rng.random() < share
        pair = (source, target)
        if pair in self._bad:
            stays = self.rng.random() >= 1 / self.burst
        else:
            stays = self.rng.random() < share / (self.burst * (1 - share))
        if stays:
            self._bad.add(pair)
        else:
            self._bad.discard(pair)
        return stays

    def damaged(self, data: bytes) -> bytes:
        """A datagram as it arrives where that share of them is damaged; empty: it does not."""
        if self.rng.random() >= self.corruption:
            return data
        if not self.flips:
            return b""
        at = self.rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1 :]


_Key = TypeVar("_Key", int, tuple[int, int])


def _put(table: dict[_Key, float], key: _Key, share: float) -> None:
    if share:
        table[key] = share
    else:
        table.pop(key, None)


# ---------------------------------------------------------------------- kinds of walls


def apart(groups: Iterable[Iterable[int]]) -> Wall:
    """Nothing passes from one group to another. Hosts in no group form one of their own."""
    side = {host: number for number, group in enumerate(groups, start=1) for host in group}

    def wall(source: int, target: int) -> bool:
        return side.get(source, 0) != side.get(target, 0)

    return wall


def bridged(first: Iterable[int], second: Iterable[int], bridge: Iterable[int]) -> Wall:
    """Two groups that reach each other only through what the bridge tells on; the bridge reaches both."""
    side = dict.fromkeys(first, 1) | dict.fromkeys(second, 2) | dict.fromkeys(bridge, 3)

    def wall(source: int, target: int) -> bool:
        return side.get(source, 3) ^ side.get(target, 3) == 3  # 1 and 2, whichever way round

    return wall


def majorities_ring(hosts: Sequence[int]) -> Wall:
    """Each host reaches a majority of all, and no two the same one: its neighbours on a ring, a little more than a
    quarter of the ring on either side."""
    place = {host: at for at, host in enumerate(hosts)}
    count = len(hosts)
    reach = (count // 2 + 1) // 2  # with itself and both sides: more than half

    def wall(source: int, target: int) -> bool:
        one, other = place.get(source), place.get(target)
        if one is None or other is None:
            return False
        distance = abs(one - other)
        return min(distance, count - distance) > reach

    return wall


def one_way(sources: Iterable[int], targets: Iterable[int]) -> Wall:
    """Nothing passes from the sources to the targets; the other way everything does."""
    mute, deaf = frozenset(sources), frozenset(targets)

    def wall(source: int, target: int) -> bool:
        return source in mute and target in deaf and source != target

    return wall
