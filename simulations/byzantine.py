"""Members that lie. Each has a valid identity, runs the real node, and says other things than it does.

A liar stands between the world and its node: what the node is given and what it answers pass through it
(simulations/loop.py), and it may add, change or leave out. It lies every LIE_EVERY_S at most, to members drawn from a
stream of its own, so that a lie costs an event or two and a story with liars can be told again.

    forged-incarnation  says of others what only they can sign: higher incarnations, good-byes, accusations in the names
                        of third ones, and verdicts made of those; and of itself absurd incarnations, which it may sign
    equivocation        two records under one number, one to one half of the mesh, one to the other
    replay              what it has seen, again: its own datagrams, frames of earlier streams, statements and records
                        that were overtaken long ago
    withholding         passes no record on, and says nothing in every other exchange once it has begun
    false-suspicion     accuses whoever is live, over its own valid signature, and says they are dead on that alone

What a liar acknowledges, and how others see it, nobody is held to: who lied once counts as a liar to the end of the
world (`World.liars`). What honest members have of one another must hold all the same.

Invariant: a liar signs with no key but its own; lying is a function of the world's seed.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from crdt.record import Record, encode_record
from gossip.entry import Entry
from gossip.member import Member
from gossip.message import Body, Gossip, encode_body
from gossip.presence import RANK_MAX
from gossip.statement import VERSION_MAX, Alive, Dead, Left, Suspect, sign_alive, sign_suspect
from gossip.wire import seal
from peer.messages import CloseStream, Input, OpenStream, Output, SendDatagram, SendFrame
from peer.node import Node
from peer.node_intake import PUSH_BYTES_MAX
from simulations.host import Host
from trust.identity import SIGNATURE_BYTES

LIE_EVERY_S: Final = 0.5
TOLD: Final = 3  # members told a lie at a time
REMEMBERED_MAX: Final = 200
LIES_EACH: Final = 5  # about one member, before the next one's turn
AGAIN: Final = 5  # of what was seen, repeated at a time
LIED_KIND: Final = "lie"  # the kind of the records an equivocator writes


class Lie(Enum):
    """What a liar does."""

    FORGED_INCARNATION = "forged-incarnation"
    EQUIVOCATION = "equivocation"
    REPLAY = "replay"
    WITHHOLDING = "withholding"
    FALSE_SUSPICION = "false-suspicion"


@dataclass(slots=True)
class Liar:
    """Speaks for the node of one host. `told` counts its lies."""

    lie: Lie
    host: Host
    rng: random.Random
    told: int = 0
    _next_at: float = 0.0
    _victim: bytes = b""
    _turns: int = 0  # it is lied about for so many times more
    _datagrams: deque[SendDatagram] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))
    _frames: deque[bytes] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))
    _statements: dict[bytes, None] = field(default_factory=dict)
    _records: dict[bytes, None] = field(default_factory=dict)
    _mute: set[int] = field(default_factory=set)  # streams on which nothing more is said

    def step(self, now: float, event: Input) -> list[Output]:
        """What the node answers, as the liar tells it."""
        node = self.host.node
        assert node is not None, "inputs are for processes"
        if self.lie is Lie.WITHHOLDING:
            return self._withheld(node, now, event)
        out: list[Output] = list(node.step(now, event))
        if self.lie is Lie.REPLAY:
            self._remember(node, out)
        if now >= self._next_at:
            self._next_at = now + LIE_EVERY_S
            others = [member for member in node.engine.members()[1:] if member.live]
            if others:
                out += _LIES[self.lie](self, node, others, now)
        return out

    # ------------------------------------------------------------------ about members

    def _chosen(self, others: Sequence[Member]) -> Member:
        """Whom to lie about. What is to be believed has to be said for a while."""
        victim = next((member for member in others if member.id == self._victim), None)
        if victim is None or self._turns == 0:
            victim, self._turns = self.rng.choice(others), LIES_EACH
            self._victim = victim.id
        self._turns -= 1
        return victim

    def _forge(self, node: Node, others: Sequence[Member], _now: float) -> list[Output]:
        victim = self._chosen(others)
        entry = node.engine._parts.roster.get(victim.id)
        assert entry is not None, "members have entries"
        boot, incarnation = victim.rank
        garbage = self.rng.randbytes(SIGNATURE_BYTES)
        alive: Alive = replace(entry.alive, incarnation=incarnation + 1, signature=garbage)
        named = [member.id for member in self.rng.sample(others, min(TOLD, len(others)))]
        suspects = tuple(
            Suspect(
                subject=victim.id,
                boot=boot,
                incarnation=incarnation,
                accuser=each,
                signature=self.rng.randbytes(SIGNATURE_BYTES),
            )
            for each in named
            if each != victim.id
        )
        forged: list[bytes] = [
            alive.encode(),
            alive.slim().encode(),
            Left(subject=victim.id, boot=boot, incarnation=incarnation, signature=garbage).encode(),
            *(suspect.encode() for suspect in suspects),
            sign_suspect(node.identity, subject=victim.id, rank=(boot, incarnation + 7)).encode(),
            self._absurd(node).encode(),
        ]
        if suspects:
            forged.append(
                Dead(subject=victim.id, boot=boot, incarnation=incarnation, suspicions=suspects).encode()
            )
        return [each for lie in forged for each in self._tell(node, others, updates=(lie,))]

    def _absurd(self, node: Node) -> Alive:
        """Its own word at a rank it never had: high, now and then as high as there is."""
        presence = node.engine._parts.presence
        boot, incarnation = presence.rank
        rank = (
            RANK_MAX if self.rng.random() < 0.01 else (boot, incarnation + self.rng.choice((1, 1000, 2**40)))
        )
        return sign_alive(
            node.identity,
            presence.credential,
            boot=rank[0],
            incarnation=rank[1],
            address=self.host.address,
            zone=self.host.zone,
            meta={},
        )

    def _accuse(self, node: Node, others: Sequence[Member], _now: float) -> list[Output]:
        victim = self._chosen(others)
        suspect = sign_suspect(node.identity, subject=victim.id, rank=victim.rank)
        boot, incarnation = victim.rank
        dead = Dead(subject=victim.id, boot=boot, incarnation=incarnation, suspicions=(suspect,))
        told = self._tell(node, others, updates=(suspect.encode(),))
        return told + self._tell(node, others, updates=(dead.encode(),))

    # ------------------------------------------------------------------ about records

    def _equivocate(self, node: Node, others: Sequence[Member], now: float) -> list[Output]:
        """Two contents under the number its journal has next; its own journal keeps neither."""
        if node.identity.id in node.journal.forks or self.rng.random() < 0.8:
            return []
        first = node.journal.draft(
            writer=node.identity.id,
            kind=LIED_KIND,
            key="k",
            payload=b"to one half",
            now_ms=int(now * 1000),
            sign=node.identity.sign,
        )
        unsigned: Record = replace(first, payload=b"to the other")
        second = replace(unsigned, signature=node.identity.sign(unsigned.signing_bytes()))
        shuffled = self.rng.sample(others, len(others))
        half = len(shuffled) // 2
        told = self._tell(node, shuffled[:half], records=(first,), most=half)
        return told + self._tell(node, shuffled[half:], records=(second,), most=len(shuffled))

    def _remember(self, node: Node, out: Sequence[Output]) -> None:
        """Keep what was said, and what is true now and will not be."""
        for output in out:
            if isinstance(output, SendDatagram):
                self._datagrams.append(output)
            elif isinstance(output, SendFrame):
                self._frames.append(output.data)
        if self.rng.random() < 0.05:
            roster = node.engine._parts.roster
            for member in node.engine.members()[1:]:
                entry = roster.get(member.id)
                if entry is not None:
                    _keep(self._statements, (entry.encoded, *entry.proofs()))
            kinds = ("note", LIED_KIND)
            records = (encode_record(each) for kind in kinds for each in node.journal.records(kind))
            _keep(self._records, (each for each in records if len(each) <= PUSH_BYTES_MAX))

    def _repeat(self, node: Node, others: Sequence[Member], _now: float) -> list[Output]:
        out: list[Output] = [self.rng.choice(self._datagrams) for _ in range(AGAIN) if self._datagrams]
        streams = [number for number, end in self.host.streams.items() if end.other is not None]
        if streams and self._frames and self.rng.random() < 0.2:
            out.append(SendFrame(stream=self.rng.choice(streams), data=self.rng.choice(self._frames)))
        for known, records in ((self._statements, False), (self._records, True)):
            for _ in range(AGAIN):
                if known:
                    item = self.rng.choice(tuple(known))
                    out += self._send(node, others, () if records else (item,), (item,) if records else ())
        self.told += bool(out)
        return out

    def _withheld(self, node: Node, now: float, event: Input) -> list[Output]:
        intake: Any = node._intake
        intake.spread = _nothing  # on this one alone: it hides the method
        try:
            out = node.step(now, event)
        finally:
            del intake.spread
        kept: list[Output] = []
        for output in out:
            if isinstance(output, OpenStream | CloseStream):
                self._mute.discard(output.stream)
            elif isinstance(output, SendFrame):
                if output.stream not in self._mute and self.rng.random() < 0.2:
                    self._mute.add(output.stream)
                if output.stream in self._mute:
                    self.told += 1
                    continue
            kept.append(output)
        return kept

    # ------------------------------------------------------------------ parts

    def _tell(
        self,
        node: Node,
        others: Sequence[Member],
        *,
        updates: tuple[bytes, ...] = (),
        records: tuple[Record, ...] = (),
        most: int = TOLD,
    ) -> list[Output]:
        self.told += 1
        payloads = tuple(map(encode_record, records))
        return self._send(node, others, updates, payloads, most=most)

    def _send(
        self,
        node: Node,
        others: Sequence[Member],
        updates: tuple[bytes, ...],
        payloads: tuple[bytes, ...],
        *,
        most: int = TOLD,
    ) -> list[Output]:
        """A datagram with these to some of the others."""
        roster = node.engine._parts.roster
        chosen = self.rng.sample(others, min(most, len(others)))
        entries = [entry for member in chosen if (entry := roster.get(member.id)) is not None]
        return [_sealed(node, entry, updates, payloads) for entry in entries]


def _sealed(
    node: Node, entry: Entry, updates: tuple[bytes, ...], payloads: tuple[bytes, ...]
) -> SendDatagram:
    """As `gossip/courier.py` seals it, with nothing in it but this."""
    parts, link, member = node.engine._parts, entry.link, entry.member
    courier, presence = parts.courier, parts.presence
    body = Body(message=Gossip(), known_boot=link.boot, updates=updates, payloads=payloads)
    link.counter = (courier._counter if link.counter is None else link.counter) + 1
    courier._counter = max(courier._counter, link.counter)
    data = seal(
        courier._keys.sending(member.id, member.credential.agreement_key, presence.boot),
        version=VERSION_MAX,
        sender=presence.id,
        boot=presence.boot,
        counter=link.counter,
        introduction=b"",
        body=encode_body(body),
    )
    return SendDatagram(address=member.address, data=data)


def _nothing(*_: object) -> None:
    """Tells nobody."""


def _keep(table: dict[bytes, None], items: Iterable[bytes]) -> None:
    """The first REMEMBERED_MAX stay: what is oldest is most out of date."""
    for item in items:
        if len(table) < REMEMBERED_MAX:
            table[item] = None


_LIES: Final[Mapping[Lie, Callable[[Liar, Node, Sequence[Member], float], list[Output]]]] = {
    Lie.FORGED_INCARNATION: Liar._forge,
    Lie.EQUIVOCATION: Liar._equivocate,
    Lie.REPLAY: Liar._repeat,
    Lie.FALSE_SUSPICION: Liar._accuse,
}
