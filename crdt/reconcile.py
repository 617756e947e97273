"""Reconciliation: two replicas find out what differs and bring each other up to date, in bounded frames, without I/O.

Range-based set reconciliation (Meyer 2023) over the sorted writers, then Scuttlebutt deltas for those that differ. The
two sides take turns with one frame each. A frame may carry, in any mix:

probes   fingerprints of adjoining ranges of writers, "I have this, you?". Equal: settled. Different: the receiver
         splits the range (that of all writers into so many that the next step lists them, if 256 parts suffice), or,
         where it holds few writers in it, lists them.
lists    all writers the sender holds in a range, with head and a check of the content.
heads    writers for which the sender is ahead of what was listed.
asks     "send me this writer from this seq on". Everything is pulled, so that neither side ever holds more than a frame
         of what it did not ask for, and a large journal flows part by part.
deltas   the answers, each with the writer's introduction if the asker has none.

In sync it costs one probe of 16 bytes and an empty frame back. That probe, the initiator's fingerprint of everything,
keys the short fingerprints and checks of the whole session: whoever writes records that should make two replicas look
alike knows it only once nothing can be written any more. Head 0 in a list says that the sender holds a proof
that the writer equivocated; asking for it from 0 brings the proof. Ranges and checks come from a picture taken when
the session first needs it, asks and deltas from the journal as it is by then.

The caller absorbs deltas into the journal as they come; a session changes nothing itself.

Invariant: a session ends, or raises ReconcileError, within `FRAMES_MAX` frames, whatever the peer sends.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from crdt.codec import CrdtError, MalformedError
from crdt.delta import Delta
from crdt.fingerprint import FINGERPRINT_BYTES, Ranges
from crdt.frame import (
    ASK_BYTES_MAX,
    FRAME_BYTES_MAX,
    FRAME_BYTES_TARGET,
    ITEM_BYTES_MAX,
    SPLIT,
    SPLIT_WHOLE,
    Answer,
    Ask,
    Frame,
    Item,
    Listing,
    Probe,
    Span,
    answer_bytes,
    decode_frame,
    encode_frame,
)
from crdt.record import SEQ_MAX
from crdt.replica import Replica

__all__ = ["FRAME_BYTES_MAX", "ReconcileError", "ReconcileStatistics", "Reconciliation", "Step"]

FRAMES_MAX: Final = 100_000
LIST_MAX: Final = (
    6  # writers in a range that is listed rather than split: about what a split of it would cost
)
ASKS_MAX: Final = 256  # writers asked for at a time
QUEUE_MAX: Final = 200_000
IDLE_TURNS_MAX: Final = 2
RESTARTS_MAX: Final = 3  # of one writer's journal in one session: a claim that did not add up, a proof

_UNANSWERED: Final = SEQ_MAX + 2  # beyond whatever is asked for
WHOLE: Final = Span(b"", None)
_CONTROL_BYTES_MAX: Final = (
    FRAME_BYTES_TARGET // 2
)  # so that finding differences never starves what is shipped


class ReconcileError(CrdtError):
    """The peer broke the protocol. The journal was not touched; the session is of no further use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a frame led to: a frame to send (or none), deltas to absorb with their introductions, and the end."""

    send: list[bytes] = field(default_factory=list)
    deltas: list[tuple[Delta, bytes | None]] = field(default_factory=list)
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileStatistics:
    """What a session has cost so far."""

    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    records_received: int
    records_sent: int


@dataclass(frozen=True, slots=True)
class _Want:
    """What is to be asked for: from `after` on, towards `target`."""

    after: int
    target: int


class Reconciliation:
    """One side of one session. The initiator sends `start()`; then each frame received gives a Step."""

    def __init__(self, journal: Replica, *, initiator: bool) -> None:
        self._journal = journal
        self._initiator = initiator
        self._ranges: Ranges | None = None
        self._spans: deque[Span] = deque()  # differ; to be split or listed
        self._key = b""  # of the short fingerprints and checks
        self._listed = 0  # writers in the ranges the peer has listed
        # Taken from the front, which a dict does in time that grows with what was taken before.
        self._tell: OrderedDict[bytes, None] = OrderedDict()  # writers whose head the peer should hear
        self._wants: OrderedDict[bytes, _Want] = OrderedDict()
        self._asked: dict[bytes, _Want] = {}
        self._orders: deque[Ask] = deque()  # what the peer asked for
        self._frames_sent = self._frames_received = self._bytes_sent = self._bytes_received = 0
        self._records_received = self._records_sent = 0
        self._given_up: set[bytes] = set()  # what came of these writers was refused
        self._restarts: dict[
            bytes, tuple[int, int]
        ] = {}  # asked for: next from where, how often from before it
        self._idle_turns = 0
        self.done = False

    def start(self) -> list[bytes]:
        """The first frame; nothing for the side that answers."""
        if not self._initiator:
            return []
        self._key = self._journal.fingerprint()
        whole = Probe(low=b"", ranges=((None, self._key),))
        return [self._seal(Frame(more=False, probes=(whole,)))]

    def receive(self, frame: bytes) -> Step:
        """Take the peer's frame. Raises ReconcileError."""
        if self.done:
            raise ReconcileError("a frame after the end")
        self._frames_received += 1
        self._bytes_received += len(frame)
        if self._frames_received > FRAMES_MAX:
            raise ReconcileError(f"no end after {FRAMES_MAX} frames")
        try:
            heard = decode_frame(frame)
        except MalformedError as error:
            raise ReconcileError(str(error)) from error
        received = [delta for answer in heard.answers if (delta := self._take_answer(answer)) is not None]
        for probe in heard.probes:
            self._take_probe(probe)
        for listing in heard.listings:
            self._take_listing(listing)
        for item in heard.heads:
            self._compare(item)
        for ask in heard.asks:
            self._take_ask(ask)
        if max(len(self._spans), len(self._orders), len(self._wants), len(self._restarts)) > QUEUE_MAX:
            raise ReconcileError("the peer queues up too much")
        return self._respond(heard, received)

    def give_up(self, writer: bytes) -> None:
        """Ask for no more of this writer in this session: what came of it was refused."""
        self._wants.pop(writer, None)
        self._given_up.add(writer)

    def statistics(self) -> ReconcileStatistics:
        return ReconcileStatistics(
            frames_sent=self._frames_sent,
            frames_received=self._frames_received,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            records_received=self._records_received,
            records_sent=self._records_sent,
        )

    def __repr__(self) -> str:
        state = "done" if self.done else f"{len(self._wants) + len(self._asked)} writers wanted"
        return f"Reconciliation({state}, {self._bytes_sent} bytes sent, {self._bytes_received} received)"

    # ------------------------------------------------------------------ what comes in

    def _take_probe(self, probe: Probe) -> None:
        low = probe.low
        for high, theirs in probe.ranges:
            if len(theirs) == FINGERPRINT_BYTES:
                self._key = self._key or theirs
                differs = theirs != self._journal.fingerprint()
            else:
                differs = theirs != self._picture().fingerprint(low, high, self._key)
            if differs:
                self._spans.append(Span(low, high))
            low = high or b""

    def _take_listing(self, listing: Listing) -> None:
        """A list of the peer's. Each range is listed once, so all together no more than we hold lies in them."""
        self._listed += self._picture().size(*listing.span)
        if self._listed > len(self._picture().writers):
            raise ReconcileError("the peer lists the same again and again")
        theirs = {item.writer: item for item in listing.items}
        for writer in sorted(theirs.keys() | set(self._picture().within(*listing.span))):
            if writer not in theirs or self._compare(theirs[writer]):
                self._tell[writer] = None

    def _compare(self, theirs: Item) -> bool:
        """Want what the peer is ahead with. Returns whether the peer should hear our head.

        The same head with other content means that one of the two is a fork: both sides fetch the other's whole
        journal of that writer, and find the proof in it.
        """
        ours = self._item(theirs.writer)
        if ours is None:
            if theirs.head > 0:
                self._want(theirs.writer, self._journal.resume_after(theirs.writer, theirs.head), theirs.head)
            else:
                self._want(theirs.writer, 0, 1)
            return False
        if ours.check == theirs.check:
            return False
        if ours.head == 0:
            return True
        if theirs.head in (0, ours.head):
            self._want(theirs.writer, 0, max(theirs.head, 1))
            return theirs.head > 0
        if theirs.head > ours.head:
            self._want(theirs.writer, self._journal.resume_after(theirs.writer, theirs.head), theirs.head)
            return False
        return True

    def _want(self, writer: bytes, after: int, target: int) -> None:
        if after < target and writer not in self._asked and writer not in self._given_up:
            self._wants[writer] = _Want(after, target)

    def _take_ask(self, ask: Ask) -> None:
        """An order. Who reads on waits for the answer and asks from its end; only few reasons let it begin again."""
        following, restarts = self._restarts.get(ask.writer, (0, 0))
        restarts += ask.after < following
        if restarts > RESTARTS_MAX:
            raise ReconcileError("the peer asks for the same again and again")
        self._restarts[ask.writer] = (_UNANSWERED, restarts)
        self._orders.append(ask)

    def _take_answer(self, answer: Answer) -> tuple[Delta, bytes | None] | None:
        delta = answer.delta
        asked = self._asked.pop(delta.writer, None)
        if asked is None or asked.after != delta.after:
            raise ReconcileError("a delta nobody asked for")
        if not delta.records or delta.writer in self._given_up:  # the peer has no more than that any longer
            return None
        self._records_received += len(delta.records)
        if not delta.complete:
            self._wants[delta.writer] = _Want(delta.upto, delta.target)
        return delta, answer.introduction

    # ------------------------------------------------------------------ what goes out

    def _respond(self, heard: Frame, received: list[tuple[Delta, bytes | None]]) -> Step:
        said = self._compose()
        if not said.empty:
            self._idle_turns = 0
            return Step(send=[self._seal(said)], deltas=received)
        if heard.empty:
            if not heard.more and not said.more:
                self.done = True
                return Step(deltas=received, done=True)
            self._idle_turns += 1
            if self._idle_turns > IDLE_TURNS_MAX:
                raise ReconcileError("the peer gets nowhere")
        self.done = not heard.more and not said.more
        return Step(send=[self._seal(said)], deltas=received, done=self.done)

    def _compose(self) -> Frame:
        """The next frame: differences first, then asks, then what the peer asked for, as much as fits."""
        room = _CONTROL_BYTES_MAX
        heads: list[Item] = []
        while self._tell and room >= ITEM_BYTES_MAX:
            writer, _ = self._tell.popitem(last=False)
            item = self._item(writer)
            if item is not None:
                heads.append(item)
                room -= ITEM_BYTES_MAX
        probes: list[Probe] = []
        listings: list[Listing] = []
        while self._spans:
            span = self._spans[0]
            most = SPLIT_WHOLE if span == WHOLE else SPLIT
            if room < (most + 1) * ITEM_BYTES_MAX:
                break
            self._spans.popleft()
            room -= (most + 1) * ITEM_BYTES_MAX
            writers = self._picture().within(*span)
            if len(writers) > LIST_MAX:
                parts = -(-len(writers) // LIST_MAX) if span == WHOLE else SPLIT
                probes.append(self._split(span, min(most, max(SPLIT, parts), len(writers))))
            else:
                listings.append(
                    Listing(span, tuple(item for writer in writers if (item := self._item(writer))))
                )
        asks: list[Ask] = []
        while self._wants and len(self._asked) < ASKS_MAX and room >= ASK_BYTES_MAX:
            writer, want = self._wants.popitem(last=False)
            if want.after > 0 and self._journal.heads.get(writer, 0) >= want.target:
                continue  # it came another way
            asks.append(Ask(writer, want.after, writer not in self._journal.introductions))
            self._asked[writer] = want
            room -= ASK_BYTES_MAX
        return Frame(
            heads=tuple(heads),
            probes=tuple(probes),
            listings=tuple(listings),
            asks=tuple(asks),
            answers=self._answers(_CONTROL_BYTES_MAX - room),
            more=bool(self._tell or self._spans or self._wants or self._asked or self._orders),
        )

    def _answers(self, used: int) -> tuple[Answer, ...]:
        answers: list[Answer] = []
        while self._orders:
            ask = self._orders[0]
            answer = Answer(
                delta=self._journal.delta(ask.writer, ask.after, max(0, FRAME_BYTES_TARGET - used)),
                introduction=self._journal.introductions.get(ask.writer) if ask.stranger else None,
            )
            used += answer_bytes(answer)
            if used > (FRAME_BYTES_TARGET if answers else FRAME_BYTES_MAX):
                break
            self._orders.popleft()
            answers.append(answer)
            following = answer.delta.upto + answer.delta.complete
            self._restarts[ask.writer] = (following, self._restarts[ask.writer][1])
            self._records_sent += len(answer.delta.records)
        return tuple(answers)

    def _split(self, span: Span, parts: int) -> Probe:
        ranges = self._picture()
        bounds = [*ranges.split(*span, parts), span.high]
        lows = [span.low, *(bound for bound in bounds if bound is not None)]
        return Probe(
            low=span.low,
            ranges=tuple(
                (high, ranges.fingerprint(low, high, self._key))
                for low, high in zip(lows, bounds, strict=False)
            ),
        )

    def _item(self, writer: bytes) -> Item | None:
        """Our side of a writer, as of now; None if we know nothing of it."""
        check = self._journal.check(writer, self._key)
        if check is None:
            return None
        return Item(writer, 0 if writer in self._journal.forks else self._journal.heads[writer], check)

    def _picture(self) -> Ranges:
        if self._ranges is None:
            self._ranges = self._journal.ranges()
        return self._ranges

    def _seal(self, frame: Frame) -> bytes:
        sealed = encode_frame(frame)
        assert len(sealed) <= FRAME_BYTES_MAX
        self._frames_sent += 1
        self._bytes_sent += len(sealed)
        return sealed
