"""One member as this node keeps it: what it said, what is said against it, and how the datagram path to it stands.

A statement is kept with its signature and its bytes, so that whatever this node tells of a member can be checked by
whoever hears it. `Link` is about the peer's process rather than about the member: each boot of it begins anew.

Invariant: `evidence` is about the member's present rank; a counter of a link is used once, whatever restarts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, assert_never

from gossip.digest import Standing
from gossip.member import Member, State
from gossip.statement import Alive, Dead, Left, Suspect
from gossip.wire import ReplayWindow

NO_EVIDENCE: Final[Mapping[bytes, Suspect]] = MappingProxyType({})


@dataclass(slots=True)
class Link(ReplayWindow):
    """What is known of the datagram path to one member. `boot` is the latest that authenticated; the link is itself the
    window of that boot's counters, so that who meets thousands of members has one object less for each."""

    boot: int = 0
    counter: int | None = (
        None  # of the last datagram sent to it; outlives its restarts, as our key for it does
    )
    knows_us: bool = False  # it can authenticate this node's boot
    doubted: bool = False  # it seems not to: datagrams introduce this node until it shows that it does
    common: bool = True  # there is a version of datagrams that both read
    proved: tuple[str, int] | None = None  # it answered a ping sent to this address
    differs_since: float | None = None  # its journal fingerprint has differed from ours since
    diverged_at: float | None = None  # last told so
    corrected_at: float | None = None  # last sent better news than it had, unasked

    def enter(self, boot: int) -> None:
        """A new life of the peer: old counters, and what its old life knew of us, mean nothing now."""
        self.boot = boot
        self.highest, self.seen = -1, 0
        self.doubt()
        self.proved = None

    def doubt(self) -> None:
        """It may not know this node: introduce again."""
        self.knows_us, self.doubted = False, True

    def learn(self, *, knows_us: bool) -> None:
        """It said at which boot it knows this node."""
        self.knows_us, self.doubted = knows_us, not knows_us


@dataclass(slots=True)
class Entry:
    """A member and its proofs: its own Alive (whole; `encoded` is its bytes), its Left, the signed suspicions of
    its present rank."""

    member: Member
    alive: Alive
    encoded: bytes
    link: Link = field(default_factory=Link)
    left: Left | None = None
    evidence: Mapping[bytes, Suspect] = field(default_factory=lambda: NO_EVIDENCE)
    suspected_at: float = 0.0
    accused_at: float = 0.0  # when the latest of its evidence came
    hearsay_until: float = 0.0  # until then only a stream has told of it
    counted: Standing = Standing.NONE  # as what the roster's digest counts it, at the member's present rank

    def standing(self) -> Standing:
        """As what it should count."""
        match self.member.state:
            case State.ALIVE | State.SUSPECT:
                return Standing.LIVE
            case State.LEFT:
                return Standing.LEFT
            case State.DEAD:
                return Standing.DEAD if self.evidence else Standing.NONE
        assert_never(self.member.state)

    def proofs(self) -> tuple[bytes, ...]:
        """The encoded statements that tell why it is not alive; none if it is, or was dropped without accusation.
        The suspicions of a suspect stay single: bundled they would be a verdict, which is not due yet."""
        match self.member.state:
            case State.ALIVE:
                return ()
            case State.SUSPECT:
                return tuple(suspicion.encode() for suspicion in self.evidence.values())
            case State.LEFT:
                return () if self.left is None else (self.left.encode(),)
            case State.DEAD:
                if not self.evidence:
                    return ()
                boot, incarnation = self.member.rank
                suspicions = tuple(self.evidence.values())
                dead = Dead(subject=self.member.id, boot=boot, incarnation=incarnation, suspicions=suspicions)
                return (dead.encode(),)
        assert_never(self.member.state)
