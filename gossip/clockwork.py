"""What time sets off: probe rounds, indirect probes, verdicts, gossip rounds, contacts, push-pull, reaping.

Each timer is one float; `deadline` is the least of those that matter now, so an idle engine sleeps from probe to
probe. Rounds are kept by interval from when they ran, not from when they should have: after a pause there is one
round, not a burst of those missed.

Invariant: a `tick` at or after `deadline` moves `deadline` forward.
"""

import math
from typing import assert_never

from gossip.config import ProbeOrder
from gossip.entry import Entry
from gossip.events import Address, LeaveSpread
from gossip.member import State
from gossip.message import Nack, PingRequest
from gossip.parts import Parts
from gossip.probe import Probe, Purpose, Rotation, RoundRobin

_REAP_INTERVAL_S = 10.0
_GRACES_APART = (
    10  # a grace after lag at most once in ten of its own lengths, so that constant lag cannot stop time
)


def _next_reap(now: float) -> float:
    """The same moments for all nodes, so that they stop counting who has expired at the same time."""
    return (now // _REAP_INTERVAL_S + 1) * _REAP_INTERVAL_S


class Clockwork:
    """The timers of one engine."""

    __slots__ = (
        "_contact_at",
        "_gossip_at",
        "_graced_at",
        "_lag_counted_until",
        "_leave_until",
        "_parts",
        "_probe_at",
        "_push_pull_at",
        "_reap_at",
        "_rotation",
        "_round_robin",
    )

    def __init__(self, parts: Parts, now: float) -> None:
        self._parts = parts
        config, rng = parts.config, parts.rng
        # random phases: peers started together must not probe and gossip in step
        self._rotation = Rotation(parts.presence.id, config.probe_interval_s)
        self._round_robin = RoundRobin()
        self._probe_at = now + rng.uniform(0, config.probe_interval_s)
        self._gossip_at = now + rng.uniform(0, config.gossip_interval_s)
        self._push_pull_at = now + rng.uniform(0.5, 1.0) * config.push_pull_interval_s
        self._contact_at = now + config.contact_interval_s
        self._reap_at = _next_reap(now)
        self._leave_until: float | None = None
        self._lag_counted_until = now
        self._graced_at = now - _GRACES_APART * config.probe_timeout_s

    @property
    def deadline(self) -> float:
        """When `tick` wants to be called next."""
        parts = self._parts
        least = self._reap_at
        if self._gossip_at < least and (parts.broadcasts or self._leave_until is not None):
            least = self._gossip_at
        if parts.presence.left is None:
            if parts.roster.others:
                least = min(least, self._probe_at, self._push_pull_at)
            for at in (parts.silent.deadline, parts.seeds.deadline):
                if at is not None and at < least:
                    least = min(least, max(self._contact_at, at))
        for at in (parts.probes.deadline, parts.judge.suspicions.deadline):
            if at is not None and at < least:
                least = at
        return least

    @property
    def _waiting_since(self) -> float:
        """When the first of those to be contacted is, or was, due; infinity if there is nobody."""
        silent, seed = self._parts.silent.deadline, self._parts.seeds.deadline
        if silent is None:
            return math.inf if seed is None else seed
        return silent if seed is None else min(silent, seed)

    def awake(self, now: float) -> None:
        """There is something to tell again: the gossip timer ran on all the while."""
        behind_s = now - self._gossip_at
        if behind_s > 0:
            interval_s = self._parts.config.gossip_interval_s
            self._gossip_at += math.ceil(behind_s / interval_s) * interval_s

    def tick(self, now: float) -> None:
        """Do all that is due."""
        parts = self._parts
        for probe in parts.probes.asking(now):
            self._ask_relays(now, probe)
        for probe in parts.probes.failed(now):
            self._fail(now, probe)
        for relay in parts.probes.nacks_due(now):
            requester = parts.roster.get(relay.requester)
            if requester is not None:
                nack = Nack(sequence=relay.sequence)
                parts.send(now, requester, nack, to=relay.reply_to, bytes_max=relay.reply_bytes_max)
        parts.judge.condemn_due(now)
        if parts.presence.left is None:
            self._rounds(now)
        if now >= self._reap_at:
            self._reap_at = _next_reap(now)
            parts.judge.reap(now)
        if now >= self._gossip_at:
            self._gossip_at = now + parts.config.gossip_interval_s
            parts.gossip_round(now)
            self._finish_leave(now)

    def lagged(self, now: float, lag_s: float) -> None:
        """This node did not run for the last `lag_s`: that time counts against nobody, and it trusts itself less.
        The same stretch of time told twice (by the driver, by a late tick) counts once."""
        parts = self._parts
        lag_s = min(lag_s, now - self._lag_counted_until)
        if lag_s < parts.config.loop_lag_s_max:
            return
        self._lag_counted_until = now
        parts.health.adjust(1)
        shift_s, grace_s = lag_s, parts.config.probe_timeout_s
        if now - self._graced_at >= _GRACES_APART * grace_s:
            self._graced_at = now
            shift_s += grace_s  # for the answers that wait in the socket's buffer
        parts.probes.delay(shift_s)
        parts.judge.delay(shift_s)

    def start_leaving(self, now: float) -> None:
        """From here on only the good-bye is told, for a while."""
        self._parts.probes.clear()
        self._leave_until = now + self._parts.config.leave_timeout_s

    def stop_leaving(self) -> None:
        """The node joins again."""
        self._leave_until = None

    # ------------------------------------------------------------ probes
    def _ask_relays(self, now: float, probe: Probe) -> None:
        """The direct ping went unanswered: ping again, introducing this node (the target may have forgotten it), ask
        relays, and try a stream, in case only datagrams are lost."""
        parts = self._parts
        entry = parts.roster.get(probe.target)
        if entry is None or not probe.judges:
            return
        entry.link.doubt()
        parts.ping(now, entry, probe.sequence)
        relays = parts.roster.sample_alive(parts.rng, parts.config.indirect_probes, but=probe.target)
        probe.asked = tuple(relay.member.id for relay in relays)
        members, members_settled = parts.list_state(now)
        for relay in relays:
            request = PingRequest(
                sequence=probe.sequence,
                target=probe.target,
                fingerprint=parts.fingerprint,
                settled=parts.divergence.settled(now),
                members=members,
                members_settled=members_settled,
            )
            parts.send(now, relay, request)
        parts.request_sync(now, entry.member.address, probe.target, "no answer to pings", spaced=False)

    def _fail(self, now: float, probe: Probe) -> None:
        parts = self._parts
        entry = parts.roster.get(probe.target)
        if entry is None or not probe.judges or not entry.member.live:
            return
        if entry.member.rank > probe.rank:
            return  # meanwhile it announced something: it lives
        if entry.member.state is State.ALIVE:
            missing = len(probe.asked) - len(probe.nacked)
            parts.health.adjust(missing if probe.asked else 1)
        parts.judge.accusations.accuse(now, entry)
        if parts.config.recall and entry.member.state is State.SUSPECT:
            parts.silent.add(probe.target, now)

    # ------------------------------------------------------------ rounds
    def _rounds(self, now: float) -> None:
        parts, config = self._parts, self._parts.config
        if now >= self._probe_at:
            # Lifeguard stretches the interval with the timeout; here probes may overlap, so a node in doubt waits
            # longer for each answer but keeps looking: a small side of a partition finds out in time too
            entry = self._turn(now)
            if entry is not None:
                parts.probe(now, entry, Purpose.ROUND)
        if now >= self._contact_at:
            self._contact(now)
        if now >= self._push_pull_at:
            interval_s = config.push_pull_s(parts.roster.size)
            self._push_pull_at = now + interval_s * parts.rng.uniform(0.9, 1.1)
            for entry in parts.roster.sample_alive(parts.rng, 1):
                parts.request_sync(now, entry.member.address, entry.member.id, "push-pull")

    def _turn(self, now: float) -> Entry | None:
        """Whose turn it is to be probed, and when the next one's is."""
        parts, interval_s = self._parts, self._parts.config.probe_interval_s
        match parts.config.probe_order:
            case ProbeOrder.ROUND_ROBIN:
                self._probe_at = now + interval_s
                return self._round_robin.next(parts.roster, parts.rng)
            case ProbeOrder.PERMUTATION:
                entry = self._rotation.next(parts.roster)
                self._probe_at = self._rotation.plan(now, parts.roster)
                return entry
        assert_never(parts.config.probe_order)

    def _contact(self, now: float) -> None:
        """Knock at one door: the silent member or the seed that has waited longest beyond its time."""
        parts = self._parts
        if self._waiting_since > now:
            return
        self._contact_at = now + parts.config.contact_interval_s
        seed = parts.seeds.overdue(now, lambda address: not self._held(address))
        silent = parts.silent.overdue(
            now, self._reachable, known=lambda node: parts.roster.peek(node) is not None
        )
        if seed is not None and (silent is None or seed[0] <= silent[0]):
            alone = parts.roster.others == 0  # and of no use to anybody: many may be, who start together
            parts.seeds.tried(seed[1], now, share=parts.rng.uniform(0.5, 1.0), urgent=alone)
            parts.request_sync(now, seed[1], None, "seed", spaced=not alone)
        elif silent is not None:
            entry = parts.roster.get(silent[1])
            assert entry is not None, "only known members are contacted"
            share = parts.rng.uniform(0.75, 1.0)
            if parts.silent.tried(silent[1], now, share=share) % parts.config.contact_stream_every == 0:
                parts.request_sync(now, entry.member.address, silent[1], f"{entry.member.state.value} member")
            else:
                entry.link.doubt()
                parts.probe(now, entry, Purpose.RECALL if entry.member.live else Purpose.CONTACT)

    def _held(self, address: Address) -> bool:
        """Whether a live member is at that address, or this node itself."""
        return address == self._parts.presence.address or self._parts.roster.holder(address) is not None

    def _reachable(self, node: bytes) -> bool:
        """Whether a member may be worth knocking at: suspect, or dead, not revoked, its address not another's now."""
        entry = self._parts.roster.get(node)
        if entry is None or node in self._parts.judge.evicted:
            return False
        dead = entry.member.state is State.DEAD and not self._held(entry.member.address)
        return dead or entry.member.state is State.SUSPECT

    def _finish_leave(self, now: float) -> None:
        if self._leave_until is None:
            return
        told = (self._parts.presence.id, "left", b"") not in self._parts.broadcasts.updates
        if told or now >= self._leave_until or self._parts.roster.others == 0:
            self._leave_until = None
            self._parts.out.append(LeaveSpread())
