"""The member part of an exchange over a stream: two lists brought to what both know, at the price of the differences.

The sides compare what gossip/digest.py says of their lists: first as a whole, then by bucket, then member by member
in the buckets that differ. They take turns: a turn is up to TURN_CHUNKS_MAX chunks of statements, then one frame.

| frame   | from      | says                                                                              |
|---------|-----------|-----------------------------------------------------------------------------------|
| Summary | initiator | root and count: "I have this, you?"                                               |
| Same    | responder | "so have I"; the end                                                              |
| Buckets | responder | the values of its 256 buckets                                                     |
| Items   | initiator | id, rank and class of each member it has in the buckets that differ, in order     |
| Wanted  | responder | ids of those it wants whole, and of those it only wants the proofs of             |
| chunk   | both      | statements: what the responder found the initiator to lack, what it was asked for |

The first two frames carry a notice: what their sender holds against the receiver itself, so that whoever is reached by
stream alone hears that it is suspected. It is weighed like any chunk, be it empty: having it is proof of life.

It is over when one side has said all and asks nothing, and the other had said all before. In sync that is one small
frame each way; else two and a half round trips, and one more for each turn that fills up. Every Alive goes before any
proof, so that whoever accuses is known when the accusation is weighed.

The receiver weighs statements one by one like any others (gossip/judge.py), so a stream peer can leave members out but
invent nothing. An exchange changes nothing itself and tells members as they are by then; what changes meanwhile is
left to the next one. With `whole` (memberlist's push-pull) the initiator tells all it knows instead of comparing, and a
responder to whom statements come first does the same.

Invariant: a frame has at most FRAME_BYTES_MAX bytes; an exchange ends, or raises ExchangeError, within TURNS_MAX
turns and CHUNKS_MAX chunks, whatever the peer sends.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol

from gossip.codec import as_array, as_bytes, pack, unpack_array
from gossip.digest import BUCKETS, Mark
from gossip.errors import ExchangeError, MalformedError
from gossip.frame import (
    FRAME_BYTES_MAX,
    ITEMS_MAX,
    NOTICE_BYTES_MAX,
    Buckets,
    Frame,
    Group,
    Items,
    Same,
    Summary,
    Wanted,
    decode_frame,
    encode_frame,
)
from gossip.message import item_bytes
from gossip.statement import STATEMENT_BYTES_MAX, Statement, decode_statement
from trust.identity import ID_BYTES

CHUNK_BYTES_MAX: Final = FRAME_BYTES_MAX  # about 130 members, 20 ms of signatures when all of them are new
CHUNK_ITEMS_MAX: Final = 512
CHUNKS_MAX: Final = 512  # that one side takes in one exchange
TURN_CHUNKS_MAX: Final = 8  # half a megabyte: neither side piles up more unasked
TURNS_MAX: Final = 256
_FORMAT: Final = 1
_CHUNK_HEAD: Final = b"\x92\x01"  # how [1, [...]] starts
_FRAMING_BYTES: Final = 16


class Lack(Enum):
    """What a side lacks of what is known of a member."""

    NOTHING = "nothing"
    PROOFS = "proofs"  # that it has left, or is dead, at the rank known here
    EVERYTHING = "everything"


class MemberView(Protocol):
    """One side's member list, as it is whenever it is asked (gossip/view.py)."""

    @property
    def root(self) -> bytes: ...
    @property
    def count(self) -> int: ...
    def values(self) -> bytes:
        """The values of all buckets."""

    def marks(self, buckets: Collection[int]) -> Iterable[tuple[bytes, Mark]]:
        """Each member that counts in one of `buckets`."""

    def lack(self, node: bytes, mark: Mark) -> Lack:
        """What of the statements behind `mark` would be news."""

    def alive(self, node: bytes) -> bytes | None:
        """The whole Alive of a member; None if nothing may be told of it."""

    def proofs(self, node: bytes) -> tuple[bytes, ...]:
        """The statements that tell why a member is not alive, if it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeStep:
    """What one frame brought: frames to send, and chunks of statements to weigh (`MembersReceived`)."""

    send: tuple[bytes, ...] = ()
    members: tuple[bytes, ...] = ()


class _Stage(Enum):
    OPENING = "opening"  # the responder waits for the first frame
    ASKING = "asking"  # the initiator waits for Same or Buckets
    COMPARING = "comparing"  # turns
    WHOLE = "whole"  # all has been told; chunks may come
    DONE = "done"


class MemberExchange:
    """One side of one exchange with `peer`. `on_difference` is called when the two lists turn out to differ."""

    def __init__(
        self,
        view: MemberView,
        *,
        peer: bytes | None,
        initiator: bool,
        whole: bool = False,
        on_difference: Callable[[], None] = lambda: None,
    ) -> None:
        self._view = view
        self._peer = peer
        self._initiator = initiator
        self._whole = whole
        self._on_difference = on_difference
        self._stage = _Stage.OPENING
        self._alives: deque[bytes] = deque()  # ids of those to tell the Alive of
        self._proofs: deque[bytes] = deque()  # ids of those to tell the proofs of, once all Alives are told
        self._offers: deque[Group] = deque()  # the initiator's, to be listed
        self._compared = b""  # the responder has compared all ids up to here
        self._offered = 0  # items the initiator listed in its last frame
        self._wants = False  # the responder has asked for something
        self._said_more = self._heard_more = False
        self._turns = self._chunks = self._turn_chunks = 0

    @property
    def done(self) -> bool:
        """Whether this side has nothing more to say or ask. After a `whole` exchange chunks may still come."""
        return self._stage is _Stage.DONE or self._stage is _Stage.WHOLE

    def start(self) -> tuple[bytes, ...]:
        """The initiator's first frames; nothing for the other side."""
        if not self._initiator:
            return ()
        if self._whole:
            return self._tell_all()
        self._stage = _Stage.ASKING
        summary = Summary(root=self._view.root, count=self._view.count, notice=self._notice())
        return (encode_frame(summary),)

    def receive(self, frame: bytes) -> ExchangeStep:
        """Take one frame. Raises ExchangeError for whatever the protocol does not allow here."""
        if frame.startswith(_CHUNK_HEAD):
            return self._take_chunk(frame)
        self._turns += 1
        self._turn_chunks = 0
        if self._turns > TURNS_MAX:
            raise ExchangeError(f"no end after {TURNS_MAX} turns")
        try:
            heard = decode_frame(frame)
        except MalformedError as error:
            raise ExchangeError(str(error)) from error
        match self._stage, self._initiator, heard:
            case _Stage.OPENING, False, Summary():
                return self._answer(heard)
            case _Stage.ASKING, True, Same():
                self._stage = _Stage.DONE
                return ExchangeStep(members=(heard.notice,))
            case _Stage.ASKING, True, Buckets():
                return self._open(heard)
            case _Stage.COMPARING, False, Items():
                return self._take_items(heard)
            case _Stage.COMPARING, True, Wanted():
                return self._take_wanted(heard)
            case _:
                raise ExchangeError(f"{type(heard).__name__} out of turn")

    def __repr__(self) -> str:
        side = "initiator" if self._initiator else "responder"
        return f"MemberExchange({side}, {self._stage.value}, {self._turns} turns, {self._chunks} chunks)"

    # ------------------------------------------------------------ what comes in
    def _take_chunk(self, chunk: bytes) -> ExchangeStep:
        match self._stage:
            case _Stage.OPENING if not self._initiator:
                send, turn_chunks_max = self._tell_all(), CHUNKS_MAX
            case _Stage.WHOLE:
                send, turn_chunks_max = (), CHUNKS_MAX
            case _Stage.COMPARING if self._initiator or self._wants:
                send, turn_chunks_max = (), TURN_CHUNKS_MAX
            case _:
                raise ExchangeError("statements nobody asked for")
        self._chunks += 1
        self._turn_chunks += 1
        if len(chunk) > CHUNK_BYTES_MAX or self._chunks > CHUNKS_MAX or self._turn_chunks > turn_chunks_max:
            raise ExchangeError("more statements than an exchange may have")
        return ExchangeStep(send=send, members=(chunk,))

    def _answer(self, theirs: Summary) -> ExchangeStep:
        """The initiator's list as a whole is the same, or not."""
        if (theirs.root, theirs.count) == (self._view.root, self._view.count):
            self._stage = _Stage.DONE
            frame: Frame = Same(notice=self._notice())
        else:
            self._stage = _Stage.COMPARING
            self._on_difference()
            frame = Buckets(values=self._view.values(), notice=self._notice())
        return ExchangeStep(send=(encode_frame(frame),), members=(theirs.notice,))

    def _open(self, theirs: Buckets) -> ExchangeStep:
        """Some buckets differ: list what is in them, from a picture taken now."""
        self._stage = _Stage.COMPARING
        self._on_difference()
        found: dict[int, list[tuple[bytes, Mark]]]
        found = {bucket: [] for bucket in theirs.differing(self._view.values())}
        for node, mark in self._view.marks(found):
            found[node[0]].append((node, mark))
        self._offers.extend(
            Group(bucket=bucket, items=tuple(sorted(items))) for bucket, items in found.items()
        )
        return replace(self._list(), members=(theirs.notice,))

    def _take_wanted(self, theirs: Wanted) -> ExchangeStep:
        if len(theirs.whole) + len(theirs.proofs) > self._offered:
            raise ExchangeError("the peer wants more than it was offered")
        self._heard_more = theirs.more
        if self._last(theirs, before=self._said_more):
            return ExchangeStep()
        self._alives.extend(theirs.whole)
        self._proofs.extend(theirs.whole + theirs.proofs)
        return self._list()

    def _list(self) -> ExchangeStep:
        """The initiator's turn: tell what was asked for, list what comes next."""
        chunks = self._tell(proofs=not self._offers, chunks_max=TURN_CHUNKS_MAX)
        groups, cut = self._next_groups()
        self._offered = sum(len(group.items) for group in groups)
        self._said_more = bool(self._offers or self._alives or self._proofs)
        items = Items(more=self._said_more, cut=cut, groups=groups)
        self._last(items, before=self._heard_more)
        return ExchangeStep(send=(*chunks, encode_frame(items)))

    def _next_groups(self) -> tuple[tuple[Group, ...], bool]:
        """What fits into one frame of what is to be listed, and whether it had to be cut."""
        groups: list[Group] = []
        room = ITEMS_MAX
        while self._offers and room > 0:
            group = self._offers.popleft()
            head, rest = group.items[:room], group.items[room:]
            groups.append(Group(bucket=group.bucket, items=head))
            room -= len(head)
            if rest:
                self._offers.appendleft(Group(bucket=group.bucket, items=rest))
                return tuple(groups), True
        return tuple(groups), False

    def _take_items(self, theirs: Items) -> ExchangeStep:
        """The responder's turn: compare, tell what the initiator lacks, ask for what is lacking here."""
        self._heard_more = theirs.more
        if self._last(theirs, before=self._said_more):
            return ExchangeStep()
        whole, proofs = self._compare(theirs)
        chunks = self._tell(proofs=not theirs.more, chunks_max=TURN_CHUNKS_MAX)
        self._said_more = bool(self._alives or self._proofs)
        wanted = Wanted(more=self._said_more, whole=tuple(whole), proofs=tuple(proofs))
        self._wants = self._wants or wanted.asks
        self._last(wanted, before=self._heard_more)
        return ExchangeStep(send=(*chunks, encode_frame(wanted)))

    def _last(self, frame: Items | Wanted, *, before: bool) -> bool:
        """Whether `frame`, of either side, is the last, the other side having had more to say `before` or not."""
        if frame.asks or frame.more or before:
            return False
        self._stage = _Stage.DONE
        return True

    def _compare(self, theirs: Items) -> tuple[list[bytes], list[bytes]]:
        """Queue what the initiator lacks; (whom this side wants whole, of whom it wants the proofs)."""
        whole: list[bytes] = []
        proofs: list[bytes] = []
        ours: dict[int, list[tuple[bytes, Mark]]] = {group.bucket: [] for group in theirs.groups}
        for node, mark in self._view.marks(ours):
            ours[node[0]].append((node, mark))
        for group in theirs.groups:
            end = bytes((group.bucket,)).ljust(ID_BYTES, b"\xff")
            if theirs.cut and group is theirs.groups[-1]:
                end = group.items[-1][0]
            if end <= self._compared or (group.items and group.items[0][0] <= self._compared):
                raise ExchangeError("the peer lists what it has listed already")
            listed = dict(group.items)
            for node, mark in ours[group.bucket]:
                if self._compared < node <= end:
                    self._queue(node, mark, listed.get(node))
            for node, mark in group.items:
                match self._view.lack(node, mark):
                    case Lack.EVERYTHING:
                        whole.append(node)
                    case Lack.PROOFS:
                        proofs.append(node)
                    case Lack.NOTHING:
                        pass
            self._compared = end
        return whole, proofs

    # ------------------------------------------------------------ what goes out
    def _queue(self, node: bytes, mark: Mark, theirs: Mark | None) -> None:
        """Tell the initiator of a member it has as `theirs`, if it lacks something."""
        if theirs is None or theirs.rank < mark.rank:
            self._alives.append(node)
            self._proofs.append(node)
        elif theirs < mark:
            self._proofs.append(node)

    def _tell(self, *, proofs: bool, chunks_max: int) -> tuple[bytes, ...]:
        """Chunks of what is to be told: the Alives, and when they are all told and `proofs` says so, the proofs."""
        packing = _Packing()
        while len(packing.chunks) + 1 < chunks_max:
            if self._alives:
                alive = self._view.alive(self._alives.popleft())
                packing.add(() if alive is None else (alive,))
            elif self._proofs and proofs:
                packing.add(self._view.proofs(self._proofs.popleft()))
            else:
                break
        return packing.close()

    def _notice(self) -> bytes:
        """What is held against the peer, or an empty chunk."""
        packing = _Packing()
        packing.add(() if self._peer is None else self._view.proofs(self._peer))
        chunks = packing.close()
        return chunks[0] if chunks and len(chunks[0]) <= NOTICE_BYTES_MAX else pack([_FORMAT, []])

    def _tell_all(self) -> tuple[bytes, ...]:
        self._stage = _Stage.WHOLE
        self._alives.extend(node for node, _ in self._view.marks(range(BUCKETS)))
        self._proofs.extend(self._alives)
        return self._tell(proofs=True, chunks_max=CHUNKS_MAX)


class _Packing:
    """Statements on their way into chunks."""

    __slots__ = ("_bytes", "_items", "chunks")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self._items: list[object] = []
        self._bytes = _FRAMING_BYTES

    def add(self, statements: Iterable[bytes]) -> None:
        for statement in statements:
            size = item_bytes(statement)
            if self._bytes + size > CHUNK_BYTES_MAX or len(self._items) >= CHUNK_ITEMS_MAX:
                self._seal()
            self._items.append(statement)
            self._bytes += size

    def close(self) -> tuple[bytes, ...]:
        if self._items:
            self._seal()
        return tuple(self.chunks)

    def _seal(self) -> None:
        self.chunks.append(pack([_FORMAT, self._items]))
        self._items, self._bytes = [], _FRAMING_BYTES


def decode_members(data: bytes) -> list[Statement]:
    """The statements of one chunk. Raises MalformedError."""
    kind, items = unpack_array(data, size_max=CHUNK_BYTES_MAX, length=2)
    if kind != _FORMAT:
        raise MalformedError("members of an unknown format")
    return [
        decode_statement(as_bytes(item, "statement", size_max=STATEMENT_BYTES_MAX))
        for item in as_array(items, "statements", length_max=CHUNK_ITEMS_MAX)
    ]
