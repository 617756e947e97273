"""The parts one engine is made of, wired together, and the few acts that need several of them.

`Conversation` (datagrams and stream payloads) and `Clockwork` (time) both work on these parts; outputs collect in
`out` in the order they happen. Nothing here decides when: that is the callers' business.

Invariant: every datagram, stream request and probe of the engine starts in one of the methods below.
"""

import random
from collections.abc import Mapping
from typing import Final

from gossip.broadcast import Broadcasts
from gossip.census import NOBODY, Census
from gossip.config import DATAGRAM_BYTES_MAX, GossipConfig
from gossip.contact import Contacts
from gossip.courier import Courier
from gossip.crypto import REAL, Crypto
from gossip.divergence import Divergence, ListDivergence, SyncGate
from gossip.entry import Entry
from gossip.events import Address, AddressConflict, MemberChanged, MetaValue, Output, Rejected, RequestSync
from gossip.health import LocalHealth
from gossip.judge import Judge
from gossip.member import State
from gossip.message import FINGERPRINT_BYTES, Ack, Gossip, Message, Ping
from gossip.moves import Change
from gossip.presence import Presence
from gossip.probe import Probe, Probes, Purpose
from gossip.rate import TokenBucket
from gossip.roster import Roster
from gossip.rtt import RoundTrips
from gossip.sync import CHUNK_ITEMS_MAX
from gossip.view import MemberList
from gossip.wire import common_version
from trust.credential import Credential
from trust.identity import NodeIdentity
from trust.roots import Root

SUMMONS_MAX: Final = CHUNK_ITEMS_MAX  # of one step: a chunk of a stream is never about more members
RECALLED_MAX: Final = (
    128  # suspects told at once; at a probe a second a lone accuser's wait makes hardly more
)


class Parts:
    """Everything but time and the outside."""

    __slots__ = (
        "_urgent_rounds",
        "broadcasts",
        "config",
        "courier",
        "divergence",
        "fingerprint",
        "gate",
        "health",
        "judge",
        "list_divergence",
        "out",
        "presence",
        "probes",
        "rng",
        "roster",
        "round_trips",
        "seeds",
        "silent",
        "view",
    )

    def __init__(
        self,
        *,
        config: GossipConfig,
        identity: NodeIdentity,
        credential: Credential,
        trust_root: Root,
        address: Address,
        boot: int,
        zone: str,
        meta: Mapping[str, MetaValue],
        rng: random.Random,
        now: float,
        crypto: Crypto = REAL,
        census: Census = NOBODY,
    ) -> None:
        self.config, self.rng = config, rng
        self.out: list[Output] = []
        self.fingerprint = bytes(FINGERPRINT_BYTES)
        self.presence = Presence(
            identity=identity,
            credential=credential,
            address=address,
            boot=boot,
            zone=zone,
            meta=meta,
            now=now,
            versions=config.versions,
        )
        self.roster = Roster(own=identity.id, members_max=config.members_max, census=census)
        self.broadcasts = Broadcasts(updates_max=config.updates_max, payloads_max=config.payloads_max)
        self.health = LocalHealth(config.health_max)
        self.judge = Judge(
            config=config,
            presence=self.presence,
            roster=self.roster,
            broadcasts=self.broadcasts,
            health=self.health,
            trust_root=trust_root,
            crypto=crypto,
        )
        self.courier = Courier(
            config=config,
            presence=self.presence,
            roster=self.roster,
            broadcasts=self.broadcasts,
            judge=self.judge,
            crypto=crypto,
            now=now,
            introduced=identity.id in census.seats and census.seats[identity.id].member.boot == boot,
        )
        self.probes = Probes(probes_max=config.probes_max, relays_max=config.relays_max, rng=rng)
        self.round_trips = RoundTrips(config)
        self.silent: Contacts[bytes] = Contacts(  # the dead, and suspects of this node's own
            backoff_s=config.contact_backoff_s, backoff_s_max=config.contact_backoff_s_max
        )
        self.seeds: Contacts[Address] = Contacts(
            backoff_s=config.contact_backoff_s, backoff_s_max=config.contact_backoff_s_max
        )
        self.gate = SyncGate(config.sync_spacing_s)
        self.divergence = Divergence(config, self.fingerprint, now)
        self.view = MemberList(self.presence, self.roster, self.judge.evicted, census=census, now=now)
        self.list_divergence = ListDivergence(config, self.view.root, now)
        self._urgent_rounds = TokenBucket(
            rate_per_s=config.urgent_rounds_per_s, burst=config.urgent_rounds_per_s, now=now
        )

    def send(
        self,
        now: float,
        entry: Entry,
        message: Message,
        *,
        to: Address | None = None,
        bytes_max: int = DATAGRAM_BYTES_MAX,
        updates: tuple[bytes, ...] = (),
        introduce: bool = True,
    ) -> None:
        """One datagram to a member, at its own address unless `to` is given (see `Courier.seal`)."""
        datagram = self.courier.seal(
            entry,
            message,
            now=now,
            to=to,
            bytes_max=bytes_max,
            updates=updates,
            introduce=introduce,
        )
        if datagram is not None:
            self.out.append(datagram)

    def ping(self, now: float, entry: Entry, sequence: int) -> None:
        """Ping a member; a suspect is told so in the same datagram."""
        members, members_settled = self.list_state(now)
        ping = Ping(
            sequence=sequence,
            fingerprint=self.fingerprint,
            settled=self.divergence.settled(now),
            members=members,
            members_settled=members_settled,
        )
        self.send(now, entry, ping)

    def ack(self, now: float, sequence: int) -> Ack:
        """The answer to a ping."""
        members, members_settled = self.list_state(now)
        return Ack(
            sequence=sequence,
            fingerprint=self.fingerprint,
            settled=self.divergence.settled(now),
            members=members,
            members_settled=members_settled,
        )

    def list_root(self, now: float) -> bytes:
        """The root of the member list."""
        root = self.view.observe(now)
        self.list_divergence.observe(now, root)
        return root

    def list_state(self, now: float) -> tuple[bytes, bool]:
        """The root of the member list, and whether that is settled (`list_settled`)."""
        return self.list_root(now), not self.judge.suspicions and self.list_divergence.settled(now)

    def list_settled(self, now: float) -> bool:
        """Whether the member list has not changed lately, and no suspicion is about to change it."""
        return self.list_state(now)[1]

    def request_sync(
        self, now: float, address: Address, node: bytes | None, reason: str, *, spaced: bool = True
    ) -> None:
        """Ask the driver for a stream, unless one to this address was asked for just now. The fallback of a probe is
        not `spaced`: it may be all that saves the target, and probes of one target are rare enough; nor is knocking at
        a seed's door while nobody is known."""
        if address == self.presence.address:
            return
        if self.gate.ask(now, address, node) or not spaced:
            self.out.append(RequestSync(address=address, node=node, reason=reason))

    def probe(self, now: float, entry: Entry, purpose: Purpose) -> Probe | None:
        """Start probing a member, unless it is being probed."""
        health = self.health
        timeout_s = self.round_trips.timeout_s(entry.member.zone)
        probe = self.probes.start(
            entry.member,
            purpose,
            begun_at=now,
            asks_at=now + health.stretch(timeout_s),
            ends_at=now + health.stretch(timeout_s * (1 + self.config.indirect_timeout_mult)),
        )
        if probe is not None:
            self.ping(now, entry, probe.sequence)
        return probe

    def recall(self, now: float) -> None:
        """One that did not answer does again: perhaps the network was cut, and nothing this node said came through.
        Whom it suspects since is told so, and can refute; its turn to be probed comes in n intervals."""
        if not self.config.recall:
            return
        own = self.presence.id
        told = [entry for entry in self.judge.suspicions.entries() if own in entry.evidence]
        for entry in told[:RECALLED_MAX]:
            self.send(now, entry, Gossip())

    def spread_now(self, now: float) -> None:
        """A gossip round before its time; beyond the rate for these the next regular round does it."""
        if self._urgent_rounds.take(now):
            self.gossip_round(now)

    def gossip_round(self, now: float) -> None:
        """Tell what is queued to a few members at random, the recently dead among them."""
        if not self.broadcasts:
            return
        dead = len(self.roster.lately_dead(now, self.config.gossip_to_the_dead_s))
        if not dead and self.roster.others == 0:
            self.broadcasts.clear()  # nobody to tell; who comes later gets all of it in its first sync
            return
        count = self.config.fan_out(self.roster.size)
        each, over = divmod(self.config.gossip_datagrams_max, count)
        for place, entry in enumerate(self._audience(count, dead)):
            if self.broadcasts:
                self._gossip_to(now, entry, each + (place < over))

    def _audience(self, count: int, dead: int) -> list[Entry]:
        """Whom to tell in a round: so many members live or lately dead, each as likely as any other."""
        everybody = self.roster.others + dead
        buried = sum(self.rng.random() * everybody < dead for _ in range(count)) if dead else 0
        chosen = self.roster.sample_live(self.rng, count - buried)
        return chosen + self.roster.sample_dead(self.rng, count - len(chosen))

    def _gossip_to(self, now: float, entry: Entry, datagrams_max: int) -> None:
        """Everything queued, to one member, as far as so many datagrams go. What was sent least is sent first, so
        nothing goes twice before all has gone once."""
        own = (self.presence.id, "alive", b"")
        introduced = self.courier.introduces(now, entry) and own in self.broadcasts.updates
        queued = len(self.broadcasts) if entry.member.live else len(self.broadcasts.updates)
        told = self.courier.riders + queued - introduced
        if queued == 0:
            return
        introduce = True
        for _ in range(datagrams_max):
            before = self.courier.riders
            self.send(now, entry, Gossip(), introduce=introduce)
            if not self.broadcasts or self.courier.riders >= told:
                return
            if self.courier.riders == before:
                if not introduce or not self.courier.introduces(now, entry):
                    return
                introduce = False  # what does not fit beside the introduction follows right behind it

    def settle(self, now: float) -> None:
        """What the members' changes of state in this step set off."""
        judge = self.judge
        if judge.moves.changes or judge.accusations.summoned:
            changes, judge.moves.changes = judge.moves.changes, []
            summoned, judge.accusations.summoned = judge.accusations.summoned, []
            for entry in summoned[:SUMMONS_MAX]:
                if entry.member.state is State.SUSPECT:
                    self.send(now, entry, Gossip())
            for change in changes:
                self.out.append(MemberChanged(member=change.member, previous=change.previous))
                if change.displaced is not None:
                    self.out.append(AddressConflict(member=change.member, holder=change.displaced))
                self._follow(now, change)
        if judge.moves.urgent:
            judge.moves.urgent = False
            self.spread_now(now)

    def _follow(self, now: float, change: Change) -> None:
        entry, member = change.entry, change.member
        common = common_version(self.config.versions, entry.alive.versions) is not None
        strangers, entry.link.common = entry.link.common and not common, common
        if strangers:
            ours, theirs = self.config.versions, entry.alive.versions
            reason = (
                f"{member.name} reads datagrams of versions {theirs[0]} to {theirs[1]}, this node "
                f"{ours[0]} to {ours[1]}: they reach each other through others only"
            )
            self.out.append(Rejected(source=member.address, reason=reason))
        match member.state:
            case State.ALIVE:
                self.silent.remove(member.id)
            case State.SUSPECT:
                self._call_witnesses(now, entry)
            case State.DEAD:
                self.silent.remove(member.id)  # a suspect's attempts are over
                self.silent.add(member.id, now)
            case State.LEFT:
                self.silent.remove(member.id)

    def _call_witnesses(self, now: float, entry: Entry) -> None:
        """A suspicion is new here: if it is this node's, its witnesses are told at once; a witness probes at once, and
        the heralds, who come next in the ring, tell the suspect, so that it can refute."""
        own = self.presence.id
        if self.presence.left is not None or entry.member.state is not State.SUSPECT:
            return
        count = self.config.witnesses
        for place, node in enumerate(self.roster.witnesses(entry.member.id, count + self.config.heralds)):
            witness = self.roster.get(node)
            if node == own and own not in entry.evidence:
                if place >= count or self.probe(now, entry, Purpose.WITNESS) is None:
                    self.send(now, entry, Gossip())  # a herald, or a witness that is busy: told at least
            elif witness is not None and own in entry.evidence and place < count:
                self.send(now, witness, Gossip(), updates=(entry.evidence[own].encode(),))
