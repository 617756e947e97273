"""The frames of a reconciliation and their bytes. What they mean: crdt.reconcile.

Invariant: a frame that decodes is well-formed throughout: ranges rise, lists stay in their ranges, deltas are deltas,
records are records. Only their signatures and the order of the conversation remain to be judged.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from crdt.codec import MalformedError, pack_flat, unpack
from crdt.delta import INTRODUCTION_BYTES_MAX, Delta, delta_fault
from crdt.fingerprint import CHECK_BYTES, FINGERPRINT_BYTES
from crdt.record import SEQ_MAX, WRITER_BYTES, decode_record, encode_record, record_bytes

FRAME_BYTES_TARGET: Final = 64 * 1024
FRAME_BYTES_MAX: Final = 255 * 1024  # reached only for a record that is itself larger than the target
SPLIT: Final = 16  # parts a range is split into
SPLIT_WHOLE: Final = (
    256  # the most the first range of all is: a round trip saved where there are many writers
)

ITEM_BYTES_MAX: Final = (2 + WRITER_BYTES) + 9 + (2 + CHECK_BYTES)
ASK_BYTES_MAX: Final = 1 + (2 + WRITER_BYTES) + 9 + 1

_FORMAT: Final = 1
_ANSWER_BYTES_MAX: Final = (2 + WRITER_BYTES) + 3 * 9 + 16
_RECORD_HEADER_BYTES_MAX: Final = 5


class Span(NamedTuple):
    """A range of writers `[low, high)`; high None is the end. Bounds are prefixes of ids."""

    low: bytes
    high: bytes | None


class Item(NamedTuple):
    """What one side holds of a writer. Head 0: a proof that it equivocated."""

    writer: bytes
    head: int
    check: bytes


class Ask(NamedTuple):
    """Send me this writer above `after`; with its introduction if it is a `stranger` to me."""

    writer: bytes
    after: int
    stranger: bool


class Listing(NamedTuple):
    """All the sender holds in a range."""

    span: Span
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Fingerprints of adjoining ranges: each ends at its bound (None: the end), the first begins at `low`."""

    low: bytes
    ranges: tuple[tuple[bytes | None, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A delta somebody asked for, and the writer's credential if that was asked for and is known."""

    delta: Delta
    introduction: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One turn. `more`: the sender still has something to send or expects an answer."""

    more: bool
    probes: tuple[Probe, ...] = ()
    listings: tuple[Listing, ...] = ()
    heads: tuple[Item, ...] = ()
    asks: tuple[Ask, ...] = ()
    answers: tuple[Answer, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.probes or self.listings or self.heads or self.asks or self.answers)


def encode_frame(frame: Frame) -> bytes:
    return pack_flat(
        [
            _FORMAT,
            frame.more,
            [[probe.low, *(part for pair in probe.ranges for part in pair)] for probe in frame.probes],
            [[*listing.span, _flat(listing.items)] for listing in frame.listings],
            _flat(frame.heads),
            [list(ask) for ask in frame.asks],
            [_plain_answer(answer) for answer in frame.answers],
        ]
    )


def decode_frame(data: bytes) -> Frame:
    """Inverse of `encode_frame`. Raises MalformedError."""
    fields = _list(unpack(data, bytes_max=FRAME_BYTES_MAX, depth_max=4), 7)
    version, more, probes, listings, heads, asks, answers = fields
    if type(version) is not int or version != _FORMAT or type(more) is not bool:
        raise MalformedError("not a frame of format 1")
    return Frame(
        more=more,
        probes=tuple(map(_probe, _list(probes))),
        listings=tuple(map(_listing, _list(listings))),
        heads=_items(heads),
        asks=tuple(map(_ask, _list(asks))),
        answers=tuple(map(_answer, _list(answers))),
    )


def answer_bytes(answer: Answer) -> int:
    """An upper bound of what an answer takes in a frame."""
    return (
        _ANSWER_BYTES_MAX
        + len(answer.introduction or b"")
        + sum(record_bytes(record) + _RECORD_HEADER_BYTES_MAX for record in answer.delta.records)
    )


def _flat(items: tuple[Item, ...]) -> list[Any]:
    return [part for item in items for part in item]


def _plain_answer(answer: Answer) -> list[Any]:
    delta = answer.delta
    records = [encode_record(record) for record in delta.records]
    return [delta.writer, delta.after, delta.upto, delta.target, answer.introduction, records]


def _list(value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise MalformedError("a list was expected")
    return value


def _bytes(value: Any, length: int) -> bytes:
    if type(value) is not bytes or len(value) != length:
        raise MalformedError(f"{length} bytes were expected")
    return value


def _seq(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= SEQ_MAX:
        raise MalformedError("a seq was expected")
    return value


def _span(low: Any, high: Any) -> Span:
    if type(low) is not bytes or len(low) > WRITER_BYTES:
        raise MalformedError("a range begins with a prefix of an id")
    if high is not None and (type(high) is not bytes or len(high) > WRITER_BYTES or high <= low):
        raise MalformedError("a range ends above its beginning")
    return Span(low, high)


def _items(value: Any) -> tuple[Item, ...]:
    flat = _list(value)
    if len(flat) % 3:
        raise MalformedError("items come as writer, head and check")
    return tuple(
        Item(_bytes(writer, WRITER_BYTES), _seq(head), _bytes(check, CHECK_BYTES))
        for writer, head, check in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    )


def _probe(value: Any) -> Probe:
    fields = _list(value)
    if len(fields) < 3 or len(fields) % 2 == 0 or len(fields) > 1 + 2 * SPLIT_WHOLE:
        raise MalformedError("a probe is a bound, then pairs of bound and fingerprint")
    low, rest = fields[0], fields[1:]
    ranges = []
    for high, fingerprint in zip(rest[::2], rest[1::2], strict=True):
        if low is None:
            raise MalformedError("a range after the last one")
        span = _span(low, high)
        whole = span == Span(b"", None)
        ranges.append((span.high, _bytes(fingerprint, FINGERPRINT_BYTES if whole else CHECK_BYTES)))
        low = high
    return Probe(low=fields[0], ranges=tuple(ranges))


def _listing(value: Any) -> Listing:
    low, high, flat = _list(value, 3)
    span, items = _span(low, high), _items(flat)
    for item in items:
        if item.writer < span.low or (span.high is not None and item.writer >= span.high):
            raise MalformedError("a list names a writer outside its range")
    return Listing(span, items)


def _ask(value: Any) -> Ask:
    writer, after, stranger = _list(value, 3)
    if type(stranger) is not bool:
        raise MalformedError("an ask says whether the writer is a stranger")
    return Ask(_bytes(writer, WRITER_BYTES), _seq(after), stranger)


def _answer(value: Any) -> Answer:
    writer, after, upto, target, introduction, records = _list(value, 6)
    if introduction is not None and (
        type(introduction) is not bytes or len(introduction) > INTRODUCTION_BYTES_MAX
    ):
        raise MalformedError("an introduction is bytes, and few")
    encoded = _list(records)
    if any(type(data) is not bytes for data in encoded):
        raise MalformedError("records come as bytes")
    delta = Delta(
        writer=_bytes(writer, WRITER_BYTES),
        after=_seq(after),
        upto=_seq(upto),
        target=_seq(target),
        records=tuple(map(decode_record, encoded)),
    )
    fault = delta_fault(delta)
    if fault is not None:
        raise MalformedError(fault)
    return Answer(delta=delta, introduction=introduction)
