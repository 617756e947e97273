"""What the journal says of certificates that were issued: the signers' log, read.

A signer writes what it hears of in pages: records of kind `issuance`, whose keys are the numbers of places that it uses
again when all on a page has expired (`peer/recording.py`). A page is its writer's word for nothing but `by`: each entry
on it carries the root's signature (`trust/issued.py`), and all of them are verified, once, some each second or when
somebody asks for one. One that does not hold makes the whole page void, and nobody looks further. So a liar costs a
signature for each record it writes and raises no alarm but about itself, and cannot hide among what is false something
that is true: every peer finds an entry on a page, or none does.

Invariant: what `find`, `take_mine` and `entries` give was signed by the root. What is held is what the journal holds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from crdt.codec import MalformedError, pack, unpack
from crdt.record import Record
from peer.recordindex import RecordIndex, Source
from trust.errors import SvidError
from trust.issued import Issued, certificate_of

ISSUANCE: Final = "issuance"
PLACES_MAX: Final = 4096  # of one writer
ENTRIES_MAX: Final = 64  # on one page, which takes some 40 ms to verify
PAGE_BYTES_MAX: Final = 20 * 1024  # with the longest names

_FLAT_MAX: Final = 16 * ENTRIES_MAX


class PageError(ValueError):
    """A payload is no page. Nothing was changed."""


def encode_page(epoch: int, entries: tuple[Issued, ...]) -> bytes:
    """The payload of a record. `epoch` is that of the signers, as its writer knows it."""
    return pack([epoch, [entry.fields() for entry in entries]])


def decode_page(payload: bytes) -> tuple[int, tuple[Issued, ...]]:
    """Inverse of `encode_page`. Raises PageError. No entry is verified."""
    try:
        data = unpack(payload, bytes_max=PAGE_BYTES_MAX, depth_max=3, items_max=_FLAT_MAX)
        if not isinstance(data, list) or len(data) != 2 or type(data[0]) is not int:
            raise PageError("issuance: not a page")
        epoch, rows = data
        if not isinstance(rows, list) or not 0 < len(rows) <= ENTRIES_MAX or epoch < 0:
            raise PageError(f"issuance: a page has 1 to {ENTRIES_MAX} entries")
        return epoch, tuple(Issued.of_fields(row) for row in rows)
    except (MalformedError, SvidError) as error:
        raise PageError(f"issuance: {error}") from error


def page_fault(record: Record) -> str:
    """What is wrong with such a record; "" for nothing."""
    if place_of(record.key) is None:
        return f"issuance: the key is no number below {PLACES_MAX}"
    if not record.payload:
        return ""
    try:
        decode_page(record.payload)
    except PageError as error:
        return str(error)
    return ""


def place_of(key: str) -> int | None:
    """The place that a record's key names."""
    if not 0 < len(key) <= 4 or not key.isascii() or not key.isdecimal() or (key[0] == "0" and key != "0"):
        return None
    return place if (place := int(key)) < PLACES_MAX else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate of the log: who recorded it, in which epoch of the signers, and what it is."""

    writer: bytes
    epoch: int
    issued: Issued
    der: bytes


@dataclass(slots=True)
class _Page:
    seq: int
    epoch: int
    entries: tuple[Issued, ...]
    ders: tuple[bytes, ...] | None = None  # the certificates, once they are verified; () on a void page


class IssueLog:
    """See the module's docstring. `node` is this one, `roots` are the root's certificates (DER) that it believes."""

    def __init__(
        self, journal: Source, roots: Callable[[], tuple[bytes, ...]], trust_domain: str, node: bytes
    ) -> None:
        self._index = RecordIndex(journal, [ISSUANCE])
        self._changed = self._index.follow()
        self._roots, self._trust_domain, self._node = roots, trust_domain, node
        self._believed = roots()
        self._pages: dict[tuple[bytes, str], _Page] = {}  # by writer and key
        self._writers: dict[str, set[bytes]] = {}  # by key
        self._lines: dict[bytes, dict[tuple[bytes, str], int]] = {}  # by leaf: on which pages, as which entry
        self._unseen: dict[tuple[bytes, str], None] = {}  # pages not looked at for this node, oldest first

    def catch_up(self) -> None:
        """Read what the journal has heard since."""
        if self._roots() != self._believed:
            self._believed = self._roots()
            for place, page in self._pages.items():
                page.ders = None
                self._unseen[place] = None
        self._index.catch_up()
        while self._changed:
            _, key = self._changed.pop()
            self._reread(key)

    def find(self, leaf: bytes) -> Entry | None:
        """What is recorded of a leaf: of several certificates the one that ends last."""
        found = [self._entry(place, number) for place, number in self._lines.get(leaf, {}).items()]
        return max(filter(None, found), key=lambda entry: entry.issued.not_after, default=None)

    def take_mine(self, most: int) -> list[Entry]:
        """Entries in this node's name on pages that have come since, after about so many were verified."""
        mine: list[Entry] = []
        while self._unseen and most > 0:
            place = next(iter(self._unseen))
            del self._unseen[place]
            page = self._pages[place]
            most -= len(self._verified(page)) or 1
            mine += (
                entry
                for number, issued in enumerate(page.entries)
                if issued.node == self._node and (entry := self._entry(place, number)) is not None
            )
        return mine

    def entries(self, now: float) -> Iterator[Entry | None]:
        """What is recorded of certificates that are valid at `now`, newest first; None in place of what is false. For
        one a whole page may have to be verified."""
        lines = [
            (-issued.issued_at, place, number)
            for place, page in self._pages.items()
            for number, issued in enumerate(page.entries)
            if issued.not_after >= now
        ]
        return (self._entry(place, number) for _, place, number in sorted(lines))

    def places(self, writer: bytes) -> dict[int, float]:
        """When all on each page of a writer has expired (Unix s), by place."""
        return {
            place: max(issued.not_after for issued in page.entries)
            for (author, key), page in self._pages.items()
            if author == writer and (place := place_of(key)) is not None
        }

    @property
    def liars(self) -> set[bytes]:
        """Who has written a page with something on it that the root did not sign."""
        return {writer for (writer, _), page in self._pages.items() if page.ders == ()}

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        return f"IssueLog({len(self)} leafs, {len(self._pages)} pages)"

    # ------------------------------------------------------------------ inside

    def _reread(self, key: str) -> None:
        records = {r.writer: r for r in self._index.of(ISSUANCE, key) if r.payload and not page_fault(r)}
        for writer in list(self._writers.get(key, ())):
            record = records.get(writer)
            if record is None or record.seq != self._pages[writer, key].seq:
                self._forget((writer, key))
        for writer, record in records.items():
            if (writer, key) not in self._pages:
                self._note((writer, key), record)

    def _note(self, place: tuple[bytes, str], record: Record) -> None:
        epoch, entries = decode_page(record.payload)
        self._pages[place] = _Page(record.seq, epoch, entries)
        self._unseen[place] = None
        self._writers.setdefault(place[1], set()).add(place[0])
        for number, issued in enumerate(entries):
            self._lines.setdefault(issued.leaf, {})[place] = number

    def _forget(self, place: tuple[bytes, str]) -> None:
        self._unseen.pop(place, None)
        self._writers[place[1]].discard(place[0])
        for issued in self._pages.pop(place).entries:
            lines = self._lines.get(issued.leaf, {})
            lines.pop(place, None)
            if not lines:
                self._lines.pop(issued.leaf, None)

    def _entry(self, place: tuple[bytes, str], number: int) -> Entry | None:
        page = self._pages.get(place)
        if page is None or number >= len(page.entries):
            return None  # replaced since
        ders = self._verified(page)
        return Entry(place[0], page.epoch, page.entries[number], ders[number]) if ders else None

    def _verified(self, page: _Page) -> tuple[bytes, ...]:
        """The certificates of a page; () if one of them is false."""
        if page.ders is None:
            ders: list[bytes] = []
            for issued in page.entries:
                der = self._certificate(issued)
                if not der:
                    page.ders = ()
                    return ()
                ders.append(der)
            page.ders = tuple(ders)
        return page.ders

    def _certificate(self, issued: Issued) -> bytes:
        for root_der in self._believed:
            try:
                return certificate_of(issued, root_der, self._trust_domain)
            except SvidError:
                pass  # another root may have signed it
        return b""
