"""Faults as data: what can go wrong in a mesh, in plain values that every driver reads the same.

A fault says *what*; `at`, `for` and `pick` say when, for how long and to whom. What is picked at random is drawn once,
by `chaos/plan.py`, and written down as names, so that a resolved timeline is an experiment like any other: replaying is
running it, shrinking is taking lines out of it.

Names and shapes are the field's: partitions as in Alquraan et al. (OSDI 2018) and Jepsen's `nemesis` (halves, one node,
a bridge, rings of majorities), swizzle-clogging as in FoundationDB's simulation.

Invariant: a fault that was read is complete and in range. A driver that cannot express one says so before anything is
done (`chaos/drivers/driver.py`); none leaves a fault out silently.
"""

from enum import Enum
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from chaos.values import Model, NodeName, Seconds, Share

PICKED_MAX = 10_000


class Pick(Model):
    """Who is meant: names, a zone, all; of those `count`, or a `share`; `but` spares some. Nothing said: one."""

    nodes: tuple[NodeName, ...] = ()
    zone: str | None = None
    all: bool = False
    signers: bool = False
    count: int | None = Field(default=None, ge=1, le=PICKED_MAX)
    share: Share | None = None
    but: tuple[NodeName, ...] = ()

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "Pick":
        if sum((bool(self.nodes), self.zone is not None, self.all, self.signers)) > 1:
            raise ValueError("nodes, zone, signers and all say the same thing: give one of them")
        if self.count is not None and self.share is not None:
            raise ValueError("count and share say the same thing: give one of them")
        return self


class Shape(Enum):
    """How a partition divides the nodes."""

    HALVES = "halves"
    ONE = "one"  # the picked ones from all others
    THIRD = "third"
    BRIDGE = "bridge"  # two halves, and the picked node reaches both
    RING = "majorities-ring"  # each reaches another majority
    ONE_WAY = "one-way"  # what the picked ones send reaches nobody else
    DEAF = "deaf"  # the picked ones hear nobody else
    ZONES = "zones"  # each zone for itself


class Traffic(Enum):
    """What of the traffic is meant."""

    ALL = "all"
    CONTROL = "control"  # gossip and streams between peers
    DATA = "data"  # what the services say to one another


class Keeps(Enum):
    """What is left of a node that was killed when it starts again."""

    ALL = "all"
    IDENTITY = "identity"  # its keys; the database is lost
    BACKUP = "backup"  # the database as it was at the beginning of the experiment
    NOTHING = "nothing"  # a new node at the same address


class Lie(Enum):
    """How a Byzantine member behaves. It has a valid identity; everything it signs verifies."""

    FORGED_INCARNATION = "forged-incarnation"
    EQUIVOCATION = "equivocation"
    REPLAY = "replay"
    WITHHOLDING = "withholding"
    FALSE_SUSPICION = "false-suspicion"


class Poison(Enum):
    """A policy whose signature is good and whose effect is not."""

    UNREADABLE = "unreadable"
    OVERSIZED = "oversized"
    DENY_ALL = "deny-all"


class _Fault(Model):
    pick: Pick = Pick()


# ------------------------------------------------------------------ the network


class Partition(_Fault):
    """Nothing passes between groups. `groups` says who exactly; else `shape` and `pick` do."""

    fault: Literal["partition"] = "partition"
    shape: Shape = Shape.HALVES
    traffic: Traffic = Traffic.ALL
    groups: tuple[tuple[NodeName, ...], ...] = ()


class Loss(_Fault):
    """A share of datagrams (of packets, where there are packets) is lost: of all, of what the picked ones send or are
    sent, or of one direction of one link (`pick` one node, `to` another). `burst`: mean length of a run of losses."""

    fault: Literal["loss"] = "loss"
    share: Share
    burst: float = Field(default=1.0, ge=1, le=1000)
    direction: Literal["both", "out", "in"] = "both"
    to: tuple[NodeName, ...] = ()
    pick: Pick = Pick(all=True)


class Delay(_Fault):
    """What the picked ones send takes longer: by `delay`, and by up to `jitter` at random."""

    fault: Literal["delay"] = "delay"
    delay: Seconds
    jitter: Seconds = 0.0
    pick: Pick = Pick(all=True)


class Disorder(_Fault):
    """A share of datagrams arrives twice, late (and so out of order), damaged, or once more much later."""

    fault: Literal["disorder"] = "disorder"
    duplicate: Share = 0.0
    reorder: Share = 0.0
    corrupt: Share = 0.0
    replay: Share = 0.0
    pick: Pick = Pick(all=True)

    @model_validator(mode="after")
    def _something(self) -> "Disorder":
        if not (self.duplicate or self.reorder or self.corrupt or self.replay):
            raise ValueError("give duplicate, reorder, corrupt or replay")
        return self


class Bandwidth(_Fault):
    """No more than so many bytes a second leave the picked ones."""

    fault: Literal["bandwidth"] = "bandwidth"
    bytes_per_s: int = Field(alias="bytes-per-second", ge=100)


class Tcp(_Fault):
    """What happens to TCP connections only: torn down (`reset`), silent without an end (`half-open`), read slowly, cut
    into small pieces, closed slowly, or after so many bytes."""

    fault: Literal["tcp"] = "tcp"
    how: Literal["reset", "half-open", "slow-reader", "slicer", "slow-close", "limit-data"]
    after: Seconds = 0.0
    size: int = Field(default=1024, ge=1)  # bytes: of a slice, of a limit; a second, of a slow reader


# ------------------------------------------------------------------ processes and hosts


class Slow(_Fault):
    """No processor when it is wanted: stopped for `blocked`, running for `running`, over and over (Lifeguard, section
    5); or no more than a `quota` of one, as a container at its limit; or `each` on top of every input."""

    fault: Literal["slow"] = "slow"
    blocked: Seconds = 0.0
    running: Seconds = 0.0
    quota: Share = 0.0
    each: Seconds = 0.0

    @model_validator(mode="after")
    def _something(self) -> "Slow":
        if bool(self.blocked) != bool(self.running) or not (self.blocked or self.quota or self.each):
            raise ValueError("give blocked and running, or quota, or each")
        if self.quota and self.blocked:
            raise ValueError("blocked and quota say the same thing: give one of them")
        return self


class Pause(_Fault):
    """SIGSTOP, and SIGCONT after it."""

    fault: Literal["pause"] = "pause"


class Kill(_Fault):
    """kill -9; with `power` the plug. With `for` it starts again then, with what it `keeps`."""

    fault: Literal["kill"] = "kill"
    power: bool = False
    keeps: Keeps = Keeps.ALL


class Restart(_Fault):
    """One after the other the picked ones are restarted (gracefully, or killed), `every` so often; all at once: 0."""

    fault: Literal["restart"] = "restart"
    every: Seconds = 0.0
    graceful: bool = False
    pick: Pick = Pick(all=True)


class Leave(_Fault):
    """They say good-bye and end; with `for` they come again."""

    fault: Literal["leave"] = "leave"


class Join(Model):
    """So many new nodes, at once."""

    fault: Literal["join"] = "join"
    count: int = Field(default=1, ge=1, le=PICKED_MAX)
    zone: str = ""


class Flap(_Fault):
    """Killed and started again, over and over, `every` so often."""

    fault: Literal["flap"] = "flap"
    every: Seconds = Field(gt=0)


class Swizzle(_Fault):
    """The picked ones lose their network one after the other, `every` so often, and get it back in another order; the
    last one at the end of `for`."""

    fault: Literal["swizzle"] = "swizzle"
    every: Seconds = 1.0
    pick: Pick = Pick(share=0.5)


class Clock(_Fault):
    """A clock is wrong by `offset` seconds (may be negative), and runs away by `drift` seconds a second."""

    fault: Literal["clock"] = "clock"
    offset: float = Field(default=0.0, ge=-366 * 86_400, le=366 * 86_400)
    drift: float = Field(default=0.0, ge=-0.5, le=0.5)


class Disk(_Fault):
    """No room, or what was synced is not on the disk after a power cut."""

    fault: Literal["disk"] = "disk"
    how: Literal["full", "lying-fsync"]


class Descriptors(_Fault):
    """No more than so many open files."""

    fault: Literal["descriptors"] = "descriptors"
    limit: int = Field(ge=8)


class Dns(_Fault):
    """Names do not resolve."""

    fault: Literal["dns"] = "dns"


# ------------------------------------------------------------------ members, identities, policies


class Certificates(_Fault):
    """What the picked ones hold runs out: nobody renews meanwhile."""

    fault: Literal["certificates"] = "certificates"
    how: Literal["expire", "revoke"]


class Signers(Model):
    """So many signers are gone, or revoked."""

    fault: Literal["signers"] = "signers"
    how: Literal["lose", "revoke"] = "lose"
    count: int = Field(default=1, ge=1, le=64)


class Byzantine(_Fault):
    """The picked ones lie."""

    fault: Literal["byzantine"] = "byzantine"
    lie: Lie


class Version(_Fault):
    """They are started again as releases that read the versions `oldest` to `version` of datagrams; without `oldest`
    that one only. Afterwards as before."""

    fault: Literal["version"] = "version"
    version: int = Field(ge=1, le=127)
    oldest: int | None = Field(default=None, ge=1, le=127)

    @model_validator(mode="after")
    def _in_order(self) -> "Version":
        if self.oldest is not None and self.oldest > self.version:
            raise ValueError("oldest is above version")
        return self


class Poisoned(_Fault):
    """One of them publishes such a policy."""

    fault: Literal["poison"] = "poison"
    effect: Poison


class Application(_Fault):
    """Their services answer a share of requests with this status, or late."""

    fault: Literal["application"] = "application"
    service: str
    share: Share = 1.0
    status: int = Field(default=503, ge=400, le=599)
    delay: Seconds = 0.0


Fault: TypeAlias = Annotated[
    Partition
    | Loss
    | Delay
    | Disorder
    | Bandwidth
    | Tcp
    | Slow
    | Pause
    | Kill
    | Restart
    | Leave
    | Join
    | Flap
    | Swizzle
    | Clock
    | Disk
    | Descriptors
    | Dns
    | Certificates
    | Signers
    | Byzantine
    | Version
    | Poisoned
    | Application,
    Field(discriminator="fault"),
]
