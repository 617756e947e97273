"""What a datagram or a stream payload sets off.

An opened datagram (gossip/courier.py) is a message with statements and records riding along. Statements are weighed
first, because they may change what the message then means (a refutation rides on an ack); records are handed up; the
message is answered. News about who is behind is acted on: a sender with old news gets what is newer, once per probe
interval; about what this node lacks it asks for a stream.

Invariant: whatever the bytes, the outcome is outputs; MalformedError and ForgedError end here as `Rejected`.
"""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import assert_never

from gossip.accusation import Verdict
from gossip.config import DATAGRAM_BYTES_MAX
from gossip.courier import Opened
from gossip.entry import Entry
from gossip.errors import ForgedError, MalformedError
from gossip.events import Address, Datagram, Diverged, Heard, MembersReceived, Rejected
from gossip.member import State
from gossip.message import Ack, Gossip, Nack, Ping, PingRequest
from gossip.parts import Parts
from gossip.probe import Purpose, Relay
from gossip.statement import Alive, Statement, decode_statement
from gossip.sync import decode_members

_DIGEST_BYTES = 16


class Conversation:
    """Answers datagrams and takes in stream payloads for one engine."""

    __slots__ = ("_heard", "_parts", "rejected")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._heard: OrderedDict[bytes, bytes | None] = OrderedDict()
        self.rejected = 0

    def publish(self, payload: bytes) -> None:
        """Queue a record for pushing; who sent it here need not get it back."""
        parts = self._parts
        digest, _, sender = self._remember(payload, None)
        parts.broadcasts.publish(digest, payload)
        if sender is not None:
            parts.broadcasts.payloads.echoed(
                digest, sender, audience=parts.roster.others, limit=self._limit()
            )

    def _limit(self) -> int:
        return self._parts.config.retransmits(self._parts.roster.size)

    def _echo(self, statement: Statement, sender: bytes) -> None:
        """What is known here came from another: it need not be told as often."""
        parts = self._parts
        if not (parts.config.feedback and parts.broadcasts.updates):
            return
        subject = statement.node if isinstance(statement, Alive) else statement.subject
        member = parts.presence.member if subject == parts.presence.id else parts.roster.member(subject)
        if member is not None and statement.rank == member.rank:
            parts.broadcasts.echoed(statement, sender, audience=parts.roster.others, limit=self._limit())

    def _remember(self, payload: bytes, sender: bytes | None) -> tuple[bytes, bool, bytes | None]:
        """(digest, whether it is news, who sent it first) of a record heard (from `sender`) or published."""
        digest = blake2b(payload, digest_size=_DIGEST_BYTES).digest()
        if digest in self._heard:
            return digest, False, self._heard[digest]
        self._heard[digest] = sender
        if len(self._heard) > self._parts.config.heard_max:
            self._heard.popitem(last=False)
        return digest, True, sender

    def datagram(self, now: float, event: Datagram) -> None:
        """Take in one datagram."""
        parts = self._parts
        try:
            opened = parts.courier.open(now, event.data)
        except (MalformedError, ForgedError) as error:
            self._reject(event.source, str(error))
            return
        entry = opened.entry
        corrections = self._statements(now, event.source, opened)
        for payload in opened.body.payloads:
            digest, news, _ = self._remember(payload, entry.member.id)
            if news:
                parts.out.append(Heard(node=entry.member.id, payload=payload))
            else:
                parts.broadcasts.payloads.echoed(
                    digest, entry.member.id, audience=parts.roster.others, limit=0
                )
        self._answer(now, event, opened, corrections)

    def members(self, now: float, event: MembersReceived) -> None:
        """Take in one chunk of a stream peer's members. Having it is proof that the peer lives."""
        parts = self._parts
        try:
            statements = decode_members(event.data)
        except MalformedError as error:
            self._reject(None, f"members: {error}")
            return
        for statement in statements:
            try:
                own_word = isinstance(statement, Alive) and statement.node == event.node
                parts.judge.hear(now, statement, streamed=not own_word)
            except ForgedError as error:
                self._reject(None, f"members: {error}")
        probe = None if event.node is None else parts.probes.finish_target(event.node)
        if probe is not None and probe.judges:
            parts.health.adjust(-1)

    # ------------------------------------------------------------ statements
    def _statements(self, now: float, source: Address, opened: Opened) -> tuple[bytes, ...]:
        """Weigh the introduction and the riders; returns what the sender should hear in turn."""
        raw = (opened.introduction, *opened.body.updates) if opened.introduction else opened.body.updates
        if not raw:
            return ()
        parts, entry = self._parts, opened.entry
        corrections: dict[bytes, list[bytes]] = {}
        behind = False
        for statement in self._decoded(source, raw):
            try:
                verdict = parts.judge.hear(now, statement)
            except ForgedError as error:
                self._reject(source, f"from {entry.member.name}: {error}")
                continue
            match verdict:
                case Verdict.NEWS:
                    pass
                case Verdict.KNOWN:
                    self._echo(statement, entry.member.id)
                case Verdict.AHEAD:
                    behind = True
                case Verdict.OLD:
                    if isinstance(statement, Alive):
                        continue  # every Alive that was overtaken on its way is old: that is no sign of anything
                    if statement.subject == parts.presence.id:
                        entry.link.doubt()
                    corrections[statement.subject] = parts.judge.truth(statement.subject)
                case _:
                    assert_never(verdict)
        if behind and entry.member.live:
            parts.request_sync(now, entry.member.address, entry.member.id, "it knows of members unknown here")
        return tuple(update for updates in corrections.values() for update in updates)

    def _decoded(self, source: Address, raw: Iterable[bytes]) -> Iterable[Statement]:
        for item in raw:
            try:
                yield decode_statement(item)
            except MalformedError as error:
                self._reject(source, f"statement: {error}")

    # ------------------------------------------------------------ messages
    def _answer(self, now: float, event: Datagram, opened: Opened, corrections: tuple[bytes, ...]) -> None:
        parts, entry, message = self._parts, opened.entry, opened.body.message
        # until the address has proved itself, no reply is larger than what it answers
        reply_bytes_max = DATAGRAM_BYTES_MAX if event.source == entry.link.proved else len(event.data)
        match message:
            case Ping(sequence=sequence):
                ack = parts.ack(now, sequence)
                parts.send(now, entry, ack, to=event.source, bytes_max=reply_bytes_max, updates=corrections)
                self._compare(now, entry, message)
                return
            case Ack(sequence=sequence):
                self._acked(now, event.source, entry, sequence)
                self._compare(now, entry, message)
            case PingRequest():
                self._relay(now, event.source, entry, message, reply_bytes_max)
                self._compare(now, entry, message)
            case Nack(sequence=sequence):
                parts.probes.nack(sequence, sender=entry.member.id)
            case Gossip():
                pass
            case _:
                assert_never(message)
        self._correct(now, event.source, entry, reply_bytes_max, corrections)

    def _acked(self, now: float, source: Address, entry: Entry, sequence: int) -> None:
        parts, node = self._parts, entry.member.id
        probe = parts.probes.finish(sequence, sender=node)
        if probe is not None:
            if node == probe.target:
                entry.link.proved = source
                if now >= probe.begun_at:  # else it was put off for a lag, and says nothing of the network
                    parts.round_trips.measured(entry.member.zone, now - probe.begun_at)
            if probe.judges:
                parts.health.adjust(-1)
                return
            parts.recall(now)
            if probe.purpose is Purpose.CONTACT:  # the two sides of a partition know different things
                parts.request_sync(now, entry.member.address, node, "a dead member answered")
            return
        relay = parts.probes.finish_relay(sequence, sender=node)
        if relay is None:
            return
        entry.link.proved = source
        requester = parts.roster.get(relay.requester)
        if requester is not None:
            ack = parts.ack(now, relay.sequence)
            parts.send(now, requester, ack, to=relay.reply_to, bytes_max=relay.reply_bytes_max)

    def _relay(
        self, now: float, source: Address, entry: Entry, request: PingRequest, reply_bytes_max: int
    ) -> None:
        """Ping the target for somebody else; what cannot be pinged is nacked at once. Nobody has itself pinged: that
        would be sending to an address of its choosing."""
        parts = self._parts
        target = None if request.target == entry.member.id else parts.roster.get(request.target)
        sequence = None
        if target is not None and target.member.id not in parts.judge.evicted:
            timeout_s = parts.round_trips.timeout_s(target.member.zone)
            sequence = parts.probes.relay(
                Relay(
                    target=request.target,
                    requester=entry.member.id,
                    reply_to=source,
                    reply_bytes_max=reply_bytes_max,
                    sequence=request.sequence,
                    nack_at=now + timeout_s * parts.config.nack_share,
                    ends_at=now + max(parts.config.probe_interval_s, timeout_s),
                )
            )
        if target is None or sequence is None:
            parts.send(now, entry, Nack(sequence=request.sequence), to=source, bytes_max=reply_bytes_max)
        else:
            parts.ping(now, target, sequence)

    def _correct(
        self,
        now: float,
        source: Address,
        entry: Entry,
        reply_bytes_max: int,
        corrections: tuple[bytes, ...],
    ) -> None:
        """Tell a sender, unasked, what it has wrong: about others, or that it is itself thought dead."""
        accused = entry.evidence and entry.member.state in (State.SUSPECT, State.DEAD)
        last = entry.link.corrected_at
        spacing_s = self._parts.config.probe_interval_s
        if (corrections or accused) and (last is None or now - last >= spacing_s):
            entry.link.corrected_at = now
            self._parts.send(now, entry, Gossip(), to=source, bytes_max=reply_bytes_max, updates=corrections)

    def _compare(self, now: float, entry: Entry, theirs: Ping | Ack | PingRequest) -> None:
        """Act on fingerprints that differ. Members first: a stream for them is one for the journals too."""
        parts, member, own = self._parts, entry.member, self._parts.presence
        if parts.config.compare_members and own.left is None:
            lists, size = parts.list_divergence, parts.roster.size
            if theirs.members_settled and theirs.members == parts.list_root(now):
                lists.agrees(now, member.id, size)  # nearly always
            elif lists.judge(
                now,
                member.id,
                theirs.members,
                settled=theirs.members_settled and parts.list_settled(now),
                starts=own.id < member.id,
                members=size,
            ):
                parts.request_sync(now, member.address, member.id, "member lists differ")
        if parts.divergence.judge(now, entry.link, theirs.fingerprint, settled=theirs.settled):
            parts.out.append(Diverged(node=member.id, address=member.address, fingerprint=theirs.fingerprint))

    def _reject(self, source: Address | None, reason: str) -> None:
        self.rejected += 1
        self._parts.out.append(Rejected(source=source, reason=reason))
