"""Datagrams out and in: sealing with introductions and riders, opening with authentication before everything else.

Introductions. A receiver can open a datagram only if it knows the sender's credential. A node that starts is
announced to everybody by gossip, and whoever starts later learns of it in a first exchange; so a node introduces
itself, with its signed Alive in front of what it sends, to those who have not shown yet that they know this boot (the
`known_boot` of any authenticated datagram of their present boot), but only for `introduce_s` after its start. From
then on it does so where there is reason to doubt: the peer says it knows no or another boot, restarts, leaves a ping
unanswered, or tells old news about this node. Whatever was lost or forgotten on either side, the two introduce
themselves again; and in a large mesh, where two members meet once in hours, not every meeting is a first one. What
cannot be opened is answered with nothing.

Replies. A source address in a header proves nothing, so a reply is no larger than its request until that address has
answered a ping of ours (`Link.proved`).

Counters. Each link counts its own datagrams, so that the receiver's window of 64 is a window on this link, however
much goes to others at once. A link made anew (the member was reaped and came back) starts above every counter used
so far on any, and the first of all starts at the clock.

Invariant: nothing but lengths and the introduction, which is signed, is read before the datagram authenticates; no
counter is used twice with one key.
"""

from typing import Final, NamedTuple

from gossip.broadcast import Broadcasts
from gossip.config import DATAGRAM_BYTES_MAX, GossipConfig
from gossip.crypto import Crypto
from gossip.entry import Entry, Link
from gossip.errors import ForgedError, MalformedError
from gossip.events import Address, Send
from gossip.judge import Judge
from gossip.member import State
from gossip.message import FRAMING_BYTES, Body, Gossip, Message, decode_body, encode_body, item_bytes
from gossip.presence import Presence
from gossip.rate import TokenBucket
from gossip.roster import Roster
from gossip.statement import Alive, decode_statement
from gossip.wire import SENDER_BYTES, Packet, common_version, overhead_bytes, parse, seal, unseal
from trust.credential import Credential
from trust.identity import format_id

_BARE_BYTES: Final[dict[type[Message], int]] = {}


def _bare_bytes(message: Message) -> int:
    """The size of a body with nothing riding along: the same for every message of one kind (gossip/message.py)."""
    size = _BARE_BYTES.get(type(message))
    if size is None:
        body = Body(message=message, known_boot=0, updates=(), payloads=())
        size = _BARE_BYTES[type(message)] = len(encode_body(body))
    return size


class Opened(NamedTuple):
    """An authenticated datagram and whose it is. `introduction` is empty if it brings nothing new."""

    entry: Entry
    body: Body
    introduction: bytes


class Courier:
    """Seals and opens the datagrams of one engine."""

    __slots__ = (
        "_boot",
        "_broadcasts",
        "_config",
        "_counter",
        "_introduce_until",
        "_judge",
        "_keys",
        "_own_prefix",
        "_presence",
        "_roster",
        "_strangers",
        "introductions",
        "riders",
        "sent",
        "sent_bytes",
    )

    def __init__(
        self,
        *,
        config: GossipConfig,
        presence: Presence,
        roster: Roster,
        broadcasts: Broadcasts,
        judge: Judge,
        crypto: Crypto,
        now: float,
        introduced: bool,
    ) -> None:
        self._config = config
        self._presence = presence
        self._roster = roster
        self._broadcasts = broadcasts
        self._judge = judge
        self._keys = crypto.keyring(presence.identity, keys_max=config.keys_max)
        self._strangers = TokenBucket(
            rate_per_s=config.introductions_per_s, burst=2 * config.introductions_per_s, now=now
        )
        self._own_prefix = presence.id[:SENDER_BYTES]
        self._counter = int(now * 1e6)  # no link has used a higher one
        self._boot = presence.boot
        self._introduce_until = now if introduced else now + config.introduce_s
        self.sent = 0
        self.sent_bytes = 0
        self.riders = 0  # queued statements and records sent, each as often as it was
        self.introductions = 0

    def introduces(self, now: float, entry: Entry) -> bool:
        """Whether a datagram to this member has an introduction in front."""
        if self._presence.boot != self._boot:
            self._boot = self._presence.boot
            self._introduce_until = now + self._config.introduce_s
        link = entry.link
        return link.doubted or (now < self._introduce_until and not link.knows_us)

    def seal(
        self,
        entry: Entry,
        message: Message,
        *,
        now: float,
        to: Address | None = None,
        bytes_max: int = DATAGRAM_BYTES_MAX,
        updates: tuple[bytes, ...] = (),
        introduce: bool = True,
    ) -> Send | None:
        """A datagram to a member with what should ride along: why it is thought not alive, if it is (buddy notice,
        Lifeguard 3.3), `updates`, then the queues. None if not even the message fits into `bytes_max`, if it is a
        Gossip and there is nothing to tell, or if the two have no version in common. `introduce` False leaves the
        introduction to a datagram sent just before."""
        link, presence, member = entry.link, self._presence, entry.member
        version = common_version(self._config.versions, entry.alive.versions)
        if version is None:
            return None
        introduction = presence.encoded if introduce and self.introduces(now, entry) else b""
        bare = _bare_bytes(message)
        room = bytes_max - overhead_bytes(introduction) - bare - FRAMING_BYTES
        if room < 0 and introduction:
            introduction = b""
            room = bytes_max - overhead_bytes(b"") - bare - FRAMING_BYTES
        if room < -FRAMING_BYTES:
            return None
        body = self._compose(entry, message, updates, room, introduced=bool(introduction))
        if isinstance(message, Gossip) and not (introduction or body.updates or body.payloads):
            return None
        try:
            cipher = self._keys.sending(member.id, member.credential.agreement_key, presence.boot)
        except ForgedError:
            return None  # a member with an unusable key: it cannot talk to anybody, and its probes will fail
        counter = link.counter = (self._counter if link.counter is None else link.counter) + 1
        self._counter = max(self._counter, counter)
        data = seal(
            cipher,
            version=version,
            sender=presence.id,
            boot=presence.boot,
            counter=counter,
            introduction=introduction,
            body=encode_body(body),
        )
        self.sent += 1
        self.sent_bytes += len(data)
        return Send(address=to or member.address, data=data)

    def _compose(
        self, entry: Entry, message: Message, updates: tuple[bytes, ...], room: int, *, introduced: bool
    ) -> Body:
        """The message with what fits into `room` bytes; what comes from the queues counts as sent."""
        riders: list[bytes] = []
        proofs = () if entry.member.state is State.ALIVE else entry.proofs()
        for update in (*proofs, *updates):
            if item_bytes(update) <= room:
                riders.append(update)
                room -= item_bytes(update)
        if not self._broadcasts:
            return Body(message, entry.link.boot, tuple(riders), ())
        queued, payloads = self._broadcasts.fill(
            max(0, room),
            self._config.retransmits(self._roster.size),
            to=entry.member.id,
            audience=self._roster.others,
            skip=(self._presence.id, "alive", b"") if introduced else None,
            records=entry.member.live,
        )
        self.riders += len(queued) + len(payloads)
        return Body(message, entry.link.boot, (*riders, *queued), tuple(payloads))

    def open(self, now: float, data: bytes) -> Opened:
        """The authenticated content of a datagram. Raises MalformedError or ForgedError; then nothing changed but
        the budget for strangers, and the replay window if it authenticated and only then made no sense."""
        packet = parse(data, self._config.versions)
        if packet.sender == self._own_prefix:
            raise ForgedError("a datagram in this node's own name")
        entry = self._roster.by_prefix(packet.sender)
        if entry is None:
            return self._open_stranger(now, packet)
        member, link = entry.member, entry.link
        if member.id in self._judge.evicted:
            raise ForgedError(f"{member.name} is evicted")
        if packet.boot < link.boot:
            raise ForgedError(f"{member.name} speaks from boot {packet.boot}, its boot is {link.boot}")
        familiar = packet.boot == link.boot
        if familiar and not link.fresh(packet.counter):
            raise ForgedError(f"a datagram of {member.name} seen before")
        expired = now >= member.credential.expires_at
        if (expired or not familiar) and not self._strangers.take(now):
            raise ForgedError("too many new boots at once")
        if expired:
            self._introduced(now, packet)  # raises unless it shows a renewed credential
        key = member.credential.agreement_key
        plain = unseal(self._keys.receiving(member.id, key, packet.boot, keep=familiar), packet)
        if not familiar:
            link.enter(packet.boot)
        return self._accept(entry, packet, plain)

    def _open_stranger(self, now: float, packet: Packet) -> Opened:
        if not packet.introduction:
            raise ForgedError(f"unknown sender {packet.sender.hex()}, and it does not introduce itself")
        if not self._strangers.take(now):
            raise ForgedError("too many introductions at once")
        self.introductions += 1
        alive, credential = self._introduced(now, packet)
        plain = unseal(
            self._keys.receiving(alive.node, credential.agreement_key, packet.boot, keep=False), packet
        )
        entry = self._judge.admit(now, alive, credential)
        if entry is None:
            raise ForgedError(f"no room for {credential.name}: {self._config.members_max} members")
        return self._accept(entry, packet, plain)

    def _introduced(self, now: float, packet: Packet) -> tuple[Alive, Credential]:
        alive = decode_statement(packet.introduction)
        if not isinstance(alive, Alive) or not alive.credential:
            raise MalformedError("an introduction that is no whole Alive")
        if alive.node[:SENDER_BYTES] != packet.sender or alive.boot != packet.boot:
            raise ForgedError("an introduction of somebody else, or of another boot")
        credential = self._judge.verified(now, alive)
        assert credential is not None, "a whole Alive verifies or raises"
        return alive, credential

    def _accept(self, entry: Entry, packet: Packet, plain: bytes) -> Opened:
        link: Link = entry.link
        link.accept(packet.counter)
        entry.hearsay_until = 0.0  # it speaks for itself
        try:
            body = decode_body(plain)
        except MalformedError as error:
            raise MalformedError(f"from {format_id(entry.member.id)}: {error}") from error
        link.learn(knows_us=body.known_boot == self._presence.boot)
        known = packet.introduction == entry.encoded
        return Opened(entry, body, b"" if known else packet.introduction)
