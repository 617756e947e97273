"""Experiments made up from a seed; `chaos/campaign.py` runs many of them.

Swarm testing (Groce et al., ISSTA 2012): each experiment is allowed only some kinds of fault, drawn anew, because a
mesh to which everything happens all the time never comes to see what two quiet crashes do. Topology, profile, workload
and the pace of faults are drawn as well. What is drawn is an experiment like any other (`chaos/plan.py` has made its
choices), so a run that fails is kept as a file that anybody can run, read and shrink.

Disks are lost only where somebody is left who knows what was on them and can be reached: a node that nobody can tell
numbers its records anew, which is a limit of the design and not a finding (`peer/node_doubt.py`). So it is where the
power goes at a disk that lied about its syncs, or an old database is put back; and it does not go while datagrams are
lost or damaged, since what the disk said to have synced may not have spread (seed 1439 of the first campaign). Two of
those who know are left alone until the disk is back and its node has asked (seed 1669: all of them were killed or
suspended meanwhile, and one that had been away was there to be asked). Few lie, and never the seeds: a newcomer that
knows nobody but a liar knows nothing.

Invariant: an experiment is a function of its seed; it ends with the network whole and nobody stopped.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.experiment import Experiment, read
from chaos.fault import Lie
from chaos.plan import resolve
from simulations.randomness import stream
from trust.ceremony.electorate import majority

NODES_MIN: Final = 3
NODES_MAX: Final = 12
LASTS_S: Final = (20.0, 40.0, 60.0)
PACES_S: Final = (1.0, 3.0, 6.0)
EVENTS_MAX: Final = 40
DISK_LOST_APART_S: Final = 8.0  # between the loss of a disk and a partition
KNOWING_MIN: Final = 2
SPREAD_S: Final = (
    3.0  # a disk comes back without what it said to have synced only when the others have heard of it
)
HONEST_PER_LIAR: Final = 4
SEEDS: Final = 2
SIGNED: Final = 0.3  # of the meshes
CERTIFICATES_S: Final = (20.0, 40.0, 120.0)
WITHIN_S: Final = 120.0

Plain = dict[str, Any]


@dataclass(slots=True)
class _Author:
    """Draws the timeline of one experiment."""

    rng: random.Random
    nodes: int
    zones: bool
    lasts_s: float
    liars: tuple[int, ...] = ()
    at: float = 0.0
    down_until: dict[int, float] = field(default_factory=dict)
    cut_until: float = 0.0
    cut_from: float = 1e9
    disk_lost_at: float = -1e9
    blank: set[int] = field(default_factory=set)
    absent_until: dict[int, float] = field(default_factory=dict)  # suspended, or slow
    witness_until: dict[int, float] = field(
        default_factory=dict
    )  # must be there to tell what was on a lost disk
    deceived_until: dict[int, float] = field(default_factory=dict)  # by a disk that lies about its syncs
    rough_until: float = 0.0  # what is told may not arrive, or be read much later
    joined: int = 0

    def up(self) -> list[int]:
        return [index for index in range(self.nodes) if self.down_until.get(index, 0.0) <= self.at]

    def some(self, most: int = 3) -> list[int]:
        pool = [index for index in self.up() if self.witness_until.get(index, 0.0) <= self.at]
        return sorted(self.rng.sample(pool, self.rng.randint(1, min(most, len(pool))))) if pool else []

    def last(self, longest_s: float = 20.0) -> float:
        """How long a fault lasts: at most to the end of the timeline."""
        return round(min(self.rng.uniform(0.5, longest_s), self.lasts_s - self.at), 3)

    def away(self, picked: Iterable[int], lasts_s: float) -> None:
        """They run and may not answer in time."""
        for index in picked:
            self.absent_until[index] = max(self.absent_until.get(index, 0.0), self.at + lasts_s)

    # ------------------------------------------------------------------ kinds; None: not now

    def partition(self) -> Plain | None:
        if self.at - self.disk_lost_at < DISK_LOST_APART_S:
            return None
        shapes = ["halves", "one", "third", "one-way", "deaf"]
        shapes += ["bridge"] if self.nodes >= 3 else []
        shapes += ["majorities-ring"] if self.nodes >= 5 else []
        shapes += ["zones"] if self.zones else []
        lasts_s = self.last(30.0)
        self.cut_until = max(self.cut_until, self.at + lasts_s)
        return {"fault": "partition", "shape": self.rng.choice(shapes), "for": lasts_s}

    def loss(self) -> Plain | None:
        share = self.rng.choice([0.05, 0.3, 0.5, 0.8])
        plain: Plain = {"fault": "loss", "share": min(share, 0.5), "for": self.last()}
        if self.rng.random() < 0.6:
            plain["pick"] = _names(picked) if (picked := self.some(2)) else {"count": 1}
            plain["share"], plain["direction"] = share, self.rng.choice(["out", "in", "both"])
        if self.rng.random() < 0.3:
            plain["burst"] = self.rng.choice([3, 20])
        self.rough_until = max(self.rough_until, self.at + plain["for"])
        return plain

    def delay(self) -> Plain | None:
        picked = self.some()
        delay_s, jitter_s = self.rng.choice([(0.02, 0.01), (0.2, 0.2), (1.0, 0.5)])
        if not picked:
            return None
        return {
            "fault": "delay",
            "delay": delay_s,
            "jitter": jitter_s,
            "pick": _names(picked),
            "for": self.last(),
        }

    def disorder(self) -> Plain | None:
        kinds = self.rng.sample(["duplicate", "reorder", "corrupt", "replay"], self.rng.randint(1, 3))
        shares = {kind: self.rng.choice([0.1, 0.2, 0.5]) for kind in kinds}
        lasts_s = self.last()
        self.rough_until = max(self.rough_until, self.at + lasts_s)
        return {"fault": "disorder", **shares, "for": lasts_s}

    def kill(self) -> Plain | None:
        picked = self.some(max(1, self.nodes // 3))
        if not picked or len(self.up()) - len(picked) < 1:
            return None
        lasts_s, keeps, power = self.last(15.0), "all", self.rng.random() < 0.3
        deceived = [index for index in picked if self.deceived_until.get(index, 0.0) > self.at]
        if deceived and self.at < self.rough_until:
            power = False
        if deceived and power:
            lasts_s = max(lasts_s, SPREAD_S)
        apart = [*picked, *self.blank, *self.liars]
        here = [index for index in self.up() if self.absent_until.get(index, 0.0) <= self.at]
        knowing = [index for index in here if index not in apart]
        lossy = len(knowing) >= KNOWING_MIN and self.at > self.cut_until
        lossy = lossy and self.at + lasts_s + DISK_LOST_APART_S < self.lasts_s
        if lossy and ((deceived and power) or self.rng.random() < 0.2):
            picked = deceived[:1] if deceived and power else picked[:1]
            if not (deceived and power):
                keeps = self.rng.choice(["identity", "nothing", "backup"])
            back_at = self.at + lasts_s
            self.disk_lost_at = max(self.disk_lost_at, back_at)
            self.blank.update(picked)
            for index in knowing[:KNOWING_MIN]:
                until = max(back_at + DISK_LOST_APART_S, self.witness_until.get(index, 0.0))
                self.witness_until[index] = until
        elif deceived:
            power = False
        self.down_until |= dict.fromkeys(picked, self.at + lasts_s)
        plain: Plain = {"fault": "kill", "pick": _names(picked), "for": lasts_s, "keeps": keeps}
        return plain | {"power": power}

    def pause(self) -> Plain | None:
        picked = self.some()
        if not picked:
            return None
        lasts_s = self.last(12.0)
        self.away(picked, lasts_s)
        return {"fault": "pause", "pick": _names(picked), "for": lasts_s}

    def slow(self) -> Plain | None:
        picked = self.some()
        if not picked:
            return None
        plain: Plain = {"fault": "slow", "pick": _names(picked), "for": self.last()}
        self.away(picked, plain["for"])
        if self.rng.random() < 0.3:
            return plain | {"each": self.rng.choice([0.002, 0.01, 0.05])}
        blocked_s = self.rng.choice([0.05, 0.3, 1.0, 4.0])
        if blocked_s >= SPREAD_S:
            self.rough_until = max(self.rough_until, self.at + plain["for"])
        return plain | {
            "blocked": blocked_s,
            "running": round(blocked_s * self.rng.choice([0.1, 0.5, 2.0]), 3),
        }

    def restart(self) -> Plain | None:
        picked = self.some(self.nodes)
        if not picked or len(picked) >= len(self.up()):
            return None
        every_s = self.rng.choice([0.0, 0.5, 2.0])
        self.down_until |= dict.fromkeys(picked, self.at + every_s * len(picked) + 2.0)
        graceful = self.rng.random() < 0.5
        return {"fault": "restart", "pick": _names(picked), "every": every_s, "graceful": graceful}

    def flap(self) -> Plain | None:
        picked = self.some(1)
        lasts_s = self.last(10.0)
        if not picked or len(self.up()) < 3:
            return None
        self.down_until |= dict.fromkeys(picked, self.at + lasts_s)
        return {"fault": "flap", "pick": _names(picked), "every": self.rng.choice([1.0, 3.0]), "for": lasts_s}

    def leave(self) -> Plain | None:
        picked = self.some(1)
        if not picked or len(self.up()) < 3:
            return None
        lasts_s = max(self.last(10.0), 3.0)
        self.down_until |= dict.fromkeys(picked, self.at + lasts_s)
        return {"fault": "leave", "pick": _names(picked), "for": lasts_s}

    def join(self) -> Plain | None:
        if self.joined >= 3 or not {0, 1} & set(self.up()):
            return None
        self.joined += 1
        return {"fault": "join"}

    def swizzle(self) -> Plain | None:
        if self.at - self.disk_lost_at < DISK_LOST_APART_S or self.nodes < 4:
            return None
        lasts_s = self.last(15.0)
        every_s = self.rng.choice([0.2, 1.0])
        self.cut_until = max(self.cut_until, self.at + lasts_s + every_s * self.nodes)
        return {"fault": "swizzle", "every": every_s, "for": lasts_s}

    def clock(self) -> Plain | None:
        offset = round(self.rng.uniform(-8, 8), 3)
        picked = self.some(2)
        if not picked:
            return None
        drift = self.rng.choice([0.0, 0.001, -0.001])
        return {
            "fault": "clock",
            "offset": offset,
            "drift": drift,
            "pick": _names(picked),
            "for": self.last(),
        }

    def disk(self) -> Plain | None:
        picked = self.some(2)
        if not picked:
            return None
        how, lasts_s = self.rng.choice(["full", "lying-fsync"]), self.last()
        if how == "lying-fsync":
            self.deceived_until |= dict.fromkeys(picked, self.at + lasts_s)
        return {"fault": "disk", "how": how, "pick": _names(picked), "for": lasts_s}

    def byzantine(self) -> Plain | None:
        if not self.liars:
            return None
        lie = self.rng.choice([each.value for each in Lie])
        return {"fault": "byzantine", "lie": lie, "pick": _names(self.liars), "for": self.last(30.0)}


_KINDS: Final[tuple[tuple[Callable[[_Author], Plain | None], int], ...]] = (
    (_Author.partition, 4),
    (_Author.loss, 3),
    (_Author.delay, 2),
    (_Author.disorder, 1),
    (_Author.kill, 5),
    (_Author.pause, 3),
    (_Author.slow, 2),
    (_Author.restart, 1),
    (_Author.flap, 1),
    (_Author.leave, 1),
    (_Author.join, 1),
    (_Author.swizzle, 1),
    (_Author.clock, 1),
    (_Author.disk, 1),
    (_Author.byzantine, 2),
)


def _names(indices: Sequence[int]) -> Plain:
    return {"nodes": [f"n{index}" for index in indices]}


def draw(seed: int) -> Experiment:
    """The experiment of that seed, with all its choices made."""
    rng = stream(seed, "swarm")
    nodes = rng.randint(NODES_MIN, NODES_MAX)
    lasts_s = rng.choice(LASTS_S)
    topology: Plain = {
        "nodes": nodes,
        "seeds": SEEDS,
        "profile": rng.choice(["lan", "lan", "lan", "local", "wan"]),
    }
    zones = nodes >= 4 and rng.random() < 0.4
    if zones:
        here = rng.randint(1, nodes - 1)
        topology["zones"] = {"east": here, "west": nodes - here}
        del topology["nodes"]
        if rng.random() < 0.7:
            delay_s = rng.choice([0.005, 0.04, 0.15])
            topology["links"] = [{"between": ["east", "west"], "delay": delay_s, "jitter": delay_s / 4}]
    if rng.random() < 0.5:
        topology["start"] = "cold"
    workload: Plain = {}
    if rng.random() < 0.8:
        workload["policies"] = {
            "every": rng.choice([0.2, 1.0, 3.0]),
            "keys": rng.choice([1, 5, 20]),
            "deletes": rng.choice([0.0, 0.2, 0.5]),
            "size": rng.choice([60, 400, 3000, 16_000]),
        }
    count = rng.randint(0, nodes // (HONEST_PER_LIAR + 1))
    liars = tuple(sorted(rng.sample(range(SEEDS, nodes), count)))
    method = list(_timeline(_Author(rng, nodes, zones, lasts_s, liars)))
    more, events = _signed(seed, nodes, lasts_s)
    topology |= more
    if more:
        _spare_shares(method, more["signers"], sum(event["fault"] == "signers" for event in events))
    method = sorted([*method, *events], key=lambda event: float(event["at"]))
    invariants = ["views-agree", "journals-agree", *(["certificates-are-issued"] if more else [])]
    given = {
        "title": f"swarm, seed {seed}",
        "seed": seed,
        "topology": topology,
        "workload": workload,
        "method": method,
        "lasts": lasts_s,
        "steady-state-hypothesis": {"within": WITHIN_S, "invariants": invariants},
    }
    return resolve(read(given, f"seed {seed}"), source=f"seed {seed}")


def _signed(seed: int, nodes: int, lasts_s: float) -> tuple[Plain, list[Plain]]:
    """In some meshes the root is held in shares: what the topology says of it, and what is done to it. Drawn by itself,
    so that all else is what it would be without."""
    rng = stream(seed, "swarm", "signers")
    if rng.random() >= SIGNED:
        return {}, []
    topology = {"signers": min(rng.choice([1, 3, 3, 5]), nodes), "certificates": rng.choice(CERTIFICATES_S)}
    events: list[Plain] = []
    if rng.random() < 0.5:
        at, names = round(rng.uniform(0, lasts_s / 2), 3), _names(rng.sample(range(nodes), rng.randint(1, 2)))
        events.append(
            {"at": at, "for": lasts_s - at, "fault": "certificates", "how": "expire", "pick": names}
        )
    if topology["signers"] > 1 and rng.random() < 0.4:
        at = round(rng.uniform(0, lasts_s), 3)
        events.append({"at": at, "fault": "signers", "how": "revoke", "count": 1})
    return topology, events


def _spare_shares(method: Sequence[Plain], signers: int, revoked: int) -> None:
    """A disk that would take one share too many with it keeps its host's identity: what is left after that is no root,
    which no mesh can mend (seed 1676: two of three are left after a revocation, and sign only together)."""
    spare = signers - majority(signers) - revoked
    held = {f"n{index}" for index in range(signers)}
    for event in method:
        if event["fault"] != "kill" or event["keeps"] != "nothing":
            continue
        taken = held & set(event["pick"]["nodes"])
        if taken and len(taken) > spare:
            event["keeps"] = "identity"
        else:
            held -= taken
            spare -= len(taken)


def _timeline(author: _Author) -> Iterator[Plain]:
    rng = author.rng
    chosen = rng.sample(_KINDS, rng.randint(2, len(_KINDS) - 2))
    acts, weights = [act for act, _ in chosen], [weight for _, weight in chosen]
    pace_s = rng.choice(PACES_S)
    for _ in range(EVENTS_MAX):
        author.at = round(author.at + rng.expovariate(1 / pace_s), 3)
        if author.at >= author.lasts_s - 1:
            return
        plain = rng.choices(acts, weights)[0](author)
        if plain is not None:
            yield {"at": author.at, **plain}
