"""The member part of a push-pull, when to ask for one, and when two journals differ for good.

A payload is a list of statements, the Alive of each member and then what proves that some of them are not: the
receiver weighs them one by one like any others (gossip/judge.py), so a stream peer can leave members out but invent
nothing. The driver exchanges payloads and journals over one stream; here is only when (`SyncGate`, `Divergence`) and
what.

Invariant: a chunk has at most CHUNK_BYTES_MAX bytes and CHUNK_ITEMS_MAX statements, so that one step stays short.
"""

from typing import Final

from gossip.codec import as_array, as_bytes, pack, unpack_array
from gossip.config import GossipConfig
from gossip.errors import MalformedError
from gossip.events import Address
from gossip.message import item_bytes
from gossip.presence import Presence
from gossip.roster import Link, Roster
from gossip.statement import STATEMENT_BYTES_MAX, Statement, decode_statement

CHUNK_BYTES_MAX: Final = 64 * 1024  # about 130 members, 20 ms of signatures when all of them are new
CHUNK_ITEMS_MAX: Final = 512
_FORMAT: Final = 1
_FRAMING_BYTES: Final = 16
_GATE_ADDRESSES_MAX: Final = 4096


def encode_members(
    presence: Presence, roster: Roster, *, now: float, withheld: frozenset[bytes]
) -> tuple[bytes, ...]:
    """Everything this node knows of members, itself first, in chunks. Expired and `withheld` ones are left out."""
    alives = [presence.encoded]
    proofs = [] if presence.left is None else [presence.left.encode()]
    for entry in roster.entries():
        if entry.member.id not in withheld and now < entry.member.credential.expires_at:
            alives.append(entry.encoded)
            proofs += entry.proofs()
    statements = (
        alives + proofs
    )  # in this order, so that whoever accuses is known when the accusation is weighed
    chunks: list[bytes] = []
    chunk: list[object] = []
    size = _FRAMING_BYTES
    for statement in statements:
        if size + item_bytes(statement) > CHUNK_BYTES_MAX or len(chunk) >= CHUNK_ITEMS_MAX:
            chunks.append(pack([_FORMAT, chunk]))
            chunk, size = [], _FRAMING_BYTES
        chunk.append(statement)
        size += item_bytes(statement)
    return (*chunks, pack([_FORMAT, chunk]))


def decode_members(data: bytes) -> list[Statement]:
    """The statements of one chunk. Raises MalformedError."""
    kind, items = unpack_array(data, size_max=CHUNK_BYTES_MAX, length=2)
    if kind != _FORMAT:
        raise MalformedError("members of an unknown format")
    return [
        decode_statement(as_bytes(item, "statement", size_max=STATEMENT_BYTES_MAX))
        for item in as_array(items, "statements", length_max=CHUNK_ITEMS_MAX)
    ]


class SyncGate:
    """At most one stream per address within the spacing, whatever the reasons."""

    __slots__ = ("_asked", "_spacing_s")

    def __init__(self, spacing_s: float) -> None:
        self._spacing_s = spacing_s
        self._asked: dict[Address, float] = {}

    def ask(self, now: float, address: Address) -> bool:
        """Whether a stream may be asked for now; if so, it counts as asked."""
        asked = self._asked.get(address)
        if asked is not None and now - asked < self._spacing_s:
            return False
        if len(self._asked) >= _GATE_ADDRESSES_MAX:
            recent = {a: at for a, at in self._asked.items() if now - at < self._spacing_s}
            if len(recent) >= _GATE_ADDRESSES_MAX:
                return False
            self._asked = recent
        self._asked[address] = now
        return True


class Divergence:
    """Tells journals that differ from journals about to agree.

    Right after a write the writer's fingerprint is ahead of everybody's until the push has spread. A difference
    counts when neither side's fingerprint changed within `diverged_settle_s` (each side says so of itself), or, under
    writes so constant that nothing ever settles, when the peer has differed at every look for `diverged_patience_s`.
    """

    __slots__ = ("_changed_at", "_config", "_own")

    def __init__(self, config: GossipConfig, own: bytes, now: float) -> None:
        self._config = config
        self._own = own
        self._changed_at = now - config.diverged_settle_s

    def observe(self, now: float, own: bytes) -> None:
        """Take in this node's present fingerprint."""
        if own != self._own:
            self._own, self._changed_at = own, now

    def settled(self, now: float) -> bool:
        """Whether this node's fingerprint has not changed lately."""
        return now - self._changed_at >= self._config.diverged_settle_s

    def judge(self, now: float, link: Link, theirs: bytes, *, settled: bool) -> bool:
        """Whether a peer's fingerprint is worth a stream now; if so, it counts as told."""
        if theirs == self._own:
            link.differs_since = None
            return False
        if link.differs_since is None:
            link.differs_since = now
        lasting = now - link.differs_since >= self._config.diverged_patience_s
        if not (lasting or (settled and self.settled(now))):
            return False
        if link.diverged_at is not None and now - link.diverged_at < self._config.diverged_spacing_s:
            return False
        link.diverged_at = now
        return True
