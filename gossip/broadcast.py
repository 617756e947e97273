"""What is still to be told: two bounded queues and the rule by which they share a datagram.

SWIM (section 4.1) piggybacks updates on datagrams that are sent anyway, each update lambda * log n times. As in
memberlist, what was sent least goes first, and among those the newest. Hearing a thing from another counts like
telling it (Demers et al., 1987, "counter" with feedback), for up to half of these times: once it is everywhere, echoes
end it, and whoever was missed finds out by the fingerprints. Records are rare and wanted at once even where much is
lost: echoes only say whom not to tell. Membership statements and published records
wait in queues of their own and take turns at having the first pick of a datagram's room, so that neither a storm of
suspicions nor a flood of records can starve the other: each is sure of every second datagram to a live member.

Invariant: at most `items_max` items a queue; on overflow the one told most often (then the oldest) goes, counted.
"""

from bisect import bisect_left, insort
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar, assert_never

from gossip.message import QUEUED_ITEMS_MAX, item_bytes
from gossip.statement import Alive, Dead, Left, Statement, Suspect

_ROUND: Final = 1 << 48  # more items than a queue ever takes in
_MISFITS_MAX: Final = (
    64  # items tried that do not fit or need not go to this member before a datagram counts as full
)

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Item:
    data: bytes
    size: int  # what it takes of a datagram
    serial: int
    transmissions: int = 0  # echoes included
    echoes: int = 0
    told: dict[bytes, int] = field(default_factory=dict)  # how often to whom, at most `limit` of them
    known: dict[bytes, None] = field(default_factory=dict)  # who has it, because it came from them

    @property
    def place(self) -> int:
        """The lower, the sooner it is told: fewer transmissions first, then the newer."""
        return self.transmissions * _ROUND - self.serial

    def had_its_share(self, node: bytes, audience: int) -> bool:
        """Whether `node` was told more often than each of the `audience` that does not have it would be in turn."""
        told = self.told.get(node)
        return told is not None and told > self.transmissions // max(1, audience - len(self.known))


class Queue(Generic[K]):
    """Items by key, ordered by (fewest transmissions, newest). The order is a plain list of numbers: of a few thousand
    at most, where moving memory along costs less than any tree."""

    __slots__ = ("_items", "_items_max", "_order", "_placed", "_serial", "dropped")

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._items: dict[K, _Item] = {}
        self._order: list[int] = []  # places, ascending
        self._placed: dict[int, K] = {}  # what is at each
        self._serial = 0
        self.dropped = 0

    def put(self, key: K, data: bytes) -> None:
        """Queue `data` under `key` with no transmissions yet, in place of what was there."""
        self.discard(key)
        if len(self._items) >= self._items_max:
            loser = self._placed.pop(self._order.pop())
            del self._items[loser]
            self.dropped += 1
        self._serial += 1
        item = _Item(data, item_bytes(data), self._serial)
        self._items[key] = item
        self._place(key, item)

    def discard(self, key: K) -> None:
        """Tell `key` no more."""
        item = self._items.pop(key, None)
        if item is not None:
            self._displace(item)

    def _place(self, key: K, item: _Item) -> None:
        place = item.place
        self._placed[place] = key
        insort(self._order, place)

    def _displace(self, item: _Item) -> None:
        place = item.place
        del self._placed[place]
        del self._order[bisect_left(self._order, place)]

    def _told(self, key: K, item: _Item, limit: int) -> None:
        """It was transmitted once more."""
        self._displace(item)
        item.transmissions += 1
        if item.transmissions >= limit:
            del self._items[key]
        else:
            self._place(key, item)

    def echoed(self, key: K, node: bytes, *, audience: int, limit: int) -> None:
        """Member `node` has told this node what it has queued itself. It need not be told, and its first echo counts
        as a transmission, for up to half of the `limit` (0: not at all); when all of the `audience` have it, nobody
        need be told."""
        item = self._items.get(key)
        if item is None or node in item.known:
            return
        item.known[node] = None
        if len(item.known) >= audience:
            self.discard(key)
        elif item.echoes < limit // 2:
            item.echoes += 1
            self._told(key, item, limit)

    def take(
        self, room: int, limit: int, *, to: bytes = b"", audience: int = 1, skip: K | None = None
    ) -> list[bytes]:
        """Items that fit into `room` bytes together, for member `to` of `audience` members that could be told; each
        counts as sent, and is gone after `limit` times. Who has a thing is not told, and nobody is told it again before
        all others have been as often: in a small mesh the few transmissions would else go to the same members."""
        items = self._items
        chosen: list[tuple[K, _Item]] = []
        misfits = 0
        over: list[K] = []
        for place in self._order:
            key = self._placed[place]
            item = items[key]
            if len(item.known) >= audience:
                over.append(key)  # who did not know it is gone
                continue
            if item.size > room or to in item.known or key == skip or item.had_its_share(to, audience):
                misfits += 1
                if misfits > _MISFITS_MAX:
                    break
                continue
            room -= item.size
            chosen.append((key, item))
            if len(chosen) == QUEUED_ITEMS_MAX:
                break
        for key in over:
            self.discard(key)
        for key, item in chosen:
            item.told[to] = item.told.get(to, 0) + 1
            self._told(key, item, limit)
        return [item.data for _, item in chosen]

    @property
    def told_most(self) -> int:
        """How often the item told most often was, echoes included; 0 if there is none."""
        return self._items[self._placed[self._order[-1]]].transmissions if self._order else 0

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return bool(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._order.clear()
        self._placed.clear()


UpdateKey = tuple[bytes, str, bytes]  # subject, kind of statement, accuser (empty unless a Suspect)


def _key(statement: Statement) -> UpdateKey:
    """The key under which a statement is told."""
    match statement:
        case Alive():
            return statement.node, "alive", b""
        case Suspect():
            return statement.subject, "suspect", statement.accuser
        case Dead():
            return statement.subject, "dead", b""
        case Left():
            return statement.subject, "left", b""
    assert_never(statement)


class Broadcasts:
    """The two queues of one engine."""

    __slots__ = ("_payloads_first", "_subjects", "payloads", "updates")

    def __init__(self, *, updates_max: int, payloads_max: int) -> None:
        self.updates: Queue[UpdateKey] = Queue(updates_max)
        self.payloads: Queue[bytes] = Queue(payloads_max)
        self._subjects: dict[bytes, list[UpdateKey]] = {}
        self._payloads_first = False

    def tell(self, subject: bytes, kind: str, data: bytes, *, accuser: bytes = b"") -> None:
        """Queue a statement about `subject`. A Suspect joins those queued; anything else replaces them all."""
        key = (subject, kind, accuser)
        keys = [old for old in self._subjects.get(subject, []) if old in self.updates]
        if not accuser:
            for old in keys:
                self.updates.discard(old)
            keys = []
        if key not in keys:
            keys.append(key)
        self.updates.put(key, data)
        self._subjects[subject] = keys
        if len(self._subjects) > 2 * len(self.updates) + 16:
            self._subjects = {
                s: k for s, k in self._subjects.items() if any(key in self.updates for key in k)
            }

    def forget(self, subject: bytes) -> None:
        """Tell nothing about `subject` any more."""
        for key in self._subjects.pop(subject, []):
            self.updates.discard(key)

    def echoed(self, statement: Statement, node: bytes, *, audience: int, limit: int) -> None:
        """Member `node` has told what this node knows already."""
        self.updates.echoed(_key(statement), node, audience=audience, limit=limit)

    def publish(self, digest: bytes, payload: bytes) -> None:
        """Queue a record, unless it is waiting already."""
        if digest not in self.payloads:
            self.payloads.put(digest, payload)

    def fill(
        self,
        room: int,
        limit: int,
        *,
        to: bytes = b"",
        audience: int = 1,
        skip: UpdateKey | None = None,
        records: bool = True,
    ) -> tuple[list[bytes], list[bytes]]:
        """(statements, records) for one datagram with `room` bytes; the queues take turns at going first. The dead
        get no `records`: they are told what makes them come back, and records have few transmissions to lose."""
        if not self:
            return [], []
        if not records:  # nobody's turn
            return self.updates.take(room, limit, to=to, audience=audience, skip=skip), []
        payloads: list[bytes] = []
        self._payloads_first = not self._payloads_first
        if self._payloads_first:
            payloads = self.payloads.take(room, limit, to=to, audience=audience)
            room -= sum(map(item_bytes, payloads))
        updates = self.updates.take(room, limit, to=to, audience=audience, skip=skip)
        if not self._payloads_first:
            room -= sum(map(item_bytes, updates))
            payloads = self.payloads.take(room, limit, to=to, audience=audience)
        return updates, payloads

    def __len__(self) -> int:
        return len(self.updates) + len(self.payloads)

    def __bool__(self) -> bool:
        return bool(self.updates._items or self.payloads._items)  # not through them: asked at each step

    def clear(self) -> None:
        """Forget everything: nobody is there to be told."""
        self.updates.clear()
        self.payloads.clear()
        self._subjects.clear()
