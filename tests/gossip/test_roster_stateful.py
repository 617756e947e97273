"""The roster and its judge under any sequence of claims, silences, pauses, revocations and expiries.

A hypothesis state machine drives one engine and checks after every single step, against what was really signed and
delivered, that: a member's rank never falls and is always one its owner signed; states move by
gossip.member.TRANSITIONS alone; what the driver is told adds up to what `members()` shows; counts and indexes agree
with the entries; evidence is for the present rank, by distinct members, none of them the accused; this node is never
suspect or dead to itself; everything has its bound; and what this node tells a newcomer is believed there.
"""

from dataclasses import replace
from functools import cache

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gossip.config import lan
from gossip.engine import Engine
from gossip.events import (
    Datagram,
    Evict,
    Input,
    Join,
    Leave,
    LoopLag,
    MemberChanged,
    MembersReceived,
    Output,
    Publish,
    Rejected,
    SetMeta,
    SyncFailed,
    Tick,
)
from gossip.member import TRANSITIONS, Member, State
from gossip.message import Gossip
from gossip.statement import Alive, Left, Statement, Suspect
from tests.gossip.company import OWN, alive_of, chunk, dead_of, left_of
from tests.gossip.world import (
    START,
    Speaker,
    credential_of,
    engine_of,
    identity_of,
    members_payload,
    suspicion,
)
from trust.credential import Credential

BRIEF = "brief"  # its credential runs out within a run
BRIEF_S = 120
NAMES = ("m0", "m1", "m2", "m3", BRIEF)
COURIER = "courier"  # carries datagrams; nobody claims anything about it
ACCUSERS = (*NAMES, OWN, "stranger")
CONFIG = replace(
    lan(), members_max=5, updates_max=16, payloads_max=8, probes_max=3, relays_max=4, keys_max=8, heard_max=16
)
EDGES = {(before, after) for (before, _), after in TRANSITIONS.items()}

names = st.sampled_from(NAMES)
ranks = st.tuples(st.integers(0, 2), st.integers(0, 3))
carriers = st.sampled_from(["stream", "gossip", "introduced"])


@cache
def credential(name: str) -> Credential:
    return credential_of(name, ttl_s=BRIEF_S if name == BRIEF else 7 * 86_400)


@cache
def alive(name: str, rank: tuple[int, int]) -> Alive:
    return alive_of(
        name, rank, address=("10.9.1.1", 1 + rank[0] * 100 + rank[1]), credential=credential(name)
    )


@cache
def left(name: str, rank: tuple[int, int]) -> Left:
    return left_of(name, rank)


@cache
def accusation(accuser: str, subject: str, rank: tuple[int, int]) -> Suspect:
    return suspicion(accuser, subject, rank)


class Life(RuleBasedStateMachine):
    """One engine and everything that can be said to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.engine: Engine = engine_of(OWN, config=CONFIG)
        self.courier = Speaker(COURIER, address=("10.9.2.2", 7946))
        self.signed: dict[bytes, set[tuple[int, int]]] = {self.courier.identity.id: {(1, 0)}}
        self.accusations: set[Suspect] = set()
        self.seen: dict[bytes, Member] = {self.engine.id: self.engine.members()[0]}
        self.told: dict[bytes, Member] = dict(self.seen)
        self.ever: set[bytes] = {self.engine.id}
        self.evicted: set[bytes] = set()
        self.delivered = True  # whether the last statements came as far as being weighed

    # ------------------------------------------------------------ steps
    def step(self, event: Input) -> list[Output]:
        outputs = self.engine.step(self.now, event)
        members = {member.id: member for member in self.engine.members()}
        for gone in self.seen.keys() - members.keys():
            assert not self.seen[gone].live or self.seen[gone].credential.expires_at <= self.now
            self.told.pop(gone, None)
        self.ever |= members.keys()
        for output in outputs:
            if isinstance(output, MemberChanged) and output.member.id in members:
                self.change(output)
        for node, member in members.items():
            self.compare(node, member)
        self.seen = members
        return outputs

    def change(self, output: MemberChanged) -> None:
        """One event for the driver follows from the one before."""
        known = self.told.get(output.member.id)
        assert output.previous is (None if known is None else known.state)
        if known is not None:
            assert (known.state, output.member.state) in EDGES
        self.told[output.member.id] = output.member

    def compare(self, node: bytes, member: Member) -> None:
        """What is shown is what was told, and never goes back."""
        told, before = self.told[node], self.seen.get(node)
        assert (told.state, told.address, told.zone, told.meta, told.credential) == (
            member.state,
            member.address,
            member.zone,
            member.meta,
            member.credential,
        )
        assert (
            told.boot == member.boot or node == self.engine.id
        )  # its own the driver asks for, `Engine.boot`
        if before is not None:
            assert member.rank >= before.rank
            assert (before.state, member.state) in EDGES | {(before.state, before.state)}
            assert member.state is before.state or member.since == self.now
        if node != self.engine.id:
            assert member.rank in self.signed[node]

    def hear(self, carrier: str, *statements: Statement) -> list[Output]:
        for statement in statements:
            match statement:
                case Alive(node=node) | Left(subject=node):
                    self.signed.setdefault(node, set()).add(statement.rank)
                case Suspect():
                    self.accusations.add(statement)
                case _:
                    self.accusations |= set(statement.suspicions)
        self.delivered = carrier == "stream" or self.get(COURIER) is not None
        if carrier == "stream":
            return self.step(MembersReceived(node=None, data=chunk(*statements)))
        updates = [statement.encode() for statement in statements]
        introduction = None if carrier == "introduced" else b""
        data = self.courier.say(OWN, Gossip(), updates=updates, introduction=introduction)
        outputs = self.step(Datagram(source=self.courier.address, data=data))
        self.delivered |= self.get(COURIER) is not None  # a stranger there was room for
        return outputs

    def trusts(self, name: str) -> bool:
        """Whether what `name` says of itself counts now."""
        node = identity_of(name).id
        return node not in self.evicted and self.now < credential(name).expires_at

    def get(self, name: str) -> Member | None:
        return self.engine.member(identity_of(name).id)

    def evidence(self, name: str) -> set[bytes]:
        """Whose accusations of `name` count at present."""
        entry = self.engine._parts.roster.get(identity_of(name).id)
        return set() if entry is None else set(entry.evidence)

    # ------------------------------------------------------------ the subject's own word
    @initialize()
    def begin(self) -> None:
        self.hear("introduced", *(alive(name, (1, 0)) for name in NAMES[:3]))

    @rule(carrier=carriers, name=names, rank=ranks, slim=st.booleans())
    def announce(self, carrier: str, name: str, rank: tuple[int, int], slim: bool) -> None:
        before = self.get(name)
        statement = alive(name, rank)
        self.hear(carrier, statement.slim() if slim else statement)
        after = self.get(name)
        if before is None or not self.trusts(name) or not self.delivered:
            return
        assert after is not None
        assert after.rank == max(before.rank, rank)
        assert after.state is (State.ALIVE if rank > before.rank else before.state)

    @rule(carrier=carriers, name=names, rank=ranks)
    def depart(self, carrier: str, name: str, rank: tuple[int, int]) -> None:
        before = self.get(name)
        self.hear(carrier, left(name, rank))
        after = self.get(name)
        if before is None:
            assert after is None
        elif self.trusts(name) and self.delivered:
            assert after is not None
            assert after.rank == max(before.rank, rank)
            assert after.state is (State.LEFT if rank >= before.rank else before.state)

    # ------------------------------------------------------------ accusations
    @rule(carrier=carriers, accuser=st.sampled_from(ACCUSERS), subject=names, rank=ranks)
    def suspect(self, carrier: str, accuser: str, subject: str, rank: tuple[int, int]) -> None:
        before = {name: member.rank for name in NAMES if (member := self.get(name))}
        self.hear(carrier, accusation(accuser, subject, rank))
        after = {name: member.rank for name in NAMES if (member := self.get(name))}
        assert after == before

    @rule(
        carrier=carriers,
        subject=names,
        accusers=st.sets(st.sampled_from(ACCUSERS)),
        present=st.booleans(),
        rank=ranks,
    )
    def condemn(
        self, carrier: str, subject: str, accusers: set[str], present: bool, rank: tuple[int, int]
    ) -> None:
        before = self.get(subject)
        if present and before is not None:
            rank = before.rank
        held = self.evidence(subject)
        self.hear(carrier, dead_of(subject, sorted(accusers), rank))
        after = self.get(subject)
        if before is not None and after is not None:
            assert after.rank == before.rank
            proof = {identity_of(name).id for name in accusers} & (self.ever - {before.id}) | held
            assert after.state is before.state or (rank == before.rank and proof)

    @rule(carrier=carriers, accuser=st.sampled_from(ACCUSERS), past=st.integers(-1, 2), bundle=st.booleans())
    def accuse_this_node(self, carrier: str, accuser: str, past: int, bundle: bool) -> None:
        before = self.engine.members()[0]
        rank = (before.boot, max(0, before.incarnation - past))
        claim = dead_of(OWN, [accuser], rank) if bundle else accusation(accuser, OWN, rank)
        self.hear(carrier, claim)
        after = self.engine.members()[0]
        refuted = self.delivered and rank == before.rank and before.state is State.ALIVE
        assert after.rank == ((before.boot, before.incarnation + 1) if refuted else before.rank)
        assert (after.state, after.meta, after.address) == (before.state, before.meta, before.address)

    @rule(carrier=carriers, name=names, rank=ranks, kind=st.sampled_from(["alive", "left", "suspect"]))
    def forge(self, carrier: str, name: str, rank: tuple[int, int], kind: str) -> None:
        """In the name of `name`, signed by nobody."""
        before = {member.id: member for member in self.engine.members()}
        honest: Statement = {"alive": alive(name, rank), "left": left(name, rank)}.get(
            kind, accusation(name, "m0" if name != "m0" else "m1", rank)
        )
        accusations = set(self.accusations)
        signed = {node: set(known) for node, known in self.signed.items()}
        outputs = self.hear(carrier, replace(honest, signature=bytes(64)))
        self.accusations, self.signed = accusations, signed
        assert not [
            output
            for output in outputs
            if isinstance(output, MemberChanged) and output.member.name != COURIER
        ]
        after = {member.id: member for member in self.engine.members() if member.name != COURIER}
        assert all(before.get(node) == member for node, member in after.items())

    # ------------------------------------------------------------ this node
    @rule(carrier=carriers, rank=ranks, kind=st.sampled_from(["alive", "left"]))
    def an_earlier_life_turns_up(self, carrier: str, rank: tuple[int, int], kind: str) -> None:
        before = self.engine.members()[0]
        self.hear(carrier, alive(OWN, rank) if kind == "alive" else left(OWN, rank))
        after = self.engine.members()[0]
        assert after.state is before.state
        if before.state is State.ALIVE and self.delivered:
            assert after.rank > rank or after.rank == before.rank == rank

    @rule()
    def leave(self) -> None:
        self.step(Leave())
        assert self.engine.members()[0].state is State.LEFT

    @rule()
    def join(self) -> None:
        self.step(Join(seeds=(("10.66.6.6", 7946),)))
        assert self.engine.members()[0].state is State.ALIVE

    @rule(value=st.integers(0, 3))
    def set_meta(self, value: int) -> None:
        self.step(SetMeta(meta={"value": value}))
        assert self.engine.members()[0].meta == {"value": value}

    @rule(payload=st.binary(max_size=40))
    def publish(self, payload: bytes) -> None:
        self.step(Publish(payload=payload))

    @rule()
    def a_stream_fails(self) -> None:
        self.step(SyncFailed(address=("10.66.6.6", 7946)))

    # ------------------------------------------------------------ time, revocation
    @rule(seconds=st.sampled_from([0.05, 0.5, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, and every timer fires when it is due."""
        end = self.now + seconds
        while (deadline := self.engine.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.step(Tick())
            assert (self.engine.deadline or end) > self.now
        self.now = end

    @rule(seconds=st.sampled_from([0.3, 3.0, 100.0]))
    def oversleep(self, seconds: float) -> None:
        """This node is stopped for a while; what it was waiting for is not held against anybody at once."""
        self.now += seconds
        self.step(Tick())

    @rule(lag_s=st.sampled_from([0.1, 0.4, 3.0]))
    def lag(self, lag_s: float) -> None:
        self.step(LoopLag(lag_s=lag_s))

    @rule(name=names)
    def evict(self, name: str) -> None:
        self.evicted.add(identity_of(name).id)
        self.step(Evict(node=identity_of(name).id, reason="revoked"))

    # ------------------------------------------------------------ what holds always
    @invariant()
    def this_node_is_never_suspect_or_dead_to_itself(self) -> None:
        own = self.engine.members()[0]
        assert own.id == self.engine.id
        assert own.state in (State.ALIVE, State.LEFT)

    @invariant()
    def the_revoked_are_dead(self) -> None:
        for node in self.evicted:
            member = self.engine.member(node)
            assert member is None or member.state is State.DEAD

    @invariant()
    def counts_and_indexes_agree_with_the_entries(self) -> None:
        members = self.engine.members()
        statistics, roster = self.engine.statistics(), self.engine._parts.roster
        states = [member.state for member in members]
        assert [statistics.alive, statistics.suspect, statistics.dead, statistics.left] == [
            states.count(state) for state in (State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT)
        ]
        others = members[1:]
        assert len({member.id for member in members}) == len(members)
        assert len(roster) == len(others) <= CONFIG.members_max
        assert roster.size == 1 + sum(member.live for member in others)
        for member in others:
            entry = roster.get(member.id)
            assert entry is not None
            assert roster.by_prefix(member.id[:8]) is entry
            alive_others = sum(m.state is State.ALIVE for m in others)
            assert roster.able(member) == alive_others + 1 - (member.state is State.ALIVE)

    @invariant()
    def evidence_is_for_the_present_rank_and_by_distinct_members(self) -> None:
        own = self.engine.id
        for member in self.engine.members()[1:]:
            entry = self.engine._parts.roster.get(member.id)
            assert entry is not None
            assert len(entry.evidence) <= CONFIG.confirmations + 1
            for accuser, evidence in entry.evidence.items():
                assert (accuser, evidence.subject, evidence.rank) == (
                    evidence.accuser,
                    member.id,
                    member.rank,
                )
                assert accuser != member.id
                assert accuser in self.ever
                assert evidence in self.accusations or accuser == own
            if member.state is State.SUSPECT:
                assert entry.evidence
            if member.state in (State.ALIVE, State.LEFT):
                assert not entry.evidence

    @invariant()
    def everything_has_its_bound(self) -> None:
        statistics = self.engine.statistics()
        assert statistics.updates_queued <= CONFIG.updates_max
        assert statistics.payloads_queued <= CONFIG.payloads_max
        assert statistics.probes <= CONFIG.probes_max
        assert 0 <= statistics.health < CONFIG.health_max
        assert self.engine.deadline is not None

    @precondition(lambda self: len(self.seen) > 2)
    @rule()
    def tell_a_newcomer(self) -> None:
        """A stream peer that knows nothing yet comes to see what this node sees, as far as it can be proved to it."""
        newcomer = engine_of("newcomer", now=self.now)
        rejected: list[Output] = []
        for data in members_payload(self.engine):
            rejected += [
                o
                for o in newcomer.step(self.now, MembersReceived(node=None, data=data))
                if isinstance(o, Rejected)
            ]
        assert rejected == []
        known = {member.id for member in newcomer.members()}
        for member in self.engine.members():
            theirs = newcomer.member(member.id)
            if theirs is None:
                assert member.id in self.evicted or member.credential.expires_at <= self.now
                continue
            assert theirs.rank == member.rank
            entry = self.engine._parts.roster.get(member.id)
            if entry is None or member.state in (State.ALIVE, State.LEFT):
                assert theirs.state is member.state
            elif entry.evidence.keys() & known:
                assert theirs.state in (State.SUSPECT, State.DEAD)


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnySequenceOfClaimsKeepsTheRosterSound = Life.TestCase
