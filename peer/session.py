"""One exchange of state with one other node over one stream: members (when asked for) and the journal, side by side.

    initiator -> "s" <1 byte: with members?>      opens
    both      -> "m" <members frame> ...          only when the opening asked for them (`gossip/sync.py`)
    both      -> "r" <reconciliation frame> ...   until both heads agree (`crdt/reconcile.py`)
    both      -> "h" <record>                     only where one of the other side's own waits here for those before it
    both      -> "b" <1 byte: knows?>             this side has nothing more to ask or say

A good-bye says whether its sender *knows* the mesh: has taken in its state, or was there from the beginning. Two nodes
whose disks are empty agree at once, and neither has learnt anything of what it once wrote.

Two journals that agree may both lack what one of the two sides once wrote: its disk is gone, and the other side holds
back a record of it whose predecessors reached nobody. That one is shown to its writer, who finds its own signature on
it: the number is used (`peer/node_doubt.py`).

Invariant: a session holds no state of its own worth keeping: whatever it learnt is handed out at once, so
that a stream cut at any byte loses nothing but the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from crdt.codec import MalformedError
from crdt.journal import Delta, Journal
from crdt.reconcile import ReconcileError, Reconciliation
from crdt.record import Record, decode_record, encode_record
from gossip.errors import ExchangeError
from gossip.sync import MemberExchange

OPEN, MEMBERS, RECONCILE, HELD, BYE = b"s", b"m", b"r", b"h", b"b"
_FLAGS: Final = {b"\x00": False, b"\x01": True}


class SessionError(Exception):
    """The other side broke the protocol. What was learnt before stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What one frame brought: frames to send, members chunks and deltas to take in, a record that the other side says
    this side has written and holds back, and whether all is said."""

    send: tuple[bytes, ...] = ()
    members: tuple[bytes, ...] = ()
    deltas: tuple[tuple[Delta, bytes | None], ...] = ()
    held: Record | None = None
    done: bool = False


class SyncSession:
    """The protocol above, for either side. An initiator asks for members if it has its side of that exchange at hand;
    the other side must have it ready. `knows`: whether this side knows the mesh, asked when it says good-bye. `other`:
    the node on the other side."""

    def __init__(
        self,
        journal: Journal,
        members: MemberExchange | None,
        *,
        initiator: bool,
        knows: Callable[[], bool],
        other: bytes,
    ) -> None:
        self.told = False  # the other side has said that it knows the mesh, at its end
        self._knows = knows
        self._other = other
        self._journal = journal
        self._reconciliation = Reconciliation(journal, initiator=initiator)
        self._members = members
        self._initiator = initiator
        self._opened = initiator
        self._said_bye = False
        self._heard_bye = self._heard_held = False

    def start(self) -> tuple[bytes, ...]:
        """The initiator's first frames; nothing for the other side."""
        if not self._initiator:
            return ()
        members = () if self._members is None else self._members.start()
        return (
            OPEN + (b"\x00" if self._members is None else b"\x01"),
            *(MEMBERS + frame for frame in members),
            *(RECONCILE + frame for frame in self._reconciliation.start()),
        )

    def receive(self, frame: bytes) -> Progress:
        """Take one frame. Raises SessionError for whatever the protocol does not allow here."""
        tag, body = frame[:1], frame[1:]
        if not self._opened:
            return self._open(tag, body)
        if self._heard_bye:
            raise SessionError("a frame behind the last one")
        if tag == MEMBERS and self._members is not None:
            return self._exchange(self._members, body)
        if tag == RECONCILE:
            return self._reconcile(body)
        if tag == HELD and self._finished and not self._heard_held:
            self._heard_held = True
            return self._shown(body)
        if tag == BYE:
            if not self._finished:
                raise SessionError("the other side ends before the two agree")
            told = _FLAGS.get(body)
            if told is None:
                raise SessionError("a good-bye says whether its sender knows the mesh")
            self.told = told
            self._heard_bye = True
            return Progress(send=self._bye(), done=True)
        raise SessionError(f"unexpected frame {tag!r}")

    @property
    def bytes_sent(self) -> int:
        """Of the journal's side of the exchange."""
        return self._reconciliation.statistics().bytes_sent

    @property
    def records_served(self) -> int:
        """How many records the other side was given."""
        return self._reconciliation.statistics().records_sent

    @property
    def records_heard(self) -> int:
        """How many records the other side gave."""
        return self._reconciliation.statistics().records_received

    def give_up(self, writer: bytes) -> None:
        """Ask for no more of this writer: what came of it was refused."""
        self._reconciliation.give_up(writer)

    @property
    def _finished(self) -> bool:
        """Whether both exchanges have come to their ends."""
        return self._reconciliation.done and (self._members is None or self._members.done)

    def _open(self, tag: bytes, body: bytes) -> Progress:
        with_members = _FLAGS.get(body) if tag == OPEN else None
        if with_members is None:
            raise SessionError("stream does not open with a sync request")
        self._opened = True
        if not with_members:
            self._members = None
        return Progress()

    def _exchange(self, members: MemberExchange, body: bytes) -> Progress:
        try:
            step = members.receive(body)
        except ExchangeError as error:
            raise SessionError(f"members: {error}") from error
        send = tuple(MEMBERS + frame for frame in step.send)
        return Progress(send=send + self._bye(), members=step.members)

    def _reconcile(self, body: bytes) -> Progress:
        try:
            step = self._reconciliation.receive(body)
        except ReconcileError as error:
            raise SessionError(str(error)) from error
        send = tuple(RECONCILE + frame for frame in step.send)
        return Progress(send=send + self._bye(), deltas=tuple(step.deltas))

    def _shown(self, body: bytes) -> Progress:
        try:
            return Progress(held=decode_record(body))
        except MalformedError as error:
            raise SessionError(f"a record held back: {error}") from error

    def _bye(self) -> tuple[bytes, ...]:
        """The good-bye, once, when it is time."""
        if self._said_bye or not self._finished:
            return ()
        self._said_bye = True
        held = self._journal.held_back(self._other)
        shown = () if held is None else (HELD + encode_record(held),)
        return (*shown, BYE + (b"\x01" if self._knows() else b"\x00"))
