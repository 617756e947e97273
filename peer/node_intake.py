"""What a node takes in: records and credentials from others, and what follows from them.

Heard in a datagram, brought by an exchange, or released by time, a record goes the same way: judged and merged by the
journal, put on disk behind it, pushed on to others, and acted on where it revokes. Who handed on what had to be refused
is named; who contradicts itself is expelled.

Invariant: what is pushed on was merged, or proves an equivocation; nothing is acknowledged here.
"""

import random
from collections.abc import Callable, Iterable
from typing import Final

import gossip.events as membership
from crdt.clock import hlc_ms
from crdt.codec import CrdtError, MalformedError
from crdt.journal import Delta, Journal, Merged
from crdt.record import Record, decode_record, encode_record
from gossip.engine import Engine
from gossip.events import Address
from gossip.member import Member, State
from peer import node_notes
from peer.messages import Evicted, Level, Note, Output, Persist, StateChanged
from peer.node_distrust import EVICTED_KINDS
from peer.node_notes import STALE_S, Complaints, Replays
from peer.node_sessions import Exchange
from peer.records import REVOCATION, Registry
from trust.errors import TrustError
from trust.identity import NodeSpiffe, parse_spiffe
from trust.revocation import decode_revocation

PUSH_BYTES_MAX: Final = 1000  # a record up to this size rides on datagrams
EAGER_SYNCS: Final = 2  # members told by stream about a record too large for a datagram
RETRY_WAITING_S: Final = 1.0
FORGERY: Final = "bad signature"  # the verdict of `Registry.judge` on what no honest node hands on

Act = Callable[[float, membership.Input, list[Output]], None]
Begin = Callable[[float, Address, bytes | None, bool, str, list[Output]], None]


class Intake:
    """The way of what comes from others. `act` steps the engine and obeys it; `begin` begins an exchange. `retry_at` is
    when what waits for something is looked at again."""

    def __init__(
        self,
        *,
        own: bytes,
        journal: Journal,
        registry: Registry,
        engine: Engine,
        complaints: Complaints,
        rng: random.Random,
        act: Act,
        begin: Begin,
    ) -> None:
        self.retry_at: float | None = None
        self._own = own
        self._journal = journal
        self._registry = registry
        self._engine = engine
        self._complaints = complaints
        self._replays = Replays()
        self._rng = rng
        self._act = act
        self._begin = begin

    def introduce(
        self, now: float, writer: bytes, blob: bytes, sender: bytes | None, out: list[Output]
    ) -> None:
        """Learn a writer's credential. Only what the registry has verified and kept is stored and handed on."""
        if self._journal.introductions.get(writer) == blob:
            return
        reason = self._registry.introduce(writer, blob)
        if not reason and self._registry.credentials[writer].encode() != blob:
            return  # an older one than is known
        try:
            if not reason:
                self._journal.introduce(writer, blob)
        except CrdtError as error:
            reason = str(error)
        if reason:
            note = node_notes.warning("credential_refused", writer, reason)
            out.extend(self._complaints.tell(now, sender or writer, note))
            return
        out.append(Persist(ticket=0, introductions={writer: blob}))

    def heard(self, now: float, node: bytes, payload: bytes, out: list[Output]) -> None:
        try:
            record = decode_record(payload)
        except MalformedError as error:
            note = node_notes.warning("record_malformed", node, str(error))
            out.extend(self._complaints.tell(now, node, note))
            return
        merged = self._journal.merge([record], int(now * 1000))
        if merged.duplicates and self._stale(now, record) and self._replays.stale(now, node):
            note = node_notes.warning("records_replayed", node, "hands on what was replaced long ago")
            out.extend(self._complaints.tell(now, node, note))
        self.merged(now, merged, node, out)

    def _stale(self, now: float, record: Record) -> bool:
        """Whether a record that is known has not been on its way all the time since it was replaced."""
        old = hlc_ms(record.hlc) < (now - STALE_S) * 1000
        return old and self._journal.get(record.writer, record.kind, record.key) != record

    def absorb(
        self, now: float, delta: Delta, introduction: bytes | None, exchange: Exchange, out: list[Output]
    ) -> bool:
        """Take in what an exchange brought. Returns whether its other side must have known better."""
        if introduction is not None:
            self.introduce(now, delta.writer, introduction, exchange.node, out)
        merged = self._journal.absorb(delta, int(now * 1000))
        exchange.taken += len(merged.accepted) + len(merged.equivocations)
        if merged.refused and exchange.session is not None:
            exchange.session.give_up(delta.writer)
            exchange.refused = exchange.refused or delta.writer not in self._journal.forks
        self.merged(now, merged, exchange.node, out)
        return any(reason == FORGERY for _, reason in merged.refused)

    def merged(self, now: float, merged: Merged, sender: bytes | None, out: list[Output]) -> None:
        """What a merge brought: to disk, onward, and into the views."""
        self.blame(now, merged, sender, out)
        if merged.waiting and self.retry_at is None:
            self.retry_at = now + RETRY_WAITING_S
        if not merged.changed:
            return
        forks = self._journal.forks  # what is stored of those stays as it was, with its head
        delete = tuple(record for record in merged.superseded if record.writer not in forks)
        gone = {record.dot for record in delete}
        put = tuple(r for r in merged.accepted if r.dot not in gone and r.writer not in forks)
        heads = {writer: self._journal.heads[writer] for writer in {r.writer for r in (*put, *delete)}}
        out.append(Persist(ticket=0, put=put, delete=delete, heads=heads, forks=merged.equivocations))
        self.took_in(now, put, out)

    def blame(self, now: float, merged: Merged, sender: bytes | None, out: list[Output]) -> None:
        """Name who handed on what was refused, and expel who equivocated, telling the others why."""
        for record, reason in merged.refused:
            note = node_notes.refused(record, reason, sender)
            out.extend(self._complaints.tell(now, sender or record.writer, note))
        for lie in merged.contradictions:
            out.extend(self._complaints.tell(now, lie.writer, node_notes.contradiction(lie)))
        out.extend(node_notes.equivocations(merged.equivocations))
        for fork in merged.equivocations:
            self.expel(now, fork.writer, out)
            self.spread(now, (fork.first, fork.second), out)

    def expel(self, now: float, writer: bytes, out: list[Output]) -> None:
        """Take a writer that equivocated out of the view, and its node out of the mesh."""
        out.extend(node_notes.withdrawn(writer, self._journal.evict(writer, EVICTED_KINDS)))
        if writer != self._own:
            self._act(now, membership.Evict(node=writer, reason="equivocated"), out)
            out.append(Evicted(node=writer))

    def took_in(self, now: float, records: Iterable[Record], out: list[Output]) -> None:
        """Records that are part of the journal now: push them on, act on revocations, tell the views."""
        self._engine.fingerprint = self._journal.fingerprint()
        for record in records:
            if record.kind == REVOCATION and record.payload:
                self._revoke(now, record, out)
        self.spread(now, records, out)
        out.append(StateChanged())

    def spread(self, now: float, records: Iterable[Record], out: list[Output]) -> None:
        """Tell a few others at once."""
        large = False
        for record in records:
            payload = encode_record(record)
            if len(payload) <= PUSH_BYTES_MAX:
                self._act(now, membership.Publish(payload=payload), out)
            else:
                large = True
        if large:
            others = self.others()
            for member in self._rng.sample(others, min(EAGER_SYNCS, len(others))):
                self._begin(now, member.address, member.id, False, "large record", out)

    def _revoke(self, now: float, record: Record, out: list[Output]) -> None:
        reason = self._registry.objection(record)
        try:
            if not reason:
                revocation = decode_revocation(record.payload)
                self._registry.revocations.add(revocation)
        except TrustError as error:
            reason = str(error)
        if reason:
            note = node_notes.warning("revocation_ignored", record.writer, reason)
            out.extend(self._complaints.tell(now, record.writer, note))
            return
        out.append(Note(level=Level.WARNING, event="revoked", fields={"subject": revocation.subject}))
        self.evict(now, revocation.subject, out)

    def evict(self, now: float, subject: str, out: list[Output]) -> None:
        """If the revoked subject is a node: it is no member any more."""
        if subject.startswith("spiffe:"):
            revoked = parse_spiffe(subject)
            if isinstance(revoked, NodeSpiffe) and revoked.node != self._own:
                self._act(now, membership.Evict(node=revoked.node, reason="revoked"), out)
                out.append(Evicted(node=revoked.node))

    def others(self) -> list[Member]:
        return [m for m in self._engine.members() if m.id != self._own and m.state is State.ALIVE]
