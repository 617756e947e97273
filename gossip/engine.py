"""The membership engine: one pure machine, `step(now, input) -> list[Output]` and `deadline`.

SWIM (Das, Gupta, Motivala, 2002) with Lifeguard (Dadgar, Phillips, Currey, 2017), signed statements and
witnesses. The parts are in rooms of their own: gossip/judge.py weighs claims, gossip/courier.py seals and opens
datagrams, gossip/conversation.py answers them, gossip/clockwork.py is what time sets off. Here is what the driver sees.

`now` is Unix seconds, never running backwards (the driver adds a monotonic offset). Timers fire on `Tick` only; a
Tick much later than `deadline` means that this node itself was not running, and what it was waiting for gets that
time on top (`LoopLag` says the same from the driver's side).

Invariant: a step is a function of the engine's state, `now`, the input and the rng; hostile bytes yield `Rejected`.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from gossip.census import NOBODY, Census
from gossip.clockwork import Clockwork
from gossip.config import PAYLOAD_BYTES_MAX, GossipConfig
from gossip.conversation import Conversation
from gossip.crypto import REAL, Crypto
from gossip.errors import LimitError
from gossip.events import (
    Address,
    Datagram,
    Evict,
    Input,
    Join,
    Leave,
    LoopLag,
    MemberChanged,
    MembersReceived,
    MetaValue,
    Output,
    Publish,
    Renewed,
    SetMeta,
    SyncFailed,
    Tick,
)
from gossip.member import Member, State
from gossip.message import FINGERPRINT_BYTES
from gossip.parts import Parts
from gossip.sync import MemberExchange
from trust.credential import Credential
from trust.identity import NodeIdentity, format_id
from trust.roots import Root


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counters since the start, and sizes now. `*_dropped` are items pushed out of full queues."""

    alive: int
    suspect: int
    dead: int
    left: int
    health: int
    refutations: int
    datagrams_sent: int
    bytes_sent: int
    introductions_verified: int
    rejected: int
    syncs_failed: int
    updates_queued: int
    payloads_queued: int
    updates_dropped: int
    payloads_dropped: int
    told_most: int  # how often what waits to be told again was told, at most
    probes: int


class Engine:
    """One node's membership. Raises LimitError for an address, zone or metadata that cannot be announced. `crypto` and
    `census` are for simulations of many nodes in one process (gossip/crypto.py, gossip/census.py)."""

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
        self._now = now
        self._parts = Parts(
            config=config,
            identity=identity,
            credential=credential,
            trust_root=trust_root,
            address=address,
            boot=boot,
            zone=zone,
            meta=meta,
            rng=rng,
            now=now,
            crypto=crypto,
            census=census,
        )
        self._conversation = Conversation(self._parts)
        self._clockwork = Clockwork(self._parts, now)
        self._syncs_failed = 0
        self.deadline = self._clockwork.deadline  # when the next `Tick` is due

    # ------------------------------------------------------------ the machine
    def step(self, now: float, event: Input) -> list[Output]:
        """Take in one input; returns what is to be done, in order. Raises LimitError for a Publish, SetMeta or Join
        beyond its bound, and then nothing changed."""
        parts = self._parts
        self._now = now = max(now, self._now)
        parts.divergence.observe(now, parts.fingerprint)
        silent = not parts.broadcasts
        match event:
            case Datagram():
                self._conversation.datagram(now, event)
            case Tick():
                self._clockwork.lagged(now, now - self.deadline)
                self._clockwork.tick(now)
            case MembersReceived():
                self._conversation.members(now, event)
            case Publish(payload=payload):
                self._publish(now, payload)
            case Join(seeds=seeds):
                self._join(now, seeds)
            case Leave():
                self._leave(now)
            case SyncFailed():
                self._syncs_failed += 1  # nothing to undo: the next reason for a stream comes by itself
            case Renewed(credential=credential):
                assert credential.node == parts.presence.id, "a credential of another node"
                parts.presence.announce(credential=credential)
                self._announced()
            case SetMeta(meta=meta):
                parts.presence.announce(meta=meta)
                self._announced()
            case LoopLag(lag_s=lag_s):
                self._clockwork.lagged(now, lag_s)
            case Evict(node=node, reason=reason):
                parts.judge.evict(now, node, reason)
            case _:
                assert_never(event)
        parts.settle(now)
        parts.list_divergence.observe(now, parts.view.observe(now))
        if silent and parts.broadcasts:
            self._clockwork.awake(now)
        # a timer brought forward into the past could not have fired before now: that is no lag of this node
        self.deadline = max(self._clockwork.deadline, min(self.deadline, now))
        outputs, parts.out = parts.out, []
        return outputs

    # ------------------------------------------------------------ what the driver may ask and set
    @property
    def fingerprint(self) -> bytes:
        """The journal's fingerprint, carried on every ping and ack."""
        return self._parts.fingerprint

    @fingerprint.setter
    def fingerprint(self, value: bytes) -> None:
        assert len(value) == FINGERPRINT_BYTES, "a fingerprint has 16 bytes"
        self._parts.fingerprint = value

    @property
    def id(self) -> bytes:
        return self._parts.presence.id

    @property
    def boot(self) -> int:
        """This life's boot number. It rises by itself if an earlier life of this identity turns up with a higher
        one; what is stored for the next start must be higher than this."""
        return self._parts.presence.boot

    def members(self) -> tuple[Member, ...]:
        """All members known, this node first."""
        return (self._parts.presence.member, *self._parts.roster.members())

    def member(self, node: bytes) -> Member | None:
        """One member, perhaps this node."""
        if node == self.id:
            return self._parts.presence.member
        return self._parts.roster.member(node)

    def exchange(self, peer: bytes | None, *, initiator: bool) -> MemberExchange:
        """This node's side of an exchange of members over a stream whose TLS peer is `peer`; it reads the list as it is
        by then. What the stream brings comes back as `MembersReceived`."""
        parts = self._parts
        return MemberExchange(
            parts.view,
            peer=peer,
            initiator=initiator,
            whole=parts.config.sync_whole,
            on_difference=lambda: parts.list_divergence.exchanged(self._now, peer, asked=initiator),
        )

    def statistics(self) -> Statistics:
        """Counters and sizes."""
        parts = self._parts
        here = parts.presence.left is None
        return Statistics(
            alive=parts.roster.count(State.ALIVE) + here,
            suspect=parts.roster.count(State.SUSPECT),
            dead=parts.roster.count(State.DEAD),
            left=parts.roster.count(State.LEFT) + (not here),
            health=parts.health.score,
            refutations=parts.judge.accusations.refutations,
            datagrams_sent=parts.courier.sent,
            bytes_sent=parts.courier.sent_bytes,
            introductions_verified=parts.courier.introductions,
            rejected=self._conversation.rejected,
            syncs_failed=self._syncs_failed,
            updates_queued=len(parts.broadcasts.updates),
            payloads_queued=len(parts.broadcasts.payloads),
            updates_dropped=parts.broadcasts.updates.dropped,
            payloads_dropped=parts.broadcasts.payloads.dropped,
            told_most=max(parts.broadcasts.updates.told_most, parts.broadcasts.payloads.told_most),
            probes=len(parts.probes),
        )

    def __repr__(self) -> str:
        return f"Engine({format_id(self.id)}, boot {self.boot}, {self._parts.roster.size} live members)"

    # ------------------------------------------------------------ inputs
    def _join(self, now: float, seeds: tuple[Address, ...]) -> None:
        parts = self._parts
        if len(seeds) > parts.config.seeds_max:
            raise LimitError(f"{len(seeds)} seeds, at most {parts.config.seeds_max}")
        if parts.presence.left is not None:
            parts.presence.come_back(now)
            self._clockwork.stop_leaving()
            parts.out.append(MemberChanged(member=parts.presence.member, previous=State.LEFT))
        self._announced(changed=False)
        for seed in seeds:
            if seed != parts.presence.address:
                parts.seeds.add(seed, now, share=parts.rng.uniform(0.25, 1.0))
                parts.request_sync(now, seed, None, "join")

    def _leave(self, now: float) -> None:
        parts = self._parts
        if parts.presence.left is not None:
            return
        parts.broadcasts.tell(parts.presence.id, "left", parts.presence.leave(now).encode())
        parts.out.append(MemberChanged(member=parts.presence.member, previous=State.ALIVE))
        parts.judge.moves.urgent = True
        self._clockwork.start_leaving(now)

    def _publish(self, now: float, payload: bytes) -> None:
        """Push a record. One heard before is pushed too: the node decides what is worth telling on."""
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise LimitError(f"a record of {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} are pushed")
        self._conversation.publish(payload)
        self._parts.spread_now(now)

    def _announced(self, *, changed: bool = True) -> None:
        """Tell what this node now says of itself."""
        presence = self._parts.presence
        if presence.left is None:
            self._parts.broadcasts.tell(presence.id, "alive", presence.encoded)
        if changed:
            self._parts.out.append(MemberChanged(member=presence.member, previous=presence.member.state))
