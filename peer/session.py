"""One exchange of state with one other node over one stream: members (when asked for), then the journal.

    initiator -> "s" <1 byte: with members?>      opens
    both      -> "m" <members chunk> ...          only when the opening asked for them
    both      -> "r" <reconciliation frame> ...   until both heads agree (`crdt/reconcile.py`)
    both      -> "b"                              this side has nothing more to ask or say

Invariant: a session holds no state of its own worth keeping: whatever it learnt is handed out at once, so
that a stream cut at any byte loses nothing but the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from crdt.journal import Delta, Journal
from crdt.reconcile import ReconcileError, Reconciliation

OPEN, MEMBERS, RECONCILE, BYE = b"s", b"m", b"r", b"b"
MEMBERS_CHUNKS_MAX: Final = 512  # at about 130 members each


class SessionError(Exception):
    """The other side broke the protocol. What was learnt before stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What one frame brought: frames to send, members chunks and deltas to take in, and whether all is said."""

    send: tuple[bytes, ...] = ()
    members: tuple[bytes, ...] = ()
    deltas: tuple[tuple[Delta, bytes | None], ...] = ()
    done: bool = False


class SyncSession:
    """The protocol above, for either side. `members` are this side's chunks, sent if the exchange includes them."""

    def __init__(
        self, journal: Journal, members: Sequence[bytes], *, initiator: bool, with_members: bool = False
    ) -> None:
        self._reconciliation = Reconciliation(journal, initiator=initiator)
        self._members = tuple(members)
        self._initiator = initiator
        self._with_members = with_members
        self._opened = initiator
        self._said_bye = False
        self._heard_bye = False
        self._chunks_heard = 0

    def start(self) -> tuple[bytes, ...]:
        """The initiator's first frames; nothing for the other side."""
        if not self._initiator:
            return ()
        frames = [OPEN + (b"\x01" if self._with_members else b"\x00")]
        if self._with_members:
            frames += [MEMBERS + chunk for chunk in self._members]
        frames += [RECONCILE + frame for frame in self._reconciliation.start()]
        return tuple(frames)

    def receive(self, frame: bytes) -> Progress:
        """Take one frame. Raises SessionError for whatever the protocol does not allow here."""
        tag, body = frame[:1], frame[1:]
        if not self._opened:
            return self._open(tag, body)
        if self._heard_bye:
            raise SessionError("a frame behind the last one")
        if tag == MEMBERS and self._with_members:
            self._chunks_heard += 1
            if self._chunks_heard > MEMBERS_CHUNKS_MAX:
                raise SessionError(f"more than {MEMBERS_CHUNKS_MAX} lists of members")
            return Progress(members=(body,))
        if tag == RECONCILE:
            return self._reconcile(body)
        if tag == BYE:
            if not self._reconciliation.done:
                raise SessionError("the other side ends before the journals agree")
            self._heard_bye = True
            return Progress(send=self._bye(), done=True)
        raise SessionError(f"unexpected frame {tag!r}")

    def _open(self, tag: bytes, body: bytes) -> Progress:
        if tag != OPEN or body not in (b"\x00", b"\x01"):
            raise SessionError("stream does not open with a sync request")
        self._opened = True
        self._with_members = body == b"\x01"
        chunks = [MEMBERS + chunk for chunk in self._members] if self._with_members else []
        return Progress(send=tuple(chunks))

    def _reconcile(self, body: bytes) -> Progress:
        try:
            step = self._reconciliation.receive(body)
        except ReconcileError as error:
            raise SessionError(str(error)) from error
        send = tuple(RECONCILE + frame for frame in step.send)
        if step.done:
            send += self._bye()
        return Progress(send=send, deltas=tuple(step.deltas))

    def _bye(self) -> tuple[bytes, ...]:
        if self._said_bye:
            return ()
        self._said_bye = True
        return (BYE,)
