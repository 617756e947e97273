"""The node: membership, journal and their exchange as one pure machine.

`step(now, input) -> list[Output]` and `deadline`: the driver owns sockets, disk and clock, the node owns what
they mean. `now` is Unix time in seconds (the driver makes sure that it never falls).

The life of a record. Written here: judged by the rule of its kind, numbered, signed, put on disk, and only
then merged, pushed and acknowledged, so that a crash can neither lose an acknowledged record nor make this
node use a number twice. Heard from elsewhere: merged at once and pushed on (epidemic), put on disk behind it;
what a crash takes comes back by reconciliation. Records too large for a datagram travel by an immediate
exchange with a few random members, each of whom does the same with what was new to it.

Invariants: a number is never used twice (own writes wait for the first exchange after a start, or `hold_writes_s`);
nothing is acknowledged before `Persisted`; every exchange ends by `SESSION_S_MAX`; at most `SESSIONS_MAX` run
at once.
"""

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import gossip.events as membership
from crdt.codec import CrdtError, MalformedError
from crdt.journal import Accept, Delta, Journal, Merged
from crdt.record import Record, decode_record, encode_record
from gossip.config import GossipConfig
from gossip.engine import Engine
from gossip.events import Address
from gossip.member import Member, State
from peer.messages import (
    CloseStream,
    CredentialRenewed,
    DatagramReceived,
    Depart,
    Departed,
    Input,
    Joined,
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
    Written,
)
from peer.records import REVOCATION, Registry
from peer.session import SessionError, SyncSession
from trust.credential import Credential
from trust.errors import TrustError
from trust.identity import NodeIdentity, NodeSpiffe, format_id, parse_spiffe
from trust.revocation import decode_revocation

PUSH_BYTES_MAX: Final = 1000  # a record up to this size rides on datagrams
SESSIONS_MAX: Final = 16
SESSION_S_MAX: Final = 30.0
EAGER_SYNCS: Final = 2  # members told by stream about a record too large for a datagram
WRITES_MAX: Final = 1024
RETRY_WAITING_S: Final = 1.0


@dataclass(slots=True)
class _Stream:
    """An exchange under way. `session` is None until the stream this node asked for is open."""

    address: Address | None
    node: bytes | None
    with_members: bool
    ends_at: float
    session: SyncSession | None = None


@dataclass(slots=True)
class _Joining:
    """A request to contact seeds: which are still out, and how the others answered."""

    waiting: set[Address]
    contacted: list[Address]
    failed: dict[Address, str]


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
    ) -> None:
        self.identity = identity
        self.registry = registry
        self.journal = journal
        self._rng = rng
        self._hold_until = now + hold_writes_s
        self._streams: dict[int, _Stream] = {}
        self._next_stream = 1  # odd: this node's; the driver numbers inbound streams even
        self._joins: dict[int, _Joining] = {}
        self._writes: deque[Write] = deque()
        self._inflight: dict[int, list[tuple[Write, tuple[Record, ...]]]] = {}
        self._next_ticket = 1
        self._retry_at: float | None = None
        self._synced = False
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
        )
        self.engine.fingerprint = journal.fingerprint()

    # ------------------------------------------------------------------ the machine

    @property
    def deadline(self) -> float | None:
        """When `Tick` is due, in the clock of `now`."""
        times = [stream.ends_at for stream in self._streams.values()]
        if self.engine.deadline is not None:
            times.append(self.engine.deadline)
        if self._retry_at is not None:
            times.append(self._retry_at)
        if self._writes and not self._inflight and not self._synced:
            times.append(self._hold_until)
        return min(times, default=None)

    def step(self, now: float, event: Input) -> list[Output]:
        """Take one input; return what is to be done, in order."""
        out: list[Output] = []
        match event:
            case DatagramReceived():
                self._engine(now, membership.Datagram(source=event.source, data=event.data), out)
            case Tick():
                self._tick(now, out)
            case StreamOpened():
                self._stream_opened(now, event, out)
            case StreamFrame():
                self._stream_frame(now, event, out)
            case StreamClosed():
                self._finish(now, event.stream, event.reason or "closed early", out)
            case Persisted():
                self._persisted(now, event.ticket, out)
            case PersistFailed():
                self._persist_failed(now, event, out)
            case Write():
                self._write(now, event, out)
            case JoinSeeds():
                self._join(now, event, out)
            case Depart():
                self._engine(now, membership.Leave(), out)
            case Lagged():
                self._engine(now, membership.LoopLag(lag_s=event.lag_s), out)
            case CredentialRenewed():
                self._introduce(self.identity.id, event.credential.encode(), out)
                self._engine(now, membership.Renewed(credential=event.credential), out)
            case MetaChanged():
                self._engine(now, membership.SetMeta(meta=event.meta), out)
            case _:
                assert_never(event)
        return out

    def _tick(self, now: float, out: list[Output]) -> None:
        if self.engine.deadline is not None and self.engine.deadline <= now:
            self._engine(now, membership.Tick(), out)
        for number in [n for n, s in self._streams.items() if s.ends_at <= now]:
            out.append(CloseStream(stream=number, reason="took too long"))
            self._finish(now, number, "took too long", out)
        if self._retry_at is not None and self._retry_at <= now:
            self._retry_at = None
            self._merged(now, self.journal.retry_waiting(int(now * 1000)), out)
        self._pump(now, out)

    # ------------------------------------------------------------------ membership

    def _engine(self, now: float, event: membership.Input, out: list[Output]) -> None:
        for result in self.engine.step(now, event):
            match result:
                case membership.Send():
                    out.append(SendDatagram(address=result.address, data=result.data))
                case membership.RequestSync():
                    self._open(now, result.address, result.node, True, result.reason, out)
                case membership.Diverged():
                    self._open(now, result.address, result.node, False, "diverged", out)
                case membership.MemberChanged():
                    self._member_changed(now, result.member, result.previous, out)
                case membership.Heard():
                    self._heard(now, result.node, result.payload, out)
                case membership.Rejected():
                    source = "stream" if result.source is None else f"{result.source[0]}:{result.source[1]}"
                    fields = {"source": source, "reason": result.reason}
                    out.append(Note(level=Level.DEBUG, event="datagram_rejected", fields=fields))
                case membership.LeaveSpread():
                    out.append(Departed())
                case _:
                    assert_never(result)

    def _member_changed(self, now: float, member: Member, previous: State | None, out: list[Output]) -> None:
        if member.credential is not None:
            self._introduce(member.id, member.credential.encode(), out)
        if previous is not member.state:
            out.append(MemberMoved(member=member, previous=previous))
        out.append(StateChanged())
        if self._retry_at is None and next(self.journal.waiting(), None) is not None:
            self._retry_at = now

    def _introduce(self, writer: bytes, blob: bytes, out: list[Output]) -> None:
        if self.journal.introductions.get(writer) == blob:
            return
        reason = self.registry.introduce(writer, blob)
        if reason:
            fields = {"node": format_id(writer), "reason": reason}
            out.append(Note(level=Level.WARNING, event="credential_refused", fields=fields))
            return
        self.journal.introduce(writer, blob)
        out.append(Persist(ticket=0, introductions={writer: blob}))

    # ------------------------------------------------------------------ streams

    def _open(
        self,
        now: float,
        address: Address,
        node: bytes | None,
        with_members: bool,
        reason: str,
        out: list[Output],
    ) -> int | None:
        """Begin an exchange unless one with that node runs already or too many run."""
        for stream in self._streams.values():
            if stream.address == address and (stream.with_members or not with_members):
                return None
        if len(self._streams) >= SESSIONS_MAX:
            self._seed_failed(now, address, "too many exchanges under way", out)
            return None
        number = self._next_stream
        self._next_stream += 2
        self._streams[number] = _Stream(
            address=address, node=node, with_members=with_members, ends_at=now + SESSION_S_MAX
        )
        fields = {"address": f"{address[0]}:{address[1]}", "reason": reason}
        out.append(Note(level=Level.DEBUG, event="exchange_begins", fields=fields))
        out.append(OpenStream(stream=number, address=address, node=node))
        return number

    def _stream_opened(self, now: float, event: StreamOpened, out: list[Output]) -> None:
        if event.inbound:
            if len(self._streams) >= SESSIONS_MAX:
                out.append(CloseStream(stream=event.stream, reason="too many exchanges under way"))
                return
            session = SyncSession(self.journal, self.engine.members_payload(), initiator=False)
            self._streams[event.stream] = _Stream(
                address=None,
                node=event.node,
                with_members=False,
                ends_at=now + SESSION_S_MAX,
                session=session,
            )
            return
        stream = self._streams.get(event.stream)
        if stream is None:
            out.append(CloseStream(stream=event.stream, reason="no longer wanted"))
            return
        stream.node = event.node
        members = self.engine.members_payload() if stream.with_members else ()
        stream.session = SyncSession(self.journal, members, initiator=True, with_members=stream.with_members)
        out.extend(SendFrame(stream=event.stream, data=frame) for frame in stream.session.start())

    def _stream_frame(self, now: float, event: StreamFrame, out: list[Output]) -> None:
        stream = self._streams.get(event.stream)
        if stream is None or stream.session is None:
            return
        try:
            progress = stream.session.receive(event.data)
        except SessionError as error:
            self._protocol_error(now, event.stream, str(error), out)
            return
        out.extend(SendFrame(stream=event.stream, data=frame) for frame in progress.send)
        for chunk in progress.members:
            self._engine(now, membership.MembersReceived(node=stream.node, data=chunk), out)
        for delta, introduction in progress.deltas:
            self._absorb(now, delta, introduction, out)
        if progress.done:
            if stream.address is not None:
                out.append(CloseStream(stream=event.stream))
            self._finish(now, event.stream, "", out)

    def _protocol_error(self, now: float, number: int, reason: str, out: list[Output]) -> None:
        stream = self._streams[number]
        node = format_id(stream.node) if stream.node else "?"
        out.append(
            Note(level=Level.WARNING, event="exchange_broken", fields={"node": node, "reason": reason})
        )
        out.append(CloseStream(stream=number, reason=reason))
        self._finish(now, number, reason, out)

    def _finish(self, now: float, number: int, reason: str, out: list[Output]) -> None:
        """An exchange ended; `reason` "" means it came to its end."""
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if not reason:
            if not self._synced:
                self._synced = True
                out.append(Synced())
            self._pump(now, out)
        if stream.address is None:
            return
        if reason:
            self._engine(now, membership.SyncFailed(address=stream.address), out)
            self._seed_failed(now, stream.address, reason, out)
        else:
            self._seed_done(stream.address, out)

    # ------------------------------------------------------------------ joining

    def _join(self, now: float, event: JoinSeeds, out: list[Output]) -> None:
        seeds = set(event.seeds)
        self._joins[event.request] = _Joining(waiting=seeds, contacted=[], failed={})
        self._engine(now, membership.Join(seeds=tuple(event.seeds)), out)
        under_way = {stream.address for stream in self._streams.values()}
        for seed in [s for s in seeds if s not in under_way]:
            self._seed_failed(now, seed, "not contacted", out)

    def _seed_done(self, address: Address, out: list[Output]) -> None:
        for joining in self._joins.values():
            if address in joining.waiting:
                joining.waiting.discard(address)
                joining.contacted.append(address)
        self._answer_joins(out)

    def _seed_failed(self, _now: float, address: Address, reason: str, out: list[Output]) -> None:
        for joining in self._joins.values():
            if address in joining.waiting:
                joining.waiting.discard(address)
                joining.failed[address] = reason
        self._answer_joins(out)

    def _answer_joins(self, out: list[Output]) -> None:
        for request in [r for r, joining in self._joins.items() if not joining.waiting]:
            done = self._joins.pop(request)
            out.append(Joined(request=request, contacted=tuple(done.contacted), failed=done.failed))

    # ------------------------------------------------------------------ records from elsewhere

    def _heard(self, now: float, node: bytes, payload: bytes, out: list[Output]) -> None:
        try:
            record = decode_record(payload)
        except MalformedError as error:
            fields = {"node": format_id(node), "reason": str(error)}
            out.append(Note(level=Level.WARNING, event="record_malformed", fields=fields))
            return
        self._merged(now, self.journal.merge([record], int(now * 1000)), out)

    def _absorb(self, now: float, delta: Delta, introduction: bytes | None, out: list[Output]) -> None:
        if introduction is not None:
            self._introduce(delta.writer, introduction, out)
        self._merged(now, self.journal.absorb(delta, int(now * 1000)), out)

    def _merged(self, now: float, merged: Merged, out: list[Output]) -> None:
        """What a merge brought: to disk, onward, and into the views."""
        self._report(merged, out)
        if merged.waiting and self._retry_at is None:
            self._retry_at = now + RETRY_WAITING_S
        if not merged.changed:
            return
        gone = {record.dot for record in merged.superseded}
        put = tuple(record for record in merged.accepted if record.dot not in gone)
        writers = {record.writer for record in (*merged.accepted, *merged.superseded)}
        heads = {writer: self.journal.heads[writer] for writer in writers}
        out.append(Persist(ticket=0, put=put, delete=merged.superseded, heads=heads))
        self._took_in(now, put, out)

    def _took_in(self, now: float, records: Iterable[Record], out: list[Output]) -> None:
        """Records that are part of the journal now: push them on, act on revocations, tell the views."""
        self.engine.fingerprint = self.journal.fingerprint()
        large = False
        for record in records:
            if record.kind == REVOCATION and record.payload:
                self._revoke(now, record, out)
            payload = encode_record(record)
            if len(payload) <= PUSH_BYTES_MAX:
                self._engine(now, membership.Publish(payload=payload), out)
            else:
                large = True
        if large:
            others = [m for m in self.engine.members() if m.id != self.identity.id and m.state is State.ALIVE]
            for member in self._rng.sample(others, min(EAGER_SYNCS, len(others))):
                self._open(now, member.address, member.id, False, "large record", out)
        out.append(StateChanged())

    def _revoke(self, now: float, record: Record, out: list[Output]) -> None:
        reason = self.registry.objection(record)
        try:
            if not reason:
                revocation = decode_revocation(record.payload)
                self.registry.revocations.add(revocation)
        except TrustError as error:
            reason = str(error)
        if reason:
            fields = {"writer": format_id(record.writer), "reason": reason}
            out.append(Note(level=Level.WARNING, event="revocation_ignored", fields=fields))
            return
        out.append(Note(level=Level.WARNING, event="revoked", fields={"subject": revocation.subject}))
        if revocation.subject.startswith("spiffe:"):
            subject = parse_spiffe(revocation.subject)
            if isinstance(subject, NodeSpiffe) and subject.node != self.identity.id:
                self._engine(now, membership.Evict(node=subject.node, reason="revoked"), out)

    def _report(self, merged: Merged, out: list[Output]) -> None:
        for record, reason in merged.refused:
            key = f"{record.kind} {record.key}"
            fields: dict[str, str | int | float]
            fields = {"writer": format_id(record.writer), "record": key, "reason": reason}
            out.append(Note(level=Level.WARNING, event="record_refused", fields=fields))
        for fork in merged.equivocations:
            keys = f"{fork.first.key} {fork.second.key}"
            fields = {"writer": format_id(fork.writer), "seq": fork.first.seq, "keys": keys}
            out.append(Note(level=Level.WARNING, event="equivocation", fields=fields))

    # ------------------------------------------------------------------ records written here

    def _write(self, now: float, event: Write, out: list[Output]) -> None:
        if len(self._writes) >= WRITES_MAX:
            out.append(Written(request=event.request, error="too many writes are waiting"))
            return
        self._writes.append(event)
        self._pump(now, out)

    def _pump(self, now: float, out: list[Output]) -> None:
        """Number, sign and send to disk all waiting writes, if none are on their way already."""
        if self._inflight or not self._writes or not (self._synced or now >= self._hold_until):
            return
        batch: list[tuple[Write, tuple[Record, ...]]] = []
        pending: list[Record] = []
        while self._writes:
            write = self._writes.popleft()
            records, error = self._draft(now, write, pending)
            if error:
                out.append(Written(request=write.request, error=error))
                continue
            pending += records
            batch.append((write, records))
        if not batch:
            return
        ticket = self._next_ticket
        self._next_ticket += 1
        self._inflight[ticket] = batch
        out.append(Persist(ticket=ticket, put=tuple(pending), heads={self.identity.id: pending[-1].seq}))

    def _draft(self, now: float, write: Write, pending: Sequence[Record]) -> tuple[tuple[Record, ...], str]:
        """The signed records of one write, or why it may not be written."""
        now_ms = int(now * 1000)
        records: list[Record] = []
        for draft in write.drafts:
            try:
                record = self.journal.draft(
                    writer=self.identity.id,
                    kind=draft.kind,
                    key=draft.key,
                    payload=draft.payload,
                    context=draft.context,
                    now_ms=now_ms,
                    sign=self.identity.sign,
                    pending=[*pending, *records],
                )
            except CrdtError as error:
                return (), str(error)
            verdict = self.registry.judge(record, now_ms)
            reason = self.registry.objection(record) if isinstance(verdict, Accept) else verdict.reason
            if reason:
                return (), reason
            records.append(record)
        return tuple(records), ""

    def _persisted(self, now: float, ticket: int, out: list[Output]) -> None:
        batch = self._inflight.pop(ticket, [])
        records = [record for _, group in batch for record in group]
        merged = self.journal.merge(records, int(now * 1000))
        self._report(merged, out)
        out.extend(Written(request=write.request, records=group) for write, group in batch)
        kept = {(record.kind, record.key) for record in records}
        gone = tuple(record for record in merged.superseded if (record.kind, record.key) not in kept)
        if gone:  # tombstones that no longer say anything
            out.append(Persist(ticket=0, delete=gone))
        self._took_in(now, records, out)
        self._pump(now, out)

    def _persist_failed(self, now: float, event: PersistFailed, out: list[Output]) -> None:
        for write, _ in self._inflight.pop(event.ticket, []):
            out.append(Written(request=write.request, error=event.reason))
        self._pump(now, out)
