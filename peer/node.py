"""The node: membership, journal and their exchange as one pure machine.

`step(now, input) -> list[Output]` and `deadline`: the driver owns sockets, disk and clock, the node owns what
they mean. `now` is Unix time in seconds (the driver makes sure that it never falls).

The life of a record. Written here: judged by the rule of its kind, numbered, signed, put on disk, and only
then merged, pushed and acknowledged, so that a crash can neither lose an acknowledged record nor make this
node use a number twice. Heard from elsewhere: merged at once and pushed on (epidemic), put on disk behind it;
what a crash takes comes back by reconciliation. Records too large for a datagram travel by an immediate
exchange with a few random members, each of whom does the same with what was new to it.

Whoever is *told* the state of the mesh is told it by a node that knows it: one that has taken it in since its disk was
made, or was there when the mesh began. Only the word of such nodes releases the writes of one whose disk was lost
(`peer/node_doubt.py`); two that both lost theirs would agree at once on nothing.

What comes from others is taken in by `peer/node_intake.py`; own writes are numbered in `peer/node_writes.py`; exchanges
are counted in `peer/node_sessions.py`, requests to join in `peer/node_joins.py`.

Invariants: a number is never used twice (own writes wait for the first exchange after a start, or `hold_writes_s`);
nothing is acknowledged before `Persisted`; every exchange is bounded and ends.
"""

import math
import random
from collections.abc import Mapping
from typing import Final, assert_never

import gossip.events as membership
from crdt.journal import Journal, Refuse
from crdt.record import Record
from gossip.census import NOBODY, Census
from gossip.config import GossipConfig
from gossip.engine import Engine
from gossip.errors import LimitError
from gossip.events import Address
from gossip.member import Member, State
from peer import node_notes
from peer.messages import (
    CloseStream,
    CredentialRenewed,
    DatagramReceived,
    Depart,
    Departed,
    Input,
    JoinSeeds,
    Lagged,
    Level,
    MemberMoved,
    MetaChanged,
    Note,
    OpenStream,
    Output,
    Persist,
    Persisted,
    PersistFailed,
    SendDatagram,
    SendFrame,
    StateChanged,
    StreamClosed,
    StreamFrame,
    StreamOpened,
    Synced,
    Tick,
    Write,
)
from peer.node_distrust import Distrust
from peer.node_doubt import WORD_S_MAX, Doubt
from peer.node_intake import Intake
from peer.node_joins import Joins
from peer.node_notes import Complaints
from peer.node_sessions import TOO_MANY, Sessions
from peer.node_writes import Writes
from peer.records import Registry
from peer.session import SessionError, SyncSession
from trust.credential import Credential
from trust.identity import NodeIdentity

DIVERGED: Final = "diverged"
FORGED: Final = "a record that its writer did not sign"
NOT_OURS: Final = "a record held back that this node did not write"
SHUNNED: Final = "this node broke the protocol a short while ago"
EXPELLED: Final = "this node has equivocated"


class Node:
    """See the module's theory. Construct, `step` with inputs, obey the outputs."""

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        credential: Credential,
        registry: Registry,
        journal: Journal,
        config: GossipConfig,
        address: Address,
        boot: int,
        zone: str,
        meta: Mapping[str, int | str | bool],
        rng: random.Random,
        now: float,
        hold_writes_s: float = 0.0,
        census: Census = NOBODY,
    ) -> None:
        self.identity = identity
        self.registry = registry
        self.journal = journal
        self._rng = rng
        self._sessions = Sessions()
        self._joins = Joins()
        self._distrust = Distrust()
        self.complaints = Complaints()
        self._writes = Writes(
            identity=identity, journal=journal, registry=registry, hold_until=now + hold_writes_s
        )
        self._told = self._synced = False
        self._knows = math.isfinite(hold_writes_s)  # the state of the mesh; who doubts its own does not
        self._doubt = Doubt(doubtful=not self._knows)
        registry.introduce(identity.id, credential.encode())
        journal.introduce(identity.id, credential.encode())
        self.engine = Engine(
            config=config,
            identity=identity,
            credential=credential,
            trust_root=registry.root,
            address=address,
            boot=boot,
            zone=zone,
            meta=meta,
            rng=rng,
            now=now,
            crypto=registry.crypto,
            census=census,
        )
        self._intake = Intake(
            own=identity.id,
            journal=journal,
            registry=registry,
            engine=self.engine,
            complaints=self.complaints,
            rng=rng,
            act=self._engine,
            begin=self._open,
        )
        self.engine.fingerprint = journal.fingerprint()
        for subject in registry.revocations.subjects():
            self._intake.evict(now, subject, [])
        for writer in journal.forks:
            self._intake.expel(now, writer, [])
        self.deadline = self._due()  # when `Tick` is due, in the clock of `now`

    # ------------------------------------------------------------------ the machine

    def _due(self) -> float:
        """The deadline, as things stand after a step."""
        least = self.engine.deadline
        for at in (
            self._sessions.deadline,
            self._intake.retry_at,
            self._writes.deadline,
            self._doubt.deadline,
            self.complaints.deadline,
        ):
            if at is not None and at < least:
                least = at
        return least

    def step(self, now: float, event: Input) -> list[Output]:
        """Take one input; return what is to be done, in order."""
        out: list[Output] = []
        match event:
            case DatagramReceived():
                self._engine(now, event, out)
            case Tick():
                self._tick(now, event, out)
            case StreamOpened():
                self._stream_opened(now, event, out)
            case StreamFrame():
                self._stream_frame(now, event, out)
            case StreamClosed():
                self._finish(now, event.stream, event.reason or "closed early", out)
            case Persisted():
                self._persisted(now, event.ticket, out)
            case PersistFailed():
                out.extend(self._writes.failed(event.ticket, event.reason))
                out.extend(self._writes.dispatch(now))
            case Write():
                out.extend(self._writes.add(now, event))
            case JoinSeeds():
                self._join(now, event, out)
            case Depart():
                self._engine(now, membership.Leave(), out)
            case Lagged():
                self._engine(now, membership.LoopLag(lag_s=event.lag_s), out)
            case CredentialRenewed():
                self._intake.introduce(now, self.identity.id, event.credential.encode(), None, out)
                self._engine(now, membership.Renewed(credential=event.credential), out)
            case MetaChanged():
                self._engine(now, membership.SetMeta(meta=event.meta), out)
            case _:
                assert_never(event)
        self.deadline = self._due()
        return out

    def _tick(self, now: float, event: Tick, out: list[Output]) -> None:
        if self.engine.deadline <= now:
            self._engine(now, event, out)
        for number in self._sessions.overdue(now):
            out.append(CloseStream(stream=number, reason="took too long"))
            self._finish(now, number, "took too long", out)
        if self._intake.retry_at is not None and self._intake.retry_at <= now:
            self._intake.retry_at = None
            self._intake.merged(now, self.journal.retry_waiting(int(now * 1000)), None, out)
        out.extend(self.complaints.due(now))
        self._settle(now, out)
        out.extend(self._writes.dispatch(now))

    # ------------------------------------------------------------------ membership

    def _engine(self, now: float, event: membership.Input, out: list[Output]) -> None:
        for result in self.engine.step(now, event):
            match result:
                case SendDatagram():
                    out.append(result)
                case membership.RequestSync():
                    self._open(now, result.address, result.node, True, result.reason, out)
                case membership.Diverged():
                    if not self._distrust.spaces(now, result.node):
                        self._open(now, result.address, result.node, False, DIVERGED, out)
                case membership.MemberChanged():
                    self._member_changed(now, result.member, result.previous, out)
                case membership.Heard():
                    self._intake.heard(now, result.node, result.payload, out)
                case membership.Rejected():
                    out.append(node_notes.rejected(result))
                case membership.AddressConflict():
                    out.append(node_notes.address_conflict(result))
                case membership.LeaveSpread():
                    out.append(Departed())
                case _:
                    assert_never(result)

    def _member_changed(self, now: float, member: Member, previous: State | None, out: list[Output]) -> None:
        if member.credential is not None:
            self._intake.introduce(now, member.id, member.credential.encode(), None, out)
        if previous is not member.state:
            out.append(MemberMoved(member=member, previous=previous))
        out.append(StateChanged())
        if self._intake.retry_at is None and next(self.journal.waiting(), None) is not None:
            self._intake.retry_at = now

    # ------------------------------------------------------------------ streams

    def _open(
        self,
        now: float,
        address: Address,
        node: bytes | None,
        with_members: bool,
        reason: str,
        out: list[Output],
    ) -> None:
        """Begin an exchange unless one with that node runs already or too many run."""
        if self._sessions.covers(address, with_members=with_members) or self._distrust.shuns(now, node):
            return
        stream = self._sessions.begin(now, address, node, with_members=with_members)
        if stream is None:
            out.extend(self._joins.failed(address, TOO_MANY))
            return
        fields = {"address": f"{address[0]}:{address[1]}", "reason": reason}
        out.append(Note(level=Level.DEBUG, event="exchange_begins", fields=fields))
        out.append(OpenStream(stream=stream, address=address, node=node))

    def _stream_opened(self, now: float, event: StreamOpened, out: list[Output]) -> None:
        if event.inbound:
            if event.node in self.journal.forks or self._distrust.shuns(now, event.node):
                reason = EXPELLED if event.node in self.journal.forks else SHUNNED
                out.append(CloseStream(stream=event.stream, reason=reason))
                return
            session = SyncSession(
                self.journal,
                self.engine.exchange(event.node, initiator=False),
                initiator=False,
                knows=self._knowing,
                other=event.node,
            )
            if not self._sessions.accept(now, event.stream, event.node, session):
                out.append(CloseStream(stream=event.stream, reason=TOO_MANY))
            return
        exchange = self._sessions.get(event.stream)
        if exchange is None:
            out.append(CloseStream(stream=event.stream, reason="no longer wanted"))
            return
        exchange.node = event.node
        members = self.engine.exchange(event.node, initiator=True) if exchange.with_members else None
        exchange.session = SyncSession(
            self.journal, members, initiator=True, knows=self._knowing, other=event.node
        )
        out.extend(SendFrame(stream=event.stream, data=frame) for frame in exchange.session.start())

    def _stream_frame(self, now: float, event: StreamFrame, out: list[Output]) -> None:
        exchange = self._sessions.get(event.stream)
        if exchange is None or exchange.session is None:
            return
        try:
            progress = exchange.session.receive(event.data)
        except SessionError as error:
            self._protocol_error(now, event.stream, exchange.node, str(error), out)
            return
        out.extend(SendFrame(stream=event.stream, data=frame) for frame in progress.send)
        for chunk in progress.members:
            self._engine(now, membership.MembersReceived(node=exchange.node, data=chunk), out)
        for delta, introduction in progress.deltas:
            if self._intake.absorb(now, delta, introduction, exchange, out):
                self._protocol_error(now, event.stream, exchange.node, FORGED, out)
                return
        if progress.held is not None and not self._shown(now, progress.held, exchange.node):
            self._protocol_error(now, event.stream, exchange.node, NOT_OURS, out)
            return
        if progress.done:
            if exchange.address is not None:
                out.append(CloseStream(stream=event.stream))
            self._finish(now, event.stream, "", out)

    def _shown(self, now: float, record: Record, node: bytes | None) -> bool:
        """Another node holds back a record that it says this one has written. Where that is news, the record is
        lost here and its number is used (`peer/node_doubt.py`). Returns whether it is this node's at all."""
        own = self.identity.id
        if record.writer != own or isinstance(self.registry.judge(record, int(now * 1000)), Refuse):
            return False
        if self.journal.pass_over(own, record.seq):
            self._doubt.reopen(now, node)
            self._writes.hold(now + WORD_S_MAX)
        return True

    def _protocol_error(
        self, now: float, stream: int, node: bytes | None, reason: str, out: list[Output]
    ) -> None:
        self._distrust.offended(now, node)
        exchange = self._sessions.get(stream)
        if exchange is not None:
            exchange.refused = False  # it is held against the node already
        out.extend(self.complaints.tell(now, node, node_notes.warning("exchange_broken", node, reason)))
        out.append(CloseStream(stream=stream, reason=reason))
        self._finish(now, stream, reason, out)

    def _finish(self, now: float, stream: int, reason: str, out: list[Output]) -> None:
        """An exchange ended; `reason` "" means it came to its end."""
        exchange = self._sessions.pop(stream)
        if exchange is None:
            return
        told = not reason and exchange.session is not None and exchange.session.told
        if told:
            self._told = self._knows = True
            self._doubt.told(now, exchange.node)
        self._distrust.weigh(now, exchange, ended_well=not reason, whole=lambda: self.journal.bytes_held)
        if exchange.address is not None:
            if reason:
                self._engine(now, membership.SyncFailed(address=exchange.address), out)
                out.extend(self._joins.failed(exchange.address, reason))
            else:
                out.extend(self._joins.contacted(exchange.address))
        self._settle(now, out)

    def _knowing(self) -> bool:
        return self._knows

    def _settle(self, now: float, out: list[Output]) -> None:
        """Release the writes once whoever could be asked for this node's own journal has been; else ask on."""
        if not self._doubt.settled and self._doubt.deadline is not None:
            teller = self._doubt.ask(now, self._intake.others(), self._rng, joining=bool(self._joins))
            if teller is not None:
                self._open(now, teller.address, teller.id, False, "own journal", out)
        if self._told and self._doubt.settled and not self._synced:
            self._synced = True
            out.append(Synced())
        if self._synced and self._doubt.settled and (self._doubt.doubtful or not self._joins):
            self._writes.release()
            out.extend(self._writes.dispatch(now))

    # ------------------------------------------------------------------ joining

    def _join(self, now: float, event: JoinSeeds, out: list[Output]) -> None:
        self._joins.add(event.request, event.seeds)
        try:
            self._engine(now, membership.Join(seeds=event.seeds), out)
        except LimitError as error:
            for seed in event.seeds:
                out.extend(self._joins.failed(seed, str(error)))
            return
        own = self.engine.members()[0].address
        for seed in event.seeds:
            if seed == own:
                out.extend(self._joins.failed(seed, "is this peer itself"))
            else:  # whoever was contacted a moment ago is contacted again: somebody asked for it
                self._open(now, seed, None, True, "join", out)
        out.extend(self._joins.answers())

    # ------------------------------------------------------------------ records written here

    def _persisted(self, now: float, ticket: int, out: list[Output]) -> None:
        records = self._writes.stored(ticket)
        if not records:
            return
        merged = self.journal.enter(records, int(now * 1000))
        self._intake.blame(now, merged, self.identity.id, out)
        out.extend(self._writes.acknowledge())
        kept = {(record.kind, record.key) for record in records}
        gone = tuple(record for record in merged.superseded if (record.kind, record.key) not in kept)
        if gone or merged.equivocations:  # tombstones that no longer say anything
            out.append(Persist(ticket=0, delete=gone, forks=merged.equivocations))
        self._intake.took_in(now, merged.accepted, out)
        out.extend(self._writes.dispatch(now))
