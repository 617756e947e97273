"""What becomes of a member, and who has to hear of it.

The one place that changes a member's state and rank: by the table (`gossip/member.py`), telling the roster, the timers
of suspicions and the driver alike.

Invariant: every visible change of a member is in `changes` once, in order.
"""

from dataclasses import dataclass, replace

from gossip.broadcast import Broadcasts
from gossip.entry import Entry
from gossip.member import TRANSITIONS, Event, Member, State
from gossip.presence import Presence
from gossip.roster import Roster
from gossip.suspicion import Suspicions


@dataclass(frozen=True, slots=True)
class Change:
    """`entry` became `member` coming from state `previous` (None: it is new). `displaced` lived at its address."""

    entry: Entry
    member: Member
    previous: State | None
    displaced: Member | None = None


class Moves:
    """Moves members. The engine drains `changes`; `urgent` says that others should hear soon of what happened."""

    __slots__ = ("_broadcasts", "_presence", "_roster", "_suspicions", "changes", "urgent")

    def __init__(
        self, *, presence: Presence, roster: Roster, broadcasts: Broadcasts, suspicions: Suspicions
    ) -> None:
        self.changes: list[Change] = []
        self.urgent = False
        self._presence = presence
        self._roster = roster
        self._broadcasts = broadcasts
        self._suspicions = suspicions

    def tell_own(self, *, whole: bool) -> None:
        """Spread this node's Alive; `whole`: with its credential."""
        encoded = self._presence.encoded if whole else self._presence.encoded_slim
        self._broadcasts.tell(self._presence.id, "alive", encoded)
        self.urgent = True

    def transit(
        self,
        now: float,
        entry: Entry,
        event: Event,
        *,
        boot: int | None = None,
        incarnation: int | None = None,
    ) -> None:
        """Something happened to a member; `boot` and `incarnation` are its new rank, where that rises."""
        before = entry.member
        state = TRANSITIONS[before.state, event]
        if state is not State.SUSPECT:
            self._suspicions.drop(before.id)
        member = replace(
            before,
            state=state,
            since=before.since if state is before.state else now,
            boot=before.boot if boot is None else boot,
            incarnation=before.incarnation if incarnation is None else incarnation,
        )
        self.move(entry, member)

    def move(self, entry: Entry, member: Member) -> None:
        """`entry` becomes `member`."""
        before = entry.member
        displaced = self.displaced(member) if member.address != before.address else None
        self._roster.change(entry, member)
        if _visible(before) != _visible(member):
            self.urgent = True
            self.changes.append(Change(entry, member, before.state, displaced))

    def displaced(self, member: Member) -> Member | None:
        """Who else lives at the address of `member`, as far as is known here."""
        node = self._roster.holder(member.address)
        if node is None or node == member.id or not member.live:
            return None
        return self._roster.member(node)


def _visible(member: Member) -> tuple[object, ...]:
    """What a change of is worth telling the driver; a mere refutation of what it never heard is not."""
    return (
        member.state,
        member.boot,
        member.address,
        member.zone,
        dict(member.meta),
        member.credential,
    )
