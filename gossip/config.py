"""The settings of the membership engine: one frozen dataclass, four profiles, coupled fields checked once.

Names follow memberlist (`config.go`) so that operators are at home; where a default differs from memberlist's LAN
profile, the comment says why. Units are in the names. `*_mult` values multiply `probe_interval_s`, most of them also
log10 of the number of members, because an epidemic needs O(log n) rounds to reach everybody (SWIM, section 4.1).

Invariant: a GossipConfig that exists is consistent; the engine never checks settings again.
"""

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from gossip.errors import ConfigError
from gossip.statement import VERSION_MAX, VERSION_MIN

# Fits the 1500-byte Ethernet MTU under IPv6 (40), UDP (8) and a tunnel's header, so that nothing fragments.
DATAGRAM_BYTES_MAX: Final = 1400
# A published record travels whole in one datagram: 1400 less header, tag, fingerprint and framing, rounded down.
PAYLOAD_BYTES_MAX: Final = 1200


class ProbeOrder(Enum):
    PERMUTATION = "permutation"
    ROUND_ROBIN = "round-robin"


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipConfig:
    """Settings of one engine. The field defaults are the `lan` profile. Raises ConfigError."""

    # Failure detector (SWIM, sections 3 and 4). One probe a second costs each node two small datagrams a second
    # whatever n is. The order: a permutation (gossip/probe.py) has everybody probed once an interval, so a crash
    # meets its first probe after half an interval on average and one at most; round robin in a random order after
    # one on average, and five once in a hundred times.
    probe_order: ProbeOrder = ProbeOrder.PERMUTATION
    probe_interval_s: float = 1.0
    probe_timeout_s: float = (
        0.5  # while nothing is known of the round trips; then gossip/rtt.py, down to the floor
    )
    probe_timeout_s_min: float = 0.2  # not for the network, for a process that is busy
    indirect_timeout_mult: float = 1.5  # the indirect stage, in direct timeouts: it takes two round trips
    indirect_probes: int = 3  # with 3 relays and 5 % loss a probe of a live member fails about once in 10^4
    nack_share: float = (
        0.8  # a relay answers after this share of the probe timeout, so that the nack is in time
    )

    # Suspicion (Lifeguard, section 3.2). `alone`: the floor when nobody else can confirm, memberlist's 4; it grows
    # with log10 n. `corroborated`: the floor once every expected observer failed to reach the suspect by its own
    # probe; lower than memberlist's, and the same for every n, because witnesses have also carried the accusation to
    # the suspect, and refutations are forwarded at once. It is the longest pause of a process that goes unpunished.
    suspicion_mult_alone: float = 4.0
    suspicion_mult_corroborated: float = 1.75
    # However many accusers come at once, the suspect gets this long to refute since the last of them was heard, and a
    # Dead is believed at once only on accusations known here for as long: a crowd of slow members that wake
    # together brings all its accusations in one moment.
    refutation_s: float = 0.5
    suspicion_max_mult: float = 6.0  # the ceiling, times the `alone` floor, while nobody else confirms
    confirmations: int = (
        2  # independent confirmations that bring the timeout to the floor (memberlist: mult - 2)
    )
    witnesses: int = 3  # one more than `confirmations`, so that one witness may be down too
    heralds: int = (
        5  # further members that tell a suspect of the suspicion, however many are suspected at once
    )
    dead_on_word: bool = (
        False  # believe a Dead with a single suspicion in it (memberlist), not only a proven one
    )

    # Local health (Lifeguard, section 3.1): scores 0..7, each point stretches timeouts by one more multiple.
    health_max: int = 8
    loop_lag_s_max: float = 0.25  # later than half a probe timeout, and our own timeouts cannot be trusted

    # Dissemination (SWIM, section 4.1; memberlist's queue). How often each tells an update is `retransmits`, whatever
    # the round. The wider the round, the fewer hops to everybody (0.7 log2 n with five, 1.1 with three), and the
    # shorter the cut of the network that swallows all of it: so it is wide only where much is told (`fan_out`).
    gossip_interval_s: float = 0.2
    gossip_nodes: int = 3
    gossip_nodes_max: int = 5  # in a mesh of a thousand and more; 3 below a hundred
    gossip_datagrams_max: int = (
        12  # of one round, shared by those it tells, while more waits than fits; 84 kB/s a node at most
    )
    gossip_to_the_dead_s: float = 30.0  # the falsely dead hear it soon enough to refute
    retransmit_mult: int = 4
    feedback: bool = True  # hearing a thing told counts like telling it (gossip/broadcast.py)
    urgent_rounds_per_s: float = (
        50.0  # rounds sent at once (a publish, a refutation); beyond it the tick batches; 0: only the tick
    )
    # After it announced itself a node introduces itself to everybody for this long; later only to those who show that
    # they do not know it. The announcement has reached everybody by then, and who missed it does not answer a ping.
    introduce_s: float = 10.0

    # Repair. Fingerprints on pings and acks find what was lost, records and members; random push-pull (memberlist's is
    # every 30 s) is for what they might miss.
    push_pull_interval_s: float = 300.0
    compare_members: bool = True  # ask for a stream where member lists differ
    sync_whole: bool = False  # streams tell all members instead of comparing lists first
    members_spacing_s: float = 2.0  # between two streams because of member lists, whomever to
    sync_spacing_s: float = 2.0  # to one address; several reasons within it are one stream
    diverged_settle_s: float = (
        0.5  # a push reaches everybody within this, so a difference younger than it is no news
    )
    diverged_patience_s: float = (
        5.0  # under constant writes nothing ever settles: differing this long is enough
    )
    diverged_spacing_s: float = 2.0  # per peer

    # Healing. One contact per `contact_interval_s` in all; each dead member or seed at doubling distances up to the
    # cap, for ever: a split of a week heals within about one cap of the network coming back.
    contact_interval_s: float = 1.0
    contact_backoff_s: float = 2.0
    contact_backoff_s_max: float = 30.0
    recall: bool = True  # a suspect of this node's own is contacted too, like one dead
    contact_stream_every: int = 4  # each fourth attempt is a stream, for networks that carry no UDP
    leave_timeout_s: float = 3.0  # a leave is told for at most this long
    reap_grace_s: float = (
        60.0  # after its credential expired a dead member is kept this long, for skewed clocks
    )

    # Datagrams: the lowest and the highest version this node reads. Narrower than what the code knows only in tests.
    versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX)

    # Bounds; each has a counter in `Statistics` or ends in `Rejected`.
    members_max: int = 10_000
    updates_max: int = 4096  # queued membership statements; the most often told is dropped first
    payloads_max: int = 1024  # queued records, likewise
    heard_max: int = 8192  # digests of records heard lately, to tell news from repeats
    probes_max: int = 64  # probes under way
    relays_max: int = 256  # probes under way for others
    keys_max: int = 8192  # derived keys kept
    seeds_max: int = 64
    evicted_max: int = 10_000
    introductions_per_s: float = 100.0  # strangers verified per second (about 0.3 ms each)

    def __post_init__(self) -> None:
        for name in (
            "probe_timeout_s",
            "gossip_interval_s",
            "contact_interval_s",
            "contact_backoff_s",
            "members_spacing_s",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be more than 0")
        for name in (
            "gossip_nodes",
            "gossip_datagrams_max",
            "contact_stream_every",
            "retransmit_mult",
            "health_max",
            "members_max",
            "updates_max",
            "payloads_max",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not self.gossip_nodes <= self.gossip_nodes_max <= self.gossip_datagrams_max:
            raise ConfigError(
                f"gossip_nodes_max is {self.gossip_nodes_max}: at least gossip_nodes ({self.gossip_nodes}), and at "
                f"most gossip_datagrams_max ({self.gossip_datagrams_max}), so that each has one"
            )
        for name in ("indirect_probes", "confirmations", "witnesses", "heralds"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must not be negative")
        if not 0 < self.probe_timeout_s_min <= self.probe_timeout_s:
            raise ConfigError(
                f"probe_timeout_s_min is {self.probe_timeout_s_min}: it must be more than 0 and at most "
                f"probe_timeout_s ({self.probe_timeout_s})"
            )
        if self.indirect_timeout_mult < 1:
            raise ConfigError(f"indirect_timeout_mult is {self.indirect_timeout_mult}: it must be at least 1")
        if self.probe_timeout_s >= self.probe_interval_s:
            raise ConfigError(
                f"probe_timeout_s ({self.probe_timeout_s}) must be less than probe_interval_s "
                f"({self.probe_interval_s}): the rest of the interval is for indirect probes"
            )
        if not VERSION_MIN <= self.versions[0] <= self.versions[1]:
            raise ConfigError(
                f"versions are {self.versions}: the lowest and the highest, from {VERSION_MIN} on"
            )
        if not 0 < self.nack_share < 1:
            raise ConfigError(f"nack_share is {self.nack_share}: it must lie between 0 and 1")
        if (
            self.suspicion_mult_corroborated <= 0
            or self.suspicion_mult_alone <= 0
            or self.suspicion_max_mult < 1
        ):
            raise ConfigError("the suspicion multiples must be more than 0 and suspicion_max_mult at least 1")
        if self.contact_backoff_s > self.contact_backoff_s_max:
            raise ConfigError("contact_backoff_s must not exceed contact_backoff_s_max")

    def retransmits(self, members: int) -> int:
        """How often one update is sent by each member that has it: lambda * ceil(log10(n + 1))."""
        return self.retransmit_mult * math.ceil(math.log10(members + 1))

    def fan_out(self, members: int) -> int:
        """Members told in one gossip round: up to a third of those that are told an update in all."""
        third = self.retransmits(members) // 3
        return max(self.gossip_nodes, min(self.gossip_nodes_max, third))

    def push_pull_s(self, members: int) -> float:
        """The push-pull interval at `members`; beyond 32 it grows with log2 n (memberlist `pushPullScale`)."""
        return self.push_pull_interval_s * _push_pull_scale(members)

    def members_patience_s(self, members: int) -> float:
        """How long a list may differ from all others met before that counts, settled or not. It grows as the push-pull
        interval does: in a large mesh something is nearly always on its way."""
        return self.diverged_patience_s * _push_pull_scale(members)


def _push_pull_scale(members: int) -> int:
    return 1 if members <= 32 else math.ceil(math.log2(members) - 5) + 1


def lan() -> GossipConfig:
    """One data centre: round trips of a few milliseconds, little loss."""
    return GossipConfig()


def wan() -> GossipConfig:
    """Several regions: round trips of some hundred milliseconds, bursts of loss (memberlist's WAN profile)."""
    return GossipConfig(
        probe_interval_s=5.0,
        probe_timeout_s=3.0,
        probe_timeout_s_min=1.0,
        suspicion_mult_alone=6.0,
        suspicion_mult_corroborated=2.0,
        refutation_s=3.0,
        loop_lag_s_max=1.0,
        gossip_interval_s=0.5,
        gossip_nodes=4,
        gossip_datagrams_max=16,
        gossip_to_the_dead_s=60.0,
        push_pull_interval_s=600.0,
        members_spacing_s=5.0,
        diverged_settle_s=2.0,
        diverged_patience_s=10.0,
        diverged_spacing_s=5.0,
        contact_interval_s=2.0,
        contact_backoff_s=5.0,
        contact_backoff_s_max=60.0,
        leave_timeout_s=10.0,
    )


def local() -> GossipConfig:
    """Several peers on one machine: no loss and no distance, but processes that wait for a processor."""
    return GossipConfig(
        probe_interval_s=0.5,
        probe_timeout_s=0.25,
        probe_timeout_s_min=0.15,
        suspicion_mult_corroborated=3.0,
        refutation_s=0.3,
        loop_lag_s_max=0.125,
        gossip_interval_s=0.1,
        gossip_to_the_dead_s=15.0,
        push_pull_interval_s=150.0,
        members_spacing_s=1.0,
        sync_spacing_s=0.5,
        diverged_settle_s=0.3,
        diverged_patience_s=3.0,
        diverged_spacing_s=1.0,
        contact_interval_s=0.5,
        contact_backoff_s=0.5,
        contact_backoff_s_max=5.0,
        leave_timeout_s=1.0,
    )


def memberlist() -> GossipConfig:
    """The algorithm and the constants as HashiCorp ships them (memberlist `DefaultLANConfig`), for comparison in one
    run: a random round robin, fixed timeouts, no witnesses, one suspicion floor, gossip on its tick only, and a Dead
    believed on one word. Statements stay signed."""
    return replace(
        lan(),
        probe_order=ProbeOrder.ROUND_ROBIN,
        probe_timeout_s_min=lan().probe_timeout_s,
        indirect_timeout_mult=1.0,
        witnesses=0,
        heralds=0,
        suspicion_mult_corroborated=math.inf,
        refutation_s=0.0,
        loop_lag_s_max=math.inf,
        dead_on_word=True,
        feedback=False,
        gossip_nodes_max=3,
        urgent_rounds_per_s=0.0,
        push_pull_interval_s=30.0,
        compare_members=False,
        sync_whole=True,
        recall=False,
    )


PROFILES: Final = {"lan": lan, "wan": wan, "local": local, "memberlist": memberlist}
